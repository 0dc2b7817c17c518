//! Waiting for a call in three ways: block, await, or be called back. No runtime is asked for.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use crate::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// A call that is under way on another thread.
///
/// [`wait`](Operation::wait) for it, `.await` it under whatever runtime there is, or have it
/// [call back](Operation::on_done). Dropped, it goes on, and nobody hears of its end.
pub struct Operation<T> {
    shared: Arc<Shared<T>>,
}

type Callback<T> = Box<dyn FnOnce(T) + Send>;

struct Shared<T> {
    state: Mutex<State<T>>,
    ended: Condvar,
}

enum State<T> {
    Running {
        waker: Option<Waker>,
        callback: Option<Callback<T>>,
    },
    Ended(T),
    /// The result was handed out, or the call panicked.
    Gone,
}

impl<T> Shared<T> {
    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends an operation; dropped without a result, the call has panicked.
pub(crate) struct Ender<T> {
    shared: Arc<Shared<T>>,
}

/// An operation, and what ends it.
pub(crate) fn operation<T>() -> (Ender<T>, Operation<T>) {
    let state = Mutex::new(State::Running { waker: None, callback: None });
    let shared = Arc::new(Shared { state, ended: Condvar::new() });
    (Ender { shared: shared.clone() }, Operation { shared })
}

impl<T> Ender<T> {
    pub(crate) fn end(self, result: T) {
        self.set(Some(result));
    }

    fn set(&self, result: Option<T>) {
        let mut state = self.shared.state();
        let State::Running { waker, callback } = &mut *state else { return };
        let (waker, callback) = (waker.take(), callback.take());
        // Whoever is called is called with no lock held.
        match (result, callback) {
            (Some(result), Some(callback)) => {
                *state = State::Gone;
                drop(state);
                callback(result);
            }
            (result, _) => {
                *state = result.map_or(State::Gone, State::Ended);
                drop(state);
            }
        }
        self.shared.ended.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> Drop for Ender<T> {
    fn drop(&mut self) {
        self.set(None);
    }
}

impl<T> Operation<T> {
    /// Whether it has ended.
    pub fn is_done(&self) -> bool {
        !matches!(*self.shared.state(), State::Running { .. })
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// If the call has panicked.
    pub fn wait(self) -> T {
        let running = |state: &mut State<T>| matches!(state, State::Running { .. });
        let waited = self.shared.ended.wait_while(self.shared.state(), running);
        taken(&mut waited.unwrap_or_else(PoisonError::into_inner))
    }

    /// Has `callback` called with the result: on the thread that ends it, which must not be held up,
    /// or on this one, now, if it has ended.
    ///
    /// # Panics
    /// If the call has panicked. If it does so later, nothing is called.
    pub fn on_done(self, callback: impl FnOnce(T) + Send + 'static) {
        let mut state = self.shared.state();
        if let State::Running { callback: slot, .. } = &mut *state {
            *slot = Some(Box::new(callback));
            return;
        }
        let result = taken(&mut state);
        drop(state);
        callback(result);
    }
}

fn taken<T>(state: &mut State<T>) -> T {
    match std::mem::replace(state, State::Gone) {
        State::Ended(result) => result,
        State::Gone => panic!("the call panicked, or its result was taken before"),
        State::Running { .. } => unreachable!("looked at before"),
    }
}

/// # Panics
/// If the call has panicked, or when polled once more after its end.
impl<T> Future for Operation<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        // Wakers are cloned and dropped with no lock held: what they do is their owner's.
        let waker = context.waker().clone();
        let mut state = self.shared.state();
        if let State::Running { waker: slot, .. } = &mut *state {
            let _before = slot.replace(waker);
            drop(state);
            return Poll::Pending;
        }
        Poll::Ready(taken(&mut state))
    }
}

impl<T> fmt::Debug for Operation<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Operation").field("is_done", &self.is_done()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::mpsc,
        task::{Wake, Waker},
        thread,
    };

    use super::*;

    struct Unpark(thread::Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    fn block_on<T>(mut operation: Operation<T>) -> T {
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        loop {
            match Pin::new(&mut operation).poll(&mut Context::from_waker(&waker)) {
                Poll::Ready(result) => return result,
                Poll::Pending => thread::park(),
            }
        }
    }

    #[test]
    fn an_operation_can_be_waited_for_awaited_and_called_back_from_before_its_end_and_after() {
        for ended_before in [false, true] {
            let ends = |ender: Ender<u32>| {
                let thread = thread::spawn(move || ender.end(7));
                if ended_before {
                    thread.join().unwrap();
                }
            };
            let (ender, waited) = operation();
            ends(ender);
            assert_eq!(waited.wait(), 7);

            let (ender, awaited) = operation();
            ends(ender);
            assert_eq!(block_on(awaited), 7);

            let (ender, called) = operation();
            let (sender, receiver) = mpsc::channel();
            if ended_before {
                ends(ender);
                called.on_done(move |result| sender.send(result).unwrap());
            } else {
                called.on_done(move |result| sender.send(result).unwrap());
                ends(ender);
            }
            assert_eq!(receiver.recv().unwrap(), 7);
        }
    }

    #[test]
    fn the_waker_of_the_last_poll_is_woken_and_may_ask_in_its_drop() {
        /// Asks whether the operation has ended when it is dropped.
        struct Asks {
            of: Arc<Shared<u32>>,
            woken: mpsc::Sender<u32>,
            number: u32,
        }
        impl Wake for Asks {
            fn wake(self: Arc<Self>) {
                self.woken.send(self.number).unwrap();
            }
        }
        impl Drop for Asks {
            fn drop(&mut self) {
                let _ended = Operation { shared: self.of.clone() }.is_done();
            }
        }
        let (ender, mut operation) = operation();
        let (woken, receiver) = mpsc::channel();
        let ended = thread::spawn(move || {
            for number in 0..3 {
                let of = operation.shared.clone();
                let waker = Waker::from(Arc::new(Asks { of, woken: woken.clone(), number }));
                let polled = Pin::new(&mut operation).poll(&mut Context::from_waker(&waker));
                assert!(polled.is_pending());
            }
            ender.end(7);
            operation.wait()
        });
        assert_eq!(receiver.recv_timeout(std::time::Duration::from_secs(30)), Ok(2));
        assert_eq!(ended.join().unwrap(), 7);
        assert!(receiver.recv().is_err(), "the others are not woken");
    }

    #[test]
    #[should_panic(expected = "the call panicked")]
    fn who_waits_for_a_call_that_panicked_does_not_wait_for_ever() {
        let (ender, operation) = operation::<u32>();
        drop(ender);
        operation.wait();
    }
}

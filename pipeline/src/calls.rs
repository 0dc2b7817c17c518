//! Threads for calls that somebody does not want to wait for: started when they are needed, a bounded
//! number, and ended when they have had nothing to do for a while.

use std::{collections::VecDeque, fmt, time::Duration};

use crate::{
    io::contain,
    operation::{Operation, operation},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, thread},
};

/// Calls at once; others wait.
pub(crate) const MAX_CALLS: usize = 16;
/// How long a thread waits for another call.
const LINGER: Duration = Duration::from_secs(1);

type Call = Box<dyn FnOnce() + Send>;

/// The threads, and what they are to do.
#[derive(Debug, Default)]
pub(crate) struct Calls(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// There is a call, or will be none any more. A thread that waits here sleeps at once: one that looked
    /// again for a while first took time from whoever makes the next call.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Call>,
    n_threads: usize,
    n_idle: usize,
    /// Nobody makes calls any more.
    ended: bool,
}

impl Calls {
    /// Runs a call on one of the threads.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        call: impl FnOnce() -> T + Send + 'static,
    ) -> Operation<T> {
        let (ender, operation) = operation();
        self.send(Box::new(move || ender.end(call())));
        operation
    }

    fn send(&self, call: Call) {
        let mut state = self.0.state();
        state.waiting.push_back(call);
        // One that was woken for an earlier call, and has not taken it yet, counts as idle.
        if state.n_idle >= state.waiting.len() {
            drop(state);
            self.0.changed.notify_one();
            return;
        }
        if state.n_threads == MAX_CALLS {
            return;
        }
        let shared = self.0.clone();
        let builder = thread::Builder::new().name("sealback-call".to_owned());
        let started = builder.spawn(move || shared.work());
        // Without another thread the call waits for one that there is.
        assert!(started.is_ok() || state.n_threads > 0, "no thread can be started: {started:?}");
        state.n_threads += usize::from(started.is_ok());
    }
}

impl Drop for Calls {
    fn drop(&mut self) {
        self.0.state().ended = true;
        self.0.changed.notify_all();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs calls, until there has been none for a while.
    fn work(&self) {
        loop {
            let mut state = self.state();
            state.n_idle += 1;
            let idle = |state: &mut State| state.waiting.is_empty() && !state.ended;
            let waited = self.changed.wait_timeout_while(state, LINGER, idle);
            (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
            state.n_idle -= 1;
            let Some(call) = state.waiting.pop_front() else {
                state.n_threads -= 1;
                return;
            };
            drop(state);
            contain(call);
        }
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let State { waiting, n_threads, n_idle, .. } = self;
        let n_waiting = waiting.len();
        write!(f, "{n_waiting} calls wait for {n_threads} threads, of which {n_idle} are idle")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_run_beside_one_another_and_every_one_of_them_runs() {
        let calls = Calls::default();
        let barrier = Arc::new(std::sync::Barrier::new(MAX_CALLS));
        let together: Vec<_> = (0..MAX_CALLS)
            .map(|_| {
                let barrier = barrier.clone();
                calls.run(move || {
                    barrier.wait();
                })
            })
            .collect();
        together.into_iter().for_each(Operation::wait);
        let many: Vec<_> = (0..1000).map(|number| calls.run(move || number)).collect();
        assert!(many.into_iter().map(Operation::wait).eq(0..1000));
        assert!(calls.0.state().n_threads <= MAX_CALLS);
    }
}

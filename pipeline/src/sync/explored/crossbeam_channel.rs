//! A channel with crossbeam's names. It has room for everything, whatever it was asked for.

use std::{collections::VecDeque, fmt, time::Duration};

use shuttle::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Condvar;

/// The end that sends.
pub(crate) struct Sender<T>(Arc<Channel<T>>);

/// The end that receives; each item goes to one of its clones.
pub(crate) struct Receiver<T>(Arc<Channel<T>>);

/// Why nothing was sent: nobody receives.
#[derive(Debug)]
pub(crate) struct SendError;

/// Why nothing was received: nobody sends.
#[derive(Debug)]
pub(crate) struct RecvError;

/// Why nothing was received in time.
#[derive(Debug)]
pub(crate) enum RecvTimeoutError {
    Disconnected,
    Timeout,
}

struct Channel<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

struct State<T> {
    items: VecDeque<T>,
    has_sender: bool,
    n_receivers: usize,
}

impl<T> State<T> {
    /// Whether whoever receives has to wait.
    fn waits(&mut self) -> bool {
        self.items.is_empty() && self.has_sender
    }
}

pub(crate) fn unbounded<T>() -> (Sender<T>, Receiver<T>) {
    let state = State { items: VecDeque::new(), has_sender: true, n_receivers: 1 };
    let channel = Arc::new(Channel { state: Mutex::new(state), changed: Condvar::new() });
    (Sender(channel.clone()), Receiver(channel))
}

pub(crate) fn bounded<T>(_room: usize) -> (Sender<T>, Receiver<T>) {
    unbounded()
}

impl<T> Channel<T> {
    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Sender<T> {
    pub(crate) fn send(&self, item: T) -> Result<(), SendError> {
        let mut state = self.0.state();
        if state.n_receivers == 0 {
            return Err(SendError);
        }
        state.items.push_back(item);
        drop(state);
        self.0.changed.notify_one();
        Ok(())
    }

    /// How many items nobody has received yet.
    pub(crate) fn len(&self) -> usize {
        self.0.state().items.len()
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.0.state().has_sender = false;
        self.0.changed.notify_all();
    }
}

impl<T> Receiver<T> {
    pub(crate) fn recv(&self) -> Result<T, RecvError> {
        let waited = self.0.changed.wait_while(self.0.state(), State::waits);
        waited.unwrap_or_else(PoisonError::into_inner).items.pop_front().ok_or(RecvError)
    }

    pub(crate) fn recv_timeout(&self, at_most: Duration) -> Result<T, RecvTimeoutError> {
        let waited = self.0.changed.wait_timeout_while(self.0.state(), at_most, State::waits);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        match state.items.pop_front() {
            Some(item) => Ok(item),
            None if state.has_sender => Err(RecvTimeoutError::Timeout),
            None => Err(RecvTimeoutError::Disconnected),
        }
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Receiver<T> {
        self.0.state().n_receivers += 1;
        Receiver(self.0.clone())
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        // As crossbeam's: what nobody will receive is dropped, with no lock held.
        let unreceived = {
            let mut state = self.0.state();
            state.n_receivers -= 1;
            if state.n_receivers > 0 { VecDeque::new() } else { std::mem::take(&mut state.items) }
        };
        drop(unreceived);
    }
}

impl<'a, T> IntoIterator for &'a Receiver<T> {
    type Item = T;
    type IntoIter = Box<dyn Iterator<Item = T> + 'a>;

    fn into_iter(self) -> Self::IntoIter {
        Box::new(std::iter::from_fn(|| self.recv().ok()))
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sender")
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Receiver")
    }
}

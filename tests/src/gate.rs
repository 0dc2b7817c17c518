//! A server whose writes wait at a gate, in the order in which they came.
//!
//! What a test lets through goes on to the server behind; so a test sees what a stream has
//! issued, and decides which answer comes next.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use sealback_stream::{Completion, Failure, Target, Write};

use crate::interpose::{Hook, InterposedServer};

/// How long a test waits for what must happen. It is no measure of speed: a test that waits this
/// long has failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// The writes that wait, of all files of a [`GateServer`].
#[derive(Clone, Debug, Default)]
pub struct Gate {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    open: bool,
    waiting: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    target: Arc<dyn Target>,
    write: Write,
    done: Completion,
}

impl Gate {
    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The block ranges of the writes that wait, in the order in which they came.
    pub fn waiting(&self) -> Vec<std::ops::Range<u64>> {
        self.state().waiting.iter().map(|waiting| waiting.write.blocks()).collect()
    }

    /// Waits until so many writes wait.
    ///
    /// # Panics
    /// If that does not happen.
    pub fn wait_for(&self, n_waiting: usize) {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.state();
        while state.waiting.len() < n_waiting {
            assert!(Instant::now() < deadline, "{} of {n_waiting} came", state.waiting.len());
            let waited = self.shared.changed.wait_timeout(state, Duration::from_millis(50));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Lets the waiting write of that index through, and waits for nothing.
    ///
    /// # Panics
    /// If there is none.
    pub fn pass(&self, index: usize) {
        let Waiting { target, write, done } = self.take(index);
        target.write(write, done);
    }

    /// Refuses the waiting write of that index.
    ///
    /// # Panics
    /// If there is none.
    pub fn fail(&self, index: usize, failure: Failure) {
        self.take(index).done.failed(failure);
    }

    fn take(&self, index: usize) -> Waiting {
        self.state().waiting.remove(index).expect("a write waits there")
    }

    /// From now on writes wait again.
    pub fn close(&self) {
        self.state().open = false;
    }

    /// Lets everything through, now and from now on.
    pub fn open(&self) {
        self.state().open = true;
        while let Some(Waiting { target, write, done }) = {
            let mut state = self.state();
            state.waiting.pop_front()
        } {
            target.write(write, done);
        }
    }
}

/// A server behind a [`Gate`], which is its `hook`.
pub type GateServer<S> = InterposedServer<S, Gate>;

impl Hook for Gate {
    fn write(&self, target: &Arc<dyn Target>, write: Write, done: Completion) {
        let mut state = self.state();
        if state.open {
            drop(state);
            return target.write(write, done);
        }
        state.waiting.push_back(Waiting { target: target.clone(), write, done });
        self.shared.changed.notify_all();
    }
}

//! The lock under which a file's size changes, where files are in memory.

use crate::{
    SizeLock, SizeLockAttempt,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

/// Whether somebody has it.
#[derive(Debug, Default)]
pub(crate) struct HeldSize {
    state: Mutex<State>,
    freed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    held: bool,
    n_waiting: usize,
}

impl HeldSize {
    /// Takes it. Blocks.
    pub(crate) fn hold(self: Arc<HeldSize>) -> SizeLock {
        {
            let mut state = self.state();
            state.n_waiting += 1;
            while state.held {
                // Notified by `Guard::drop`.
                state = self.freed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            state.n_waiting -= 1;
            state.held = true;
        }
        SizeLock::new(Guard(self))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes it, if nobody has it.
    pub(crate) fn try_hold(self: Arc<HeldSize>) -> SizeLockAttempt {
        let was_held = std::mem::replace(&mut self.state().held, true);
        match was_held {
            true => SizeLockAttempt::Unavailable,
            false => SizeLockAttempt::Taken(SizeLock::new(Guard(self))),
        }
    }
}

/// Frees it; from any thread, which a `MutexGuard` could not.
struct Guard(Arc<HeldSize>);

impl Drop for Guard {
    fn drop(&mut self) {
        let waited_for = {
            let mut state = self.0.state();
            state.held = false;
            state.n_waiting > 0
        };
        if waited_for {
            self.0.freed.notify_one();
        }
    }
}

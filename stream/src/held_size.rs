//! The lock under which a file's size changes, where files are in memory.

use crate::{
    SizeLock, SizeLockAttempt,
    sync::{Arc, Condvar, Mutex, PoisonError},
};

/// Whether somebody has it.
#[derive(Debug, Default)]
pub(crate) struct HeldSize {
    held: Mutex<bool>,
    freed: Condvar,
}

impl HeldSize {
    /// Takes it. Blocks.
    pub(crate) fn hold(self: Arc<HeldSize>) -> SizeLock {
        {
            let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
            while *held {
                // Notified by `Guard::drop`.
                held = self.freed.wait(held).unwrap_or_else(PoisonError::into_inner);
            }
            *held = true;
        }
        SizeLock::new(Guard(self))
    }

    /// Takes it, if nobody has it.
    pub(crate) fn try_hold(self: Arc<HeldSize>) -> SizeLockAttempt {
        let was_held =
            std::mem::replace(&mut *self.held.lock().unwrap_or_else(PoisonError::into_inner), true);
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
        *self.0.held.lock().unwrap_or_else(PoisonError::into_inner) = false;
        self.0.freed.notify_one();
    }
}

//! How much of the disk all logs of a directory may take.

use std::{
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
    task::Waker,
};

use super::WhenFull;
use crate::{TargetError, TargetErrorKind};

/// What the logs take, and who waits until they take less.
#[derive(Debug)]
pub(super) struct Room {
    max_bytes: u64,
    when_full: WhenFull,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    taken_bytes: u64,
    waiters: Vec<Waker>,
}

impl Room {
    pub(super) fn new(max_bytes: u64, when_full: WhenFull) -> Room {
        Room { max_bytes, when_full, state: Mutex::default() }
    }

    /// Whether half of it is taken: something is to be uploaded, if it can be.
    pub(super) fn is_short(&self) -> bool {
        self.state().taken_bytes > self.max_bytes / 2
    }

    /// Whether who writes is to wait; then `waker` is woken when there may be room.
    pub(super) fn must_wait(&self, waker: &Waker) -> bool {
        let mut state = self.state();
        if self.fails_when_full() || state.taken_bytes < self.max_bytes {
            return false;
        }
        if !state.waiters.iter().any(|waiter| waiter.will_wake(waker)) {
            state.waiters.push(waker.clone());
        }
        true
    }

    /// Whether who writes to full logs fails.
    pub(super) fn fails_when_full(&self) -> bool {
        self.when_full == WhenFull::Fail
    }

    /// Fails if there is no room for so many bytes.
    pub(super) fn check(&self, bytes: u64) -> Result<(), TargetError> {
        let taken = self.state().taken_bytes;
        if taken.saturating_add(bytes) <= self.max_bytes {
            return Ok(());
        }
        let context = format!("{taken} bytes wait to be uploaded, and no more may");
        Err(TargetError::new(TargetErrorKind::NoSpace, context))
    }

    pub(super) fn take(&self, bytes: u64) {
        self.state().taken_bytes += bytes;
    }

    pub(super) fn give_back(&self, bytes: u64) {
        self.state().taken_bytes -= bytes;
        self.wake();
    }

    /// Has all who wait look again.
    pub(super) fn wake(&self) {
        let waiters = mem::take(&mut self.state().waiters);
        waiters.into_iter().for_each(Waker::wake);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

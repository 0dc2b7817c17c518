//! What shuttle has no model of: time, and what comes from crossbeam and rayon.
//!
//! Each has the names and the promises of what it stands for, as far as they are used here, and is made
//! of shuttle's locks: so each of their steps, too, is a place where another thread may go on.

pub(crate) mod crossbeam_channel;
pub(crate) mod rayon;
mod time;

use std::collections::VecDeque;

use shuttle::sync::{Mutex, MutexGuard, PoisonError};

pub(crate) use self::time::{Condvar, Instant, thread};

/// As crossbeam's: a queue that makes nobody wait.
#[derive(Debug)]
pub(crate) struct SegQueue<T>(Mutex<VecDeque<T>>);

impl<T> SegQueue<T> {
    pub(crate) fn new() -> SegQueue<T> {
        SegQueue(Mutex::new(VecDeque::new()))
    }

    pub(crate) fn push(&self, item: T) {
        self.items().push_back(item);
    }

    pub(crate) fn pop(&self) -> Option<T> {
        self.items().pop_front()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.items().is_empty()
    }

    fn items(&self) -> MutexGuard<'_, VecDeque<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Default for SegQueue<T> {
    fn default() -> SegQueue<T> {
        SegQueue::new()
    }
}

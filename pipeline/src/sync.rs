//! What threads share, and the threads: std's, crossbeam's and rayon's, or, under `--cfg shuttle`, those
//! whose every step is a place where a model may go on with another thread.

#[cfg(shuttle)]
mod explored;

#[cfg(shuttle)]
pub(crate) use explored::{Condvar, Instant, SegQueue, crossbeam_channel, rayon, thread};
#[cfg(shuttle)]
pub(crate) use shuttle::sync::{
    Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak, atomic,
};
#[cfg(not(shuttle))]
pub(crate) use {
    ::crossbeam_channel,
    ::rayon,
    crossbeam_queue::SegQueue,
    std::{
        sync::{
            Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard,
            RwLockWriteGuard, Weak, atomic,
        },
        thread,
        time::Instant,
    },
};

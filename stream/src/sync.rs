//! What threads share: std's types, or, under `--cfg shuttle`, those whose every step is a place where
//! a model may go on with another thread.
//!
//! Nothing else here names `std::sync`, but for [`Arc`](std::sync::Arc) alone, for `faulty`, and for `local`, whose
//! locks are files', and `object`, whose runtime is its own, which no model runs.

#[cfg(shuttle)]
pub(crate) use shuttle::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak, atomic};
#[cfg(not(shuttle))]
pub(crate) use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak, atomic};

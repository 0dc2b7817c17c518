//! What threads share: std's types, or, under `--cfg shuttle`, those whose every step is a place where
//! a model may go on with another thread.

#[cfg(shuttle)]
pub(crate) use shuttle::sync::{Arc, Mutex, MutexGuard, PoisonError};
#[cfg(not(shuttle))]
pub(crate) use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

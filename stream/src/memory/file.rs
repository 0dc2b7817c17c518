//! One file in memory, and handles to it.

use std::{fmt, task::Waker};

use super::{meter::Meter, shelf::Unpublished};
use crate::{
    Prepared, SizeLock, SizeLockAttempt, TargetError,
    flat::{Flat, Operation, Place},
    held_size::HeldSize,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// What a name stands for.
#[derive(Debug, Default)]
pub(crate) struct Inode {
    bytes: Mutex<Vec<u8>>,
    size: Arc<HeldSize>,
}

impl Inode {
    pub(super) fn new(bytes: Vec<u8>) -> Inode {
        Inode { bytes: Mutex::new(bytes), ..Inode::default() }
    }

    /// A panic under the lock leaves what a crash could leave, too.
    pub(super) fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An open file, and whatever more there is to it.
#[derive(Debug)]
pub(super) struct MemoryFile<M> {
    pub(super) inode: Arc<Inode>,
    pub(super) meter: Arc<Meter>,
    pub(super) more: M,
}

/// What there can be to a file beside its bytes.
pub(super) trait More: fmt::Debug + Send + Sync + 'static {
    /// Publishes it, if it is a draft.
    fn publish(&self, _inode: &Arc<Inode>) {}
}

impl More for Unpublished<Inode> {
    fn publish(&self, inode: &Arc<Inode>) {
        Unpublished::publish(self, inode);
    }
}

impl<M: More> Place for MemoryFile<M> {
    fn identity(&self) -> u128 {
        Arc::as_ptr(&self.inode).addr() as u128
    }

    fn grant(&self, block: u64, waker: &Waker) -> Prepared {
        self.meter.grant(block, waker)
    }

    fn exclusively<R>(&self, step: impl FnOnce(&mut dyn Flat) -> R) -> Result<R, TargetError> {
        Ok(step(&mut *self.inode.bytes()))
    }

    fn look<R>(&self, step: impl FnOnce(&dyn Flat) -> R) -> R {
        step(&*self.inode.bytes())
    }

    fn make_durable(&self) -> Result<(), TargetError> {
        Ok(())
    }

    fn put_in_place(&self) -> Result<(), TargetError> {
        self.more.publish(&self.inode);
        Ok(())
    }

    fn hold_size(&self) -> Result<Option<SizeLock>, TargetError> {
        Ok(self.meter.has_size_lock().then(|| self.inode.size.clone().hold()))
    }

    fn try_hold_size(&self) -> Result<SizeLockAttempt, TargetError> {
        Ok(match self.meter.has_size_lock() {
            true => self.inode.size.clone().try_hold(),
            false => SizeLockAttempt::Lockless,
        })
    }

    fn note(&self, operation: Operation) {
        self.meter.note(operation);
    }
}

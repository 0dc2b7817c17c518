//! An open file that is written behind: a new one that is here as a whole, or one of the server's with a log.

use std::{
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, Weak},
    task::Waker,
};

use sealback_crypto::{Geometry, SlotExpectation, SlotWrite};

use super::{WriteBehind, log::WriteLog};
use crate::{
    Completion, Grant, Name, Prepared, Read, ReadCompletion, Server, SizeLock, SizeLockAttempt,
    Target, TargetError, TargetErrorKind, Write,
};

/// A write to a log is copied there; larger ones gain nothing.
const WRITE_BYTES: u64 = 4 << 20;

/// An open file that is written behind: what [`Target::behind`] is of one.
#[derive(Debug)]
pub struct BehindFile {
    me: Weak<BehindFile>,
    behind: WriteBehind,
    name: Name,
    stage: RwLock<Stage>,
    /// Held, with others, over what changes a file of which all is here; alone by who uploads that. Before the
    /// stage.
    changes: RwLock<()>,
}

/// Where a file is.
#[derive(Debug)]
pub(super) enum Stage {
    /// Here only, and without its name.
    Draft(Arc<dyn Target>),
    /// On the server, but for what was written since.
    Logged(Arc<WriteLog>),
    /// Here only, under its name.
    New(Arc<dyn Target>),
}

impl BehindFile {
    pub(super) fn new(behind: WriteBehind, name: Name, stage: Stage) -> Arc<BehindFile> {
        let stage = RwLock::new(stage);
        Arc::new_cyclic(|me| BehindFile {
            me: me.clone(),
            behind,
            name,
            stage,
            changes: RwLock::default(),
        })
    }

    pub(super) fn name(&self) -> &Name {
        &self.name
    }

    pub(super) fn me(&self) -> Weak<BehindFile> {
        self.me.clone()
    }

    /// Held over what changes the file.
    fn changes(&self) -> RwLockReadGuard<'_, ()> {
        self.changes.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn stage(&self) -> RwLockReadGuard<'_, Stage> {
        self.stage.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether all of it is here, and under its name.
    pub(super) fn is_new(&self) -> bool {
        matches!(&*self.stage(), Stage::New(_))
    }

    /// It, if all of it is here, under its name.
    fn new_file(&self) -> Option<Arc<dyn Target>> {
        match &*self.stage() {
            Stage::New(new) => Some(new.clone()),
            Stage::Draft(_) | Stage::Logged(_) => None,
        }
    }

    /// What was written to it and is not on the server; `None` as long as all of the file is here.
    pub fn log(&self) -> Option<Arc<WriteLog>> {
        match &*self.stage() {
            Stage::Logged(log) => Some(log.clone()),
            Stage::Draft(_) | Stage::New(_) => None,
        }
    }

    /// Whether what waits takes so much that it should be uploaded, to make room.
    pub fn is_short_of_room(&self) -> bool {
        self.log().is_some_and(|log| log.is_short_of_room())
    }

    /// Has a file of which all is here taken to the server, by `upload`, which is given it, the server and
    /// its name there, and puts it in its place; does nothing for one that is there. Who changes the file
    /// waits until that is done; who reads it does not. Returns what `upload` did.
    ///
    /// # Errors
    /// [`TargetError`] if the server is not there, or the file cannot be let go of here: all of it is still
    /// here, as it is if `upload` fails.
    pub fn upload_new<E>(
        &self,
        upload: impl FnOnce(&dyn Target, &dyn Server, &Name) -> Result<(), E>,
    ) -> Result<Result<(), E>, TargetError> {
        // Not with the stage held: whoever opens files looks at it with the logs held.
        let log = self.behind.log_of(&self.name, &self.read_header()?, None)?;
        let unsealed = || TargetError::new(TargetErrorKind::Unsupported, "it is no sealed file");
        let log = log.ok_or_else(unsealed)?;
        let _alone = self.changes.write().unwrap_or_else(PoisonError::into_inner);
        let Some(new) = self.new_file() else { return Ok(Ok(())) };
        let uploaded = upload(&*new, self.behind.home.server()?, &self.name);
        if uploaded.is_ok() {
            log.keep_header(&new.read_header()?)?;
            self.behind.new.remove(&self.name)?;
            *self.stage.write().unwrap_or_else(PoisonError::into_inner) = Stage::Logged(log);
        }
        Ok(uploaded)
    }
}

impl Target for BehindFile {
    fn identity(&self) -> u128 {
        std::ptr::from_ref(self).addr() as u128
    }

    fn prepare(&self, block: u64, waker: &Waker) -> Prepared {
        match &*self.stage() {
            Stage::Draft(new) | Stage::New(new) => new.prepare(block, waker),
            Stage::Logged(log) if log.must_wait(waker) => Prepared::Later,
            Stage::Logged(_) => {
                Prepared::Granted(Grant::unlimited().with_max_bytes(WRITE_BYTES).with_gaps())
            }
        }
    }

    fn write(&self, write: Write, done: Completion) {
        let changes = self.changes();
        let stage = self.stage();
        let log = match &*stage {
            Stage::Draft(new) | Stage::New(new) => return new.write(write, done),
            Stage::Logged(log) => log.clone(),
        };
        drop((stage, changes));
        let outcome = log.write(&write);
        // The sealed buffers go home before anyone hears of the end.
        drop(write);
        match outcome {
            Ok(bytes) => done.written(bytes),
            Err(failure) => done.failed(failure),
        }
    }

    fn read(&self, read: Read, done: ReadCompletion) {
        let stage = self.stage();
        let log = match &*stage {
            Stage::Draft(new) | Stage::New(new) => return new.read(read, done),
            Stage::Logged(log) => log.clone(),
        };
        drop(stage);
        let Read { blocks, geometry, mut buffer } = read;
        let asked = blocks.end.saturating_sub(blocks.start).saturating_mul(geometry.stride_bytes());
        let outcome = match usize::try_from(asked) {
            Ok(asked) if asked <= buffer.len() => log.read(&blocks, &mut buffer[..asked]),
            _ => {
                let context = "the buffer has less room than is to be read";
                Err(TargetError::new(TargetErrorKind::Unsupported, context))
            }
        };
        match outcome {
            Ok(bytes) => done.read(buffer, bytes),
            Err(error) => done.failed(error),
        }
    }

    fn read_header(&self) -> Result<Vec<u8>, TargetError> {
        match &*self.stage() {
            Stage::Draft(new) | Stage::New(new) => new.read_header(),
            Stage::Logged(log) => log.read_header(),
        }
    }

    fn write_slot(&self, write: &SlotWrite) -> Result<(), TargetError> {
        let _changes = self.changes();
        match &*self.stage() {
            Stage::Draft(new) | Stage::New(new) => new.write_slot(write),
            Stage::Logged(log) => log.server()?.write_slot(write),
        }
    }

    fn cut(
        &self,
        geometry: Geometry,
        n_blocks: u64,
        expect: &SlotExpectation,
    ) -> Result<(), TargetError> {
        let _changes = self.changes();
        match &*self.stage() {
            Stage::Draft(new) | Stage::New(new) => new.cut(geometry, n_blocks, expect),
            Stage::Logged(log) => {
                log.server()?.cut(geometry, n_blocks, expect)?;
                log.cut(n_blocks)
            }
        }
    }

    fn barrier(&self) -> Result<(), TargetError> {
        match &*self.stage() {
            Stage::Draft(new) | Stage::New(new) => new.barrier(),
            Stage::Logged(log) => log.sync(),
        }
    }

    fn publish(&self) -> Result<(), TargetError> {
        let mut stage = self.stage.write().unwrap_or_else(PoisonError::into_inner);
        if let Stage::Draft(draft) = &*stage {
            draft.publish()?;
            *stage = Stage::New(draft.clone());
            drop(stage);
            self.behind.published(self)?;
        }
        Ok(())
    }

    fn lock_size(&self) -> Result<Option<SizeLock>, TargetError> {
        match &*self.stage() {
            Stage::Draft(new) | Stage::New(new) => new.lock_size(),
            Stage::Logged(_) => Ok(None),
        }
    }

    fn try_lock_size(&self) -> Result<SizeLockAttempt, TargetError> {
        match &*self.stage() {
            Stage::Draft(new) | Stage::New(new) => new.try_lock_size(),
            Stage::Logged(_) => Ok(SizeLockAttempt::Lockless),
        }
    }

    fn behind(&self) -> Option<&BehindFile> {
        Some(self)
    }
}

//! A file of an object server as a target: every call becomes requests on the server's own thread.

use std::{fmt, sync::Arc, task::Waker};

use sealback_crypto::{Geometry, SlotExpectation, SlotWrite};

use super::{file::OpenObject, server::Shared};
use crate::{
    Completion, Grant, Prepared, Read, ReadCompletion, SizeLock, SizeLockAttempt, Target,
    TargetError, Write,
};

/// A handle to a file.
pub(super) struct ObjectFile {
    pub(super) file: Arc<OpenObject>,
    pub(super) server: Arc<Shared>,
}

impl ObjectFile {
    /// Carries something out, and waits for it.
    fn run<T, F>(&self, task: impl FnOnce(Arc<OpenObject>) -> F) -> Result<T, TargetError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, TargetError>> + Send + 'static,
    {
        self.server.runtime.run(task(self.file.clone()))
    }
}

impl Target for ObjectFile {
    /// Two servers of one process that were given the same store and prefix have the same files.
    fn identity(&self) -> u128 {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.file.store.address().to_le_bytes());
        hasher.update(self.file.keys.chunks(self.file.file_id).as_ref().as_bytes());
        let hash = hasher.finalize();
        u128::from_le_bytes(*hash.as_bytes().first_chunk().expect("a hash has 32 bytes"))
    }

    fn prepare(&self, block: u64, waker: &Waker) -> Prepared {
        let Some(credit) = self.file.credits.take(waker) else { return Prepared::Later };
        let chunk_blocks = u64::from(self.file.geometry.chunk_blocks());
        let boundary = (block / chunk_blocks + 1).saturating_mul(chunk_blocks);
        let grant = Grant::unlimited().with_boundary(boundary).with_gaps().with_credit(credit);
        Prepared::Granted(grant)
    }

    fn is_immediate(&self) -> bool {
        true
    }

    fn write(&self, write: Write, done: Completion) {
        let (file, teller) = (self.file.clone(), self.server.runtime.teller());
        self.server.runtime.spawn(async move {
            let outcome = file.write(&write).await;
            // The sealed buffers go home, and the file is let go of, before anyone hears of the end.
            drop((write, file));
            teller.tell(move || match outcome {
                Ok(bytes) => done.written(bytes),
                Err(failure) => done.failed(failure),
            });
        });
    }

    fn read(&self, mut read: Read, done: ReadCompletion) {
        let (file, teller) = (self.file.clone(), self.server.runtime.teller());
        self.server.runtime.spawn(async move {
            let outcome = file.read(&mut read).await;
            drop(file);
            teller.tell(move || match outcome {
                Ok(bytes) => done.read(read.buffer, bytes),
                Err(error) => done.failed(error),
            });
        });
    }

    fn read_header(&self) -> Result<Vec<u8>, TargetError> {
        self.run(|file| async move { file.read_header().await.map(Vec::from) })
    }

    fn write_slot(&self, write: &SlotWrite) -> Result<(), TargetError> {
        let write = write.clone();
        self.run(|file| async move { file.write_slot(&write).await })
    }

    fn cut(
        &self,
        geometry: Geometry,
        n_blocks: u64,
        expect: &SlotExpectation,
    ) -> Result<(), TargetError> {
        let expect = expect.clone();
        self.run(move |file| async move { file.cut(geometry, n_blocks, &expect).await })
    }

    /// What a store has acknowledged is durable.
    fn barrier(&self) -> Result<(), TargetError> {
        Ok(())
    }

    fn publish(&self) -> Result<(), TargetError> {
        let server = self.server.clone();
        self.run(|file| async move { server.publish(&file).await })
    }

    fn lock_size(&self) -> Result<Option<SizeLock>, TargetError> {
        Ok(None)
    }

    fn try_lock_size(&self) -> Result<SizeLockAttempt, TargetError> {
        Ok(SizeLockAttempt::Lockless)
    }
}

impl fmt::Debug for ObjectFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.file.fmt(f)
    }
}

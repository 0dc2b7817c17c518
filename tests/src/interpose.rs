//! A server behind a hook: what every kit that stands between the engine and a server has in common.

use std::{
    fmt,
    ops::{Deref, Range},
    sync::Arc,
    task::Waker,
};

use sealback_crypto::{FileId, Geometry, HEADER_BYTES, Nonce, Sealed, SlotExpectation, SlotWrite};
use sealback_stream::{
    Cache, CacheFile, Completion, Granule, Name, Prepared, Read, ReadCompletion, Server, SizeLock,
    SizeLockAttempt, Target, TargetError, Write,
};

/// What happens to operations on their way to the server. Each goes through
/// as it is unless overridden.
pub trait Hook: fmt::Debug + Send + Sync + 'static {
    /// A write of blocks.
    fn write(&self, target: &Arc<dyn Target>, write: Write, done: Completion) {
        target.write(write, done);
    }

    /// A read of blocks.
    fn read(&self, target: &Arc<dyn Target>, read: Read, done: ReadCompletion) {
        target.read(read, done);
    }

    /// What is asked of the server before anything but a write, a read of blocks, a header's slot or a cut.
    ///
    /// # Errors
    /// What the engine is told, instead of the server's answer.
    fn ask(&self) -> Result<(), TargetError> {
        Ok(())
    }

    /// A header's slot, or a cut: `change` carries it out.
    ///
    /// # Errors
    /// What the engine is told.
    fn control(
        &self,
        change: &mut dyn FnMut() -> Result<(), TargetError>,
    ) -> Result<(), TargetError> {
        change()
    }
}

/// A server whose changes go through a hook. Everything else of the server is there as it was.
#[derive(Debug)]
pub struct InterposedServer<S, H> {
    /// What stands between.
    pub hook: Arc<H>,
    server: S,
}

impl<S: Clone, H> Clone for InterposedServer<S, H> {
    fn clone(&self) -> InterposedServer<S, H> {
        InterposedServer { hook: self.hook.clone(), server: self.server.clone() }
    }
}

impl<S: Server, H: Hook> InterposedServer<S, H> {
    /// Puts `hook` before `server`.
    pub fn new(server: S, hook: H) -> InterposedServer<S, H> {
        InterposedServer { hook: Arc::new(hook), server }
    }

    fn behind(&self, target: Arc<dyn Target>) -> Arc<dyn Target> {
        Arc::new(Interposed { target, copy: (), hook: self.hook.clone() })
    }
}

impl<S, H> Deref for InterposedServer<S, H> {
    type Target = S;

    fn deref(&self) -> &S {
        &self.server
    }
}

impl<S: Server, H: Hook> Server for InterposedServer<S, H> {
    fn create(
        &self,
        name: &Name,
        file_id: FileId,
        header: &[u8; HEADER_BYTES],
    ) -> Result<Arc<dyn Target>, TargetError> {
        self.hook.ask()?;
        self.server.create(name, file_id, header).map(|target| self.behind(target))
    }

    fn draft(
        &self,
        name: &Name,
        file_id: FileId,
        header: &[u8; HEADER_BYTES],
    ) -> Result<Arc<dyn Target>, TargetError> {
        self.hook.ask()?;
        self.server.draft(name, file_id, header).map(|target| self.behind(target))
    }

    fn open(&self, name: &Name) -> Result<Arc<dyn Target>, TargetError> {
        self.hook.ask()?;
        self.server.open(name).map(|target| self.behind(target))
    }

    fn remove(&self, name: &Name) -> Result<(), TargetError> {
        self.hook.ask()?;
        self.server.remove(name)
    }

    fn chunk_blocks(&self, block_bytes: u64) -> u32 {
        self.server.chunk_blocks(block_bytes)
    }

    fn identify(&self, known: Option<u128>) -> Result<Option<u128>, TargetError> {
        self.hook.ask()?;
        self.server.identify(known)
    }
}

/// A cache whose changes go through a hook.
#[derive(Debug)]
pub struct InterposedCache<C, H> {
    /// What stands between.
    pub hook: Arc<H>,
    cache: C,
}

impl<C: Cache, H: Hook> InterposedCache<C, H> {
    /// Puts `hook` before `cache`.
    pub fn new(cache: C, hook: H) -> InterposedCache<C, H> {
        InterposedCache { hook: Arc::new(hook), cache }
    }
}

impl<C: Cache, H: Hook> Cache for InterposedCache<C, H> {
    fn open(&self, file_id: FileId, geometry: Geometry) -> Result<Arc<dyn CacheFile>, TargetError> {
        let copy = self.cache.open(file_id, geometry)?;
        let target = copy.clone() as Arc<dyn Target>;
        Ok(Arc::new(Interposed { target, copy, hook: self.hook.clone() }))
    }
}

impl<H: Hook> CacheFile for Interposed<Arc<dyn CacheFile>, H> {
    fn present(&self, blocks: Range<u64>) -> Vec<Option<Nonce>> {
        self.copy.present(blocks)
    }

    fn forget(&self, blocks: Range<u64>) -> Result<(), TargetError> {
        self.copy.forget(blocks)
    }

    fn confirm(&self, sealed: &Sealed) -> Result<(), TargetError> {
        self.copy.confirm(sealed)
    }

    fn invalidate(&self) -> Result<(), TargetError> {
        self.copy.invalidate()
    }

    fn set_header(
        &self,
        header: &[u8; HEADER_BYTES],
        stored_bytes: u64,
    ) -> Result<(), TargetError> {
        self.copy.set_header(header, stored_bytes)
    }

    fn granule(&self) -> Option<Granule> {
        self.copy.granule()
    }
}

/// A target behind a hook; `copy` is the same as a cache's copy, or nothing.
#[derive(Debug)]
struct Interposed<C, H> {
    target: Arc<dyn Target>,
    copy: C,
    hook: Arc<H>,
}

impl<C: fmt::Debug + Send + Sync + 'static, H: Hook> Target for Interposed<C, H> {
    fn identity(&self) -> u128 {
        self.target.identity()
    }

    fn prepare(&self, block: u64, waker: &Waker) -> Prepared {
        self.target.prepare(block, waker)
    }

    fn write(&self, write: Write, done: Completion) {
        self.hook.write(&self.target, write, done);
    }

    fn read(&self, read: Read, done: ReadCompletion) {
        self.hook.read(&self.target, read, done);
    }

    fn read_header(&self) -> Result<Vec<u8>, TargetError> {
        self.hook.ask()?;
        self.target.read_header()
    }

    fn write_slot(&self, write: &SlotWrite) -> Result<(), TargetError> {
        self.hook.control(&mut || self.target.write_slot(write))
    }

    fn cut(
        &self,
        geometry: Geometry,
        n_blocks: u64,
        expect: &SlotExpectation,
    ) -> Result<(), TargetError> {
        self.hook.control(&mut || self.target.cut(geometry, n_blocks, expect))
    }

    fn barrier(&self) -> Result<(), TargetError> {
        self.hook.ask()?;
        self.target.barrier()
    }

    fn publish(&self) -> Result<(), TargetError> {
        self.hook.ask()?;
        self.target.publish()
    }

    fn lock_size(&self) -> Result<Option<SizeLock>, TargetError> {
        self.hook.ask()?;
        self.target.lock_size()
    }

    fn try_lock_size(&self) -> Result<SizeLockAttempt, TargetError> {
        self.hook.ask()?;
        self.target.try_lock_size()
    }
}

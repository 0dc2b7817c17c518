//! A server behind a hook: what every kit that stands between the engine and a server has in common.

use std::{fmt, ops::Deref, sync::Arc, task::Waker};

use sealback_crypto::{FileId, HEADER_BYTES, SlotExpectation, SlotWrite};
use sealback_stream::{
    Completion, Name, Prepared, Read, ReadCompletion, Server, SizeLock, Target, TargetError, Write,
};

/// What happens to the operations that change a file, on their way to the server. Each goes through
/// as it is unless overridden.
pub trait Hook: fmt::Debug + Send + Sync + 'static {
    /// A write of blocks.
    fn write(&self, target: &Arc<dyn Target>, write: Write, done: Completion) {
        target.write(write, done);
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
        Arc::new(InterposedTarget { target, hook: self.hook.clone() })
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
        self.server.create(name, file_id, header).map(|target| self.behind(target))
    }

    fn draft(
        &self,
        name: &Name,
        file_id: FileId,
        header: &[u8; HEADER_BYTES],
    ) -> Result<Arc<dyn Target>, TargetError> {
        self.server.draft(name, file_id, header).map(|target| self.behind(target))
    }

    fn open(&self, name: &Name) -> Result<Arc<dyn Target>, TargetError> {
        self.server.open(name).map(|target| self.behind(target))
    }

    fn remove(&self, name: &Name) -> Result<(), TargetError> {
        self.server.remove(name)
    }
}

#[derive(Debug)]
struct InterposedTarget<H> {
    target: Arc<dyn Target>,
    hook: Arc<H>,
}

impl<H: Hook> Target for InterposedTarget<H> {
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
        self.target.read(read, done);
    }

    fn read_header(&self) -> Result<Vec<u8>, TargetError> {
        self.target.read_header()
    }

    fn write_slot(&self, write: &SlotWrite) -> Result<(), TargetError> {
        self.hook.control(&mut || self.target.write_slot(write))
    }

    fn cut(
        &self,
        n_blocks: u64,
        stored_bytes: u64,
        expect: &SlotExpectation,
    ) -> Result<(), TargetError> {
        self.hook.control(&mut || self.target.cut(n_blocks, stored_bytes, expect))
    }

    fn barrier(&self) -> Result<(), TargetError> {
        self.target.barrier()
    }

    fn publish(&self) -> Result<(), TargetError> {
        self.target.publish()
    }

    fn lock_size(&self) -> Result<Option<SizeLock>, TargetError> {
        self.target.lock_size()
    }
}

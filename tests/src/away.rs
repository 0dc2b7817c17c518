//! A server that goes away and comes back: while it is away, everything that is asked of it ends with an
//! error that says so.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::Waker,
};

use sealback_crypto::{FileId, Geometry, HEADER_BYTES, SlotExpectation, SlotWrite};
use sealback_stream::{
    Completion, Failure, Name, Prepared, Read, ReadCompletion, Server, SizeLock, Target,
    TargetError, TargetErrorKind, Write,
};

/// A server that can be away. Clones are the same.
#[derive(Clone, Debug)]
pub struct AwayServer {
    server: Arc<dyn Server>,
    road: Arc<Road>,
}

/// Whether there is a way to the server, and how often it was looked for.
#[derive(Debug, Default)]
struct Road {
    closed: AtomicBool,
    n_refused: AtomicU64,
}

impl Road {
    fn check(&self) -> Result<(), TargetError> {
        if !self.closed.load(Ordering::SeqCst) {
            return Ok(());
        }
        self.n_refused.fetch_add(1, Ordering::SeqCst);
        Err(TargetError::new(TargetErrorKind::TimedOut, "the server is away"))
    }
}

impl AwayServer {
    /// A server that is there.
    pub fn new(server: impl Server) -> AwayServer {
        AwayServer { server: Arc::new(server), road: Arc::default() }
    }

    /// It is away from now on, or there again.
    pub fn set_away(&self, away: bool) {
        self.road.closed.store(away, Ordering::SeqCst);
    }

    /// How often it was asked while it was away.
    pub fn n_refused(&self) -> u64 {
        self.road.n_refused.load(Ordering::SeqCst)
    }

    fn at(&self, target: Arc<dyn Target>) -> Arc<dyn Target> {
        Arc::new(AwayTarget { target, road: self.road.clone() })
    }
}

impl Server for AwayServer {
    fn create(
        &self,
        name: &Name,
        file_id: FileId,
        header: &[u8; HEADER_BYTES],
    ) -> Result<Arc<dyn Target>, TargetError> {
        self.road.check()?;
        Ok(self.at(self.server.create(name, file_id, header)?))
    }

    fn draft(
        &self,
        name: &Name,
        file_id: FileId,
        header: &[u8; HEADER_BYTES],
    ) -> Result<Arc<dyn Target>, TargetError> {
        self.road.check()?;
        Ok(self.at(self.server.draft(name, file_id, header)?))
    }

    fn chunk_blocks(&self, block_bytes: u64) -> u32 {
        self.server.chunk_blocks(block_bytes)
    }

    fn open(&self, name: &Name) -> Result<Arc<dyn Target>, TargetError> {
        self.road.check()?;
        Ok(self.at(self.server.open(name)?))
    }

    fn remove(&self, name: &Name) -> Result<(), TargetError> {
        self.road.check()?;
        self.server.remove(name)
    }
}

#[derive(Debug)]
struct AwayTarget {
    target: Arc<dyn Target>,
    road: Arc<Road>,
}

impl Target for AwayTarget {
    fn identity(&self) -> u128 {
        self.target.identity()
    }

    fn prepare(&self, block: u64, waker: &Waker) -> Prepared {
        self.target.prepare(block, waker)
    }

    fn write(&self, write: Write, done: Completion) {
        match self.road.check() {
            Ok(()) => self.target.write(write, done),
            Err(error) => done.failed(Failure::Retry(error)),
        }
    }

    fn read(&self, read: Read, done: ReadCompletion) {
        match self.road.check() {
            Ok(()) => self.target.read(read, done),
            Err(error) => done.failed(error),
        }
    }

    fn read_header(&self) -> Result<Vec<u8>, TargetError> {
        self.road.check()?;
        self.target.read_header()
    }

    fn write_slot(&self, write: &SlotWrite) -> Result<(), TargetError> {
        self.road.check()?;
        self.target.write_slot(write)
    }

    fn cut(
        &self,
        geometry: Geometry,
        n_blocks: u64,
        expect: &SlotExpectation,
    ) -> Result<(), TargetError> {
        self.road.check()?;
        self.target.cut(geometry, n_blocks, expect)
    }

    fn barrier(&self) -> Result<(), TargetError> {
        self.road.check()?;
        self.target.barrier()
    }

    fn publish(&self) -> Result<(), TargetError> {
        self.road.check()?;
        self.target.publish()
    }

    fn lock_size(&self) -> Result<Option<SizeLock>, TargetError> {
        self.road.check()?;
        self.target.lock_size()
    }
}

//! A server that hands out no blocks: what is read through it comes from the cache alone.

use std::{sync::Arc, task::Waker};

use sealback::{
    crypto::{FileId, Geometry, HEADER_BYTES, SlotExpectation, SlotWrite},
    stream::{
        Completion, LocalServer, Name, Prepared, Read, ReadCompletion, Server, SizeLock, Target,
        TargetError, TargetErrorKind, Write,
    },
};

/// A server that does everything but hand out blocks.
#[derive(Debug)]
pub(crate) struct CutOff(LocalServer);

impl CutOff {
    pub(crate) fn new(server: LocalServer) -> CutOff {
        CutOff(server)
    }
}

type Opened = Result<Arc<dyn Target>, TargetError>;

impl Server for CutOff {
    fn create(&self, name: &Name, file_id: FileId, header: &[u8; HEADER_BYTES]) -> Opened {
        Ok(Arc::new(CutOffFile(self.0.create(name, file_id, header)?)))
    }

    fn draft(&self, name: &Name, file_id: FileId, header: &[u8; HEADER_BYTES]) -> Opened {
        Ok(Arc::new(CutOffFile(self.0.draft(name, file_id, header)?)))
    }

    fn open(&self, name: &Name) -> Opened {
        Ok(Arc::new(CutOffFile(self.0.open(name)?)))
    }

    fn remove(&self, name: &Name) -> Result<(), TargetError> {
        self.0.remove(name)
    }

    fn chunk_blocks(&self, block_bytes: u64) -> u32 {
        self.0.chunk_blocks(block_bytes)
    }
}

/// A file whose blocks can be written but not read.
#[derive(Debug)]
struct CutOffFile(Arc<dyn Target>);

impl Target for CutOffFile {
    fn identity(&self) -> u128 {
        // Another file than the one that answers: the demonstration must not get its handles.
        std::ptr::from_ref(self).addr() as u128
    }

    fn prepare(&self, block: u64, waker: &Waker) -> Prepared {
        self.0.prepare(block, waker)
    }

    fn write(&self, write: Write, done: Completion) {
        self.0.write(write, done);
    }

    fn read(&self, _read: Read, done: ReadCompletion) {
        let refusal = "the server is cut off: no block comes from it";
        done.failed(TargetError::new(TargetErrorKind::Unsupported, refusal));
    }

    fn read_header(&self) -> Result<Vec<u8>, TargetError> {
        self.0.read_header()
    }

    fn write_slot(&self, write: &SlotWrite) -> Result<(), TargetError> {
        self.0.write_slot(write)
    }

    fn cut(
        &self,
        geometry: Geometry,
        n_blocks: u64,
        expect: &SlotExpectation,
    ) -> Result<(), TargetError> {
        self.0.cut(geometry, n_blocks, expect)
    }

    fn barrier(&self) -> Result<(), TargetError> {
        self.0.barrier()
    }

    fn publish(&self) -> Result<(), TargetError> {
        self.0.publish()
    }

    fn lock_size(&self) -> Result<Option<SizeLock>, TargetError> {
        self.0.lock_size()
    }
}

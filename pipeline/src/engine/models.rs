//! A small engine for models, with a server that answers as it is told to; and what an engine's end has
//! to bring about.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use sealback_crypto::{
    Engine as Cipher, Geometry, NewHeader, RootKey, SlotExpectation, SlotWrite,
    models::{Timeouts, explore},
};
use sealback_stream::{
    Completion, MemoryOptions, MemoryServer, Prepared, Read, ReadCompletion, Server, SizeLock,
    SizeLockAttempt, Write,
};
use shuttle::thread;

use super::*;
use crate::pass::PassKind;

/// The block size of files here, and the size of a folio.
pub(crate) const BLOCK: usize = 4096;

/// Two threads that seal, two buffers for sealed spans; jitter that is the same each time.
pub(crate) fn start() -> Engine {
    fastrand::seed(0);
    let config = Config {
        cipher: Cipher::Fake,
        memory_bytes: 8 << 20,
        threads: 2,
        folio_bytes: BLOCK,
        span_bytes: 1 << 20,
        upload_window: 2,
        cache_window: 2,
        cache_patience: Duration::MAX,
        readahead_bytes: 0,
        dirty_expire: Duration::MAX,
        ..Config::default()
    };
    Engine::new(config).unwrap()
}

/// Ends an engine whose workers no time-out ends.
pub(crate) fn end(engine: Engine) {
    engine.core().workers.retire();
}

/// When and where a server answers writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answers {
    /// On a thread of its own.
    Elsewhere,
    /// Each as it is, but the first never: its completion is dropped on a thread of its own.
    FirstDropped,
    /// Within the call.
    Inside,
    /// The same, and says so beforehand.
    Immediately,
}

/// A file in memory, on a server that answers so.
#[derive(Debug)]
pub(crate) struct File {
    stored: Arc<dyn Target>,
    answers: Answers,
    was_asked: AtomicBool,
}

impl File {
    /// An empty one, and its header.
    pub(crate) fn create(options: MemoryOptions, answers: Answers) -> (Arc<File>, Header) {
        File::create_on(&MemoryServer::new(options), "a", answers)
    }

    /// An empty one on a server that has others, and its header.
    pub(crate) fn create_on(
        server: &MemoryServer,
        name: &str,
        answers: Answers,
    ) -> (Arc<File>, Header) {
        let root = RootKey::from_bytes(&[7; 32]);
        let geometry = Geometry::new(BLOCK as u64).unwrap();
        let NewHeader { header, bytes } = Header::create(&root, geometry, Cipher::Fake).unwrap();
        let name = Name::new(name).unwrap();
        let stored = server.create(&name, header.file_id(), &bytes).unwrap();
        (Arc::new(File { stored, answers, was_asked: AtomicBool::new(false) }), header)
    }

    /// Opens it, apart from whoever has it open already.
    pub(crate) fn open(self: &Arc<File>, engine: &Engine, known: &Header) -> Arc<OpenFile> {
        let header = known.reopen(&self.stored.read_header().unwrap()).unwrap();
        OpenFile::new(engine.core().clone(), "file", self.clone(), header)
    }
}

impl Target for File {
    fn identity(&self) -> u128 {
        self.stored.identity()
    }

    fn prepare(&self, block: u64, waker: &std::task::Waker) -> Prepared {
        self.stored.prepare(block, waker)
    }

    fn is_immediate(&self) -> bool {
        self.answers == Answers::Immediately
    }

    fn write(&self, write: Write, done: Completion) {
        let drops = self.answers == Answers::FirstDropped;
        if drops && !self.was_asked.swap(true, Ordering::Relaxed) {
            thread::spawn(move || drop(done));
        } else if matches!(self.answers, Answers::Inside | Answers::Immediately) {
            self.stored.write(write, done);
        } else {
            let stored = self.stored.clone();
            thread::spawn(move || stored.write(write, done));
        }
    }

    fn read(&self, read: Read, done: ReadCompletion) {
        self.stored.read(read, done);
    }

    fn read_header(&self) -> Result<Vec<u8>, TargetError> {
        self.stored.read_header()
    }

    fn write_slot(&self, write: &SlotWrite) -> Result<(), TargetError> {
        self.stored.write_slot(write)
    }

    fn cut(
        &self,
        geometry: Geometry,
        n_blocks: u64,
        expect: &SlotExpectation,
    ) -> Result<(), TargetError> {
        self.stored.cut(geometry, n_blocks, expect)
    }

    fn barrier(&self) -> Result<(), TargetError> {
        self.stored.barrier()
    }

    fn publish(&self) -> Result<(), TargetError> {
        self.stored.publish()
    }

    fn lock_size(&self) -> Result<Option<SizeLock>, TargetError> {
        self.stored.lock_size()
    }

    fn try_lock_size(&self) -> Result<SizeLockAttempt, TargetError> {
        self.stored.try_lock_size()
    }
}

/// A writeback is under way, and nobody waits for it: every thread ends, whichever has the last
/// reference.
fn drop_under_way(answers: Answers) {
    let engine = start();
    let (file, header) = File::create(MemoryOptions::default(), answers);
    let open = file.open(&engine, &header);
    open.write(0, &[1; BLOCK]).unwrap();
    open.kick(PassKind::Sync, || true);
    drop((open, file, engine));
}

#[test]
fn an_engine_that_is_dropped_under_way_ends_all_its_threads() {
    explore(Timeouts::AtAnyTime, || drop_under_way(Answers::Elsewhere));
}

#[test]
fn an_engine_that_is_dropped_before_a_write_is_tried_again_ends_all_its_threads() {
    explore(Timeouts::AtAnyTime, || drop_under_way(Answers::FirstDropped));
}

//! Sealed files to check with, and operations that are waited for.

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Receiver, Sender},
    },
    task::{Wake, Waker},
    thread,
    time::{Duration, Instant},
};

use sealback_crypto::{
    Buffer, Engine, Geometry, Header, HeaderChange, HeaderCommit, NewHeader, RootKey, Sealed,
};

use super::{Broken, ensure};
use crate::{
    Completion, CompletionSink, Expectation, Expected, Failure, Grant, Name, Prepared, Read,
    ReadCompletion, Segment, Server, Target, Ticket, Write,
};

/// A file with keys of its own.
pub(crate) struct Sample {
    pub(crate) new: NewHeader,
}

impl Sample {
    /// Of a server, in chunks as it wants them.
    pub(crate) fn new(server: &dyn Server) -> Result<Sample, Broken> {
        let geometry = Geometry::new(BLOCK_BYTES)?;
        Sample::of(geometry.with_chunk_blocks(server.chunk_blocks(BLOCK_BYTES)))
    }

    /// Of a cache.
    pub(crate) fn flat() -> Result<Sample, Broken> {
        Sample::of(Geometry::new(BLOCK_BYTES)?)
    }

    fn of(geometry: Geometry) -> Result<Sample, Broken> {
        let root = RootKey::generate()?;
        Ok(Sample { new: Header::create(&root, geometry, Engine::fastest())? })
    }

    pub(crate) fn create(
        &self,
        server: &dyn Server,
        name: &Name,
    ) -> Result<Arc<dyn Target>, Broken> {
        Ok(server.create(name, self.new.header.file_id(), &self.new.bytes)?)
    }

    pub(crate) fn draft(
        &self,
        server: &dyn Server,
        name: &Name,
    ) -> Result<Arc<dyn Target>, Broken> {
        Ok(server.draft(name, self.new.header.file_id(), &self.new.bytes)?)
    }

    pub(crate) fn geometry(&self) -> Geometry {
        self.new.header.geometry()
    }

    /// Full blocks of a byte.
    pub(crate) fn seal(&self, blocks: Range<u64>, fill: u8) -> Result<Sealed, Broken> {
        let geometry = self.geometry();
        self.seal_bytes(blocks.start, geometry.block_start(blocks.end - blocks.start), fill)
    }

    /// So many bytes from a block on; the last block may be short.
    pub(crate) fn seal_bytes(&self, first: u64, bytes: u64, fill: u8) -> Result<Sealed, Broken> {
        let plain = vec![fill; usize::try_from(bytes)?];
        let buffer = Buffer::unpooled(usize::try_from(self.geometry().span_bytes(bytes))?);
        Ok(self.new.header.content_key().seal(first, 2, &[&plain], buffer)?)
    }

    pub(crate) fn hole(&self, blocks: Range<u64>) -> Segment {
        Segment::Hole { blocks, geometry: self.geometry() }
    }

    /// The next header, which says that the file has so many bytes.
    pub(crate) fn commit(header: &Header, size: u64) -> Result<HeaderCommit, Broken> {
        let change = HeaderChange { size, holes: 0..0, cuts: header.cuts(), cut_pending: false };
        Ok(header.commit(&change)?)
    }

    /// That these blocks are what reads back.
    pub(crate) fn ensure_stored(&self, target: &dyn Target, sealed: &Sealed) -> Result<(), Broken> {
        let stored = read(target, self.geometry(), sealed.blocks())?;
        ensure!(
            stored.starts_with(sealed.bytes()),
            "blocks {:?} do not read back as they were written",
            sealed.blocks()
        );
        Ok(())
    }
}

pub(crate) fn name(name: &str) -> Result<Name, Broken> {
    Ok(Name::new(name)?)
}

pub(crate) fn absent(block: u64) -> Expectation {
    Expectation { block, expected: Expected::Absent }
}

/// That what is stored for a block is what `sealed` has for it.
pub(crate) fn same(sealed: &Sealed, block: u64) -> Expectation {
    Expectation { block, expected: Expected::Nonce(sealed.nonce(block)) }
}

/// Writes, and waits for how it went.
pub(crate) fn try_write(
    target: &dyn Target,
    segments: Vec<Segment>,
    expectations: Vec<Expectation>,
) -> Result<Result<u64, Failure>, Broken> {
    let write = Write { segments, expectations, dirty: Vec::new() };
    let grant = grant(target, write.blocks().start)?;
    let (sink, outcomes) = mpsc::channel();
    let ticket = Ticket { stream: 0, id: 7 };
    target.write(write, Completion::new(Arc::new(Sink(sink)), ticket));
    let outcome = outcomes.recv_timeout(PATIENCE).map_err(|_| late("a write"))?;
    drop(grant);
    Ok(outcome)
}

/// Writes all of it, whatever is there.
pub(crate) fn write(target: &dyn Target, segments: Vec<Segment>) -> Result<(), Broken> {
    write_if(target, segments, Vec::new())
}

/// Writes all of it, which is expected to go through.
pub(crate) fn write_if(
    target: &dyn Target,
    segments: Vec<Segment>,
    expectations: Vec<Expectation>,
) -> Result<(), Broken> {
    let asked: u64 = segments.iter().map(Segment::bytes).sum();
    let written = try_write(target, segments, expectations)??;
    ensure!(written == asked, "of {asked} bytes, {written} went through");
    Ok(())
}

/// Writes one run of blocks, whatever is there.
pub(crate) fn put(target: &dyn Target, sealed: &Sealed) -> Result<(), Broken> {
    write(target, vec![Segment::Sealed(sealed.clone())])
}

/// The stored bytes of blocks, fewer where the file ends.
pub(crate) fn read(
    target: &dyn Target,
    geometry: Geometry,
    blocks: Range<u64>,
) -> Result<Vec<u8>, Broken> {
    let stride = usize::try_from(geometry.stride_bytes())?;
    let asked = stride * usize::try_from(blocks.end - blocks.start)?;
    let mut stored = read_once(target, geometry, blocks.clone())?;
    while stored.len() < asked {
        let n_whole = stored.len() / stride;
        let rest = read_once(target, geometry, blocks.start + n_whole as u64..blocks.end)?;
        let began = stored.split_off(n_whole * stride);
        ensure!(rest.starts_with(&began), "a block was read in part, and now otherwise");
        stored.extend_from_slice(&rest);
        if rest.len() < stride {
            break;
        }
    }
    Ok(stored)
}

/// As much as comes of one read.
fn read_once(
    target: &dyn Target,
    geometry: Geometry,
    blocks: Range<u64>,
) -> Result<Vec<u8>, Broken> {
    let asked = usize::try_from((blocks.end - blocks.start) * geometry.stride_bytes())?;
    let mut buffer = Buffer::unpooled(asked + 100);
    buffer.fill(0xee);
    let (buffer, bytes) = read_into(target, geometry, blocks, buffer)?;
    ensure!(bytes <= asked, "of {asked} bytes asked for, {bytes} were read");
    ensure!(buffer[asked..] == [0xee; 100], "the buffer was changed behind what was asked for");
    Ok(buffer[..bytes].to_vec())
}

/// Reads into a buffer, and waits for it.
pub(crate) fn read_into(
    target: &dyn Target,
    geometry: Geometry,
    blocks: Range<u64>,
    buffer: Buffer,
) -> Result<(Buffer, usize), Broken> {
    let (sender, outcomes) = mpsc::channel();
    let done = ReadCompletion::new(move |outcome| drop(sender.send(outcome)));
    target.read(Read { blocks, geometry, buffer }, done);
    Ok(outcomes.recv_timeout(PATIENCE).map_err(|_| late("a read"))??)
}

/// A grant, waited for.
fn grant(target: &dyn Target, block: u64) -> Result<Grant, Broken> {
    let (flag, waker) = Flag::new();
    loop {
        match target.prepare(block, &waker) {
            Prepared::Granted(grant) => return Ok(grant),
            Prepared::Later => flag.wait()?,
        }
    }
}

/// What a waker sets.
pub(crate) struct Flag(AtomicBool);

impl Flag {
    pub(crate) fn new() -> (Arc<Flag>, Waker) {
        let flag = Arc::new(Flag(AtomicBool::new(false)));
        (flag.clone(), Waker::from(flag))
    }

    /// Waits until it is set, and clears it.
    pub(crate) fn wait(&self) -> Result<(), Broken> {
        let since = Instant::now();
        while !self.0.swap(false, Ordering::AcqRel) {
            ensure!(since.elapsed() < PATIENCE, "the waker was never woken");
            thread::yield_now();
        }
        Ok(())
    }
}

impl Wake for Flag {
    fn wake(self: Arc<Flag>) {
        self.0.store(true, Ordering::Release);
    }
}

struct Sink(Sender<Result<u64, Failure>>);

impl CompletionSink for Sink {
    fn terminated(&self, ticket: Ticket, outcome: Result<u64, Failure>) {
        // Whoever gave up waiting has said so.
        if ticket == (Ticket { stream: 0, id: 7 }) {
            drop(self.0.send(outcome));
        }
    }
}

/// Waits for what another thread sends.
pub(crate) fn wait_for<T>(receiver: &Receiver<T>, what: &str) -> Result<T, Broken> {
    receiver.recv_timeout(PATIENCE).map_err(|_| late(what))
}

fn late(what: &str) -> Broken {
    Broken(format!("{what} did not end within {} s", PATIENCE.as_secs()))
}

const BLOCK_BYTES: u64 = 4096;
/// How long anything may take before it counts as hanging.
const PATIENCE: Duration = Duration::from_secs(30);

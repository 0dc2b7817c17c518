//! A file's life under a seeded schedule: writes, reads, cuts, punches, evictions and lost caches
//! between the steps of one writeback after another, with the real page cache and the real request.
//!
//! The model is a vector of bytes. In half of the lives one client is at work; then a conflict would
//! be its own fault, and none may occur before something has failed; and what the cache's record calls
//! present is what the server has. In the other half somebody else changes bytes of the same blocks,
//! never the same bytes: all of both must be there at the end.
//!
//! **Fault model:** a write may go through, go through in part (blocks; the rest is not there), fail
//! having done nothing, fail having done all of it (an outcome that nobody knows), or fail for good;
//! the cache may fail; sealing may fail; a pass may be cancelled.

use std::{collections::BTreeMap, ops::Range, thread, time::Duration};

use fastrand::Rng;
use sealback::{
    RetryLimits,
    request::{Action, Event, Host, Request, RequestLimits, StreamSetup},
    rmw::{Merge, MergeLimits},
    source::{DirtyRun, PlainSlice, Writeback},
    testkit::PageCache,
    trace::TraceEvent,
};
use sealback_crypto::{
    Buffer, BufferPool, ContentKey, Engine, FileView, Geometry, Header, Nonce, RootKey,
    Stored as StoredBytes,
};
use sealback_stream::{
    BlockConflict, Expected, Failure, Grant, Prepared, Role, Segment, TargetError, TargetErrorKind,
    Ticket, Write,
};

use crate::{auditor, simulator::BLOCK};

/// The file stays about this large, in blocks.
const N_BLOCKS: u64 = 24;
const LAST_BLOCK: u64 = N_BLOCKS * 2;
/// With somebody else at work, even stretches of so many bytes are ours, odd ones his.
const LANE: usize = 64;

/// How often the lives met what they were made for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lived {
    /// Events handed to requests.
    pub steps: u64,
    /// Writes by the client.
    pub writes: u64,
    /// Writes by the client while a writeback was under way.
    pub writes_meanwhile: u64,
    /// Blocks that were sent with an expectation.
    pub expectations: u64,
    /// Cuts.
    pub cuts: u64,
    /// Punches.
    pub punches: u64,
    /// Folios that were evicted.
    pub evictions: u64,
    /// Writebacks that ended well.
    pub passes: u64,
    /// Writebacks that failed or were cancelled.
    pub failed: u64,
    /// Caches that failed or were lost.
    pub caches_lost: u64,
    /// Blocks changed by somebody else.
    pub others: u64,
    /// Blocks that were found changed.
    pub conflicts: u64,
    /// Blocks that were merged.
    pub merges: u64,
}

impl Lived {
    /// Adds another life's.
    pub fn add(&mut self, other: &Lived) {
        self.steps += other.steps;
        self.writes += other.writes;
        self.writes_meanwhile += other.writes_meanwhile;
        self.expectations += other.expectations;
        self.cuts += other.cuts;
        self.punches += other.punches;
        self.evictions += other.evictions;
        self.passes += other.passes;
        self.failed += other.failed;
        self.caches_lost += other.caches_lost;
        self.others += other.others;
        self.conflicts += other.conflicts;
        self.merges += other.merges;
    }
}

/// A block as a target holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stored {
    nonce: Nonce,
    bytes: Vec<u8>,
}

/// A cache's copy and its record.
#[derive(Debug, Default)]
struct Copy {
    blocks: BTreeMap<u64, Stored>,
    present: BTreeMap<u64, Nonce>,
}

enum UnderWay {
    Merge(Merge),
    Seal { span: u64, first_block: u64, plain: Vec<PlainSlice>, buffer: Buffer },
    Timer(Duration),
    Wake,
    Write { ticket: Ticket, write: Write },
}

struct Life {
    rng: Rng,
    /// Chances in a hundred, for each target and step.
    faults: u32,
    /// Somebody else is at work, too.
    others: bool,
    /// A cut is being finished.
    cutting: bool,
    /// Something has failed, or was cut: what is stored may not be what is expected.
    failed: bool,
    now: Duration,
    key: ContentKey,
    geometry: Geometry,
    pool: BufferPool,
    pages: PageCache,
    model: Vec<u8>,
    server: BTreeMap<u64, Stored>,
    copy: Copy,
    request: Option<Request>,
    span_blocks: u64,
    under_way: Vec<UnderWay>,
    starved: bool,
    lived: Lived,
    log: Log,
}

/// Printed when a run panics.
struct Log {
    seed: u64,
    lines: Vec<String>,
}

impl Drop for Log {
    fn drop(&mut self) {
        if thread::panicking() {
            self.lines.iter().for_each(|line| eprintln!("{line}"));
            eprintln!("replay with SEALBACK_SEED={}", self.seed);
        }
    }
}

/// Lives one seed's life to its end and returns what it met.
///
/// # Panics
/// If an invariant is broken; the seed and the log are printed.
pub fn live(seed: u64, engine: Engine) -> Lived {
    let mut rng = Rng::with_seed(seed);
    let geometry = Geometry::new(BLOCK).expect("4 KiB is a block size");
    let root = RootKey::from_bytes(&[3; 32]);
    let header = Header::create(&root, geometry, engine).expect("random bytes").header;
    let span_blocks = rng.u64(1..6);
    let buffer_bytes = usize::try_from(span_blocks * geometry.stride_bytes()).expect("small");
    let folio_bytes = [1 << 12, 1 << 12, 1 << 13, 1 << 14][rng.usize(..4)];
    let mut life = Life {
        faults: 0,
        others: false,
        cutting: false,
        failed: false,
        now: Duration::ZERO,
        key: header.content_key().clone(),
        geometry,
        pool: BufferPool::new(rng.usize(1..5), buffer_bytes),
        pages: PageCache::new(geometry, folio_bytes),
        model: Vec::new(),
        server: BTreeMap::new(),
        copy: Copy::default(),
        request: None,
        span_blocks,
        under_way: Vec::new(),
        starved: false,
        lived: Lived::default(),
        log: Log { seed, lines: Vec::new() },
        rng,
    };
    let faults = [0, 2, 20][life.rng.usize(..3)];
    if life.rng.bool() {
        life.share();
    }
    life.faults = faults;
    for _ in 0..life.rng.u32(20..200) {
        life.step();
    }
    life.end_well();
    life.lived
}

impl Life {
    fn note(&mut self, line: String) {
        self.log.lines.push(line);
    }

    /// Writes a whole file; from then on somebody else changes it, too.
    fn share(&mut self) {
        let len = index(self.rng.u64(1..N_BLOCKS * BLOCK));
        let data: Vec<u8> = (0..len).map(|_| self.rng.u8(..)).collect();
        self.put(0, &data);
        self.begin_pass();
        self.finish_pass();
        self.others = true;
    }

    fn step(&mut self) {
        if self.request.is_some() && self.rng.u32(..4) > 0 {
            return self.step_request();
        }
        if self.others {
            return match self.rng.u32(..20) {
                0..8 => self.write_in_lane(),
                8..13 => self.other_writes(),
                13 => self.lived.evictions += u64::from(self.pages.evict()),
                _ if self.request.is_none() => self.begin_pass(),
                _ => {}
            };
        }
        match self.rng.u32(..20) {
            0..8 => self.write(),
            8..11 => self.read(),
            11 if self.request.is_none() => self.set_len(),
            12 if self.request.is_none() => self.punch(),
            13 => self.lived.evictions += u64::from(self.pages.evict()),
            14 if self.request.is_none() => self.lose_cache(),
            _ if self.request.is_none() => self.begin_pass(),
            _ => {}
        }
    }

    /// With nothing failing any more, everything comes to the server.
    fn end_well(&mut self) {
        self.faults = 0;
        self.finish_pass();
        while self.pages.dirty_bytes() > 0 {
            self.begin_pass();
            self.finish_pass();
        }
        let size = self.model.len() as u64;
        let (server, _) = self.open(0..self.geometry.n_blocks(size));
        let differs = server.iter().zip(&self.model).position(|(a, b)| a != b);
        assert!(server == self.model, "the server has something else at {differs:?} of {size}");
        assert_eq!(self.pool.n_free(), self.pool.n_buffers(), "every buffer is home");
    }

    fn finish_pass(&mut self) {
        while self.request.is_some() {
            self.step_request();
        }
    }

    fn begin_pass(&mut self) {
        for gap in self.pages.take_gaps() {
            self.make_holes(&gap);
        }
        let retry = RetryLimits { max_attempts: 4, ..RetryLimits::default() };
        let limits = RequestLimits { span_blocks: self.span_blocks, retry };
        let mut setup = |role| StreamSetup { role, window: self.rng.usize(1..4), active: true };
        let setup = [setup(Role::Must), setup(Role::May)];
        self.request = Some(Request::new(self.geometry, &limits, &setup));
        self.under_way.push(UnderWay::Wake);
        self.note("begin".to_owned());
    }

    // What the client does.

    fn write(&mut self) {
        let at = self.position();
        let most = [100, 4096, 20_000][self.rng.usize(..3)];
        let len = 1 + self.rng.usize(..most);
        let data: Vec<u8> = (0..len).map(|_| self.rng.u8(..)).collect();
        self.note(format!("write {at}+{len}"));
        self.lived.writes += 1;
        self.lived.writes_meanwhile += u64::from(self.request.is_some());
        self.grow_to(at);
        self.put(at, &data);
    }

    /// A few bytes that are ours.
    fn write_in_lane(&mut self) {
        let lanes = self.model.len().div_ceil(LANE * 2);
        let start = self.rng.usize(..lanes) * LANE * 2;
        let end = (start + LANE).min(self.model.len());
        let at = self.rng.usize(start..end);
        let data: Vec<u8> = (at..self.rng.usize(at..end) + 1).map(|_| self.rng.u8(..)).collect();
        self.note(format!("write {at}+{}", data.len()));
        self.lived.writes += 1;
        self.lived.writes_meanwhile += u64::from(self.request.is_some());
        self.put(at, &data);
    }

    /// Somebody else lays a few bytes of his over a block.
    fn other_writes(&mut self) {
        let lane = self.rng.usize(..self.model.len()) / LANE * LANE;
        let at = if lane / LANE % 2 == 1 { lane } else { lane + LANE };
        let end = (at + LANE).min(self.model.len());
        let block = self.geometry.block_at(at as u64);
        let Some(stored) = self.server.get(&block).filter(|_| at < end) else { return };
        let start = index(self.geometry.block_start(block));
        let mut plain = self.open_one(block, &stored.bytes.clone());
        for position in at..end {
            plain[position - start] = self.rng.u8(..);
            self.model[position] = plain[position - start];
        }
        let buffer = Buffer::unpooled(plain.len() + 48);
        let sealed = self.key.seal(block, 2, &[&plain], buffer).expect("it fits");
        let bytes = sealed.bytes().to_vec();
        self.server.insert(block, Stored { nonce: sealed.nonce(block), bytes });
        self.note(format!("somebody else changes block {block} at {at}"));
        self.lived.others += 1;
    }

    fn open_one(&self, block: u64, bytes: &[u8]) -> Vec<u8> {
        let mut buffer = Buffer::unpooled(bytes.len());
        buffer.copy_from_slice(bytes);
        let size = (block + 1) * BLOCK;
        let view = FileView { size, generation: 9, holes: 0..u64::MAX };
        let mut plain = vec![0; bytes.len() - 48];
        let stored = StoredBytes { len: bytes.len(), buffer };
        let opened = self.key.open(&view, block, stored, &mut plain);
        assert!(opened.first_damage().is_none(), "{:?}", opened.first_damage());
        plain
    }

    /// A position that is about the edge of a block now and then.
    fn position(&mut self) -> usize {
        let any = self.rng.usize(..usize::try_from(N_BLOCKS * BLOCK).expect("small"));
        let edge = any / 4096 * 4096 + self.rng.usize(..3);
        if self.rng.bool() { any } else { edge.saturating_sub(1) }
    }

    fn grow_to(&mut self, at: usize) {
        if self.model.len() >= at {
            return;
        }
        self.pages.grow(at as u64, self.geometry);
        self.model.resize(at, 0);
    }

    fn put(&mut self, at: usize, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        let range = at as u64..(at + data.len()) as u64;
        for missing in self.pages.to_fill(&range) {
            self.fill(&missing);
        }
        self.pages.put(range.start, data, true);
        self.model.resize(self.model.len().max(at + data.len()), 0);
        self.model[at..at + data.len()].copy_from_slice(data);
    }

    fn fill(&mut self, range: &Range<u64>) {
        let blocks = self.geometry.blocks_covering(range.clone());
        let (plain, nonces) = self.open(blocks.clone());
        let start = self.geometry.block_start(blocks.start);
        let slice = &plain[index(range.start - start)..index(range.end - start)];
        self.pages.put(range.start, slice, false);
        for (block, nonce) in blocks.zip(nonces) {
            self.pages.set_stored(block, nonce.map_or(Expected::Absent, Expected::Nonce));
        }
    }

    fn read(&mut self) {
        let at = self.position().min(self.model.len());
        let end = (at + self.rng.usize(..20_000)).min(self.model.len());
        let range = at as u64..end as u64;
        let mut bytes = vec![0xAA; end - at];
        for missing in self.pages.read(&range, &mut bytes) {
            let blocks = self.geometry.blocks_covering(missing.clone());
            let start = self.geometry.block_start(blocks.start);
            let (plain, _) = self.open(blocks);
            let into = index(missing.start - range.start)..index(missing.end - range.start);
            let from = index(missing.start - start)..index(missing.end - start);
            bytes[into].copy_from_slice(&plain[from]);
        }
        assert!(bytes == self.model[at..end], "{range:?} reads as something else");
    }

    fn set_len(&mut self) {
        let size = self.position();
        self.note(format!("set_len {} to {size}", self.model.len()));
        if size > self.model.len() {
            return self.grow_to(size);
        }
        self.lived.cuts += 1;
        if self.failed {
            // The library knows what it committed; here it is what is known to be stored.
            self.flush();
        }
        self.model.truncate(size);
        self.pages.cut(size as u64);
        let n_blocks = self.geometry.n_blocks(size as u64);
        let block = self.geometry.block_at(size as u64);
        if block < n_blocks {
            // What was cut off must not stay in the last block.
            for missing in self.pages.to_fill(&(size as u64 - 1..size as u64)) {
                self.fill(&missing);
            }
            let last = size as u64 - 1..size as u64;
            if !self.pages.read(&last, &mut [0]).is_empty() {
                self.fill(&last);
            }
            self.pages.dirty_again(block);
        }
        self.server.split_off(&n_blocks);
        self.forget(n_blocks..LAST_BLOCK);
        // What is stored for a block that was wholly dirty need not be known: a guess may conflict.
        (self.failed, self.cutting) = (true, true);
        self.flush();
        self.cutting = false;
    }

    /// Writes everything back, with nothing failing.
    fn flush(&mut self) {
        let faults = std::mem::replace(&mut self.faults, 0);
        self.begin_pass();
        self.finish_pass();
        self.faults = faults;
    }

    fn punch(&mut self) {
        // As the library does, on what is written back.
        self.flush();
        let n_full = self.geometry.block_at(self.model.len() as u64);
        if n_full == 0 {
            return;
        }
        let start = self.rng.u64(..n_full);
        let blocks = start..(start + self.rng.u64(1..6)).min(n_full);
        self.note(format!("punch {blocks:?}"));
        self.lived.punches += 1;
        self.make_holes(&blocks);
        self.pages.punched(&blocks);
        let positions =
            self.geometry.block_start(blocks.start)..self.geometry.block_start(blocks.end);
        self.model[index(positions.start)..index(positions.end)].fill(0);
    }

    fn make_holes(&mut self, blocks: &Range<u64>) {
        self.forget(blocks.clone());
        self.server.retain(|block, _| !blocks.contains(block));
    }

    fn lose_cache(&mut self) {
        self.lived.caches_lost += 1;
        self.copy = Copy::default();
    }

    fn forget(&mut self, blocks: Range<u64>) {
        self.copy.present.retain(|block, _| !blocks.contains(block));
    }

    /// Opens blocks as they are stored, from the cache where its record calls them present.
    fn open(&mut self, blocks: Range<u64>) -> (Vec<u8>, Vec<Option<Nonce>>) {
        let size = self.model.len() as u64;
        let stride = index(self.geometry.stride_bytes());
        let end = self.geometry.block_start(blocks.end).min(size);
        let len = index(end - self.geometry.block_start(blocks.start));
        let mut buffer = Buffer::unpooled(stride * index(blocks.end - blocks.start));
        for (place, block) in blocks.clone().enumerate() {
            let present = !self.others && self.copy.present.contains_key(&block);
            let stored =
                if present { self.copy.blocks.get(&block) } else { self.server.get(&block) };
            if let Some(stored) = stored {
                let at = place * stride;
                buffer[at..at + stored.bytes.len()].copy_from_slice(&stored.bytes);
            }
        }
        let view = FileView { size, generation: 9, holes: 0..u64::MAX };
        let stored = StoredBytes { len: buffer.len(), buffer };
        let mut plain = vec![0; len];
        let opened = self.key.open(&view, blocks.start, stored, &mut plain);
        assert!(opened.first_damage().is_none(), "{:?}", opened.first_damage());
        let nonces = blocks.map(|block| opened.nonce(block)).collect();
        (plain, nonces)
    }

    // What happens to a request.

    fn step_request(&mut self) {
        self.lived.steps += 1;
        self.now += Duration::from_micros(self.rng.u64(1..500));
        if self.faults > 0 && self.rng.u32(..2000) < self.faults {
            return self.hand(Event::Cancel);
        }
        if self.starved && self.pool.n_free() > 0 {
            self.starved = false;
            self.under_way.push(UnderWay::Wake);
        }
        assert!(!self.under_way.is_empty(), "nothing is under way, and the request is not done");
        let next = self.rng.usize(..self.under_way.len());
        match self.under_way.swap_remove(next) {
            UnderWay::Wake => self.hand(Event::Wake),
            UnderWay::Timer(at) => {
                self.now = self.now.max(at);
                self.hand(Event::Wake);
            }
            UnderWay::Merge(merge) => {
                let stored = self.server.get(&merge.block).map_or(&[][..], |stored| &stored.bytes);
                let mut buffer = Buffer::unpooled(stored.len());
                buffer.copy_from_slice(stored);
                let stored = StoredBytes { len: stored.len(), buffer };
                let size = self.model.len() as u64;
                let all =
                    if self.cutting { self.geometry.block_len(merge.block, size) } else { BLOCK };
                let limits = MergeLimits { theirs: all, all };
                let merged = merge.run(&self.key, 2, stored, &limits).expect("it opens");
                self.lived.merges += 1;
                let block = merge.block;
                self.hand(Event::Merged { block, result: Ok(merged) });
            }
            UnderWay::Seal { span, first_block, plain, buffer } => {
                let slices: Vec<&[u8]> = plain.iter().map(PlainSlice::as_slice).collect();
                let fails = self.rng.u32(..2000) < self.faults;
                let buffer = if fails { Buffer::unpooled(1) } else { buffer };
                let result = self.key.seal(first_block, 2, &slices, buffer);
                drop(plain);
                self.hand(Event::Sealed { span, result });
            }
            UnderWay::Write { ticket, write } => {
                let outcome = self.carry_out(ticket.stream, &write);
                self.note(format!("{ticket:?} {:?}: {outcome:?}", write.blocks()));
                drop(write);
                self.hand(Event::Terminated { ticket, outcome });
            }
        }
    }

    fn carry_out(&mut self, stream: usize, write: &Write) -> Result<u64, Failure> {
        let conflicts = self.conflicts(write);
        assert!(conflicts.is_empty() || self.others || self.failed, "its own fault: {conflicts:?}");
        if !conflicts.is_empty() {
            self.lived.conflicts += conflicts.len() as u64;
            return Err(Failure::Conflict(conflicts));
        }
        let n_blocks = write.blocks().end - write.blocks().start;
        let error = |what: &str| TargetError::new(TargetErrorKind::Io, what);
        if self.rng.u32(..100) >= self.faults {
            self.store(stream, write, n_blocks);
            return Ok(write.bytes());
        }
        self.failed = true;
        match self.rng.u32(..8) {
            0..3 => Err(Failure::Retry(error("nothing was done"))),
            3..5 => {
                self.store(stream, write, n_blocks);
                Err(Failure::Retry(error("all was done")))
            }
            5..7 => {
                let through = self.rng.u64(..n_blocks);
                self.store(stream, write, through);
                Ok(through * (BLOCK + 48))
            }
            _ => Err(Failure::Fatal(error("for good"))),
        }
    }

    fn conflicts(&mut self, write: &Write) -> Vec<BlockConflict> {
        self.lived.expectations += write.expectations.len() as u64;
        let differing = write.expectations.iter().filter_map(|expectation| {
            let block = expectation.block;
            let stored = self.server.get(&block).map(|stored| stored.nonce);
            let holds = expectation.holds(stored, write.nonce(block));
            (!holds).then_some(BlockConflict { block, stored })
        });
        differing.collect()
    }

    fn store(&mut self, stream: usize, write: &Write, n_blocks: u64) {
        auditor::audit(write);
        let blocks = if stream == 0 { &mut self.server } else { &mut self.copy.blocks };
        let mut left = n_blocks;
        for segment in &write.segments {
            let Segment::Sealed(sealed) = segment else { continue };
            for (block, nonce) in sealed.nonces() {
                if left > 0 {
                    let bytes = sealed.block_bytes_of(block).to_vec();
                    blocks.insert(block, Stored { nonce, bytes });
                    left -= 1;
                }
            }
        }
    }

    fn hand(&mut self, event: Event) {
        let Some(mut request) = self.request.take() else { return };
        request.handle(event, self.now, self);
        let mut actions = Vec::new();
        request.take_actions(&mut actions);
        self.request = Some(request);
        for action in actions {
            self.act(action);
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Cached { sealed } => {
                for (block, nonce) in sealed.nonces() {
                    self.copy.present.insert(block, nonce);
                    // The rule of the record, at the moment when it could be broken.
                    let (server, copy) = (self.server.get(&block), self.copy.blocks.get(&block));
                    let same = server.is_some() && server == copy;
                    assert!(same || self.others, "block {block} is called present");
                }
            }
            Action::Done(result) => {
                self.note(format!("done {result:?}"));
                let count =
                    if result.is_ok() { &mut self.lived.passes } else { &mut self.lived.failed };
                *count += 1;
                self.failed |= result.is_err();
                self.request = None;
                self.drop_answers();
            }
            Action::Merge(merge) => self.under_way.push(UnderWay::Merge(merge)),
            Action::Refresh { block, plain } => self.pages.merged(block, &plain),
            Action::Issue { ticket, write } => {
                self.forget(write.blocks());
                self.under_way.push(UnderWay::Write { ticket, write });
            }
            Action::Release { folio, outcome } => {
                self.pages.end_writeback(folio, matches!(outcome, Writeback::Clean));
            }
            Action::Seal { span, first_block, plain, buffer } => {
                self.under_way.push(UnderWay::Seal { span, first_block, plain, buffer });
            }
            Action::Stored { sealed } => self.pages.stored(&sealed),
            Action::StreamOff { .. } => self.lose_cache(),
            Action::WakeAt(at) => self.under_way.push(UnderWay::Timer(at)),
            other => panic!("an action that the simulator does not know: {other:?}"),
        }
    }

    /// The request has ended: only a cache that was switched off may still have writes, and what it
    /// does with them counts for nothing.
    fn drop_answers(&mut self) {
        let uploads = self
            .under_way
            .iter()
            .filter(|one| matches!(one, UnderWay::Write { ticket, .. } if ticket.stream == 0));
        assert_eq!(uploads.count(), 0, "uploads still in flight");
        self.under_way.clear();
        self.starved = false;
    }
}

impl Host for Life {
    fn next_dirty(&mut self, from: u64, max_blocks: u64) -> Option<DirtyRun> {
        self.pages.next_dirty(from, max_blocks)
    }

    fn take_buffer(&mut self) -> Option<Buffer> {
        let buffer = self.pool.try_take();
        self.starved |= buffer.is_none();
        buffer
    }

    fn prepare(&mut self, _stream: usize, _block: u64) -> Prepared {
        let max_blocks = self.rng.u64(1..9);
        Prepared::Granted(Grant::unlimited().with_max_bytes(max_blocks * (BLOCK + 48)))
    }

    fn random(&mut self) -> u64 {
        self.rng.u64(..)
    }

    fn tracing(&self) -> bool {
        true
    }

    fn trace(&mut self, event: TraceEvent) {
        self.note(format!("{event:?}"));
    }
}

fn index(offset: u64) -> usize {
    usize::try_from(offset).expect("files are small here")
}

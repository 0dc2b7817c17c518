//! A file's life under a seeded schedule: writes, reads, cuts, punches, evictions and lost caches
//! between the steps of one writeback, or direct write, after another, with the real page cache and the
//! real request.
//!
//! Write groups are closed now and then: when one has ended, the server has the file as it was when it
//! was closed. Some passes pass over what they please, and some follow a writethrough.
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
    rmw::{Merge, Theirs},
    source::{Next, PlainSlice, Writeback},
    testkit::PageCache,
    trace::TraceEvent,
};
use sealback_crypto::{
    Buffer, BufferPool, ContentKey, Engine, Geometry, Header, Nonce, RootKey, Stored as StoredBytes,
};
use sealback_stream::{
    BlockConflict, Failure, Grant, Prepared, Role, Segment, TargetError, TargetErrorKind, Ticket,
    Write,
};

use crate::{
    auditor::Nonces,
    bound::Bound,
    simulator::{BLOCK, stored_of},
};

mod client;
mod direct;
mod issuing;
mod lived;

use direct::Direct;
pub use lived::Lived;

/// The file stays about this large, in blocks.
const N_BLOCKS: u64 = 24;
const LAST_BLOCK: u64 = N_BLOCKS * 2;
/// With somebody else at work, even stretches of so many bytes are ours, odd ones his.
const LANE: usize = 64;

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
    Fill(u64),
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
    /// What it writes, if that is not the pages.
    direct: Option<Direct>,
    /// What is still to be written of a writethrough that it follows.
    through: Option<Range<usize>>,
    /// It passes some of what is dirty over.
    filtered: bool,
    /// Write groups that are closed and have not ended, with the file as it was then.
    closed: Vec<(u64, Vec<u8>)>,
    span_blocks: u64,
    max_stalled: usize,
    under_way: Vec<UnderWay>,
    starved: bool,
    bound: Bound,
    nonces: Nonces,
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
    let (span_blocks, max_stalled) = (rng.u64(1..6), rng.usize(1..4));
    let buffer_bytes = usize::try_from(span_blocks * geometry.stride_bytes()).expect("small");
    let folio_bytes = [1 << 12, 1 << 12, 1 << 13, 1 << 14][rng.usize(..4)];
    let mut life = Life {
        faults: 0,
        others: false,
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
        direct: None,
        through: None,
        filtered: false,
        closed: Vec::new(),
        span_blocks,
        max_stalled,
        under_way: Vec::new(),
        starved: false,
        bound: Bound::default(),
        nonces: Nonces::default(),
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
            return match self.rng.u32(..22) {
                20 => self.close_group(),
                21 if self.request.is_none() => self.begin_filtered(),
                0..8 => self.write_in_lane(),
                8..13 => self.other_writes(),
                13 => self.lived.evictions += u64::from(self.pages.evict()),
                14 | 15 if self.request.is_none() => self.write_direct(),
                _ if self.request.is_none() => self.begin_pass(),
                _ => {}
            };
        }
        match self.rng.u32(..24) {
            20 => self.close_group(),
            21 if self.request.is_none() => self.begin_filtered(),
            22 if self.request.is_none() => self.begin_through(),
            23 => self.advance_through(),
            0..8 => self.write(),
            8..11 if self.direct.is_none() => self.read(),
            11 if self.request.is_none() => self.set_len(),
            12 if self.request.is_none() => self.punch(),
            13 => self.lived.evictions += u64::from(self.pages.evict()),
            14 if self.request.is_none() => self.lose_cache(),
            15 | 16 if self.request.is_none() => self.write_direct(),
            _ if self.request.is_none() => self.begin_pass(),
            _ => {}
        }
    }

    /// With nothing failing any more, everything comes to the server.
    fn end_well(&mut self) {
        self.faults = 0;
        self.finish_pass();
        while self.pages.dirty_bytes() > 0 || self.pages.has_older_groups() {
            self.begin_pass();
            self.finish_pass();
        }
        assert!(self.closed.is_empty(), "groups have not ended: {}", self.closed.len());
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
        self.pages.begin_pass();
        for gap in self.pages.take_gaps() {
            self.make_holes(&gap);
        }
        let retry = RetryLimits { max_attempts: 4, ..RetryLimits::default() };
        let limits = RequestLimits {
            span_blocks: self.span_blocks,
            max_stalled: self.max_stalled,
            retry,
            cache_patience: Duration::MAX,
        };
        let mut setup = |role| StreamSetup { role, window: self.rng.usize(1..4), active: true };
        let setup = [setup(Role::Must), setup(Role::May)];
        self.request = Some(Request::new(self.geometry, &limits, &setup));
        self.under_way.push(UnderWay::Wake);
        self.note("begin".to_owned());
    }

    fn step_request(&mut self) {
        self.lived.steps += 1;
        self.bound.step();
        self.now += Duration::from_micros(self.rng.u64(1..500));
        if self.faults > 0 && self.rng.u32(..2000) < self.faults {
            return self.hand(Event::Cancel);
        }
        if self.starved && self.pool.n_free() > 0 {
            self.starved = false;
            self.under_way.push(UnderWay::Wake);
        }
        if self.under_way.is_empty() && self.through.is_some() {
            return self.advance_through();
        }
        assert!(!self.under_way.is_empty(), "nothing is under way, and the request is not done");
        let next = self.rng.usize(..self.under_way.len());
        match self.under_way.swap_remove(next) {
            UnderWay::Fill(block) => {
                self.fill_block(block);
                self.hand(Event::Wake);
            }
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
                let all = Theirs::First(BLOCK);
                let merged = merge.run(&self.key, 2, stored, all).expect("it opens");
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
                self.note(format!("{ticket:?} {:?}: {outcome:?}", write.runs()));
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
        let n_blocks = write.runs().n_blocks();
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
                // One that the file ended in when it was sealed is shorter, and others may follow it.
                let runs = write.runs();
                let taken = runs.blocks().take(usize::try_from(through).expect("small"));
                Ok(taken.map(|block| stored_of(write, block).bytes.len() as u64).sum())
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
        self.nonces.note(write).expect("no nonce is used twice");
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
                (self.through, self.filtered) = (None, false);
                self.drop_answers();
                self.end_direct(&result);
                if result.is_ok() {
                    self.pages.commit();
                }
                self.look_at_groups();
            }
            Action::Merge(merge) => self.under_way.push(UnderWay::Merge(merge)),
            // The pages forget what they have of a block when it is stored.
            Action::Refresh { .. } if self.direct.is_some() => {}
            Action::Refresh { block, plain } => self.pages.merged(block, &plain),
            // The file is a draft: what lies behind its end is nobody's.
            Action::InDoubt { .. } => {}
            Action::Issue { ticket, write } => {
                write.runs().iter().for_each(|run| self.forget(run.clone()));
                self.under_way.push(UnderWay::Write { ticket, write });
            }
            Action::Release { .. } if self.direct.is_some() => {}
            Action::Release { folio, outcome } => {
                self.pages.end_writeback(folio, matches!(outcome, Writeback::Clean));
            }
            Action::Seal { span, first_block, plain, buffer } => {
                self.under_way.push(UnderWay::Seal { span, first_block, plain, buffer });
            }
            Action::Stored { sealed } => {
                if !self.stored_direct(&sealed) {
                    self.pages.stored(&sealed);
                }
            }
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
    fn next_dirty(&mut self, from: u64, max_blocks: u64) -> Next {
        self.bound.asked();
        if let Some(next) = self.next_direct() {
            return next;
        }
        let Some(from) = self.filter(from) else { return Next::End };
        let open = self.through.as_ref().filter(|left| !left.is_empty());
        let to = open.map_or(u64::MAX, |left| self.geometry.block_at(left.start as u64));
        let is_open = open.is_some();
        match self.pages.next_dirty(from.min(to)..to, max_blocks) {
            Ok(Some(run)) => Next::Run(run),
            Ok(None) if is_open => Next::Later,
            Ok(None) => Next::End,
            Err(lacking) => {
                let is_it =
                    |one: &UnderWay| matches!(one, UnderWay::Fill(block) if *block == lacking);
                if !self.under_way.iter().any(is_it) {
                    self.under_way.push(UnderWay::Fill(lacking));
                }
                Next::Later
            }
        }
    }

    fn take_buffer(&mut self) -> Option<Buffer> {
        self.bound.asked();
        let buffer = self.pool.try_take();
        self.starved |= buffer.is_none();
        buffer
    }

    fn prepare(&mut self, _stream: usize, _block: u64) -> Prepared {
        self.bound.asked();
        let max_blocks = self.rng.u64(1..9);
        let grant = Grant::unlimited().with_max_bytes(max_blocks * (BLOCK + 48));
        Prepared::Granted(if self.rng.bool() { grant.with_gaps() } else { grant })
    }

    fn random(&mut self) -> u64 {
        self.rng.u64(..)
    }

    fn tracing(&self) -> bool {
        true
    }

    fn trace(&mut self, event: TraceEvent) {
        self.bound.asked();
        self.note(format!("{event:?}"));
    }
}

fn index(offset: u64) -> usize {
    usize::try_from(offset).expect("files are small here")
}

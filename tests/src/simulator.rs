//! Runs the real request under a seeded schedule: which answer comes next, and what fails.
//!
//! One step takes one of the events that are under way (a span sealed, a write answered, a credit
//! or a buffer back, a timer) in an order that the seed decides, hands it to the request, and
//! carries out what the request wants done. Time is virtual. The oracle looks at
//! every step. A run that fails prints its seed and its log, and replays exactly.
//!
//! **Fault model:** a write may go through, go through in part (any number of bytes; the block it
//! ends in is torn), fail transiently, ask to be renegotiated, fail for good, or conflict. Grants
//! change from one to the next. Credits run out. Sealing may fail. The request may be cancelled.

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use fastrand::Rng;
use sealback::{
    RetryLimits,
    request::{Action, Event, Host, Request, RequestLimits, StreamSetup},
    source::{Destinations, DirtyRun, FolioEnd, PlainSlice, RunContent},
    trace::TraceEvent,
};
use sealback_crypto::{Buffer, BufferPool, ContentKey, Engine, Geometry, Header, RootKey, Sealed};
use sealback_stream::{
    BlockConflict, Credit, CreditSource, Failure, Grant, Prepared, Role, TargetError,
    TargetErrorKind, Ticket, Write,
};

use crate::{
    auditor::Nonces,
    oracle::{Oracle, Stored},
};

/// The simulated block size.
pub const BLOCK: u64 = 4096;

/// How often the runs met what they were made for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Met {
    /// Events handed to requests.
    pub steps: u64,
    /// Writes that failed transiently or asked to be renegotiated.
    pub transient: u64,
    /// Writes that went through in part.
    pub short: u64,
    /// Requests that drained and reissued.
    pub reissues: u64,
    /// Grants refused for want of credit.
    pub no_credit: u64,
    /// Times the issuer found no buffer.
    pub starved: u64,
    /// Caches that were switched off.
    pub cache_off: u64,
    /// Requests that failed or were cancelled.
    pub failed: u64,
    /// Folios that were dirty again.
    pub redirtied: u64,
    /// Folios released before the request had ended.
    pub released_early: u64,
}

impl Met {
    /// Adds another run's.
    pub fn add(&mut self, other: &Met) {
        self.steps += other.steps;
        self.transient += other.transient;
        self.short += other.short;
        self.reissues += other.reissues;
        self.no_credit += other.no_credit;
        self.starved += other.starved;
        self.cache_off += other.cache_off;
        self.failed += other.failed;
        self.redirtied += other.redirtied;
        self.released_early += other.released_early;
    }
}

/// What a seed decides before the first step.
#[derive(Clone, Debug)]
struct Plan {
    engine: Engine,
    n_buffers: usize,
    span_blocks: u64,
    windows: [usize; 2],
    credits: Option<i64>,
    boundary: Option<u64>,
    retry: RetryLimits,
    cache_patience: Duration,
    /// Chances in a thousand, for the upload and the cache stream.
    transient: [u32; 2],
    short: [u32; 2],
    fatal: [u32; 2],
    conflict: u32,
    seal_failure: u32,
    cancel: u32,
}

fn chance(rng: &mut Rng, choices: &[u32]) -> u32 {
    choices[rng.usize(..choices.len())]
}

impl Plan {
    fn new(rng: &mut Rng, engine: Engine) -> Plan {
        let retry = RetryLimits { max_attempts: rng.u32(2..6), ..RetryLimits::default() };
        Plan {
            engine,
            n_buffers: rng.usize(1..6),
            span_blocks: rng.u64(1..9),
            windows: [rng.usize(1..5), rng.usize(1..5)],
            credits: rng.bool().then(|| rng.i64(2..6)),
            boundary: rng.bool().then(|| rng.u64(1..12)),
            retry,
            cache_patience: [Duration::MAX, Duration::from_millis(2)][rng.usize(..2)],
            transient: [chance(rng, &[0, 0, 20, 200]), chance(rng, &[0, 0, 0, 50])],
            short: [chance(rng, &[0, 0, 50, 300]), chance(rng, &[0, 0, 0, 50])],
            fatal: [chance(rng, &[0, 0, 0, 10]), chance(rng, &[0, 0, 20])],
            conflict: chance(rng, &[0, 0, 0, 0, 10]),
            seal_failure: chance(rng, &[0, 0, 0, 0, 0, 10]),
            cancel: chance(rng, &[0, 0, 0, 0, 10]),
        }
    }
}

/// Something that has been started and will answer.
enum UnderWay {
    Seal { span: u64, first_block: u64, plain: Vec<PlainSlice>, buffer: Buffer },
    Timer { at: Duration },
    Wake,
    Write { ticket: Ticket, write: Write },
}

/// The stock of credits that both targets share.
#[derive(Debug)]
struct Credits(AtomicI64);

impl CreditSource for Credits {
    fn give_back(&self, n: u32) {
        self.0.fetch_add(i64::from(n), Ordering::SeqCst);
    }
}

/// A run of blocks that the source has.
#[derive(Clone, Debug)]
struct Dirty {
    blocks: Range<u64>,
    folio: u64,
    destinations: Destinations,
}

struct World {
    rng: Rng,
    plan: Plan,
    now: Duration,
    key: ContentKey,
    pool: BufferPool,
    credits: Arc<Credits>,
    dirty: Vec<Dirty>,
    under_way: Vec<UnderWay>,
    oracle: Oracle,
    nonces: Nonces,
    met: Met,
    wants_credit: bool,
    starved: bool,
}

/// Runs one seed to its end and returns what it met.
///
/// # Panics
/// If an invariant is broken; the seed and the log are printed.
pub fn run(seed: u64, engine: Engine) -> Met {
    let mut rng = Rng::with_seed(seed);
    let plan = Plan::new(&mut rng, engine);
    let geometry = Geometry::new(BLOCK).expect("4 KiB is a block size");
    let root = RootKey::from_bytes(&[3; 32]);
    let header = Header::create(&root, geometry, plan.engine).expect("random bytes").header;
    let limits = RequestLimits {
        span_blocks: plan.span_blocks,
        retry: plan.retry,
        cache_patience: plan.cache_patience,
    };
    let cached = rng.u32(..8) > 0;
    let setup = [
        StreamSetup { role: Role::Must, window: plan.windows[0], active: true },
        StreamSetup { role: Role::May, window: plan.windows[1], active: cached },
    ];
    let mut request = Request::new(geometry, &limits, &setup);
    let buffer_bytes = usize::try_from(plan.span_blocks * geometry.stride_bytes()).expect("small");
    let dirty = dirty_folios(&mut rng);
    let credits = Arc::new(Credits(AtomicI64::new(plan.credits.unwrap_or(i64::MAX / 2))));
    let initial_credits = credits.0.load(Ordering::SeqCst);
    let mut world = World {
        pool: BufferPool::new(plan.n_buffers, buffer_bytes + 64),
        key: header.content_key().clone(),
        now: Duration::ZERO,
        under_way: vec![UnderWay::Wake],
        oracle: Oracle::new(seed, plan.windows, cached),
        nonces: Nonces::default(),
        met: Met::default(),
        wants_credit: false,
        starved: false,
        credits,
        dirty,
        plan,
        rng,
    };
    while !request.is_done() {
        world.step(&mut request);
    }
    while !world.under_way.is_empty() {
        // Answers that nobody waits for any more: of a cache that was switched off.
        world.step(&mut request);
    }
    drop(request);
    world.oracle.log(&format!("plan {:?}", world.plan));
    let left = world.dirty.len();
    world.oracle.at_end(left, &world.key);
    assert_eq!(world.pool.n_free(), world.pool.n_buffers(), "every buffer is home");
    assert_eq!(world.credits.0.load(Ordering::SeqCst), initial_credits, "every credit is back");
    world.met
}

/// Folios of one to four blocks, with gaps, and each with its destinations.
fn dirty_folios(rng: &mut Rng) -> Vec<Dirty> {
    let mut at = rng.u64(..5);
    let mut dirty = Vec::new();
    for folio in 0..rng.u64(..30) {
        if rng.u32(..4) == 0 {
            at += rng.u64(1..6);
        }
        let blocks = at..at + rng.u64(1..5);
        at = blocks.end;
        let destinations = match rng.u32(..8) {
            0 => Destinations::UPLOAD,
            1 => Destinations::CACHE,
            _ => Destinations::ALL,
        };
        dirty.push(Dirty { blocks, folio, destinations });
    }
    dirty
}

/// What a block holds.
pub fn plain_block(block: u64) -> Vec<u8> {
    let mut rng = Rng::with_seed(block);
    (0..BLOCK / 8).flat_map(|_| rng.u64(..).to_le_bytes()).collect()
}

impl World {
    fn step(&mut self, request: &mut Request) {
        self.met.steps += 1;
        self.now += Duration::from_micros(self.rng.u64(1..500));
        if self.plan.cancel > self.rng.u32(..1000) && !request.is_done() {
            self.hand(request, Event::Cancel);
            return;
        }
        self.wake_who_waits();
        assert!(!self.under_way.is_empty(), "nothing is under way, and the request is not done");
        let next = self.rng.usize(..self.under_way.len());
        match self.under_way.swap_remove(next) {
            UnderWay::Wake => self.hand(request, Event::Wake),
            UnderWay::Timer { at } => {
                self.now = self.now.max(at);
                self.hand(request, Event::Wake);
            }
            UnderWay::Seal { span, first_block, plain, buffer } => {
                let slices: Vec<&[u8]> = plain.iter().map(PlainSlice::as_slice).collect();
                let buffer = match self.rng.u32(..1000) < self.plan.seal_failure {
                    true => Buffer::unpooled(1),
                    false => buffer,
                };
                let result = self.key.seal(first_block, 2, &slices, buffer);
                self.oracle.log(&format!("sealed {span}: {}", result.is_ok()));
                self.hand(request, Event::Sealed { span, result });
            }
            UnderWay::Write { ticket, write } => {
                let outcome = self.outcome(ticket.stream, &write);
                self.oracle.on_outcome(ticket, &write, &outcome);
                drop(write);
                self.hand(request, Event::Terminated { ticket, outcome });
            }
        }
    }

    /// Targets and the pool wake a request that was refused, when there is something again.
    fn wake_who_waits(&mut self) {
        let credit = self.wants_credit && self.credits.0.load(Ordering::SeqCst) > 0;
        let buffer = self.starved && self.pool.n_free() > 0;
        if credit || buffer {
            self.wants_credit &= !credit;
            self.starved &= !buffer;
            self.under_way.push(UnderWay::Wake);
        }
    }

    fn outcome(&mut self, stream: usize, write: &Write) -> Result<u64, Failure> {
        let plan = &self.plan;
        let mut draw = self.rng.u32(..1000);
        let mut hit = |chance: u32| {
            let hit = draw < chance;
            draw = draw.saturating_sub(chance);
            if !hit && draw == 0 {
                draw = 1;
            }
            hit
        };
        let error = |what: &str| TargetError::new(TargetErrorKind::Io, what);
        if hit(plan.transient[stream]) {
            self.met.transient += 1;
            return Err(match self.rng.bool() {
                true => Failure::Retry(error("transient")),
                false => Failure::Renegotiate(error("renegotiate")),
            });
        }
        if hit(plan.short[stream]) {
            self.met.short += 1;
            return Ok(self.rng.u64(..write.bytes()));
        }
        if hit(plan.fatal[stream]) {
            return Err(Failure::Fatal(error("fatal")));
        }
        if hit(plan.conflict) {
            let block = write.blocks().start;
            return Err(Failure::Conflict(vec![BlockConflict { block, stored: None }]));
        }
        Ok(write.bytes())
    }

    fn hand(&mut self, request: &mut Request, event: Event) {
        let now = self.now;
        request.handle(event, now, self);
        let mut actions = Vec::new();
        request.take_actions(&mut actions);
        self.oracle.on_step(request);
        for action in actions {
            self.act(action);
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Done(result) => {
                self.met.failed += u64::from(result.is_err());
                self.oracle.on_done(&result);
            }
            Action::Issue { ticket, write } => {
                self.oracle.on_issue(ticket, &write);
                self.nonces.note(&write).expect("no nonce is used twice");
                self.under_way.push(UnderWay::Write { ticket, write });
            }
            Action::Release { folio, outcome } => {
                let early = self.oracle.on_release(folio, &outcome);
                self.met.released_early += u64::from(early);
                self.met.redirtied += u64::from(!early);
            }
            Action::Seal { span, first_block, plain, buffer } => {
                self.under_way.push(UnderWay::Seal { span, first_block, plain, buffer });
            }
            Action::Cached { sealed } => self.oracle.on_stored(&sealed, true),
            Action::Stored { sealed } => self.oracle.on_stored(&sealed, false),
            Action::StreamOff { stream, .. } => {
                self.met.cache_off += 1;
                self.oracle.on_stream_off(stream);
            }
            Action::Merge(_) | Action::Refresh { .. } => panic!("nothing is changed in part here"),
            Action::WakeAt(at) => self.under_way.push(UnderWay::Timer { at }),
            other => panic!("an action that the simulator does not know: {other:?}"),
        }
    }

    fn seal_now(&self, blocks: &Range<u64>) -> Sealed {
        let plain: Vec<u8> = blocks.clone().flat_map(plain_block).collect();
        let bytes = usize::try_from((blocks.end - blocks.start) * (BLOCK + 48)).expect("small");
        let buffer = Buffer::unpooled(bytes + 64);
        self.key.seal(blocks.start, 1, &[&plain], buffer).expect("a buffer of the right size")
    }
}

impl Host for World {
    fn next_dirty(&mut self, from: u64, max_blocks: u64) -> Option<DirtyRun> {
        let first = self.dirty.first()?.clone();
        assert!(first.blocks.start >= from, "asked from {from}, {:?} was passed over", first);
        let mut run = first.blocks.start..first.blocks.start;
        let mut folios = Vec::new();
        while let Some(next) = self.dirty.first_mut() {
            let fits = next.blocks.start == run.end && next.destinations == first.destinations;
            let room = max_blocks - (run.end - run.start);
            if !fits || room == 0 {
                break;
            }
            let end = next.blocks.end.min(run.end + room);
            let whole = end == next.blocks.end;
            run.end = end;
            next.blocks.start = end;
            if whole {
                folios.push(FolioEnd { folio: next.folio, end });
                self.dirty.remove(0);
            }
        }
        self.oracle.on_run(&run, first.destinations, &folios);
        let content = if first.destinations == Destinations::CACHE {
            RunContent::Sealed(self.seal_now(&run))
        } else {
            let plain = |block| {
                let bytes = Arc::new(plain_block(block));
                let len = bytes.len();
                PlainSlice::new(bytes, 0..len)
            };
            RunContent::Plain(run.clone().map(plain).collect())
        };
        let (destinations, partial) = (first.destinations, Vec::new());
        Some(DirtyRun { blocks: run, content, destinations, partial, folios })
    }

    fn take_buffer(&mut self) -> Option<Buffer> {
        let buffer = self.pool.try_take();
        if buffer.is_none() {
            self.starved = true;
            self.met.starved += 1;
        }
        buffer
    }

    fn prepare(&mut self, stream: usize, block: u64) -> Prepared {
        if self.credits.0.load(Ordering::SeqCst) <= 0 {
            self.wants_credit = true;
            self.met.no_credit += 1;
            return Prepared::Later;
        }
        self.credits.0.fetch_sub(1, Ordering::SeqCst);
        let max_blocks = self.rng.u64(1..9);
        let max_segments = self.rng.usize(1..5);
        let mut grant = Grant::unlimited()
            .with_max_bytes(max_blocks * (BLOCK + 48) + self.rng.u64(..BLOCK))
            .with_max_segments(max_segments)
            .with_credit(Credit::new(self.credits.clone(), 1));
        if let Some(every) = self.plan.boundary {
            grant = grant.with_boundary((block / every + 1) * every);
        }
        self.oracle.on_grant(stream, block, &grant);
        Prepared::Granted(grant)
    }

    fn random(&mut self) -> u64 {
        self.rng.u64(..)
    }

    fn tracing(&self) -> bool {
        true
    }

    fn trace(&mut self, event: TraceEvent) {
        self.met.reissues += u64::from(matches!(event, TraceEvent::Reissued { .. }));
        self.oracle.log(&format!("{:?} {event:?}", self.now));
    }
}

/// A block as a target holds it, for the oracle.
pub(crate) fn stored_of(write: &Write, block: u64) -> Stored {
    let sealed = write.segments.iter().find_map(|segment| match segment {
        sealback_stream::Segment::Sealed(sealed) if sealed.blocks().contains(&block) => {
            Some(sealed)
        }
        _ => None,
    });
    let sealed = sealed.expect("the write carries the block");
    Stored { nonce: sealed.nonce(block), bytes: sealed.block_bytes_of(block).to_vec() }
}

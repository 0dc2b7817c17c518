//! Runs the real request under a seeded schedule: which answer comes next, and what fails.
//!
//! One step takes one of the events that are under way (a span sealed, a write answered, a credit
//! or a buffer back, a timer) in an order that the seed decides, hands it to the request, and
//! carries out what the request wants done. Time is virtual. The oracle looks at
//! every step. A run that fails prints its seed and its log, and replays exactly.
//!
//! A third of the runs have a second server, a mirror of the first: a stream like any other.
//!
//! **Fault model:** a write may go through, go through in part (any number of bytes; the block it
//! ends in is torn), fail transiently, have been done and be answered as a failure, be dropped, ask
//! to be renegotiated, fail for good, conflict; a cache may answer nothing any more. A server may be
//! down for a while. Grants change from one to the next. Credits run out. Sealing may fail. The
//! request may be cancelled, or told to fail.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use fastrand::Rng;
use sealback::{
    Error,
    request::{Action, Event, Request, RequestLimits, StreamSetup},
    rmw::Merge,
    source::{Destinations, PlainSlice},
};
use sealback_crypto::{Buffer, BufferPool, ContentKey, Engine, Geometry, Header, RootKey, Sealed};
use sealback_stream::{CreditSource, Failure, Role, TargetError, TargetErrorKind, Ticket, Write};

use crate::{
    auditor::Nonces,
    bound::Bound,
    oracle::{Oracle, Stored},
};

mod host;
mod merges;
mod met;
mod plan;

pub use met::Met;
use plan::Plan;

/// The simulated block size.
pub const BLOCK: u64 = 4096;
/// A block as it is stored.
pub(crate) const STRIDE: u64 = BLOCK + 48;

/// The cache's stream.
pub(crate) const CACHE: usize = 1;
/// The second server's, where there is one.
pub(crate) const MIRROR: usize = 2;

/// Something that has been started and will answer.
enum UnderWay {
    Merge(Merge),
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
    /// Writes that the cache never answers.
    hung: Vec<UnderWay>,
    oracle: Oracle,
    nonces: Nonces,
    met: Met,
    wants_credit: bool,
    starved: bool,
    /// The request was woken, and may take what it wants.
    begun: bool,
    bound: Bound,
    /// Of subrequests that were told to be issued and have not been yet, by stream and number.
    attempts: BTreeMap<(usize, u64), u32>,
}

/// Runs one seed to its end and returns what it met.
///
/// # Panics
/// If an invariant is broken; the seed and the log are printed.
pub fn run(seed: u64, engine: Engine) -> Met {
    trace(seed, engine).0
}

/// The same, with the log.
///
/// # Panics
/// As for [`run`].
pub fn trace(seed: u64, engine: Engine) -> (Met, Vec<String>) {
    let mut rng = Rng::with_seed(seed);
    let plan = Plan::new(&mut rng, engine);
    run_planned(seed, rng, plan)
}

/// The same with a second server.
///
/// # Panics
/// As for [`run`].
pub fn mirror(seed: u64, engine: Engine) -> Met {
    let mut rng = Rng::with_seed(seed);
    let plan = Plan { mirrored: true, ..Plan::new(&mut rng, engine) };
    run_planned(seed, rng, plan).0
}

fn run_planned(seed: u64, mut rng: Rng, plan: Plan) -> (Met, Vec<String>) {
    let geometry = Geometry::new(BLOCK).expect("4 KiB is a block size");
    let root = RootKey::from_bytes(&[3; 32]);
    let header = Header::create(&root, geometry, plan.engine).expect("random bytes").header;
    let limits = RequestLimits {
        span_blocks: plan.span_blocks,
        max_stalled: plan.max_stalled,
        retry: plan.retry,
        cache_patience: plan.cache_patience,
    };
    let cached = rng.u32(..8) > 0;
    let roles = [(Role::Must, true), (Role::May, cached), (Role::Must, true)];
    let mut setup: Vec<_> = roles
        .into_iter()
        .zip(plan.windows)
        .map(|((role, active), window)| StreamSetup { role, window, active })
        .collect();
    setup.truncate(if plan.mirrored { 3 } else { 2 });
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
        hung: Vec::new(),
        oracle: Oracle::new(seed, &setup, plan.retry, plan.cache_patience),
        nonces: Nonces::default(),
        met: Met::default(),
        wants_credit: false,
        starved: false,
        begun: false,
        bound: Bound::default(),
        attempts: BTreeMap::new(),
        credits,
        dirty,
        plan,
        rng,
    };
    while !request.is_done() {
        world.step(&mut request);
    }
    world.under_way.append(&mut world.hung);
    while !world.under_way.is_empty() {
        // Answers that nobody waits for any more: of a cache that was switched off.
        world.step(&mut request);
    }
    world.oracle.log(&format!("plan {:?}", world.plan));
    let left = world.dirty.len();
    world.oracle.at_end(left, &world.key);
    world.oracle.tally.check_stats(request.stats());
    // The request is still there: it holds on to nothing.
    assert_eq!(world.pool.n_free(), world.pool.n_buffers(), "every buffer is home");
    assert_eq!(world.credits.0.load(Ordering::SeqCst), initial_credits, "every credit is back");
    let Oracle { splits, joins, back_offs, .. } = world.oracle;
    (Met { splits, joins, back_offs, ..world.met }, world.oracle.take_log())
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
            0 => Destinations::SERVERS,
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
        self.bound.step();
        self.now += Duration::from_micros(self.rng.u64(1..500));
        if self.plan.cancel > self.rng.u32(..1000) && !request.is_done() {
            self.met.cancelled += 1;
            self.oracle.tally.ends_with(Error::Cancelled);
            let event = match self.rng.bool() {
                true => Event::Cancel,
                false => Event::Fail(Error::Cancelled),
            };
            return self.hand(request, event);
        }
        if self.plan.hurry > self.rng.u32(..1000) {
            self.met.hurried += 1;
            self.oracle.on_hurry();
            return self.hand(request, Event::Hurry);
        }
        self.wake_who_waits();
        if self.under_way.is_empty() {
            // The server may wait for the credits that a hung cache holds, which are of one stock here.
            self.under_way.append(&mut self.hung);
        }
        assert!(!self.under_way.is_empty(), "nothing is under way, and the request is not done");
        let next = self.rng.usize(..self.under_way.len());
        match self.under_way.swap_remove(next) {
            UnderWay::Wake => {
                self.begun = true;
                self.hand(request, Event::Wake);
            }
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
                match &result {
                    Ok(sealed) => {
                        self.oracle.tally.sealed();
                        self.oracle.on_sealed(sealed.blocks());
                    }
                    Err(error) => self.oracle.tally.ends_with(Error::Seal(Arc::new(*error))),
                }
                self.hand(request, Event::Sealed { span, result });
            }
            UnderWay::Merge(merge) => {
                let (block, result) = (merge.block, self.merge(&merge));
                self.hand(request, Event::Merged { block, result });
            }
            UnderWay::Write { ticket, write } => {
                if ticket.stream == CACHE && !request.is_done() && self.hangs() {
                    return self.hung.push(UnderWay::Write { ticket, write });
                }
                let (outcome, has) = self.outcome(ticket.stream, &write);
                self.oracle.on_outcome(self.now, ticket, &write, &outcome, has);
                drop(write);
                if request.is_done() && self.rng.bool() {
                    return request.answered_late(ticket, outcome);
                }
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

    fn hangs(&mut self) -> bool {
        let hangs = self.plan.hang > self.rng.u32(..1000);
        self.met.hung += u64::from(hangs);
        hangs
    }

    /// What a target answers, and how many blocks of the write it has.
    fn outcome(&mut self, stream: usize, write: &Write) -> (Result<u64, Failure>, u64) {
        let blocks = write.runs();
        let all = blocks.n_blocks();
        self.met.vectored += u64::from(blocks != blocks.hull());
        let error = |what: &str| TargetError::new(TargetErrorKind::Io, what);
        let is_down = stream == 0 && self.plan.down.contains(&self.now);
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
        if is_down || hit(plan.transient[stream]) {
            return match self.rng.u32(..3) {
                0 => {
                    self.met.transient += 1;
                    (Err(Failure::Retry(error("transient"))), 0)
                }
                1 => {
                    self.met.dropped += 1;
                    let dropped = TargetError::new(TargetErrorKind::Dropped, "dropped");
                    (Err(Failure::Retry(dropped)), 0)
                }
                _ => {
                    self.met.renegotiated += 1;
                    (Err(Failure::Renegotiate(error("renegotiate"))), 0)
                }
            };
        }
        if hit(plan.unknown[stream]) {
            self.met.unknown += 1;
            let timed_out = TargetError::new(TargetErrorKind::TimedOut, "unknown");
            return (Err(Failure::Retry(timed_out)), self.rng.u64(..=all));
        }
        if hit(plan.short[stream]) {
            self.met.short += 1;
            let bytes = match self.rng.u32(..4) {
                0 => 1,
                _ => self.rng.u64(..write.bytes()),
            };
            self.met.torn += u64::from(!bytes.is_multiple_of(STRIDE));
            return (Ok(bytes), bytes / STRIDE);
        }
        if hit(plan.fatal[stream]) {
            return (Err(Failure::Fatal(error("fatal"))), 0);
        }
        if hit(plan.conflict[stream]) {
            return (Err(Failure::Conflict(self.conflicts(&blocks))), 0);
        }
        (Ok(write.bytes()), all)
    }

    fn hand(&mut self, request: &mut Request, event: Event) {
        let now = self.now;
        request.handle(event, now, self);
        let mut actions = Vec::new();
        request.take_actions(&mut actions);
        self.oracle.on_step(now, request);
        for action in actions {
            self.act(action);
        }
        self.oracle.after_step(now);
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Done(result) => {
                let works = |under_way: &UnderWay| {
                    matches!(under_way, UnderWay::Seal { .. } | UnderWay::Merge(_))
                };
                assert!(!self.under_way.iter().any(works), "done, and still sealing or merging");
                self.met.failed += u64::from(result.is_err());
                self.met.mirrored += u64::from(result.is_ok() && self.plan.mirrored);
                self.oracle.on_done(&result, self.plan.lacks);
            }
            Action::Issue { ticket, write } => {
                let attempts = self.attempts.remove(&(ticket.stream, ticket.id));
                self.oracle.on_issue(self.now, ticket, &write, attempts.expect("told of before"));
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
            Action::InDoubt { sealed } => self.oracle.on_in_doubt(&sealed),
            Action::StreamOff { stream, .. } => {
                assert_eq!(stream, CACHE, "the upload stream is never switched off");
                self.met.cache_off += 1;
            }
            Action::Merge(merge) => {
                self.oracle.on_merge(self.now, &merge);
                self.under_way.push(UnderWay::Merge(merge));
            }
            Action::Refresh { block, plain } => self.oracle.on_refresh(block, &plain),
            Action::WakeAt(at) => self.under_way.push(UnderWay::Timer { at }),
            other => panic!("an action that the simulator does not know: {other:?}"),
        }
    }

    fn seal_now(&self, blocks: &Range<u64>) -> Sealed {
        let plain: Vec<u8> = blocks.clone().flat_map(plain_block).collect();
        let bytes = usize::try_from((blocks.end - blocks.start) * STRIDE).expect("small");
        let buffer = Buffer::unpooled(bytes + 64);
        self.key.seal(blocks.start, 1, &[&plain], buffer).expect("a buffer of the right size")
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

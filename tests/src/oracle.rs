//! What must hold at every step of a request, whatever happens; written from the rules, not from the
//! code.
//!
//! - A stream's position never goes back, and the request's is the least of its active streams'.
//! - First issues ascend; so do reissues, and they go first. No write exceeds its grant, crosses its
//!   boundary or overfills the window.
//! - What is sent again is exactly what did not go through, with the attempts that it has had; and
//!   it, and what goes to the other stream, is the same sealed bytes.
//! - A block that somebody else has changed is laid over what is there, exactly what is dirty of it; then
//!   it goes to every stream that wants it, whether it had it or not. One after the other, and with
//!   nothing in flight. What must not be laid over anything ends the request.
//! - The server is told what must be stored for each block that is changed in part, and the cache is not.
//! - After a failure of the server nothing is issued until nothing is in flight, and then not before
//!   its time: at once the first time, later from the second time on.
//! - A folio ends once, in ascending order; it is clean only when every active stream that wants it
//!   has all its blocks, the same sealed bytes in each.
//! - A cache that fails does not fail the request; one that answers nothing is given up when its time
//!   is over, and not before.
//! - What is sealed does not wait while the window has room; what it waits for is counted.
//! - A folio is not held when it has gone where it should.
//! - A subrequest that could grow is not cut short, unless its stream has nothing else to do.
//! - At the end every folio that was handed out has ended, and what is clean opens as what was
//!   written. What the server may have is told of, as stored or as in doubt, and nothing else.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    thread,
    time::Duration,
};

use sealback::{
    RetryLimits,
    request::{Request, RequestState, StreamSetup},
    source::{Destinations, FolioEnd, Writeback},
};
use sealback_crypto::{Nonce, Sealed};
use sealback_stream::{Failure, Grant, Runs, Ticket, Write};

use crate::{
    simulator::{CACHE, STRIDE, stored_of},
    tally::Tally,
};

mod end;
mod merges;
mod stalls;
mod stream_view;

use merges::Merges;
use stream_view::{Granted, StreamView};

/// A block as a target holds it.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) nonce: Nonce,
    pub(crate) bytes: Vec<u8>,
}

#[derive(Debug)]
struct Pause {
    /// The greatest count of attempts that got nowhere.
    attempts: u32,
    /// When the last answer came.
    drained_at: Duration,
    /// What failed, as it was issued, and of which stream.
    failed: Vec<(usize, Runs)>,
    /// It was told of.
    told: bool,
}

/// Watches one request.
pub(crate) struct Oracle {
    seed: u64,
    log: Vec<String>,
    windows: Vec<usize>,
    streams: Vec<StreamView>,
    wanted: BTreeMap<u64, Destinations>,
    /// The nonces that were sent.
    sent: BTreeMap<u64, Nonce>,
    merges: Merges,
    folios: BTreeMap<u64, Range<u64>>,
    handed_out: BTreeSet<u64>,
    last_released: Option<u64>,
    clean: BTreeSet<u64>,
    redirty: BTreeSet<u64>,
    /// The source has nothing more.
    source_ended: bool,
    /// Blocks whose ciphertext is ready.
    sealed: BTreeSet<u64>,
    /// Blocks of which was told that the server has them, or may have them.
    told_of: BTreeSet<u64>,
    /// Blocks that the cache's record may call present.
    cached: BTreeSet<u64>,
    cache_patience: Duration,
    /// The cache has answered with a failure, and is off from now on.
    cache_fails: bool,
    pub(crate) tally: Tally,
    retry: RetryLimits,
    /// A failure of the server waits for its reissue.
    pause: Option<Pause>,
    /// Somebody has begun to wait for the end.
    hurried: bool,
    /// So what failed goes out again in this step.
    goes_now: bool,
    /// Nothing else happens in this step.
    only_hurried: bool,
    /// What failed and is cut anew now.
    reissued: Vec<Runs>,
    /// What the runs met here.
    pub(crate) splits: u64,
    pub(crate) joins: u64,
    pub(crate) back_offs: u64,
    result: Option<bool>,
}

impl Oracle {
    pub(crate) fn new(
        seed: u64,
        setup: &[StreamSetup],
        retry: RetryLimits,
        cache_patience: Duration,
    ) -> Oracle {
        let view =
            |stream: &StreamSetup| StreamView { off: !stream.active, ..StreamView::default() };
        Oracle {
            seed,
            log: Vec::new(),
            windows: setup.iter().map(|stream| stream.window).collect(),
            streams: setup.iter().map(view).collect(),
            wanted: BTreeMap::new(),
            sent: BTreeMap::new(),
            merges: Merges::default(),
            folios: BTreeMap::new(),
            handed_out: BTreeSet::new(),
            last_released: None,
            clean: BTreeSet::new(),
            redirty: BTreeSet::new(),
            source_ended: false,
            sealed: BTreeSet::new(),
            told_of: BTreeSet::new(),
            cached: BTreeSet::new(),
            cache_patience,
            cache_fails: false,
            tally: Tally::new(retry, setup.len()),
            retry,
            pause: None,
            hurried: false,
            goes_now: false,
            only_hurried: false,
            reissued: Vec::new(),
            splits: 0,
            joins: 0,
            back_offs: 0,
            result: None,
        }
    }

    pub(crate) fn log(&mut self, line: &str) {
        self.log.push(line.to_owned());
    }

    pub(crate) fn take_log(&mut self) -> Vec<String> {
        std::mem::take(&mut self.log)
    }

    pub(crate) fn on_run(&mut self, run: &Range<u64>, to: Destinations, folios: &[FolioEnd]) {
        for block in run.clone() {
            assert!(self.wanted.insert(block, to).is_none(), "block {block} handed out twice");
        }
        for FolioEnd { folio, end } in folios {
            assert!(self.handed_out.insert(*folio), "folio {folio} handed out twice");
            // The blocks since the last folio's end belong to this one, for all that matters here.
            let start = self.folios.values().map(|blocks| blocks.end).max().unwrap_or(0);
            self.folios.insert(*folio, start..*end);
        }
    }

    pub(crate) fn on_source_end(&mut self) {
        self.source_ended = true;
    }

    pub(crate) fn on_grant(&mut self, stream: usize, block: u64, grant: &Grant) {
        let granted = Granted {
            max_blocks: (grant.max_bytes / STRIDE).max(1),
            max_segments: grant.max_segments,
            boundary: grant.boundary,
            gaps: grant.gaps,
        };
        self.streams[stream].grants.insert(block, granted);
    }

    pub(crate) fn on_step(&mut self, now: Duration, request: &Request) {
        self.tally.on_step(now, || matches!(request.view().state, RequestState::Sending));
        let goes_now = std::mem::take(&mut self.goes_now);
        assert!(!goes_now || self.pause.is_none(), "somebody waits, and it waits its time");
        let mut least = None;
        let servers = request.streams().iter().zip(&self.streams);
        let mut servers = servers.enumerate().filter(|(index, _)| *index != CACHE);
        if servers.any(|(_, (stream, view))| stream.collected_to() > view.collected_to) {
            self.tally.progressed();
        }
        for (index, stream) in request.streams().iter().enumerate() {
            let view = &mut self.streams[index];
            assert!(view.collected_to <= stream.collected_to(), "stream {index} went back");
            view.collected_to = stream.collected_to();
            view.stalled = stream.stalled();
            if stream.is_active() {
                assert!(stream.collected_to() <= request.issued_to(), "stream {index} ran ahead");
                let again = view.redo.first().copied().unwrap_or(u64::MAX);
                let reached = stream.collected_to().min(again);
                least = Some(least.unwrap_or(u64::MAX).min(reached));
            }
        }
        // Once it has failed it says nothing of what was to go out again.
        let says = !self.tally.is_ending() || self.streams.iter().all(|view| view.redo.is_empty());
        assert!(!says || least.unwrap_or(request.issued_to()) == request.collected_to());
        let silent = self.streams[CACHE].silent_since.map(|since| now - since);
        let waits = silent.is_none_or(|silent| silent < self.cache_patience);
        let looks = !std::mem::take(&mut self.only_hurried) && !request.is_done();
        assert!(waits || !looks, "a cache that answers nothing is waited for");
    }

    pub(crate) fn on_issue(&mut self, now: Duration, ticket: Ticket, write: &Write, attempts: u32) {
        let Ticket { stream, id } = ticket;
        let blocks = write.runs();
        self.log.push(format!("issue {stream}/{id} {blocks:?}, attempts {attempts}"));
        assert!(self.pause.is_none(), "issued {blocks:?} while paused: {:?}", self.pause);
        let view = &mut self.streams[stream];
        if view.in_flight.is_empty() {
            view.silent_since = Some(now);
        }
        view.left(id);
        if let Some((_, since)) = view.held_up.take_if(|(held_up, _)| *held_up == id) {
            self.tally.stalled(stream, now - since);
        }
        assert!(view.in_flight.insert(id, attempts).is_none(), "subrequest {id} issued twice");
        assert!(view.in_flight.len() <= self.windows[stream], "the window of {stream} overflows");
        let granted = view.grants.remove(&blocks.start()).expect("a write has a grant of its own");
        assert!(blocks.n_blocks() <= granted.max_blocks, "{blocks:?} of {granted:?}");
        assert!(granted.gaps || blocks == blocks.hull(), "{blocks:?} has gaps: {granted:?}");
        assert!(write.segments.len() <= granted.max_segments, "{granted:?}");
        assert!(granted.boundary.is_none_or(|boundary| blocks.end() <= boundary), "{granted:?}");
        for block in blocks.blocks() {
            let to = self.wanted.get(&block).expect("only what was handed out is written");
            assert!(to.contains(stream), "block {block} is not for stream {stream}");
            assert!(!view.acknowledged.contains(&block), "block {block} went through, and again");
            let nonce = write.nonce(block).expect("the write carries the block");
            assert_eq!(*self.sent.entry(block).or_insert(nonce), nonce, "block {block} is another");
        }
        self.tally.issued(now, ticket);
        self.check_expectations(stream, write);
        self.check_order(stream, &blocks, attempts);
    }

    /// First issues ascend; what is sent again goes first, ascends, and is what is owed.
    fn check_order(&mut self, stream: usize, blocks: &Runs, attempts: u32) {
        let view = &mut self.streams[stream];
        if view.ever_issued.insert(blocks.start()) {
            assert!(view.owed.is_empty(), "{blocks:?} overtakes what is owed: {:?}", view.owed);
            assert!(blocks.start() >= view.first_issued_to, "first issues ascend: {blocks:?}");
            assert_eq!(attempts, 0, "{blocks:?} was never issued");
            view.first_issued_to = blocks.end();
            view.ever_issued.extend(blocks.blocks());
            return;
        }
        assert!(blocks.start() >= view.reissued_from, "reissues ascend: {blocks:?}");
        view.reissued_from = blocks.end();
        let owed: Option<Vec<u32>> =
            blocks.blocks().map(|block| view.owed.remove(&block)).collect();
        let owed = owed.unwrap_or_else(|| panic!("{blocks:?} is sent again, and is not owed"));
        // What was joined with something else has the attempts of both from then on.
        let least = owed.iter().copied().max().unwrap_or(0);
        let most = view.most_attempts.max(least);
        assert!((least..=most).contains(&attempts), "attempts of {blocks:?}: {owed:?}");
        assert!(attempts < self.retry.max_attempts, "{attempts} attempts at {blocks:?}");
    }

    pub(crate) fn on_outcome(
        &mut self,
        now: Duration,
        ticket: Ticket,
        write: &Write,
        outcome: &Result<u64, Failure>,
        has: u64,
    ) {
        let Ticket { stream, id } = ticket;
        self.log.push(format!("terminate {stream}/{id} {outcome:?}, it has {has} blocks"));
        let lost = self.conflicts(stream, &write.runs(), outcome);
        let view = &mut self.streams[stream];
        let attempts = view.in_flight.remove(&id);
        assert!(attempts.is_some() || view.off, "subrequest {id} is not in flight");
        view.silent_since = (!view.off && !view.in_flight.is_empty()).then_some(now);
        let whole = matches!(outcome, Ok(bytes) if *bytes == write.bytes());
        let through = outcome.as_ref().map_or(0, |bytes| *bytes);
        let told = if whole { u64::MAX } else { through / STRIDE };
        let blocks = write.runs();
        let first = |n: u64| blocks.blocks().take(usize::try_from(n).expect("64 bits"));
        for block in first(has) {
            view.stored.insert(block, stored_of(write, block));
        }
        for block in first(told) {
            view.acknowledged.insert(block);
            view.redo.remove(&block);
        }
        // Nobody waits for a stream that is off.
        let Some(attempts) = attempts else { return };
        if let Some(pause) = &mut self.pause {
            pause.drained_at = now;
        }
        let attempts = if told > 0 { 0 } else { attempts + 1 };
        let left = blocks.without_first(told);
        self.cache_fails |= stream == CACHE && !whole;
        let range = left.as_ref().map(Runs::hull);
        self.tally.answered(now, ticket, outcome, range, attempts, lost);
        let Some(left) = left else { return };
        view.most_attempts = view.most_attempts.max(attempts);
        view.owed.extend(left.blocks().map(|block| (block, attempts)));
        if stream != CACHE {
            let pause = self.pause.get_or_insert(Pause {
                attempts: 0,
                drained_at: now,
                failed: Vec::new(),
                told: false,
            });
            pause.attempts = pause.attempts.max(attempts);
            pause.failed.push((stream, left));
        }
    }

    /// What failed may go out again before its time.
    pub(crate) fn on_hurry(&mut self) {
        self.hurried |= self.pause.is_some();
        let is_drained = self.streams.iter().all(|view| view.in_flight.is_empty());
        self.only_hurried = true;
        let waits = self.pause.is_some() && is_drained && !self.is_merging();
        self.goes_now = waits && !self.tally.is_ending();
    }

    /// The request tells that it pauses.
    pub(crate) fn on_paused(&mut self) {
        let pause = self.pause.as_mut().expect("it pauses for what failed");
        assert!(!std::mem::replace(&mut pause.told, true), "told twice");
    }

    /// What failed goes out again.
    pub(crate) fn on_reissue(&mut self, now: Duration, subrequests: usize) {
        self.check_waited(now);
        self.hurried = false;
        let pause = self.pause.take().expect("only what failed is sent again");
        self.tally.goes_on(now);
        assert!(pause.told, "it paused, and did not tell");
        assert!(!self.is_merging(), "reissued before it is merged: {:?}", self.merges);
        assert_eq!(subrequests, pause.failed.len(), "{pause:?}");
        for view in self.streams.iter_mut().filter(|view| !view.off) {
            assert!(view.in_flight.is_empty(), "reissued with {:?} in flight", view.in_flight);
            view.reissued_from = 0;
            view.stalled -= std::mem::take(&mut view.again).len();
        }
        self.back_offs += u64::from(!self.retry.delay(pause.attempts, 0).is_zero());
        let uploads = pause.failed.into_iter().filter(|(stream, _)| *stream == 0);
        self.reissued.extend(uploads.map(|(_, blocks)| blocks));
    }

    /// What failed is gone on with: not before its time, unless somebody waits.
    fn check_waited(&self, now: Duration) {
        let pause = self.pause.as_ref().expect("only what failed is sent again");
        let (waited, full) = (now - pause.drained_at, self.retry.delay(pause.attempts, 0));
        assert!(
            self.hurried || waited >= full / 2,
            "waited {waited:?}, not {full:?}, for {pause:?}"
        );
    }

    /// A subrequest was cut: not too early. Counts how what failed is cut anew.
    pub(crate) fn on_prepared(&mut self, stream: usize, id: u64, blocks: &Runs) {
        self.tally.prepared(stream);
        let view = &mut self.streams[stream];
        let granted = &view.grants[&blocks.start()];
        // Each block may be a segment of its own.
        let is_full = blocks.n_blocks() >= granted.max_blocks.min(granted.max_segments as u64)
            || granted.boundary == Some(blocks.end());
        let is_fresh = !view.ever_issued.contains(&blocks.start());
        let lane = if is_fresh { &mut view.fresh } else { &mut view.again };
        lane.push_back((id, blocks.clone()));
        let next = self.wanted.range(blocks.end()..).find(|(_, to)| to.contains(stream));
        // What follows could have been joined, if a gap is no reason to stop.
        let known = next.is_some_and(|(next, _)| {
            !granted.gaps || granted.boundary.is_some_and(|boundary| boundary <= *next)
        });
        let is_idle = view.in_flight.is_empty() && view.stalled == 0;
        let may_be_cut = is_full || !is_fresh || known || self.source_ended || is_idle;
        assert!(may_be_cut, "{blocks:?} of {stream} could have grown: {granted:?}");
        if stream != 0 {
            return;
        }
        let overlaps = |failed: &&Runs| failed.blocks().any(|block| blocks.contains(block));
        let parts: Vec<_> = self.reissued.iter().filter(overlaps).collect();
        self.joins += u64::from(parts.len() > 1);
        let is_split = |failed: &&Runs| failed.blocks().any(|block| !blocks.contains(block));
        self.splits += u64::from(parts.iter().any(is_split));
        let end = blocks.end();
        self.reissued.retain(|failed| failed.end() > end);
    }

    pub(crate) fn on_stored(&mut self, sealed: &Sealed, cached: bool) {
        for (block, nonce) in sealed.nonces() {
            let news = if cached { &mut self.cached } else { &mut self.told_of };
            assert!(news.insert(block), "block {block} is told of twice");
            let to = self.wanted[&block];
            for (index, view) in self.streams.iter().enumerate() {
                if to.contains(index) && !view.off && (index != CACHE || cached) {
                    assert_eq!(view.stored[&block].nonce, nonce, "block {block} of {index}");
                }
            }
        }
    }

    pub(crate) fn on_stream_off(&mut self, now: Duration, stream: usize) {
        let view = &mut self.streams[stream];
        let silent = view.silent_since.take().map(|since| now - since);
        let is_over = silent.is_some_and(|silent| silent >= self.cache_patience);
        assert!(self.cache_fails || is_over, "given up after {silent:?}");
        view.off = true;
        view.in_flight.clear();
        view.fresh.clear();
        view.again.clear();
    }

    /// Returns whether the folio is clean.
    pub(crate) fn on_release(&mut self, folio: u64, outcome: &Writeback) -> bool {
        self.log.push(format!("release {folio} {outcome:?}"));
        assert!(self.last_released.is_none_or(|last| last < folio), "folio {folio} out of order");
        self.last_released = Some(folio);
        assert!(self.handed_out.remove(&folio), "folio {folio} was not handed out, or ended");
        let clean = matches!(outcome, Writeback::Clean);
        self.tally.released(clean);
        if !clean {
            self.redirty.insert(folio);
            return false;
        }
        self.clean.insert(folio);
        for block in self.folios[&folio].clone() {
            let Some(to) = self.wanted.get(&block) else { continue };
            for (index, view) in self.streams.iter().enumerate() {
                let there = view.acknowledged.contains(&block);
                let needed = to.contains(index) && !view.off;
                assert!(there || !needed, "folio {folio} is clean, {index} lacks block {block}");
            }
        }
        true
    }

    /// What a step brought about has been carried out: what has gone where it should is not held any
    /// longer, and what can go does not wait.
    pub(crate) fn after_step(&mut self, now: Duration) {
        self.check_stalls(now);
        let Some(first) = self.handed_out.first().filter(|_| !self.tally.is_ending()) else {
            return;
        };
        let waits = self.wanted.range(self.folios[first].clone()).any(|(block, to)| {
            let lacks = |view: &StreamView| !view.off && !view.acknowledged.contains(block);
            self.streams.iter().enumerate().any(|(index, view)| to.contains(index) && lacks(view))
        });
        assert!(waits, "folio {first} is held for nothing");
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        if thread::panicking() {
            for line in &self.log {
                eprintln!("{line}");
            }
            eprintln!("replay with SEALBACK_SEED={}", self.seed);
        }
    }
}

//! One writeback pass over one file, as a state machine without I/O.
//!
//! Events go in, actions come out. There is no thread, clock, lock or channel in here: time is an
//! argument, and what the request needs of its surroundings at once (a dirty run, a buffer, a
//! grant) it asks of its [`Host`], which answers without blocking. The engine drives it with
//! threads; a simulator drives the very same code, from a seed.
//!
//! ```text
//!            ┌─────────────── advance ───────────────┐
//!  Event ──► │ retryer ─► issuer ─► streams ─► collect │ ──► Action
//!            └────────────────────────────────────────┘
//! ```
//!
//! **Invariants:**
//! 1. A folio is released once, in ascending order: clean when every stream that wants it has
//!    passed its end, dirty again if the request failed before.
//! 2. A write is issued only when all its blocks are sealed.
//! 3. The request is done exactly once: when nothing is left to issue, nothing is in flight,
//!    nothing is being sealed, and every folio has been released.
//! 4. A stream that may fail never delays or fails the others by failing.

use std::time::Duration;

use sealback_crypto::Geometry;
use sealback_stream::{
    Collected, Failure, Prepared, Role, Stream, TargetError, TargetErrorKind, Ticket,
};

use crate::{
    Error,
    issuer::{Downstream, Issuer, IssuerState},
    patience::{Patience, Wait},
    releaser::Releaser,
    retryer::{RetryStep, Retryer},
    rmw::Merger,
    source::Writeback,
    spans::Spans,
    stats::{RequestStats, StallClock, StreamStats, WaitClock},
    trace::TraceEvent,
};

mod answers;
mod collector;
mod interface;
mod view;

pub use interface::{Action, Event, Host, RequestLimits, StreamSetup};
pub use view::{RequestState, RequestView, StreamWait};

/// The stream whose target is compared with.
const FIRST_SERVER: usize = 0;

#[derive(Debug)]
enum Phase {
    Running,
    /// Nothing more is issued; waiting for what is in flight and being sealed.
    Ending(Error),
    Done,
}

/// One writeback pass over one file.
#[derive(Debug)]
pub struct Request {
    geometry: Geometry,
    phase: Phase,
    issuer: Issuer,
    spans: Spans,
    streams: Vec<Stream>,
    releaser: Releaser,
    retryer: Retryer,
    merger: Merger,
    /// One for each stream; those that must succeed are waited for.
    patience: Vec<Patience>,
    actions: Vec<Action>,
    stalls: Vec<StallClock>,
    pause: WaitClock,
    starved: WaitClock,
    /// The block up to which it has told that all went where it should.
    told_to: u64,
    stats: RequestStats,
}

impl Request {
    /// A request that has not begun: the first event begins it. One stream for each of `setup`, at
    /// most eight. The first goes to the server whose blocks are compared with what is expected there,
    /// and merged; all others get copies of what that gets: caches, which may fail, or mirrors, which
    /// must not.
    pub fn new(geometry: Geometry, limits: &RequestLimits, setup: &[StreamSetup]) -> Request {
        let streams = setup.iter().map(|setup| {
            let mut stream = Stream::new(setup.role, geometry, setup.window);
            if !setup.active {
                stream.switch_off();
            }
            stream
        });
        Request {
            geometry,
            phase: Phase::Running,
            issuer: Issuer::new(limits.span_blocks, limits.max_stalled),
            spans: Spans::new(geometry),
            streams: streams.collect(),
            releaser: Releaser::default(),
            retryer: Retryer::new(limits.retry),
            merger: Merger::default(),
            patience: vec![Patience::new(limits.cache_patience); setup.len()],
            actions: Vec::new(),
            stalls: vec![StallClock::default(); setup.len()],
            pause: WaitClock::default(),
            starved: WaitClock::default(),
            told_to: 0,
            stats: RequestStats::new(setup.len()),
        }
    }

    /// Takes an event in, and goes on as far as it can.
    pub fn handle(&mut self, event: Event, now: Duration, host: &mut impl Host) {
        match event {
            Event::Cancel => self.end_with(Error::Cancelled),
            Event::Fail(error) => self.end_with(error),
            Event::Hurry => {
                // Else there is nothing to be done now; perhaps it has not even begun.
                if !self.retryer.hurry(now) {
                    return;
                }
            }
            Event::Merged { block, result } => self.on_merged(block, result, host),
            Event::Sealed { span, result } => self.on_sealed(span, result, host),
            Event::Terminated { ticket, outcome } => self.on_terminated(ticket, outcome, now, host),
            Event::Wake => {}
        }
        self.advance(now, host);
        self.time_waits(now);
    }

    /// Takes in an answer that came after the end, of a stream that was switched off: what the
    /// subrequest held goes back. [`handle`](Request::handle) does so, too.
    pub fn answered_late(&mut self, ticket: Ticket, outcome: Result<u64, Failure>) {
        debug_assert!(self.is_done(), "{ticket:?} is not late");
        let collected = self.streams[ticket.stream].terminated(ticket.id, outcome);
        debug_assert!(matches!(collected, Collected::Ignored), "somebody waited for {ticket:?}");
    }

    /// Takes the actions that are to be carried out, in order.
    pub fn take_actions(&mut self, into: &mut Vec<Action>) {
        match into.is_empty() {
            true => std::mem::swap(into, &mut self.actions),
            false => into.append(&mut self.actions),
        }
    }

    /// Whether it has ended.
    pub fn is_done(&self) -> bool {
        matches!(self.phase, Phase::Done)
    }

    /// Whether nothing of it is being sealed, or is with a target.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.in_flight() == 0 && self.spans.n_sealing() == 0
    }

    /// What it has done so far.
    pub fn stats(&self) -> &RequestStats {
        &self.stats
    }

    /// Hands out what it has done, for good.
    pub(crate) fn take_stats(&mut self) -> RequestStats {
        std::mem::take(&mut self.stats)
    }

    /// The block before which everything has gone where it should (exclusive). Once the request has
    /// failed it says nothing: what was not sent looks as if it had been passed.
    pub fn collected_to(&self) -> u64 {
        let active = self.streams.iter().filter(|stream| stream.is_active());
        active.map(Stream::done_to).min().unwrap_or(self.issuer.issued_to())
    }

    /// The end of what has been offered to the streams (exclusive), in blocks.
    pub fn issued_to(&self) -> u64 {
        self.issuer.issued_to()
    }

    /// The streams, for whoever checks them.
    pub fn streams(&self) -> &[Stream] {
        &self.streams
    }

    /// Ends the request with an error; the first one stands.
    fn end_with(&mut self, error: Error) {
        if matches!(self.phase, Phase::Running) {
            self.phase = Phase::Ending(error);
            self.issuer.stop();
            self.streams.iter_mut().for_each(Stream::cancel_unissued);
        }
    }

    fn advance(&mut self, now: Duration, host: &mut impl Host) {
        self.lose_patience(now, host);
        match self.phase {
            Phase::Running => self.advance_running(now, host),
            Phase::Ending(_) => {
                self.collect(host);
                self.advance_ending(host);
            }
            Phase::Done => {}
        }
        self.lose_patience(now, host);
    }

    /// Switches off streams that may fail and have answered nothing for too long.
    fn lose_patience(&mut self, now: Duration, host: &mut impl Host) {
        for index in 0..self.streams.len() {
            let stream = &self.streams[index];
            if stream.role() == Role::Must || stream.in_flight() == 0 || self.is_done() {
                continue;
            }
            match self.patience[index].look(now) {
                Wait::On => {}
                Wait::Until(time) => self.actions.push(Action::WakeAt(time)),
                Wait::Over => {
                    let error =
                        TargetError::new(TargetErrorKind::TimedOut, "no answer for too long");
                    self.switch_off(index, Failure::Fatal(error), host);
                }
            }
        }
    }

    fn advance_running(&mut self, now: Duration, host: &mut impl Host) {
        self.collect(host);
        let in_flight = self.in_flight();
        match self.retryer.step(now, in_flight, || host.random()) {
            RetryStep::Proceed => {}
            RetryStep::Wait => return,
            RetryStep::WaitUntil(until) => {
                host.trace(TraceEvent::BackingOff { until });
                return self.actions.push(Action::WakeAt(until));
            }
            // As late as can be: what is read now must still be stored when it is written over.
            RetryStep::Reissue if self.merger.is_busy() => return self.merge(),
            RetryStep::Reissue => self.reissue(now, host),
        }
        loop {
            self.fill(now, host);
            self.issue(now, host);
            if self.issuer.state() != IssuerState::Ahead || self.issuer.is_ahead_of(&self.streams) {
                break;
            }
        }
        // A stream with nothing to do goes as far as the issuer has come.
        self.collect(host);
        // A span is let go when every stream that wants it has passed it.
        if self.issuer.state() == IssuerState::Finished && self.spans.is_empty() {
            assert!(self.releaser.is_empty(), "every folio has been passed, one is still held");
            let result = self.issuer.take_failure().map_or(Ok(()), Err);
            self.finish(result, host);
        }
    }

    fn advance_ending(&mut self, host: &mut impl Host) {
        if self.in_flight() > 0 || self.spans.n_sealing() > 0 || self.merger.is_running() {
            return;
        }
        let Phase::Ending(error) = std::mem::replace(&mut self.phase, Phase::Done) else {
            unreachable!("advance_ending is called in the ending phase alone")
        };
        self.leave_all_in_doubt();
        while let Some(folio) = self.releaser.pop() {
            self.release(folio, Writeback::Redirty(error.clone()), host);
        }
        self.finish(Err(error), host);
    }

    fn finish(&mut self, result: Result<(), Error>, host: &mut impl Host) {
        self.phase = Phase::Done;
        host.trace(TraceEvent::Done { ok: result.is_ok() });
        self.actions.push(Action::Done(result));
    }

    /// Has the next block merged, if none is being merged now.
    fn merge(&mut self) {
        if let Some(block) = self.merger.start() {
            let merge = self.spans.to_merge(block).expect("looked at when it was put there");
            self.actions.push(Action::Merge(merge));
        }
    }

    fn paused(&mut self, now: Duration) {
        if matches!(self.phase, Phase::Running) {
            self.pause.begin(now, &mut self.stats.pauses);
        }
    }

    fn reissue(&mut self, now: Duration, host: &mut impl Host) {
        self.retryer.reissued();
        self.pause.end(now, &mut self.stats.pause_time);
        let spans = &self.spans;
        let merged = self.merger.take_done();
        let retile = |(index, stream): (usize, &mut Stream)| {
            let wants = |block: &u64| stream.is_active() && spans.is_for(*block, index);
            let redo: Vec<u64> = merged.iter().copied().filter(wants).collect();
            stream.retile(|block| spans.end_of(block), &redo)
        };
        let subrequests = self.streams.iter_mut().enumerate().map(retile).sum();
        host.trace(TraceEvent::Reissued { subrequests });
    }

    /// Takes runs, and prepares what becomes of them, as long as there are any, and no stream has enough.
    fn fill(&mut self, now: Duration, host: &mut impl Host) {
        loop {
            let (spans, streams, releaser) =
                (&mut self.spans, &mut self.streams, &mut self.releaser);
            let mut down = Downstream { spans, streams, releaser, actions: &mut self.actions };
            let took = self.issuer.take_run(&mut down, host);
            self.build(now, host);
            if !took {
                return;
            }
        }
    }

    fn build(&mut self, now: Duration, host: &mut impl Host) {
        let state = self.issuer.state();
        // Buffers come home when what has been stored has been told of: more may be joined then.
        let is_stored = |action: &Action| matches!(action, Action::Stored { .. });
        let comes_home = state == IssuerState::Starved && self.actions.iter().any(is_stored);
        if comes_home && self.streams.iter().any(|stream| stream.is_active() && stream.is_idle()) {
            self.actions.push(Action::WakeAt(now));
        }
        for (index, stream) in self.streams.iter_mut().enumerate() {
            // A starved issuer can add nothing to what is under construction until a buffer comes
            // home, and an idle stream will send none home: it gets what there is. While the source, or
            // another stream, has to wait, an idle stream may as well go on.
            let is_held_up = state != IssuerState::Running && stream.is_idle() && !comes_home;
            let finish = state == IssuerState::Finished || is_held_up;
            let (mut prepared, tracing) = (Vec::new(), host.tracing());
            let StreamStats { subrequests, refused_grants, .. } = &mut self.stats.streams[index];
            let prepare = |block| {
                let prepared = host.prepare(index, block);
                *refused_grants += u64::from(matches!(prepared, Prepared::Later));
                prepared
            };
            stream.build(now, finish, prepare, |subrequest| {
                *subrequests += 1;
                if tracing {
                    let (id, blocks) = (subrequest.id, subrequest.blocks.clone());
                    prepared.push(TraceEvent::Prepared { stream: index, id, blocks });
                }
            });
            prepared.into_iter().for_each(|event| host.trace(event));
        }
    }

    fn issue(&mut self, now: Duration, host: &mut impl Host) {
        for (index, stream) in self.streams.iter_mut().enumerate() {
            while let Some(issued) = stream.issue(now, |blocks| self.spans.sealed_bytes(blocks)) {
                self.stalls[index].issued(issued.id, now, &mut self.stats.streams[index]);
                let mut write = self.spans.write(&issued.blocks);
                // What is expected is the first server's to hold; a copy may lack it.
                if index != FIRST_SERVER {
                    write.expectations.clear();
                    write.dirty.clear();
                }
                if host.tracing() {
                    host.trace(TraceEvent::Issued {
                        stream: index,
                        id: issued.id,
                        blocks: issued.blocks.clone(),
                        attempts: issued.attempts,
                    });
                }
                if stream.in_flight() == 1 {
                    self.patience[index].heard(now);
                }
                let ticket = Ticket { stream: index, id: issued.id };
                self.actions.push(Action::Issue { ticket, write });
            }
            if let Some(head) = stream.head_with_room() {
                self.stalls[index].stalled(head.id, now);
            }
        }
    }

    /// What it waits for is timed event by event.
    fn time_waits(&mut self, now: Duration) {
        let running = matches!(self.phase, Phase::Running);
        if !running {
            self.pause.end(now, &mut self.stats.pause_time);
        }
        if running && self.issuer.state() == IssuerState::Starved {
            self.starved.begin(now, &mut self.stats.buffer_waits);
        } else {
            self.starved.end(now, &mut self.stats.buffer_wait_time);
        }
    }

    fn in_flight(&self) -> usize {
        self.streams.iter().map(Stream::in_flight).sum()
    }
}

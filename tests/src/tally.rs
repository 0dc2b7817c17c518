//! What a request should have counted, and how it should end: counted from outside, as it happens.

use std::{collections::BTreeMap, ops::Range, time::Duration};

use sealback::{Cause, Error, RequestStats, RetryLimits, StreamStats};
use sealback_stream::{BlockConflict, Failure, TargetError, TargetErrorKind, Ticket};

use crate::simulator::{BLOCK, CACHE, STRIDE};

/// Counts, beside a request.
#[derive(Debug)]
pub(crate) struct Tally {
    retry: RetryLimits,
    stats: RequestStats,
    /// A server has failed, and nothing has gone on there since.
    failing_since: Option<Duration>,
    /// When subrequests went out, by stream and number.
    issued: BTreeMap<(usize, u64), Duration>,
    /// It pauses.
    paused_since: Option<Duration>,
    /// It was refused a buffer when it asked last.
    is_starved: bool,
    /// Since the step in which it was, and has been since.
    starved_since: Option<Duration>,
    /// The first reason why the request must end with an error.
    ending: Option<Error>,
}

impl Tally {
    pub(crate) fn new(retry: RetryLimits, n_streams: usize) -> Tally {
        let streams = vec![StreamStats::default(); n_streams];
        let stats = RequestStats { streams, ..RequestStats::default() };
        Tally {
            retry,
            stats,
            failing_since: None,
            issued: BTreeMap::new(),
            paused_since: None,
            is_starved: false,
            starved_since: None,
            ending: None,
        }
    }

    /// The request must end with this, unless something else came first.
    pub(crate) fn ends_with(&mut self, error: Error) {
        self.ending.get_or_insert(error);
    }

    /// Whether the request will end with an error.
    pub(crate) fn is_ending(&self) -> bool {
        self.ending.is_some()
    }

    pub(crate) fn sealed(&mut self) {
        self.stats.spans += 1;
    }

    pub(crate) fn merged(&mut self) {
        self.stats.merges += 1;
    }

    pub(crate) fn prepared(&mut self, stream: usize) {
        self.stats.streams[stream].subrequests += 1;
    }

    pub(crate) fn refused(&mut self, stream: usize) {
        self.stats.streams[stream].refused_grants += 1;
    }

    pub(crate) fn issued(&mut self, now: Duration, ticket: Ticket) {
        self.issued.insert((ticket.stream, ticket.id), now);
    }

    pub(crate) fn switched_off(&mut self, stream: usize) {
        self.stats.streams[stream].switched_off += 1;
    }

    /// A buffer was asked for.
    pub(crate) fn asked_for_buffer(&mut self, got: bool) {
        self.is_starved = !got;
    }

    /// What failed goes out again, or the request ends.
    pub(crate) fn goes_on(&mut self, now: Duration) {
        self.stats.pause_time +=
            self.paused_since.take().map_or(Duration::ZERO, |since| now - since);
    }

    /// A step has been taken. Who rests, because a stream has enough, waits for no buffer.
    pub(crate) fn on_step(&mut self, now: Duration, rests: impl FnOnce() -> bool) {
        self.is_starved = self.is_starved && !rests();
        let since = self.starved_since.take();
        if self.is_starved && !self.is_ending() {
            self.starved_since = Some(since.unwrap_or(now));
            self.stats.buffer_waits += u64::from(since.is_none());
        } else {
            self.stats.buffer_wait_time += since.map_or(Duration::ZERO, |since| now - since);
        }
        if self.is_ending() {
            self.goes_on(now);
        }
    }

    pub(crate) fn stalled(&mut self, stream: usize, time: Duration) {
        self.stats.streams[stream].stalls += 1;
        self.stats.streams[stream].stall_time += time;
    }

    pub(crate) fn released(&mut self, clean: bool) {
        self.stats.folios += u64::from(clean);
    }

    /// A server's stream has come further.
    pub(crate) fn progressed(&mut self) {
        self.failing_since = None;
    }

    /// A target that somebody waits for has answered; `left` is what did not go through, and
    /// `attempts` is how many at it got nowhere. `lost`: the conflict cannot be merged, because of these.
    pub(crate) fn answered(
        &mut self,
        now: Duration,
        ticket: Ticket,
        outcome: &Result<u64, Failure>,
        left: Option<Range<u64>>,
        attempts: u32,
        lost: Option<Vec<BlockConflict>>,
    ) {
        let stream = ticket.stream;
        let issued = self.issued.remove(&(stream, ticket.id)).expect("it went out");
        self.stats.streams[stream].latency.record(now - issued);
        let through = outcome.as_ref().map_or(0, |bytes| *bytes);
        let stats = &mut self.stats.streams[stream];
        let Some(left) = left else {
            stats.bytes += through;
            return;
        };
        stats.bytes += through / STRIDE * STRIDE;
        if stream == CACHE {
            return;
        }
        let positions = Some(left.start * BLOCK..left.end * BLOCK);
        let gives_up = |source| Error::Server { range: positions, attempts, source };
        match outcome {
            Err(Failure::Fatal(source)) => return self.ends_with(gives_up(source.clone())),
            Err(Failure::Conflict(blocks)) => self.stats.conflicts += blocks.len() as u64,
            Ok(_) | Err(_) => {}
        }
        self.stats.streams[stream].retries.count(cause(outcome));
        if let Some(blocks) = lost {
            return self.ends_with(Error::Conflict { blocks });
        }
        let since = *self.failing_since.get_or_insert(now);
        if attempts >= self.retry.max_attempts || now - since > self.retry.deadline {
            let source = match outcome {
                Err(Failure::Conflict(blocks)) => {
                    return self.ends_with(Error::Conflict { blocks: blocks.clone() });
                }
                Err(Failure::Retry(source) | Failure::Renegotiate(source)) => source.clone(),
                _ => TargetError::new(TargetErrorKind::Io, "a short write"),
            };
            self.ends_with(gives_up(source));
        }
        if !self.is_ending() && self.paused_since.is_none() {
            self.paused_since = Some(now);
            self.stats.pauses += 1;
        }
    }

    /// # Panics
    /// If the request ended otherwise than it had to. `lacks`: the source had something that it could
    /// not hand out.
    pub(crate) fn check_end(&self, result: &Result<(), Error>, lacks: bool) {
        match (result, &self.ending) {
            (Ok(()), None) => assert!(!lacks, "what it lacked is not told of"),
            (Err(Error::Closed), None) => assert!(lacks),
            (Err(Error::Seal(_)), Some(Error::Seal(_))) => {}
            (
                Err(Error::Server { range, attempts, source }),
                Some(Error::Server { range: left, attempts: so_many, source: why }),
            ) => {
                assert_eq!((range, attempts), (left, so_many));
                let is_short = why.to_string().contains("a short write");
                let same = (source.kind(), source.to_string()) == (why.kind(), why.to_string());
                assert!(is_short || same, "{source}, not {why}");
            }
            (Err(told), Some(error)) => assert_eq!(format!("{told:?}"), format!("{error:?}")),
            (result, ending) => panic!("ended with {result:?}, not with {ending:?}"),
        }
    }

    /// # Panics
    /// If the request has counted otherwise.
    pub(crate) fn check_stats(&self, stats: &RequestStats) {
        assert_eq!(*stats, self.stats);
    }
}

/// What an answer that did not say that all went through is called.
fn cause(outcome: &Result<u64, Failure>) -> Cause {
    match outcome {
        Ok(_) => Cause::Short,
        Err(Failure::Conflict(_)) => Cause::Conflict,
        Err(Failure::Renegotiate(_)) => Cause::Renegotiated,
        Err(Failure::Retry(error)) if error.kind() == TargetErrorKind::Dropped => Cause::Dropped,
        Err(Failure::Retry(error)) if error.kind() == TargetErrorKind::TimedOut => Cause::TimedOut,
        Err(Failure::Retry(_)) => Cause::Transient,
        Err(_) => Cause::Fatal,
    }
}

//! Sends again what did not go through: pause, drain, back off, cut anew, reissue; bounded.
//!
//! A failure pauses the issuer and every stream. When nothing is in flight any more, exactly the
//! ranges that did not go through are cut anew under new grants and go out first. The first
//! reissue of a range has no delay; back-off begins with its second failure. What is bounded: the
//! attempts that get nowhere, and the time since the first failure without progress. After
//! that the last real error stands.

use std::{ops::Range, time::Duration};

use sealback_stream::Failure;

/// The bounds of retrying.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryLimits {
    /// Attempts at a range that get nowhere, at most; at least 1.
    pub max_attempts: u32,
    /// Delay before the third attempt; it doubles from there.
    pub first_delay: Duration,
    /// Delay, at most.
    pub max_delay: Duration,
    /// Time since the first failure, without progress, at most.
    pub deadline: Duration,
}

impl Default for RetryLimits {
    fn default() -> RetryLimits {
        RetryLimits {
            max_attempts: 8,
            first_delay: Duration::from_millis(10),
            max_delay: Duration::from_secs(5),
            deadline: Duration::from_secs(60),
        }
    }
}

impl RetryLimits {
    /// The delay before the next attempt at what failed `attempts` times: none after the first
    /// failure, then doubling, with a jitter of up to a half taken off. `random` is uniform.
    pub fn delay(&self, attempts: u32, random: u64) -> Duration {
        if attempts < 2 {
            return Duration::ZERO;
        }
        let doubled = self.first_delay.saturating_mul(1 << (attempts - 2).min(20));
        let full = doubled.min(self.max_delay);
        let half = u64::try_from(full.as_nanos() / 2).unwrap_or(u64::MAX);
        full - Duration::from_nanos(if half == 0 { 0 } else { random % half })
    }
}

/// A range that failed, and why it did so last.
#[derive(Clone, Debug)]
pub(crate) struct LastFailure {
    pub(crate) blocks: Range<u64>,
    pub(crate) attempts: u32,
    pub(crate) failure: Failure,
}

#[derive(Debug)]
enum State {
    Idle,
    /// Waiting until nothing is in flight.
    Draining,
    /// Waiting for a time.
    BackingOff {
        until: Duration,
    },
}

/// What the request is to do about retries now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RetryStep {
    /// Nothing is to be sent again; go on.
    Proceed,
    /// Issue nothing.
    Wait,
    /// Issue nothing, and wake the request at this time.
    WaitUntil(Duration),
    /// Cut what failed anew, say so with [`Retryer::reissued`], and go on.
    Reissue,
}

/// What issuing is paused for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Paused {
    /// Until nothing is in flight.
    Draining,
    /// Until a time.
    Until(Duration),
}

#[derive(Debug)]
pub(crate) struct Retryer {
    limits: RetryLimits,
    state: State,
    /// The greatest count of attempts among what failed in this drain.
    attempts: u32,
    first_failure_at: Option<Duration>,
}

impl Retryer {
    pub(crate) fn new(limits: RetryLimits) -> Retryer {
        let state = State::Idle;
        Retryer { limits, state, attempts: 0, first_failure_at: None }
    }

    /// Notes a range that did not go through. Returns the failure to give up with, if it was once
    /// too often or too long.
    pub(crate) fn failed(&mut self, now: Duration, last: LastFailure) -> Option<LastFailure> {
        let since = *self.first_failure_at.get_or_insert(now);
        if last.attempts >= self.limits.max_attempts || now - since > self.limits.deadline {
            return Some(last);
        }
        self.attempts = self.attempts.max(last.attempts);
        if matches!(self.state, State::Idle) {
            self.state = State::Draining;
        }
        None
    }

    /// Notes that a stream's `collected_to` moved: the time that counts against the deadline starts
    /// anew with the next failure.
    pub(crate) fn progressed(&mut self) {
        self.first_failure_at = None;
    }

    /// Ends the wait before what failed is sent again. Returns whether there was one.
    pub(crate) fn hurry(&mut self, now: Duration) -> bool {
        let State::BackingOff { until } = &mut self.state else { return false };
        *until = now.min(*until);
        true
    }

    /// What it waits for, if issuing is paused.
    pub(crate) fn paused(&self) -> Option<Paused> {
        match self.state {
            State::Idle => None,
            State::Draining => Some(Paused::Draining),
            State::BackingOff { until } => Some(Paused::Until(until)),
        }
    }

    /// Whether issuing is paused.
    pub(crate) fn is_paused(&self) -> bool {
        !matches!(self.state, State::Idle)
    }

    /// Notes that what failed has been cut anew.
    pub(crate) fn reissued(&mut self) {
        self.state = State::Idle;
    }

    /// Says what to do now, with `in_flight` subrequests outstanding.
    pub(crate) fn step(
        &mut self,
        now: Duration,
        in_flight: usize,
        random: impl FnOnce() -> u64,
    ) -> RetryStep {
        if matches!(self.state, State::Draining) && in_flight == 0 {
            let delay = self.limits.delay(self.attempts, random());
            self.attempts = 0;
            let until = now.saturating_add(delay);
            self.state = State::BackingOff { until };
            if !delay.is_zero() {
                return RetryStep::WaitUntil(until);
            }
        }
        match self.state {
            State::Idle => RetryStep::Proceed,
            State::BackingOff { until } if now >= until => RetryStep::Reissue,
            State::BackingOff { .. } | State::Draining => RetryStep::Wait,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_reissue_has_no_delay_and_the_others_double_up_to_a_limit() {
        let limits = RetryLimits::default();
        assert_eq!(limits.delay(0, 7), Duration::ZERO);
        assert_eq!(limits.delay(1, 7), Duration::ZERO);
        for (attempts, millis) in [(2, 10), (3, 20), (4, 40), (11, 5000), (90, 5000)] {
            let full = Duration::from_millis(millis);
            assert_eq!(limits.delay(attempts, 0), full);
            let jittered = limits.delay(attempts, u64::MAX / 3);
            assert!(full / 2 <= jittered && jittered <= full, "{jittered:?} of {full:?}");
            let half = u64::try_from(full.as_nanos() / 2).unwrap();
            let least = full - Duration::from_nanos(half - 1);
            assert_eq!(limits.delay(attempts, half - 1), least, "nearly a half is taken off");
        }
        let shortest = RetryLimits { max_delay: Duration::from_nanos(1), ..limits };
        assert_eq!(shortest.delay(2, 7), Duration::from_nanos(1), "there is no half of it");
    }

    fn failure(attempts: u32) -> LastFailure {
        let error = sealback_stream::TargetError::new(sealback_stream::TargetErrorKind::Io, "no");
        LastFailure { blocks: 0..1, attempts, failure: Failure::Retry(error) }
    }

    #[test]
    fn it_gives_up_behind_the_deadline_and_progress_begins_a_new_one() {
        let limits = RetryLimits { deadline: Duration::from_secs(10), ..RetryLimits::default() };
        let mut retryer = Retryer::new(limits);
        let seconds = Duration::from_secs;
        assert!(retryer.failed(seconds(5), failure(1)).is_none());
        assert!(retryer.failed(seconds(15), failure(1)).is_none(), "the deadline is not over");
        assert!(retryer.failed(seconds(16), failure(1)).is_some());
        retryer.progressed();
        assert!(retryer.failed(seconds(17), failure(1)).is_none());
        assert!(retryer.failed(seconds(17), failure(limits.max_attempts)).is_some());
    }
}

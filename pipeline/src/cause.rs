//! Why a subrequest did not go through, in one word: what statistics count and events tell.

use std::fmt;

use sealback_stream::{Failure, TargetError, TargetErrorKind};

/// Why something was not stored as it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Cause {
    /// Blocks were not what they were expected to be.
    Conflict,
    /// The target dropped the operation without saying how it ended.
    Dropped,
    /// It will not get better by trying again.
    Fatal,
    /// The grant no longer held.
    Renegotiated,
    /// It went through in part.
    Short,
    /// No answer in time: whether it took place is not known.
    TimedOut,
    /// Anything else that may go through when it is tried again.
    Transient,
}

impl Cause {
    /// Of an answer that did not say that all went through.
    pub(crate) fn of(outcome: &Result<u64, Failure>) -> Cause {
        match outcome {
            Ok(_) => Cause::Short,
            Err(failure) => Cause::of_failure(failure),
        }
    }

    pub(crate) fn of_failure(failure: &Failure) -> Cause {
        match failure {
            Failure::Conflict(_) => Cause::Conflict,
            Failure::Renegotiate(_) => Cause::Renegotiated,
            Failure::Retry(error) => Cause::of_transient(error),
            _ => Cause::Fatal,
        }
    }

    /// Of an error after which the same is tried again.
    pub(crate) fn of_transient(error: &TargetError) -> Cause {
        match error.kind() {
            TargetErrorKind::Dropped => Cause::Dropped,
            TargetErrorKind::TimedOut => Cause::TimedOut,
            _ => Cause::Transient,
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Cause::Conflict => "conflict",
            Cause::Dropped => "dropped",
            Cause::Fatal => "fatal",
            Cause::Renegotiated => "renegotiated",
            Cause::Short => "short",
            Cause::TimedOut => "timed out",
            Cause::Transient => "transient",
        })
    }
}

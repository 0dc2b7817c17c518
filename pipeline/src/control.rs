//! What is asked of a server outside of the streams: headers, cuts, holes. One operation at a time,
//! on the caller's thread, tried again within the bounds that streams have.

use std::{
    ops::Range,
    task::{Wake, Waker},
};

use sealback_stream::{
    BlockConflict, Completion, CompletionSink, Failure, Grant, Prepared, Target, TargetError,
    TargetErrorKind, Ticket, Write,
};

use tracing::debug;

use crate::{
    Cause, Error,
    engine::Core,
    sync::{Arc, Condvar, Instant, Mutex, PoisonError, thread},
    trace::tell,
};

/// A target's no.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// It may go through when it is tried again.
    Again(TargetError),
    /// It will not.
    Final(TargetError),
}

impl From<TargetError> for Refusal {
    fn from(error: TargetError) -> Refusal {
        if error.is_transient() { Refusal::Again(error) } else { Refusal::Final(error) }
    }
}

impl Core {
    /// Tries until it goes through, is refused for good, or too often. `range` says, for the
    /// error, what it is about.
    pub(crate) fn persist<T>(
        &self,
        range: Option<&Range<u64>>,
        mut attempt: impl FnMut() -> Result<T, Refusal>,
    ) -> Result<T, Error> {
        let limits = &self.config.retry;
        let started = Instant::now();
        let mut attempts = 1;
        loop {
            let source = match attempt() {
                Ok(value) => return Ok(value),
                Err(Refusal::Again(error))
                    if attempts < limits.max_attempts && started.elapsed() < limits.deadline =>
                {
                    let cause = Cause::of_transient(&error);
                    self.totals().control_retries.count(cause);
                    let delay = limits.delay(attempts, fastrand::u64(..));
                    tell(
                        || debug!(target: "sealback::retry", attempts, ?delay, %cause, %error, "again"),
                    );
                    thread::sleep(delay);
                    attempts += 1;
                    continue;
                }
                Err(Refusal::Again(error) | Refusal::Final(error)) => error,
            };
            return Err(Error::Server { range: range.cloned(), attempts, source });
        }
    }
}

/// Writes, and waits for it. The blocks that were not what was expected, if that is why it did not
/// go through; else how many stored bytes did.
pub(crate) fn write_now(
    target: &dyn Target,
    write: Write,
) -> Result<Result<u64, Vec<BlockConflict>>, Refusal> {
    let answer = Arc::new(Answer::default());
    target.write(write, Completion::new(answer.clone(), Ticket { stream: 0, id: 0 }));
    match answer.wait() {
        Ok(bytes) => Ok(Ok(bytes)),
        Err(Failure::Conflict(conflicts)) => Ok(Err(conflicts)),
        Err(Failure::Renegotiate(error) | Failure::Retry(error)) => Err(Refusal::Again(error)),
        Err(Failure::Fatal(error)) => Err(Refusal::Final(error)),
        Err(other) => Err(Refusal::Final(TargetError::new(TargetErrorKind::Io, other.to_string()))),
    }
}

/// Asks how much one write may carry, and waits as long as nothing may.
pub(crate) fn grant_now(target: &dyn Target, block: u64) -> Grant {
    let woken = Arc::new(Woken::default());
    loop {
        match target.prepare(block, &Waker::from(woken.clone())) {
            Prepared::Granted(grant) => return grant,
            Prepared::Later => woken.wait(),
        }
    }
}

/// Waits for a waker.
#[derive(Debug, Default)]
struct Woken {
    woken: Mutex<bool>,
    changed: Condvar,
}

impl Woken {
    fn wait(&self) {
        let woken = self.woken.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_while(woken, |woken| !*woken);
        *waited.unwrap_or_else(PoisonError::into_inner) = false;
    }
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        *self.woken.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }
}

/// Takes one answer.
#[derive(Debug, Default)]
struct Answer {
    outcome: Mutex<Option<Result<u64, Failure>>>,
    given: Condvar,
}

impl Answer {
    fn wait(&self) -> Result<u64, Failure> {
        let outcome = self.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.given.wait_while(outcome, |outcome| outcome.is_none());
        let mut outcome = waited.unwrap_or_else(PoisonError::into_inner);
        outcome.take().expect("waited for it")
    }
}

impl CompletionSink for Answer {
    fn terminated(&self, _ticket: Ticket, outcome: Result<u64, Failure>) {
        *self.outcome.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
        self.given.notify_all();
    }
}

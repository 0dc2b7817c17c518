//! How a target's operation ends: a value that is consumed, so that it ends exactly once.
//!
//! A target gets a [`Completion`] with each write and must use it up, now or later, from any
//! thread. One that is dropped unused terminates its subrequest with an error: a lost answer is a
//! failure, never a hang.

use std::{fmt, sync::Arc};

use sealback_crypto::Buffer;

use crate::{Failure, TargetError, TargetErrorKind};

/// Which subrequest a termination belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket {
    /// The stream's index in its request.
    pub stream: usize,
    /// The subrequest's number within the stream.
    pub id: u64,
}

/// Who hears of terminations. Called on whatever thread the target uses, possibly inside
/// [`Target::write`](crate::Target::write); it must only note what happened.
pub trait CompletionSink: Send + Sync {
    /// A subrequest has terminated: so many stored bytes went through, from its start, or why not.
    fn terminated(&self, ticket: Ticket, outcome: Result<u64, Failure>);
}

/// The duty to say how a write ended.
#[must_use = "a completion that is dropped fails its subrequest"]
pub struct Completion {
    sink: Option<Arc<dyn CompletionSink>>,
    ticket: Ticket,
}

impl Completion {
    /// A completion that tells `sink`.
    pub fn new(sink: Arc<dyn CompletionSink>, ticket: Ticket) -> Completion {
        Completion { sink: Some(sink), ticket }
    }

    /// Which subrequest it is of.
    pub fn ticket(&self) -> Ticket {
        self.ticket
    }

    /// The write went through up to `bytes` stored bytes from its start: all of it, or fewer (a
    /// short write). Only whole blocks count; the rest is sent again.
    pub fn written(mut self, bytes: u64) {
        self.finish(Ok(bytes));
    }

    /// The write did not go through.
    pub fn failed(mut self, failure: Failure) {
        self.finish(Err(failure));
    }

    fn finish(&mut self, outcome: Result<u64, Failure>) {
        if let Some(sink) = self.sink.take() {
            sink.terminated(self.ticket, outcome);
        }
    }
}

impl Drop for Completion {
    fn drop(&mut self) {
        self.finish(Err(Failure::Retry(dropped())));
    }
}

impl fmt::Debug for Completion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Completion").field(&self.ticket).finish()
    }
}

type ReadSink = Box<dyn FnOnce(Result<(Buffer, usize), TargetError>) + Send>;

/// The duty to say how a read ended.
#[must_use = "a completion that is dropped fails its read"]
pub struct ReadCompletion(Option<ReadSink>);

impl ReadCompletion {
    /// A completion that calls `sink`, on whatever thread the target uses.
    pub fn new(
        sink: impl FnOnce(Result<(Buffer, usize), TargetError>) + Send + 'static,
    ) -> ReadCompletion {
        ReadCompletion(Some(Box::new(sink)))
    }

    /// The first `bytes` of `buffer` are what is stored; fewer than asked where the file ends, or
    /// where the target had rather be asked again: all of the first block in any case.
    pub fn read(mut self, buffer: Buffer, bytes: usize) {
        self.finish(Ok((buffer, bytes)));
    }

    /// The read did not go through.
    pub fn failed(mut self, error: TargetError) {
        self.finish(Err(error));
    }

    fn finish(&mut self, outcome: Result<(Buffer, usize), TargetError>) {
        if let Some(sink) = self.0.take() {
            sink(outcome);
        }
    }
}

impl Drop for ReadCompletion {
    fn drop(&mut self) {
        self.finish(Err(dropped()));
    }
}

impl fmt::Debug for ReadCompletion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReadCompletion")
    }
}

fn dropped() -> TargetError {
    TargetError::new(
        TargetErrorKind::Dropped,
        "the target dropped an operation without saying how it ended",
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Default)]
    struct Log(Mutex<Vec<(Ticket, String)>>);

    impl CompletionSink for Log {
        fn terminated(&self, ticket: Ticket, outcome: Result<u64, Failure>) {
            self.0.lock().unwrap().push((ticket, format!("{outcome:?}")));
        }
    }

    #[test]
    fn a_completion_terminates_once_and_a_dropped_one_fails() {
        let log = Arc::new(Log::default());
        let completion = |id| Completion::new(log.clone(), Ticket { stream: 0, id });
        completion(1).written(7);
        drop(completion(2));
        completion(3).failed(Failure::Conflict(Vec::new()));
        let log = log.0.lock().unwrap();
        assert_eq!(log.iter().map(|(ticket, _)| ticket.id).collect::<Vec<_>>(), [1, 2, 3]);
        assert!(log[0].1.contains("Ok(7)"));
        assert!(log[1].1.contains("Dropped"));
        assert!(log[2].1.contains("Conflict"));
    }

    #[test]
    fn a_dropped_read_completion_fails_its_read() {
        let (sender, receiver) = std::sync::mpsc::channel();
        drop(ReadCompletion::new(move |outcome| {
            sender.send(outcome.map(|_| ()).map_err(|error| error.kind())).unwrap();
        }));
        assert_eq!(receiver.recv().unwrap(), Err(TargetErrorKind::Dropped));
    }
}

//! A server that goes away and comes back: while it is away, everything that is asked of it ends with an
//! error that says so.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use sealback_stream::{
    Completion, Failure, Read, ReadCompletion, Target, TargetError, TargetErrorKind, Write,
};

use crate::interpose::{Hook, InterposedServer};

/// A server that can be away. Clones are the same.
pub type AwayServer<S> = InterposedServer<S, Road>;

/// Whether there is a way to a server, and how often it was looked for.
#[derive(Debug, Default)]
pub struct Road {
    closed: AtomicBool,
    n_refused: AtomicU64,
}

impl Road {
    /// The server is away from now on, or there again.
    pub fn set_away(&self, away: bool) {
        self.closed.store(away, Ordering::SeqCst);
    }

    /// How often it was asked while it was away.
    pub fn n_refused(&self) -> u64 {
        self.n_refused.load(Ordering::SeqCst)
    }
}

impl Hook for Road {
    fn ask(&self) -> Result<(), TargetError> {
        if !self.closed.load(Ordering::SeqCst) {
            return Ok(());
        }
        self.n_refused.fetch_add(1, Ordering::SeqCst);
        Err(TargetError::new(TargetErrorKind::TimedOut, "the server is away"))
    }

    fn write(&self, target: &Arc<dyn Target>, write: Write, done: Completion) {
        match self.ask() {
            Ok(()) => target.write(write, done),
            Err(error) => done.failed(Failure::Retry(error)),
        }
    }

    fn read(&self, target: &Arc<dyn Target>, read: Read, done: ReadCompletion) {
        match self.ask() {
            Ok(()) => target.read(read, done),
            Err(error) => done.failed(error),
        }
    }

    fn control(
        &self,
        change: &mut dyn FnMut() -> Result<(), TargetError>,
    ) -> Result<(), TargetError> {
        self.ask()?;
        change()
    }
}

//! A server that goes away at a chosen moment: the n-th change, and all that follow, do not take
//! place, or that one takes place and nobody hears of it.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use sealback_stream::{Completion, Failure, Target, TargetError, TargetErrorKind, Write};

use crate::interpose::{Hook, InterposedServer};

/// When the server goes away.
#[derive(Debug)]
pub struct Crash {
    /// Changes that still go through; negative: gone.
    left: AtomicI64,
    /// Whether the last one takes place all the same.
    unheard: bool,
}

/// A server behind a [`Crash`].
pub type CrashServer<S> = InterposedServer<S, Crash>;

enum Fate {
    Done,
    DoneUnheard,
    Gone,
}

impl Crash {
    /// Goes away after so many changes; `unheard`: the next one takes place, but fails for who
    /// asked for it.
    pub fn after(n_changes: u32, unheard: bool) -> Crash {
        Crash { left: AtomicI64::new(i64::from(n_changes)), unheard }
    }

    /// Goes away now.
    pub fn now(&self) {
        self.left.store(0, Ordering::SeqCst);
    }

    /// Whether it has gone away.
    pub fn is_gone(&self) -> bool {
        self.left.load(Ordering::SeqCst) < 0
    }

    fn fate(&self) -> Fate {
        match self.left.fetch_sub(1, Ordering::SeqCst) {
            1.. => Fate::Done,
            0 if self.unheard => Fate::DoneUnheard,
            _ => Fate::Gone,
        }
    }
}

fn gone() -> TargetError {
    TargetError::new(TargetErrorKind::NotPermitted, "the server has gone away")
}

impl Hook for Crash {
    fn write(&self, target: &Arc<dyn Target>, write: Write, done: Completion) {
        match self.fate() {
            Fate::Done => target.write(write, done),
            Fate::DoneUnheard => {
                target.write(write, unheard());
                done.failed(Failure::Fatal(gone()));
            }
            Fate::Gone => done.failed(Failure::Fatal(gone())),
        }
    }

    fn control(
        &self,
        change: &mut dyn FnMut() -> Result<(), TargetError>,
    ) -> Result<(), TargetError> {
        match self.fate() {
            Fate::Done => change(),
            Fate::DoneUnheard => change().and(Err(gone())),
            Fate::Gone => Err(gone()),
        }
    }
}

/// A completion that nobody listens to.
fn unheard() -> Completion {
    #[derive(Debug)]
    struct Nobody;
    impl sealback_stream::CompletionSink for Nobody {
        fn terminated(&self, _: sealback_stream::Ticket, _: Result<u64, Failure>) {}
    }
    Completion::new(Arc::new(Nobody), sealback_stream::Ticket { stream: 0, id: 0 })
}

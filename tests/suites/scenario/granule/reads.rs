//! A server that counts its reads and writes, and answers reads when the test lets it.

use std::{
    fmt,
    ops::Range,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use sealback_stream::{
    Completion, Read, ReadCompletion, Target, TargetError, TargetErrorKind, Write,
};
use sealback_tests::interpose::Hook;

use crate::support::ends;

/// Counts reads and writes of blocks, in order; holds back the answers of reads, or fails them, as it
/// is told.
#[derive(Default)]
pub(super) struct Reads(Mutex<State>, Condvar);

#[derive(Default)]
pub(super) struct State {
    read: Vec<Range<u64>>,
    written: Vec<Range<u64>>,
    pub(super) fails: bool,
    pub(super) holds: bool,
    held: Vec<Box<dyn FnOnce() + Send>>,
}

impl Reads {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn take_read(&self) -> Vec<Range<u64>> {
        std::mem::take(&mut self.state().read)
    }

    pub(super) fn take_written(&self) -> Vec<Range<u64>> {
        std::mem::take(&mut self.state().written)
    }

    /// What is read from now on is answered when it is let go.
    pub(super) fn hold(&self) {
        self.state().holds = true;
    }

    /// Waits until an answer is held.
    pub(super) fn wait_held(self: &Arc<Self>) {
        let this = self.clone();
        ends(move || drop(this.1.wait_while(this.state(), |state| state.held.is_empty())))
            .expect("something is read");
    }

    pub(super) fn let_go(&self) {
        self.state().holds = false;
        let held = std::mem::take(&mut self.state().held);
        held.into_iter().for_each(|answer| answer());
    }
}

impl fmt::Debug for Reads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reads")
    }
}

/// Shared with what holds answers, which comes back to it.
#[derive(Clone, Debug, Default)]
pub(super) struct Counted(pub(super) Arc<Reads>);

impl Hook for Counted {
    fn read(&self, target: &Arc<dyn Target>, read: Read, done: ReadCompletion) {
        let (holds, fails) = {
            let mut state = self.0.state();
            state.read.push(read.blocks.clone());
            (state.holds, state.fails)
        };
        if fails {
            return done.failed(TargetError::new(TargetErrorKind::Io, "injected"));
        }
        if !holds {
            return target.read(read, done);
        }
        let reads = self.0.clone();
        // It is read now, and answered later.
        let later = ReadCompletion::new(move |outcome| {
            reads.state().held.push(Box::new(move || match outcome {
                Ok((buffer, bytes)) => done.read(buffer, bytes),
                Err(error) => done.failed(error),
            }));
            reads.1.notify_all();
        });
        target.read(read, later);
    }

    fn write(&self, target: &Arc<dyn Target>, write: Write, done: Completion) {
        let runs = write.runs();
        self.0.state().written.extend(runs.iter().cloned());
        target.write(write, done);
    }
}

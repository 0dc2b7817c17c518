//! Which blocks were read from a server and written to it, in order; and reads that fail.

use std::{
    collections::BTreeSet,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use sealback_stream::{
    Completion, Read, ReadCompletion, Runs, Target, TargetError, TargetErrorKind, Write,
};

use crate::interpose::{Hook, InterposedServer};

/// Counts what comes by.
#[derive(Debug, Default)]
pub struct Counter(Mutex<Counted>);

#[derive(Debug, Default)]
struct Counted {
    read: Vec<Range<u64>>,
    written: Vec<Runs>,
    unreadable: BTreeSet<u64>,
}

/// A server whose reads and writes are counted by its `hook`.
pub type CountedServer<S> = InterposedServer<S, Counter>;

impl Counter {
    fn counted(&self) -> MutexGuard<'_, Counted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The blocks of the reads since this was last asked.
    pub fn take_read(&self) -> Vec<Range<u64>> {
        std::mem::take(&mut self.counted().read)
    }

    /// The blocks of the writes since this was last asked.
    pub fn take_written(&self) -> Vec<Runs> {
        std::mem::take(&mut self.counted().written)
    }

    /// From now on a read of any of these blocks fails.
    pub fn set_unreadable(&self, blocks: impl IntoIterator<Item = u64>) {
        self.counted().unreadable = blocks.into_iter().collect();
    }
}

impl Hook for Counter {
    fn read(&self, target: &Arc<dyn Target>, read: Read, done: ReadCompletion) {
        let fails = {
            let mut counted = self.counted();
            counted.read.push(read.blocks.clone());
            counted.unreadable.range(read.blocks.clone()).next().is_some()
        };
        if fails {
            let error = TargetError::new(TargetErrorKind::NotPermitted, "not to be read");
            done.failed(error);
        } else {
            target.read(read, done);
        }
    }

    fn write(&self, target: &Arc<dyn Target>, write: Write, done: Completion) {
        self.counted().written.push(write.runs());
        target.write(write, done);
    }
}

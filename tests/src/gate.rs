//! A server whose writes wait at a gate, in the order in which they came.
//!
//! What a test lets through goes on to the server behind; so a test sees what a stream has
//! issued, and decides which answer comes next.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    task::Waker,
    time::{Duration, Instant},
};

use sealback_crypto::{FileId, HEADER_BYTES, SlotExpectation, SlotWrite};
use sealback_stream::{
    Completion, Failure, Name, Prepared, Read, ReadCompletion, Server, SizeLock, Target,
    TargetError, Write,
};

/// How long a test waits for what must happen. It is no measure of speed: a test that waits this
/// long has failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// The writes that wait, of all files of a [`GateServer`].
#[derive(Clone, Debug, Default)]
pub struct Gate {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    open: bool,
    waiting: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    target: Arc<dyn Target>,
    write: Write,
    done: Completion,
}

impl Gate {
    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The block ranges of the writes that wait, in the order in which they came.
    pub fn waiting(&self) -> Vec<std::ops::Range<u64>> {
        self.state().waiting.iter().map(|waiting| waiting.write.blocks()).collect()
    }

    /// Waits until so many writes wait.
    ///
    /// # Panics
    /// If that does not happen.
    pub fn wait_for(&self, n_waiting: usize) {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.state();
        while state.waiting.len() < n_waiting {
            assert!(Instant::now() < deadline, "{} of {n_waiting} came", state.waiting.len());
            let waited = self.shared.changed.wait_timeout(state, Duration::from_millis(50));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Lets the waiting write of that index through, and waits for nothing.
    ///
    /// # Panics
    /// If there is none.
    pub fn pass(&self, index: usize) {
        let Waiting { target, write, done } = self.take(index);
        target.write(write, done);
    }

    /// Refuses the waiting write of that index.
    ///
    /// # Panics
    /// If there is none.
    pub fn fail(&self, index: usize, failure: Failure) {
        self.take(index).done.failed(failure);
    }

    fn take(&self, index: usize) -> Waiting {
        self.state().waiting.remove(index).expect("a write waits there")
    }

    /// Lets everything through, now and from now on.
    pub fn open(&self) {
        self.state().open = true;
        while let Some(Waiting { target, write, done }) = {
            let mut state = self.state();
            state.waiting.pop_front()
        } {
            target.write(write, done);
        }
    }
}

/// A server behind a [`Gate`].
#[derive(Debug)]
pub struct GateServer {
    /// The server behind.
    pub server: Arc<dyn Server>,
    /// Where its writes wait.
    pub gate: Gate,
}

impl GateServer {
    /// Puts a gate before a server.
    pub fn new(server: impl Server) -> GateServer {
        GateServer { server: Arc::new(server), gate: Gate::default() }
    }

    fn behind(&self, target: Arc<dyn Target>) -> Arc<dyn Target> {
        Arc::new(GateTarget { target, gate: self.gate.clone() })
    }
}

impl Server for GateServer {
    fn create(
        &self,
        name: &Name,
        file_id: FileId,
        header: &[u8; HEADER_BYTES],
    ) -> Result<Arc<dyn Target>, TargetError> {
        self.server.create(name, file_id, header).map(|target| self.behind(target))
    }

    fn draft(
        &self,
        name: &Name,
        file_id: FileId,
        header: &[u8; HEADER_BYTES],
    ) -> Result<Arc<dyn Target>, TargetError> {
        self.server.draft(name, file_id, header).map(|target| self.behind(target))
    }

    fn open(&self, name: &Name) -> Result<Arc<dyn Target>, TargetError> {
        self.server.open(name).map(|target| self.behind(target))
    }

    fn remove(&self, name: &Name) -> Result<(), TargetError> {
        self.server.remove(name)
    }
}

#[derive(Debug)]
struct GateTarget {
    target: Arc<dyn Target>,
    gate: Gate,
}

impl Target for GateTarget {
    fn identity(&self) -> u128 {
        self.target.identity()
    }

    fn prepare(&self, block: u64, waker: &Waker) -> Prepared {
        self.target.prepare(block, waker)
    }

    fn write(&self, write: Write, done: Completion) {
        let mut state = self.gate.state();
        if state.open {
            drop(state);
            return self.target.write(write, done);
        }
        state.waiting.push_back(Waiting { target: self.target.clone(), write, done });
        self.gate.shared.changed.notify_all();
    }

    fn read(&self, read: Read, done: ReadCompletion) {
        self.target.read(read, done);
    }

    fn read_header(&self) -> Result<Vec<u8>, TargetError> {
        self.target.read_header()
    }

    fn write_slot(&self, write: &SlotWrite) -> Result<(), TargetError> {
        self.target.write_slot(write)
    }

    fn cut(
        &self,
        n_blocks: u64,
        stored_bytes: u64,
        expect: &SlotExpectation,
    ) -> Result<(), TargetError> {
        self.target.cut(n_blocks, stored_bytes, expect)
    }

    fn barrier(&self) -> Result<(), TargetError> {
        self.target.barrier()
    }

    fn publish(&self) -> Result<(), TargetError> {
        self.target.publish()
    }

    fn lock_size(&self) -> Result<Option<SizeLock>, TargetError> {
        self.target.lock_size()
    }
}

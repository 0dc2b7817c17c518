//! Background writeback: which files are written back without being asked for, and when.
//!
//! Files with something dirty wait in a queue, the one first that has waited longest. While more than
//! the background share of the folios is dirty, or a file has waited its time, passes begin, a bounded
//! number at once. A writer that meets the limit waits until they have made room.

use std::{collections::VecDeque, time::Duration};

use sealback_crypto::Geometry;

use crate::{
    Error,
    engine::Core,
    open_file::OpenFile,
    pass::PassKind,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak, atomic::Ordering},
    waits::{WaitFor, Waiting},
};

/// Passes at once over which no other begins in the background.
const MAX_PASSES: usize = 16;
/// The queue is looked at so often in the time after which what is dirty is written back.
const TICKS: u32 = 4;

/// The files that wait to be written back.
#[derive(Debug, Default)]
pub(crate) struct Flusher(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Since when they have waited, on the engine's clock, and which.
    waiting: VecDeque<(Duration, Weak<OpenFile>)>,
    /// Somebody will look at the queue when it is time.
    ticking: bool,
}

impl Flusher {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file that has waited longest, if it has since `since`.
    fn pop(&self, since: Duration) -> Option<Weak<OpenFile>> {
        let mut state = self.state();
        let due = state.waiting.front().is_some_and(|(waits, _)| *waits <= since);
        if due { state.waiting.pop_front().map(|(_, file)| file) } else { None }
    }

    /// Drops those at the end of the queue that are no longer open: while they wait, their memory stays.
    pub(crate) fn drop_closed(&self) {
        let mut state = self.state();
        while state.waiting.back().is_some_and(|(_, file)| file.strong_count() == 0) {
            state.waiting.pop_back();
        }
    }
}

impl Core {
    /// Folios that cannot be given up: they are dirty, under writeback, or about to be.
    fn n_pinned(&self) -> usize {
        self.folios.n_out().saturating_sub(self.clean.len())
    }

    fn share(&self, percent: u8) -> usize {
        self.folios.max() * usize::from(percent) / 100
    }

    /// Folios that may be dirty before writers wait.
    fn dirty_limit(&self) -> usize {
        self.share(self.config.dirty_limit_percent).max(1)
    }

    /// Plaintext that a file may have dirty, if no other has any, beside all that can be written back at once
    /// of it. None if that is less than `written_back`.
    pub(crate) fn room_beside(&self, written_back: u64, geometry: Geometry) -> u64 {
        let span_bytes = (self.config.span_bytes as u64).max(geometry.block_bytes());
        let sealed_bytes = self.buffers_for(geometry).pool().n_buffers() as u64 * span_bytes;
        let dirty_bytes = self.dirty_limit() as u64 * self.config.folio_bytes as u64;
        let fits = written_back <= sealed_bytes;
        if fits { dirty_bytes.saturating_sub(sealed_bytes) } else { 0 }
    }

    /// Whether so much is dirty that it is written back in the background.
    fn is_over_background(&self) -> bool {
        self.n_pinned() > self.share(self.config.dirty_background_percent)
    }

    /// Whether something is being written back, or waits to be. What is pinned without is about to
    /// become dirty, or clean, and its writers may wait for one another.
    fn can_write_back(&self) -> bool {
        !self.is_idle() || !self.flusher.state().waiting.is_empty()
    }

    /// Begins passes, by `begin`, over files that have waited since `since` or longer, until enough of them run.
    /// Those of which one runs already are left to it, and wait again.
    fn flush(self: &Arc<Self>, since: Duration, begin: impl Fn(&Arc<OpenFile>)) {
        let n_waiting = self.flusher.state().waiting.len();
        for _ in 0..MAX_PASSES.min(n_waiting) {
            if !self.has_room_for_a_pass() {
                return;
            }
            let Some(waiting) = self.flusher.pop(since) else { return };
            if let Some(file) = waiting.upgrade() {
                file.queued.store(false, Ordering::SeqCst);
                // Whoever makes it dirty from here on sees that it has left the queue.
                if file.folios().has_work() {
                    begin(&file);
                    self.queue(&file);
                }
            }
        }
    }

    /// Whether another pass may begin in the background. Passes that wait for their writers leave room, now or
    /// soon.
    fn has_room_for_a_pass(&self) -> bool {
        self.n_active() < MAX_PASSES || {
            self.end_idle_following();
            self.n_active() < MAX_PASSES
        }
    }

    /// Begins passes if so much is dirty.
    pub(crate) fn flush_if_due(self: &Arc<Self>) {
        if self.is_over_background() {
            let is_due = || self.is_over_background();
            self.flush(Duration::MAX, |file| file.kick(PassKind::Background, is_due));
        }
    }

    /// A file has something dirty: it waits to be written back, if it doesn't yet.
    pub(crate) fn queue(self: &Arc<Self>, file: &Arc<OpenFile>) {
        if file.queued.swap(true, Ordering::SeqCst) {
            return;
        }
        let mut state = self.flusher.state();
        state.waiting.push_back((self.now(), Arc::downgrade(file)));
        if !std::mem::replace(&mut state.ticking, true) {
            self.tick_later();
        }
    }

    fn tick_later(self: &Arc<Self>) {
        let expire = self.config.dirty_expire;
        if expire < Duration::MAX {
            let core = Arc::downgrade(self);
            let tick = Box::new(move || {
                if let Some(core) = core.upgrade() {
                    core.tick();
                }
            });
            self.io.wake_after(expire / TICKS, tick);
        }
    }

    /// Writes back what has been dirty for long.
    fn tick(self: &Arc<Self>) {
        if let Some(since) = self.now().checked_sub(self.config.dirty_expire) {
            self.flush(since, |file| file.kick(PassKind::Sync, || true));
        }
        let mut state = self.flusher.state();
        state.ticking = !state.waiting.is_empty();
        if state.ticking {
            self.tick_later();
        }
    }
}

impl OpenFile {
    /// Something has been made dirty: has it written back some day, or now, if there is much.
    pub(crate) fn dirtied(self: &Arc<Self>) {
        self.core.queue(self);
        self.core.flush_if_due();
    }

    /// Waits while more is dirty than may be.
    pub(crate) fn throttle(self: &Arc<Self>) -> Result<(), Error> {
        let limit = self.core.dirty_limit();
        let may_go_on = || self.core.n_pinned() < limit || !self.core.can_write_back();
        self.wait_for_writeback(|| may_go_on().then_some(()).ok_or(1), || ())
    }

    /// What is written back of a file for its memory. Last blocks that are not full can fill that, too; a
    /// chunk that is not full would have to be put once more, and is left as long as there are others.
    fn kind_for_memory(&self) -> PassKind {
        match self.geometry().chunk_blocks() {
            0 => PassKind::Sync,
            _ => PassKind::Background,
        }
    }

    /// Waits until writeback has brought about what `has` looks for, which says how many more folios
    /// it takes at least that become clean; or takes it `anyway`, where writeback cannot.
    pub(crate) fn wait_for_writeback<T>(
        self: &Arc<Self>,
        has: impl Fn() -> Result<T, u64>,
        anyway: impl Fn() -> T,
    ) -> Result<T, Error> {
        let errors_before = self.core.errors().number();
        let mut only_cleaned = false;
        let mut waiting = MemoryWait { core: &self.core, file: self.number(), since: None };
        loop {
            let seen = self.core.folios.seen();
            let n_folios = match has() {
                Ok(got) => return Ok(got),
                Err(n_folios) => n_folios,
            };
            if self.passes.are_held_back() {
                // Who holds them back is the one who asks: writeback cannot make room for him.
                return Ok(anyway());
            }
            // Writeback cannot make room, of whatever file: the writer is told instead of waiting for ever.
            let failed = self.core.errors().since(&mut { errors_before });
            if let Some(error) = failed.filter(|_| self.core.is_idle()) {
                return Err(error.error());
            }
            waiting.begin();
            // A pass that makes folios clean goes on; when one ends, it is told of.
            if !only_cleaned {
                self.core.end_idle_following();
                // Who waits for memory asks also a server that has just failed: he is told of it now, or has
                // his memory.
                let is_due = || self.core.folios.seen() == seen;
                self.core
                    .flush(Duration::MAX, |file| file.kick_now(file.kind_for_memory(), is_due));
            }
            only_cleaned = self.core.folios.wait(seen, n_folios, Duration::from_millis(100));
        }
    }
}

/// Counts a wait for memory, if it comes to one.
struct MemoryWait<'a> {
    core: &'a Core,
    file: u64,
    since: Option<(Duration, Waiting)>,
}

impl MemoryWait<'_> {
    fn begin(&mut self) {
        let waiting = || self.core.waiting(WaitFor::Memory, Some(self.file));
        self.since.get_or_insert_with(|| (self.core.now(), waiting()));
    }
}

impl Drop for MemoryWait<'_> {
    fn drop(&mut self) {
        if let Some((since, _waiting)) = self.since.take() {
            let waited = self.core.now().saturating_sub(since);
            let mut totals = self.core.totals();
            totals.memory_waits += 1;
            totals.memory_wait_time += waited;
        }
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use sealback_crypto::RootKey;
    use sealback_stream::{MemoryOptions, MemoryServer, Name};

    use crate::{Config, CreateOptions, Engine, Place};

    #[test]
    fn files_that_were_closed_do_not_wait_to_be_written_back() {
        let engine = Engine::new(Config::default()).unwrap();
        let server = MemoryServer::new(MemoryOptions::default());
        let root = RootKey::from_bytes(&[1; 32]);
        let place = Place { server: &server, cache: None, root: &root };
        let create = |name: &str| {
            let file = engine.create(&place, &Name::new(name).unwrap(), &CreateOptions::default());
            let file = file.unwrap();
            file.write_at(0, b"something").unwrap();
            file
        };
        let n_waiting = || engine.core().flusher.state().waiting.len();
        let open = create("open");
        for name in ["a", "b", "c"] {
            create(name).close().unwrap();
        }
        assert_eq!(n_waiting(), 1, "the one that is open");
        open.close().unwrap();
        assert_eq!(n_waiting(), 0);
    }
}

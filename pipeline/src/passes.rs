//! Writeback passes over a file: one at a time, and at times none.
//!
//! A background pass lets a sync go first, and gives way to whoever holds passes back.

use std::time::Duration;

use sealback_stream::Target;

use crate::{
    Error,
    commit::seal_gen,
    driver::{Driver, Ending, Parts},
    engine::{CACHE, UPLOAD},
    error_seq::{ErrorSeq, Told},
    following::Filling,
    growth::Growth,
    open_file::OpenFile,
    origin::{Origin, Subject},
    pass::{Pass, PassKind},
    request::Event,
    source::FolioSource,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    trace::Observer,
};

mod merging;

/// Passes of one flush: one for each write group, and those that others close meanwhile.
pub(crate) const MAX_PASSES: u32 = 1000;

/// Which of a file's passes runs, and how the last ones ended.
#[derive(Debug, Default)]
pub(crate) struct Passes {
    state: Mutex<State>,
    ended: Condvar,
    /// Who waits until none runs: a pass in the background gives way to them.
    waiting: AtomicUsize,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    running: Option<Running>,
    /// Somebody cuts or punches: only his own passes run.
    held_back: bool,
    /// How many have begun.
    n_begun: u64,
    /// The number of the last one that has written back all that was dirty when it began.
    complete: u64,
    errors: ErrorSeq,
    /// Passes that have failed, one after the other.
    failures: u32,
    /// Before that, on the engine's clock, no pass begins that nobody asked for.
    not_before: Duration,
}

/// The state, of a file of which no pass runs: one may begin.
pub(crate) type Idle<'a> = MutexGuard<'a, State>;

/// The pass that runs.
#[derive(Clone, Debug)]
struct Running {
    driver: Arc<Driver>,
    /// What it follows, if its source has no end before it is told so.
    filling: Option<Arc<Filling>>,
}

/// What a pass takes.
pub(crate) struct Plan {
    pub(crate) subject: Subject,
    pub(crate) source: Arc<dyn FolioSource>,
    /// Where it may write behind the committed size.
    pub(crate) growth: Option<Growth>,
    /// It takes all that is dirty now.
    pub(crate) is_complete: bool,
    /// What its source follows, to be told when it is to give way.
    pub(crate) filling: Option<Arc<Filling>>,
    /// Its error is for every handle to tell of, not only for who began it.
    pub(crate) is_everybodys: bool,
}

/// What came of wanting a pass.
#[derive(Debug)]
pub(crate) enum Started {
    /// It runs.
    New(Arc<Driver>),
    /// Another one runs.
    Other(Arc<Driver>),
    /// It has to wait for somebody who goes first.
    HeldBack,
}

impl Passes {
    fn state(&self) -> Idle<'_> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until no pass runs; one in the background, or one that follows a writethrough, ends soon,
    /// and does not wait its time before it tries again.
    pub(crate) fn wait_until_none_runs(&self) -> Idle<'_> {
        self.wait_while(|state, _| state.running.is_some())
    }

    /// The same; or waits only until a pass has written back everything that began after the call, which
    /// others may have waited for as well: nothing is left to be done then.
    fn wait_for_turn(&self) -> Option<Idle<'_>> {
        let mut is_done = false;
        let state = self.wait_while(|state, n_begun| {
            is_done = state.complete > n_begun;
            state.running.is_some() && !is_done
        });
        (!is_done).then_some(state)
    }

    /// Waits while `waits` says so of the state, and of the number of passes that had begun at the call.
    fn wait_while(&self, mut waits: impl FnMut(&State, u64) -> bool) -> Idle<'_> {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let mut waiting = None;
        let (running, n_begun) = {
            let state = self.state();
            (state.running.clone(), state.n_begun)
        };
        if let Some(Running { driver, filling }) = running {
            filling.iter().for_each(|filling| filling.give_way());
            driver.post(Event::Hurry);
            waiting = Some(driver.has_its_turn());
        }
        let waited = self.ended.wait_while(self.state(), |state| waits(state, n_begun));
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        drop(waiting);
        waited.unwrap_or_else(PoisonError::into_inner)
    }

    /// Cancels the one that runs.
    pub(crate) fn cancel(&self) {
        let running = self.state().running.clone();
        if let Some(running) = running {
            running.driver.post(Event::Cancel);
        }
    }

    /// Whether somebody waits until none runs.
    pub(crate) fn are_waited_for(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) > 0
    }

    /// Waits until no pass runs, and lets none begin until the guard is dropped.
    pub(crate) fn hold_back(&self) -> HeldBack<'_> {
        self.wait_until_none_runs().held_back = true;
        HeldBack(self)
    }

    pub(crate) fn is_running(&self) -> bool {
        self.state().running.is_some()
    }

    pub(crate) fn are_held_back(&self) -> bool {
        self.state().held_back
    }

    /// What every handle tells of once.
    pub(crate) fn tell(&self, note: impl FnOnce(&mut ErrorSeq)) {
        note(&mut self.state().errors);
    }

    /// The number of the last error.
    pub(crate) fn n_errors(&self) -> u64 {
        self.state().errors.number()
    }

    /// What somebody is to be told of who has heard of so many errors.
    pub(crate) fn errors_since(&self, heard: &mut u64) -> Option<Told> {
        self.state().errors.since(heard)
    }
}

/// No pass begins while this is there, but for those of whoever has it.
#[derive(Debug)]
pub(crate) struct HeldBack<'a>(&'a Passes);

impl Drop for HeldBack<'_> {
    fn drop(&mut self) {
        self.0.state().held_back = false;
    }
}

impl OpenFile {
    /// Starts a writeback that nobody asks for, unless one is running or nothing is dirty; if it is due still,
    /// when that has been looked at. A server that failed is left alone for a growing time.
    pub(crate) fn kick(self: &Arc<Self>, kind: PassKind, is_due: impl Fn() -> bool) {
        let not_before = self.passes.state().not_before;
        if self.core.now() >= not_before {
            self.kick_now(kind, is_due);
        }
    }

    /// The same, whenever the server has failed.
    pub(crate) fn kick_now(self: &Arc<Self>, kind: PassKind, is_due: impl Fn() -> bool) {
        let state = self.passes.state();
        // The one that has just ended may have brought about what another was wanted for.
        if state.running.is_some() || !is_due() {
            return;
        }
        let (has_work, has_full_blocks) = {
            let folios = self.folios();
            (folios.has_work(), folios.has_full_blocks_to_write())
        };
        if has_work {
            // One that leaves the last block would find nothing, and again when it is tried again.
            let kind = if has_full_blocks { kind } else { PassKind::Sync };
            self.start_pass_if_idle(state, kind, None);
        }
    }

    /// Starts a pass, unless one runs already or it has to wait.
    pub(crate) fn start_pass(
        self: &Arc<Self>,
        kind: PassKind,
        observer: Option<Arc<dyn Observer>>,
    ) -> Started {
        self.start_pass_if_idle(self.passes.state(), kind, observer)
    }

    fn start_pass_if_idle(
        self: &Arc<Self>,
        state: MutexGuard<'_, State>,
        kind: PassKind,
        observer: Option<Arc<dyn Observer>>,
    ) -> Started {
        if let Some(running) = &state.running {
            return Started::Other(running.driver.clone());
        }
        if state.held_back || (kind.gives_way() && self.passes.are_waited_for()) {
            return Started::HeldBack;
        }
        Started::New(self.begin_pass(state, self.plan(kind), observer))
    }

    /// If a pass may begin now that nobody asked for.
    pub(crate) fn idle_in_background(&self) -> Option<Idle<'_>> {
        let state = self.passes.state();
        let is_free = state.running.is_none() && !state.held_back && !self.passes.are_waited_for();
        (is_free && self.core.now() >= state.not_before).then_some(state)
    }

    /// Runs a pass while all others are held back.
    pub(crate) fn run_pass(
        self: &Arc<Self>,
        _alone: &HeldBack<'_>,
        kind: PassKind,
    ) -> Result<(), Error> {
        let state = self.passes.state();
        assert!(state.running.is_none(), "the others are held back");
        self.carry_out(state, self.plan(kind), None).result
    }

    /// A pass over the page cache: over the oldest write group.
    pub(crate) fn plan(self: &Arc<Self>, kind: PassKind) -> Plan {
        let grows = kind != PassKind::Copies && self.grows();
        let source = Arc::new(Pass::new(self.clone(), kind, grows));
        let growth = grows.then(Growth::default);
        // One of an older write group leaves what is newer.
        let is_complete = kind == PassKind::Sync && self.n_older_groups() == 0;
        let subject = Subject::of_pass(self, kind);
        Plan { subject, source, growth, is_complete, filling: None, is_everybodys: true }
    }

    /// Begins a pass, with none running.
    pub(crate) fn begin_pass(
        self: &Arc<Self>,
        state: Idle<'_>,
        plan: Plan,
        observer: Option<Arc<dyn Observer>>,
    ) -> Arc<Driver> {
        let (driver, growth) = self.set_up(state, plan, observer);
        self.enter_or_begin(&driver, growth);
        driver
    }

    /// Begins a pass, with none running, and waits for its end.
    pub(crate) fn carry_out(
        self: &Arc<Self>,
        state: Idle<'_>,
        plan: Plan,
        observer: Option<Arc<dyn Observer>>,
    ) -> Ending {
        let (driver, growth) = self.set_up(state, plan, observer);
        driver.caller.attend();
        self.enter_or_begin(&driver, growth);
        driver.wait()
    }

    fn set_up(
        self: &Arc<Self>,
        mut state: Idle<'_>,
        plan: Plan,
        observer: Option<Arc<dyn Observer>>,
    ) -> (Arc<Driver>, Option<Growth>) {
        let Plan { subject, source, growth, is_complete, filling, is_everybodys } = plan;
        state.n_begun += 1;
        let completes = is_complete.then_some(state.n_begun);
        let grows = growth.is_some();
        let header = self.header();
        let seal_gen = seal_gen(&header);
        let (cache, stuck) = (self.cache(), self.core.io.is_stuck(CACHE));
        let claim = |cache| self.claims.claim(cache, Arc::downgrade(self));
        let claim = cache.clone().map(claim);
        let (file, merging) = (self.clone(), self.clone());
        let request = self.core.next_request_number();
        let origin = Origin { request, file: self.number(), subject };
        let teller = self.teller(&origin, observer);
        let parts = Parts {
            teller,
            source,
            content_key: header.content_key().clone(),
            seal_gen,
            targets: vec![
                Some(self.target.clone()),
                // One that answers nothing is not written to; but it forgets what is overwritten.
                cache.filter(|_| !stuck).map(|cache| cache as Arc<dyn Target>),
            ],
            cache: claim,
            merge: Arc::new(move |merge| merging.merge(merge, grows)),
            growth: growth.clone().map(|growth| (growth, self.clone())),
            on_done: Box::new(move |ending| file.pass_ended(ending, completes, is_everybodys)),
        };
        let driver = self.core.start(origin, parts);
        state.running = Some(Running { driver: driver.clone(), filling });
        (driver, growth)
    }

    /// Begins a pass that was set up; one that grows the file when it has the size's lock.
    fn enter_or_begin(self: &Arc<Self>, driver: &Arc<Driver>, growth: Option<Growth>) {
        let Some(growth) = growth else { return self.core.begin(driver) };
        if self.is_entered_at_once() {
            return growth.enter(self.clone(), driver);
        }
        // A caller does not wait for the lock: he would not hear of an end that comes before.
        let growth = match driver.caller.is_here() {
            true => growth.try_enter(self, driver),
            false => Some(growth),
        };
        if let Some(growth) = growth {
            let (file, driver) = (self.clone(), driver.clone());
            self.core.io.lock(move || growth.enter(file, &driver));
        }
    }

    /// `completes` is its number, if it took all that was dirty.
    fn pass_ended(self: &Arc<Self>, ending: &Ending, completes: Option<u64>, is_everybodys: bool) {
        // What of it waits behind a cache that answered nothing comes too late.
        self.claims.end();
        if ending.cache_failed {
            self.drop_cache();
        }
        self.folios().copied();
        let mut state = loop {
            // Before anything of a newer group is sent.
            self.tell_ended_groups();
            let state = self.passes.state();
            if !self.has_ended_groups() {
                break state;
            }
        };
        state.running = None;
        match &ending.result {
            Ok(()) => {
                // One that sent nothing says nothing of the server.
                if ending.stats.streams[UPLOAD].bytes > 0 {
                    state.failures = 0;
                }
                state.complete = completes.unwrap_or(state.complete);
            }
            Err(error) => {
                // What is to be done about a cut is done by whoever meets it next.
                if is_everybodys && !matches!(error, Error::Cut { .. }) {
                    state.errors.failed(error);
                }
                if is_everybodys {
                    self.core.errors().failed(error);
                }
                state.failures = state.failures.saturating_add(1);
                let delay = self.core.config.retry.delay(state.failures + 1, fastrand::u64(..));
                state.not_before = self.core.now().saturating_add(delay);
            }
        }
        // Who counts himself later than this looks at the state after that.
        let waited_for = self.passes.are_waited_for();
        drop(state);
        if waited_for {
            self.passes.ended.notify_all();
        }
        self.core.folios.notify();
        self.core.flush_if_due();
        self.copy_if_due();
    }

    /// Writes back what is dirty now, all or a part: waits for the pass that is running, then for one
    /// more, its own or somebody else's, or, if there are older write groups, one for each. To be
    /// called with sizes held. Returns whether the last one has committed a header, too.
    pub(crate) fn flush(
        self: &Arc<Self>,
        kind: PassKind,
        observer: Option<&Arc<dyn Observer>>,
    ) -> Result<bool, Error> {
        let group = self.folios().group();
        for _pass in 0..MAX_PASSES {
            // Looked at and begun in one step: what another pass has taken is not on the server.
            let Some(idle) = self.passes.wait_for_turn() else { return Ok(false) };
            let (has_work, oldest, newest) = {
                let folios = self.folios();
                (folios.has_work(), folios.oldest_group(), folios.group())
            };
            if !has_work || oldest > group {
                return Ok(false);
            }
            let ending = self.carry_out(idle, self.plan(kind), observer.cloned());
            ending.result?;
            if oldest == newest {
                return Ok(ending.committed);
            }
        }
        Err(Error::Conflict { blocks: Vec::new() })
    }
}

#[cfg(shuttle)]
#[cfg(test)]
mod models;

//! A pass that follows a writer: its source has no end before the writer's.
//!
//! It takes what is filled, and waits for more. Whoever else wants a pass need not wait for the writer:
//! it gives way, between two calls of his, too.

use std::task::Waker;

use sealback_crypto::{Geometry, Sealed};

use crate::{
    driver::Driver,
    engine::Core,
    growth::Growth,
    open_file::OpenFile,
    origin::Subject,
    pass::Pass,
    passes::{Idle, Plan},
    source::{FolioSource, Next, Writeback},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

/// How far a writer has come, for the pass that follows him.
#[derive(Debug)]
pub(crate) struct Filling {
    unit: Unit,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    step: Step,
    /// The position before which he has written.
    to: u64,
    /// The block before which all was there when the pass looked last.
    seen_to: u64,
    /// The pass waits for more.
    waits: Option<Waker>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// More comes.
    Open,
    /// More comes, and another pass takes it.
    GivesWay,
    /// That was all.
    Complete,
}

/// What goes together: a folio, or a block, if that is larger; or a chunk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unit {
    geometry: Geometry,
    bytes: u64,
}

impl Unit {
    pub(crate) fn of(file: &OpenFile) -> Unit {
        let geometry = file.geometry();
        let folio_bytes = file.core.folios.folio_bytes() as u64;
        Unit { geometry, bytes: folio_bytes.max(geometry.block_bytes()) }
    }

    /// One that ends at multiples of so many bytes.
    pub(crate) fn of_bytes(file: &OpenFile, bytes: u64) -> Unit {
        Unit { geometry: file.geometry(), bytes }
    }

    /// Where the last one that is filled ends.
    pub(crate) fn filled(self, to: u64) -> u64 {
        to - to % self.bytes
    }

    /// The block before which a pass may take all.
    fn end(self, step: Step, to: u64) -> u64 {
        match step {
            Step::Open | Step::GivesWay => self.geometry.block_at(self.filled(to)),
            Step::Complete => self.geometry.blocks_covering(0..to).end,
        }
    }
}

impl Filling {
    fn new(unit: Unit, step: Step, to: u64) -> Arc<Filling> {
        let state = State { step, to, seen_to: 0, waits: None };
        Arc::new(Filling { unit, state: Mutex::new(state) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// He has written up to a position, and does or does not go on. Returns whether the pass takes
    /// it, or has given way.
    fn go_on(&self, step: Step, to: u64) -> bool {
        let mut state = self.state();
        if state.step != Step::Open {
            return false;
        }
        (state.step, state.to) = (step, to);
        let is_news = step != Step::Open || self.unit.end(step, to) > state.seen_to;
        let waker = state.waits.take_if(|_| is_news);
        // Whoever wakes the pass may have to carry it on.
        drop(state);
        waker.iter().for_each(Waker::wake_by_ref);
        true
    }

    /// The pass ends with what is filled now.
    pub(crate) fn give_way(&self) {
        let to = self.state().to;
        self.go_on(Step::GivesWay, to);
    }

    fn is_waiting(&self) -> bool {
        self.state().waits.is_some()
    }

    /// The block before which the pass may take all, and whether more comes. If so, `waker` is woken.
    fn look(&self, waker: &Waker) -> (u64, Step) {
        let mut state = self.state();
        state.seen_to = self.unit.end(state.step, state.to);
        if state.step == Step::Open {
            state.waits = Some(waker.clone());
        }
        (state.seen_to, state.step)
    }
}

/// How far the writers of all files have come that a pass follows, and the passes.
#[derive(Debug, Default)]
pub(crate) struct Fillings(Mutex<Vec<(Weak<Filling>, Weak<Driver>)>>);

impl Fillings {
    fn all(&self) -> MutexGuard<'_, Vec<(Weak<Filling>, Weak<Driver>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, filling: &Arc<Filling>, driver: &Arc<Driver>) {
        let mut all = self.all();
        all.retain(|(filling, _)| filling.strong_count() > 0);
        all.push((Arc::downgrade(filling), Arc::downgrade(driver)));
    }

    /// Those of passes that wait for their writer, and for nothing else.
    fn idle(&self) -> Vec<Arc<Filling>> {
        let all = self.all();
        let is_at_rest =
            |driver: &Weak<Driver>| driver.upgrade().is_none_or(|driver| driver.is_at_rest());
        let idle = all.iter().filter(|(_, driver)| is_at_rest(driver));
        let idle = idle.filter_map(|(filling, _)| filling.upgrade());
        idle.filter(|filling| filling.is_waiting()).collect()
    }
}

impl Core {
    /// Has passes end that wait for their writer: others need what they keep.
    pub(crate) fn end_idle_following(&self) {
        self.fillings.idle().iter().for_each(|filling| filling.give_way());
    }
}

/// A pass that follows a writer.
#[derive(Debug)]
struct Follower {
    file: Arc<OpenFile>,
    pass: Pass,
    filling: Arc<Filling>,
    first_block: u64,
}

impl FolioSource for Follower {
    fn next_dirty(&self, from: u64, max_blocks: u64, waker: &Waker) -> Next {
        let (end, step) = self.filling.look(waker);
        let within = self.pass.within(from.max(self.first_block));
        let end = within.end.min(end).max(within.start);
        match self.pass.next_within(within.start..end, end, max_blocks, waker) {
            Next::Run(run) => {
                self.filling.state().waits = None;
                Next::Run(run)
            }
            Next::End if step == Step::Open && !self.file.passes.are_waited_for() => Next::Later,
            Next::End => {
                self.filling.give_way();
                self.pass.end()
            }
            other => other,
        }
    }

    fn stored(&self, sealed: &Sealed) {
        self.pass.stored(sealed);
    }

    fn in_doubt(&self, sealed: &Sealed) {
        self.pass.in_doubt(sealed);
    }

    fn merged(&self, block: u64, plain: &[u8]) {
        self.pass.merged(block, plain);
    }

    fn end_writeback(&self, folio: u64, outcome: Writeback) {
        self.pass.end_writeback(folio, outcome);
    }
}

/// The pass that follows now.
#[derive(Debug)]
pub(crate) struct Following {
    pub(crate) driver: Arc<Driver>,
    filling: Arc<Filling>,
    grows: bool,
    group: u64,
}

impl Following {
    /// Has the pass take what is filled before `to`, while more comes. Returns whether it does; else it
    /// has ended, or does not fit any more, and another one is to follow.
    pub(crate) fn takes(&self, file: &OpenFile, to: u64) -> bool {
        let fits = {
            let folios = file.folios();
            (self.grows || !folios.grows()) && self.group == folios.group()
        };
        fits && self.driver.ended().is_none() && self.filling.go_on(Step::Open, to)
    }

    /// Has the pass end with what is filled, and returns where that ends.
    pub(crate) fn give_way(&self) -> u64 {
        self.filling.give_way();
        self.filling.unit.filled(self.filling.state().to)
    }

    /// Has the pass, if it still follows, take all before `to`, and end with it.
    pub(crate) fn complete(self, to: u64) -> Arc<Driver> {
        self.filling.go_on(Step::Complete, to);
        self.driver
    }
}

impl OpenFile {
    /// Begins a pass that follows who has written the subject's range, with no older write group, and
    /// takes what is filled unit by unit.
    pub(crate) fn follow(
        self: &Arc<Self>,
        idle: Idle<'_>,
        subject: Subject,
        (unit, step): (Unit, Step),
    ) -> Following {
        let group = self.folios().group();
        let grows = self.grows();
        let filling = Filling::new(unit, step, subject.range.end);
        let source = Arc::new(Follower {
            file: self.clone(),
            pass: Pass::following(self.clone(), grows),
            filling: filling.clone(),
            first_block: self.geometry().block_at(subject.range.start),
        });
        let plan = Plan {
            subject,
            source,
            growth: grows.then(Growth::default),
            is_complete: false,
            filling: Some(filling.clone()),
            is_everybodys: true,
        };
        let driver = self.begin_pass(idle, plan, None);
        self.core.fillings.add(&filling, &driver);
        Following { driver, filling, grows, group }
    }
}

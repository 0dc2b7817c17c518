//! Writethrough: a write whose folios go to the server one after the other, while it is still being
//! copied in.
//!
//! A pass follows the writer: its source has no end before the writethrough has one. What is written
//! lies in the page cache like anything else, and the pass is one of the page cache's: there is no
//! second way from plaintext to a server. Whoever else wants a pass need not wait for the writer: the
//! pass gives way, between two calls of his, too, and the next folio that is filled begins another. So
//! no way out of a writethrough keeps others from writing the file back.

use std::{fmt, ops::Range, task::Waker};

use sealback_crypto::{Geometry, MAX_FILE_BYTES, Sealed};

use crate::{
    Error, File, WriteKind, WritebackHandle,
    driver::Driver,
    engine::Core,
    growth::Growth,
    open_file::OpenFile,
    origin::Subject,
    pass::Pass,
    passes::Plan,
    ranges::index_of,
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
enum Step {
    /// More comes.
    Open,
    /// More comes, and another pass takes it.
    GivesWay,
    /// That was all.
    Complete,
}

/// What goes together: a folio, or a block, if that is larger.
#[derive(Clone, Copy, Debug)]
struct Unit {
    geometry: Geometry,
    bytes: u64,
}

impl Unit {
    fn of(file: &OpenFile) -> Unit {
        let geometry = file.geometry();
        let folio_bytes = file.core.folios.folio_bytes() as u64;
        Unit { geometry, bytes: folio_bytes.max(geometry.block_bytes()) }
    }

    /// Where the last one that is filled ends.
    fn filled(self, to: u64) -> u64 {
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

/// The writethroughs of all files that a pass follows.
#[derive(Debug, Default)]
pub(crate) struct Fillings(Mutex<Vec<Weak<Filling>>>);

impl Fillings {
    fn all(&self) -> MutexGuard<'_, Vec<Weak<Filling>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, filling: &Arc<Filling>) {
        let mut all = self.all();
        all.retain(|filling| filling.strong_count() > 0);
        all.push(Arc::downgrade(filling));
    }
}

impl Core {
    /// Has passes end that wait for their writer: others need what they keep.
    pub(crate) fn end_idle_writethroughs(&self) {
        let all: Vec<_> = self.fillings.all().iter().filter_map(Weak::upgrade).collect();
        all.iter().filter(|filling| filling.is_waiting()).for_each(|filling| filling.give_way());
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

    fn merged(&self, block: u64, plain: &[u8]) {
        self.pass.merged(block, plain);
    }

    fn end_writeback(&self, folio: u64, outcome: Writeback) {
        self.pass.end_writeback(folio, outcome);
    }
}

/// A write that goes to the server while it is being made: begun by
/// [`File::writethrough`], advanced piece by piece, and ended.
///
/// Each folio (or block, if that is larger) leaves as soon as it is filled, sealed beside the copying
/// of the next. Until then, and if it cannot be stored, it is dirty in the page cache like anything
/// that is written.
///
/// However a writethrough is left, no writeback of the file waits for it. Dropped, it is as if it
/// had been [ended later](Writethrough::end_later), with nobody told of how that ended but, once, each
/// handle's next sync.
///
/// As long as one is open that makes the file longer, it may keep other clients from making it longer,
/// too: it is to be ended soon.
#[must_use = "a writethrough is to be ended"]
pub struct Writethrough {
    file: File,
    range: Range<u64>,
    /// Where what the passes before have not taken begins.
    from: u64,
    pass: Option<Following>,
}

/// The pass that follows now.
struct Following {
    driver: Arc<Driver>,
    filling: Arc<Filling>,
    grows: bool,
    group: u64,
}

impl File {
    /// Begins a writethrough at `position`: what `O_SYNC` asks for, without its waiting after each
    /// piece.
    ///
    /// ```
    /// # use sealback::{Config, CreateOptions, Engine, Place, crypto::RootKey};
    /// # use sealback::stream::{MemoryOptions, MemoryServer, Name};
    /// # let engine = Engine::new(Config::default())?;
    /// # let (server, root) = (MemoryServer::new(MemoryOptions::default()), RootKey::from_bytes(&[7; 32]));
    /// # let place = Place { server: &server, cache: None, root: &root };
    /// # let name = Name::new("letter").expect("a plain name");
    /// # let file = engine.create(&place, &name, &CreateOptions::default())?;
    /// let mut writing = file.writethrough(0)?;
    /// for piece in vec![7; 1 << 20].chunks(100_000) {
    ///     writing.advance(piece)?; // folios that are filled are on their way
    /// }
    /// writing.end()?; // all of it is on the server, and in the file
    /// assert_eq!((file.size(), file.dirty_bytes()), (1 << 20, 0));
    /// # Ok::<(), sealback::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::TooLarge`] beyond 2^60; [`Error::Closed`].
    pub fn writethrough(&self, position: u64) -> Result<Writethrough, Error> {
        self.file.core.check_open()?;
        if position > MAX_FILE_BYTES {
            return Err(Error::TooLarge);
        }
        let file = self.another();
        Ok(Writethrough { file, range: position..position, from: position, pass: None })
    }
}

impl Writethrough {
    /// Where the next piece goes.
    pub fn position(&self) -> u64 {
        self.range.end
    }

    /// Writes all of `data` behind what was written last. Waits while the memory for folios is full of
    /// dirty ones, and while another writeback of the file runs; not for the server.
    ///
    /// # Errors
    /// As for [`File::write_at`]; and what kept the server from taking what was written before, as for
    /// [`File::sync`]. [`position`](Writethrough::position) says how far it has come; all before is
    /// in the page cache, and is sent again by what follows: more pieces, the end, or a sync.
    pub fn advance(&mut self, data: &[u8]) -> Result<(), Error> {
        let end = self.range.end.checked_add(data.len() as u64);
        end.filter(|end| *end <= MAX_FILE_BYTES).ok_or(Error::TooLarge)?;
        let mut rest = data;
        while !rest.is_empty() {
            let (_, folio) = self.file.file.folios().folio_at(self.range.end);
            let len = rest.len().min(index_of(folio.end - self.range.end));
            let (piece, behind) = rest.split_at(len);
            self.file.write_at(self.range.end, piece)?;
            self.range.end += len as u64;
            rest = behind;
            self.following_cuts(Writethrough::follow)?;
        }
        Ok(())
    }

    /// Ends it: when this returns, all that was written is on the server, and a header speaks for it.
    ///
    /// # Errors
    /// As for [`File::sync_range`]: what could not be stored is dirty, and the next sync tries again.
    pub fn end(mut self) -> Result<(), Error> {
        self.following_cuts(Writethrough::finish)?;
        if self.range.is_empty() { Ok(()) } else { self.file.sync_range(self.range.clone()) }
    }

    /// Ends it, and does not wait: the rest is on its way to the server. [`sync`](File::sync) commits a
    /// header that speaks for it.
    ///
    /// # Errors
    /// As for [`advance`](Writethrough::advance).
    pub fn end_later(mut self) -> Result<WritebackHandle, Error> {
        self.following_cuts(|this| {
            if let Some(driver) = this.complete() {
                return Ok(WritebackHandle { driver });
            }
            this.leave()?;
            Ok(WritebackHandle { driver: this.begin(Step::Complete)?.driver })
        })
    }

    fn following_cuts<T>(
        &mut self,
        mut step: impl FnMut(&mut Self) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.file.file.clone().following_cuts(|| step(self))
    }

    /// Sees to it that a pass takes what is filled.
    fn follow(&mut self) -> Result<(), Error> {
        let to = self.range.end;
        if let Some(Following { driver, filling, grows, group }) = &self.pass {
            let folios = self.file.file.folios();
            let fits = (*grows || !folios.grows()) && *group == folios.group();
            drop(folios);
            if fits && driver.ended().is_none() && filling.go_on(Step::Open, to) {
                return Ok(());
            }
            self.leave()?;
        }
        if Unit::of(&self.file.file).filled(to) > self.from {
            self.pass = Some(self.begin(Step::Open)?);
        }
        Ok(())
    }

    fn begin(&self, step: Step) -> Result<Following, Error> {
        let file = &self.file.file;
        let _sizes = file.hold_sizes_for_change()?;
        let idle = file.wait_for_older_groups()?;
        let group = file.folios().group();
        let grows = file.grows();
        let filling = Filling::new(Unit::of(file), step, self.range.end);
        file.core.fillings.add(&filling);
        let source = Arc::new(Follower {
            file: file.clone(),
            pass: Pass::following(file.clone(), grows),
            filling: filling.clone(),
            first_block: file.geometry().block_at(self.from),
        });
        let range = self.from..self.range.end.max(self.from);
        let plan = Plan {
            subject: Subject { kind: WriteKind::Writethrough, range },
            source,
            growth: grows.then(Growth::default),
            is_complete: false,
            filling: Some(filling.clone()),
            is_everybodys: true,
        };
        Ok(Following { driver: file.begin_pass(idle, plan, None), filling, grows, group })
    }

    /// The pass that follows ends with what is filled.
    fn leave(&mut self) -> Result<(), Error> {
        let Some(Following { driver, filling, .. }) = self.pass.take() else { return Ok(()) };
        filling.give_way();
        self.ended(&driver)?;
        self.from = self.from.max(filling.unit.filled(filling.state().to));
        Ok(())
    }

    /// The pass that follows ends with all there is.
    fn finish(&mut self) -> Result<(), Error> {
        self.complete().map_or(Ok(()), |driver| self.ended(&driver))
    }

    /// Lets the pass that follows, if it still does, take all there is.
    fn complete(&mut self) -> Option<Arc<Driver>> {
        let Following { driver, filling, .. } = self.pass.take()?;
        filling.go_on(Step::Complete, self.range.end);
        Some(driver)
    }

    fn ended(&self, driver: &Driver) -> Result<(), Error> {
        let result = driver.wait().result;
        // A cut is followed, and not told of.
        if result.as_ref().is_err_and(|error| !matches!(error, Error::Cut { .. })) {
            self.file.told();
        }
        result
    }
}

impl Drop for Writethrough {
    fn drop(&mut self) {
        self.complete();
    }
}

impl fmt::Debug for Writethrough {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writethrough").field("range", &self.range).finish_non_exhaustive()
    }
}

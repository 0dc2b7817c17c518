//! Growth: what lies behind the committed size belongs to whoever holds the size lock.
//!
//! A pass that writes there takes the lock, reads the header as it is now, makes holes of the gaps,
//! writes, and commits the size up to which everything is there; then it lets go. So nobody's
//! acknowledged bytes lie behind the committed size while somebody else works there, and what does lie
//! there is left from a crash. A draft is nobody else's: it needs no lock, and is committed when it is
//! synced.
//!
//! Where a server has no such lock, what lies there may be what somebody else is about to commit. It is
//! left alone: a change of a part of a block keeps its other bytes, and no hole is made where something
//! is, unless it is what a pass from here has left there (see `in_doubt.rs`). What is left from a crash
//! may so come into the file. Only a cut takes something away, and whoever has not committed yet then
//! meets its header when he does.

use std::ops::Range;

use sealback_crypto::{Header, Nonce, Stored};
use sealback_stream::{
    BlockConflict, Expectation, Expected, Segment, SizeLock, SizeLockAttempt, Write,
};

use crate::{
    Error,
    commit::seal_gen,
    control::write_now,
    driver::{Driver, Ending},
    open_file::OpenFile,
    ranges::index_of,
    reader::{MAX_READS, pause_before},
    request::Event,
    rmw::{Merged, opens, trim},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// A last block that others keep changing is read again so often.
pub(crate) const MAX_TRIMS: u32 = 16;

/// How far a pass that grows the file has come.
#[derive(Debug, Default)]
enum Section {
    #[default]
    NotEntered,
    Entered(Option<SizeLock>),
    Left,
}

/// One pass's time behind the committed size.
#[derive(Clone, Debug, Default)]
pub(crate) struct Growth {
    section: Arc<Mutex<Section>>,
    /// If the pass ends well, the file is so long, at least.
    least: u64,
}

impl Growth {
    /// Of a pass that makes the file at least `size` long, whatever it writes.
    pub(crate) fn to(size: u64) -> Growth {
        Growth { least: size, ..Growth::default() }
    }

    fn section(&self) -> MutexGuard<'_, Section> {
        self.section.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters when the lock is free, and then begins the pass, or ends it with what kept it out.
    pub(crate) fn enter(self, file: Arc<OpenFile>, driver: &Arc<Driver>) {
        let lock = if file.is_draft() { Ok(None) } else { file.lock_size() };
        self.enter_with(lock, file, driver);
    }

    /// The same, if nobody has the lock; else it comes back.
    pub(crate) fn try_enter(self, file: &Arc<OpenFile>, driver: &Arc<Driver>) -> Option<Growth> {
        if file.is_draft() {
            self.enter_with(Ok(None), file.clone(), driver);
            return None;
        }
        let lock = match file.target.try_lock_size() {
            Ok(SizeLockAttempt::Lockless) => {
                file.has_no_lock();
                None
            }
            Ok(SizeLockAttempt::Taken(lock)) => Some(lock),
            // An error that goes away is met once more, or not.
            Ok(SizeLockAttempt::Unavailable) | Err(_) => return Some(self),
        };
        self.enter_with(Ok(lock), file.clone(), driver);
        None
    }

    fn enter_with(
        self,
        lock: Result<Option<SizeLock>, Error>,
        file: Arc<OpenFile>,
        driver: &Arc<Driver>,
    ) {
        let (entered, core) = (lock.and_then(|lock| file.enter_growth(lock)), file.core.clone());
        // The pass may end in here, and then nothing holds on to the file.
        drop(file);
        match entered {
            Ok(lock) => {
                let mut section = self.section();
                if matches!(*section, Section::NotEntered) {
                    *section = Section::Entered(lock);
                    drop(section);
                    core.begin(driver);
                }
            }
            Err(error) => driver.post(Event::Fail(error)),
        }
    }

    /// Commits what the pass has brought about, and lets go.
    pub(crate) fn leave(&self, file: &OpenFile, ending: &mut Ending) {
        let section = std::mem::replace(&mut *self.section(), Section::Left);
        let Section::Entered(_lock) = section else { return };
        let grown = if ending.result.is_ok() { file.grow_at_last(self.least) } else { Ok(()) };
        let commit = || if file.is_draft() { Ok(false) } else { file.commit_what_is_there() };
        match grown.and_then(|()| commit()) {
            Ok(committed) => ending.committed = committed,
            Err(error) if ending.result.is_ok() => ending.result = Err(error),
            Err(_) => {}
        }
    }
}

impl OpenFile {
    /// Whether a pass would write behind the committed size.
    pub(crate) fn grows(&self) -> bool {
        self.folios().grows()
    }

    /// Whether a pass enters without asking anything of a server: what is committed of a draft, which is
    /// nobody else's, ends with a block, and there is no gap behind it.
    pub(crate) fn is_entered_at_once(&self) -> bool {
        self.is_draft()
            && self.last_block(&self.header()).is_none()
            && self.folios().first_gap().is_none()
    }

    /// Whether a pass leaves so: of a draft nothing is committed.
    pub(crate) fn is_left_at_once(&self) -> bool {
        self.is_draft()
    }

    fn enter_growth(&self, lock: Option<SizeLock>) -> Result<Option<SizeLock>, Error> {
        if !self.is_draft() {
            self.catch_up()?;
            self.settle_in_doubt()?;
        }
        if self.grows() {
            // What is written behind is trimmed by who uploads it.
            if self.log().is_none() {
                self.trim_behind_end()?;
            }
            self.close_gaps()?;
        }
        Ok(lock)
    }

    /// Takes the size lock, and goes on from what there is now.
    pub(crate) fn lock_growth(&self) -> Result<Option<SizeLock>, Error> {
        let lock = self.lock_size()?;
        self.catch_up()?;
        Ok(lock)
    }

    /// Seals the last committed block anew if it holds bytes behind the committed size: they are left
    /// from a crash, and would show. Without a lock they may be what somebody else is about to commit.
    pub(crate) fn trim_behind_end(&self) -> Result<(), Error> {
        let header = self.header();
        let Some((block, _)) = self.last_block(&header) else { return Ok(()) };
        let is_ours = self.folios().is_uncommitted(block);
        if self.is_lockless() || is_ours { Ok(()) } else { self.trim_last_block(&header) }
    }

    /// The last block of a header, and how many of its bytes are in the file, if not all of them are.
    fn last_block(&self, header: &Header) -> Option<(u64, usize)> {
        let (size, geometry) = (header.size(), self.geometry());
        let block = geometry.block_at(size);
        let len = index_of(size - geometry.block_start(block));
        (len > 0).then_some((block, len))
    }

    /// Seals the last block of a header anew if it holds bytes behind that header's size.
    pub(crate) fn trim_last_block(&self, header: &Header) -> Result<(), Error> {
        let mut trimmed = self.trim_once(header);
        // Others may be changing what lies before the size.
        for attempt in 1..MAX_TRIMS {
            if !matches!(trimmed, Err(Error::Conflict { .. } | Error::Damaged(_))) {
                break;
            }
            pause_before(attempt);
            trimmed = self.trim_once(header);
        }
        trimmed
    }

    fn trim_once(&self, header: &Header) -> Result<(), Error> {
        let Some((block, len)) = self.last_block(header) else { return Ok(()) };
        let stored = self.read_block(block)?;
        // Who has finished the cut since may have made the file longer: what was read before that is not
        // written over what he has made of it.
        if header.cut_pending() && self.reread_header(header)?.mac() != header.mac() {
            return Ok(());
        }
        self.trim_block(header, block, stored, len).map(drop)
    }

    /// Seals a block that was read anew without what it holds behind its first `len` bytes, if it still is
    /// what was read. Returns the nonce, if it held more.
    pub(crate) fn trim_block(
        &self,
        header: &Header,
        block: u64,
        stored: Stored,
        len: usize,
    ) -> Result<Option<Nonce>, Error> {
        let trimmed = trim(header.content_key(), seal_gen(header), block, stored, len);
        let Some(Merged { sealed, expected, .. }) = trimmed.map_err(Error::from)? else {
            return Ok(None);
        };
        let nonce = sealed.nonce(block);
        self.forget_cached(&(block..block + 1))?;
        let write = Write {
            expectations: vec![Expectation { block, expected }],
            segments: vec![Segment::Sealed(sealed)],
            dirty: Vec::new(),
        };
        let answer = self.core.persist(None, || write_now(&*self.target, write.clone()))?;
        answer.map_err(|blocks| Error::Conflict { blocks })?;
        self.folios().forget_clean(&(block..block + 1));
        Ok(Some(nonce))
    }

    /// Goes on from the header that is there now. What this client has behind the committed size must
    /// still be there, even if the header is the same: who had the lock meanwhile may not have come to
    /// commit what it wrote.
    fn catch_up(&self) -> Result<(), Error> {
        let known = self.header();
        let now = self.look_for_cut(&known)?;
        self.go_on_beside_ours(|| {
            if now.generation() > known.generation() {
                self.adopt(now);
            }
        })
    }

    /// Goes on with a header that somebody else committed, and may have done so over blocks that were
    /// sent here and not committed: they are sent again, or every handle is told of them.
    pub(crate) fn adopt_beside_ours(&self, header: Header) -> Result<(), Error> {
        self.go_on_beside_ours(|| self.adopt(header))
    }

    /// Looks whether blocks that were written and never committed are still there, and goes on with
    /// somebody else's header if it could see that: with that header nobody would look any more.
    pub(crate) fn go_on_beside_ours(&self, go_on: impl FnOnce()) -> Result<(), Error> {
        let mut lost = Vec::new();
        let checked = self.check_uncommitted(&mut lost);
        if checked.is_ok() {
            go_on();
        }
        // What was found before the look failed is not found again. It is nothing of the call that meets it.
        if !lost.is_empty() {
            self.passes.tell(|errors| errors.blocks_gone(&lost));
        }
        checked
    }

    /// Looks whether blocks that were written and never committed are still there: whoever held the
    /// lock meanwhile need not have kept them. What is gone is sent again, or added to `lost`. Where there
    /// is no lock nobody takes them away but with a cut.
    fn check_uncommitted(&self, lost: &mut Vec<BlockConflict>) -> Result<(), Error> {
        if self.is_lockless() {
            return Ok(());
        }
        let uncommitted = self.folios().uncommitted();
        for (block, nonce) in uncommitted {
            let stored = self.read_block(block)?.nonce(self.geometry(), 0);
            if stored != Some(nonce) && !self.folios().send_again(block, nonce, stored) {
                lost.push(BlockConflict { block, stored });
            }
        }
        Ok(())
    }

    /// Makes holes of the gaps behind the committed size.
    fn close_gaps(&self) -> Result<(), Error> {
        loop {
            let Some(gap) = self.folios().first_gap() else { return Ok(()) };
            self.make_gap(&gap)?;
            self.folios().gap_closed(&gap);
        }
    }

    /// Makes holes of blocks behind the committed size. Without a lock what is stored there may be what
    /// somebody else is about to commit: then only the last of them is made a hole, if nothing is there, so
    /// that the file reaches as far.
    pub(crate) fn make_gap(&self, blocks: &Range<u64>) -> Result<(), Error> {
        if !self.is_lockless() {
            return self.make_holes(blocks, &[]);
        }
        let last = blocks.end - 1;
        let mut expected = Expected::Absent;
        for _attempt in 0..MAX_TRIMS {
            let made =
                self.make_holes(&(last..blocks.end), &[Expectation { block: last, expected }]);
            if !matches!(made, Err(Error::Conflict { .. })) {
                return made;
            }
            match self.nonce_of_torn(last)? {
                Some(torn) => expected = Expected::Nonce(torn),
                None => return Ok(()),
            }
        }
        Err(Error::Conflict { blocks: Vec::new() })
    }

    /// The nonce of a block, if it does not open, however often it is read.
    fn nonce_of_torn(&self, block: u64) -> Result<Option<Nonce>, Error> {
        for attempt in 1.. {
            let stored = self.read_block(block)?;
            let nonce = stored.nonce(self.geometry(), 0);
            if opens(self.header().content_key(), block, stored) {
                break;
            }
            if attempt >= MAX_READS {
                return Ok(nonce);
            }
            pause_before(attempt);
        }
        Ok(None)
    }

    /// The file is at least `size` long, with holes where nobody has written.
    fn grow_at_last(&self, size: u64) -> Result<(), Error> {
        if size == 0 {
            return Ok(());
        }
        self.grow_to(size);
        if self.is_draft() { Ok(()) } else { self.close_gaps() }
    }

    /// Commits the size up to which everything is on the server, if it is more than the header says;
    /// returns whether it was.
    fn commit_what_is_there(&self) -> Result<bool, Error> {
        let (size, holes) = {
            let folios = self.folios();
            (folios.size_to_commit(), folios.holes())
        };
        let _one_at_a_time = self.commits();
        let grows = size > self.header().size();
        if grows {
            self.commit_size(size, &holes)?;
        }
        Ok(grows)
    }

    /// Puts a draft in its place. From then on others may make the file longer: no pass goes on that began
    /// without the size's lock, and a header speaks for what is stored.
    pub(crate) fn publish(self: &Arc<Self>) -> Result<(), Error> {
        let _alone = self.alone();
        if self.is_draft() {
            self.commit_what_is_there()?;
        }
        // Whatever is said of it: it may have its name by then.
        self.set_draft(false);
        self.target.publish().map_err(Error::server)?;
        self.core.upload_soon(self);
        Ok(())
    }

    /// Grows the file to `size`, by zeros.
    pub(crate) fn grow_to(&self, size: u64) {
        self.folios().grow(size, self.geometry().n_blocks(size), &self.core.folios);
    }

    /// Grows the file up to a position that is written next, and is settled then.
    pub(crate) fn grow_before(&self, position: u64) {
        self.folios().grow_unsettled(position, &self.core.folios);
    }
}

//! Sizes and holes: cutting and punching, and who may do so.
//!
//! Whoever reads or writes blocks shares the sizes; a cut or a punch has them alone, with no pass
//! under way. The orders are those that leave a crash nothing to lose:
//!
//! - **Cut:** a header with the smaller size and the cut-pending flag; the last block sealed anew
//!   without what was cut off, and the stored file cut, both only as long as that header counts; a header
//!   without the flag. Whoever finds the flag finishes the cut before he changes anything.
//! - **Punch:** a header that allows holes there; then the holes, where the blocks are still what
//!   they were when the punch began.
//! - **Growth:** see `growth.rs`.

use std::ops::Range;

use sealback_crypto::{Header, HeaderChange, HeaderCommit, HeaderError, MAX_FILE_BYTES};
use sealback_stream::{Expectation, Expected, Segment, TargetError, TargetErrorKind, Write};

use crate::{
    Error,
    config::read_unit_blocks,
    control::write_now,
    open_file::OpenFile,
    pass::PassKind,
    passes::HeldBack,
    ranges::index_of,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    waits::WaitFor,
};

/// A punch that meets other writers is tried again so often.
const MAX_PUNCHES: u32 = 16;

/// Who may change a file's size.
#[derive(Debug, Default)]
pub(crate) struct Sizes {
    stable: RwLock<()>,
    growing: Mutex<()>,
}

/// The size does not go down, and no hole is punched, while this is there.
#[derive(Debug)]
pub(crate) struct SizeGuard<'a> {
    _stable: RwLockReadGuard<'a, ()>,
}

/// Nobody else reads or writes blocks while this is there.
#[derive(Debug)]
pub(crate) struct Alone<'a> {
    passes: HeldBack<'a>,
    _sizes: RwLockWriteGuard<'a, ()>,
}

impl OpenFile {
    /// Keeps the size from going down. To be taken at the entry of a call, once: not while the
    /// same thread has it.
    pub(crate) fn hold_sizes(&self) -> SizeGuard<'_> {
        if let Ok(stable) = self.sizes.stable.try_read() {
            return SizeGuard { _stable: stable };
        }
        let _waiting = self.waits(WaitFor::Sizes);
        SizeGuard { _stable: self.sizes.stable.read().unwrap_or_else(PoisonError::into_inner) }
    }

    /// The same, for who is about to change something: finishes first a cut that was left half
    /// done.
    pub(crate) fn hold_sizes_for_change(self: &Arc<Self>) -> Result<SizeGuard<'_>, Error> {
        loop {
            let sizes = self.hold_sizes();
            if !self.cut_is_pending() {
                return Ok(sizes);
            }
            drop(sizes);
            if let Some(log) = self.log() {
                self.finish_cut_behind(&log)?;
                continue;
            }
            let alone = self.alone();
            let _one_at_a_time = self.commits();
            let _locked = self.lock_size()?;
            self.finish_cut(&alone)?;
        }
    }

    /// Waits until nobody else reads or writes blocks, and keeps it so.
    pub(crate) fn alone(&self) -> Alone<'_> {
        let _waiting = self.waits(WaitFor::Alone);
        let sizes = self.sizes.stable.write().unwrap_or_else(PoisonError::into_inner);
        Alone { passes: self.passes.hold_back(), _sizes: sizes }
    }

    /// Writers that make the file longer follow one another.
    pub(crate) fn hold_growth(&self, _sizes: &SizeGuard<'_>) -> MutexGuard<'_, ()> {
        self.sizes.growing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_zeros(self: &Arc<Self>, range: Range<u64>) -> Result<(), Error> {
        let mut at = range.start;
        while at < range.end {
            let len = (range.end - at).min(ZEROS.len() as u64);
            self.write_within(at, &ZEROS[..index_of(len)])?;
            at += len;
        }
        Ok(())
    }

    /// Makes the file `size` long.
    pub(crate) fn set_len(self: &Arc<Self>, size: u64) -> Result<(), Error> {
        if size > MAX_FILE_BYTES {
            return Err(Error::TooLarge);
        }
        self.core.check_open()?;
        loop {
            let sizes = self.hold_sizes_for_change()?;
            self.look_for_growth(size)?;
            if size >= self.folios().size() {
                let growing = self.hold_growth(&sizes);
                self.grow_to(size);
                drop(growing);
                self.dirtied();
                return Ok(());
            }
            if self.log().is_none() && self.is_sent_and_uncommitted(size) {
                self.sync(&sizes, PassKind::Sync, None)?;
            }
            drop(sizes);
            if self.log().is_some() {
                return self.on_server(|server| server.set_len_down(size));
            }
            if self.shrink(size)? {
                return Ok(());
            }
        }
    }

    /// Goes on from the header that is there now, if it is not known here that the file is longer than
    /// `size`: it may be so by now. Or shorter, and as long as that only here.
    fn look_for_growth(&self, size: u64) -> Result<(), Error> {
        let known = self.header();
        if known.size() > size {
            return Ok(());
        }
        let now = self.look_for_cut(&known)?;
        if now.size() > size { self.adopt_beside_ours(now) } else { Ok(()) }
    }

    /// Makes the file `size` long, if it is longer.
    fn set_len_down(self: &Arc<Self>, size: u64) -> Result<(), Error> {
        if size < self.folios().size() { self.set_len(size) } else { Ok(()) }
    }

    /// Drops what was written and is not on the server.
    pub(crate) fn discard(&self) {
        self.passes.cancel();
        let _alone = self.alone();
        self.folios().discard();
        if let Some(log) = self.log() {
            // What cannot be dropped now is dropped when the log is opened next.
            let _ = log.drop_unpromised();
        }
        self.tell_ended_groups();
        self.core.folios.notify();
    }

    /// Cuts the file, unless it has become shorter than that meanwhile.
    fn shrink(self: &Arc<Self>, size: u64) -> Result<bool, Error> {
        let alone = self.alone();
        // A group that is closed keeps its size.
        self.write_older_alone(&alone.passes)?;
        if self.folios().size() < size || self.is_sent_and_uncommitted(size) {
            return Ok(false);
        }
        let _one_at_a_time = self.commits();
        if size < self.header().size() {
            let _locked = self.lock_size()?;
            self.finish_cut(&alone)?;
            self.barrier()?;
            self.commit_with(|header| cut_to(header, size))?;
            self.cut_folios(size);
            self.finish_cut(&alone)?;
        } else {
            self.cut_folios(size);
        }
        Ok(true)
    }

    /// Whether something behind a position may be on the server, and no header speaks for it: only a cut of
    /// what is committed takes it away there, so that it does not come back when the file grows.
    fn is_sent_and_uncommitted(&self, position: u64) -> bool {
        position >= self.header().size() && self.folios().sent_to() > position
    }

    fn cut_folios(&self, size: u64) {
        self.folios().cut(size);
        self.core.folios.notify();
    }

    /// Does what the cut-pending flag asks for, as long as it is set.
    fn finish_cut(&self, _alone: &Alone<'_>) -> Result<(), Error> {
        while self.cut_is_pending() {
            let header = self.header();
            self.barrier()?;
            self.trim_last_block(&header)?;
            self.barrier()?;
            if self.cut_stored(&header)? {
                self.barrier()?;
                self.commit_with(unflagged)?;
                self.barrier()?;
                self.tell_cache();
            }
        }
        Ok(())
    }

    /// Cuts the stored file to the size of a header, if that still counts; goes on from another one
    /// if not.
    fn cut_stored(&self, header: &Header) -> Result<bool, Error> {
        let geometry = header.geometry();
        let (n_blocks, expect) = (geometry.n_blocks(header.size()), header.expectation());
        let _waiting = self.waits(WaitFor::Cut);
        let cut = || Ok(self.target.cut(geometry, n_blocks, &expect)?);
        match self.core.persist(None, cut) {
            Err(error) if error.target_kind() == Some(TargetErrorKind::Conflict) => {
                self.adopt(self.look_for_cut(header)?);
                Ok(false)
            }
            other => other.map(|()| true),
        }
    }

    /// Makes zeros of `range`, as far as it lies within the file: holes of whole blocks.
    pub(crate) fn punch(self: &Arc<Self>, range: &Range<u64>) -> Result<(), Error> {
        self.core.check_open()?;
        if self.log().is_some() {
            return self.on_server(|server| server.punch(range));
        }
        for _attempt in 0..MAX_PUNCHES {
            let sizes = self.hold_sizes_for_change()?;
            // Zeros that are laid behind a cut would make the file grow again.
            self.look_for_cut(&self.header())?;
            let size = self.folios().size();
            let range = range.start.min(size)..range.end.min(size);
            // Of the block that the file ends in somebody else may have stored more.
            let blocks = self.geometry().blocks_within(range.clone());
            if blocks.is_empty() {
                return self.write_zeros(range);
            }
            let geometry = self.geometry();
            self.write_zeros(range.start..geometry.block_start(blocks.start))?;
            self.write_zeros(geometry.block_start(blocks.end)..range.end)?;
            self.folios().allow_holes(&blocks);
            self.sync(&sizes, PassKind::Sync, None)?;
            drop(sizes);
            let _alone = self.alone();
            let all_of_it = self.folios().older_within(&range).is_none();
            if all_of_it && self.may_be_holes(&blocks) {
                return self.punch_blocks(&blocks);
            }
        }
        Err(Error::Conflict { blocks: Vec::new() })
    }

    /// Whether the committed header allows holes there: somebody may have cut the file since.
    fn may_be_holes(&self, blocks: &Range<u64>) -> bool {
        let holes = self.header().holes();
        holes.start <= blocks.start && blocks.end <= holes.end
    }

    /// Makes holes of blocks that are stored, if they still are what they are now.
    fn punch_blocks(&self, blocks: &Range<u64>) -> Result<(), Error> {
        let unit_blocks = read_unit_blocks(self.geometry());
        let mut start = blocks.start;
        while start < blocks.end {
            let unit = start..(start + unit_blocks).min(blocks.end);
            self.punch_unit(&unit)?;
            self.folios().punched(&unit);
            start = unit.end;
        }
        self.core.folios.notify();
        Ok(())
    }

    fn punch_unit(&self, unit: &Range<u64>) -> Result<(), Error> {
        let mut result = Ok(());
        for _attempt in 0..MAX_PUNCHES {
            let expected = self.expectations_of(unit)?;
            // What was stored then is in the file that allows the holes; what is stored later, after
            // a cut, need not be.
            self.look_for_cut(&self.header())?;
            if expected.iter().all(|expectation| expectation.expected == Expected::Absent) {
                return Ok(());
            }
            result = self.make_holes(unit, &expected);
            if !matches!(result, Err(Error::Conflict { .. })) {
                break;
            }
        }
        result
    }

    /// What is stored for blocks now.
    pub(crate) fn expectations_of(&self, blocks: &Range<u64>) -> Result<Vec<Expectation>, Error> {
        let geometry = self.geometry();
        let read = || Ok(self.read_blocks(&*self.target, blocks.clone())?);
        let stored = self.core.persist(None, read)?;
        let expectation = |block| {
            let nonce = stored.nonce(geometry, index_of(block - blocks.start));
            Expectation { block, expected: Expected::of(nonce) }
        };
        Ok(blocks.clone().map(expectation).collect())
    }

    /// Clears the cache's record of blocks that are about to be changed on the server: one that cannot
    /// be cleared would bring back what was there.
    pub(crate) fn forget_cached(&self, blocks: &Range<u64>) -> Result<(), Error> {
        let Some(cache) = self.cache() else { return Ok(()) };
        let forgotten = cache.forget(blocks.clone()).or_else(|_| cache.invalidate());
        forgotten.map_err(Error::server)
    }

    /// Writes holes to the server, and lets the cache forget what was there.
    pub(crate) fn make_holes(
        &self,
        blocks: &Range<u64>,
        expectations: &[Expectation],
    ) -> Result<(), Error> {
        let _waiting = self.waits(WaitFor::Holes);
        self.forget_cached(blocks)?;
        let geometry = self.geometry();
        let positions = geometry.block_start(blocks.start)..geometry.block_start(blocks.end);
        let mut rest = blocks.clone();
        while !rest.is_empty() {
            let within = |expectation: &&Expectation| rest.contains(&expectation.block);
            let write = Write {
                segments: vec![Segment::Hole { blocks: rest.clone(), geometry }],
                expectations: expectations.iter().filter(within).copied().collect(),
                dirty: Vec::new(),
            };
            let answer =
                self.core.persist(Some(&positions), || write_now(&*self.target, write.clone()))?;
            let bytes = answer.map_err(|blocks| Error::Conflict { blocks })?;
            let written = bytes / geometry.stride_bytes();
            if written == 0 {
                return Err(no_progress(positions));
            }
            rest.start += written.min(rest.end - rest.start);
        }
        Ok(())
    }
}

pub(crate) fn no_progress(range: Range<u64>) -> Error {
    let kind = TargetErrorKind::Io;
    let source = TargetError::new(kind, "the server wrote nothing of a hole");
    Error::Server { range: Some(range), attempts: 1, source }
}

/// The header of a file that is being cut.
fn cut_to(header: &Header, size: u64) -> Result<HeaderCommit, HeaderError> {
    let (holes, n_blocks) = (header.holes(), header.geometry().n_blocks(size));
    header.commit(&HeaderChange {
        size: size.min(header.size()),
        holes: holes.start..holes.end.min(n_blocks).max(holes.start),
        cuts: header.cuts() + 1,
        cut_pending: true,
    })
}

/// The header of a file that has been cut.
fn unflagged(header: &Header) -> Result<HeaderCommit, HeaderError> {
    header.commit(&HeaderChange {
        size: header.size(),
        holes: header.holes(),
        cuts: header.cuts(),
        cut_pending: false,
    })
}

static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

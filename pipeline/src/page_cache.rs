//! A file's folios: what was written and is not evicted yet, and exactly which of it is dirty.
//!
//! **Invariants:**
//! 1. A block is sealed only when all of it is valid, up to the file's end: what was not written of
//!    it is filled in before. No folio of a block with a dirty byte is evicted.
//! 2. Folio bytes that are being sealed do not change: a writer that finds them shared copies.
//! 3. Each time a folio is handed out, its dirty ranges of that run move into a hand-out, and come
//!    back if the run does not reach the server.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    iter,
    ops::{Range, RangeBounds},
    sync::Arc,
};

use sealback_crypto::{Geometry, Nonce};
use sealback_stream::Expected;

use crate::{
    folio::FolioBytes,
    ranges::{RangeSet, index_of},
};

mod clean;
mod copies;
mod eviction;
mod extent;
mod fetched;
mod groups;
mod handout;
mod outside;
mod uncommitted;

pub(crate) use clean::{CleanFolios, CleanFoliosOf};
pub(crate) use copies::{Copies, CopyBudget};
pub(crate) use groups::Older;
pub(crate) use handout::{NextRun, Takes};

#[derive(Debug)]
struct Folio {
    bytes: Arc<FolioBytes>,
    /// Positions in the file that hold what the file holds.
    valid: RangeSet,
    /// Positions in the file that the server does not have; a part of `valid`.
    dirty: RangeSet,
    /// The count of writes when the first of them became so.
    dirty_since: u64,
    /// The write group that it belongs to, unless it is clean.
    group: u64,
    /// What was dirty in the runs that are under writeback, oldest first.
    handed_out: VecDeque<RangeSet>,
}

impl Folio {
    fn clean(bytes: FolioBytes, valid: RangeSet) -> Box<Folio> {
        let (bytes, dirty, handed_out) = (Arc::new(bytes), RangeSet::default(), VecDeque::new());
        Box::new(Folio { bytes, valid, dirty, dirty_since: 0, group: 0, handed_out })
    }

    /// Its bytes, to be changed: a copy in the memory that `copy_to` gives, if they are being
    /// sealed.
    fn bytes_mut(&mut self, copy_to: impl FnOnce() -> FolioBytes) -> &mut [u8] {
        if Arc::get_mut(&mut self.bytes).is_none() {
            let mut copy = copy_to();
            copy.as_mut_slice().copy_from_slice((*self.bytes).as_ref());
            self.bytes = Arc::new(copy);
        }
        Arc::get_mut(&mut self.bytes).expect("copied if it was shared").as_mut_slice()
    }

    /// What was written here and is not known to be on the server.
    fn unwritten(&self) -> RangeSet {
        let mut unwritten = self.dirty.clone();
        self.handed_out.iter().for_each(|handed_out| unwritten.extend(handed_out));
        unwritten
    }

    fn is_clean(&self) -> bool {
        self.dirty.is_empty() && self.handed_out.is_empty()
    }
}

/// A file's folios.
#[derive(Debug)]
pub(crate) struct Folios {
    geometry: Geometry,
    folio_bytes: u64,
    /// The file's size as its writers see it.
    size: u64,
    /// Blocks that may be holes, or shorter than they should be; a hull.
    holes: Range<u64>,
    /// Boxed, since the map takes room for eleven at once, and most files have few.
    folios: BTreeMap<u64, Box<Folio>>,
    /// Those that are not clean: who looks for them does not go over all the others.
    unclean: BTreeSet<u64>,
    /// Those that are clean, among all files'.
    clean: CleanFoliosOf,
    /// The size that the header has.
    committed: u64,
    /// Positions from this one on were never sent to the server.
    sent_to: u64,
    /// While a write makes the file longer: the size up to which all is a hole, dirty or stored.
    settled: Option<u64>,
    /// Blocks behind the committed size that nobody has written.
    gaps: RangeSet,
    /// Blocks that the server has acknowledged with bytes behind the committed size: their nonces, and
    /// the positions where they end.
    uncommitted: BTreeMap<u64, (Nonce, u64)>,
    /// What the server may have of passes that failed behind the committed size, and that is not in the
    /// file: the nonces that were sent.
    in_doubt: BTreeMap<u64, Vec<Nonce>>,
    /// Blocks that may hold, behind the committed size, what others have sent: whatever is sealed of them
    /// here may do so, too.
    shared: BTreeSet<u64>,
    /// What is stored for blocks that have folios, as far as it is known.
    stored: BTreeMap<u64, Expected>,
    /// Blocks that were merged with what somebody else has made longer than this file is known to be,
    /// and are on their way: not all of what is stored then is here.
    longer: BTreeSet<u64>,
    copies: Copies,
    /// Whole blocks are overwritten only if nobody else has changed them.
    tells_lost_updates: bool,
    /// What was dirty, is on the server, and in no header yet.
    unsynced: RangeSet,
    /// Positions that the cache is not to get.
    uncached: RangeSet,
    dirty_bytes: u64,
    /// Counts the writes.
    writes: u64,
    /// Fetches under way.
    fetches: fetched::Fetches,
    groups: groups::Groups,
    /// How often what had been sent was made dirty again, because it was gone.
    sent_again: u64,
}

impl Folios {
    pub(crate) fn new(
        geometry: Geometry,
        folio_bytes: usize,
        size: u64,
        holes: Range<u64>,
        clean: CleanFoliosOf,
        copies: Copies,
    ) -> Folios {
        Folios {
            geometry,
            folio_bytes: folio_bytes as u64,
            size,
            holes,
            committed: size,
            sent_to: size,
            settled: None,
            gaps: RangeSet::default(),
            uncommitted: BTreeMap::new(),
            in_doubt: BTreeMap::new(),
            shared: BTreeSet::new(),
            folios: BTreeMap::new(),
            unclean: BTreeSet::new(),
            clean,
            stored: BTreeMap::new(),
            longer: BTreeSet::new(),
            copies,
            tells_lost_updates: false,
            unsynced: RangeSet::default(),
            uncached: RangeSet::default(),
            dirty_bytes: 0,
            writes: 0,
            fetches: fetched::Fetches::default(),
            groups: groups::Groups::default(),
            sent_again: 0,
        }
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    pub(crate) fn holes(&self) -> Range<u64> {
        self.holes.clone()
    }

    pub(crate) fn dirty_bytes(&self) -> u64 {
        self.dirty_bytes
    }

    pub(crate) fn writes(&self) -> u64 {
        self.writes
    }

    /// Whether a writeback would find something to do.
    pub(crate) fn has_work(&self) -> bool {
        self.dirty_bytes > 0 || self.copies.are_waiting() || self.grows()
    }

    pub(crate) fn set_uncached(&mut self, positions: Range<u64>) {
        self.uncached.insert(positions);
    }

    /// The folio that holds a position, and the positions it covers.
    pub(crate) fn folio_at(&self, position: u64) -> (u64, Range<u64>) {
        let folio = position / self.folio_bytes;
        (folio, folio * self.folio_bytes..(folio + 1) * self.folio_bytes)
    }

    /// The folios that a range touches, each with its part of it.
    fn parts(&self, range: &Range<u64>) -> impl Iterator<Item = (u64, Range<u64>)> + use<> {
        let (folio_bytes, mut at, end) = (self.folio_bytes, range.start, range.end);
        iter::from_fn(move || {
            let index = at / folio_bytes;
            let part = at..((index + 1) * folio_bytes).min(end);
            at = part.end;
            (!part.is_empty()).then_some((index, part))
        })
    }

    /// The folios of these that are not clean.
    fn unclean(&self, folios: impl RangeBounds<u64>) -> impl Iterator<Item = (u64, &Folio)> {
        self.unclean.range(folios).map(|index| (*index, &*self.folios[index]))
    }

    /// Whether a folio has memory.
    pub(crate) fn has(&self, folio: u64) -> bool {
        self.folios.contains_key(&folio)
    }

    /// Positions that are to be filled before a write to `range`: of blocks that are touched in part
    /// what is not valid yet, where nothing was ever sent and so nothing has to be read; and all of a
    /// block of which it is to be known, and is not, what is stored.
    pub(crate) fn to_fill(&self, range: &Range<u64>) -> Vec<Range<u64>> {
        let mut missing = RangeSet::default();
        for block in self.partly_covered(range) {
            let start = self.geometry.block_start(block);
            let end = (start + self.geometry.block_bytes()).min(self.size);
            if start < self.sent_to || start >= end {
                continue;
            }
            if !self.stored.contains_key(&block) && !self.missing(&(start..end)).is_empty() {
                missing.insert(start..end);
                continue;
            }
            for part in [start..range.start.min(end), range.end.max(start)..end] {
                self.missing(&part).into_iter().for_each(|part| missing.insert(part));
            }
        }
        let whole = self.geometry.blocks_within(range.clone());
        for block in whole.filter(|block| self.is_told_of(*block)) {
            if !self.stored.contains_key(&block) {
                let start = self.geometry.block_start(block);
                missing.insert(start..start + self.geometry.block_bytes());
            }
        }
        missing.iter().cloned().collect()
    }

    /// The blocks, two at most, that `range` covers a part of only.
    fn partly_covered(&self, range: &Range<u64>) -> impl Iterator<Item = u64> + use<> {
        let blocks = self.geometry.blocks_covering(range.clone());
        let whole = self.geometry.blocks_within(range.clone());
        let first =
            (blocks.start < blocks.end && !whole.contains(&blocks.start)).then_some(blocks.start);
        let last =
            blocks.clone().next_back().filter(|last| *last > blocks.start && !whole.contains(last));
        first.into_iter().chain(last)
    }

    /// The stretches of `range` that no folio holds.
    pub(crate) fn missing(&self, range: &Range<u64>) -> Vec<Range<u64>> {
        let mut missing = Vec::new();
        for (index, part) in self.parts(range) {
            match self.folios.get(&index) {
                Some(folio) => missing.extend(folio.valid.missing(&part)),
                None => missing.push(part),
            }
        }
        missing
    }

    /// Copies what folios hold of `range` into `to`, and returns the stretches they don't.
    pub(crate) fn read(&self, range: &Range<u64>, to: &mut [u8]) -> Vec<Range<u64>> {
        if range.is_empty() {
            return Vec::new();
        }
        let first = range.start / self.folio_bytes;
        let last = (range.end - 1) / self.folio_bytes;
        self.clean.used(self.folios.range(first..=last).map(|(index, _)| *index));
        for (index, folio) in self.folios.range(first..=last) {
            let base = index * self.folio_bytes;
            for held in folio.valid.iter() {
                let part = held.start.max(range.start)..held.end.min(range.end);
                if part.start < part.end {
                    let from = index_of(part.start - base)..index_of(part.end - base);
                    let into = index_of(part.start - range.start)..index_of(part.end - range.start);
                    to[into].copy_from_slice(&(*folio.bytes).as_ref()[from]);
                }
            }
        }
        self.missing(range)
    }

    /// Writes `data` at `position`, within one folio, which `fresh` is the memory for if it has
    /// none or its bytes are being sealed. What is not dirty yet becomes so if `dirty`; else
    /// (filling in what the server has) only bytes that are not valid yet are taken.
    ///
    /// # Panics
    /// If memory was needed and none was given.
    pub(crate) fn put(
        &mut self,
        position: u64,
        data: &[u8],
        dirty: bool,
        fresh: &mut Option<FolioBytes>,
    ) {
        let (index, positions) = self.folio_at(position);
        let range = position..position + data.len() as u64;
        assert!(range.end <= positions.end, "{range:?} leaves the folio {positions:?}");
        let folio = self.folios.entry(index).or_insert_with(|| {
            Folio::clean(fresh.take().expect("memory for a new folio"), RangeSet::default())
        });
        let wanted = if dirty { vec![range.clone()] } else { folio.valid.missing(&range) };
        let bytes = folio.bytes_mut(|| fresh.take().expect("memory for a copy of a shared folio"));
        for part in &wanted {
            let into = index_of(part.start - positions.start)..index_of(part.end - positions.start);
            let from = index_of(part.start - position)..index_of(part.end - position);
            bytes[into].copy_from_slice(&data[from]);
        }
        folio.valid.insert(range.clone());
        if dirty {
            self.make_dirty(index, range.clone(), self.writes + 1);
            self.dirtied(&range);
        } else if folio.is_clean() {
            self.clean.push(index);
        }
    }

    /// Makes positions of a folio dirty that are valid. `since` is the count of writes with this one.
    fn make_dirty(&mut self, index: u64, range: Range<u64>, since: u64) {
        let group = self.group_for(index);
        let folio = self.folios.get_mut(&index).expect("a folio with valid positions");
        folio.group = group;
        if folio.is_clean() {
            self.clean.remove(iter::once(index));
            self.unclean.insert(index);
        }
        let older = if folio.dirty.is_empty() { u64::MAX } else { folio.dirty_since };
        folio.dirty_since = older.min(since);
        let before = folio.dirty.len();
        folio.dirty.insert(range);
        self.dirty_bytes += folio.dirty.len() - before;
    }

    /// Puts a whole folio of new data in: `len` bytes of `bytes`, from the folio's start.
    pub(crate) fn put_folio(&mut self, index: u64, bytes: FolioBytes, len: u64) {
        let start = index * self.folio_bytes;
        let range = start..start + len;
        let mut valid = RangeSet::default();
        valid.insert(range.clone());
        self.clean.remove(iter::once(index));
        let (mut dirty_since, group) = (self.writes + 1, self.group());
        let handed_out = match self.folios.remove(&index) {
            Some(old) => {
                if !old.dirty.is_empty() {
                    // Whoever waits for what it had gets this instead.
                    dirty_since = old.dirty_since;
                }
                self.dirty_bytes -= old.dirty.len();
                old.handed_out
            }
            None => VecDeque::new(),
        };
        let (bytes, dirty) = (Arc::new(bytes), valid.clone());
        self.dirty_bytes += len;
        let folio = Folio { bytes, valid, dirty, dirty_since, group, handed_out };
        self.folios.insert(index, Box::new(folio));
        self.unclean.insert(index);
        self.dirtied(&range);
    }

    fn dirtied(&mut self, range: &Range<u64>) {
        for block in self.partly_covered(range) {
            if self.geometry.block_start(block) >= self.size {
                self.stored.entry(block).or_insert(Expected::Absent);
            }
        }
        self.changed(&self.geometry.blocks_covering(range.clone()));
        self.size = self.size.max(range.end);
    }

    /// How many folios of `range` have no memory.
    pub(crate) fn n_without_memory(&self, range: &Range<u64>) -> usize {
        let folios = range.start / self.folio_bytes..range.end.div_ceil(self.folio_bytes);
        let n_with = self.folios.range(folios.clone()).count();
        index_of(folios.end - folios.start) - n_with
    }

    /// Whether the bytes of a folio are shared with whoever seals them.
    pub(crate) fn is_shared(&self, folio: u64) -> bool {
        self.folios.get(&folio).is_some_and(|folio| Arc::strong_count(&folio.bytes) > 1)
    }
}

impl Drop for Folios {
    fn drop(&mut self) {
        self.clean.remove(self.folios.keys().copied());
    }
}

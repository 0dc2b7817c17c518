//! A file's folios: what was written and is not evicted yet, and exactly which of it is dirty.
//!
//! **Invariants:**
//! 1. A block with a dirty byte is valid as a whole (up to the file's end): its other bytes were
//!    filled in when it was dirtied, and none of its folios is evicted.
//! 2. Folio bytes that are being sealed do not change: a writer that finds them shared copies.
//! 3. Each time a folio is handed out, its dirty ranges of that run move into a hand-out, and come
//!    back if the run does not reach the server.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Range,
    sync::Arc,
};

use sealback_crypto::{Geometry, Nonce, Sealed};
use sealback_stream::Expected;

use crate::{
    folio::{FolioBytes, FolioPool},
    ranges::{RangeSet, hull, index_of},
    source::{Destinations, DirtyRun, FolioEnd, PartialBlock, PlainSlice, RunContent},
};

#[derive(Debug)]
struct Folio {
    bytes: Arc<FolioBytes>,
    /// Positions in the file that hold what the file holds.
    valid: RangeSet,
    /// Positions in the file that the server does not have; a part of `valid`.
    dirty: RangeSet,
    /// What was dirty in the runs that are under writeback, oldest first.
    handed_out: VecDeque<RangeSet>,
}

impl Folio {
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
    folios: BTreeMap<u64, Folio>,
    /// Folios in the order in which they became clean; some may be dirty again.
    clean: VecDeque<u64>,
    /// The size that the header has.
    committed: u64,
    /// Positions from this one on were never sent to the server.
    sent_to: u64,
    /// Blocks behind the committed size that nobody has written.
    gaps: RangeSet,
    /// Blocks that the server has acknowledged with bytes behind the committed size: their nonces, and
    /// the positions where they end.
    uncommitted: BTreeMap<u64, (Nonce, u64)>,
    /// What is stored for blocks that have folios, as far as it is known.
    stored: BTreeMap<u64, Expected>,
    /// The server's own sealed bytes that the cache lacks, by first block.
    copies: BTreeMap<u64, Sealed>,
    copied_bytes: u64,
    /// Positions that the cache is not to get.
    uncached: RangeSet,
    dirty_bytes: u64,
    /// Counts the writes: a copy of what was stored before one may be stale after it.
    writes: u64,
    /// Fetches under way: bytes fetched before an eviction may be older than what was evicted.
    fetches: Vec<Fetch>,
    n_fetches: u64,
}

/// Blocks that are being fetched.
#[derive(Debug)]
struct Fetch {
    id: u64,
    blocks: Range<u64>,
    stale: bool,
}

impl Folios {
    pub(crate) fn new(
        geometry: Geometry,
        folio_bytes: usize,
        size: u64,
        holes: Range<u64>,
    ) -> Folios {
        Folios {
            geometry,
            folio_bytes: folio_bytes as u64,
            size,
            holes,
            committed: size,
            sent_to: size,
            gaps: RangeSet::default(),
            uncommitted: BTreeMap::new(),
            folios: BTreeMap::new(),
            clean: VecDeque::new(),
            stored: BTreeMap::new(),
            copies: BTreeMap::new(),
            copied_bytes: 0,
            uncached: RangeSet::default(),
            dirty_bytes: 0,
            writes: 0,
            fetches: Vec::new(),
            n_fetches: 0,
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

    /// Notes that blocks are being fetched.
    pub(crate) fn begin_fetch(&mut self, blocks: Range<u64>) -> u64 {
        self.n_fetches += 1;
        self.fetches.push(Fetch { id: self.n_fetches, blocks, stale: false });
        self.n_fetches
    }

    /// Whether what was fetched may be used: nothing of it was evicted meanwhile.
    pub(crate) fn end_fetch(&mut self, id: u64) -> bool {
        let found = self.fetches.iter().position(|fetch| fetch.id == id);
        found.is_some_and(|index| !self.fetches.swap_remove(index).stale)
    }

    fn outdate_fetches(&mut self, blocks: &Range<u64>) {
        for fetch in &mut self.fetches {
            fetch.stale |= fetch.blocks.start < blocks.end && blocks.start < fetch.blocks.end;
        }
    }

    /// Whether a writeback would find something to do.
    pub(crate) fn has_work(&self) -> bool {
        self.dirty_bytes > 0 || !self.copies.is_empty() || self.grows()
    }

    /// Bytes of sealed copies that wait for the cache.
    pub(crate) fn copied_bytes(&self) -> u64 {
        self.copied_bytes
    }

    pub(crate) fn set_uncached(&mut self, positions: Range<u64>) {
        self.uncached.insert(positions);
    }

    /// The folio that holds a position, and the positions it covers.
    pub(crate) fn folio_at(&self, position: u64) -> (u64, Range<u64>) {
        let folio = position / self.folio_bytes;
        (folio, folio * self.folio_bytes..(folio + 1) * self.folio_bytes)
    }

    /// Whether a folio has memory.
    pub(crate) fn has(&self, folio: u64) -> bool {
        self.folios.contains_key(&folio)
    }

    /// Positions of blocks that a write to `range` touches in part, that the server may hold, and
    /// that are not valid yet, or of which it is not known what is stored: they are to be filled
    /// before the write.
    pub(crate) fn to_fill(&self, range: &Range<u64>) -> Vec<Range<u64>> {
        let mut missing = Vec::new();
        for block in self.partly_covered(range) {
            let start = self.geometry.block_start(block);
            let end = (start + self.geometry.block_bytes()).min(self.size);
            let unknown = !self.stored.contains_key(&block);
            if unknown && start < end && !self.missing(&(start..end)).is_empty() {
                missing.push(start..end);
                continue;
            }
            for part in [start..range.start.min(end), range.end.max(start)..end] {
                missing.extend(self.missing(&part));
            }
        }
        missing
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
        let mut at = range.start;
        while at < range.end {
            let (folio, positions) = self.folio_at(at);
            let part = at..positions.end.min(range.end);
            match self.folios.get(&folio) {
                Some(folio) => missing.extend(folio.valid.missing(&part)),
                None => missing.push(part.clone()),
            }
            at = part.end;
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
        let folio = self.folios.entry(index).or_insert_with(|| Folio {
            bytes: Arc::new(fresh.take().expect("memory for a new folio")),
            valid: RangeSet::default(),
            dirty: RangeSet::default(),
            handed_out: VecDeque::new(),
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
            let before = folio.dirty.len();
            folio.dirty.insert(range.clone());
            self.dirty_bytes += folio.dirty.len() - before;
            self.dirtied(&range);
        } else if folio.is_clean() {
            self.clean.push_back(index);
        }
    }

    /// Puts a whole folio of new data in: `len` bytes of `bytes`, from the folio's start.
    pub(crate) fn put_folio(&mut self, index: u64, bytes: FolioBytes, len: u64) {
        let start = index * self.folio_bytes;
        let range = start..start + len;
        let mut valid = RangeSet::default();
        valid.insert(range.clone());
        let handed_out = match self.folios.remove(&index) {
            Some(old) => {
                self.dirty_bytes -= old.dirty.len();
                old.handed_out
            }
            None => VecDeque::new(),
        };
        let dirty = valid.clone();
        self.dirty_bytes += len;
        self.folios.insert(index, Folio { bytes: Arc::new(bytes), valid, dirty, handed_out });
        self.dirtied(&range);
    }

    fn dirtied(&mut self, range: &Range<u64>) {
        for block in self.partly_covered(range) {
            if self.geometry.block_start(block) >= self.size {
                self.stored.entry(block).or_insert(Expected::Absent);
            }
        }
        self.writes += 1;
        self.drop_copies(&self.geometry.blocks_covering(range.clone()));
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

    /// Whether there is something behind the committed size.
    pub(crate) fn grows(&self) -> bool {
        self.size > self.committed
    }

    /// The positions that may be on the server, from the first on (exclusive end).
    pub(crate) fn sent_to(&self) -> u64 {
        self.sent_to
    }

    /// A header of that size, with these holes, counts now.
    pub(crate) fn committed(&mut self, size: u64, holes: &Range<u64>, pool: &FolioPool) {
        self.allow_holes(holes);
        let n_blocks = self.geometry.n_blocks(size);
        self.sent_to = self.sent_to.max(size);
        self.grow_over(size, pool);
        self.committed = size;
        self.gaps.take(&(0..n_blocks));
        self.uncommitted.retain(|_, (_, end)| *end > size);
    }

    /// Makes the file `size` long, if it is shorter, with blocks before `end` that nobody has written:
    /// they are to be made holes before the size is committed.
    pub(crate) fn grow(&mut self, size: u64, end: u64, pool: &FolioPool) {
        if self.size < size {
            let geometry = self.geometry;
            let last = geometry.block_at(self.size);
            // The block that it ended in stays shorter than it should be, unless it is sealed anew.
            let is_short = last < geometry.n_blocks(self.size) && !self.is_dirty(last);
            let first = if is_short { last } else { geometry.n_blocks(self.size) };
            self.allow_holes(&(first..end));
            self.gaps.insert(geometry.n_blocks(self.size)..end);
            self.grow_over(size, pool);
        }
    }

    /// A block that the file has grown into may stay as it is stored: short, or not there at all.
    pub(crate) fn leave_short(&mut self, block: u64) {
        if self.is_dirty(block) {
            return;
        }
        self.allow_holes(&(block..block + 1));
        if self.geometry.block_start(block) >= self.sent_to {
            self.gaps.insert(block..block + 1);
        }
    }

    fn is_dirty(&self, block: u64) -> bool {
        let start = self.geometry.block_start(block);
        let positions = start..start + self.geometry.block_bytes();
        let mut mates = self.folios.range(self.block_mates(start / self.folio_bytes));
        mates.any(|(_, folio)| folio.dirty.intersects(&positions))
    }

    /// The size is at least that now. A block that is dirty is valid as a whole: what is new of the
    /// one that the file ended in is zeros, unless a merge finds something else there.
    fn grow_over(&mut self, size: u64, pool: &FolioPool) {
        if self.size >= size {
            return;
        }
        let block = self.geometry.block_at(self.size);
        let start = self.geometry.block_start(block);
        let rest = self.size..size.min(start + self.geometry.block_bytes());
        self.size = size;
        let mates = self.block_mates(start / self.folio_bytes);
        let is_dirty = self.folios.range(mates).any(|(_, folio)| !folio.is_clean());
        let mut at = rest.start;
        while is_dirty && at < rest.end {
            let (_, positions) = self.folio_at(at);
            let end = positions.end.min(rest.end);
            let zeros = vec![0; index_of(end - at)];
            let mut memory = Some(pool.take_over_budget());
            self.put(at, &zeros, false, &mut memory);
            at = end;
        }
    }

    /// The first blocks that are to be made holes before anything behind the committed size is
    /// written.
    pub(crate) fn first_gap(&self) -> Option<Range<u64>> {
        self.gaps.iter().next().cloned()
    }

    /// They are.
    pub(crate) fn gap_closed(&mut self, blocks: &Range<u64>) {
        self.gaps.take(blocks);
        let end = self.geometry.block_start(blocks.end).min(self.size);
        self.sent_to = self.sent_to.max(end);
    }

    /// The size up to which everything is on the server: all of it, or whole blocks.
    pub(crate) fn clean_to(&self) -> u64 {
        let from = self.committed;
        let gap = self.first_gap().map(|gap| gap.start);
        let dirty = self.folios.range(from / self.folio_bytes..).find_map(|(_, folio)| {
            let sets = folio.handed_out.iter().chain([&folio.dirty]);
            let first = |set: &RangeSet| set.first_within(&(from..u64::MAX));
            sets.filter_map(first).map(|range| self.geometry.block_at(range.start)).min()
        });
        let missing = gap.into_iter().chain(dirty).min();
        missing.map_or(self.size, |block| self.geometry.block_start(block))
    }

    /// Whether the server has acknowledged a block with bytes behind the committed size.
    pub(crate) fn is_uncommitted(&self, block: u64) -> bool {
        self.uncommitted.contains_key(&block)
    }

    /// Blocks that the server has acknowledged with bytes behind the committed size.
    pub(crate) fn uncommitted(&self) -> Vec<(u64, Nonce)> {
        self.uncommitted.iter().map(|(block, (nonce, _))| (*block, *nonce)).collect()
    }

    /// These blocks may be holes from now on.
    pub(crate) fn allow_holes(&mut self, blocks: &Range<u64>) {
        if blocks.start >= blocks.end {
            return;
        }
        self.holes = hull(&self.holes, blocks);
    }

    /// The file ends at `size` now. With nothing under writeback.
    pub(crate) fn cut(&mut self, size: u64) {
        let n_blocks = self.geometry.n_blocks(size);
        self.drop_positions(&(size..u64::MAX));
        self.drop_copies(&(self.geometry.block_at(size)..u64::MAX));
        self.stored.split_off(&n_blocks);
        self.uncommitted.split_off(&n_blocks);
        self.gaps.take(&(n_blocks..u64::MAX));
        self.sent_to = self.sent_to.min(size);
        self.holes.end = self.holes.end.min(n_blocks).max(self.holes.start);
        self.size = size;
        let last = self.geometry.block_at(size);
        if last < n_blocks && size > self.sent_to {
            // What was written to it may all have been cut off.
            self.leave_short(last);
        }
    }

    /// These blocks have become holes. With nothing under writeback.
    pub(crate) fn punched(&mut self, blocks: &Range<u64>) {
        let geometry = self.geometry;
        self.drop_positions(
            &(geometry.block_start(blocks.start)..geometry.block_start(blocks.end)),
        );
        self.drop_copies(blocks);
        self.stored.retain(|block, _| !blocks.contains(block));
    }

    /// Forgets what folios hold of a range, dirty or not.
    fn drop_positions(&mut self, range: &Range<u64>) {
        self.writes += 1;
        self.outdate_fetches(&self.geometry.blocks_covering(range.clone()));
        let touched = range.start / self.folio_bytes..=(range.end - 1) / self.folio_bytes;
        let mut emptied = Vec::new();
        for (index, folio) in self.folios.range_mut(touched) {
            debug_assert!(folio.handed_out.is_empty(), "nothing is under writeback");
            folio.valid.take(range);
            let was_clean = folio.is_clean();
            self.dirty_bytes -= folio.dirty.take(range).len();
            if folio.valid.is_empty() {
                emptied.push(*index);
            } else if folio.is_clean() && !was_clean {
                self.clean.push_back(*index);
            }
        }
        for index in emptied {
            self.folios.remove(&index);
        }
    }

    /// Makes a block, all of which is here, dirty, so that it is sealed anew.
    pub(crate) fn dirty_again(&mut self, block: u64) {
        let start = self.geometry.block_start(block);
        let end = (start + self.geometry.block_bytes()).min(self.size);
        let mut at = start;
        while at < end {
            let (index, positions) = self.folio_at(at);
            let part = at..positions.end.min(end);
            at = part.end;
            let Some(folio) = self.folios.get_mut(&index) else { continue };
            let before = folio.dirty.len();
            folio.dirty.insert(part);
            self.dirty_bytes += folio.dirty.len() - before;
        }
        self.dirtied(&(start..end));
    }

    /// What is known to be stored for a block, for a later partial change to expect.
    pub(crate) fn set_stored(&mut self, block: u64, expected: Expected) {
        self.stored.entry(block).or_insert(expected);
    }

    /// These blocks are on the server now, with these nonces.
    pub(crate) fn note_stored(&mut self, sealed: &Sealed, draft: bool) {
        // A draft is nobody else's, and may be large.
        let committed = if draft { u64::MAX } else { self.committed };
        let sealed_to = self.geometry.block_start(sealed.blocks().start) + sealed.plaintext_len();
        for (block, nonce) in sealed.nonces() {
            let start = self.geometry.block_start(block);
            let end = sealed_to.min(start + self.geometry.block_bytes());
            if end > committed {
                self.uncommitted.insert(block, (nonce, end));
            }
            if self.has(self.folio_at(start).0) {
                self.stored.insert(block, Expected::Nonce(nonce));
            }
        }
    }

    /// Keeps sealed bytes that came from the server for the cache, unless something was written
    /// since `writes` was read.
    pub(crate) fn keep_copy(&mut self, sealed: Sealed, writes: u64) {
        if writes == self.writes && !self.overlaps_copy(&sealed.blocks()) {
            self.copied_bytes += sealed.bytes().len() as u64;
            self.copies.insert(sealed.blocks().start, sealed);
        }
    }

    /// Whether no folio holds anything of these blocks.
    pub(crate) fn holds_nothing_of(&self, blocks: &Range<u64>) -> bool {
        let first = self.geometry.block_start(blocks.start) / self.folio_bytes;
        let last = self.geometry.block_start(blocks.end).saturating_sub(1) / self.folio_bytes;
        self.folios.range(first..=last).next().is_none()
    }

    fn overlaps_copy(&self, blocks: &Range<u64>) -> bool {
        let before = self.copies.range(..blocks.end).next_back();
        before.is_some_and(|(_, copy)| copy.blocks().end > blocks.start)
    }

    /// Forgets what was read from the server: it may be older than what is there.
    pub(crate) fn forget_copies(&mut self) {
        self.writes += 1;
        self.drop_copies(&(0..u64::MAX));
    }

    fn drop_copies(&mut self, blocks: &Range<u64>) {
        while self.overlaps_copy(blocks) {
            let (start, _) = self.copies.range(..blocks.end).next_back().expect("one overlaps");
            let start = *start;
            self.take_copy(start);
        }
    }

    fn take_copy(&mut self, start: u64) -> Option<Sealed> {
        let copy = self.copies.remove(&start)?;
        self.copied_bytes -= copy.bytes().len() as u64;
        Some(copy)
    }

    /// How many blocks the file has that its end does not cut short.
    pub(crate) fn n_full_blocks(&self) -> u64 {
        self.geometry.block_at(self.size)
    }

    /// How many blocks a pass that does not grow the file may take.
    pub(crate) fn n_blocks_without_growth(&self) -> u64 {
        let grows = self.grows();
        if grows {
            self.geometry.block_at(self.committed)
        } else {
            self.geometry.n_blocks(self.size)
        }
    }

    /// Takes the next run of blocks that begins within `within`.
    pub(crate) fn next_run(&mut self, within: Range<u64>, max_blocks: u64) -> Option<DirtyRun> {
        // A gap that has opened since the pass began is closed before anything behind it is sent.
        let behind = self.first_gap().map_or(u64::MAX, |gap| gap.start);
        let end = within.end.min(self.geometry.n_blocks(self.size)).min(behind).max(within.start);
        let within = within.start..end;
        let dirty = self.next_dirty_blocks(within.clone(), max_blocks);
        let copy = self.copies.range(within).next().map(|(start, _)| *start);
        match (dirty, copy) {
            (Some(blocks), copy) if copy.is_none_or(|copy| blocks.start < copy) => {
                Some(self.take_dirty(blocks))
            }
            (_, Some(start)) => {
                let sealed = self.take_copy(start)?;
                let blocks = sealed.blocks();
                let sealed = match blocks.start + max_blocks {
                    limit if limit < blocks.end => {
                        let rest = sealed.slice(limit..blocks.end);
                        self.copied_bytes += rest.bytes().len() as u64;
                        self.copies.insert(limit, rest);
                        sealed.slice(blocks.start..limit)
                    }
                    _ => sealed,
                };
                Some(DirtyRun {
                    blocks: sealed.blocks(),
                    content: RunContent::Sealed(sealed),
                    destinations: Destinations::CACHE,
                    partial: Vec::new(),
                    folios: Vec::new(),
                })
            }
            (_, None) => None,
        }
    }

    /// The first run of blocks with dirty bytes within `within`, that go the same way.
    fn next_dirty_blocks(&self, within: Range<u64>, max_blocks: u64) -> Option<Range<u64>> {
        let geometry = self.geometry;
        let from = geometry.block_start(within.start);
        let mut run: Option<Range<u64>> = None;
        'folios: for (_, folio) in self.folios.range(from / self.folio_bytes..) {
            for dirty in folio.dirty.iter().filter(|dirty| dirty.end > from) {
                let covering = geometry.blocks_covering(dirty.start.max(from)..dirty.end);
                match &mut run {
                    None => run = Some(covering),
                    Some(run) if covering.start <= run.end => run.end = run.end.max(covering.end),
                    Some(_) => break 'folios,
                }
                let run = run.as_mut().expect("set above");
                run.end = run.end.min(within.end).min(run.start.saturating_add(max_blocks));
                if run.end < covering_end(geometry, dirty) || run.end - run.start == max_blocks {
                    break 'folios;
                }
            }
        }
        let mut run = run.filter(|run| run.start < run.end)?;
        let positions = geometry.block_start(run.start)..geometry.block_start(run.end);
        if let Some(uncached) = self.uncached.first_within(&positions) {
            let border =
                if uncached.start <= positions.start { uncached.end } else { uncached.start };
            run.end = run.end.min(geometry.block_at(border).max(run.start + 1));
        }
        Some(run)
    }

    fn take_dirty(&mut self, blocks: Range<u64>) -> DirtyRun {
        let geometry = self.geometry;
        let end = geometry.block_start(blocks.end).min(self.size);
        let positions = geometry.block_start(blocks.start)..end;
        self.sent_to = self.sent_to.max(end);
        let (mut slices, mut ends) = (Vec::new(), Vec::new());
        let mut dirty = RangeSet::default();
        let first = positions.start / self.folio_bytes;
        let last = (positions.end - 1) / self.folio_bytes;
        for index in first..=last {
            let base = index * self.folio_bytes;
            let part = base.max(positions.start)..(base + self.folio_bytes).min(positions.end);
            let folio = self.folios.get_mut(&index).expect("a dirty block is valid as a whole");
            assert!(folio.valid.covers(&part), "a dirty block is valid as a whole: {part:?}");
            let slice = index_of(part.start - base)..index_of(part.end - base);
            slices.push(PlainSlice::new(folio.bytes.clone(), slice));
            let taken = folio.dirty.take(&part);
            if !taken.is_empty() {
                self.dirty_bytes -= taken.len();
                dirty.extend(&taken);
                folio.handed_out.push_back(taken);
                let end = geometry.blocks_covering(part).end.min(blocks.end);
                ends.push(FolioEnd { folio: index, end });
            }
        }
        let uncached = self.uncached.intersects(&positions);
        let destinations = if uncached { Destinations::UPLOAD } else { Destinations::ALL };
        let content = RunContent::Plain(slices);
        let partial = self.partial(&blocks, &dirty);
        DirtyRun { blocks, content, destinations, partial, folios: ends }
    }

    /// The blocks that are not dirty from end to end, and what is expected to be stored there.
    fn partial(&self, blocks: &Range<u64>, dirty: &RangeSet) -> Vec<PartialBlock> {
        let geometry = self.geometry;
        let positions = geometry.block_start(blocks.start)..geometry.block_start(blocks.end);
        let mut partial: Vec<PartialBlock> = Vec::new();
        for gap in dirty.missing(&positions) {
            for block in geometry.blocks_covering(gap) {
                if partial.last().is_none_or(|last| last.block < block) {
                    let start = geometry.block_start(block);
                    let dirty = dirty.within(&(start..start + geometry.block_bytes()));
                    // Known since it was first dirtied; a wrong guess would be a conflict, no more.
                    let expected = self.stored.get(&block).copied().unwrap_or(Expected::Absent);
                    partial.push(PartialBlock { block, expected, dirty });
                }
            }
        }
        partial
    }

    /// A block is stored with somebody else's changes in it, too: what is not dirty of it here
    /// becomes that. `pool` gives the memory to copy a folio that is being sealed.
    pub(crate) fn merged(&mut self, block: u64, plain: &[u8], pool: &FolioPool) {
        let start = self.geometry.block_start(block);
        let range = start..(start + plain.len() as u64).min(self.size).max(start);
        let mut at = range.start;
        while at < range.end {
            let (index, positions) = self.folio_at(at);
            let part = at..positions.end.min(range.end);
            at = part.end;
            let Some(folio) = self.folios.get_mut(&index) else { continue };
            let stale = folio.dirty.missing(&part);
            let bytes = folio.bytes_mut(|| pool.take_over_budget());
            for stale in &stale {
                let into = index_of(stale.start - positions.start);
                let from = index_of(stale.start - start)..index_of(stale.end - start);
                bytes[into..into + from.len()].copy_from_slice(&plain[from]);
            }
            stale.into_iter().for_each(|stale| folio.valid.insert(stale));
        }
    }

    /// A folio's oldest hand-out has ended. Returns whether the folio is clean now.
    pub(crate) fn end_writeback(&mut self, index: u64, clean: bool) -> bool {
        let Some(folio) = self.folios.get_mut(&index) else { return false };
        let handed_out = folio.handed_out.pop_front().expect("a folio ends as often as it began");
        if !clean {
            let before = folio.dirty.len();
            folio.dirty.extend(&handed_out);
            self.dirty_bytes += folio.dirty.len() - before;
        }
        let is_clean = folio.is_clean();
        if is_clean {
            self.clean.push_back(index);
        }
        is_clean
    }

    /// Gives up the memory of the folio that has been clean for longest, with that of all others of
    /// its blocks. Returns whether there was one.
    pub(crate) fn evict(&mut self) -> bool {
        for _ in 0..self.clean.len() {
            let Some(index) = self.clean.pop_front() else { break };
            let group = self.block_mates(index);
            match self.folios.get(&index) {
                Some(folio) if folio.is_clean() => {}
                _ => continue,
            }
            if self.folios.range(group.clone()).any(|(_, folio)| !folio.is_clean()) {
                self.clean.push_back(index);
                continue;
            }
            let start = group.start * self.folio_bytes;
            let blocks = self.geometry.blocks_covering(start..group.end * self.folio_bytes);
            for folio in group {
                self.folios.remove(&folio);
            }
            self.outdate_fetches(&blocks);
            for block in blocks {
                self.stored.remove(&block);
            }
            return true;
        }
        false
    }

    /// The folios that lie in the same block as one: what is known to be stored for the block goes
    /// for all of them.
    fn block_mates(&self, index: u64) -> Range<u64> {
        let per_block = (self.geometry.block_bytes() / self.folio_bytes).max(1);
        let first = index / per_block * per_block;
        first..first + per_block
    }
}

fn covering_end(geometry: Geometry, dirty: &Range<u64>) -> u64 {
    geometry.blocks_covering(dirty.clone()).end
}

//! How far a file reaches: its size, what of it is committed, sent, and a gap; cutting and punching.

use std::{collections::BTreeMap, ops::Range};

use sealback_crypto::Plaintext;
use sealback_stream::Expected;

use super::Folios;
use crate::{
    folio::FolioPool,
    ranges::{RangeSet, hull, index_of},
};

impl Folios {
    /// Whether something was written that is not on the server, or that no header speaks for.
    pub(crate) fn is_unwritten(&self) -> bool {
        self.grows() || !self.unclean.is_empty()
    }

    /// Drops what is not on the server: the file is as the committed header has it. With nothing under
    /// writeback.
    pub(crate) fn discard(&mut self) {
        self.doubt_uncommitted();
        self.cut(self.size.min(self.committed));
        let dirty: Vec<u64> = self.folios.keys().copied().collect();
        for folio in dirty {
            self.drop_positions(&(folio * self.folio_bytes..(folio + 1) * self.folio_bytes));
        }
        self.stored.clear();
    }

    /// Whether there is something behind the committed size.
    pub(crate) fn grows(&self) -> bool {
        self.size > self.committed
    }

    /// Blocks that the file has grown over since they were stored, and how long they were then: as
    /// long as nobody seals them anew they are no longer than that.
    pub(crate) fn grown_blocks(&self) -> Vec<(u64, u64)> {
        let start = |block| self.geometry.block_start(block);
        let committed = self.geometry.block_at(self.committed);
        let at_commit = (committed, self.committed - start(committed));
        let uncommitted = self.uncommitted.iter();
        let sent = uncommitted.map(|(block, (_, end))| (*block, end - start(*block)));
        let at_commit = Some(at_commit).filter(|(block, _)| !self.is_uncommitted(*block));
        let grown = |(block, len): &(u64, u64)| {
            *len > 0 && *len < self.geometry.block_bytes() && start(*block) + len < self.size
        };
        at_commit.into_iter().chain(sent).filter(grown).collect()
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
        if self.uncommitted.is_empty() {
            // An emptied map keeps its memory.
            self.uncommitted = BTreeMap::new();
        }
        self.unsynced.take(&(0..size));
        self.shared = self.shared.split_off(&self.geometry.block_at(size));
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

    /// Makes the file `position` long, if it is shorter, for data that is put there next: until then the
    /// block that this lies in is neither a hole nor dirty, and no size within it is to be committed.
    pub(crate) fn grow_unsettled(&mut self, position: u64, pool: &FolioPool) {
        if self.size < position {
            let block = self.geometry.block_at(position);
            self.settled = Some(self.size.max(self.geometry.block_start(block)));
            self.grow(position, block, pool);
        }
    }

    /// The data is there, or the block stays as it is.
    pub(crate) fn settle(&mut self) {
        self.settled = None;
    }

    /// The size that a sync may commit.
    pub(crate) fn settled_size(&self) -> u64 {
        self.settled.unwrap_or(self.size)
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
    pub(super) fn grow_over(&mut self, size: u64, pool: &FolioPool) {
        if self.size >= size {
            return;
        }
        let block = self.geometry.block_at(self.size);
        let start = self.geometry.block_start(block);
        let rest = self.size..size.min(start + self.geometry.block_bytes());
        self.size = size;
        let mates = self.block_mates(start / self.folio_bytes);
        if self.unclean(mates).next().is_some() {
            self.fill_with_zeros(rest, pool);
        }
    }

    /// Makes zeros of what folios do not hold of a range.
    fn fill_with_zeros(&mut self, range: Range<u64>, pool: &FolioPool) {
        for (_, part) in self.parts(&range) {
            let zeros = vec![0; index_of(part.end - part.start)];
            self.put(part.start, &zeros, false, &mut Some(pool.take_over_budget()));
        }
    }

    /// Somebody else has cut the file, and it is `size` long now. What was written here behind that
    /// and is not committed is dirty behind the new end, and the file as long as it was made here; what
    /// is clean is forgotten. Returns whether all of it was still here. With nothing under writeback.
    pub(crate) fn cut_elsewhere(&mut self, size: u64, pool: &FolioPool) -> bool {
        let all = self.redirty_unsynced();
        self.unsynced = RangeSet::default();
        self.doubt_uncommitted();
        let (kept, groups) = (self.dirty_behind(size), self.groups_grown());
        let grown = (self.size > self.committed).then_some(self.size);
        if size < self.size {
            self.cut(size);
        }
        let n_blocks = self.geometry.n_blocks(size);
        for Kept { start, bytes, group } in kept {
            let block = self.geometry.block_at(start);
            self.grow(start, block, pool);
            let fresh = self.geometry.block_start(block).max(size);
            self.fill_with_zeros(fresh..start.max(fresh), pool);
            self.put(start, &bytes, true, &mut Some(pool.take_over_budget()));
            self.regroup(start / self.folio_bytes, group);
            for block in self.geometry.blocks_covering(start..start + bytes.len() as u64) {
                if block >= n_blocks {
                    self.set_stored(block, Expected::Absent);
                }
            }
        }
        if let Some(grown) = grown {
            self.grow(grown, self.geometry.n_blocks(grown), pool);
        }
        self.grow_groups(groups);
        self.evict_all();
        all
    }

    /// Makes dirty again what is on the server and in no header yet, as far as it is here. Returns
    /// whether all of it was; of the rest it is still known that no header speaks for it.
    pub(crate) fn redirty_unsynced(&mut self) -> bool {
        let unsynced = std::mem::take(&mut self.unsynced);
        for range in unsynced.iter() {
            for block in self.geometry.blocks_covering(range.clone()) {
                let start = self.geometry.block_start(block);
                let end = (start + self.geometry.block_bytes()).min(self.size);
                let part = range.start.max(start)..range.end.min(end);
                // One that is here in part only cannot be sealed.
                if self.missing(&(start..end)).is_empty() {
                    self.redirty(&part);
                } else {
                    self.unsynced.insert(part);
                }
            }
        }
        self.unsynced.is_empty()
    }

    /// Makes positions dirty that are here.
    pub(super) fn redirty(&mut self, range: &Range<u64>) {
        // A copy that waits for the cache would be taken in its place.
        self.changed(&self.geometry.blocks_covering(range.clone()));
        for (index, part) in self.parts(range) {
            if self.has(index) {
                // It was written before the pass that finds it so.
                self.make_dirty(index, part, 0);
                self.regroup(index, self.oldest_group());
            }
        }
    }

    /// What is dirty behind `size`.
    fn dirty_behind(&self, size: u64) -> Vec<Kept> {
        let mut kept = Vec::new();
        for (index, folio) in self.unclean(size / self.folio_bytes..) {
            let base = index * self.folio_bytes;
            for part in folio.dirty.within(&(base.max(size)..base + self.folio_bytes)) {
                let from = index_of(part.start - base)..index_of(part.end - base);
                let bytes = Plaintext::from(&(*folio.bytes).as_ref()[from]);
                kept.push(Kept { start: part.start, bytes, group: folio.group });
            }
        }
        kept
    }

    /// The first blocks that are to be made holes before anything behind the committed size is
    /// written.
    pub(crate) fn first_gap(&self) -> Option<Range<u64>> {
        self.gaps.iter().next().cloned()
    }

    /// They are.
    pub(crate) fn gap_closed(&mut self, blocks: &Range<u64>) {
        self.gaps.take(blocks);
        let (start, end) =
            (self.geometry.block_start(blocks.start), self.geometry.block_start(blocks.end));
        self.sent(start..end.min(self.size));
    }

    /// Positions, from a block's start on, are on their way to the server. Blocks before them that are
    /// here and were never sent are not stored.
    pub(super) fn sent(&mut self, positions: Range<u64>) {
        let unsent = self.geometry.n_blocks(self.sent_to)..self.geometry.block_at(positions.start);
        if !unsent.is_empty() {
            let start = self.geometry.block_start(unsent.start) / self.folio_bytes;
            let end = self.geometry.block_start(unsent.end).div_ceil(self.folio_bytes);
            let here: Vec<u64> = self.folios.range(start..end).map(|(index, _)| *index).collect();
            for folio in here {
                let positions = folio * self.folio_bytes..(folio + 1) * self.folio_bytes;
                let blocks = self.geometry.blocks_covering(positions);
                for block in blocks.start.max(unsent.start)..blocks.end.min(unsent.end) {
                    self.set_stored(block, Expected::Absent);
                }
            }
        }
        self.sent_to = self.sent_to.max(positions.end);
    }

    /// The size up to which everything is on the server: all of it, or whole blocks.
    pub(crate) fn clean_to(&self) -> u64 {
        // A block that is dirty before the committed size is stored no longer than to there.
        let from = self.geometry.block_start(self.geometry.block_at(self.committed));
        let gap = self.first_gap().map(|gap| gap.start);
        let dirty = self.unclean(from / self.folio_bytes..).find_map(|(_, folio)| {
            let sets = folio.handed_out.iter().chain([&folio.dirty]);
            let first = |set: &RangeSet| set.first_within(&(from..u64::MAX));
            sets.filter_map(first).map(|range| self.geometry.block_at(range.start)).min()
        });
        let missing = gap.into_iter().chain(dirty).min();
        let there = missing.map_or(self.size, |block| self.geometry.block_start(block));
        there.min(self.settled_size())
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
        self.stored.split_off(&n_blocks);
        // What was sent behind the end is cut off there, too.
        self.uncommitted.retain(|_, (_, end)| *end <= size);
        self.gaps.take(&(n_blocks..u64::MAX));
        self.cut_groups(size);
        let last = self.geometry.block_at(size);
        if last < n_blocks && self.geometry.block_start(last) >= self.sent_to {
            // It may have been dirty from end to end, and is no more.
            self.stored.entry(last).or_insert(Expected::Absent);
        }
        self.sent_to = self.sent_to.min(size);
        self.holes.end = self.holes.end.min(n_blocks).max(self.holes.start);
        self.size = size;
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
        self.stored.retain(|block, _| !blocks.contains(block));
    }

    /// Forgets what folios hold of a range, dirty or not.
    fn drop_positions(&mut self, range: &Range<u64>) {
        let blocks = self.geometry.blocks_covering(range.clone());
        self.changed(&blocks);
        self.outdate_fetches(&blocks);
        self.unsynced.take(range);
        let touched = range.start / self.folio_bytes..=(range.end - 1) / self.folio_bytes;
        let (mut emptied, mut cleaned) = (Vec::new(), Vec::new());
        for (index, folio) in self.folios.range_mut(touched) {
            debug_assert!(folio.handed_out.is_empty(), "nothing is under writeback");
            folio.valid.take(range);
            let was_clean = folio.is_clean();
            self.dirty_bytes -= folio.dirty.take(range).len();
            if folio.valid.is_empty() {
                emptied.push(*index);
            }
            if folio.is_clean() && !was_clean {
                cleaned.push(*index);
            }
        }
        self.forget_folios(&emptied);
        cleaned.into_iter().for_each(|index| self.became_clean(index));
    }
}

/// Bytes that were written here, their first position, and their write group. Within one folio.
struct Kept {
    start: u64,
    bytes: Plaintext,
    group: u64,
}

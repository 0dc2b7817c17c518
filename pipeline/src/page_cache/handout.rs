//! What a pass takes: runs of dirty blocks, and sealed copies for the cache; and how it comes back.

use std::{collections::VecDeque, ops::Range};

use sealback_crypto::Geometry;
use sealback_stream::{BlockConflict, Expected};

use super::{Folio, Folios};
use crate::{
    folio::FolioPool,
    pass::blocks_put_together,
    ranges::{RangeSet, index_of},
    source::{Destinations, DirtyRun, FolioEnd, PartialBlock, PlainSlice, RunContent},
};

/// Folios that are looked at for each block that may be fetched ahead.
const LOOK_AHEAD: usize = 4;

/// Which dirty folios a pass takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Takes {
    /// Those that have been dirty since the count of writes was this, or longer.
    pub(crate) since: u64,
    /// Those of this write group and of older ones.
    pub(crate) group: u64,
}

impl Takes {
    fn takes(self, folio: &Folio) -> bool {
        folio.dirty_since <= self.since && folio.group <= self.group
    }
}

/// What comes next of what is dirty.
#[derive(Debug)]
pub(crate) enum NextRun {
    /// It is under writeback now.
    Run(DirtyRun),
    /// Something of this block has to be fetched first.
    Lacking(u64),
    /// Nothing.
    End,
}

impl Folios {
    /// How many blocks the file has that its end does not cut short, nor a chunk that they would be in.
    pub(crate) fn n_full_blocks(&self) -> u64 {
        let n_full = self.geometry.block_at(self.size);
        n_full - n_full % blocks_put_together(self.geometry)
    }

    /// Whether anything but the last block, or chunk, if that is not full, is to be written.
    pub(crate) fn has_full_blocks_to_write(&self) -> bool {
        let n_full = self.n_full_blocks();
        let end = self.geometry.block_start(n_full);
        let mut dirty = self.unclean(..).flat_map(|(_, folio)| folio.dirty.iter());
        let first = dirty.next().is_some_and(|dirty| dirty.start < end);
        first || self.copies.first_within(0..n_full).is_some()
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
    pub(crate) fn next_run(
        &mut self,
        within: Range<u64>,
        max_blocks: u64,
        takes: Takes,
    ) -> NextRun {
        let within = self.sendable(within);
        let dirty = self.next_dirty_blocks(within.clone(), max_blocks, takes);
        let copy = self.copies.first_within(within);
        match (dirty, copy) {
            (Some(blocks), copy) if copy.is_none_or(|copy| blocks.start < copy) => {
                let ready = blocks.clone().find(|block| !self.is_ready(*block));
                match ready {
                    Some(lacking) if lacking == blocks.start => NextRun::Lacking(lacking),
                    Some(lacking) => NextRun::Run(self.take_dirty(blocks.start..lacking)),
                    None => NextRun::Run(self.take_dirty(blocks)),
                }
            }
            (dirty, Some(start)) => {
                debug_assert!(dirty.is_none_or(|dirty| dirty.start > start), "copied and dirty");
                NextRun::Run(self.take_copy(start, max_blocks))
            }
            (_, None) => NextRun::End,
        }
    }

    /// The part of `within` that may be sent: a gap that has opened since the pass began is closed
    /// before anything behind it is.
    fn sendable(&self, within: Range<u64>) -> Range<u64> {
        let behind = self.first_gap().map_or(u64::MAX, |gap| gap.start);
        let end = within.end.min(self.geometry.n_blocks(self.size)).min(behind).max(within.start);
        within.start..end
    }

    /// The first block that [`next_run`](Folios::next_run) would take, or have filled.
    pub(crate) fn first_dirty(&self, within: &Range<u64>, takes: Takes) -> Option<u64> {
        let within = self.sendable(within.clone());
        self.next_dirty_blocks(within, 1, takes).map(|block| block.start)
    }

    /// Whether a dirty block can be sealed as it is: it is dirty from end to end, or all of it is
    /// here, and what is to be expected of the server is known.
    fn is_ready(&self, block: u64) -> bool {
        let start = self.geometry.block_start(block);
        let end = start + self.geometry.block_bytes();
        self.is_dirty_throughout(&(start..end))
            || self.missing(&(start..end.min(self.size))).is_empty()
                && self.stored.contains_key(&block)
    }

    /// The first `max` dirty blocks of `within` that something has to be fetched for. Looks no
    /// further than at a few folios.
    pub(crate) fn lacking(&self, within: Range<u64>, max: usize, takes: Takes) -> Vec<u64> {
        let geometry = self.geometry;
        let from = geometry.block_start(within.start);
        let folios = self.unclean(from / self.folio_bytes..).take(max * LOOK_AHEAD);
        let old = folios.filter(|(_, folio)| takes.takes(folio));
        let dirty = old.flat_map(|(_, folio)| folio.dirty.iter());
        let mut lacking: Vec<u64> = Vec::new();
        for dirty in dirty.filter(|dirty| dirty.end > from) {
            for block in geometry.blocks_covering(dirty.start.max(from)..dirty.end) {
                if block >= within.end || lacking.len() == max {
                    return lacking;
                }
                if lacking.last() != Some(&block) && !self.is_ready(block) {
                    lacking.push(block);
                }
            }
        }
        lacking
    }

    /// The first run of blocks with dirty bytes within `within`, that go the same way.
    fn next_dirty_blocks(
        &self,
        within: Range<u64>,
        max_blocks: u64,
        takes: Takes,
    ) -> Option<Range<u64>> {
        let geometry = self.geometry;
        let from = geometry.block_start(within.start);
        let mut run: Option<Range<u64>> = None;
        let folios = self.unclean(from / self.folio_bytes..);
        'folios: for (_, folio) in folios.filter(|(_, folio)| takes.takes(folio)) {
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
        self.sent(positions.clone());
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
        let destinations = if uncached { Destinations::SERVERS } else { Destinations::ALL };
        let content = RunContent::Plain(slices);
        let partial = self.partial(&blocks, &dirty);
        DirtyRun { blocks, content, destinations, partial, folios: ends }
    }

    /// The blocks that are not dirty from end to end, and what is expected to be stored there; where
    /// lost updates are told of, the others, too, with nothing to be merged.
    fn partial(&self, blocks: &Range<u64>, dirty: &RangeSet) -> Vec<PartialBlock> {
        let geometry = self.geometry;
        let mut partial = Vec::new();
        for block in blocks.clone() {
            let start = geometry.block_start(block);
            let positions = start..start + geometry.block_bytes();
            let is_whole = dirty.covers(&positions);
            if !is_whole || self.is_told_of(block) {
                let dirty = if is_whole { Vec::new() } else { dirty.within(&positions) };
                // Known since it was first dirtied; a wrong guess would be a conflict, no more.
                let expected = self.stored.get(&block).copied().unwrap_or(Expected::Absent);
                partial.push(PartialBlock { block, expected, dirty });
            }
        }
        partial
    }

    /// A block is stored with somebody else's changes in it, too: what is not dirty of it here
    /// becomes that. `pool` gives the memory to copy a folio that is being sealed.
    pub(crate) fn merged(&mut self, block: u64, plain: &[u8], pool: &FolioPool) {
        let start = self.geometry.block_start(block);
        let end = start + plain.len() as u64;
        if end > self.size {
            self.longer.insert(block);
        }
        let range = start..end.min(self.size).max(start);
        for (index, part) in self.parts(&range) {
            let base = index * self.folio_bytes;
            let Some(folio) = self.folios.get_mut(&index) else { continue };
            let stale = folio.dirty.missing(&part);
            let bytes = folio.bytes_mut(|| pool.take_over_budget());
            for stale in &stale {
                let into = index_of(stale.start - base);
                let from = index_of(stale.start - start)..index_of(stale.end - start);
                bytes[into..into + from.len()].copy_from_slice(&plain[from]);
            }
            stale.into_iter().for_each(|stale| folio.valid.insert(stale));
        }
    }

    /// Sets whether whole blocks are overwritten only if nobody else has changed them.
    pub(crate) fn tell_lost_updates(&mut self, tells: bool) {
        self.tells_lost_updates = tells;
    }

    /// Whether any block may have to be told of.
    pub(crate) fn tells_lost_updates(&self) -> bool {
        self.tells_lost_updates
    }

    /// Whether somebody else's change of a block that is overwritten as a whole is told of. What lies
    /// behind the committed size is nobody's.
    pub(super) fn is_told_of(&self, block: u64) -> bool {
        self.tells_lost_updates && block < self.geometry.block_at(self.committed)
    }

    /// A block that is dirty as a whole goes over what a conflict says is stored there. One that is
    /// not is merged.
    pub(crate) fn overwrite(&mut self, conflict: &BlockConflict) {
        let start = self.geometry.block_start(conflict.block);
        if self.is_dirty_throughout(&(start..start + self.geometry.block_bytes())) {
            let expected = Expected::of(conflict.stored);
            self.stored.insert(conflict.block, expected);
        }
    }

    pub(super) fn is_dirty_throughout(&self, range: &Range<u64>) -> bool {
        self.parts(range).all(|(index, part)| {
            self.folios.get(&index).is_some_and(|folio| folio.dirty.covers(&part))
        })
    }

    /// What was written to a block here is dropped: it is what is stored. With nothing under
    /// writeback.
    pub(crate) fn take_over(
        &mut self,
        block: u64,
        plain: &[u8],
        stored: Expected,
        pool: &FolioPool,
    ) {
        let start = self.geometry.block_start(block);
        let range = start..start + plain.len() as u64;
        let touched = range.start / self.folio_bytes..=(range.end - 1) / self.folio_bytes;
        let mut cleaned = Vec::new();
        for (index, folio) in self.folios.range_mut(touched) {
            let was_clean = folio.is_clean();
            self.dirty_bytes -= folio.dirty.take(&range).len();
            if folio.is_clean() && !was_clean {
                cleaned.push(*index);
            }
        }
        cleaned.into_iter().for_each(|index| self.became_clean(index));
        self.merged(block, plain, pool);
        self.expect(block, stored);
        self.changed(&(block..block + 1));
    }

    /// A folio's oldest hand-out has ended. Returns whether the folio is clean now.
    pub(crate) fn end_writeback(&mut self, index: u64, clean: bool) -> bool {
        let Some(folio) = self.folios.get_mut(&index) else { return false };
        let handed_out = folio.handed_out.pop_front().expect("a folio ends as often as it began");
        if clean {
            self.unsynced.extend(&handed_out);
        } else {
            let before = folio.dirty.len();
            folio.dirty.extend(&handed_out);
            folio.dirty_since = 0;
            self.dirty_bytes += folio.dirty.len() - before;
        }
        let is_clean = folio.is_clean();
        if is_clean {
            // Emptied sets keep their memory, and there may be many clean folios.
            (folio.dirty, folio.handed_out) = (RangeSet::default(), VecDeque::new());
            self.became_clean(index);
        }
        is_clean
    }
}

fn covering_end(geometry: Geometry, dirty: &Range<u64>) -> u64 {
    geometry.blocks_covering(dirty.clone()).end
}

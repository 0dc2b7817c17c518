//! The server's own sealed bytes that the cache lacks: kept until a pass has taken them there.
//!
//! What a read fetched is opened in place beside its ciphertext, so a copy costs nothing but the memory
//! that it holds on to. That is bounded for all files of an engine together, from the read to the end of
//! the pass; what finds no room is not copied.
//!
//! **Invariants:**
//! 1. No block is in two copies. Where two reads found different blocks, neither is kept.
//! 2. What is written, cut off, or known to be another by now is not among those that wait.

use std::{collections::BTreeMap, ops::Range};

use sealback_crypto::{Nonce, Sealed};
use sealback_stream::Expected;

use super::Folios;
use crate::{
    ranges::RangeSet,
    source::{Destinations, DirtyRun, RunContent},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// How many bytes all copies may hold on to.
#[derive(Debug)]
pub(crate) struct CopyBudget {
    max_bytes: u64,
    // A number only: it publishes nothing.
    bytes: AtomicU64,
}

impl CopyBudget {
    pub(crate) fn new(max_bytes: u64) -> Arc<CopyBudget> {
        Arc::new(CopyBudget { max_bytes, bytes: AtomicU64::new(0) })
    }

    /// Whether so much waits that a pass is to take it to the caches.
    pub(crate) fn is_half_full(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) > self.max_bytes / 2
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: u64) -> bool {
        let with = |taken: u64| taken.checked_add(bytes).filter(|sum| *sum <= self.max_bytes);
        self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, with).is_ok()
    }

    pub(crate) fn max_bytes(&self) -> u64 {
        self.max_bytes
    }

    /// Whether as much more would find room now.
    pub(crate) fn has_room(&self, bytes: u64) -> bool {
        self.bytes().saturating_add(bytes) <= self.max_bytes
    }

    fn give_back(&self, bytes: u64) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// One file's copies.
#[derive(Debug)]
pub(crate) struct Copies {
    budget: Arc<CopyBudget>,
    /// By first block.
    waiting: BTreeMap<u64, Sealed>,
    /// With the pass that runs, by first block.
    under_way: BTreeMap<u64, Sealed>,
}

impl Copies {
    pub(crate) fn new(budget: Arc<CopyBudget>) -> Copies {
        Copies { budget, waiting: BTreeMap::new(), under_way: BTreeMap::new() }
    }

    /// Whether some wait.
    pub(super) fn are_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Keeps a copy, if there is none of its blocks and there is room.
    fn keep(&mut self, copy: Sealed) -> bool {
        let blocks = copy.blocks();
        let is_new = [&self.waiting, &self.under_way]
            .iter()
            .all(|copies| overlapping(copies, &blocks).next().is_none());
        let keeps = is_new && self.budget.take(copy.bytes().len() as u64);
        if keeps {
            self.waiting.insert(blocks.start, copy);
        }
        keeps
    }

    /// Whether there is one of a block.
    fn have(&self, block: u64) -> bool {
        let blocks = block..block + 1;
        let copies = [&self.waiting, &self.under_way];
        copies.iter().any(|copies| overlapping(copies, &blocks).next().is_some())
    }

    /// What the copies have of some blocks.
    pub(super) fn within(&self, blocks: &Range<u64>) -> Vec<(u64, Nonce)> {
        let copies = overlapping(&self.waiting, blocks).chain(overlapping(&self.under_way, blocks));
        copies.flat_map(Sealed::nonces).filter(|(block, _)| blocks.contains(block)).collect()
    }

    /// Forgets those that wait and have any of these blocks.
    pub(super) fn drop_waiting(&mut self, blocks: &Range<u64>) {
        while let Some((start, copy)) = self.waiting.range(..blocks.end).next_back()
            && copy.blocks().end > blocks.start
        {
            let start = *start;
            let copy = self.waiting.remove(&start).expect("found just now");
            self.budget.give_back(copy.bytes().len() as u64);
        }
    }

    /// Where the first one begins that begins within a range.
    pub(super) fn first_within(&self, within: Range<u64>) -> Option<u64> {
        self.waiting.range(within).next().map(|(start, _)| *start)
    }

    /// Takes at most `max_blocks` of the one that begins there, for a pass.
    fn take(&mut self, start: u64, max_blocks: u64) -> Sealed {
        let copy = self.waiting.remove(&start).expect("looked at just now");
        let blocks = copy.blocks();
        let limit = blocks.end.min(blocks.start.saturating_add(max_blocks));
        let taken = copy.slice(blocks.start..limit);
        if limit < blocks.end {
            let rest = copy.slice(limit..blocks.end);
            // Two parts have the bytes of the whole.
            self.waiting.insert(limit, rest);
        }
        self.under_way.insert(blocks.start, taken.clone());
        taken
    }

    /// One that a pass took is in the cache, or is not going to be.
    fn arrived(&mut self, blocks: &Range<u64>) {
        if let Some(copy) = self.under_way.remove(&blocks.start) {
            debug_assert_eq!(copy.blocks(), *blocks, "a pass has them as it took them");
            self.budget.give_back(copy.bytes().len() as u64);
        }
    }

    /// The pass has ended: what it took is in the cache, or is not going to be.
    fn pass_ended(&mut self) {
        let under_way = std::mem::take(&mut self.under_way);
        let bytes = under_way.values().map(|copy| copy.bytes().len() as u64).sum();
        self.budget.give_back(bytes);
    }
}

/// The copies that have any of some blocks; they are disjoint.
fn overlapping<'a>(
    copies: &'a BTreeMap<u64, Sealed>,
    blocks: &Range<u64>,
) -> impl Iterator<Item = &'a Sealed> + use<'a> {
    let start = blocks.start;
    let before = copies.range(..blocks.end).rev().map(|(_, copy)| copy);
    before.take_while(move |copy| copy.blocks().end > start)
}

impl Drop for Copies {
    fn drop(&mut self) {
        self.drop_waiting(&(0..u64::MAX));
        self.pass_ended();
    }
}

impl Folios {
    /// Whether something that is known here says that the server has other blocks than these, which were
    /// read from it and not written from here since: somebody else has written them.
    pub(crate) fn contradicts(&self, came: &Sealed) -> bool {
        let blocks = came.blocks();
        let known = self.stored.range(blocks.clone()).filter_map(|(block, known)| match known {
            Expected::Nonce(nonce) if *known != Expected::UNKNOWN => Some((*block, *nonce)),
            Expected::Nonce(_) | Expected::Absent => None,
        });
        let mut seen = self.copies.within(&blocks).into_iter().chain(known);
        seen.any(|(block, nonce)| came.nonce(block) != nonce)
    }

    /// Whether there is no copy of a block, and nothing of it is dirty or being written.
    pub(crate) fn may_copy(&self, block: u64) -> bool {
        let start = self.geometry.block_start(block);
        !self.copies.have(block)
            && !self.is_dirty_within(&(start..start + self.geometry.block_bytes()))
    }

    /// Those of a granule's blocks that the cache may get as the server has them: clean, committed, and
    /// not on their way. None if the cache is not to get all of the granule.
    pub(crate) fn neighbours_within(&self, blocks: &Range<u64>) -> Vec<Range<u64>> {
        let geometry = self.geometry;
        let stored = self.n_blocks_without_growth().min(geometry.n_blocks(self.sent_to));
        let blocks = blocks.start..blocks.end.min(stored).max(blocks.start);
        let positions = geometry.block_start(blocks.start)..geometry.block_start(blocks.end);
        if self.uncached.intersects(&positions) {
            return Vec::new();
        }
        let mut neighbours = RangeSet::default();
        let clean = blocks.filter(|block| self.may_copy(*block));
        clean.for_each(|block| neighbours.insert(block..block + 1));
        neighbours.iter().cloned().collect()
    }

    /// Keeps sealed bytes that came from the server for the cache. Returns whether it does.
    pub(crate) fn keep_copy(&mut self, copy: Sealed) -> bool {
        self.copies.keep(copy)
    }

    /// Forgets the copies of some blocks that wait.
    pub(crate) fn drop_copies(&mut self, blocks: &Range<u64>) {
        self.copies.drop_waiting(blocks);
    }

    /// Whether some wait.
    pub(crate) fn has_copies(&self) -> bool {
        self.copies.are_waiting()
    }

    /// Forgets what was read from the server: it may be older than what is there.
    pub(crate) fn forget_copies(&mut self) {
        self.changed(&(0..u64::MAX));
    }

    /// A pass has had the cache's record set for blocks of its: the copy has arrived, if they are one.
    pub(crate) fn arrived(&mut self, blocks: &Range<u64>) {
        self.copies.arrived(blocks);
    }

    /// The pass that took copies has ended.
    pub(crate) fn copied(&mut self) {
        self.copies.pass_ended();
    }

    /// Takes the next copy that begins within a range.
    pub(crate) fn next_copy(&mut self, within: Range<u64>, max_blocks: u64) -> Option<DirtyRun> {
        let start = self.copies.first_within(within)?;
        Some(self.take_copy(start, max_blocks))
    }

    pub(super) fn take_copy(&mut self, start: u64, max_blocks: u64) -> DirtyRun {
        let sealed = self.copies.take(start, max_blocks);
        DirtyRun {
            blocks: sealed.blocks(),
            content: RunContent::Sealed(sealed),
            destinations: Destinations::CACHE,
            partial: Vec::new(),
            folios: Vec::new(),
        }
    }
}

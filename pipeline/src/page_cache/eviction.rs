//! Giving up clean folios: those of a block go together.

use std::ops::Range;

use super::Folios;

impl Folios {
    /// Gives up the memory of a folio, with that of all others of its blocks, if they are clean.
    /// Returns whether it did.
    pub(crate) fn evict(&mut self, index: u64) -> bool {
        let group = self.block_mates(index);
        let mut mates = self.folios.range(group.clone());
        if !self.has(index) || mates.any(|(_, folio)| !folio.is_clean()) {
            return false;
        }
        let start = group.start * self.folio_bytes;
        let blocks = self.geometry.blocks_covering(start..group.end * self.folio_bytes);
        self.clean.remove(group.clone());
        for folio in group {
            self.folios.remove(&folio);
        }
        self.outdate_fetches(&blocks);
        for block in blocks {
            self.stored.remove(&block);
        }
        true
    }

    /// Gives up all that is clean.
    pub(crate) fn evict_all(&mut self) {
        let all: Vec<u64> = self.folios.keys().copied().collect();
        for folio in all {
            self.evict(folio);
        }
    }

    /// A folio has become clean, and those that it kept in memory may go with it.
    pub(super) fn became_clean(&self, index: u64) {
        let mates = self.folios.range(self.block_mates(index));
        for (mate, _) in mates.filter(|(_, folio)| folio.is_clean()) {
            self.clean.push(*mate);
        }
    }

    /// The folios that lie in the same block as one: what is known to be stored for the block goes
    /// for all of them.
    pub(super) fn block_mates(&self, index: u64) -> Range<u64> {
        let per_block = (self.geometry.block_bytes() / self.folio_bytes).max(1);
        let first = index / per_block * per_block;
        first..first + per_block
    }
}

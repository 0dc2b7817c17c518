//! Giving up clean folios: those of a block go together.

use std::ops::Range;

use super::Folios;
use crate::{folio::FolioBytes, sync::Arc};

impl Folios {
    /// Gives up the memory of a folio, with that of all others of its blocks, if they are clean.
    /// Returns whether it did.
    pub(crate) fn evict(&mut self, index: u64) -> bool {
        let group = self.block_mates(index);
        if !self.has(index) || self.unclean(group.clone()).next().is_some() {
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

    /// Evicts a folio and returns its memory, which is not wiped: to who overwrites it.
    pub(crate) fn take_memory(&mut self, index: u64) -> Option<FolioBytes> {
        let bytes = self.folios.get(&index)?.bytes.clone();
        // Somebody may still be looking at it.
        self.evict(index).then(|| Arc::into_inner(bytes)).flatten()
    }

    /// Gives up all that is clean, and what is being fetched.
    pub(crate) fn evict_all(&mut self) {
        self.outdate_fetches(&(0..u64::MAX));
        let all: Vec<u64> = self.folios.keys().copied().collect();
        for folio in all {
            self.evict(folio);
        }
    }

    /// These folios have no memory any more.
    pub(super) fn forget_folios(&mut self, folios: &[u64]) {
        self.clean.remove(folios.iter().copied());
        for index in folios {
            self.unclean.remove(index);
            self.folios.remove(index);
        }
    }

    /// A folio has become clean, and those that it kept in memory may go with it.
    pub(super) fn became_clean(&mut self, index: u64) {
        self.unclean.remove(&index);
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

#[cfg(test)]
mod tests {
    use sealback_crypto::Geometry;

    use super::*;
    use crate::{
        folio::FolioPool,
        page_cache::{CleanFolios, Copies, CopyBudget},
    };

    const FOLIO: usize = 4096;

    #[test]
    fn what_a_dirty_folio_kept_in_memory_can_go_when_that_has_been_cut_off() {
        let geometry = Geometry::new(4 * FOLIO as u64).expect("a block size");
        let (pool, all) = (FolioPool::new(4, FOLIO), CleanFolios::new());
        let copies = Copies::new(CopyBudget::new(0));
        let mut folios = Folios::new(geometry, FOLIO, 0, 0..0, all.of_file(0), copies);
        folios.grow(4 * FOLIO as u64, 1, &pool);
        for folio in 0..4 {
            let is_dirty = folio == 3;
            folios.put(folio * FOLIO as u64, &[1; FOLIO], is_dirty, &mut pool.try_take());
        }
        while let Some((_, folio)) = all.pop() {
            assert!(!folios.evict(folio), "one of the block is dirty");
        }
        folios.cut(3 * FOLIO as u64);
        assert_eq!((pool.n_out(), all.len()), (3, 3));
        let (_, folio) = all.pop().expect("they are clean");
        assert!(folios.evict(folio) && pool.n_out() == 0);
    }
}

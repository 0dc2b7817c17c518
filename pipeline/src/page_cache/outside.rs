//! What others than this page cache write: direct writes, and clients with a page cache of their own.

use std::{collections::BTreeMap, ops::Range};

use sealback_crypto::Sealed;
use sealback_stream::Expected;

use super::Folios;
use crate::folio::FolioPool;

impl Folios {
    /// Whether something of a range is dirty or under writeback.
    pub(crate) fn is_dirty_within(&self, range: &Range<u64>) -> bool {
        let folios = range.start / self.folio_bytes..range.end.div_ceil(self.folio_bytes);
        self.unclean(folios).any(|(_, folio)| {
            folio.dirty.intersects(range)
                || folio.handed_out.iter().any(|set| set.intersects(range))
        })
    }

    /// Blocks that did not come from here are on the server now: the file reaches as far as they do,
    /// and what is here of them and not dirty is older. With none of them under writeback from here.
    pub(crate) fn stored_past(&mut self, sealed: &Sealed, draft: bool, pool: &FolioPool) {
        let blocks = sealed.blocks();
        let start = self.geometry.block_start(blocks.start);
        let end = start + sealed.plaintext_len();
        self.grow(start, blocks.start, pool);
        self.gaps.take(&blocks);
        self.grow_over(end, pool);
        self.sent(start..end);
        self.forget_clean(&blocks);
        self.note_stored(sealed, draft);
    }

    /// Forgets what is here of blocks and neither dirty nor under writeback.
    pub(crate) fn forget_clean(&mut self, blocks: &Range<u64>) {
        self.changed(blocks);
        self.outdate_fetches(blocks);
        for block in blocks.clone() {
            self.stored.remove(&block);
        }
        let (start, end) =
            (self.geometry.block_start(blocks.start), self.geometry.block_start(blocks.end));
        let mut emptied = Vec::new();
        for (index, part) in self.parts(&(start..end)) {
            let Some(folio) = self.folios.get_mut(&index) else { continue };
            for clean in folio.unwritten().missing(&part) {
                folio.valid.take(&clean);
            }
            if folio.valid.is_empty() {
                emptied.push(index);
            }
        }
        self.forget_folios(&emptied);
    }

    /// What was stored for those of `blocks` of which something is here when it came here.
    pub(crate) fn seen_within(&self, blocks: &Range<u64>) -> BTreeMap<u64, Expected> {
        let mut seen = BTreeMap::new();
        let copies = self.copies.within(blocks).into_iter();
        seen.extend(copies.map(|(block, nonce)| (block, Expected::Nonce(nonce))));
        seen.extend(self.stored.range(blocks.clone()).map(|(block, stored)| (*block, *stored)));
        seen
    }

    /// Somebody else has written a block since `seen` was stored for it: what is here of it and not dirty
    /// goes. Not if something else has been seen since, or it is being written from here: what others
    /// have written then is met by that. Returns whether it was outdated.
    pub(crate) fn forget_outdated(&mut self, block: u64, seen: Expected) -> bool {
        let start = self.geometry.block_start(block);
        let positions = start..start + self.geometry.block_bytes();
        let now = self.seen_within(&(block..block + 1)).remove(&block);
        let folios = positions.start / self.folio_bytes..positions.end.div_ceil(self.folio_bytes);
        let mut folios = self.folios.range(folios);
        let writing =
            folios.any(|(_, folio)| folio.handed_out.iter().any(|set| set.intersects(&positions)));
        if now != Some(seen) || writing {
            return false;
        }
        // One that is dirty as a whole has nothing clean, and what was seen is what is told of.
        if !self.is_dirty_throughout(&positions) {
            self.forget_clean(&(block..block + 1));
        }
        true
    }

    /// Whether somebody else's change of a block is told of, and what was last seen there.
    pub(crate) fn last_seen(&self, block: u64) -> (bool, Option<Expected>) {
        (self.is_told_of(block), self.stored.get(&block).copied())
    }

    /// The first stretch of `blocks` that all go to the cache, or all do not; and whether they do.
    pub(crate) fn cached_alike(&self, blocks: Range<u64>) -> (Range<u64>, bool) {
        let start = self.geometry.block_start(blocks.start);
        let first = start..start + self.geometry.block_bytes();
        let bypasses = self.uncached.intersects(&first);
        let alike = |block: &u64| {
            let start = self.geometry.block_start(*block);
            let positions = start..start + self.geometry.block_bytes();
            self.uncached.intersects(&positions) == bypasses
        };
        let end = blocks.clone().find(|block| !alike(block)).unwrap_or(blocks.end);
        (blocks.start..end, !bypasses)
    }
}

#[cfg(test)]
mod tests {
    use sealback_crypto::{Buffer, Engine, Geometry, Header, RootKey};

    use super::*;
    use crate::page_cache::{CleanFolios, Copies, CopyBudget};

    const BLOCK: usize = 4096;

    #[test]
    fn what_was_sent_and_not_committed_is_known_until_it_is_cut_off() {
        let geometry = Geometry::new(BLOCK as u64).expect("a block size");
        let root = RootKey::from_bytes(&[5; 32]);
        let new = Header::create(&root, geometry, Engine::AesGcm).expect("random bytes");
        let stored = |first_block| {
            let buffer = Buffer::unpooled(2 * (BLOCK + 48));
            let key = new.header.content_key();
            key.seal(first_block, 1, &[&[7; 2 * BLOCK]], buffer).expect("it fits")
        };
        let pool = FolioPool::new(4, BLOCK);
        let (clean, copies) = (CleanFolios::new().of_file(0), Copies::new(CopyBudget::new(0)));
        let mut folios = Folios::new(geometry, BLOCK, 0, 0..0, clean, copies);
        folios.stored_past(&stored(1), false, &pool);
        assert_eq!((folios.size(), folios.first_gap()), (3 * BLOCK as u64, Some(0..1)));
        assert_eq!(folios.uncommitted_len(1), Some(BLOCK as u64));
        folios.cut(2 * BLOCK as u64);
        assert_eq!(folios.uncommitted_len(1), Some(BLOCK as u64));
        folios.cut(BLOCK as u64 + 10);
        assert_eq!((folios.uncommitted_len(1), folios.uncommitted_len(2)), (None, None));
    }
}

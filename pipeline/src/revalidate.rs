//! What other clients have changed is looked for: in the header, or in the nonces of the blocks.
//!
//! A header tells of what was committed, and of nothing more precise than that: all that is clean is
//! forgotten. Nonces tell of each block, whoever wrote it and whether it was committed: what is here
//! and in the cache is compared with what is stored, and only what differs is forgotten. A target hands
//! out no nonces alone, so the blocks are read as a whole, a unit at a time.

use std::ops::Range;

use sealback_crypto::Nonce;
use sealback_stream::Expected;

use crate::{Error, File, open_file::OpenFile, ranges::RangeSet, sync::Arc, verify::for_each_unit};

impl File {
    /// Looks whether others have committed changes or cut the file, and forgets what is here and not
    /// dirty: what is read from now on is what the server has now. If they have, what the cache holds of
    /// the file goes, too. Opening a file does so if others have committed since. In between, what
    /// others have changed is noticed where it is met: by a write of the same block, a commit, or a read
    /// of what is not in memory.
    ///
    /// Costs one read of the header, and then reading anew. See
    /// [`revalidate_deep`](File::revalidate_deep) for what others write and do not commit.
    ///
    /// # Errors
    /// [`Error::Server`] if the server does not answer.
    pub fn revalidate(&self) -> Result<(), Error> {
        self.file.following_cuts(|| self.file.revalidate())
    }

    /// Compares every block that is in memory or in the cache with what is stored, by its nonce, and
    /// forgets those that others have written, committed or not; all others stay. What is dirty stays,
    /// and is laid over theirs when it is written back. Returns the positions of the blocks that others
    /// have written, ascending: what a client is to drop from caches of its own.
    ///
    /// What is being written back from here meanwhile is not looked at; what goes past the page cache
    /// meanwhile, or has failed and may be there nevertheless, may be among them. Reads the stored blocks that are to be
    /// compared, a bounded unit at a time, and nothing else.
    ///
    /// # Errors
    /// [`Error::Server`] if the server does not answer: some blocks were compared, and the rest is as
    /// it was.
    pub fn revalidate_deep(&self) -> Result<Vec<Range<u64>>, Error> {
        let mut changed = RangeSet::default();
        self.file.following_cuts(|| self.file.revalidate_deep(&mut changed))?;
        Ok(changed.iter().cloned().collect())
    }
}

impl OpenFile {
    /// Goes on from what the server has now, in all that is not dirty.
    fn revalidate(&self) -> Result<(), Error> {
        let known = self.header();
        let now = self.look_for_cut(&known)?;
        if now.generation() > known.generation() {
            self.adopt_beside_ours(now)?;
        }
        let mut folios = self.folios();
        folios.forget_copies();
        folios.evict_all();
        Ok(())
    }

    /// Goes on from what the server has now, in all blocks that others have written; adds their
    /// positions to `changed`.
    fn revalidate_deep(self: &Arc<Self>, changed: &mut RangeSet) -> Result<(), Error> {
        let now = self.look_for_cut(&self.header())?;
        for_each_unit(self, |blocks| self.compare_nonces(&blocks, changed))?;
        // What is still here was there when this header was, or later: nothing goes on its account.
        let _one_at_a_time = self.commits();
        if now.generation() > self.header().generation() {
            self.go_on_beside_ours(|| {
                self.set_header(now);
                self.tell_cache();
            })?;
        }
        Ok(())
    }

    fn compare_nonces(&self, blocks: &Range<u64>, changed: &mut RangeSet) -> Result<(), Error> {
        let cached = self.present(blocks.clone());
        let cached = |block: u64| {
            let index = usize::try_from(block - blocks.start).ok()?;
            cached.get(index).copied().flatten()
        };
        let seen = self.folios().seen_within(blocks);
        let mut at = blocks.start;
        let is_here = |block: &u64| seen.contains_key(block) || cached(*block).is_some();
        while let Some(first) = (at..blocks.end).find(is_here) {
            let end = (first..blocks.end).find(|block| !is_here(block)).unwrap_or(blocks.end);
            let read = || Ok(self.read_blocks(&*self.target, first..end)?);
            let stored = self.core.persist(None, read)?;
            for (index, block) in (first..end).enumerate() {
                let nonce = stored.nonce(self.geometry(), index);
                let expected = Expected::of(nonce);
                let seen = seen.get(&block).filter(|seen| **seen != expected);
                let outdated = seen.is_some_and(|seen| self.folios().forget_outdated(block, *seen));
                // A record that is as it was is not of what has been written from here since.
                let cached = cached(block).filter(|cached| Some(*cached) != nonce);
                let is_stale = |cached| self.present(block..block + 1).contains(&Some(cached));
                let stale = cached.is_some_and(is_stale);
                if outdated || stale {
                    // A copy of it may be on its way.
                    self.claims.revoke(|| self.forget_cached(&(block..block + 1)))?;
                    let start = self.geometry().block_start(block);
                    changed.insert(start..start + self.geometry().block_bytes());
                }
            }
            at = end;
        }
        Ok(())
    }

    /// What the cache's record holds for blocks; nothing without a cache.
    fn present(&self, blocks: Range<u64>) -> Vec<Option<Nonce>> {
        self.cache().map_or_else(Vec::new, |cache| cache.present(blocks))
    }
}

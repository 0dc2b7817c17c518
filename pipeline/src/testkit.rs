//! The page cache by itself, for a simulator that runs it under schedules of its own. Not for clients.

use std::ops::Range;

use sealback_crypto::{Geometry, Sealed};
use sealback_stream::Expected;

use crate::{
    folio::FolioPool,
    page_cache::{CleanFolios, Copies, CopyBudget, Folios, NextRun, Takes},
    source::DirtyRun,
};

/// A file's folios, with memory without a limit.
#[derive(Debug)]
pub struct PageCache {
    folios: Folios,
    clean: CleanFolios,
    pool: FolioPool,
    /// The write group that the pass is of.
    group: u64,
}

impl PageCache {
    /// An empty file's. Folios are `folio_bytes` long.
    pub fn new(geometry: Geometry, folio_bytes: usize) -> PageCache {
        let clean = CleanFolios::new();
        let copies = Copies::new(CopyBudget::new(0));
        let folios = Folios::new(geometry, folio_bytes, 0, 0..0, clean.of_file(0), copies);
        PageCache { folios, clean, pool: FolioPool::new(usize::MAX, folio_bytes), group: 0 }
    }

    /// The size in bytes.
    pub fn size(&self) -> u64 {
        self.folios.size()
    }

    /// Bytes that are dirty and not under writeback.
    pub fn dirty_bytes(&self) -> u64 {
        self.folios.dirty_bytes()
    }

    /// Positions that have to be filled before `range` may be written.
    pub fn to_fill(&self, range: &Range<u64>) -> Vec<Range<u64>> {
        self.folios.to_fill(range)
    }

    /// Copies what it holds of `range` into `to`, and returns what it lacks.
    pub fn read(&self, range: &Range<u64>, to: &mut [u8]) -> Vec<Range<u64>> {
        self.folios.read(range, to)
    }

    /// Writes, or with `dirty` false fills in, `data` at `position`.
    pub fn put(&mut self, position: u64, data: &[u8], dirty: bool) {
        let end = position + data.len() as u64;
        let mut at = position;
        while at < end {
            let (folio, positions) = self.folios.folio_at(at);
            let part_end = positions.end.min(end);
            let offset = |at: u64| crate::ranges::index_of(at - position);
            let needs = !self.folios.has(folio) || self.folios.is_shared(folio);
            let mut memory = needs.then(|| self.pool.take_over_budget());
            self.folios.put(at, &data[offset(at)..offset(part_end)], dirty, &mut memory);
            at = part_end;
        }
    }

    /// Notes what is stored for a block that was filled in.
    pub fn set_stored(&mut self, block: u64, expected: Expected) {
        self.folios.fetched(block, expected);
    }

    /// Makes the file `size` long, if it is shorter.
    pub fn grow(&mut self, size: u64, geometry: Geometry) {
        self.folios.grow(size, geometry.n_blocks(size), &self.pool);
    }

    /// Takes the blocks that are to be made holes.
    pub fn take_gaps(&mut self) -> Vec<Range<u64>> {
        let gaps = std::iter::from_fn(|| {
            let gap = self.folios.first_gap()?;
            self.folios.gap_closed(&gap);
            Some(gap)
        });
        gaps.collect()
    }

    /// The file ends at `size` now. Nothing may be under writeback.
    pub fn cut(&mut self, size: u64) {
        self.folios.cut(size);
    }

    /// These blocks have become holes. Nothing may be under writeback.
    pub fn punched(&mut self, blocks: &Range<u64>) {
        self.folios.punched(blocks);
    }

    /// A pass begins, over the oldest write group.
    pub fn begin_pass(&mut self) {
        self.group = self.folios.oldest_group();
    }

    /// A pass has ended well: a header speaks for as much as may be said.
    pub fn commit(&mut self) {
        let size = self.folios.size_to_commit();
        let holes = self.folios.holes();
        self.folios.committed(size, &holes, &self.pool);
    }

    /// The next dirty run of blocks within a range, as [`FolioSource`](crate::source::FolioSource) has
    /// it.
    ///
    /// # Errors
    /// The block that comes next, which is to be filled in before this is asked again.
    pub fn next_dirty(
        &mut self,
        within: Range<u64>,
        max_blocks: u64,
    ) -> Result<Option<DirtyRun>, u64> {
        let takes = Takes { since: u64::MAX, group: self.group };
        match self.folios.next_run(within, max_blocks, takes) {
            NextRun::Run(run) => Ok(Some(run)),
            NextRun::Lacking(block) => Err(block),
            NextRun::End => Ok(None),
        }
    }

    /// Whether there are write groups before the current one that have not ended.
    pub fn has_older_groups(&self) -> bool {
        self.folios.oldest_group() < self.folios.group()
    }

    /// Closes the write group.
    pub fn close_group(&mut self) -> u64 {
        self.folios.close_group()
    }

    /// The oldest write group that has not ended; those of which nothing is left end.
    pub fn oldest_group(&mut self) -> u64 {
        if let Some(done) = self.folios.newest_done(true) {
            self.folios.end_groups(done);
        }
        self.folios.oldest_group()
    }

    /// Whether something of an older group is to be written back before `range` may be written.
    pub fn is_older_within(&self, range: &Range<u64>) -> bool {
        self.folios.older_within(range).is_some()
    }

    /// As [`FolioSource::stored`](crate::source::FolioSource::stored).
    pub fn stored(&mut self, sealed: &Sealed) {
        self.folios.note_stored(sealed, true);
    }

    /// Blocks that a direct write has written are stored.
    pub fn stored_past(&mut self, sealed: &Sealed) {
        self.folios.stored_past(sealed, true, &self.pool);
    }

    /// A direct write has failed: each of its blocks is stored, or is not.
    pub fn forget_clean(&mut self, blocks: &Range<u64>) {
        self.folios.forget_clean(blocks);
    }

    /// As [`FolioSource::merged`](crate::source::FolioSource::merged).
    pub fn merged(&mut self, block: u64, plain: &[u8]) {
        self.folios.merged(block, plain, &self.pool);
    }

    /// As [`FolioSource::end_writeback`](crate::source::FolioSource::end_writeback).
    pub fn end_writeback(&mut self, folio: u64, clean: bool) {
        self.folios.end_writeback(folio, clean);
    }

    /// Lets go of a clean folio.
    pub fn evict(&mut self) -> bool {
        while let Some((_, folio)) = self.clean.pop() {
            if self.folios.evict(folio) {
                return true;
            }
        }
        false
    }
}

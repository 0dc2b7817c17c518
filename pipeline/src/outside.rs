//! Passes over what others than the page cache hold: direct writes, and a client's own page cache.
//!
//! The source hands out runs; here they are checked, since a run that is none would end in blocks that
//! nobody can open, and the file learns of what has been stored.

use std::{ops::Range, task::Waker};

use sealback_crypto::{Geometry, MAX_FILE_BYTES, Sealed};
use sealback_stream::Expected;

use crate::{
    Error, File, WriteKind, WritebackHandle,
    driver::Driver,
    growth::Growth,
    open_file::OpenFile,
    origin::Subject,
    passes::Plan,
    ranges::index_of,
    source::{Destinations, DirtyRun, FolioSource, Next, RunContent, Writeback},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// A source that is not the file's page cache.
#[derive(Debug)]
pub(crate) struct Outside {
    file: Arc<OpenFile>,
    source: Arc<dyn FolioSource>,
    /// It may write behind the committed size.
    grows: bool,
    /// How long the file is, with what the source has, as far as that knows: others may make it longer.
    size: u64,
    taken: Mutex<Taken>,
}

/// What it has handed out.
#[derive(Debug, Default)]
struct Taken {
    /// From the first block to the last.
    blocks: Option<Range<u64>>,
    /// The block before which the last folio ended.
    folios_to: u64,
}

impl Outside {
    pub(crate) fn new(
        file: Arc<OpenFile>,
        source: Arc<dyn FolioSource>,
        grows: bool,
        size: u64,
    ) -> Outside {
        Outside { file, source, grows, size, taken: Mutex::default() }
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check(&self, run: &DirtyRun, from: u64, max_blocks: u64) -> Result<(), &'static str> {
        let blocks = &run.blocks;
        if blocks.is_empty() || blocks.start < from {
            return Err("a run is empty, or begins before it was asked for");
        }
        if blocks.end - blocks.start > max_blocks {
            return Err("a run is longer than was asked for");
        }
        let geometry = self.file.geometry();
        let behind = match self.grows {
            true => geometry.n_blocks(self.size.max(self.file.folios().size())),
            false => self.file.folios().n_blocks_without_growth(),
        };
        if blocks.end > behind {
            return Err("a run reaches behind the size that its writeback was begun with");
        }
        check_content(run, geometry, self.size)?;
        check_partial(run, geometry)?;
        self.taken().add(run)
    }
}

impl Taken {
    fn add(&mut self, run: &DirtyRun) -> Result<(), &'static str> {
        for folio in &run.folios {
            if folio.end < self.folios_to || folio.end > run.blocks.end {
                return Err("a run's folios do not ascend, or end behind it");
            }
            self.folios_to = folio.end;
        }
        let start = self.blocks.as_ref().map_or(run.blocks.start, |blocks| blocks.start);
        self.blocks = Some(start..run.blocks.end);
        Ok(())
    }
}

/// Whole blocks, and a shorter one only at the file's end, over what is expected there: somebody may
/// have made it longer. Or the server's own bytes, for the cache.
fn check_content(run: &DirtyRun, geometry: Geometry, size: u64) -> Result<(), &'static str> {
    let slices = match &run.content {
        RunContent::Plain(slices) => slices,
        RunContent::Sealed(sealed) => {
            let for_the_cache = run.destinations == Destinations::CACHE;
            let fits = for_the_cache && sealed.blocks() == run.blocks;
            return fits
                .then_some(())
                .ok_or("sealed bytes are not for the cache, or of other blocks");
        }
    };
    let bytes: u64 = slices.iter().map(|slice| slice.as_slice().len() as u64).sum();
    let start = geometry.block_start(run.blocks.start);
    let whole = geometry.block_start(run.blocks.end) - start;
    let last = run.blocks.end - 1;
    let ends_the_file = bytes > whole - geometry.block_bytes() && start + bytes >= size;
    let is_expected = run.partial.last().is_some_and(|partial| partial.block == last);
    let fits = bytes == whole || (bytes < whole && ends_the_file && is_expected);
    fits.then_some(()).ok_or("a run's bytes are not its blocks', or not all the file has of them")
}

fn check_partial(run: &DirtyRun, geometry: Geometry) -> Result<(), &'static str> {
    let mut next = run.blocks.start;
    for partial in &run.partial {
        if partial.block < next || partial.block >= run.blocks.end {
            return Err("a run's partial blocks do not ascend, or are not in it");
        }
        next = partial.block + 1;
        let (mut at, end) = (geometry.block_start(partial.block), geometry.block_start(next));
        for dirty in &partial.dirty {
            if dirty.start < at || dirty.is_empty() || dirty.end > end {
                return Err("a partial block's dirty ranges do not ascend, or are not in it");
            }
            at = dirty.end;
        }
    }
    Ok(())
}

impl FolioSource for Outside {
    fn next_dirty(&self, from: u64, max_blocks: u64, waker: &Waker) -> Next {
        let next = self.source.next_dirty(from, max_blocks, waker);
        let Next::Run(run) = &next else { return next };
        match self.check(run, from, max_blocks) {
            Ok(()) => next,
            Err(what) => {
                let refused = Error::Source(what);
                for folio in &run.folios {
                    let outcome = Writeback::Redirty(refused.clone());
                    self.source.end_writeback(folio.folio, outcome);
                }
                Next::Failed(refused)
            }
        }
    }

    fn stored(&self, sealed: &Sealed) {
        let (draft, pool) = (self.file.is_draft(), &self.file.core.folios);
        self.file.folios().stored_past(sealed, draft, pool);
        self.source.stored(sealed);
    }

    fn in_doubt(&self, sealed: &Sealed) {
        self.file.folios().note_in_doubt(sealed);
        self.source.in_doubt(sealed);
    }

    fn merged(&self, block: u64, plain: &[u8]) {
        self.source.merged(block, plain);
    }

    fn end_writeback(&self, folio: u64, outcome: Writeback) {
        if matches!(outcome, Writeback::Redirty(_))
            && let Some(blocks) = self.taken().blocks.take()
        {
            // Each of them may be on the server, or not.
            self.file.folios().forget_clean(&blocks);
        }
        self.source.end_writeback(folio, outcome);
    }
}

impl OpenFile {
    /// Writes back what a source has: waits for the pass that is running, and for older write
    /// groups, then begins one. If that
    /// ends well, the file is at least `least` bytes long. The source takes it to be of `known` size,
    /// or of that, if it is more. To be called with sizes held.
    pub(crate) fn begin_outside(
        self: &Arc<Self>,
        source: Arc<dyn FolioSource>,
        (known, least): (u64, u64),
        subject: Subject,
    ) -> Result<Arc<Driver>, Error> {
        let idle = self.wait_for_older_groups()?;
        let grows = self.grows() || least > self.folios().size();
        let growth = grows.then(|| Growth::to(least));
        let source = Arc::new(Outside::new(self.clone(), source, grows, known.max(least)));
        let (is_complete, filling, is_everybodys) = (false, None, false);
        let plan = Plan { subject, source, growth, is_complete, filling, is_everybodys };
        Ok(self.begin_pass(idle, plan, None))
    }
}

impl File {
    /// Writes back what a page cache other than the engine's holds: one pass over `source`, sealed and
    /// sent like any other. The file is at least `size` bytes long when it has ended well, with holes
    /// where nobody has written; longer files are not cut. Waits while another writeback of the file
    /// runs, then starts this one and does not wait for its end.
    ///
    /// A block that `source` has changed in part, or that is shorter than the others, comes whole, and
    /// as a [`PartialBlock`](crate::source::PartialBlock) over what it was
    /// [fetched](File::fetch_blocks) from, or [stored](FolioSource::stored) as, last. If somebody else
    /// has changed it since, both changes are merged, and `source` hears of it.
    ///
    /// What the engine's own page cache has of the blocks and is not dirty is forgotten; what is dirty
    /// there is written over them later. [`sync`](File::sync) after it commits a header that speaks
    /// for what was written; a file that grows is committed by the writeback itself.
    ///
    /// # Errors
    /// [`Error::TooLarge`] over 2^60; errors of finishing a cut that was begun. The pass itself ends with
    /// an error, in the handle, as any other; and with [`Error::Source`] if `source` hands out
    /// what is no run of this file's blocks.
    pub fn writeback_from(
        &self,
        source: Arc<dyn FolioSource>,
        size: u64,
    ) -> Result<WritebackHandle, Error> {
        if size > MAX_FILE_BYTES {
            return Err(Error::TooLarge);
        }
        self.file.core.check_open()?;
        let _sizes = self.file.hold_sizes_for_change()?;
        let known = self.file.folios().size();
        let subject = Subject { kind: WriteKind::Source, range: 0..known.max(size) };
        Ok(WritebackHandle { driver: self.file.begin_outside(source, (known, size), subject)? })
    }

    /// Reads whole blocks for a page cache other than the engine's, from the cache's copy or the server,
    /// into `to`, which has room for all of them; what lies behind the file's end is zeros. Returns
    /// for each block what is stored: what a change of a part of it is to expect.
    ///
    /// # Errors
    /// [`Error::Config`] if `to` is of another length; [`Error::TooLarge`] beyond 2^60 bytes; as for
    /// [`read_at`](File::read_at).
    pub fn fetch_blocks(&self, blocks: Range<u64>, to: &mut [u8]) -> Result<Vec<Expected>, Error> {
        let geometry = self.file.geometry();
        if blocks.start.max(blocks.end) > geometry.n_blocks(MAX_FILE_BYTES) {
            return Err(Error::TooLarge);
        }
        let n_blocks = blocks.end.saturating_sub(blocks.start);
        if n_blocks.checked_mul(geometry.block_bytes()) != Some(to.len() as u64) {
            return Err(Error::Config("the room is not as long as the blocks"));
        }
        self.file.following_cuts(|| {
            let _sizes = self.file.hold_sizes();
            let size = self.file.folios().size();
            let start = geometry.block_start(blocks.start);
            let end = size.min(geometry.block_start(blocks.end)).max(start);
            let (held, behind) = to.split_at_mut(index_of(end - start));
            behind.fill(0);
            let mut stored = self.file.fetch(start..end, vec![held], size)?;
            stored.resize(index_of(n_blocks), Expected::Absent);
            Ok(stored)
        })
    }
}

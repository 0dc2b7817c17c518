//! One pass over a file's folios: which blocks it takes, and fetching ahead of it what they lack.
//!
//! A write into part of a block reads nothing. Before such a block is sealed its other bytes are
//! fetched, a few blocks ahead of the issuer, which waits for those that come next. A block that cannot
//! be had stays dirty; the pass takes all the others, and ends with the error.

use std::{collections::BTreeSet, ops::Range, task::Waker};

use sealback_crypto::{Geometry, Sealed};

use crate::{
    Error,
    config::READ_UNIT_BYTES,
    engine::N_CONTROL_THREADS,
    granule::{Granules, Reach},
    open_file::OpenFile,
    page_cache::{NextRun, Takes},
    source::{FolioSource, Next, Writeback},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

/// Blocks that are fetched ahead of a pass at once, at most.
const MAX_FETCHES: usize = 16;
/// Plaintext that a pass in the background takes, at most: whoever waits for its end does not wait for
/// long.
const MAX_BACKGROUND_BYTES: u64 = 128 << 20;

/// Which blocks a pass takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PassKind {
    /// All but a last block that is not full yet, or a last chunk: more of it is likely to come. For files
    /// that have more than that to write. No more than a part at a time.
    Background,
    /// What the cache lacks, and nothing that is dirty.
    Copies,
    /// All from one block up to another (exclusive).
    Range {
        /// The first.
        start: u64,
        /// The one behind the last.
        end: u64,
    },
    /// All that was dirty when it began.
    Sync,
}

impl PassKind {
    /// Whether nobody asked for it: it lets others go first.
    pub(crate) fn gives_way(self) -> bool {
        matches!(self, PassKind::Background | PassKind::Copies)
    }
}

/// One pass over a file's folios.
#[derive(Debug)]
pub(crate) struct Pass {
    file: Arc<OpenFile>,
    kind: PassKind,
    /// It may write behind the committed size.
    grows: bool,
    takes: Takes,
    /// It is of a write group that is closed: it takes all of that.
    is_older: bool,
    /// Blocks that one in the background may still take.
    left: AtomicU64,
    fetches: Arc<Mutex<Fetches>>,
    /// Of what it takes, if the cache has any.
    granules: Option<Granules>,
}

/// Blocks that are being fetched for a pass.
#[derive(Debug, Default)]
struct Fetches {
    under_way: BTreeSet<u64>,
    /// Those that could not be had; the pass does without them.
    given_up: BTreeSet<u64>,
    first_error: Option<Error>,
}

impl Pass {
    pub(crate) fn new(file: Arc<OpenFile>, kind: PassKind, grows: bool) -> Pass {
        let geometry = file.geometry();
        let left = MAX_BACKGROUND_BYTES / geometry.block_bytes();
        let left = AtomicU64::new(left.next_multiple_of(blocks_put_together(geometry)));
        let granules = match kind {
            // What only the cache lacks is there.
            PassKind::Copies => None,
            PassKind::Background | PassKind::Range { .. } | PassKind::Sync => Granules::of(&file),
        };
        let folios = file.folios();
        let (group, is_older) = (folios.oldest_group(), folios.oldest_group() < folios.group());
        let takes = match kind {
            // Another one would follow it for what is dirtied meanwhile.
            PassKind::Background | PassKind::Copies => Takes { since: u64::MAX, group },
            PassKind::Range { .. } | PassKind::Sync => Takes { since: folios.writes(), group },
        };
        drop(folios);
        Pass { file, kind, grows, takes, is_older, left, fetches: Arc::default(), granules }
    }

    /// One that takes what it is asked for, whenever it was dirtied. What goes along with that is not
    /// known before all of it has been written.
    pub(crate) fn following(file: Arc<OpenFile>, grows: bool) -> Pass {
        let pass = Pass::new(file, PassKind::Sync, grows);
        Pass { takes: Takes { since: u64::MAX, ..pass.takes }, granules: None, ..pass }
    }

    /// One that takes blocks of the oldest write group, and no others.
    pub(crate) fn of_oldest(file: Arc<OpenFile>, blocks: Range<u64>, grows: bool) -> Pass {
        let kind = PassKind::Range { start: blocks.start, end: blocks.end };
        Pass { is_older: false, ..Pass::new(file, kind, grows) }
    }

    fn fetches(&self) -> MutexGuard<'_, Fetches> {
        self.fetches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether one in the background lets others go on: it has taken its part, or somebody waits.
    fn has_done_enough(&self) -> bool {
        // Below zero it wraps.
        let left = self.left.load(Ordering::Relaxed).cast_signed();
        left <= 0 || self.file.passes.are_waited_for()
    }

    /// The blocks from `from` on that it takes.
    pub(crate) fn within(&self, from: u64) -> Range<u64> {
        let folios = self.file.folios();
        let end = if self.grows { u64::MAX } else { folios.n_blocks_without_growth() };
        let within = match self.kind {
            PassKind::Background | PassKind::Range { .. } if self.is_older => from..end,
            PassKind::Background => from..folios.n_full_blocks().min(end),
            PassKind::Range { start, end: last } => {
                let range = start..last;
                let around = self.granules.as_ref().map(|granules| granules.around(&range));
                let Range { start, end: last } = around.unwrap_or(range);
                from.max(start)..last.min(end)
            }
            PassKind::Copies | PassKind::Sync => from..end,
        };
        within.start..within.end.max(within.start)
    }

    /// What comes next of the blocks `within`; what goes along with it to the cache may lie behind, up
    /// to the block `end`. At the end it does not tell of errors.
    pub(crate) fn next_within(
        &self,
        mut within: Range<u64>,
        end: u64,
        max_blocks: u64,
        waker: &Waker,
    ) -> Next {
        let mut fetches = self.fetches();
        loop {
            let all = Reach { to: within.end, waits: false };
            let look = |granules: &Granules| granules.look(&within, end, self.takes, waker);
            let Reach { to, waits } = self.granules.as_ref().map_or(all, look);
            let next = self.file.folios().next_run(within.start..to, max_blocks, self.takes);
            match next {
                NextRun::Run(run) => {
                    self.left.fetch_sub(run.blocks.end - run.blocks.start, Ordering::Relaxed);
                    self.fetch_ahead(&mut fetches, run.blocks.end..within.end, waker);
                    return Next::Run(run);
                }
                NextRun::Lacking(block) if fetches.given_up.contains(&block) => {
                    within.start = block + 1;
                }
                NextRun::Lacking(block) => {
                    // Whoever reads the file may have fetched it since: all the same, or nobody would
                    // wake the pass.
                    if !fetches.has_met(block) {
                        self.fetch(&mut fetches, vec![block], waker);
                    }
                    self.fetch_ahead(&mut fetches, block + 1..within.end, waker);
                    return Next::Later;
                }
                NextRun::End if waits => {
                    self.fetch_ahead(&mut fetches, within, waker);
                    return Next::Later;
                }
                NextRun::End if to < within.end => within.start = to,
                NextRun::End => return Next::End,
            }
        }
    }

    /// The end, when nothing comes next: with the first error of those that it met.
    pub(crate) fn end(&self) -> Next {
        self.fetches().first_error.take().map_or(Next::End, Next::Failed)
    }

    /// The first block of `within` that has something it takes.
    pub(crate) fn first_dirty(&self, within: &Range<u64>) -> Option<u64> {
        self.file.folios().first_dirty(within, self.takes)
    }

    /// Has the next blocks of `within` that lack something fetched, on other threads, unless many are
    /// on their way.
    fn fetch_ahead(&self, fetches: &mut Fetches, within: Range<u64>, waker: &Waker) {
        let geometry = self.file.geometry();
        // A block that is larger than a folio may need more memory than there is.
        let unit_blocks = READ_UNIT_BYTES as u64 / geometry.block_bytes();
        let max = MAX_FETCHES.min(usize::try_from(unit_blocks).unwrap_or(MAX_FETCHES)).max(1);
        let n_under_way = fetches.under_way.len();
        if n_under_way > max / 2 {
            return;
        }
        let mut lacking = self.file.folios().lacking(within, max, self.takes);
        lacking.retain(|block| !fetches.has_met(*block));
        lacking.truncate(max - n_under_way);
        // Each thread wakes the pass once for all that it has fetched.
        for blocks in lacking.chunks(lacking.len().div_ceil(N_CONTROL_THREADS).max(1)) {
            self.fetch(fetches, blocks.to_vec(), waker);
        }
    }

    /// Has blocks fetched on another thread, one after the other, which then wakes the pass.
    fn fetch(&self, fetches: &mut Fetches, blocks: Vec<u64>, waker: &Waker) {
        fetches.under_way.extend(&blocks);
        let (file, shared) = (self.file.clone(), self.fetches.clone());
        let waker = waker.clone();
        self.file.core.io.control(move || {
            for block in blocks {
                let fetched = file.fill_to_seal(block);
                shared.lock().unwrap_or_else(PoisonError::into_inner).ended(block, fetched);
            }
            // The pass may end in here, and then nothing holds on to the file.
            drop(file);
            waker.wake();
        });
    }
}

impl Fetches {
    /// Whether a block is on its way, or cannot be had.
    fn has_met(&self, block: u64) -> bool {
        self.under_way.contains(&block) || self.given_up.contains(&block)
    }

    fn ended(&mut self, block: u64, fetched: Result<(), Error>) {
        self.under_way.remove(&block);
        if let Err(error) = fetched {
            self.given_up.insert(block);
            self.first_error.get_or_insert(error);
        }
    }
}

/// How many blocks a server takes at the cost of one: a chunk's, where it keeps the file in chunks.
pub(crate) fn blocks_put_together(geometry: Geometry) -> u64 {
    u64::from(geometry.chunk_blocks()).max(1)
}

impl FolioSource for Pass {
    fn next_dirty(&self, from: u64, max_blocks: u64, waker: &Waker) -> Next {
        let mut within = self.within(from);
        if self.kind.gives_way() && self.has_done_enough() {
            // The rest of a chunk goes along: it would have to be put once more for that.
            let together = blocks_put_together(self.file.geometry());
            within.end = within.end.min(from.next_multiple_of(together));
            if within.is_empty() {
                return Next::End;
            }
        }
        if self.kind == PassKind::Copies {
            let copy = self.file.folios().next_copy(within, max_blocks);
            return copy.map_or(Next::End, Next::Run);
        }
        match self.next_within(within.clone(), within.end, max_blocks, waker) {
            Next::End => self.end(),
            next => next,
        }
    }

    fn stored(&self, sealed: &Sealed) {
        self.file.folios().note_stored(sealed, self.file.is_draft());
    }

    fn in_doubt(&self, sealed: &Sealed) {
        self.file.folios().note_in_doubt(sealed);
    }

    fn merged(&self, block: u64, plain: &[u8]) {
        self.file.folios().merged(block, plain, &self.file.core.folios);
    }

    fn end_writeback(&self, folio: u64, outcome: Writeback) {
        let clean = matches!(outcome, Writeback::Clean);
        if self.file.folios().end_writeback(folio, clean) {
            // A writer may be waiting for it.
            self.file.core.folios.cleaned();
        }
    }
}

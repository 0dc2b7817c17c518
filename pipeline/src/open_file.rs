//! A file that is open: its folios, its header, and the one writeback that may run at a time.
//!
//! All handles of a file share one of these. It takes writes in, starts writebacks, and commits
//! the header that speaks for what was written.

use std::{
    ops::Range,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use sealback_crypto::{Header, HeaderChange, HeaderError, MAX_FILE_BYTES, Sealed};
use sealback_stream::{Cache, CacheFile, Expected, Target, TargetError, TargetErrorKind};
use zeroize::Zeroizing;

use crate::{
    Error,
    driver::{Driver, Ending, Parts},
    engine::Core,
    folio::FolioBytes,
    page_cache::Folios,
    ranges::{hull, index_of},
    source::{DirtyRun, FolioSource, Writeback},
    trace::Observer,
};

/// Header commits that lose against another client are tried again so often.
const MAX_COMMITS: u32 = 16;
/// A file is created with this generation.
const FIRST_GENERATION: u64 = 1;

/// What all handles of a file share.
pub(crate) struct OpenFile {
    pub(crate) core: Arc<Core>,
    pub(crate) target: Arc<dyn Target>,
    cache: Mutex<Option<Arc<dyn CacheFile>>>,
    header: Mutex<Header>,
    folios: Mutex<Folios>,
    writeback: Mutex<WritebackState>,
    writeback_ended: Condvar,
    /// Held over a commit, so that commits of one client follow one another.
    commit: Mutex<()>,
}

#[derive(Debug, Default)]
struct WritebackState {
    running: Option<Arc<Driver>>,
    /// Syncs that wait to run a pass of their own; background passes let them go first.
    syncs_waiting: usize,
    errors: ErrorSeq,
}

/// The last error and its number: each handle reports each number once.
#[derive(Clone, Debug, Default)]
pub(crate) struct ErrorSeq {
    pub(crate) number: u64,
    pub(crate) last: Option<Error>,
}

/// Which folios a pass takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PassKind {
    /// All but a last block that is not full yet: more of it is likely to come.
    Background,
    /// All.
    Sync,
}

impl OpenFile {
    pub(crate) fn new(core: Arc<Core>, target: Arc<dyn Target>, header: Header) -> Arc<OpenFile> {
        let view = header.view();
        let folio_bytes = core.folios.folio_bytes();
        let folios = Folios::new(header.geometry(), folio_bytes, view.size, view.holes);
        Arc::new(OpenFile {
            core,
            target,
            cache: Mutex::new(None),
            header: Mutex::new(header),
            folios: Mutex::new(folios),
            writeback: Mutex::default(),
            writeback_ended: Condvar::new(),
            commit: Mutex::new(()),
        })
    }

    pub(crate) fn header(&self) -> Header {
        self.header.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_header(&self, header: Header) {
        *self.header.lock().unwrap_or_else(PoisonError::into_inner) = header;
    }

    pub(crate) fn folios(&self) -> MutexGuard<'_, Folios> {
        self.folios.lock().expect("nothing panics while the folios are being changed")
    }

    pub(crate) fn cache(&self) -> Option<Arc<dyn CacheFile>> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Uses the cache's copy from now on, unless there is one already. A copy that is not of the
    /// header that the server has, or may be older than what was written since, is emptied first.
    /// A cache that fails is done without.
    pub(crate) fn attach(&self, cache: &dyn Cache) {
        let mut slot = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if slot.is_some() {
            return;
        }
        let header = self.header();
        let Ok(copy) = cache.open(header.file_id(), header.geometry()) else { return };
        let unwritten = self.folios().writes() == 0;
        let current = copy.read_header().is_ok_and(|bytes| bytes == header.to_bytes()[..]);
        let emptied = || copy.invalidate().and_then(|()| give_header(&*copy, &header));
        if (unwritten && current) || emptied().is_ok() {
            *slot = Some(copy);
        }
    }

    /// Goes on without the cache.
    pub(crate) fn drop_cache(&self) {
        *self.cache.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Writes `data` at `position`, growing the file if need be.
    pub(crate) fn write(self: &Arc<Self>, position: u64, data: &[u8]) -> Result<(), Error> {
        let end = position.checked_add(data.len() as u64);
        if end.is_none_or(|end| end > MAX_FILE_BYTES) {
            return Err(Error::TooLarge);
        }
        if data.is_empty() {
            return Ok(());
        }
        self.grow_to(position)?;
        self.write_within(position, data)
    }

    /// Grows the file over a gap, if `position` lies behind its end.
    pub(crate) fn grow_to(self: &Arc<Self>, position: u64) -> Result<(), Error> {
        let gap = {
            let mut folios = self.folios();
            (folios.size() < position).then(|| folios.grow_over_gap(position))
        };
        for zeros in gap.into_iter().flatten() {
            let mut at = zeros.start;
            while at < zeros.end {
                let len = (zeros.end - at).min(ZEROS.len() as u64);
                let n_zeros = index_of(len);
                self.write_within(at, &ZEROS[..n_zeros])?;
                at += len;
            }
        }
        Ok(())
    }

    /// Writes `data` at `position`, which is not behind the end but for whole new blocks.
    fn write_within(self: &Arc<Self>, position: u64, data: &[u8]) -> Result<(), Error> {
        let range = position..position + data.len() as u64;
        let mut at = position;
        while at < range.end {
            let (folio, positions) = self.folios().folio_at(at);
            let part = at..positions.end.min(range.end);
            let offset = |position: u64| index_of(position - range.start);
            let slice = &data[offset(part.start)..offset(part.end)];
            self.put(folio, &part, slice)?;
            at = part.end;
        }
        self.kick_if_due();
        Ok(())
    }

    /// Writes into one folio: fills in what its blocks lack first, and has memory ready.
    fn put(self: &Arc<Self>, folio: u64, part: &Range<u64>, data: &[u8]) -> Result<(), Error> {
        let mut fresh = None;
        loop {
            let (missing, needs_memory, evictions) = {
                let mut folios = self.folios();
                let missing = folios.to_fill(part);
                let needs_memory = !folios.has(folio) || folios.is_shared(folio);
                if missing.is_empty() && (!needs_memory || fresh.is_some()) {
                    folios.put(part.start, data, true, &mut fresh);
                    return Ok(());
                }
                (missing, needs_memory, folios.evictions())
            };
            if needs_memory && fresh.is_none() {
                fresh = Some(self.folio_memory()?);
            }
            for missing in missing {
                self.fill(&missing, evictions)?;
            }
        }
    }

    /// Reads what the server has of `range`, and puts it into the folios where they have nothing
    /// newer; not at all if something was evicted since `evictions` was read.
    fn fill(self: &Arc<Self>, range: &Range<u64>, evictions: u64) -> Result<(), Error> {
        let geometry = self.header().geometry();
        let blocks = geometry.blocks_covering(range.clone());
        let start = geometry.block_start(blocks.start);
        let size = self.folios().size();
        let end = geometry.block_start(blocks.end).min(size);
        let len = index_of(end - start);
        let mut plain = Zeroizing::new(vec![0; len]);
        let nonces = self.fetch(start..end, &mut plain)?;
        let mut at = range.start;
        while at < range.end {
            let (folio, positions) = self.folios().folio_at(at);
            let part = at..positions.end.min(range.end);
            let offset = |position: u64| index_of(position - start);
            let data = &plain[offset(part.start)..offset(part.end)];
            let mut fresh = match self.folios().has(folio) {
                true => None,
                false => Some(self.folio_memory()?),
            };
            let mut folios = self.folios();
            if folios.evictions() != evictions {
                return Ok(());
            }
            if !folios.has(folio) || folios.is_shared(folio) {
                fresh = fresh.or_else(|| Some(self.core.folios.take_over_budget()));
            }
            folios.put(part.start, data, false, &mut fresh);
            at = part.end;
        }
        let mut folios = self.folios();
        for (block, nonce) in blocks.zip(nonces) {
            folios.set_stored(block, nonce.map_or(Expected::Absent, Expected::Nonce));
        }
        Ok(())
    }

    /// Memory for a folio: from the budget, from a clean folio, or, when writeback has made some.
    pub(crate) fn folio_memory(self: &Arc<Self>) -> Result<FolioBytes, Error> {
        let seen = self.errors().number;
        loop {
            let changes = self.core.folios.changes();
            if let Some(folio) = self.core.folios.try_take() {
                return Ok(folio);
            }
            if self.evict() || self.core.evict_anywhere() {
                continue;
            }
            self.core.kick_all();
            let errors = self.errors();
            if errors.number > seen {
                // Writeback cannot make room: the writer is told instead of waiting for ever.
                return Err(errors.last.unwrap_or(Error::Cancelled));
            }
            self.core.folios.wait(changes, Duration::from_millis(100));
        }
    }

    pub(crate) fn evict(&self) -> bool {
        self.folios().evict()
    }

    /// Starts a background writeback if a quarter of the folios' memory is dirty.
    pub(crate) fn kick_if_due(self: &Arc<Self>) {
        let budget = (self.core.folios.max() * self.core.folios.folio_bytes()) as u64;
        let due = {
            let folios = self.folios();
            folios.dirty_bytes() > budget / 4 || folios.copied_bytes() > budget / 4
        };
        if due {
            self.kick();
        }
    }

    /// Starts a background writeback, unless one is running or nothing is dirty.
    pub(crate) fn kick(self: &Arc<Self>) {
        if self.folios().has_work() {
            let _ = self.start_pass(PassKind::Background, None);
        }
    }

    /// Starts a pass, or returns the one that is running.
    pub(crate) fn start_pass(
        self: &Arc<Self>,
        kind: PassKind,
        observer: Option<Arc<dyn Observer>>,
    ) -> Result<Arc<Driver>, Arc<Driver>> {
        let mut state = self.writeback();
        if let Some(running) = &state.running {
            return Err(running.clone());
        }
        let header = self.header();
        let seal_gen = u32::try_from(header.generation() + 1).unwrap_or(u32::MAX);
        let cache = self.cache();
        let file = self.clone();
        let parts = Parts {
            source: Arc::new(Pass { file: self.clone(), kind }),
            content_key: header.content_key().clone(),
            seal_gen,
            targets: vec![
                Some(self.target.clone()),
                cache.clone().map(|cache| cache as Arc<dyn Target>),
            ],
            cache,
            observer,
            on_done: Box::new(move |ending| file.pass_ended(ending)),
        };
        let driver = self.core.start(header.geometry(), parts);
        state.running = Some(driver.clone());
        drop(state);
        self.core.begin(&driver);
        Ok(driver)
    }

    fn pass_ended(self: &Arc<Self>, ending: &Ending) {
        if ending.cache_failed {
            self.drop_cache();
        }
        let mut state = self.writeback();
        state.running = None;
        if let Err(error) = &ending.result {
            state.errors.number += 1;
            state.errors.last = Some(error.clone());
        }
        let sync_waits = state.syncs_waiting > 0;
        drop(state);
        self.writeback_ended.notify_all();
        self.core.folios.notify();
        if ending.result.is_ok() && !sync_waits {
            self.kick_if_due();
        }
    }

    fn writeback(&self) -> MutexGuard<'_, WritebackState> {
        self.writeback.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn errors(&self) -> ErrorSeq {
        self.writeback().errors.clone()
    }

    /// Writes back everything that is dirty now: waits for the pass that is running, then runs
    /// one.
    pub(crate) fn flush(
        self: &Arc<Self>,
        observer: Option<Arc<dyn Observer>>,
    ) -> Result<(), Error> {
        self.writeback().syncs_waiting += 1;
        let ended = loop {
            let mut state = self.writeback();
            while state.running.is_some() {
                let waited = self.writeback_ended.wait(state);
                state = waited.unwrap_or_else(PoisonError::into_inner);
            }
            drop(state);
            if !self.folios().has_work() {
                break Ok(());
            }
            if let Ok(driver) = self.start_pass(PassKind::Sync, observer.clone()) {
                break driver.wait().result;
            }
        };
        self.writeback().syncs_waiting -= 1;
        ended
    }

    /// Writes back what is dirty, then commits a header that speaks for it.
    pub(crate) fn sync(self: &Arc<Self>, observer: Option<Arc<dyn Observer>>) -> Result<(), Error> {
        let (size, holes) = {
            let folios = self.folios();
            (folios.size(), folios.holes())
        };
        self.flush(observer)?;
        self.commit(size, &holes)
    }

    /// Commits a header: the file is at least `size` long.
    fn commit(&self, size: u64, holes: &Range<u64>) -> Result<(), Error> {
        let _one_at_a_time = self.commit.lock().unwrap_or_else(PoisonError::into_inner);
        self.target.barrier().map_err(Error::server)?;
        let mut header = self.commit_slot(self.header(), size, holes)?;
        if header.generation() == FIRST_GENERATION + 1 {
            // The other slot still speaks of an empty file. It would be believed if this one were
            // erased; from the third generation on an erased slot is an error.
            self.target.barrier().map_err(Error::server)?;
            header = self.commit_slot(header, size, holes)?;
        }
        self.target.barrier().map_err(Error::server)?;
        self.set_header(header.clone());
        if let Some(cache) = self.cache()
            && give_header(&*cache, &header).is_err()
        {
            self.drop_cache();
        }
        Ok(())
    }

    /// Writes the header that follows `header`. A lost race is run again on the newer one.
    fn commit_slot(
        &self,
        mut header: Header,
        size: u64,
        holes: &Range<u64>,
    ) -> Result<Header, Error> {
        let cuts = header.cuts();
        let mut attempt = 1;
        loop {
            if header.cuts() != cuts {
                return Err(Error::Conflict { blocks: Vec::new() });
            }
            let change = HeaderChange {
                size: header.size().max(size),
                holes: hull(&header.holes(), holes),
                cuts,
                cut_pending: header.cut_pending(),
            };
            let commit = header.commit(&change)?;
            match self.target.write_slot(&commit.write) {
                Ok(()) => return Ok(commit.header),
                Err(error)
                    if error.kind() == TargetErrorKind::Conflict && attempt < MAX_COMMITS =>
                {
                    header = self.reread_header(&header)?;
                    attempt += 1;
                }
                Err(error) => return Err(Error::server(error)),
            }
        }
    }

    /// Reads the header as it is now; the file must be the same, and not older.
    pub(crate) fn reread_header(&self, known: &Header) -> Result<Header, Error> {
        let bytes = self.target.read_header().map_err(Error::server)?;
        known.reopen(&bytes).map_err(|error: HeaderError| error.into())
    }
}

/// Lets the cache's copy have the header that the server has.
fn give_header(copy: &dyn CacheFile, header: &Header) -> Result<(), TargetError> {
    let stored_bytes = header.geometry().stored_bytes(header.size());
    copy.set_header(&header.to_bytes(), stored_bytes)
}

static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

impl std::fmt::Debug for OpenFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenFile").field("target", &self.target).finish_non_exhaustive()
    }
}

/// One pass over a file's folios.
#[derive(Debug)]
struct Pass {
    file: Arc<OpenFile>,
    kind: PassKind,
}

impl FolioSource for Pass {
    fn next_dirty(&self, from: u64, max_blocks: u64) -> Option<DirtyRun> {
        self.file.folios().next_run(from, max_blocks, self.kind == PassKind::Sync)
    }

    fn stored(&self, sealed: &Sealed) {
        self.file.folios().note_stored(sealed);
    }

    fn end_writeback(&self, folio: u64, outcome: Writeback) {
        let clean = matches!(outcome, Writeback::Clean);
        if self.file.folios().end_writeback(folio, clean) {
            // A writer may be waiting for a folio to become clean.
            self.file.core.folios.notify();
        }
    }
}

//! A file that is open: its folios, its header, and the one writeback that may run at a time.
//!
//! All handles of a file share one of these. It takes writes in, starts writebacks, and commits
//! the header that speaks for what was written.

use std::ops::Range;

use sealback_crypto::{Geometry, Header, MAX_FILE_BYTES};
use sealback_stream::{Cache, CacheFile, Target};

use crate::{
    Error, Uploaded,
    claims::Claims,
    commit::give_header,
    engine::Core,
    folio::FolioBytes,
    groups::GroupEnds,
    origin::{Origin, Subject},
    page_cache::{Copies, Folios},
    passes::{MAX_PASSES, Passes},
    ranges::index_of,
    resize::Sizes,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    trace::{Observer, Teller, TraceEvent, tell},
    waits::{WaitFor, Waiting},
};

/// What all handles of a file share.
pub(crate) struct OpenFile {
    pub(crate) core: Arc<Core>,
    pub(crate) target: Arc<dyn Target>,
    /// What it is called on the server; of several names, the one that it was opened by first.
    name: Box<str>,
    geometry: Geometry,
    cache: Mutex<Option<Arc<dyn CacheFile>>>,
    header: Mutex<Header>,
    folios: Mutex<Folios>,
    draft: AtomicBool,
    /// Its server was asked for the lock of the size, and has none.
    lockless: AtomicBool,
    /// What may be said of the cache's copy.
    pub(crate) claims: Arc<Claims>,
    pub(crate) passes: Passes,
    pub(crate) sizes: Sizes,
    /// Somebody has fetched blocks, or failed to.
    pub(crate) fetched: Condvar,
    /// Its number among the files of the engine.
    number: u64,
    /// It waits to be written back in the background.
    pub(crate) queued: AtomicBool,
    /// Changed with the lock held on the files that have none.
    pub(crate) n_handles: AtomicUsize,
    pub(crate) group_ends: GroupEnds,
    /// Held over a commit, so that commits of one client follow one another.
    pub(crate) commit: Mutex<()>,
    /// Of a file that is written behind.
    uploaded: Mutex<Uploaded>,
}

impl OpenFile {
    pub(crate) fn new(
        core: Arc<Core>,
        name: &str,
        target: Arc<dyn Target>,
        header: Header,
    ) -> Arc<OpenFile> {
        let view = header.view();
        let folio_bytes = core.folios.folio_bytes();
        let number = core.next_file_number();
        let clean = core.clean.of_file(number);
        let copies = Copies::new(core.copies.clone());
        let folios =
            Folios::new(header.geometry(), folio_bytes, view.size, view.holes, clean, copies);
        Arc::new(OpenFile {
            core,
            target,
            name: name.into(),
            geometry: header.geometry(),
            cache: Mutex::new(None),
            header: Mutex::new(header),
            folios: Mutex::new(folios),
            draft: AtomicBool::new(false),
            lockless: AtomicBool::new(false),
            claims: Arc::default(),
            passes: Passes::default(),
            sizes: Sizes::default(),
            fetched: Condvar::new(),
            number,
            queued: AtomicBool::new(false),
            n_handles: AtomicUsize::new(0),
            group_ends: GroupEnds::default(),
            commit: Mutex::new(()),
            uploaded: Mutex::default(),
        })
    }

    pub(crate) fn header(&self) -> Header {
        self.header.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Its number among the files of the engine.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// What it is called on the server.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// What tells of a request that begins now.
    pub(crate) fn teller(&self, origin: &Origin, observer: Option<Arc<dyn Observer>>) -> Teller {
        let teller = Teller::new(origin, &self.name, [self.core.observer(), observer]);
        if teller.wants_all() {
            let Subject { kind, range } = origin.subject.clone();
            let (file, name) = (self.number, self.name().to_owned());
            teller.tell(self.core.now(), &TraceEvent::Begun { file, name, kind, range });
        }
        teller
    }

    /// What has been uploaded of the file, to be read or counted on.
    pub(crate) fn uploaded(&self) -> MutexGuard<'_, Uploaded> {
        self.uploaded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This thread waits for something of the file, as long as what is returned is there.
    pub(crate) fn waits(&self, what: WaitFor) -> Waiting {
        self.core.waiting(what, Some(self.number))
    }

    /// How the file is cut into blocks.
    pub(crate) fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// Whether it is no file of its name yet: nobody else knows it.
    pub(crate) fn is_draft(&self) -> bool {
        self.draft.load(Ordering::Relaxed)
    }

    pub(crate) fn set_draft(&self, draft: bool) {
        self.draft.store(draft, Ordering::Relaxed);
    }

    /// Whether what lies behind the committed size may be what another client is about to commit: there is no
    /// lock that would keep it from that. Known when a pass has begun that grows the file.
    pub(crate) fn is_lockless(&self) -> bool {
        self.lockless.load(Ordering::Relaxed)
    }

    /// There is no lock of the size to be had. What is written behind needs none: its log is nobody else's.
    pub(crate) fn has_no_lock(&self) {
        self.lockless.store(self.log().is_none(), Ordering::Relaxed);
    }

    /// Whether a cut was begun and not finished.
    pub(crate) fn cut_is_pending(&self) -> bool {
        self.header.lock().unwrap_or_else(PoisonError::into_inner).cut_pending()
    }

    /// Goes on with a header, unless another thread has gone on with a newer one.
    pub(crate) fn set_header(&self, header: Header) {
        let mut folios = self.folios();
        let mut known = self.header.lock().unwrap_or_else(PoisonError::into_inner);
        if header.generation() >= known.generation() {
            folios.committed(header.size(), &header.holes(), &self.core.folios);
            *known = header;
        }
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

    /// Goes on without the cache. What it has counts no more: nobody will tell it of overwrites.
    pub(crate) fn drop_cache(&self) {
        let dropped = self.cache.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(cache) = dropped {
            tell(|| tracing::warn!(target: "sealback::cache", file = self.name(), "done without"));
            // One that cannot even do that has an older header than the server after the next
            // commit, and is emptied by whoever opens it then.
            let _ = cache.invalidate();
        }
    }

    /// Writes `data` at `position`, growing the file if need be.
    pub(crate) fn write(self: &Arc<Self>, position: u64, data: &[u8]) -> Result<(), Error> {
        let end = end_of(position, data)?;
        if data.is_empty() {
            return Ok(());
        }
        self.core.check_open()?;
        let sizes = self.hold_sizes_for_change()?;
        let grows = end > self.folios().size();
        let growing = grows.then(|| self.hold_growth(&sizes));
        if growing.is_some() {
            self.grow_before(position);
        }
        let written = self.write_or_leave_short(position, data);
        if growing.is_some() {
            self.folios().settle();
        }
        written
    }

    /// Writes `data` behind the end, and returns where that was.
    pub(crate) fn append(self: &Arc<Self>, data: &[u8]) -> Result<u64, Error> {
        self.core.check_open()?;
        let sizes = self.hold_sizes_for_change()?;
        let _growing = self.hold_growth(&sizes);
        let position = self.folios().size();
        end_of(position, data)?;
        self.write_or_leave_short(position, data)?;
        Ok(position)
    }

    fn write_or_leave_short(self: &Arc<Self>, position: u64, data: &[u8]) -> Result<(), Error> {
        let written = self.write_within(position, data);
        if written.is_err() {
            let mut folios = self.folios();
            if folios.size() > folios.sent_to() {
                let last = self.geometry.block_at(folios.size() - 1);
                folios.leave_short(last);
            }
        }
        written
    }

    /// Puts `memory`, whose first `len` bytes are new data for all that a folio has in the file, in
    /// the folio's place. If they are not all of it, the memory stays where it is.
    pub(crate) fn replace_folio(
        self: &Arc<Self>,
        position: u64,
        memory: &mut Option<FolioBytes>,
        len: usize,
    ) -> Result<(), Error> {
        let sizes = self.hold_sizes_for_change()?;
        let _growing = self.hold_growth(&sizes);
        let mut folios = self.folios();
        let (folio, positions) = folios.folio_at(position);
        let whole_blocks = positions.end - positions.start >= self.geometry.block_bytes();
        let all = position + len as u64 >= folios.size().min(positions.end);
        let connected = position == positions.start && position <= folios.size();
        if whole_blocks
            && !folios.tells_lost_updates()
            && all
            && connected
            && len > 0
            && folios.older_within(&(position..position + len as u64)).is_none()
            && let Some(memory) = memory.take()
        {
            folios.put_folio(folio, memory, len as u64);
            drop(folios);
            self.dirtied();
        }
        Ok(())
    }

    /// Writes `data` at `position`, which is not behind the end but for whole new blocks.
    pub(crate) fn write_within(self: &Arc<Self>, position: u64, data: &[u8]) -> Result<(), Error> {
        let range = position..position + data.len() as u64;
        let mut at = position;
        while at < range.end {
            self.throttle()?;
            let (folio, positions) = self.folios().folio_at(at);
            let part = at..positions.end.min(range.end);
            let offset = |position: u64| index_of(position - range.start);
            let slice = &data[offset(part.start)..offset(part.end)];
            self.put(folio, &part, slice)?;
            self.dirtied();
            at = part.end;
        }
        Ok(())
    }

    /// Writes into one folio, and has memory for it ready.
    fn put(self: &Arc<Self>, folio: u64, part: &Range<u64>, data: &[u8]) -> Result<(), Error> {
        let (mut fresh, mut passes) = (None, 0);
        loop {
            let mut folios = self.folios();
            if folios.older_within(part).is_some() {
                drop(folios);
                // Who waits for writeback holds no memory that others wait for.
                fresh = None;
                passes += 1;
                if passes > MAX_PASSES {
                    return Err(Error::Conflict { blocks: Vec::new() });
                }
                self.write_older(part)?;
                continue;
            }
            let missing = folios.to_fill(part);
            let needs_memory = !folios.has(folio) || folios.is_shared(folio);
            if missing.is_empty() && (!needs_memory || fresh.is_some()) {
                folios.put(part.start, data, true, &mut fresh);
                return Ok(());
            }
            drop(folios);
            if missing.is_empty() {
                fresh = Some(self.folio_memory()?);
            } else {
                // Who waits for memory holds none that others wait for.
                fresh = None;
                for missing in missing {
                    self.fill(&missing)?;
                }
            }
        }
    }

    /// Memory for a folio: from the budget, from a clean folio, or, when writeback has made some.
    pub(crate) fn folio_memory(self: &Arc<Self>) -> Result<FolioBytes, Error> {
        let spare = || self.spare_memory(1).and_then(|mut spare| spare.pop()).ok_or(1);
        self.wait_for_writeback(spare, || self.core.folios.take_over_budget())
    }

    /// Memory for `n` folios, from the budget or from clean folios; none if it is not to be had
    /// without waiting.
    pub(crate) fn spare_memory(&self, n: usize) -> Option<Vec<FolioBytes>> {
        let spare = || loop {
            let folio = self.core.folios.try_take();
            if folio.is_some() || !self.core.evict() {
                return folio;
            }
        };
        (0..n).map(|_| spare()).collect()
    }
}

/// Where `data` ends that is written at `position`.
fn end_of(position: u64, data: &[u8]) -> Result<u64, Error> {
    let end = position.checked_add(data.len() as u64);
    end.filter(|end| *end <= MAX_FILE_BYTES).ok_or(Error::TooLarge)
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        self.core.closed(self);
    }
}

impl std::fmt::Debug for OpenFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenFile").field("target", &self.target).finish_non_exhaustive()
    }
}

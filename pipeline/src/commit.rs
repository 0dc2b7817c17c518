//! Commits: the header that speaks for what was written.
//!
//! Each is a compare-and-write of one slot. One that meets somebody else's commit is made anew on
//! top of that; one whose outcome is not known is recognised by its MAC when it is found there.

use std::{ops::Range, time::Duration};

use sealback_crypto::{Header, HeaderChange, HeaderCommit, HeaderError, RootKey};
use sealback_stream::{CacheFile, SizeLock, TargetError, TargetErrorKind};
use tracing::{debug, debug_span, warn};

use crate::{
    Error,
    behind::keeping,
    engine::CACHE,
    open_file::OpenFile,
    pass::PassKind,
    ranges::hull,
    resize::SizeGuard,
    sync::{Arc, MutexGuard, PoisonError, thread},
    trace::{Observer, tell},
    waits::WaitFor,
};

/// A commit that loses against another client's is tried again so often.
const MAX_COMMITS: u32 = 64;
/// The pause before the third of these is shorter than this, doubled; up to so many doublings.
const FIRST_PAUSE: Duration = Duration::from_micros(100);
const MAX_DOUBLINGS: u32 = 8;
/// A file is created with this generation.
const FIRST_GENERATION: u64 = 1;

impl OpenFile {
    /// As [`sync`](OpenFile::sync), from the beginning, and timed.
    pub(crate) fn sync_now(self: &Arc<Self>, kind: PassKind) -> Result<(), Error> {
        let _waiting = self.waits(WaitFor::Sync);
        let _in_span =
            debug_span!(target: "sealback::sync", "sync", file = self.name(), ?kind).entered();
        let began = self.core.now();
        let synced = self.following_cuts(|| {
            let sizes = self.hold_sizes_for_change()?;
            self.sync(&sizes, kind, None)
        });
        let took = self.core.now().saturating_sub(began);
        self.core.totals().sync_latency.record(took);
        synced
    }

    /// Writes back what is dirty, all or a part, then commits a header that speaks for it.
    pub(crate) fn sync(
        self: &Arc<Self>,
        _sizes: &SizeGuard<'_>,
        kind: PassKind,
        observer: Option<&Arc<dyn Observer>>,
    ) -> Result<(), Error> {
        for _attempt in 0..MAX_COMMITS {
            let (size, holes, sent_again) = {
                let folios = self.folios();
                (folios.settled_size(), folios.holes(), folios.sent_again())
            };
            let committed = self.flush(kind, observer)?;
            match kind {
                // A pass that has made the file longer has committed that.
                PassKind::Sync if committed && self.header_has(size, &holes) => {}
                PassKind::Sync => self.commit_growth(size, &holes, sent_again)?,
                // It speaks for a part, and for no more than the file had.
                _ => {
                    let _one_at_a_time = self.commits();
                    self.commit_size(0, &(0..0))?;
                }
            }
            // A commit that met somebody else's may have found that what was sent is gone.
            if self.folios().sent_again() == sent_again {
                return Ok(());
            }
        }
        Err(Error::Conflict { blocks: Vec::new() })
    }

    /// Whether the header says that the file is at least `size` long, and that it may have these holes.
    fn header_has(&self, size: u64, holes: &Range<u64>) -> bool {
        let header = self.header();
        header.size() >= size && hull(&header.holes(), holes) == header.holes()
    }

    /// Commits a header, with the lock that the size asks for; not if something of what was sent is gone
    /// and has to be sent again first.
    fn commit_growth(&self, size: u64, holes: &Range<u64>, sent_again: u64) -> Result<(), Error> {
        // A pass that grows the file has the size's lock when it commits: it comes first.
        let grows = size > self.header().size() && !self.is_draft();
        let _locked = if grows { self.lock_growth()? } else { None };
        if grows && self.folios().sent_again() != sent_again {
            return Ok(());
        }
        let _one_at_a_time = self.commits();
        self.commit_size(size, holes)
    }

    /// Commits a header: the file is at least `size` long.
    pub(crate) fn commit_size(&self, size: u64, holes: &Range<u64>) -> Result<(), Error> {
        if let Some(log) = self.log() {
            return self.promise(&log, size, holes);
        }
        self.barrier()?;
        let next = |header: &Header| {
            header.commit(&HeaderChange {
                size: header.size().max(size),
                holes: hull(&header.holes(), holes),
                cuts: header.cuts(),
                cut_pending: header.cut_pending(),
            })
        };
        self.commit_with(next)?;
        if self.header().generation() == FIRST_GENERATION + 1 {
            // The other slot still speaks of an empty file. It would be believed if this one were
            // erased; from the third generation on an erased slot is an error.
            self.barrier()?;
            self.commit_with(next)?;
        }
        self.barrier()?;
        self.tell_cache();
        Ok(())
    }

    /// Wraps the file key anew, in both slots.
    pub(crate) fn rekey(&self, _sizes: &SizeGuard<'_>, new_root: &RootKey) -> Result<(), Error> {
        let _one_at_a_time = self.commits();
        for _slot in 0..2 {
            self.barrier()?;
            self.commit_with(|header| header.rewrap(new_root))?;
        }
        self.barrier()?;
        self.tell_cache();
        Ok(())
    }

    /// Makes the header that counts the one that `next` makes of it.
    ///
    /// A cut by somebody else ends it: what is open here does not fit any more.
    pub(crate) fn commit_with(
        &self,
        next: impl Fn(&Header) -> Result<HeaderCommit, HeaderError>,
    ) -> Result<(), Error> {
        let _waiting = self.waits(WaitFor::Commit);
        for attempt in 0..MAX_COMMITS {
            pause_before_commit(attempt);
            let header = self.header();
            let commit = next(&header)?;
            let mut attempts = 0;
            let write = || {
                attempts += 1;
                Ok(self.target.write_slot(&commit.write)?)
            };
            match self.core.persist(None, write) {
                Ok(()) => {
                    self.tell_of_header(&commit.header, "committed");
                    self.set_header(commit.header);
                    return Ok(());
                }
                Err(error) if error.target_kind() == Some(TargetErrorKind::Conflict) => {}
                Err(error) => return Err(error),
            }
            let now = self.reread_header(&header)?;
            // An attempt may have gone through although it was answered otherwise; but somebody
            // else may have committed the very same.
            let ours = attempts > 1 && now.mac() == commit.header.mac();
            if !ours && now.cuts() != header.cuts() {
                return Err(Error::Cut { size: now.size() });
            }
            if ours {
                self.adopt(now);
                return Ok(());
            }
            self.adopt_beside_ours(now)?;
        }
        Err(Error::Conflict { blocks: Vec::new() })
    }

    /// Goes on with a header that somebody else committed. What the cache has may be older.
    pub(crate) fn adopt(&self, header: Header) {
        self.tell_of_header(&header, "adopted");
        self.set_header(header);
        self.folios().forget_copies();
        if let Some(cache) = self.cache()
            && self.claims.revoke(|| cache.invalidate()).is_err()
        {
            self.drop_cache();
        }
    }

    fn tell_of_header(&self, header: &Header, what: &str) {
        let (generation, size) = (header.generation(), header.size());
        let (file, cuts) = (self.name(), header.cuts());
        tell(|| debug!(target: "sealback::commit", file, generation, size, cuts, "{what}"));
    }

    /// Somebody who holds nothing of the file opens it once more, and has read this header: if it is a newer
    /// one, others have written or cut since, and what is clean here may be older.
    pub(crate) fn met(self: &Arc<Self>, header: Header) -> Result<(), Error> {
        let known = self.header();
        if header.generation() <= known.generation() {
            return Ok(());
        }
        match header.cuts() == known.cuts() {
            true => self.adopt_beside_ours(header)?,
            false => self.follow_cut()?,
        }
        self.folios().evict_all();
        Ok(())
    }

    /// Reads the header as it is now; the file must be the same, and not older.
    pub(crate) fn reread_header(&self, known: &Header) -> Result<Header, Error> {
        let promised = self.promised();
        let bytes = self.core.persist(None, || Ok(self.target.read_header()?))?;
        let header = known.reopen(&bytes).map_err(|error: HeaderError| Error::from(error))?;
        Ok(keeping(header, promised))
    }

    /// Commits of one client follow one another.
    pub(crate) fn commits(&self) -> MutexGuard<'_, ()> {
        self.commit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn lock_size(&self) -> Result<Option<SizeLock>, Error> {
        let _waiting = self.waits(WaitFor::SizeLock);
        let locked = self.core.persist(None, || Ok(self.target.lock_size()?))?;
        if locked.is_none() {
            self.has_no_lock();
        }
        Ok(locked)
    }

    /// Waits until what was written is durable. Not tried again: what a server could not make durable
    /// once, it may have forgotten when it is asked once more. So all that no header speaks for is dirty
    /// again, as far as it is here, and every handle is told.
    pub(crate) fn barrier(&self) -> Result<(), Error> {
        let _waiting = self.waits(WaitFor::Barrier);
        let began = self.core.now();
        let waited = self.target.barrier().map_err(Error::server);
        let took = self.core.now().saturating_sub(began);
        self.core.totals().barrier_latency.record(took);
        tell(
            || debug!(target: "sealback::sync", file = self.name(), ?took, ok = waited.is_ok(), "barrier"),
        );
        waited.inspect_err(|error| {
            tell(|| warn!(target: "sealback::sync", file = self.name(), %error, "not durable"));
            self.folios().redirty_unsynced();
            self.passes.tell(|errors| errors.failed(error));
        })
    }

    /// Lets the cache's copy have the header that the server has.
    pub(crate) fn tell_cache(&self) {
        // One that answers nothing keeps an older header: whoever opens it then empties it.
        if let Some(cache) = self.cache()
            && !self.core.io.is_stuck(CACHE)
            && give_header(&*cache, &self.header()).is_err()
        {
            self.drop_cache();
        }
    }
}

/// Waits before a commit that has lost against others', nobody as long as another.
fn pause_before_commit(attempt: u32) {
    if attempt > 1 {
        let longest = FIRST_PAUSE.saturating_mul(1 << attempt.min(MAX_DOUBLINGS));
        thread::sleep(longest.mul_f64(fastrand::f64()));
    }
}

/// What is sealed after this header was read says so.
pub(crate) fn seal_gen(header: &Header) -> u32 {
    header.view().seal_gen().unwrap_or(u32::MAX)
}

/// Gives a cache's copy its header, and cuts it to the size that this says.
pub(crate) fn give_header(copy: &dyn CacheFile, header: &Header) -> Result<(), TargetError> {
    let stored_bytes = header.geometry().stored_bytes(header.size());
    copy.set_header(&header.to_bytes(), stored_bytes)
}

//! A directory as a cache.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io,
    ops::Range,
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::Waker,
};

use sealback_crypto::{FileId, Geometry, HEADER_BYTES, Nonce, PREFIX_BYTES, Sealed};

use super::{
    LocalOptions, disk,
    eviction::{self, Limit},
    record::Record,
    root::Root,
};
use crate::{
    Cache, CacheFile, Prepared, TargetError,
    flat::{Flat, Place, first_cut, is_stored, overwrite, shorten},
};

/// Copies of sealed files in a directory: `DIR/<file id>.sealed`, sparse, with the server's bytes
/// at a flat file's places, and `DIR/<file id>.record`, which says which of them count.
///
/// All openings of one file in one process, through whatever `LocalCache`, share one object, with
/// the options of the first. A file that another process has open cannot be opened: whoever gets
/// that error goes on without a cache.
///
/// Under [`Durability::PowerCut`](super::Durability::PowerCut) the record is written in such an
/// order that it counts after a loss of power; otherwise it counts until the machine starts anew.
#[derive(Clone, Debug)]
pub struct LocalCache {
    root: Arc<Root>,
    limit: Option<Arc<Limit>>,
}

impl LocalCache {
    /// Opens a directory.
    ///
    /// # Errors
    /// [`TargetErrorKind::NotFound`](crate::TargetErrorKind::NotFound) if it is not there,
    /// [`TargetErrorKind::Unsupported`](crate::TargetErrorKind::Unsupported) if it is no directory,
    /// and others.
    pub fn open(root: impl AsRef<Path>, options: LocalOptions) -> Result<LocalCache, TargetError> {
        let root = Arc::new(Root::open(root.as_ref(), options)?);
        Ok(LocalCache { root, limit: None })
    }

    /// The same, with at most so many bytes on the disk: beyond that, copies that were not opened for
    /// longest are dropped, and parts of those that are open. A sixteenth of it, and what is being
    /// written, may be over it. Counts for copies that are opened from now on.
    #[must_use]
    pub fn with_limit(mut self, max_bytes: u64) -> LocalCache {
        self.limit = Some(Arc::new(Limit::new(max_bytes)));
        self
    }

    /// What the copies in the directory take on the disk, in bytes.
    ///
    /// # Errors
    /// [`TargetError`] if the directory cannot be read.
    pub fn disk_bytes(&self) -> Result<u64, TargetError> {
        eviction::disk_bytes(self.root.dir())
            .map_err(|error| TargetError::from_io("measuring a cache", error))
    }

    /// Where the copy of a file is, whether it is there or not.
    pub fn path_of(&self, file_id: FileId) -> PathBuf {
        self.root.dir().join(format!("{file_id}.sealed"))
    }
}

impl Cache for LocalCache {
    fn open(&self, file_id: FileId, geometry: Geometry) -> Result<Arc<dyn CacheFile>, TargetError> {
        let path = self.path_of(file_id);
        let mut open = open_copies();
        let mut kept = None;
        while let Some(copy) = open.get(&path) {
            kept = copy.upgrade();
            if kept.is_some() {
                break;
            }
            // It is being closed, by another thread, and its record is not yet free.
            open = CLOSED.wait(open).unwrap_or_else(PoisonError::into_inner);
        }
        let Some(copy) = kept else {
            let opened = LocalCopy::open(&path, file_id, geometry, self.root.options);
            let mut copy = opened.map_err(|error| unopened(file_id, error))?;
            copy.limit = self.limit.clone();
            copy.checks |= self.limit.is_some();
            let copy = Arc::new(copy);
            open.insert(path, Arc::downgrade(&copy));
            drop(open);
            if let Some(limit) = &self.limit {
                limit.keep(self.root.dir(), &open_in(self.root.dir()));
            }
            return Ok(copy);
        };
        // Before `copy`, which may be the last, and closes then.
        drop(open);
        if copy.geometry.block_shift() == geometry.block_shift() {
            return Ok(copy);
        }
        Err(unopened(file_id, io::Error::other("it is open with another block size")))
    }
}

/// The copies that are open in this process: the system's lock on a record keeps other processes
/// out, and would keep out a second opening here, too.
static OPEN: Mutex<BTreeMap<PathBuf, Weak<LocalCopy>>> = Mutex::new(BTreeMap::new());

/// Notified when a copy has left [`OPEN`].
static CLOSED: Condvar = Condvar::new();

fn open_copies() -> MutexGuard<'static, BTreeMap<PathBuf, Weak<LocalCopy>>> {
    OPEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The copies in a directory that this process has open.
fn open_in(dir: &Path) -> Vec<Arc<LocalCopy>> {
    let open = open_copies();
    let here = open.iter().filter(|(path, _)| path.parent() == Some(dir));
    here.filter_map(|(_, copy)| copy.upgrade()).collect()
}

fn unopened(file_id: FileId, error: io::Error) -> TargetError {
    TargetError::from_io(format!("opening the cache's copy of {file_id}"), error)
}

/// One file's copy and its record.
#[derive(Debug)]
pub(super) struct LocalCopy {
    path: PathBuf,
    file: File,
    geometry: Geometry,
    options: LocalOptions,
    limit: Option<Arc<Limit>>,
    /// Whether blocks that were written may be gone when they are confirmed: evicted, or cut off.
    checks: bool,
    was_cut: AtomicBool,
    /// The block from which on the next ones are evicted.
    hand: AtomicU64,
    /// Held while the copy changes. Taken after the record's, where both are.
    writing: Mutex<()>,
    record: Mutex<Record>,
}

impl LocalCopy {
    fn open(
        path: &Path,
        file_id: FileId,
        geometry: Geometry,
        options: LocalOptions,
    ) -> io::Result<LocalCopy> {
        let durable = options.survives_power_cut();
        let mut record = Record::open(&path.with_extension("record"), file_id, geometry, durable)?;
        let mut open = OpenOptions::new();
        let file = open.read(true).write(true).create(true).truncate(false).open(path)?;
        if record.is_empty() {
            // Nothing of it counts: its room goes back.
            file.set_len(0)?;
        }
        // A record may be left without its copy, or with less of it.
        let len = file.metadata()?.len();
        let last = first_cut(geometry, len);
        let has_last = len >= geometry.stored_start(last) + PREFIX_BYTES as u64;
        record.forget(last + u64::from(has_last)..u64::MAX)?;
        Ok(LocalCopy {
            path: path.to_owned(),
            file,
            geometry,
            options,
            limit: None,
            checks: false,
            was_cut: AtomicBool::new(false),
            hand: AtomicU64::new(0),
            writing: Mutex::new(()),
            record: Mutex::new(record),
        })
    }

    /// Whether the copy has what was written to it: by its length, and by the nonces if blocks can
    /// have gone since.
    fn has(&self, sealed: &Sealed) -> io::Result<bool> {
        let end = sealed.stored_start() + sealed.bytes().len() as u64;
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let checks = self.checks || self.was_cut.load(Ordering::Relaxed);
        Ok(self.file.metadata()?.len() >= end && (!checks || is_stored(&&self.file, sealed)?))
    }

    /// Drops the next group of blocks that count. Returns how many bytes that frees.
    pub(super) fn shed(&self) -> io::Result<u64> {
        let mut record = self.record();
        let hand = self.hand.load(Ordering::Relaxed);
        let next = match record.next_present(hand)? {
            Some(next) => Some(next),
            None => record.next_present(0)?,
        };
        let Some(blocks) = next else { return Ok(0) };
        record.forget(blocks.clone())?;
        self.hand.store(blocks.end, Ordering::Relaxed);
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let len = self.file.metadata()?.len();
        let stored = self.geometry.stored_start(blocks.start)
            ..self.geometry.stored_start(blocks.end).min(len);
        if !stored.is_empty() {
            (&mut &self.file).punch(stored.clone())?;
        }
        Ok(stored.end.saturating_sub(stored.start).max(1))
    }

    /// A panic half-way leaves no more than an error half-way does: blocks that count as absent.
    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for LocalCopy {
    fn drop(&mut self) {
        self.record().release();
        open_copies().remove(&self.path);
        CLOSED.notify_all();
    }
}

impl Place for LocalCopy {
    fn identity(&self) -> u128 {
        disk::identity(&self.file)
    }

    fn grant(&self, _block: u64, _waker: &Waker) -> Prepared {
        self.options.grant()
    }

    fn exclusively<R>(&self, step: impl FnOnce(&mut dyn Flat) -> R) -> Result<R, TargetError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(step(&mut &self.file))
    }

    fn look<R>(&self, step: impl FnOnce(&dyn Flat) -> R) -> R {
        step(&&self.file)
    }

    fn make_durable(&self) -> Result<(), TargetError> {
        self.options.sync(&self.file)
    }
}

impl CacheFile for LocalCopy {
    fn present(&self, blocks: Range<u64>) -> Vec<Option<Nonce>> {
        self.record().present(blocks)
    }

    fn forget(&self, blocks: Range<u64>) -> Result<(), TargetError> {
        self.record()
            .forget(blocks)
            .map_err(|error| TargetError::from_io("clearing a cache's record", error))
    }

    fn confirm(&self, sealed: &Sealed) -> Result<(), TargetError> {
        let mut record = self.record();
        // The record may not reach the disk before what it speaks of.
        self.make_durable()?;
        let unset = |error| TargetError::from_io("setting a cache's record", error);
        if !self.has(sealed).map_err(unset)? {
            return Err(unset(io::Error::other("the blocks are no longer there")));
        }
        let nonces = sealed.nonces().map(|(_, nonce)| nonce);
        record.confirm(sealed.blocks().start, nonces).map_err(unset)?;
        drop(record);
        if let (Some(limit), Some(dir)) = (&self.limit, self.path.parent())
            && limit.is_due(sealed.bytes().len() as u64)
        {
            limit.keep(dir, &open_in(dir));
        }
        Ok(())
    }

    fn invalidate(&self) -> Result<(), TargetError> {
        // The bytes stay: a write under way could otherwise be confirmed after they are gone.
        self.record()
            .clear()
            .map_err(|error| TargetError::from_io("dropping a cache's record", error))
    }

    fn set_header(
        &self,
        header: &[u8; HEADER_BYTES],
        stored_bytes: u64,
    ) -> Result<(), TargetError> {
        let kept = |error| TargetError::from_io("keeping a copy of the header", error);
        let mut record = self.record();
        if self.file.metadata().map_err(kept)?.len() > stored_bytes {
            // What is cut away, in whole or in part, does not count any more.
            let first = first_cut(self.geometry, stored_bytes);
            self.was_cut.store(true, Ordering::Relaxed);
            record.forget(first..u64::MAX).map_err(kept)?;
        }
        self.exclusively(|flat| {
            overwrite(flat, 0, header).map_err(kept)?;
            shorten(flat, stored_bytes)
        })?
    }
}

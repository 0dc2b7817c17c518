//! A directory as a cache.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io,
    ops::Range,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak},
    task::Waker,
};

use sealback_crypto::{FileId, Geometry, HEADER_BYTES, Nonce, Sealed};

use super::{LocalOptions, disk, record::Record, root::Root};
use crate::{
    Cache, CacheFile, Prepared, TargetError,
    flat::{Flat, Place, first_cut, overwrite, shorten},
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
pub struct LocalCache(Arc<Root>);

impl LocalCache {
    /// Opens a directory.
    ///
    /// # Errors
    /// [`TargetErrorKind::NotFound`](crate::TargetErrorKind::NotFound) if it is not there,
    /// [`TargetErrorKind::Unsupported`](crate::TargetErrorKind::Unsupported) if it is no directory,
    /// and others.
    pub fn open(root: impl AsRef<Path>, options: LocalOptions) -> Result<LocalCache, TargetError> {
        Ok(LocalCache(Arc::new(Root::open(root.as_ref(), options)?)))
    }

    /// Where the copy of a file is, whether it is there or not.
    pub fn path_of(&self, file_id: FileId) -> PathBuf {
        self.0.dir().join(format!("{file_id}.sealed"))
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
            let opened = LocalCopy::open(&path, file_id, geometry, self.0.options);
            let copy = Arc::new(opened.map_err(|error| unopened(file_id, error))?);
            open.insert(path, Arc::downgrade(&copy));
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

fn unopened(file_id: FileId, error: io::Error) -> TargetError {
    TargetError::from_io(format!("opening the cache's copy of {file_id}"), error)
}

/// One file's copy and its record.
#[derive(Debug)]
struct LocalCopy {
    path: PathBuf,
    file: File,
    geometry: Geometry,
    options: LocalOptions,
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
        let record = Record::open(&path.with_extension("record"), file_id, geometry, durable)?;
        let mut open = OpenOptions::new();
        let file = open.read(true).write(true).create(true).truncate(false).open(path)?;
        if record.is_empty() {
            // Nothing of it counts: its room goes back.
            file.set_len(0)?;
        }
        let (writing, record) = (Mutex::new(()), Mutex::new(record));
        let path = path.to_owned();
        Ok(LocalCopy { path, file, geometry, options, writing, record })
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
        let end = sealed.stored_start() + sealed.bytes().len() as u64;
        if self.file.metadata().map_err(unset)?.len() < end {
            // The copy was cut since the blocks were written.
            return Err(unset(io::Error::other("the blocks are no longer there")));
        }
        let nonces = sealed.nonces().map(|(_, nonce)| nonce);
        record.confirm(sealed.blocks().start, nonces).map_err(unset)
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
            record.forget(first..u64::MAX).map_err(kept)?;
        }
        self.exclusively(|flat| {
            overwrite(flat, 0, header).map_err(kept)?;
            shorten(flat, stored_bytes)
        })?
    }
}

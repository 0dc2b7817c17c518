//! A directory as a cache.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use sealback_crypto::{FileId, Geometry};

use super::{
    LocalOptions,
    copy::{LocalCopy, Terms},
    eviction::{self, Limit},
    open_copies,
    root::Root,
};
use crate::{Cache, CacheFile, Granule, TargetError};

/// Copies of sealed files in a directory: `DIR/<file id>.sealed`, sparse, with the server's bytes
/// at a flat file's places, and `DIR/<file id>.record`, which says which of them count. Nothing
/// else in the directory is counted or touched.
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
    granule: Option<Granule>,
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
        Ok(LocalCache { root, limit: None, granule: None })
    }

    /// The same, with at most so many bytes on the disk, as [`disk_bytes`](LocalCache::disk_bytes)
    /// counts them: at once, and for the copies that are opened from now on.
    ///
    /// Copies that nobody has open go first, those that were opened longest ago before others; then
    /// blocks of those that were opened with a limit in this process. That costs speed, and never
    /// fails a write. What is being written at the moment may be over the limit; so may a sixteenth
    /// of it for each further process that writes to the directory, and whatever other processes,
    /// or copies that were opened without a limit, have open.
    #[must_use]
    pub fn with_limit(mut self, max_bytes: u64) -> LocalCache {
        let limit = Limit::new(max_bytes);
        limit.keep(self.root.dir());
        self.limit = Some(Arc::new(limit));
        self
    }

    /// The same, with copies that would rather have whole granules: those that are opened from now on.
    /// See [`CacheFile::granule`].
    ///
    /// ```
    /// use sealback_stream::{Granule, LocalCache, LocalOptions};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// # let dir = dir.path();
    /// let cache = LocalCache::open(dir, LocalOptions::default())?;
    /// let cache = cache.with_granule(Granule::new(256 << 10)?);
    /// # let _ = cache;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn with_granule(mut self, granule: Granule) -> LocalCache {
        self.granule = Some(granule);
        self
    }

    /// What the copies in the directory, and their records, take on the disk, in bytes.
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
        if let Some(limit) = &self.limit {
            limit.reserve(self.root.dir(), LocalCopy::EMPTY_BYTES);
        }
        let unopened =
            |error| TargetError::from_io(format!("opening the cache's copy of {file_id}"), error);
        let terms =
            Terms { options: self.root.options, limit: self.limit.clone(), granule: self.granule };
        let open = || LocalCopy::open(&path, file_id, geometry, terms);
        let copy = open_copies::open(&path, open).map_err(unopened)?;
        if copy.geometry().block_shift() == geometry.block_shift() {
            return Ok(copy);
        }
        Err(unopened(io::Error::other("it is open with another block size")))
    }
}

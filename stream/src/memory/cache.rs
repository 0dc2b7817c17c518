//! A cache in memory.

use std::{collections::BTreeMap, fmt, io, ops::Range};

use sealback_crypto::{FileId, Geometry, HEADER_BYTES, Nonce, Sealed};

use super::{
    MemoryOptions,
    file::{MemoryFile, More},
    meter::Meter,
};
use crate::{
    Cache, CacheFile, Granule, TargetError,
    flat::{Operation, Place, cut_before, first_cut, overwrite, stored_of},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

/// Copies of sealed files in memory, with their records. Clones are the same cache.
#[derive(Clone)]
pub struct MemoryCache(Arc<Shared>);

struct Shared {
    copies: Mutex<BTreeMap<FileId, Arc<MemoryCopy>>>,
    meter: Arc<Meter>,
    // Numbers only: they publish nothing.
    max_bytes: AtomicU64,
    n_opened: AtomicU64,
    granule: Mutex<Option<Granule>>,
}

impl MemoryCache {
    /// A cache without copies.
    pub fn new(options: MemoryOptions) -> MemoryCache {
        MemoryCache(Arc::new(Shared {
            copies: Mutex::default(),
            meter: Meter::new(options),
            max_bytes: AtomicU64::new(u64::MAX),
            n_opened: AtomicU64::new(0),
            granule: Mutex::default(),
        }))
    }

    /// The same, with at most so many bytes in all copies, gaps included, whenever blocks have been
    /// confirmed: copies that nobody has open go first, those that were opened longest ago before
    /// others, then the blocks of the largest.
    #[must_use]
    pub fn with_limit(self, max_bytes: u64) -> MemoryCache {
        self.0.max_bytes.store(max_bytes, Ordering::Relaxed);
        self.0.keep();
        self
    }

    /// The same, with copies that would rather have whole granules, from now on. See
    /// [`CacheFile::granule`].
    #[must_use]
    pub fn with_granule(self, granule: Granule) -> MemoryCache {
        *self.0.granule() = Some(granule);
        self
    }

    /// The whole of a copy: header and blocks.
    pub fn stored(&self, file_id: FileId) -> Option<Vec<u8>> {
        Some(self.0.copies().get(&file_id)?.inode.bytes().clone())
    }

    /// Tampers: changes the bytes of a copy, if there is one, and leaves its record.
    pub fn set_stored(&self, file_id: FileId, bytes: Vec<u8>) {
        if let Some(copy) = self.0.copies().get(&file_id) {
            *copy.inode.bytes() = bytes;
        }
    }

    /// Credits that are held by grants now.
    pub fn credits_out(&self) -> u32 {
        self.0.meter.credits_out()
    }

    /// Reads of blocks so far, on all copies.
    pub fn n_reads(&self) -> u64 {
        self.0.meter.count(Operation::Read)
    }

    /// Writes of blocks so far, on all copies, successful or not.
    pub fn n_writes(&self) -> u64 {
        self.0.meter.count(Operation::Write)
    }
}

impl Shared {
    fn copies(&self) -> MutexGuard<'_, BTreeMap<FileId, Arc<MemoryCopy>>> {
        self.copies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn granule(&self) -> MutexGuard<'_, Option<Granule>> {
        self.granule.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Drops copies and blocks until all are within the limit, or nothing but headers is left.
    fn keep(&self) {
        let max_bytes = self.max_bytes.load(Ordering::Relaxed);
        if max_bytes == u64::MAX {
            return;
        }
        let mut copies = self.copies();
        let stored = |copies: &BTreeMap<FileId, Arc<MemoryCopy>>| -> u64 {
            copies.values().map(|copy| copy.stored_bytes()).sum()
        };
        while stored(&copies) > max_bytes {
            // Whoever opens one must have the list.
            let closed = copies.iter().filter(|(_, copy)| Arc::strong_count(copy) == 1);
            let oldest = closed.min_by_key(|(_, copy)| copy.more.opened.load(Ordering::Relaxed));
            if let Some(file_id) = oldest.map(|(file_id, _)| *file_id) {
                copies.remove(&file_id);
                continue;
            }
            match copies.values().max_by_key(|copy| copy.stored_bytes()) {
                Some(largest) if largest.stored_bytes() > HEADER_BYTES as u64 => largest.empty(),
                _ => return,
            }
        }
    }
}

impl Cache for MemoryCache {
    fn open(&self, file_id: FileId, geometry: Geometry) -> Result<Arc<dyn CacheFile>, TargetError> {
        let mut copies = self.0.copies();
        let opened = self.0.n_opened.fetch_add(1, Ordering::Relaxed);
        if let Some(copy) = copies.get(&file_id)
            && copy.more.geometry.block_shift() == geometry.block_shift()
        {
            copy.more.opened.store(opened, Ordering::Relaxed);
            return Ok(copy.clone());
        }
        let opened = AtomicU64::new(opened);
        let cache = Arc::downgrade(&self.0);
        let more = Record { cache, geometry, nonces: Mutex::default(), opened };
        let meter = self.0.meter.clone();
        let copy = Arc::new(MemoryFile { inode: Arc::default(), meter, more });
        copies.insert(file_id, copy.clone());
        Ok(copy)
    }
}

impl fmt::Debug for MemoryCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryCache").field("meter", &self.0.meter).finish_non_exhaustive()
    }
}

/// One file's copy.
type MemoryCopy = MemoryFile<Record>;

/// What of the copy counts.
#[derive(Debug)]
struct Record {
    cache: Weak<Shared>,
    geometry: Geometry,
    nonces: Mutex<BTreeMap<u64, Nonce>>,
    /// The number of its last opening.
    opened: AtomicU64,
}

impl MemoryCopy {
    fn stored_bytes(&self) -> u64 {
        self.inode.bytes().len() as u64
    }

    /// Drops all its blocks.
    fn empty(&self) {
        let mut bytes = self.inode.bytes();
        self.more.nonces().clear();
        bytes.truncate(HEADER_BYTES);
        bytes.shrink_to_fit();
    }
}

impl Record {
    /// Nothing under the lock can panic half-way.
    fn nonces(&self) -> MutexGuard<'_, BTreeMap<u64, Nonce>> {
        self.nonces.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl More for Record {}

impl CacheFile for MemoryCopy {
    fn present(&self, blocks: Range<u64>) -> Vec<Option<Nonce>> {
        let nonces = self.more.nonces();
        blocks.map(|block| nonces.get(&block).copied()).collect()
    }

    fn forget(&self, blocks: Range<u64>) -> Result<(), TargetError> {
        self.more.nonces().retain(|block, _| !blocks.contains(block));
        Ok(())
    }

    fn confirm(&self, sealed: &Sealed) -> Result<(), TargetError> {
        let unset = |error| TargetError::from_io("setting a cache's record", error);
        // Blocks may have been evicted or cut off since they were written.
        let stored = self.exclusively(|flat| {
            let stored = stored_of(flat, sealed).map_err(unset)?;
            let there = sealed.nonces().zip(&stored).filter(|(_, stored)| stored.is_some());
            self.more.nonces().extend(there.map(|(entry, _)| entry));
            Ok(stored)
        })??;
        if let Some(cache) = self.more.cache.upgrade() {
            cache.keep();
        }
        if stored.contains(&None) {
            return Err(unset(io::Error::other("the blocks are no longer there")));
        }
        Ok(())
    }

    fn invalidate(&self) -> Result<(), TargetError> {
        self.more.nonces().clear();
        Ok(())
    }

    fn set_header(
        &self,
        header: &[u8; HEADER_BYTES],
        stored_bytes: u64,
    ) -> Result<(), TargetError> {
        let kept = |error| TargetError::from_io("keeping a copy of the header", error);
        self.exclusively(|flat| {
            let geometry = self.more.geometry;
            let first = first_cut(geometry, stored_bytes);
            let cuts = flat.len()? > stored_bytes;
            overwrite(flat, 0, header)?;
            if cuts {
                // What is cut away, in whole or in part, does not count any more.
                self.more.nonces().split_off(&first);
                cut_before(flat, geometry.stored_start(first).min(stored_bytes))?;
            }
            Ok(())
        })?
        .map_err(kept)
    }

    fn granule(&self) -> Option<Granule> {
        self.more.cache.upgrade().and_then(|cache| *cache.granule())
    }
}

//! A cache in memory.

use std::{
    collections::BTreeMap,
    fmt, io,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use sealback_crypto::{FileId, Geometry, HEADER_BYTES, Nonce, Sealed};

use super::{
    MemoryOptions,
    file::{MemoryFile, More},
    meter::Meter,
};
use crate::{
    Cache, CacheFile, TargetError,
    flat::{Operation, Place, first_cut, is_stored, overwrite, shorten},
};

/// Copies of sealed files in memory, with their records. Clones are the same cache.
#[derive(Clone)]
pub struct MemoryCache(Arc<Shared>);

struct Shared {
    copies: Mutex<BTreeMap<FileId, Arc<MemoryCopy>>>,
    meter: Arc<Meter>,
}

impl MemoryCache {
    /// A cache without copies.
    pub fn new(options: MemoryOptions) -> MemoryCache {
        let meter = Meter::new(options);
        MemoryCache(Arc::new(Shared { copies: Mutex::default(), meter }))
    }

    /// The whole of a copy: header and blocks.
    pub fn stored(&self, file_id: FileId) -> Option<Vec<u8>> {
        Some(self.copies().get(&file_id)?.inode.bytes().clone())
    }

    /// Tampers: changes the bytes of a copy, if there is one, and leaves its record.
    pub fn set_stored(&self, file_id: FileId, bytes: Vec<u8>) {
        if let Some(copy) = self.copies().get(&file_id) {
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

    fn copies(&self) -> MutexGuard<'_, BTreeMap<FileId, Arc<MemoryCopy>>> {
        self.0.copies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cache for MemoryCache {
    fn open(&self, file_id: FileId, geometry: Geometry) -> Result<Arc<dyn CacheFile>, TargetError> {
        let mut copies = self.copies();
        if let Some(copy) = copies.get(&file_id)
            && copy.more.geometry.block_shift() == geometry.block_shift()
        {
            return Ok(copy.clone());
        }
        let more = Record { geometry, nonces: Mutex::default() };
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
    geometry: Geometry,
    nonces: Mutex<BTreeMap<u64, Nonce>>,
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
        self.exclusively(|flat| {
            if !is_stored(flat, sealed).map_err(unset)? {
                return Err(unset(io::Error::other("the blocks are no longer there")));
            }
            self.more.nonces().extend(sealed.nonces());
            Ok(())
        })?
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
            if flat.len().map_err(kept)? > stored_bytes {
                self.more.nonces().split_off(&first_cut(self.more.geometry, stored_bytes));
            }
            overwrite(flat, 0, header).map_err(kept)?;
            shorten(flat, stored_bytes)
        })?
    }
}

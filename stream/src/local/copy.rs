//! One file's copy in a cache's directory: a flat file that may have gaps, and its record.
//!
//! **Invariants:**
//! 1. A block's bytes are taken away (evicted, cut, punched) only after its entry was cleared.
//! 2. An entry is set only while the block is stored: either nothing was ever taken from the copy
//!    since it was opened, so that what was written is there, or its nonce is read back.

use std::{
    fs::{File, OpenOptions},
    io::{self, IoSlice},
    ops::Range,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::Waker,
};

use sealback_crypto::{FileId, Geometry, HEADER_BYTES, Nonce, Sealed};

use super::{
    LocalOptions,
    disk::{self, PAGE_BYTES},
    eviction::Limit,
    open_copies,
    record::Record,
};
use crate::{
    CacheFile, Granule, Prepared, TargetError, Write,
    flat::{Flat, Place, Through, cut_before, first_cut, overwrite, stored_of, whole_blocks},
};

/// What an open copy keeps to.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    pub(super) options: LocalOptions,
    pub(super) limit: Option<Arc<Limit>>,
    pub(super) granule: Option<Granule>,
}

/// An open copy.
#[derive(Debug)]
pub(super) struct LocalCopy {
    path: PathBuf,
    file: File,
    geometry: Geometry,
    terms: Terms,
    /// Whether bytes were taken from the copy since it was opened. Set before they are, and read
    /// under the record's lock, under which blocks are evicted and cut.
    taken: AtomicBool,
    /// The block from which on the next ones are evicted: a hint, which publishes nothing.
    hand: AtomicU64,
    /// Held while the copy changes. Taken after the record's, where both are.
    writing: Mutex<()>,
    record: Mutex<Record>,
}

impl LocalCopy {
    /// What a copy takes that has no block: its header, and its record's.
    pub(super) const EMPTY_BYTES: u64 = HEADER_BYTES as u64 + PAGE_BYTES;

    pub(super) fn open(
        path: &Path,
        file_id: FileId,
        geometry: Geometry,
        terms: Terms,
    ) -> io::Result<LocalCopy> {
        let durable = terms.options.survives_power_cut();
        let mut record = Record::open(&path.with_extension("record"), file_id, geometry, durable)?;
        let mut open = OpenOptions::new();
        let file = open.read(true).write(true).create(true).truncate(false).open(path)?;
        if record.is_empty() {
            // Nothing of it counts: its room goes back.
            file.set_len(0)?;
        }
        // A record may be left without its copy, or with less of it.
        record.forget(whole_blocks(&&file, geometry)?..u64::MAX)?;
        Ok(LocalCopy {
            path: path.to_owned(),
            file,
            geometry,
            terms,
            taken: AtomicBool::new(false),
            hand: AtomicU64::new(0),
            writing: Mutex::new(()),
            record: Mutex::new(record),
        })
    }

    pub(super) fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// Whether it may lose blocks.
    pub(super) fn is_limited(&self) -> bool {
        self.terms.limit.is_some()
    }

    /// What it takes on the disk, with its record. What cannot be asked counts as nothing.
    pub(super) fn disk_bytes(&self) -> u64 {
        disk::taken_bytes(&self.file) + self.record().disk_bytes()
    }

    /// Drops blocks, in runs of about `run_bytes`, from where it stopped the last time, until
    /// `wanted` bytes of room have gone back or it has been all round. Returns how many have.
    pub(super) fn evict(&self, wanted: u64, run_bytes: u64) -> u64 {
        let run_blocks = (run_bytes / self.geometry.stride_bytes()).clamp(1, MAX_RUN_BLOCKS);
        let before = self.disk_bytes();
        let start = self.hand.load(Ordering::Relaxed);
        let (mut at, mut freed) = (start, 0);
        for end in [u64::MAX, start] {
            while freed < wanted
                && let Some(block) = self.next_stored(at)
                && block < end
            {
                at = block + run_blocks;
                if self.drop_blocks(block..at).is_err() {
                    return freed;
                }
                freed = before.saturating_sub(self.disk_bytes());
            }
            if freed >= wanted {
                break;
            }
            at = 0;
        }
        self.hand.store(at, Ordering::Relaxed);
        freed
    }

    /// The next block, from one on, of which there is something on the disk.
    fn next_stored(&self, block: u64) -> Option<u64> {
        let len = self.file.metadata().ok()?.len();
        let at = self.geometry.stored_start(block);
        let found = if at < len { disk::next_data(&self.file, at).ok()?? } else { len };
        (found < len).then(|| first_cut(self.geometry, found))
    }

    /// Forgets blocks, and gives their room back. Where the file system cannot give back a part,
    /// all blocks go.
    fn drop_blocks(&self, blocks: Range<u64>) -> io::Result<()> {
        let mut record = self.record();
        record.forget(blocks.clone())?;
        record.give_back(&blocks)?;
        let (start, end) =
            (self.geometry.stored_start(blocks.start), self.geometry.stored_start(blocks.end));
        if self.change(|flat| disk::give_back(flat, start..end))? {
            return Ok(());
        }
        record.clear()?;
        self.change(|flat| cut_before(flat, HEADER_BYTES as u64))
    }

    /// Runs a step that changes the copy.
    fn change<R>(&self, step: impl FnOnce(&mut dyn Flat) -> R) -> R {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        step(&mut Watched { file: &self.file, taken: &self.taken })
    }

    /// A panic half-way leaves no more than an error half-way does: blocks that count as absent.
    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for LocalCopy {
    fn drop(&mut self) {
        self.record().release();
        open_copies::closed(&self.path);
    }
}

impl Place for LocalCopy {
    fn identity(&self) -> u128 {
        disk::identity(&self.file)
    }

    fn grant(&self, _block: u64, _waker: &Waker) -> Prepared {
        self.terms.options.grant()
    }

    fn make_room(&self, write: &Write) {
        if let (Some(limit), Some(dir)) = (&self.terms.limit, self.path.parent()) {
            // A run's ends, and its entries in the record, may each take a page of their own.
            limit.reserve(dir, write.bytes() + write.segments.len() as u64 * 3 * PAGE_BYTES);
        }
    }

    fn exclusively<R>(&self, step: impl FnOnce(&mut dyn Flat) -> R) -> Result<R, TargetError> {
        Ok(self.change(step))
    }

    fn look<R>(&self, step: impl FnOnce(&dyn Flat) -> R) -> R {
        step(&&self.file)
    }

    fn make_durable(&self) -> Result<(), TargetError> {
        self.terms.options.sync(&self.file)
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
        let gone = || unset(io::Error::other("the blocks are no longer there"));
        let end = sealed.stored_start() + sealed.bytes().len() as u64;
        if self.file.metadata().map_err(unset)?.len() < end {
            return Err(gone());
        }
        let nonces = match self.taken.load(Ordering::Acquire) {
            true => stored_of(&&self.file, sealed).map_err(unset)?,
            false => sealed.nonces().map(|(_, nonce)| Some(nonce)).collect(),
        };
        let mut first = sealed.blocks().start;
        for run in nonces.chunk_by(|one, next| one.is_some() == next.is_some()) {
            let there: Vec<Nonce> = run.iter().copied().flatten().collect();
            if !there.is_empty() {
                record.confirm(first, &there).map_err(unset)?;
            }
            first += run.len() as u64;
        }
        if nonces.contains(&None) { Err(gone()) } else { Ok(()) }
    }

    fn invalidate(&self) -> Result<(), TargetError> {
        // The bytes stay: they are what the next writes go over.
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
        let cuts = self.file.metadata().map_err(kept)?.len() > stored_bytes;
        let first = first_cut(self.geometry, stored_bytes);
        if cuts {
            // What is cut away, in whole or in part, does not count any more.
            record.forget(first..u64::MAX).map_err(kept)?;
        }
        self.change(|flat| {
            overwrite(flat, 0, header)?;
            match cuts {
                true => cut_before(flat, self.geometry.stored_start(first).min(stored_bytes)),
                false => Ok(()),
            }
        })
        .map_err(kept)
    }

    fn granule(&self) -> Option<Granule> {
        self.terms.granule
    }
}

/// The copy's file, which notes when bytes are taken from it.
struct Watched<'a> {
    file: &'a File,
    taken: &'a AtomicBool,
}

impl Watched<'_> {
    /// Pairs with the Acquire in `confirm`.
    fn note(&self) {
        self.taken.store(true, Ordering::Release);
    }
}

impl Flat for Watched<'_> {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<usize> {
        Flat::read_at(&self.file, at, into)
    }

    fn write_at(&mut self, at: u64, pieces: &mut [IoSlice<'_>]) -> Through {
        self.file.write_at(at, pieces)
    }

    fn punch(&mut self, stored: Range<u64>) -> io::Result<bool> {
        self.note();
        self.file.punch(stored)
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        self.note();
        Flat::set_len(&mut self.file, len)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync()
    }
}

/// Blocks that are dropped in one step: those of 32 KiB of record.
const MAX_RUN_BLOCKS: u64 = 1024;

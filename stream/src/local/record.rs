//! Which blocks of a cache's copy are there: one entry a block, and no entry believed unchecked.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | magic `SBRECORD` |
//! | 8 | 2 | version, 1 |
//! | 10 | 1 | block_shift |
//! | 11 | 5 | zero |
//! | 16 | 32 | file id |
//! | 48 | 16 | id of the machine's run for which it counts; zero: for every run |
//! | 64 | 32 | zero |
//! | 96 | 32 | BLAKE3 of bytes 0 to 96 |
//! | 128 + 32*i | 24 | nonce of block i |
//! | 152 + 32*i | 8 | first bytes of `BLAKE3(nonce || i as u64 || file id)` |
//!
//! **Invariants:**
//! 1. An entry that does not check means absent. So does one that is not there.
//! 2. Whoever has the record open holds its lock until it is closed: what is known in memory stays
//!    true, and forgetting blocks that were never confirmed takes no system call.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io,
    ops::Range,
    path::Path,
    process,
    time::SystemTime,
};

use sealback_crypto::{FileId, Geometry, Nonce};

use super::{disk::next_data, lock};
use crate::flat::{Flat, overwrite};

/// An open record, held against other processes.
#[derive(Debug)]
pub(super) struct Record {
    file: File,
    file_id: FileId,
    header: [u8; HEADER_LEN],
    /// Whether what is forgotten must survive the loss of power.
    durable: bool,
    /// In this many groups, entries from before the record was opened may stand.
    carried_groups: u64,
    /// Groups in which entries were set since.
    groups: BTreeSet<u64>,
}

impl Record {
    /// Opens, or makes, the record of a file. One that does not fit counts as lost.
    ///
    /// It is an error, of kind `WouldBlock`, if another process has it open.
    pub(super) fn open(
        path: &Path,
        file_id: FileId,
        geometry: Geometry,
        durable: bool,
    ) -> io::Result<Record> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).open(path)?;
        if !lock::try_lock(&file)? {
            let context = "another process has the copy open";
            return Err(io::Error::new(io::ErrorKind::WouldBlock, context));
        }
        let run = if durable { [0; 16] } else { run_id() };
        let header = header(file_id, geometry, run);
        let mut stored = [0; HEADER_LEN];
        (&file).read_at(0, &mut stored)?;
        // What was not opened for longest is evicted first; where it cannot be set, by writes alone.
        let _ = file.set_modified(SystemTime::now());
        let entry_bytes = file.metadata()?.len().saturating_sub(HEADER_BYTES);
        let carried_groups = entry_bytes.div_ceil(ENTRY_BYTES).div_ceil(GROUP_BLOCKS);
        let groups = BTreeSet::new();
        let mut record = Record { file, file_id, header, durable, carried_groups, groups };
        if stored != header {
            record.clear()?;
        }
        Ok(record)
    }

    /// Whether no block can be there.
    pub(super) fn is_empty(&self) -> bool {
        self.carried_groups == 0 && self.groups.is_empty()
    }

    /// The nonce of each of `blocks`, `None` for absent.
    pub(super) fn present(&self, blocks: Range<u64>) -> Vec<Option<Nonce>> {
        let mut nonces = Vec::new();
        for part in by_group(blocks) {
            let n_before = nonces.len();
            if self.may_have(group_of(part.start))
                && let Ok(entries) = self.read(&part)
            {
                let entries = part.clone().zip(entries.chunks_exact(ENTRY_LEN));
                nonces.extend(entries.map(|(block, entry)| self.check(block, entry)));
            }
            let n_blocks = usize::try_from(part.end - part.start).unwrap_or(GROUP_LEN);
            nonces.resize(n_before + n_blocks, None);
        }
        nonces
    }

    /// Clears the entries of `blocks`.
    pub(super) fn forget(&mut self, blocks: Range<u64>) -> io::Result<()> {
        let end = blocks.end.div_ceil(GROUP_BLOCKS);
        let mut cleared = false;
        let mut from = group_of(blocks.start);
        while let Some(group) = self.next_suspect(from, end)? {
            let (start, end) = (group * GROUP_BLOCKS, (group + 1) * GROUP_BLOCKS);
            cleared |= self.forget_part(&(start.max(blocks.start)..end.min(blocks.end)))?;
            if blocks.start <= start && end <= blocks.end {
                self.groups.remove(&group);
            }
            from = group + 1;
        }
        if cleared { self.sync() } else { Ok(()) }
    }

    /// The next group, from one on and before another, in which entries may stand.
    fn next_suspect(&self, from: u64, end: u64) -> io::Result<Option<u64>> {
        let carried = match from < end.min(self.carried_groups) {
            true => next_data(&self.file, entry_at(from * GROUP_BLOCKS))?.map(group_at),
            false => None,
        };
        let carried =
            carried.map(|group| group.max(from)).filter(|group| *group < self.carried_groups);
        let set = if from < end { self.groups.range(from..end).next().copied() } else { None };
        Ok(carried.into_iter().chain(set).min().filter(|group| *group < end))
    }

    /// The next block that is present, from one on, with all present blocks of its group.
    pub(super) fn next_present(&self, from: u64) -> io::Result<Option<Range<u64>>> {
        let mut group = group_of(from);
        while let Some(suspect) = self.next_suspect(group, u64::MAX / GROUP_BLOCKS)? {
            let blocks = suspect * GROUP_BLOCKS..(suspect + 1) * GROUP_BLOCKS;
            let nonces = self.present(blocks.clone());
            let present = |index: &usize| nonces[*index].is_some();
            if let Some(first) = (0..nonces.len()).find(present) {
                return Ok(Some(blocks.start + first as u64..blocks.end));
            }
            group = suspect + 1;
        }
        Ok(None)
    }

    /// Sets the entries of consecutive blocks from `first` on.
    pub(super) fn confirm(
        &mut self,
        first: u64,
        nonces: impl Iterator<Item = Nonce>,
    ) -> io::Result<()> {
        let mut entries = Vec::new();
        let mut end = first;
        for nonce in nonces {
            entries.extend_from_slice(nonce.as_bytes());
            entries.extend_from_slice(&checksum(self.file_id, end, &nonce));
            end += 1;
        }
        // Before the entries can be there, so that an error half-way leaves none unknown.
        self.groups.extend(by_group(first..end).map(|part| group_of(part.start)));
        overwrite(&mut &self.file, entry_at(first), &entries)
    }

    /// Clears everything.
    pub(super) fn clear(&mut self) -> io::Result<()> {
        // Emptied first: a crash in between leaves a record that does not check.
        self.file.set_len(0)?;
        overwrite(&mut &self.file, 0, &self.header)?;
        self.sync()?;
        self.carried_groups = 0;
        self.groups.clear();
        Ok(())
    }

    /// Lets other processes open it, before it is closed.
    pub(super) fn release(&self) {
        // Closing the file would do it, too.
        drop(self.file.unlock());
    }

    fn may_have(&self, group: u64) -> bool {
        group < self.carried_groups || self.groups.contains(&group)
    }

    /// Clears entries of one group; whether there were any.
    fn forget_part(&mut self, part: &Range<u64>) -> io::Result<bool> {
        let entries = self.read(part)?;
        let is_set = |entry: &[u8]| entry.iter().any(|byte| *byte != 0);
        let set = entries.chunks_exact(ENTRY_LEN).map(is_set);
        let set: Vec<u64> =
            part.clone().zip(set).filter(|(_, set)| *set).map(|(block, _)| block).collect();
        let (Some(first), Some(last)) = (set.first(), set.last()) else { return Ok(false) };
        let n_entries = usize::try_from(last - first + 1).unwrap_or(GROUP_LEN);
        overwrite(&mut &self.file, entry_at(*first), &vec![0; n_entries * ENTRY_LEN])?;
        Ok(true)
    }

    /// The entries of blocks of one group; zeros where the record ends.
    fn read(&self, part: &Range<u64>) -> io::Result<Vec<u8>> {
        let n_blocks = usize::try_from(part.end - part.start).unwrap_or(GROUP_LEN);
        let mut entries = vec![0; n_blocks * ENTRY_LEN];
        (&self.file).read_at(entry_at(part.start), &mut entries)?;
        Ok(entries)
    }

    fn check(&self, block: u64, entry: &[u8]) -> Option<Nonce> {
        let (nonce, sum) = entry.split_first_chunk::<24>()?;
        let nonce = Nonce::from_bytes(*nonce);
        (sum == checksum(self.file_id, block, &nonce)).then_some(nonce)
    }

    fn sync(&self) -> io::Result<()> {
        if self.durable { self.file.sync_data() } else { Ok(()) }
    }
}

/// A range of blocks, cut where groups end.
fn by_group(blocks: Range<u64>) -> impl Iterator<Item = Range<u64>> {
    let mut start = blocks.start;
    std::iter::from_fn(move || {
        let part = start..blocks.end.min((group_of(start) + 1) * GROUP_BLOCKS);
        start = part.end.max(start);
        (!part.is_empty()).then_some(part)
    })
}

fn group_of(block: u64) -> u64 {
    block / GROUP_BLOCKS
}

/// The group that has an entry at a place of the record.
fn group_at(place: u64) -> u64 {
    group_of(place.saturating_sub(HEADER_BYTES) / ENTRY_BYTES)
}

fn entry_at(block: u64) -> u64 {
    HEADER_BYTES + block * ENTRY_BYTES
}

fn checksum(file_id: FileId, block: u64, nonce: &Nonce) -> [u8; 8] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(nonce.as_bytes()).update(&block.to_le_bytes()).update(file_id.as_bytes());
    let mut sum = [0; 8];
    sum.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    sum
}

fn header(file_id: FileId, geometry: Geometry, run: [u8; 16]) -> [u8; HEADER_LEN] {
    let mut header = [0; HEADER_LEN];
    header[..8].copy_from_slice(b"SBRECORD");
    header[8..10].copy_from_slice(&1_u16.to_le_bytes());
    header[10] = geometry.block_shift();
    header[16..48].copy_from_slice(file_id.as_bytes());
    header[48..64].copy_from_slice(&run);
    let sum = blake3::hash(&header[..96]);
    header[96..].copy_from_slice(sum.as_bytes());
    header
}

/// What tells this run of the machine from others: without a disk that was waited for, what an
/// earlier run left behind may be older than what it had acknowledged.
fn run_id() -> [u8; 16] {
    // Where the system does not say, the process stands for it.
    let run = fs::read("/proc/sys/kernel/random/boot_id")
        .unwrap_or_else(|_| format!("{} {:?}", process::id(), SystemTime::now()).into());
    let mut id = [0; 16];
    id.copy_from_slice(&blake3::hash(&run).as_bytes()[..16]);
    id
}

const HEADER_LEN: usize = 128;
const HEADER_BYTES: u64 = HEADER_LEN as u64;
const ENTRY_LEN: usize = 32;
const ENTRY_BYTES: u64 = ENTRY_LEN as u64;
/// Blocks whose entries are looked after together: 32 KiB of record.
const GROUP_BLOCKS: u64 = 1024;
const GROUP_LEN: usize = 1024;

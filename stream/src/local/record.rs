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
    fs::{File, OpenOptions},
    io,
    ops::Range,
    path::Path,
    time::SystemTime,
};

use sealback_crypto::{FileId, Geometry, Nonce};

use super::{disk, lock, run::run_id};
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
    /// Whether an attempt to clear something failed: it may stand, or come back after a crash.
    uncleared: bool,
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
        let Some(file) = claim(path)? else {
            let context = "another process has the copy open";
            return Err(io::Error::new(io::ErrorKind::WouldBlock, context));
        };
        let run = if durable { [0; 16] } else { run_id() };
        let header = header(file_id, geometry, run);
        let mut stored = [0; HEADER_LEN];
        (&file).read_at(0, &mut stored)?;
        let entry_bytes = file.metadata()?.len().saturating_sub(HEADER_BYTES);
        let carried_groups = entry_bytes.div_ceil(ENTRY_BYTES).div_ceil(GROUP_BLOCKS);
        let (groups, uncleared) = (BTreeSet::new(), false);
        let mut record =
            Record { file, file_id, header, durable, carried_groups, groups, uncleared };
        if stored != header {
            record.clear()?;
        }
        record.touch();
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

    /// Clears the entries of `blocks`; all, where an earlier attempt failed: it is not known how
    /// far that one got, and a disk that failed once to take something does not say so again.
    pub(super) fn forget(&mut self, blocks: Range<u64>) -> io::Result<()> {
        if self.uncleared {
            return self.clear();
        }
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
        if cleared { self.cleared() } else { Ok(()) }
    }

    /// The next group, from one on and before another, in which entries may stand.
    fn next_suspect(&self, from: u64, end: u64) -> io::Result<Option<u64>> {
        let carried = match from < end.min(self.carried_groups) {
            true => disk::next_data(&self.file, entry_at(from * GROUP_BLOCKS))?.map(group_at),
            false => None,
        };
        let carried =
            carried.map(|group| group.max(from)).filter(|group| *group < self.carried_groups);
        let set = if from < end { self.groups.range(from..end).next().copied() } else { None };
        Ok(carried.into_iter().chain(set).min().filter(|group| *group < end))
    }

    /// Sets the entries of consecutive blocks from `first` on.
    pub(super) fn confirm(&mut self, first: u64, nonces: &[Nonce]) -> io::Result<()> {
        let blocks = first..first + nonces.len() as u64;
        let mut entries = Vec::with_capacity(nonces.len() * ENTRY_LEN);
        for (block, nonce) in blocks.clone().zip(nonces) {
            entries.extend_from_slice(nonce.as_bytes());
            entries.extend_from_slice(&checksum(self.file_id, block, nonce));
        }
        // Before the entries can be there, so that an error half-way leaves none unknown.
        self.groups.extend(by_group(blocks).map(|part| group_of(part.start)));
        overwrite(&mut &self.file, entry_at(first), &entries)
    }

    /// Clears everything.
    pub(super) fn clear(&mut self) -> io::Result<()> {
        self.uncleared = true;
        // Emptied first: a crash in between leaves a record that does not check.
        self.file.set_len(0)?;
        overwrite(&mut &self.file, 0, &self.header)?;
        self.cleared()?;
        self.carried_groups = 0;
        self.groups.clear();
        Ok(())
    }

    /// Gives the room of entries back that were cleared, where the file system can do that.
    pub(super) fn give_back(&mut self, blocks: &Range<u64>) -> io::Result<()> {
        let entries = entry_at(blocks.start)..entry_at(blocks.end);
        disk::give_back(&mut &self.file, entries).map(drop)
    }

    /// What it takes on the disk. What cannot be asked counts as nothing.
    pub(super) fn disk_bytes(&self) -> u64 {
        disk::taken_bytes(&self.file)
    }

    /// Lets other processes open it, before it is closed.
    pub(super) fn release(&self) {
        self.touch();
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
        self.uncleared = true;
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

    /// Ends a clearing that has gone through: from here on a crash cannot bring it back.
    fn cleared(&mut self) -> io::Result<()> {
        if self.durable {
            self.file.sync_data()?;
        }
        self.uncleared = false;
        Ok(())
    }

    /// Notes the time: what was opened and closed longest ago is evicted first. Where it cannot be
    /// noted, the last change stands for it.
    fn touch(&self) {
        drop(self.file.set_modified(SystemTime::now()));
    }
}

/// Opens, or makes, the file of a record and takes its lock; `None` if somebody has it.
pub(super) fn claim(path: &Path) -> io::Result<Option<File>> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    // Goes round only when the copy was evicted in between. Whoever went on with a record that no
    // name leads to would share the copy with the next one, who makes a new record.
    loop {
        let file = options.open(path)?;
        if !lock::try_lock(&file)? {
            return Ok(None);
        }
        if !lock::is_unlinked(&file)? {
            return Ok(Some(file));
        }
    }
}

/// A range of blocks, cut where groups end.
fn by_group(blocks: Range<u64>) -> impl Iterator<Item = Range<u64>> {
    let mut start = blocks.start;
    std::iter::from_fn(move || {
        let part = start..blocks.end.min((group_of(start) + 1).saturating_mul(GROUP_BLOCKS));
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

const HEADER_LEN: usize = 128;
const HEADER_BYTES: u64 = HEADER_LEN as u64;
const ENTRY_LEN: usize = 32;
const ENTRY_BYTES: u64 = ENTRY_LEN as u64;
/// Blocks whose entries are looked after together: 32 KiB of record.
const GROUP_BLOCKS: u64 = 1024;
const GROUP_LEN: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_not_be_cleared_once_is_cleared_for_certain_before_anything_else_is() {
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("record");
        let (file_id, geometry) =
            (FileId::from_bytes([1; 32]), Geometry::new(4096).expect("a block size"));
        let nonces = [2, 3, 4].map(|byte| Nonce::from_bytes([byte; 24]));
        let mut record = Record::open(&path, file_id, geometry, false).unwrap();
        record.confirm(0, &nonces).unwrap();
        let writable = std::mem::replace(&mut record.file, File::open(&path).unwrap());
        record.forget(1..2).unwrap_err();
        record.file = writable;
        // Nobody knows how much of that went through, or will be there after a crash.
        record.forget(0..1).unwrap();
        assert_eq!(record.present(0..3), [None; 3]);
        record.confirm(0, &nonces).unwrap();
        record.forget(1..2).unwrap();
        assert_eq!(record.present(0..3), [Some(nonces[0]), None, Some(nonces[2])]);
    }
}

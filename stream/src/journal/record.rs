//! Records: what is about to be written over blocks, whole, before the first byte of it is.

use std::io::{self, IoSlice};

use sealback_crypto::{Geometry, PREFIX_BYTES};

use super::{LOG_START, Owner, RECORD_ALIGN, RECORD_BYTES, field, head::Head, u32_at, u64_at};
use crate::{
    Segment, Write,
    flat::{Flat, overwrite},
};

/// A record that was found whole.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) epoch: u64,
    /// Where the next one would stand.
    pub(super) end: u64,
    pub(super) geometry: Geometry,
    /// Whether who wrote it waited until the disk had it.
    pub(super) durable: bool,
    pub(super) inode: u64,
    /// The generation that the file's header claimed.
    pub(super) generation: u64,
    pub(super) run: [u8; 16],
    pub(super) entries: Vec<Entry>,
    /// Where the first entry's bytes stand in the log; the others' follow.
    pub(super) payload_at: u64,
}

/// One block that is written over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) block: u64,
    /// How many bytes are stored for it; none if it becomes a hole.
    pub(super) bytes: u32,
    /// The prefix that stood there before.
    pub(super) before: [u8; PREFIX_BYTES],
}

/// A record that is to be written.
pub(super) struct NewRecord<'a> {
    pub(super) geometry: Geometry,
    pub(super) durable: bool,
    pub(super) generation: u64,
    pub(super) entries: Vec<Entry>,
    /// The entries' bytes, one after the other, in as few pieces as there are.
    pub(super) payload: Vec<&'a [u8]>,
}

impl NewRecord<'_> {
    /// What it takes in the log.
    pub(super) fn log_bytes(&self) -> u64 {
        self.bytes().next_multiple_of(RECORD_ALIGN)
    }

    /// Writes it where the log of `head` ends, in one step with the head if that is where the log
    /// begins.
    pub(super) fn write(
        &self,
        log: &mut dyn Flat,
        head: &Head,
        owner: &Owner<'_>,
    ) -> io::Result<()> {
        let begins = head.applied == LOG_START;
        let mut bytes = Vec::new();
        if begins {
            bytes.extend_from_slice(&head.to_bytes(owner));
            bytes.resize(FIRST_RECORD, 0);
        }
        bytes.extend_from_slice(&self.head_and_entries(head, owner));
        let mut pieces = vec![IoSlice::new(&bytes)];
        pieces.extend(self.payload.iter().map(|piece| IoSlice::new(piece)));
        let at = if begins { 0 } else { head.applied };
        log.write_at(at, &mut pieces).whole()
    }

    fn bytes(&self) -> u64 {
        (RECORD_HEAD_LEN + self.entries.len() * ENTRY_LEN) as u64 + self.payload_bytes()
    }

    fn payload_bytes(&self) -> u64 {
        self.payload.iter().map(|piece| piece.len() as u64).sum()
    }

    fn head_and_entries(&self, head: &Head, owner: &Owner<'_>) -> Vec<u8> {
        let mut bytes = vec![0; RECORD_HEAD_LEN];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[28] = self.geometry.block_shift();
        bytes[29] = u8::from(self.durable);
        let n_entries = u32::try_from(self.entries.len()).unwrap_or(u32::MAX);
        bytes[24..28].copy_from_slice(&n_entries.to_le_bytes());
        for (at, value) in [
            (8, head.epoch),
            (16, head.applied),
            (32, self.payload_bytes()),
            (40, owner.inode),
            (48, self.generation),
        ] {
            bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        bytes[56..72].copy_from_slice(&owner.run);
        for entry in &self.entries {
            bytes.extend_from_slice(&entry.block.to_le_bytes());
            bytes.extend_from_slice(&entry.bytes.to_le_bytes());
            bytes.extend_from_slice(&[0; 4]);
            bytes.extend_from_slice(&entry.before);
        }
        let mut parts = vec![&bytes[..HASH_AT], &bytes[RECORD_HEAD_LEN..]];
        parts.extend(&self.payload);
        let hash = owner.hash(&parts);
        bytes[HASH_AT..RECORD_HEAD_LEN].copy_from_slice(&hash);
        bytes
    }
}

/// The part of a write that goes over what the file has.
pub(super) struct Overwritten<'a> {
    pub(super) entries: Vec<Entry>,
    pub(super) payload: Vec<&'a [u8]>,
    /// Whether that is all of it.
    pub(super) all: bool,
}

impl<'a> Overwritten<'a> {
    /// What a write does to the first `n_blocks` blocks of a file, which are stored in `data`.
    pub(super) fn by(
        write: &'a Write,
        n_blocks: u64,
        data: &dyn Flat,
    ) -> io::Result<Overwritten<'a>> {
        let mut overwritten = Overwritten { entries: Vec::new(), payload: Vec::new(), all: true };
        for segment in &write.segments {
            overwritten.add(segment, n_blocks, data)?;
        }
        Ok(overwritten)
    }

    fn add(&mut self, segment: &'a Segment, n_blocks: u64, data: &dyn Flat) -> io::Result<()> {
        let (blocks, geometry) = (segment.blocks(), segment.geometry());
        let within = blocks.start..blocks.end.min(n_blocks).max(blocks.start);
        self.all &= within.end == blocks.end;
        let mut bytes_within = 0;
        for block in within {
            let bytes = match segment {
                Segment::Hole { .. } => 0,
                Segment::Sealed(sealed) => sealed.block_bytes_of(block).len(),
            };
            let mut before = [0; PREFIX_BYTES];
            data.read_at(geometry.stored_start(block), &mut before)?;
            // What is a hole, and is to be one, cannot be torn.
            if bytes > 0 || before != [0; PREFIX_BYTES] {
                let bytes = u32::try_from(bytes).map_err(io::Error::other)?;
                self.entries.push(Entry { block, bytes, before });
            }
            bytes_within += bytes;
        }
        if let Segment::Sealed(sealed) = segment
            && bytes_within > 0
        {
            self.payload.push(&sealed.bytes()[..bytes_within]);
        }
        Ok(())
    }
}

impl Record {
    /// Reads the record at a place; `None` if none stands there that is whole, or it is of a log that
    /// does not count.
    pub(super) fn read(
        log: &dyn Flat,
        at: u64,
        owner: &Owner<'_>,
        counts: impl FnOnce(u64) -> bool,
    ) -> io::Result<Option<Record>> {
        let mut head = [0; RECORD_HEAD_LEN];
        let len = log.len()?;
        if at >= len {
            return Ok(None);
        }
        log.read_at(at, &mut head)?;
        let epoch = u64_at(&head, 8);
        if !head.starts_with(MAGIC) || u64_at(&head, 16) != at || !counts(epoch) {
            return Ok(None);
        }
        let Ok(geometry) = Geometry::new(1_u64.checked_shl(head[28].into()).unwrap_or(0)) else {
            return Ok(None);
        };
        let entries_at = at + RECORD_HEAD_LEN as u64;
        let room = len.saturating_sub(entries_at).min(RECORD_BYTES);
        let entries_bytes = u64::from(u32_at(&head, 24)) * ENTRY_LEN as u64;
        let payload_bytes = u64_at(&head, 32);
        if entries_bytes.checked_add(payload_bytes).is_none_or(|bytes| bytes > room) {
            return Ok(None);
        }
        let mut entries = vec![0; usize::try_from(entries_bytes).map_err(io::Error::other)?];
        log.read_at(entries_at, &mut entries)?;
        let payload_at = entries_at + entries_bytes;
        let hash =
            hash_stored(log, owner, &[&head[..HASH_AT], &entries], payload_at, payload_bytes)?;
        if hash[..] != head[HASH_AT..] {
            return Ok(None);
        }
        let end = (payload_at + payload_bytes).next_multiple_of(RECORD_ALIGN);
        Ok(Some(Record {
            epoch,
            end,
            geometry,
            durable: head[29] != 0,
            inode: u64_at(&head, 40),
            generation: u64_at(&head, 48),
            run: field(&head, 56),
            entries: entries.chunks_exact(ENTRY_LEN).map(entry).collect(),
            payload_at,
        }))
    }

    /// Makes what stands at a place no record.
    pub(super) fn void(log: &mut dyn Flat, at: u64) -> io::Result<()> {
        overwrite(log, at, &[0; 8])
    }
}

fn entry(bytes: &[u8]) -> Entry {
    Entry { block: u64_at(bytes, 0), bytes: u32_at(bytes, 8), before: field(bytes, 16) }
}

/// The hash of parts and of what the log has from a place on.
fn hash_stored(
    log: &dyn Flat,
    owner: &Owner<'_>,
    parts: &[&[u8]],
    mut at: u64,
    bytes: u64,
) -> io::Result<[u8; 32]> {
    let mut hasher = owner.hasher(parts);
    let mut piece = vec![0; usize::try_from(bytes.min(PIECE_BYTES)).map_err(io::Error::other)?];
    let end = at + bytes;
    while at < end {
        let len = usize::try_from((end - at).min(PIECE_BYTES)).map_err(io::Error::other)?;
        let n = log.read_at(at, &mut piece[..len])?;
        hasher.update(&piece[..n]);
        at += len as u64;
    }
    Ok(*hasher.finalize().as_bytes())
}

/// Room for the head, which shares no sector with a record.
const FIRST_RECORD: usize = 512;
const MAGIC: &[u8; 8] = b"SBREDREC";
const RECORD_HEAD_LEN: usize = 104;
const HASH_AT: usize = 72;
const ENTRY_LEN: usize = 64;
const PIECE_BYTES: u64 = 256 << 10;

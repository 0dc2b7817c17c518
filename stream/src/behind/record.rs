//! A log's records: what was written, and what was promised of it, each under a hash.
//!
//! ```text
//!  head: magic, place in the log, bytes of body and payload, hash | body: entries | payload: sealed blocks
//! ```
//! The hash covers the one of the record before and all else, so that a record is whole, and where it was
//! written, or is none.

use std::{
    io::{self, IoSlice},
    ops::Range,
};

use sealback_crypto::{MAX_FILE_BYTES, Nonce};

use super::segment::Promise;
use crate::{Expected, flat::Flat};

/// What one record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Record {
    /// Blocks were written; those that are sealed have their bytes in the payload, one after the other.
    Blocks(Vec<Entry>),
    /// The file was cut behind so many blocks.
    Cut { n_blocks: u64 },
    /// All that stands before it was acknowledged, and there when this was written.
    Kept,
    /// Something was promised of the file, and all that stands before it is what the one wrote who has its key.
    Promise(Promise, Mac),
    /// Blocks are on the server.
    Sent { blocks: Range<u64> },
}

/// By which who has the file's key knows what was written with it.
pub(super) type Mac = [u8; 32];

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    Hole(Range<u64>),
    Sealed(SealedEntry),
}

/// One sealed block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SealedEntry {
    pub(super) block: u64,
    /// Stored bytes, in the payload.
    pub(super) bytes: u32,
    pub(super) nonce: Nonce,
    /// What had to be stored before.
    pub(super) base: Option<Expected>,
    /// The positions that were changed; none: all of it.
    pub(super) dirty: Vec<Range<u64>>,
}

/// Where a record is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Placed {
    pub(super) record: Record,
    /// What the one before is known by.
    pub(super) before: blake3::Hash,
    pub(super) payload_at: u64,
    /// Where the next one stands.
    pub(super) end: u64,
    /// What the next one knows it by.
    pub(super) hash: blake3::Hash,
}

impl Record {
    /// Writes it at a place, behind the record of a hash. Returns where it is.
    pub(super) fn write(
        self,
        log: &mut dyn Flat,
        before: &blake3::Hash,
        at: u64,
        payload: &[&[u8]],
    ) -> io::Result<Placed> {
        let body = self.to_bytes();
        let payload_bytes: u64 = payload.iter().map(|piece| piece.len() as u64).sum();
        let body_bytes = u32::try_from(body.len()).map_err(io::Error::other)?;
        let mut head = [0; HEAD_LEN];
        head[..HASH_AT].copy_from_slice(&start(at, body_bytes, payload_bytes));
        let mut hasher = hasher(before, &head[..HASH_AT], &body);
        for piece in payload {
            hasher.update(piece);
        }
        let hash = hasher.finalize();
        head[HASH_AT..].copy_from_slice(hash.as_bytes());
        let pieces = [&head[..], &body].into_iter().chain(payload.iter().copied());
        let mut pieces: Vec<_> = pieces.map(IoSlice::new).collect();
        log.write_at(at, &mut pieces).whole()?;
        let payload_at = at + (HEAD_LEN + body.len()) as u64;
        let end = payload_at + payload_bytes;
        Ok(Placed { record: self, before: *before, payload_at, end, hash })
    }

    /// Reads the one at a place, behind the record of a hash; `None` if there is none that is whole.
    pub(super) fn read(
        log: &dyn Flat,
        before: &blake3::Hash,
        at: u64,
    ) -> io::Result<Option<Placed>> {
        let mut head = [0; HEAD_LEN];
        let room = log.len()?.saturating_sub(at);
        if room < HEAD_LEN as u64 || log.read_at(at, &mut head)? < HEAD_LEN {
            return Ok(None);
        }
        let mut fields = Fields(&head[8..HASH_AT]);
        let (Some(said_at), Some(body_bytes), Some(payload_bytes)) =
            (fields.u64(), fields.u32(), fields.u64())
        else {
            return Ok(None);
        };
        let said = u64::from(body_bytes).checked_add(payload_bytes);
        let is_there = said.is_some_and(|bytes| bytes <= room - HEAD_LEN as u64);
        if !head.starts_with(MAGIC) || said_at != at || !is_there {
            return Ok(None);
        }
        let mut body = vec![0; usize::try_from(body_bytes).map_err(io::Error::other)?];
        log.read_at(at + HEAD_LEN as u64, &mut body)?;
        let mut hasher = hasher(before, &head[..HASH_AT], &body);
        let payload_at = at + HEAD_LEN as u64 + u64::from(body_bytes);
        let end = payload_at + payload_bytes;
        let mut piece = vec![0; PIECE_LEN];
        let mut from = payload_at;
        while from < end {
            let len = usize::try_from(end - from).map_or(PIECE_LEN, |left| left.min(PIECE_LEN));
            log.read_at(from, &mut piece[..len])?;
            hasher.update(&piece[..len]);
            from += len as u64;
        }
        let hash = hasher.finalize();
        if hash.as_bytes()[..] != head[HASH_AT..] {
            return Ok(None);
        }
        let before = *before;
        Ok(Record::parse(&body).map(|record| Placed { record, before, payload_at, end, hash }))
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self {
            Record::Blocks(entries) => {
                bytes.push(BLOCKS);
                entries.iter().for_each(|entry| entry.put(&mut bytes));
            }
            Record::Cut { n_blocks } => {
                bytes.push(CUT);
                put_u64(&mut bytes, *n_blocks);
            }
            Record::Kept => bytes.push(KEPT),
            Record::Promise(promise, mac) => {
                bytes.push(PROMISE);
                promise.put(&mut bytes);
                bytes.extend_from_slice(mac);
            }
            Record::Sent { blocks } => {
                bytes.push(SENT);
                put_range(&mut bytes, blocks);
            }
        }
        bytes
    }

    /// `None` if it is nothing that [`to_bytes`](Record::to_bytes) writes.
    fn parse(body: &[u8]) -> Option<Record> {
        let mut fields = Fields(body);
        let record = match fields.u8()? {
            BLOCKS => {
                let mut entries = Vec::new();
                while !fields.0.is_empty() {
                    entries.push(Entry::take(&mut fields)?);
                }
                Record::Blocks(entries)
            }
            KEPT => Record::Kept,
            CUT => Record::Cut { n_blocks: fields.u64()? },
            PROMISE => {
                let (grown_to, holes, size) = (fields.u64()?, fields.range()?, fields.u64()?);
                Record::Promise(Promise { grown_to, holes, size }, fields.take()?)
            }
            SENT => Record::Sent { blocks: fields.range()? },
            _ => return None,
        };
        fields.0.is_empty().then_some(record)
    }
}

impl Promise {
    fn put(&self, bytes: &mut Vec<u8>) {
        put_u64(bytes, self.grown_to);
        put_range(bytes, &self.holes);
        put_u64(bytes, self.size);
    }

    /// What is vouched for with it: all that stands before it, which a hash tells from anything else, and it.
    pub(super) fn said(&self, before: &blake3::Hash) -> Vec<u8> {
        let mut said = before.as_bytes().to_vec();
        self.put(&mut said);
        said
    }
}

impl Entry {
    fn put(&self, bytes: &mut Vec<u8>) {
        match self {
            Entry::Hole(blocks) => {
                bytes.push(HOLE);
                put_range(bytes, blocks);
            }
            Entry::Sealed(sealed) => {
                bytes.push(SEALED);
                put_u64(bytes, sealed.block);
                bytes.extend_from_slice(&sealed.bytes.to_le_bytes());
                bytes.extend_from_slice(sealed.nonce.as_bytes());
                match sealed.base {
                    None => bytes.push(ANYTHING),
                    Some(Expected::Absent) => bytes.push(ABSENT),
                    Some(Expected::Nonce(nonce)) => {
                        bytes.push(NONCE);
                        bytes.extend_from_slice(nonce.as_bytes());
                    }
                }
                put_u64(bytes, sealed.dirty.len() as u64);
                sealed.dirty.iter().for_each(|dirty| put_range(bytes, dirty));
            }
        }
    }

    fn take(fields: &mut Fields<'_>) -> Option<Entry> {
        Some(match fields.u8()? {
            HOLE => Entry::Hole(fields.range().filter(|blocks| blocks.end <= MAX_BLOCKS)?),
            SEALED => Entry::Sealed(SealedEntry {
                block: fields.u64().filter(|block| *block < MAX_BLOCKS)?,
                bytes: fields.u32()?,
                nonce: fields.nonce()?,
                base: match fields.u8()? {
                    ANYTHING => None,
                    ABSENT => Some(Expected::Absent),
                    NONCE => Some(Expected::Nonce(fields.nonce()?)),
                    _ => return None,
                },
                dirty: fields.positions()?,
            }),
            _ => return None,
        })
    }
}

/// What is left of a body.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*field)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take().map(u8::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn nonce(&mut self) -> Option<Nonce> {
        self.take().map(Nonce::from_bytes)
    }

    /// `None` for one that ends before it begins, too.
    fn range(&mut self) -> Option<Range<u64>> {
        let range = self.u64()?..self.u64()?;
        (range.start <= range.end).then_some(range)
    }

    /// Positions of one block: ascending, and no further apart than a block is long.
    fn positions(&mut self) -> Option<Vec<Range<u64>>> {
        let ranges: Vec<_> = (0..self.u64()?).map(|_| self.range()).collect::<Option<_>>()?;
        let ascend = ranges.windows(2).all(|two| two[0].end < two[1].start);
        let holds = ascend && ranges.iter().all(|range| !range.is_empty());
        let fits = |last: &Range<u64>| last.end - ranges[0].start <= MAX_BLOCK_BYTES;
        (holds && ranges.last().is_none_or(fits)).then_some(ranges)
    }
}

fn put_u64(bytes: &mut Vec<u8>, field: u64) {
    bytes.extend_from_slice(&field.to_le_bytes());
}

fn put_range(bytes: &mut Vec<u8>, range: &Range<u64>) {
    put_u64(bytes, range.start);
    put_u64(bytes, range.end);
}

/// How the record at a place begins.
fn start(at: u64, body_bytes: u32, payload_bytes: u64) -> [u8; HASH_AT] {
    let mut start = [0; HASH_AT];
    start[..8].copy_from_slice(MAGIC);
    start[8..16].copy_from_slice(&at.to_le_bytes());
    start[16..20].copy_from_slice(&body_bytes.to_le_bytes());
    start[20..].copy_from_slice(&payload_bytes.to_le_bytes());
    start
}

/// Whether behind a place, where no whole record is, one begins that says that all before it is kept.
pub(super) fn has_kept(log: &dyn Flat, from: u64) -> io::Result<bool> {
    let mut piece = vec![0; PIECE_LEN];
    let mut at = from;
    loop {
        let len = log.read_at(at, &mut piece)?;
        let starts = piece[..len].windows(MAGIC.len()).enumerate();
        for (index, _) in starts.filter(|(_, window)| *window == &MAGIC[..]) {
            let kept_at = at + index as u64;
            let mut kept = [0; HEAD_LEN + 1];
            let is_whole = log.read_at(kept_at, &mut kept)? == kept.len();
            if is_whole && kept.starts_with(&start(kept_at, 1, 0)) && kept[HEAD_LEN] == KEPT {
                return Ok(true);
            }
        }
        if len < piece.len() {
            return Ok(false);
        }
        // What begins at the piece's end is looked at with the next one.
        at += (len - MAGIC.len() + 1) as u64;
    }
}

fn hasher(before: &blake3::Hash, head: &[u8], body: &[u8]) -> blake3::Hasher {
    let mut hasher = blake3::Hasher::new();
    hasher.update(before.as_bytes()).update(head).update(body);
    hasher
}

const MAGIC: &[u8; 8] = b"SBBEHIND";
const HASH_AT: usize = 28;
const HEAD_LEN: usize = HASH_AT + 32;
const PIECE_LEN: usize = 256 << 10;

/// More blocks than any file has, and more bytes than any block.
const MAX_BLOCKS: u64 = MAX_FILE_BYTES >> 12;
pub(super) const MAX_BLOCK_BYTES: u64 = 1 << 20;

const BLOCKS: u8 = 1;
const CUT: u8 = 2;
const PROMISE: u8 = 3;
const SENT: u8 = 4;
const KEPT: u8 = 5;

const HOLE: u8 = 1;
const SEALED: u8 = 2;

const ANYTHING: u8 = 0;
const ABSENT: u8 = 1;
const NONCE: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: who alters a log makes nothing panic, and takes no memory that is not there.
    #[test]
    fn a_record_that_says_what_no_file_has_is_none() {
        let nonce = Nonce::from_bytes([3; 24]);
        let sealed = |block, dirty: &[Range<u64>]| {
            let (base, dirty) = (None, dirty.to_vec());
            Entry::Sealed(SealedEntry { block, bytes: 3, nonce, base, dirty })
        };
        let reversed = Range { start: 5, end: 4 };
        for entry in [
            Entry::Hole(reversed.clone()),
            Entry::Hole(0..u64::MAX),
            sealed(u64::MAX, &[]),
            sealed(0, &[reversed]),
            sealed(0, &[3..3, 4..5]),
            sealed(0, &[0..2, 2..3]),
            sealed(0, &[5..6, 1..2]),
            sealed(0, &[0..1, (1 << 20)..(1 << 20) + 1]),
        ] {
            assert_eq!(Record::parse(&Record::Blocks(vec![entry]).to_bytes()), None);
        }
    }

    #[test]
    fn a_record_reads_as_it_was_written_and_no_byte_of_it_may_differ() {
        let [first, second] = [3, 4].map(|byte| Nonce::from_bytes([byte; 24]));
        let sealed = |base, dirty: &[Range<u64>]| {
            let (block, bytes, dirty) = (7, 3, dirty.to_vec());
            Entry::Sealed(SealedEntry { block, bytes, nonce: first, base, dirty })
        };
        let blocks = Record::Blocks(vec![
            Entry::Hole(2..5),
            sealed(None, &[]),
            sealed(Some(Expected::Absent), &[7..8, 9..300]),
            sealed(Some(Expected::Nonce(second)), &[1..2, 4..5]),
        ]);
        let promise = Record::Promise(Promise { grown_to: 9, holes: 3..4, size: 11 }, [6; 32]);
        let [a, b] = ["a", "b"].map(|name| blake3::hash(name.as_bytes()));
        for record in [
            blocks,
            promise,
            Record::Cut { n_blocks: 4 },
            Record::Kept,
            Record::Sent { blocks: 3..9 },
        ] {
            let mut log = vec![0; 11];
            let placed = record.write(&mut log, &a, 11, &[b"pay", b"load"]).unwrap();
            assert_eq!(placed.end, log.as_slice().len() as u64);
            assert_eq!(Record::read(&log, &a, 11).unwrap(), Some(placed));
            assert_eq!(Record::read(&log, &b, 11).unwrap(), None);
            for at in 11..log.as_slice().len() {
                log[at] ^= 1;
                assert_eq!(Record::read(&log, &a, 11).unwrap(), None, "byte {at}");
                log[at] ^= 1;
            }
            log.pop();
            assert_eq!(Record::read(&log, &a, 11).unwrap(), None, "it is cut off");
        }
    }
}

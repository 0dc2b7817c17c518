//! Redoing: what records say, where the file has not gone on since.

use std::{collections::BTreeMap, io, ops::Range};

use sealback_crypto::{Geometry, HEADER_BYTES, HeaderClaims, MAX_FILE_BYTES, PREFIX_BYTES};

use super::{
    Owner,
    record::{Entry, Record},
};
use crate::flat::{Flat, make_hole, overwrite};

/// Writes what records say, one after the other of one log, to the file that they speak of. To be
/// called exclusively.
///
/// A block is left alone where something else stands than what the records know of it, or a mixture:
/// somebody has written it since, or the file is another state of itself that was put back.
pub(super) fn redo(
    records: &[Record],
    log: &dyn Flat,
    data: &mut dyn Flat,
    owner: &Owner<'_>,
) -> io::Result<()> {
    let header = header(data)?;
    let claims = HeaderClaims::of(&header);
    let is_of_it = |record: &&Record| {
        header.starts_with(SEALED)
            && header[BLOCK_SHIFT_AT] == record.geometry.block_shift()
            && record.generation <= claims.generation
    };
    let mut blocks: BTreeMap<u64, Changes<'_>> = BTreeMap::new();
    for record in records.iter().filter(is_of_it) {
        note(record, owner, log, &mut blocks)?;
    }
    for changes in blocks.values().filter(|changes| changes.lies_within(claims.size)) {
        changes.redo(log, data)?;
    }
    Ok(())
}

/// Notes what a record says of each block.
fn note<'a>(
    record: &'a Record,
    owner: &Owner<'_>,
    log: &dyn Flat,
    blocks: &mut BTreeMap<u64, Changes<'a>>,
) -> io::Result<()> {
    let mut at = record.payload_at;
    for entry in &record.entries {
        let mut after = [0; PREFIX_BYTES];
        if entry.bytes > 0 {
            log.read_at(at, &mut after)?;
        }
        let known = blocks.remove(&entry.block).map_or_else(Vec::new, |changes| changes.known);
        let known = known.into_iter().chain([entry.before, after]).collect();
        let (geometry, durable) = (record.geometry, record.durable);
        let of_this_run = record.run == owner.run;
        let changes =
            Changes { known, last: entry, geometry, durable, of_this_run, payload_at: at };
        blocks.insert(entry.block, changes);
        at += u64::from(entry.bytes);
    }
    Ok(())
}

/// What the records say of one block.
struct Changes<'a> {
    /// The prefixes that it had.
    known: Vec<[u8; PREFIX_BYTES]>,
    last: &'a Entry,
    geometry: Geometry,
    durable: bool,
    of_this_run: bool,
    /// Where the log has the last one's bytes.
    payload_at: u64,
}

impl Changes<'_> {
    /// Whether it is a block of a file of that size, and can be what such a block has.
    fn lies_within(&self, size: u64) -> bool {
        let least = PREFIX_BYTES as u64 + 1;
        let bytes = u64::from(self.last.bytes);
        self.last.block < self.geometry.n_blocks(size.min(MAX_FILE_BYTES))
            && (bytes == 0 || (least..=self.geometry.stride_bytes()).contains(&bytes))
    }

    fn redo(&self, log: &dyn Flat, data: &mut dyn Flat) -> io::Result<()> {
        let Changes { last, geometry, .. } = *self;
        let at = geometry.stored_start(last.block);
        let mut stored = [0; PREFIX_BYTES];
        data.read_at(at, &mut stored)?;
        // A log of another run that nobody waited for may be older than a hole.
        let may_be_newer = !self.durable && !self.of_this_run && stored == [0; PREFIX_BYTES];
        if may_be_newer || !may_be_torn(&stored, &self.known) {
            return Ok(());
        }
        let hole = last.block..last.block + 1;
        if last.bytes == 0 {
            return make_hole(data, &hole, geometry);
        }
        let mut bytes = vec![0; usize::try_from(last.bytes).map_err(io::Error::other)?];
        log.read_at(self.payload_at, &mut bytes)?;
        match overwrite(data, at, &bytes) {
            // In this run nobody was told that it was written: it becomes the hole that it was.
            Err(_) if self.of_this_run && last.before == [0; PREFIX_BYTES] => {
                make_hole(data, &hole, geometry)
            }
            other => other,
        }
    }
}

/// What the stored header claims.
pub(super) fn claims(data: &dyn Flat) -> io::Result<HeaderClaims> {
    Ok(HeaderClaims::of(&header(data)?))
}

fn header(data: &dyn Flat) -> io::Result<[u8; HEADER_BYTES]> {
    let mut header = [0; HEADER_BYTES];
    data.read_at(0, &mut header)?;
    Ok(header)
}

/// How a sealed file begins.
const SEALED: &[u8; 8] = b"SEALBACK";
const BLOCK_SHIFT_AT: usize = 12;

/// Whether a prefix is what writes of known ones may have left, cut off anywhere: up to there one of
/// them, and another from there on; or nothing, where the disk never had what stood there before.
fn may_be_torn(stored: &[u8; PREFIX_BYTES], known: &[[u8; PREFIX_BYTES]]) -> bool {
    let is_part = |part: Range<usize>| {
        let is = |whole: &[u8; PREFIX_BYTES]| stored[part.clone()] == whole[part.clone()];
        is(&[0; PREFIX_BYTES]) || known.iter().any(is)
    };
    (0..=PREFIX_BYTES).any(|border| is_part(0..border) && is_part(border..PREFIX_BYTES))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_prefix_is_one_that_was_known_up_to_some_place_and_one_from_there_on() {
        let known = [[1; PREFIX_BYTES], [2; PREFIX_BYTES]];
        for border in 0..=PREFIX_BYTES {
            for [first, second] in [[1, 2], [2, 1], [1, 0], [0, 2], [0, 0], [2, 2]] {
                let mut torn = [first; PREFIX_BYTES];
                torn[border..].fill(second);
                assert!(may_be_torn(&torn, &known), "{first} and {second} at {border}");
            }
        }
        let mut other = [1; PREFIX_BYTES];
        for at in [0, 20, PREFIX_BYTES - 1] {
            other[at] = 3;
            assert!(!may_be_torn(&other, &known), "{other:?}");
            other[at] = 1;
        }
        other[10..20].fill(2);
        assert!(!may_be_torn(&other, &known), "it was cut off twice");
    }
}

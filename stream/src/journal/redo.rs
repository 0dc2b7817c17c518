//! Redoing: what records say, where the file has not gone on since.

use std::{collections::BTreeMap, io};

use sealback_crypto::{Geometry, HEADER_BYTES, HeaderClaims, MAX_FILE_BYTES, PREFIX_BYTES};

use super::record::{Entry, Record};
use crate::flat::{Flat, make_hole, overwrite};

/// What is to happen to a block that was a hole and that there is no room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoRoom {
    /// Nobody was told that it was written: it becomes the hole that it was.
    Undo,
    /// Somebody may have been.
    Fail,
}

/// Writes what records say, one after the other of one log, to the file that they speak of. To be
/// called exclusively.
///
/// A block is left alone where something else stands than what the records know of it, or a mixture:
/// somebody has written it since, or the file is another state of itself that was put back.
pub(super) fn redo(
    records: &[Record],
    log: &dyn Flat,
    data: &mut dyn Flat,
    no_room: NoRoom,
) -> io::Result<()> {
    let claims = claims(data)?;
    let mut blocks: BTreeMap<u64, Changes<'_>> = BTreeMap::new();
    for record in records.iter().filter(|record| record.generation <= claims.generation) {
        note(record, log, &mut blocks)?;
    }
    for changes in blocks.values().filter(|changes| changes.lies_within(claims.size)) {
        changes.redo(log, data, no_room)?;
    }
    Ok(())
}

/// Notes what a record says of each block.
fn note<'a>(
    record: &'a Record,
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
        let geometry = record.geometry;
        blocks.insert(entry.block, Changes { known, last: entry, geometry, payload_at: at });
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

    fn redo(&self, log: &dyn Flat, data: &mut dyn Flat, no_room: NoRoom) -> io::Result<()> {
        let Changes { last, geometry, .. } = *self;
        let at = geometry.stored_start(last.block);
        let mut stored = [0; PREFIX_BYTES];
        data.read_at(at, &mut stored)?;
        if !may_be_torn(at, &stored, &self.known) {
            return Ok(());
        }
        let hole = last.block..last.block + 1;
        if last.bytes == 0 {
            return make_hole(data, &hole, geometry);
        }
        let mut bytes = vec![0; usize::try_from(last.bytes).map_err(io::Error::other)?];
        log.read_at(self.payload_at, &mut bytes)?;
        match overwrite(data, at, &bytes) {
            Err(_) if no_room == NoRoom::Undo && last.before == [0; PREFIX_BYTES] => {
                make_hole(data, &hole, geometry)
            }
            other => other,
        }
    }
}

/// What the stored header claims.
pub(super) fn claims(data: &dyn Flat) -> io::Result<HeaderClaims> {
    let mut header = [0; HEADER_BYTES];
    data.read_at(0, &mut header)?;
    Ok(HeaderClaims::of(&header))
}

/// Whether a prefix is what writes of known ones may have left: of each sector, all of one of them; or
/// nothing, where the disk never had what stood there before.
fn may_be_torn(at: u64, stored: &[u8; PREFIX_BYTES], known: &[[u8; PREFIX_BYTES]]) -> bool {
    let border = usize::try_from(at.next_multiple_of(SECTOR_BYTES) - at).unwrap_or(PREFIX_BYTES);
    let border = border.min(PREFIX_BYTES);
    [0..border, border..PREFIX_BYTES].into_iter().all(|part| {
        let is = |whole: &[u8; PREFIX_BYTES]| stored[part.clone()] == whole[part.clone()];
        is(&[0; PREFIX_BYTES]) || known.iter().any(is)
    })
}

/// What a disk writes whole or not at all.
const SECTOR_BYTES: u64 = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_torn_where_a_sector_ends_and_nowhere_else() {
        let (before, after) = ([1; PREFIX_BYTES], [2; PREFIX_BYTES]);
        let mix = |border: usize| {
            let mut mixed = before;
            mixed[border..].fill(2);
            mixed
        };
        for at in (8192..8192 + 512).step_by(16) {
            let whole = |stored| may_be_torn(at, &stored, &[before, after]);
            assert!(whole(before) && whole(after) && whole([0; PREFIX_BYTES]));
            assert!(!whole([3; PREFIX_BYTES]));
            for border in 1..PREFIX_BYTES {
                let is_border = (at + border as u64).is_multiple_of(512);
                assert_eq!(whole(mix(border)), is_border, "{at} {border}");
            }
        }
    }
}

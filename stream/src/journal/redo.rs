//! Redoing: what a record says, where the file has not gone on since.

use std::io;

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

/// Writes what a record says to the file that it speaks of. To be called exclusively.
///
/// A block is left alone where something else stands than what stood there before, what is to stand
/// there, or a mixture of the two: somebody has written it since, or the file is another state of
/// itself that was put back.
pub(super) fn redo(
    record: &Record,
    log: &dyn Flat,
    data: &mut dyn Flat,
    no_room: NoRoom,
) -> io::Result<()> {
    let claims = claims(data)?;
    if claims.generation < record.generation {
        return Ok(());
    }
    let geometry = record.geometry;
    let n_blocks = geometry.n_blocks(claims.size.min(MAX_FILE_BYTES));
    let mut at = record.payload_at;
    for entry in &record.entries {
        let from = at;
        at += u64::from(entry.bytes);
        if entry.block < n_blocks && is_sound(entry, geometry) {
            let mut bytes = vec![0; usize::try_from(entry.bytes).map_err(io::Error::other)?];
            log.read_at(from, &mut bytes)?;
            redo_block(entry, geometry, &bytes, data, no_room)?;
        }
    }
    Ok(())
}

/// What the stored header claims.
pub(super) fn claims(data: &dyn Flat) -> io::Result<HeaderClaims> {
    let mut header = [0; HEADER_BYTES];
    data.read_at(0, &mut header)?;
    Ok(HeaderClaims::of(&header))
}

/// Whether it can be what a block has.
fn is_sound(entry: &Entry, geometry: Geometry) -> bool {
    let least = PREFIX_BYTES as u64 + 1;
    entry.bytes == 0 || (least..=geometry.stride_bytes()).contains(&u64::from(entry.bytes))
}

fn redo_block(
    entry: &Entry,
    geometry: Geometry,
    bytes: &[u8],
    data: &mut dyn Flat,
    no_room: NoRoom,
) -> io::Result<()> {
    let at = geometry.stored_start(entry.block);
    let mut stored = [0; PREFIX_BYTES];
    data.read_at(at, &mut stored)?;
    let after = bytes.first_chunk().copied().unwrap_or([0; PREFIX_BYTES]);
    if !may_be_torn(at, &stored, &entry.before, &after) {
        return Ok(());
    }
    let hole = entry.block..entry.block + 1;
    if entry.bytes == 0 {
        return make_hole(data, &hole, geometry);
    }
    match overwrite(data, at, bytes) {
        Err(_) if no_room == NoRoom::Undo && entry.before == [0; PREFIX_BYTES] => {
            make_hole(data, &hole, geometry)
        }
        other => other,
    }
}

/// Whether a prefix is what a write, from one to the other, may have left: of each sector, all of it or
/// nothing; or nothing at all, where the disk never had what stood there before.
fn may_be_torn(
    at: u64,
    stored: &[u8; PREFIX_BYTES],
    before: &[u8; PREFIX_BYTES],
    after: &[u8; PREFIX_BYTES],
) -> bool {
    let border = usize::try_from(at.next_multiple_of(SECTOR_BYTES) - at).unwrap_or(PREFIX_BYTES);
    let border = border.min(PREFIX_BYTES);
    let nothing = [0; PREFIX_BYTES];
    [0..border, border..PREFIX_BYTES].into_iter().all(|part| {
        let is = |whole: &[u8; PREFIX_BYTES]| stored[part.clone()] == whole[part.clone()];
        is(before) || is(after) || is(&nothing)
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
            let whole = |stored| may_be_torn(at, &stored, &before, &after);
            assert!(whole(before) && whole(after) && whole([0; PREFIX_BYTES]));
            assert!(!whole([3; PREFIX_BYTES]));
            for border in 1..PREFIX_BYTES {
                let is_border = (at + border as u64).is_multiple_of(512);
                assert_eq!(whole(mix(border)), is_border, "{at} {border}");
            }
        }
    }
}

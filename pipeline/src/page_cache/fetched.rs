//! What is being fetched, and how it comes into the folios.

use std::ops::Range;

use zeroize::Zeroizing;

use super::{Folio, Folios};
use crate::{
    folio::{FolioBytes, FolioPool},
    ranges::{RangeSet, index_of},
};

/// Fetches under way: what was fetched before an eviction may be older than what was evicted.
#[derive(Debug, Default)]
pub(super) struct Fetches {
    under_way: Vec<Fetch>,
    /// How many there were so far.
    n: u64,
}

/// Blocks that are being fetched.
#[derive(Debug)]
struct Fetch {
    id: u64,
    blocks: Range<u64>,
    stale: bool,
}

/// What is fetched for one folio.
pub(crate) struct Piece {
    /// Positions in the file.
    pub(crate) range: Range<u64>,
    room: Room,
}

/// Where it goes.
enum Room {
    /// A new folio's memory, where it lies in the folio.
    Folio(FolioBytes),
    /// To be copied.
    Scratch(Zeroizing<Vec<u8>>),
}

impl Piece {
    pub(crate) fn as_mut_slice(&mut self) -> &mut [u8] {
        let len = index_of(self.range.end - self.range.start);
        match &mut self.room {
            Room::Folio(bytes) => {
                let bytes = bytes.as_mut_slice();
                let from = index_of(self.range.start % bytes.len() as u64);
                &mut bytes[from..from + len]
            }
            Room::Scratch(bytes) => bytes,
        }
    }
}

impl Folios {
    /// Notes that blocks are being fetched.
    pub(crate) fn begin_fetch(&mut self, blocks: Range<u64>) -> u64 {
        let Fetches { under_way, n } = &mut self.fetches;
        *n += 1;
        under_way.push(Fetch { id: *n, blocks, stale: false });
        *n
    }

    /// Whether what was fetched may be used: nothing of it was evicted meanwhile.
    pub(crate) fn end_fetch(&mut self, id: u64) -> bool {
        let under_way = &mut self.fetches.under_way;
        let found = under_way.iter().position(|fetch| fetch.id == id);
        found.is_some_and(|index| !under_way.swap_remove(index).stale)
    }

    pub(super) fn outdate_fetches(&mut self, blocks: &Range<u64>) {
        for fetch in &mut self.fetches.under_way {
            fetch.stale |= fetch.blocks.start < blocks.end && blocks.start < fetch.blocks.end;
        }
    }

    /// Whether somebody is fetching any of these blocks, and may be waited for.
    pub(crate) fn is_fetching(&self, blocks: &Range<u64>) -> bool {
        self.fetches.under_way.iter().any(|fetch| {
            !fetch.stale && fetch.blocks.start < blocks.end && blocks.start < fetch.blocks.end
        })
    }

    /// The pieces, one for each folio, that `range` is fetched in. `memory` is for folios that have
    /// none.
    pub(crate) fn pieces(&self, range: &Range<u64>, mut memory: Vec<FolioBytes>) -> Vec<Piece> {
        let parts = self.parts(range);
        let piece = |(index, range): (u64, Range<u64>)| {
            let fresh = (!self.has(index)).then(|| memory.pop()).flatten();
            let scratch =
                || Room::Scratch(Zeroizing::new(vec![0; index_of(range.end - range.start)]));
            let room = fresh.map_or_else(scratch, Room::Folio);
            Piece { range, room }
        };
        parts.map(piece).collect()
    }

    /// Where it is not known what is stored for a block, what is here of it and was not written here is
    /// a guess: zeros that the file has grown over. Others may have written there.
    fn drop_guesses(&mut self, index: u64, range: &Range<u64>) {
        let Some(folio) = self.folios.get_mut(&index) else { return };
        for block in self.geometry.blocks_covering(range.clone()) {
            if self.stored.contains_key(&block) {
                continue;
            }
            let start = self.geometry.block_start(block);
            let end = start + self.geometry.block_bytes();
            let mut ours = folio.dirty.clone();
            folio.handed_out.iter().for_each(|handed_out| ours.extend(handed_out));
            for guess in ours.missing(&(start.max(range.start)..end.min(range.end))) {
                folio.valid.take(&guess);
            }
        }
    }

    /// Takes in a piece of what was fetched, where nothing newer is here.
    pub(crate) fn take_in(&mut self, piece: Piece, pool: &FolioPool) {
        let Piece { range, room } = piece;
        let (index, positions) = self.folio_at(range.start);
        match room {
            Room::Folio(bytes) if !self.has(index) => {
                let mut valid = RangeSet::default();
                valid.insert(range);
                self.folios.insert(index, Folio::clean(bytes, valid));
                self.clean.push(index);
            }
            room => {
                let data = match &room {
                    Room::Folio(bytes) => {
                        let from = index_of(range.start - positions.start);
                        &bytes.as_ref()[from..][..index_of(range.end - range.start)]
                    }
                    Room::Scratch(bytes) => bytes,
                };
                self.drop_guesses(index, &range);
                let needs_memory = !self.has(index) || self.is_shared(index);
                let mut memory = needs_memory.then(|| pool.take_over_budget());
                self.put(range.start, data, false, &mut memory);
            }
        }
    }
}

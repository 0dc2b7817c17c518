//! What is being fetched, and how it comes into the folios.

use std::ops::Range;

use sealback_crypto::Plaintext;
use sealback_stream::Expected;

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
    purpose: Purpose,
    /// Those of the blocks for which what is fetched may be too old.
    stale: RangeSet,
}

/// What blocks are fetched for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// As copies for the cache: what is changed from here meanwhile is too old for it.
    Cache,
    /// For folios, which take it where they have nothing newer.
    Folios,
}

impl Fetches {
    fn begin(&mut self, blocks: Range<u64>, purpose: Purpose) -> u64 {
        self.n += 1;
        self.under_way.push(Fetch { id: self.n, blocks, purpose, stale: RangeSet::default() });
        self.n
    }
}

impl Fetch {
    fn outdate(&mut self, blocks: &Range<u64>) {
        self.stale.insert(blocks.start.max(self.blocks.start)..blocks.end.min(self.blocks.end));
    }
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
    Scratch(Plaintext),
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
    /// Notes that blocks are being fetched for folios.
    pub(crate) fn begin_fetch(&mut self, blocks: Range<u64>) -> u64 {
        self.fetches.begin(blocks, Purpose::Folios)
    }

    /// Notes that blocks may be fetched as copies for the cache, until [`end_fetch`](Folios::end_fetch).
    pub(crate) fn begin_copying(&mut self, blocks: Range<u64>) -> u64 {
        self.fetches.begin(blocks, Purpose::Cache)
    }

    /// Whether all that was fetched may be used: for folios, nothing of it was evicted meanwhile.
    pub(crate) fn end_fetch(&mut self, id: u64) -> bool {
        let under_way = &mut self.fetches.under_way;
        let found = under_way.iter().position(|fetch| fetch.id == id);
        found.is_some_and(|index| under_way.swap_remove(index).stale.is_empty())
    }

    /// Those of `blocks` that were not changed from here since a fetch began.
    pub(crate) fn unchanged_since(&self, id: u64, blocks: &Range<u64>) -> Vec<Range<u64>> {
        let fetch = self.fetches.under_way.iter().find(|fetch| fetch.id == id);
        fetch.map_or_else(Vec::new, |fetch| fetch.stale.missing(blocks))
    }

    pub(super) fn outdate_fetches(&mut self, blocks: &Range<u64>) {
        self.fetches.under_way.iter_mut().for_each(|fetch| fetch.outdate(blocks));
    }

    /// These blocks are no longer what is stored: what was read from there is no copy of them.
    pub(super) fn changed(&mut self, blocks: &Range<u64>) {
        self.writes += 1;
        self.copies.drop_waiting(blocks);
        let under_way = self.fetches.under_way.iter_mut();
        let for_cache = under_way.filter(|fetch| fetch.purpose == Purpose::Cache);
        for_cache.for_each(|fetch| fetch.outdate(blocks));
    }

    /// Whether somebody is fetching any of these blocks for folios, and may be waited for.
    pub(crate) fn is_fetching(&self, blocks: &Range<u64>) -> bool {
        self.fetches.under_way.iter().any(|fetch| {
            fetch.purpose == Purpose::Folios
                && fetch.stale.is_empty()
                && fetch.blocks.start < blocks.end
                && blocks.start < fetch.blocks.end
        })
    }

    /// The pieces, one for each folio, that `range` is fetched in. `memory` is for folios that have
    /// none.
    pub(crate) fn pieces(&self, range: &Range<u64>, mut memory: Vec<FolioBytes>) -> Vec<Piece> {
        let parts = self.parts(range);
        let piece = |(index, range): (u64, Range<u64>)| {
            let fresh = (!self.has(index)).then(|| memory.pop()).flatten();
            let scratch = || Room::Scratch(Plaintext::zeros(index_of(range.end - range.start)));
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
            for guess in folio.unwritten().missing(&(start.max(range.start)..end.min(range.end))) {
                folio.valid.take(&guess);
            }
        }
    }

    /// A block was fetched as it was stored then, for what was missing of it here. If the rest is of another
    /// version, what is here is none.
    pub(crate) fn fetched(&mut self, block: u64, stored: Expected) {
        let known = self.stored.entry(block).or_insert(stored);
        if *known != stored {
            *known = Expected::UNKNOWN;
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

#[cfg(test)]
mod tests {
    use sealback_crypto::Geometry;

    use super::*;
    use crate::page_cache::{CleanFolios, Copies, CopyBudget};

    const BLOCK: usize = 4096;

    #[test]
    fn of_what_is_fetched_for_the_cache_exactly_the_blocks_that_are_changed_meanwhile_are_too_old()
    {
        let geometry = Geometry::new(BLOCK as u64).expect("a block size");
        let pool = FolioPool::new(8, BLOCK);
        let (clean, copies) = (CleanFolios::new().of_file(0), Copies::new(CopyBudget::new(0)));
        let size = 8 * BLOCK as u64;
        let mut folios = Folios::new(geometry, BLOCK, size, 0..0, clean, copies);
        let (copying, filling) = (folios.begin_copying(1..7), folios.begin_fetch(1..7));
        let at = |block: u64| block * BLOCK as u64;
        folios.put(at(3) + 5, &[1; 10], true, &mut pool.try_take());
        folios.put(at(0), &[1; BLOCK], true, &mut pool.try_take());
        assert_eq!(folios.unchanged_since(copying, &(1..7)), [1..3, 4..7]);
        folios.forget_clean(&(6..8));
        folios.cut(5 * BLOCK as u64 + 1);
        assert_eq!(folios.unchanged_since(copying, &(1..7)), [1..3, 4..5]);
        assert_eq!(folios.unchanged_since(copying, &(2..5)), [2..3, 4..5]);
        folios.forget_copies();
        assert_eq!(folios.unchanged_since(copying, &(1..7)), [0..0; 0]);
        assert!(!folios.end_fetch(copying) && !folios.end_fetch(filling), "6 was forgotten");
        assert_eq!(folios.unchanged_since(copying, &(1..7)), [0..0; 0], "it has ended");
    }
}

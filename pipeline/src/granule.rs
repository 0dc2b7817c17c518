//! Cache granules: what goes to the cache in part takes its clean neighbours along, to the cache alone.
//!
//! A cache may say that it would rather have larger pieces than blocks ([`CacheFile::granule`]). Before
//! a pass takes the first dirty run of such a granule, what the cache lacks of the rest is read from the
//! server, a few granules ahead of the issuer, and kept as copies ([`crate::copying`]): when the pass
//! comes by they lie in their places, and go to the cache in the same request. It is read once, by the
//! threads that read ahead: what the pass itself needs does not wait behind it.
//!
//! **Invariants:**
//! 1. A pass looks at a granule once, before it takes anything dirty of it.
//! 2. Nothing in here fails a pass. It is held up no longer than a cache may hold it up; then it goes on
//!    without, and no other asks before somebody is answered.
//!
//! [`CacheFile::granule`]: sealback_stream::CacheFile::granule

use std::{collections::BTreeSet, ops::Range, task::Waker, time::Duration};

use sealback_stream::TargetError;

use crate::{
    config::read_unit_blocks,
    copying::Copying,
    engine::CACHE,
    io::contain,
    open_file::OpenFile,
    page_cache::Takes,
    patience::{Patience, Wait},
    ranges::index_of,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
};

/// Granules whose neighbours are fetched ahead of a pass at once, at most.
const MAX_FETCHES: u64 = 8;
/// How long one is waited for, at most, whatever the cache is worth: others wait for the pass.
const MAX_WAIT: Duration = Duration::from_secs(5);

/// The granules of a pass.
#[derive(Debug)]
pub(crate) struct Granules {
    file: Arc<OpenFile>,
    /// How many blocks one has; more than one.
    n_blocks: u64,
    /// Of how many neighbours are fetched at once, at most: half of the room for copies is left to what
    /// is on its way.
    max_fetches: usize,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    /// All before this one that the pass takes something of have been looked at.
    looked_to: u64,
    /// Those whose neighbours are being fetched.
    fetching: BTreeSet<u64>,
    patience: Patience,
    /// The pass goes on without neighbours.
    given_up: bool,
}

/// How far a pass may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reach {
    /// The block before which it may take what there is.
    pub(crate) to: u64,
    /// Neighbours are being fetched for what is there: its waker is woken.
    pub(crate) waits: bool,
}

impl Granules {
    /// Those of a file's cache; none if it has none, or is not written to.
    pub(crate) fn of(file: &Arc<OpenFile>) -> Option<Granules> {
        let granule = file.cache()?.granule()?;
        let n_blocks = granule.bytes() / file.geometry().block_bytes();
        let core = &file.core;
        if n_blocks < 2 || core.io.is_stuck(CACHE) || core.neighbours_stuck.load(Ordering::Relaxed)
        {
            return None;
        }
        let state = State {
            looked_to: 0,
            fetching: BTreeSet::new(),
            patience: Patience::new(core.config.cache_patience.min(MAX_WAIT)),
            given_up: false,
        };
        let room = core.copies.max_bytes() / 2 / (n_blocks * file.geometry().stride_bytes());
        Some(Granules {
            file: file.clone(),
            n_blocks,
            max_fetches: index_of(room.clamp(1, MAX_FETCHES)),
            state: Arc::new(Mutex::new(state)),
        })
    }

    /// The blocks of all granules that have any of `blocks`.
    pub(crate) fn around(&self, blocks: &Range<u64>) -> Range<u64> {
        let start = blocks.start - blocks.start % self.n_blocks;
        start..blocks.end.checked_next_multiple_of(self.n_blocks).unwrap_or(u64::MAX)
    }

    /// Has fetched what goes along with what comes next of `within`, of the blocks from there up to
    /// `end`; says how far the pass may go now.
    pub(crate) fn look(&self, within: &Range<u64>, end: u64, takes: Takes, waker: &Waker) -> Reach {
        let mut state = state_of(&self.state);
        let looked_to = self.look_ahead(&mut state, within, end, takes, waker);
        let Some(first) = state.fetching.first().filter(|_| !state.given_up) else {
            return Reach { to: looked_to, waits: false };
        };
        let to = (first * self.n_blocks).clamp(within.start, within.end);
        let now = self.file.core.now();
        match state.patience.look(now) {
            Wait::On => {}
            Wait::Until(time) => {
                let waker = waker.clone();
                self.file.core.io.wake_after(time - now, Box::new(move || waker.wake()));
            }
            Wait::Over => {
                state.given_up = true;
                self.file.core.neighbours_stuck.store(true, Ordering::Relaxed);
                return Reach { to: within.end, waits: false };
            }
        }
        Reach { to, waits: true }
    }

    /// Looks at the next granules with something dirty, as long as few are being fetched. Returns the
    /// block before which it has.
    fn look_ahead(
        &self,
        state: &mut State,
        within: &Range<u64>,
        end: u64,
        takes: Takes,
        waker: &Waker,
    ) -> u64 {
        let mut looked_to = (state.looked_to * self.n_blocks).max(within.start);
        for _ in 0..self.max_fetches {
            let rest = looked_to..within.end;
            if state.given_up || state.fetching.len() >= self.max_fetches || rest.is_empty() {
                break;
            }
            let Some(block) = self.file.folios().first_dirty(&rest, takes) else {
                return within.end;
            };
            let granule = self.around(&(block..block + 1));
            looked_to = granule.end;
            state.looked_to = granule.end / self.n_blocks;
            self.fetch(state, within.start.max(granule.start)..granule.end.min(end), waker);
        }
        if state.given_up { within.end } else { looked_to.min(within.end) }
    }

    /// Has what the cache lacks of a granule's `blocks` fetched on another thread, which wakes the pass;
    /// nothing if all of them are on their way anyway.
    fn fetch(&self, state: &mut State, blocks: Range<u64>, waker: &Waker) {
        let mut folios = self.file.folios();
        let neighbours = folios.neighbours_within(&blocks);
        let (Some(first), Some(last)) = (neighbours.first(), neighbours.last()) else { return };
        let copying = folios.begin_copying(first.start..last.end);
        drop(folios);
        let core = &self.file.core;
        if state.fetching.is_empty() {
            state.patience.heard(core.now());
        }
        let granule = blocks.start / self.n_blocks;
        state.fetching.insert(granule);
        // Nobody waits long for a file to be closed because of what only the cache would get.
        let (weak, shared) = (Arc::downgrade(&self.file), self.state.clone());
        let waker = waker.clone();
        core.io.read_ahead(move || {
            if let Some(file) = weak.upgrade() {
                let copying = Copying::of(&file, copying);
                let is_wanted = !state_of(&shared).given_up;
                let fetch = || !is_wanted || file.fetch_neighbours(&neighbours, &copying).is_ok();
                // A target that panics fails what it was asked for.
                let fetched = contain(fetch).unwrap_or(false);
                file.core.neighbours_stuck.store(false, Ordering::Relaxed);
                let mut state = state_of(&shared);
                state.fetching.remove(&granule);
                state.given_up |= !fetched;
                state.patience.heard(file.core.now());
            }
            waker.wake();
        });
    }
}

fn state_of(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl OpenFile {
    /// Reads from the server what the cache lacks of some blocks, as long as copies find room.
    fn fetch_neighbours(
        &self,
        neighbours: &[Range<u64>],
        copying: &Copying<'_>,
    ) -> Result<(), TargetError> {
        let Some(cache) = self.cache() else { return Ok(()) };
        let lacking = neighbours.iter().flat_map(|blocks| {
            let present = cache.present(blocks.clone());
            blocks.clone().zip(present).filter_map(|(block, present)| match present {
                Some(_) => None,
                None => Some(block),
            })
        });
        let unit_blocks = read_unit_blocks(self.geometry());
        for blocks in reads(lacking, unit_blocks) {
            if !self
                .core
                .copies
                .has_room((blocks.end - blocks.start) * self.geometry().stride_bytes())
            {
                break;
            }
            self.fetch_copies(blocks, copying)?;
        }
        Ok(())
    }
}

/// What is read for ascending blocks: at most `max_blocks` at once. A gap is read, too, if what lies
/// before it is as long: that costs less than one more read, and keeps no more than twice the memory.
fn reads(blocks: impl Iterator<Item = u64>, max_blocks: u64) -> Vec<Range<u64>> {
    let mut reads: Vec<(Range<u64>, u64)> = Vec::new();
    for block in blocks {
        match reads.last_mut() {
            Some((read, wanted))
                if block - read.end <= *wanted && block - read.start < max_blocks =>
            {
                read.end = block + 1;
                *wanted += 1;
            }
            _ => reads.push((block..block + 1, 1)),
        }
    }
    reads.into_iter().map(|(read, _)| read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_read_together_over_gaps_no_longer_than_what_lies_before_them() {
        let read = |blocks: &[u64], max_blocks| {
            let reads = reads(blocks.iter().copied(), max_blocks).into_iter();
            reads.map(|read| (read.start, read.end)).collect::<Vec<_>>()
        };
        assert_eq!(read(&[], 8), []);
        assert_eq!(read(&[3, 4, 5, 6], 8), [(3, 7)]);
        assert_eq!(read(&[3, 4, 5, 6], 3), [(3, 6), (6, 7)]);
        assert_eq!(read(&[0, 2, 4, 6], 8), [(0, 7)]);
        assert_eq!(read(&[0, 3, 4, 7], 8), [(0, 1), (3, 8)]);
        assert_eq!(read(&[0, 1, 5], 8), [(0, 2), (5, 6)]);
    }
}

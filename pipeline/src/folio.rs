//! The memory of folios: a bounded pool of equal pieces, wiped before they are used again.

use std::{fmt, time::Duration};

use zeroize::Zeroize;

use crate::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// A folio's bytes; plaintext. Wiped when dropped, and its memory goes home.
pub(crate) struct FolioBytes {
    bytes: Vec<u8>,
    /// From here on there are zeros, and nothing to be wiped: a small file's folio is wiped as far as it
    /// was used.
    zeros_from: usize,
    home: Arc<Home>,
}

impl FolioBytes {
    pub(crate) fn as_mut_slice(&mut self) -> &mut [u8] {
        self.zeros_from = self.bytes.len();
        &mut self.bytes
    }

    /// Wipes all but the first `len` bytes.
    pub(crate) fn wipe_from(&mut self, len: usize) {
        if let Some(behind) = self.bytes.get_mut(len..self.zeros_from) {
            behind.zeroize();
            self.zeros_from = len;
        }
    }
}

impl AsRef<[u8]> for FolioBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl fmt::Debug for FolioBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FolioBytes").field(&self.bytes.len()).finish()
    }
}

impl Drop for FolioBytes {
    fn drop(&mut self) {
        self.wipe_from(0);
        let mut state = self.home.state();
        state.n_out -= 1;
        if state.n_out < self.home.max {
            state.free.push(std::mem::take(&mut self.bytes));
        }
        self.home.change(state);
    }
}

/// A pool of folio memory.
#[derive(Clone, Debug)]
pub(crate) struct FolioPool(Arc<Home>);

#[derive(Debug)]
struct Home {
    folio_bytes: usize,
    max: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    free: Vec<Vec<u8>>,
    n_out: usize,
    /// The most that were ever out at once.
    high_water: usize,
    /// Counts everything that could let a waiter go on.
    seen: Seen,
    /// The count of cleaned folios at which the first of those who wait goes on; `None` if nobody
    /// waits: then none is woken, which would be a system call.
    wanted: Option<u64>,
}

/// What has happened up to a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Folios that became clean.
    cleaned: u64,
    /// All else.
    changes: u64,
}

impl Home {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held, but for a failed allocation.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a change and wakes who waits for one.
    fn change(&self, mut state: MutexGuard<'_, State>) {
        state.seen.changes += 1;
        if state.wanted.take().is_some() {
            drop(state);
            self.changed.notify_all();
        }
    }
}

impl FolioPool {
    /// A pool of at most `max` folios of `folio_bytes`; its memory is taken when first used.
    pub(crate) fn new(max: usize, folio_bytes: usize) -> FolioPool {
        let (state, changed) = (Mutex::default(), Condvar::new());
        FolioPool(Arc::new(Home { folio_bytes, max, state, changed }))
    }

    pub(crate) fn folio_bytes(&self) -> usize {
        self.0.folio_bytes
    }

    /// A folio of zeros, if the budget has one left.
    pub(crate) fn try_take(&self) -> Option<FolioBytes> {
        self.take(|state| state.n_out < self.0.max)
    }

    /// A folio of zeros, over the budget if need be: for a writer that must not wait, because
    /// what it waits for may wait for it.
    pub(crate) fn take_over_budget(&self) -> FolioBytes {
        self.take(|_| true).expect("the budget was not asked")
    }

    fn take(&self, may: impl FnOnce(&State) -> bool) -> Option<FolioBytes> {
        let mut state = self.0.state();
        if !may(&state) {
            return None;
        }
        state.n_out += 1;
        state.high_water = state.high_water.max(state.n_out);
        let recycled = state.free.pop();
        drop(state);
        let bytes = recycled.unwrap_or_else(|| vec![0; self.0.folio_bytes]);
        Some(FolioBytes { bytes, zeros_from: 0, home: self.0.clone() })
    }

    /// What has happened: read it, try, and wait with it, so that nothing is missed.
    pub(crate) fn seen(&self) -> Seen {
        self.0.state().seen
    }

    /// Says that something changed that a waiter may be waiting for.
    pub(crate) fn notify(&self) {
        self.0.change(self.0.state());
    }

    /// Says that a folio became clean: who waits for several is not woken for each.
    pub(crate) fn cleaned(&self) {
        let mut state = self.0.state();
        state.seen.cleaned += 1;
        let cleaned = state.seen.cleaned;
        if state.wanted.take_if(|wanted| *wanted <= cleaned).is_some() {
            drop(state);
            self.0.changed.notify_all();
        }
    }

    /// Waits until `n_folios` have become clean since `seen`, something else has changed, or a time has
    /// passed. Returns whether it was the folios, and nothing else.
    pub(crate) fn wait(&self, seen: Seen, n_folios: u64, at_most: Duration) -> bool {
        let wanted = seen.cleaned + n_folios;
        let waits = |state: &mut State| {
            let waits = state.seen.changes == seen.changes && state.seen.cleaned < wanted;
            if waits {
                state.wanted = Some(state.wanted.map_or(wanted, |first| first.min(wanted)));
            }
            waits
        };
        let waited = self.0.changed.wait_timeout_while(self.0.state(), at_most, waits);
        let now = waited.unwrap_or_else(PoisonError::into_inner).0.seen;
        now.changes == seen.changes && now.cleaned >= wanted
    }

    /// How many folios are out.
    pub(crate) fn n_out(&self) -> usize {
        self.0.state().n_out
    }

    /// The most folios that were ever out at once.
    pub(crate) fn high_water(&self) -> usize {
        self.0.state().high_water
    }

    /// How many folios may be out.
    pub(crate) fn max(&self) -> usize {
        self.0.max
    }
}

#[cfg(shuttle)]
#[cfg(test)]
mod models;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folio_is_wiped_before_it_is_used_again() {
        let pool = FolioPool::new(1, 4096);
        let mut folio = pool.try_take().unwrap();
        folio.as_mut_slice().fill(7);
        let address = folio.as_ref().as_ptr();
        assert!(pool.try_take().is_none());
        drop(folio);
        assert!(pool.0.state().free.iter().flatten().all(|byte| *byte == 0), "wiped at once");
        let again = pool.try_take().unwrap();
        assert_eq!(again.as_ref().as_ptr(), address, "recycled");
        assert!(again.as_ref().iter().all(|byte| *byte == 0));
    }

    #[test]
    fn a_folio_of_which_a_part_was_wiped_before_is_wiped_as_a_whole() {
        let pool = FolioPool::new(1, 4096);
        for parts in [&[100][..], &[0], &[4096], &[100, 200], &[200, 100]] {
            let mut folio = pool.try_take().unwrap();
            folio.as_mut_slice().fill(7);
            for len in parts {
                folio.wipe_from(*len);
            }
            let kept = *parts.iter().min().unwrap();
            assert!(folio.as_ref()[..kept].iter().all(|byte| *byte == 7));
            assert!(folio.as_ref()[kept..].iter().all(|byte| *byte == 0));
            drop(folio);
            assert!(pool.0.state().free.iter().flatten().all(|byte| *byte == 0), "{parts:?}");
        }
    }
}

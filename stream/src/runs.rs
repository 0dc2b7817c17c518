//! Which blocks a subrequest carries: one run, or several with gaps between them.

use std::{fmt, iter, ops::Range};

/// Runs of blocks, ascending, none empty, each apart from the next. There is at least one.
///
/// Most subrequests carry one run; more are carried where the target grants gaps
/// ([`Grant::gaps`](crate::Grant::gaps)). One run takes no memory of its own.
#[derive(Clone, PartialEq, Eq)]
pub struct Runs {
    first: Range<u64>,
    rest: Vec<Range<u64>>,
}

impl Runs {
    /// One run.
    ///
    /// # Panics
    /// If it is empty.
    pub fn one(blocks: Range<u64>) -> Runs {
        assert!(!blocks.is_empty(), "an empty run {blocks:?}");
        Runs { first: blocks, rest: Vec::new() }
    }

    /// Adds a run behind the last; one that begins at its end makes it longer.
    ///
    /// # Panics
    /// If it is empty, or begins before the last one's end.
    pub fn push(&mut self, blocks: Range<u64>) {
        assert!(!blocks.is_empty(), "an empty run {blocks:?}");
        let last = self.rest.last_mut().unwrap_or(&mut self.first);
        assert!(last.end <= blocks.start, "run {blocks:?} behind {last:?}");
        if last.end == blocks.start {
            last.end = blocks.end;
        } else {
            self.rest.push(blocks);
        }
    }

    /// The first block.
    pub fn start(&self) -> u64 {
        self.first.start
    }

    /// The block behind the last.
    pub fn end(&self) -> u64 {
        self.rest.last().unwrap_or(&self.first).end
    }

    /// The blocks from the first to the last (exclusive end), gaps included.
    pub fn hull(&self) -> Range<u64> {
        self.start()..self.end()
    }

    /// How many blocks there are, without the gaps.
    pub fn n_blocks(&self) -> u64 {
        self.iter().map(|run| run.end - run.start).sum()
    }

    /// Whether a block is in one of them.
    pub fn contains(&self, block: u64) -> bool {
        self.iter().any(|run| run.contains(&block))
    }

    /// The runs, ascending.
    pub fn iter(&self) -> impl Iterator<Item = &Range<u64>> {
        iter::once(&self.first).chain(&self.rest)
    }

    /// Each block that is in one of them, ascending.
    pub fn blocks(&self) -> impl Iterator<Item = u64> {
        self.iter().cloned().flatten()
    }

    /// All but the first `n_blocks` blocks; `None` if that leaves none.
    pub fn without_first(&self, n_blocks: u64) -> Option<Runs> {
        let mut skip = n_blocks;
        let mut left: Option<Runs> = None;
        for run in self.iter() {
            let skipped = skip.min(run.end - run.start);
            skip -= skipped;
            let part = run.start + skipped..run.end;
            match &mut left {
                _ if part.is_empty() => {}
                None => left = Some(Runs::one(part)),
                Some(left) => left.push(part),
            }
        }
        left
    }
}

/// Whether it is this one run.
impl PartialEq<Range<u64>> for Runs {
    fn eq(&self, run: &Range<u64>) -> bool {
        self.rest.is_empty() && self.first == *run
    }
}

/// One run as a range; several as a list of them.
impl fmt::Debug for Runs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.rest.is_empty() {
            true => self.first.fmt(f),
            false => f.debug_list().entries(self.iter()).finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_that_touch_are_one_and_what_is_skipped_counts_no_gap() {
        let mut runs = Runs::one(2..4);
        runs.push(4..5);
        assert!(runs == (2..5));
        runs.push(9..12);
        assert!(runs != (2..12));
        assert_eq!((runs.hull(), runs.n_blocks()), (2..12, 6));
        assert!(runs.contains(4) && !runs.contains(5) && runs.contains(9) && !runs.contains(12));
        assert_eq!(format!("{runs:?}"), "[2..5, 9..12]");
        let left = |n| runs.without_first(n).map(|left| left.iter().cloned().collect::<Vec<_>>());
        assert_eq!(left(0), Some(vec![2..5, 9..12]));
        assert_eq!(left(2), Some(vec![4..5, 9..12]));
        assert!(runs.without_first(3).unwrap() == (9..12), "the gap is no block");
        assert!(runs.without_first(5).unwrap() == (11..12));
        assert_eq!((left(6), left(7)), (None, None));
    }
}

//! Which positions of a block were changed: exactly, in memory that is bounded, however often it was.

use std::{iter, ops::Range};

use super::{record::MAX_BLOCK_BYTES, segment::add};

/// Positions of one block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Changed {
    /// All of the block's.
    All,
    /// One bit for each position from `start` on.
    Bits { start: u64, words: Vec<u64> },
    /// Ascending, neither overlapping nor touching; at least one.
    Ranges(Vec<Range<u64>>),
}

impl Changed {
    /// These positions, or all if there are none.
    pub(super) fn new(ranges: Vec<Range<u64>>) -> Changed {
        if ranges.is_empty() { Changed::All } else { Changed::Ranges(ranges).within_bounds() }
    }

    /// Both together.
    pub(super) fn and(self, other: &Changed) -> Changed {
        match (self, other) {
            (Changed::All, _) | (_, Changed::All) => Changed::All,
            (Changed::Ranges(mut ranges), Changed::Ranges(others)) => {
                others.iter().for_each(|range| add(&mut ranges, range.clone()));
                Changed::Ranges(ranges).within_bounds()
            }
            (Changed::Bits { start, words }, other) => {
                Changed::setting((start, words), &other.ranges())
            }
            (Changed::Ranges(ranges), Changed::Bits { start, words }) => {
                Changed::setting((*start, words.clone()), &ranges)
            }
        }
    }

    /// The ranges of them, ascending, neither overlapping nor touching; none if they are all.
    pub(super) fn ranges(&self) -> Vec<Range<u64>> {
        match self {
            Changed::All => Vec::new(),
            Changed::Ranges(ranges) => ranges.clone(),
            Changed::Bits { start, words } => {
                let mut ranges: Vec<Range<u64>> = Vec::new();
                for at in (*start..).take(words.len() * BITS).filter(|at| is_set(words, at - start))
                {
                    match ranges.last_mut() {
                        Some(last) if last.end == at => last.end += 1,
                        _ => ranges.push(at..at + 1),
                    }
                }
                ranges
            }
        }
    }

    /// Where the last one ends; `None` if they are all.
    pub(super) fn end(&self) -> Option<u64> {
        self.ranges().last().map(|last| last.end)
    }

    /// As bits, where that takes less.
    fn within_bounds(self) -> Changed {
        match &self {
            Changed::Ranges(ranges) if ranges.len() > FEW && takes_less_as_bits(ranges) => {
                Changed::setting((word_start(ranges[0].start), Vec::new()), ranges)
            }
            _ => self,
        }
    }

    /// Bits, and these positions besides.
    fn setting((start, mut words): (u64, Vec<u64>), ranges: &[Range<u64>]) -> Changed {
        let first = ranges.iter().map(|range| word_start(range.start)).fold(start, u64::min);
        let end = ranges.iter().map(|range| range.end).fold(first, u64::max);
        let hull = end.max(start + (words.len() * BITS) as u64) - first;
        if hull > MAX_BLOCK_BYTES + 2 * BITS as u64 {
            // No block has them all: somebody has altered the log, and its MAC will not hold.
            return Changed::All;
        }
        words.splice(..0, iter::repeat_n(0, index(start - first) / BITS));
        words.resize(words.len().max(index(end - first).div_ceil(BITS)), 0);
        for at in ranges.iter().flat_map(Range::clone) {
            words[index(at - first) / BITS] |= 1 << (index(at - first) % BITS);
        }
        Changed::Bits { start: first, words }
    }
}

/// Where the word of a position begins.
fn word_start(at: u64) -> u64 {
    at - at % BITS as u64
}

fn takes_less_as_bits(ranges: &[Range<u64>]) -> bool {
    let hull = ranges[ranges.len() - 1].end - ranges[0].start;
    hull / 8 < size_of_val(ranges) as u64
}

fn is_set(words: &[u64], at: u64) -> bool {
    words[index(at) / BITS] & 1 << (index(at) % BITS) != 0
}

/// A position in a block, which is at most 1 MiB long.
fn index(at: u64) -> usize {
    usize::try_from(at).expect("a block is in memory")
}

/// So many ranges take no more than what is known of their block anyway.
const FEW: usize = 16;
const BITS: usize = 64;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use fastrand::Rng;

    use super::*;

    /// Goal: what was not written is never laid over what others wrote. Method: against a set of positions.
    #[test]
    fn what_was_changed_is_known_exactly_however_scattered_it_is() {
        const BLOCK: u64 = 4096;
        let mut rng = Rng::with_seed(1);
        for most in [3, 40, 3000] {
            let at = |rng: &mut Rng| 5 * BLOCK + rng.u64(..BLOCK - 20);
            let (mut changed, mut model) = (None, BTreeSet::new());
            for _ in 0..most {
                let start = at(&mut rng);
                let range = start..start + rng.u64(1..3);
                model.extend(range.clone());
                let one = Changed::new(vec![range]);
                changed = Some(changed.map_or(one.clone(), |changed: Changed| one.and(&changed)));
            }
            let changed = changed.unwrap();
            let found: Vec<_> = changed.ranges().into_iter().flatten().collect();
            assert!(found.iter().eq(&model), "of {most}");
            assert_eq!(changed.end(), model.last().map(|last| last + 1));
            let bytes = match &changed {
                Changed::All => 0,
                Changed::Bits { words, .. } => size_of_val(&words[..]),
                Changed::Ranges(ranges) => size_of_val(&ranges[..]),
            };
            assert!(bytes <= 4096 / 8 + 8, "{bytes} bytes for {most}");
            assert_eq!(changed.and(&Changed::All), Changed::All);
        }
    }

    #[test]
    fn positions_that_no_block_has_take_no_memory() {
        let scattered = (0..400).map(|n| 2 * n..2 * n + 1).collect();
        let far = Changed::new([0, 3].map(|at| (1 << 50) + at..(1 << 50) + at + 1).to_vec());
        assert_eq!(far.and(&Changed::new(scattered)), Changed::All);
    }
}

//! Exact sets of positions, as sorted ranges that neither overlap nor touch.

use std::ops::Range;

/// A set of `u64` positions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RangeSet {
    ranges: Vec<Range<u64>>,
}

impl RangeSet {
    pub(crate) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Range<u64>> {
        self.ranges.iter()
    }

    /// How many positions it holds.
    pub(crate) fn len(&self) -> u64 {
        self.ranges.iter().map(|range| range.end - range.start).sum()
    }

    /// Whether it holds every position of `range`.
    pub(crate) fn covers(&self, range: &Range<u64>) -> bool {
        let at = self.ranges.partition_point(|held| held.end < range.end);
        range.is_empty()
            || self
                .ranges
                .get(at)
                .is_some_and(|held| held.start <= range.start && range.end <= held.end)
    }

    /// Whether it holds any position of `range`.
    pub(crate) fn intersects(&self, range: &Range<u64>) -> bool {
        self.first_within(range).is_some()
    }

    /// The first stretch of `range` that it holds.
    pub(crate) fn first_within(&self, range: &Range<u64>) -> Option<Range<u64>> {
        let at = self.ranges.partition_point(|held| held.end <= range.start);
        let held = self.ranges.get(at)?;
        let part = held.start.max(range.start)..held.end.min(range.end);
        (!part.is_empty()).then_some(part)
    }

    /// The stretches of `range` that it holds.
    pub(crate) fn within(&self, range: &Range<u64>) -> Vec<Range<u64>> {
        let first = self.ranges.partition_point(|held| held.end <= range.start);
        let held = self.ranges[first..].iter().take_while(|held| held.start < range.end);
        held.map(|held| held.start.max(range.start)..held.end.min(range.end)).collect()
    }

    /// The stretches of `range` that it does not hold.
    pub(crate) fn missing(&self, range: &Range<u64>) -> Vec<Range<u64>> {
        let mut missing = Vec::new();
        let mut at = range.start;
        while at < range.end {
            match self.first_within(&(at..range.end)) {
                Some(held) => {
                    if at < held.start {
                        missing.push(at..held.start);
                    }
                    at = held.end;
                }
                None => {
                    missing.push(at..range.end);
                    break;
                }
            }
        }
        missing
    }

    /// Adds every position of `range`.
    pub(crate) fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let first = self.ranges.partition_point(|held| held.end < range.start);
        let last = self.ranges.partition_point(|held| held.start <= range.end);
        let mut joined = range;
        if first < last {
            joined.start = joined.start.min(self.ranges[first].start);
            joined.end = joined.end.max(self.ranges[last - 1].end);
        }
        self.ranges.splice(first..last, [joined]);
    }

    /// Removes every position of `range`, and returns those it held.
    pub(crate) fn take(&mut self, range: &Range<u64>) -> RangeSet {
        let first = self.ranges.partition_point(|held| held.end <= range.start);
        let last = self.ranges.partition_point(|held| held.start < range.end);
        if range.is_empty() || first >= last {
            return RangeSet::default();
        }
        let head = self.ranges[first].start..range.start;
        let tail = range.end..self.ranges[last - 1].end;
        let kept = [head, tail].into_iter().filter(|kept| !kept.is_empty());
        let mut taken: Vec<_> = self.ranges.splice(first..last, kept).collect();
        let n_taken = taken.len();
        taken[0].start = taken[0].start.max(range.start);
        taken[n_taken - 1].end = taken[n_taken - 1].end.min(range.end);
        RangeSet { ranges: taken }
    }

    /// Adds every position of another set.
    pub(crate) fn extend(&mut self, other: &RangeSet) {
        other.iter().for_each(|range| self.insert(range.clone()));
    }
}

/// An offset into memory.
pub(crate) fn index_of(offset: u64) -> usize {
    usize::try_from(offset).expect("an offset within a folio or a caller's buffer")
}

/// The smallest range that holds both; an empty range holds nothing.
pub(crate) fn hull(a: &Range<u64>, b: &Range<u64>) -> Range<u64> {
    match (a.is_empty(), b.is_empty()) {
        (true, _) => b.clone(),
        (_, true) => a.clone(),
        _ => a.start.min(b.start)..a.end.max(b.end),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_range_set_is_a_set_of_positions(
            ops in prop::collection::vec((0u8..2, 0u64..60, 0u64..20), 0..60),
            probe in (0u64..60, 0u64..20),
        ) {
            let (mut set, mut model) = (RangeSet::default(), BTreeSet::new());
            for (op, start, len) in ops {
                let range = start..start + len;
                if op == 0 {
                    set.insert(range.clone());
                    model.extend(range);
                } else {
                    let taken = set.take(&range);
                    let held: Vec<_> = range.filter(|at| model.remove(at)).collect();
                    prop_assert_eq!(taken.iter().cloned().flatten().collect::<Vec<_>>(), held);
                }
            }
            prop_assert!(set.ranges.windows(2).all(|pair| pair[0].end < pair[1].start));
            prop_assert!(set.iter().all(|range| !range.is_empty()));
            prop_assert_eq!(set.len(), model.len() as u64);
            let probe = probe.0..probe.0 + probe.1;
            prop_assert_eq!(set.covers(&probe), probe.clone().all(|at| model.contains(&at)));
            prop_assert_eq!(set.intersects(&probe), probe.clone().any(|at| model.contains(&at)));
            let missing: Vec<_> = set.missing(&probe).into_iter().flatten().collect();
            prop_assert_eq!(missing, probe.filter(|at| !model.contains(at)).collect::<Vec<_>>());
        }
    }
}

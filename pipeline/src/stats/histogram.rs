//! How long things took, in a fixed number of counters.

use std::{fmt, ops::Range, time::Duration};

/// Counts of durations, in ranges each of which is at most a quarter of its start long: from 64 ns to
/// nine minutes, with everything beyond in the last.
///
/// Log-linear: four ranges of equal length for each power of two, as in
/// [HdrHistogram](https://hdrhistogram.github.io/HdrHistogram/) with the fewest digits. At most
/// 1 KiB, and as much of that as the longest takes; recording is a few instructions, and histograms add
/// up.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Histogram {
    /// Up to the last range that has something.
    counts: Vec<u64>,
    sum: Duration,
    max: Duration,
}

/// Ranges for each power of two.
const PER_OCTAVE: usize = 4;
const N_RANGES: usize = 32 * PER_OCTAVE;
/// The shortest range is of 2^6 ns.
const UNIT_SHIFT: u32 = 6;

impl Histogram {
    /// Nothing counted yet.
    pub fn new() -> Histogram {
        Histogram::default()
    }

    /// Counts one.
    pub fn record(&mut self, took: Duration) {
        let index = index_of(took);
        self.grow_to(index + 1);
        self.counts[index] += 1;
        self.sum = self.sum.saturating_add(took);
        self.max = self.max.max(took);
    }

    /// Adds another's counts to these.
    pub fn add(&mut self, other: &Histogram) {
        self.grow_to(other.counts.len());
        for (count, other) in self.counts.iter_mut().zip(&other.counts) {
            *count += other;
        }
        self.sum = self.sum.saturating_add(other.sum);
        self.max = self.max.max(other.max);
    }

    fn grow_to(&mut self, n_ranges: usize) {
        if self.counts.len() < n_ranges {
            self.counts.resize(n_ranges, 0);
        }
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// How long all took together.
    pub fn sum(&self) -> Duration {
        self.sum
    }

    /// The longest; zero if none was counted.
    pub fn max(&self) -> Duration {
        self.max
    }

    /// The mean; zero if none was counted.
    pub fn mean(&self) -> Duration {
        let nanos = self.sum.as_nanos().checked_div(u128::from(self.count())).unwrap_or(0);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// A duration that the share `share` (0 to 1) of those counted did not exceed; at most a quarter,
    /// and 64 ns, over the shortest such one. Zero if none was counted.
    pub fn quantile(&self, share: f64) -> Duration {
        let wanted = share * self.count() as f64;
        let mut before = 0;
        for (range, n) in self.ranges() {
            before += n;
            if before as f64 >= wanted {
                return range.end.min(self.max);
            }
        }
        self.max
    }

    /// The ranges that have something, ascending, with how many each has. The last one that there can
    /// be has no end: [`Duration::MAX`].
    pub fn ranges(&self) -> impl Iterator<Item = (Range<Duration>, u64)> {
        let counts = self.counts.iter().enumerate().filter(|(_, n)| **n > 0);
        counts.map(|(index, n)| {
            let end = if index + 1 < N_RANGES { start_of(index + 1) } else { Duration::MAX };
            (start_of(index)..end, *n)
        })
    }
}

fn index_of(took: Duration) -> usize {
    let units = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX) >> UNIT_SHIFT;
    // The highest bit says the octave, the two below which of its ranges. Below four, unit by unit.
    let octave = units.checked_ilog2().map_or(0, |bit| bit.saturating_sub(1)) as usize;
    let within = (units >> octave.saturating_sub(1)) as usize % PER_OCTAVE;
    (octave * PER_OCTAVE + within).min(N_RANGES - 1)
}

fn start_of(index: usize) -> Duration {
    let (octave, within) = (index / PER_OCTAVE, (index % PER_OCTAVE) as u64);
    let units = if octave == 0 { within } else { (PER_OCTAVE as u64 + within) << (octave - 1) };
    Duration::from_nanos(units << UNIT_SHIFT)
}

/// The count, the median, the 99th percentile and the longest.
impl fmt::Display for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [median, most] = [0.5, 0.99].map(|share| self.quantile(share));
        write!(
            f,
            "{} (median {median:.1?}, 99 % within {most:.1?}, longest {:.1?})",
            self.count(),
            self.max
        )
    }
}

impl fmt::Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Histogram({self})")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranges_follow_one_another_and_none_is_longer_than_a_quarter_of_its_start() {
        for index in 0..N_RANGES - 1 {
            let (start, end) = (start_of(index), start_of(index + 1));
            assert!(start < end && end - start <= (start / 4).max(Duration::from_nanos(64)));
            assert_eq!(index_of(start), index);
            assert_eq!(index_of(end - Duration::from_nanos(1)), index);
        }
        assert!(start_of(N_RANGES - 1) > Duration::from_secs(9 * 60 / 2));
        assert_eq!(index_of(Duration::MAX), N_RANGES - 1);
    }

    #[test]
    fn of_nothing_everything_is_zero() {
        let nothing = Histogram::new();
        assert_eq!(
            (nothing.count(), nothing.mean(), nothing.max()),
            (0, Duration::ZERO, Duration::ZERO)
        );
        assert_eq!(nothing.quantile(0.5), Duration::ZERO);
        assert_eq!(nothing.ranges().count(), 0);
    }

    proptest! {
        #[test]
        fn a_quantile_is_at_most_a_quarter_over_that_of_the_sorted_values(
            mut nanos in prop::collection::vec(prop_oneof![0..2000_u64, 0..u64::MAX / 2, 0..1_u64 << 38], 1..300),
            share in 0.0..=1.0_f64,
        ) {
            let mut histogram = Histogram::new();
            nanos.iter().for_each(|nanos| histogram.record(Duration::from_nanos(*nanos)));
            nanos.sort_unstable();
            let wanted = share * nanos.len() as f64;
            let exact = (1..).zip(&nanos).find(|(rank, _)| f64::from(*rank) >= wanted).unwrap().1;
            let exact = Duration::from_nanos(*exact);
            let told = histogram.quantile(share);
            prop_assert!(exact <= told, "{told:?} for {exact:?}");
            let beyond = exact >= start_of(N_RANGES - 1);
            let most = exact + exact / 4 + Duration::from_nanos(64);
            prop_assert!(beyond || told <= most, "{told:?} for {exact:?}");
            prop_assert_eq!(histogram.count(), nanos.len() as u64);
            prop_assert_eq!(histogram.max(), Duration::from_nanos(*nanos.last().unwrap()));
            prop_assert_eq!(histogram.quantile(1.0), histogram.max());
        }

        #[test]
        fn two_added_are_one_of_all(
            ours in prop::collection::vec(0..1_u64 << 40, 0..50),
            theirs in prop::collection::vec(0..1_u64 << 40, 0..50),
        ) {
            let of = |nanos: &[u64]| {
                let mut histogram = Histogram::new();
                nanos.iter().for_each(|nanos| histogram.record(Duration::from_nanos(*nanos)));
                histogram
            };
            let mut added = of(&ours);
            added.add(&of(&theirs));
            prop_assert_eq!(added, of(&[ours, theirs].concat()));
        }
    }
}

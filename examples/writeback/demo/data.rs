//! Generated data: any part of it can be made again, so that what comes back can be compared.

use std::io;

/// Random bytes over and over. The period is odd, so no two blocks within a file hold the same.
pub(crate) struct Pattern {
    table: Vec<u8>,
}

impl Pattern {
    pub(crate) fn new(seed: u64) -> Pattern {
        let mut state = seed;
        let words = (0..PERIOD_BYTES.div_ceil(8)).flat_map(|_| split_mix(&mut state).to_le_bytes());
        Pattern { table: words.take(PERIOD_BYTES).collect() }
    }

    /// The bytes at `position`.
    pub(crate) fn fill(&self, position: u64, mut to: &mut [u8]) {
        let mut at = usize::try_from(position % PERIOD_BYTES as u64).expect("less than the period");
        while !to.is_empty() {
            let len = to.len().min(PERIOD_BYTES - at);
            let (now, rest) = to.split_at_mut(len);
            now.copy_from_slice(&self.table[at..at + len]);
            (to, at) = (rest, 0);
        }
    }

    /// Reads from the start up to `end`.
    pub(crate) fn reader(&self, end: u64) -> PatternReader<'_> {
        PatternReader { pattern: self, positions: 0..end }
    }
}

/// Reads a [`Pattern`].
pub(crate) struct PatternReader<'a> {
    pattern: &'a Pattern,
    positions: std::ops::Range<u64>,
}

impl io::Read for PatternReader<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let rest = self.positions.end - self.positions.start;
        let len = usize::try_from(rest).unwrap_or(usize::MAX).min(to.len());
        self.pattern.fill(self.positions.start, &mut to[..len]);
        self.positions.start += len as u64;
        Ok(len)
    }
}

/// SplitMix64: quick, and random enough to be told apart.
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut word = *state;
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

const PERIOD_BYTES: usize = (1 << 20) - 3;

//! Cuts what a stream is to carry into subrequests.
//!
//! In: pieces of wanted blocks, ascending, each sealed as one piece of memory (so each is one
//! segment of a write). Out: runs without a gap, as long as the target's grant allows. A run ends
//! at a gap, at the granted bytes or segments, and at a boundary; otherwise it stays under
//! construction until it is told to finish. A retry uses a tiler of its own, by the same rules.
//!
//! **Invariants:** what is cut is exactly what was pushed, in order; no cut exceeds its limits; no
//! cut joins two pieces over a boundary.

use std::{collections::VecDeque, ops::Range};

use sealback_crypto::Geometry;

use crate::Grant;

/// Blocks that a stream wants to carry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The blocks.
    pub blocks: Range<u64>,
    /// Nothing may be joined behind it.
    pub boundary: bool,
    /// How often it was issued already, without getting anywhere.
    pub attempts: u32,
}

impl Piece {
    /// A piece that was never issued.
    pub fn fresh(blocks: Range<u64>) -> Piece {
        Piece { blocks, boundary: false, attempts: 0 }
    }
}

/// The limits of one cut, in blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CutLimits {
    /// Blocks, at most; at least 1.
    pub max_blocks: u64,
    /// Pieces, at most; at least 1.
    pub max_segments: usize,
    /// The block before which the cut must end, if any.
    pub boundary: Option<u64>,
}

impl CutLimits {
    /// What a grant means in whole blocks; a grant smaller than a block still carries one.
    pub fn of(grant: &Grant, geometry: Geometry) -> CutLimits {
        CutLimits {
            max_blocks: (grant.max_bytes / geometry.stride_bytes()).max(1),
            max_segments: grant.max_segments.max(1),
            boundary: grant.boundary,
        }
    }
}

/// Wanted blocks that are not in a subrequest yet.
#[derive(Debug, Default)]
pub struct Tiler {
    pieces: VecDeque<Piece>,
}

impl Tiler {
    /// A tiler with nothing in it.
    pub fn new() -> Tiler {
        Tiler::default()
    }

    /// Adds a piece behind those that are there.
    ///
    /// # Panics
    /// If it is empty, or begins before the last one's end.
    pub fn push(&mut self, piece: Piece) {
        assert!(!piece.blocks.is_empty(), "an empty piece {:?}", piece.blocks);
        if let Some(last) = self.pieces.back() {
            assert!(
                last.blocks.end <= piece.blocks.start,
                "piece {:?} behind {:?}",
                piece.blocks,
                last.blocks
            );
        }
        self.pieces.push_back(piece);
    }

    /// Where the next cut begins; `None` if nothing is wanted.
    pub fn start(&self) -> Option<u64> {
        self.pieces.front().map(|piece| piece.blocks.start)
    }

    /// Whether nothing is wanted.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Takes all pieces out, as they were pushed and cut.
    pub fn drain(&mut self) -> impl Iterator<Item = Piece> {
        self.pieces.drain(..)
    }

    /// Drops all that is wanted.
    pub fn clear(&mut self) {
        self.pieces.clear();
    }

    /// Cuts the next run, or `None` if it is still under construction (and `finish` is false).
    /// The result carries the greatest `attempts` of its pieces, and says if it ends at a boundary.
    ///
    /// # Panics
    /// If the limit's boundary is not behind the start.
    pub fn cut(&mut self, limits: &CutLimits, finish: bool) -> Option<Piece> {
        let start = self.start()?;
        let limit = limits
            .boundary
            .map_or(u64::MAX, |boundary| {
                assert!(boundary > start, "boundary {boundary} not behind {start}");
                boundary
            })
            .min(start.saturating_add(limits.max_blocks.max(1)));
        let (end, n_pieces, complete) = self.reach(start, limit, limits.max_segments.max(1));
        if !complete && !finish {
            return None;
        }
        let mut cut = Piece { blocks: start..end, boundary: false, attempts: 0 };
        for _ in 0..n_pieces {
            let piece = self.pieces.front_mut().expect("reach counted this piece");
            cut.attempts = cut.attempts.max(piece.attempts);
            if piece.blocks.end > end {
                piece.blocks.start = end;
            } else {
                cut.boundary = piece.boundary;
                self.pieces.pop_front();
            }
        }
        cut.boundary |= limits.boundary == Some(end);
        Some(cut)
    }

    /// How far a run from `start` goes: its end, the pieces it takes, and whether something other
    /// than the lack of pieces ends it.
    fn reach(&self, start: u64, limit: u64, max_segments: usize) -> (u64, usize, bool) {
        let mut end = start;
        for (n_before, piece) in self.pieces.iter().enumerate() {
            if piece.blocks.start != end || n_before == max_segments {
                return (end, n_before, true);
            }
            end = piece.blocks.end.min(limit);
            if end == limit || piece.boundary {
                return (end, n_before + 1, true);
            }
        }
        (end, self.pieces.len(), self.pieces.len() == max_segments)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn limits(max_blocks: u64, max_segments: usize, boundary: Option<u64>) -> CutLimits {
        CutLimits { max_blocks, max_segments, boundary }
    }

    fn tiler(runs: &[Range<u64>]) -> Tiler {
        let mut tiler = Tiler::new();
        for run in runs {
            tiler.push(Piece::fresh(run.clone()));
        }
        tiler
    }

    #[test]
    fn a_run_stays_under_construction_until_something_ends_it() {
        let mut under = tiler(&[0..4, 4..6]);
        assert_eq!(under.cut(&limits(8, 8, None), false), None);
        assert_eq!(under.cut(&limits(6, 8, None), false).unwrap().blocks, 0..6);
        let mut gap = tiler(&[0..4, 5..6]);
        assert_eq!(gap.cut(&limits(8, 8, None), false).unwrap().blocks, 0..4);
        assert_eq!(gap.cut(&limits(8, 8, None), false), None);
        assert_eq!(gap.cut(&limits(8, 8, None), true).unwrap().blocks, 5..6);
        let mut segments = tiler(&[0..1, 1..2, 2..3]);
        assert_eq!(segments.cut(&limits(8, 2, None), false).unwrap().blocks, 0..2);
        let mut boundary = Tiler::new();
        boundary.push(Piece::fresh(2..9));
        let cut = boundary.cut(&limits(100, 8, Some(4)), false).unwrap();
        assert_eq!((cut.blocks, cut.boundary), (2..4, true));
    }

    #[test]
    fn a_retry_is_never_joined_over_a_boundary() {
        let mut tiler = Tiler::new();
        tiler.push(Piece { blocks: 0..2, boundary: true, attempts: 1 });
        tiler.push(Piece { blocks: 2..4, boundary: false, attempts: 3 });
        let first = tiler.cut(&limits(8, 8, None), true).unwrap();
        assert_eq!(first, Piece { blocks: 0..2, boundary: true, attempts: 1 });
        let second = tiler.cut(&limits(8, 8, None), true).unwrap();
        assert_eq!(second, Piece { blocks: 2..4, boundary: false, attempts: 3 });
    }

    proptest! {
        #[test]
        fn cuts_are_exactly_what_was_pushed_within_their_limits(
            runs in prop::collection::vec((0u64..3, 1u64..9), 1..40),
            max_blocks in 1u64..12,
            max_segments in 1usize..5,
            every in 1u64..10,
        ) {
            let mut tiler = Tiler::new();
            let (mut at, mut pushed, mut out) = (0, Vec::new(), Vec::new());
            let mut cut_all = |tiler: &mut Tiler, finish| {
                while let Some(start) = tiler.start() {
                    let boundary = (start / every + 1) * every;
                    let limits = limits(max_blocks, max_segments, Some(boundary));
                    let Some(cut) = tiler.cut(&limits, finish) else { break };
                    assert!(cut.blocks.end - cut.blocks.start <= max_blocks);
                    assert!(cut.blocks.end <= boundary);
                    assert_eq!(cut.boundary, cut.blocks.end == boundary);
                    out.extend(cut.blocks);
                }
            };
            for (gap, len) in runs {
                let blocks = at + gap..at + gap + len;
                at = blocks.end;
                pushed.extend(blocks.clone());
                tiler.push(Piece::fresh(blocks));
                cut_all(&mut tiler, false);
            }
            cut_all(&mut tiler, true);
            prop_assert!(tiler.is_empty());
            prop_assert_eq!(pushed, out);
        }
    }
}

//! Cuts what a stream is to carry into subrequests.
//!
//! In: pieces of wanted blocks, ascending, each sealed as one piece of memory (so each is one
//! segment of a write). Out: runs as long as the target's grant allows. A cut ends at the granted
//! bytes or segments, at a boundary, and at a gap, unless gaps are granted: then it goes on behind
//! the gap. Otherwise it stays under construction until it is told to finish. A retry uses a tiler of
//! its own, by the same rules.
//!
//! **Invariants:** what is cut is exactly what was pushed, in order; no cut exceeds its limits; no
//! cut joins two pieces over a boundary, be it that of its own grant or one that a piece was cut by
//! before.

use std::{collections::VecDeque, ops::Range};

use sealback_crypto::Geometry;

use crate::{Grant, Runs};

/// Blocks that a stream wants to carry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The blocks.
    pub blocks: Range<u64>,
    /// Nothing from this block on may be joined to it.
    pub boundary: Option<u64>,
    /// How often it was issued already, without getting anywhere.
    pub attempts: u32,
}

impl Piece {
    /// A piece that was never issued.
    pub fn fresh(blocks: Range<u64>) -> Piece {
        Piece { blocks, boundary: None, attempts: 0 }
    }
}

/// What one subrequest is to carry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The blocks.
    pub blocks: Runs,
    /// The block that it had to end before.
    pub boundary: Option<u64>,
    /// The greatest count of attempts that any piece of it has had.
    pub attempts: u32,
}

/// The limits of one cut, in blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CutLimits {
    /// Blocks, at most, gaps not counted; at least 1.
    pub max_blocks: u64,
    /// Pieces, at most; at least 1.
    pub max_segments: usize,
    /// The block before which the cut must end, if any.
    pub boundary: Option<u64>,
    /// Whether it may go on behind a gap.
    pub gaps: bool,
}

impl CutLimits {
    /// What a grant means in whole blocks; a grant smaller than a block still carries one.
    pub fn of(grant: &Grant, geometry: Geometry) -> CutLimits {
        CutLimits {
            max_blocks: (grant.max_bytes / geometry.stride_bytes()).max(1),
            max_segments: grant.max_segments.max(1),
            boundary: grant.boundary,
            gaps: grant.gaps,
        }
    }
}

/// How far a cut goes.
struct Reach {
    n_pieces: usize,
    /// Where the last of them ends, or is cut in two (exclusive).
    end: u64,
    boundary: Option<u64>,
    /// Something other than the lack of pieces ends it.
    complete: bool,
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

    /// Cuts what comes next, or `None` if it is still under construction (and `finish` is false).
    ///
    /// # Panics
    /// If the limit's boundary is not behind the start.
    pub fn cut(&mut self, limits: &CutLimits, finish: bool) -> Option<Cut> {
        let start = self.start()?;
        let behind = limits.boundary.is_none_or(|boundary| boundary > start);
        assert!(behind, "boundary {:?} not behind {start}", limits.boundary);
        let Reach { n_pieces, end, boundary, complete } = self.reach(start, limits);
        if !complete && !finish {
            return None;
        }
        let mut cut: Option<Cut> = None;
        for _ in 0..n_pieces {
            let piece = self.pieces.front_mut().expect("reach counted this piece");
            let attempts = piece.attempts;
            let blocks = piece.blocks.start..piece.blocks.end.min(end);
            if piece.blocks.end > end {
                piece.blocks.start = end;
            } else {
                self.pieces.pop_front();
            }
            match &mut cut {
                None => cut = Some(Cut { blocks: Runs::one(blocks), boundary, attempts }),
                Some(cut) => {
                    cut.blocks.push(blocks);
                    cut.attempts = cut.attempts.max(attempts);
                }
            }
        }
        cut
    }

    fn reach(&self, start: u64, limits: &CutLimits) -> Reach {
        let mut left = limits.max_blocks.max(1);
        let max_segments = limits.max_segments.max(1);
        let (n_pieces, boundary) = (self.pieces.len(), limits.boundary);
        let mut reach = Reach { n_pieces, end: start, boundary, complete: true };
        for (n_before, piece) in self.pieces.iter().enumerate() {
            let follows = limits.gaps || piece.blocks.start == reach.end;
            let behind = reach.boundary.is_some_and(|boundary| piece.blocks.start >= boundary);
            if !follows || behind || n_before == max_segments {
                return Reach { n_pieces: n_before, ..reach };
            }
            reach.boundary = reach.boundary.into_iter().chain(piece.boundary).min();
            let limit = piece.blocks.start.saturating_add(left);
            reach.end = piece.blocks.end.min(limit).min(reach.boundary.unwrap_or(u64::MAX));
            left -= reach.end - piece.blocks.start;
            if left == 0 || reach.boundary == Some(reach.end) {
                return Reach { n_pieces: n_before + 1, ..reach };
            }
        }
        Reach { complete: n_pieces == max_segments, ..reach }
    }
}

#[cfg(test)]
mod tests {
    use std::slice::from_ref;

    use proptest::prelude::*;

    use super::*;

    fn limits(max_blocks: u64, max_segments: usize, boundary: Option<u64>) -> CutLimits {
        CutLimits { max_blocks, max_segments, boundary, gaps: false }
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
        assert!(cut.blocks == (2..4) && cut.boundary == Some(4));
    }

    #[test]
    fn a_run_that_ends_at_its_boundary_or_has_all_its_bytes_waits_for_nothing_more() {
        let mut boundary = tiler(from_ref(&(2..4)));
        assert!(boundary.cut(&limits(8, 8, Some(4)), false).unwrap().blocks == (2..4));
        let mut bytes = tiler(from_ref(&(2..4)));
        assert!(bytes.cut(&limits(2, 8, Some(9)), false).unwrap().blocks == (2..4));
    }

    #[test]
    #[should_panic(expected = "boundary Some(2) not behind 2")]
    fn a_boundary_at_the_start_is_refused() {
        tiler(from_ref(&(2..4))).cut(&limits(8, 8, Some(2)), true);
    }

    fn runs(cut: Option<Cut>) -> Vec<Range<u64>> {
        cut.map_or_else(Vec::new, |cut| cut.blocks.iter().cloned().collect())
    }

    #[test]
    fn a_cut_with_gaps_goes_on_behind_them_up_to_bytes_segments_and_boundary() {
        let gaps = |max_blocks, max_segments, boundary| CutLimits {
            gaps: true,
            ..limits(max_blocks, max_segments, boundary)
        };
        let wanted = [0..2, 5..7, 9..10, 16..18];
        let mut under = tiler(&wanted[..3]);
        assert_eq!(under.cut(&gaps(8, 8, Some(16)), false), None, "more may come before 16");
        under.push(Piece::fresh(16..18));
        assert_eq!(runs(under.cut(&gaps(8, 8, Some(16)), false)), wanted[..3]);
        assert!(under.cut(&gaps(8, 8, Some(32)), true).unwrap().blocks == (16..18));
        let mut bytes = tiler(&wanted);
        assert_eq!(runs(bytes.cut(&gaps(3, 8, None), false)), [0..2, 5..6], "gaps take no bytes");
        assert_eq!(runs(bytes.cut(&gaps(3, 2, None), false)), [6..7, 9..10], "two segments");
        let mut boundary = tiler(&wanted);
        assert_eq!(runs(boundary.cut(&gaps(8, 8, Some(6)), false)), [0..2, 5..6]);
    }

    #[test]
    fn a_retry_is_never_joined_over_a_boundary() {
        for gaps in [false, true] {
            let limits = CutLimits { gaps, ..limits(8, 8, None) };
            let mut tiler = Tiler::new();
            tiler.push(Piece { blocks: 0..2, boundary: Some(2), attempts: 1 });
            tiler.push(Piece { blocks: 2..4, boundary: None, attempts: 3 });
            let first = tiler.cut(&limits, true).unwrap();
            assert!(first.blocks == (0..2) && first.attempts == 1);
            let second = tiler.cut(&limits, true).unwrap();
            assert!(second.blocks == (2..4) && second.attempts == 3);
        }
        // The gap in front of a boundary is no way over it.
        let mut tiler = Tiler::new();
        for (blocks, boundary) in [(0..1, Some(4)), (2..3, Some(4)), (6..7, Some(8))] {
            tiler.push(Piece { blocks, boundary, attempts: 1 });
        }
        let limits = CutLimits { gaps: true, ..limits(8, 8, None) };
        assert_eq!(runs(tiler.cut(&limits, true)), [0..1, 2..3]);
        assert!(tiler.cut(&limits, true).unwrap().blocks == (6..7));
    }

    proptest! {
        #[test]
        fn cuts_are_exactly_what_was_pushed_within_their_limits(
            runs in prop::collection::vec((0u64..3, 1u64..9), 1..40),
            max_blocks in 1u64..12,
            max_segments in 1usize..5,
            every in 1u64..10,
            gaps: bool,
        ) {
            let mut tiler = Tiler::new();
            let (mut at, mut pushed, mut out) = (0, Vec::new(), Vec::new());
            let mut cut_all = |tiler: &mut Tiler, finish| {
                while let Some(start) = tiler.start() {
                    let boundary = (start / every + 1) * every;
                    let limits =
                        CutLimits { gaps, ..limits(max_blocks, max_segments, Some(boundary)) };
                    let Some(cut) = tiler.cut(&limits, finish) else { break };
                    assert!((1..=max_blocks).contains(&cut.blocks.n_blocks()));
                    assert!(cut.blocks.end() <= boundary);
                    assert!(gaps || cut.blocks == cut.blocks.hull());
                    assert_eq!(cut.boundary, Some(boundary));
                    out.extend(cut.blocks.blocks());
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

//! A stream, and what it is made of, without a request around it.

use std::{hint, time::Duration};

use sealback_crypto::Geometry;
use sealback_stream::{
    Credit, CutLimits, Grant, Piece, Prepared, Role, Runs, StalledQueue, Stream, Subrequest, Tiler,
};

use super::{Call, Kernel};

/// Blocks of a span: one piece.
const PIECE: u64 = 32;
/// Blocks of a subrequest: the last of four spans is cut in two.
const GRANTED: u64 = 100;
const N: u64 = 256;

pub(super) fn kernels() -> Vec<Kernel> {
    vec![
        Kernel::of_units("stream/tiler", (N, "subrequest"), tiler),
        Kernel::of_units("stream/stalled-queue", (N, "subrequest"), stalled),
        Kernel::of_units("stream/collect", (N, "subrequest"), collect),
    ]
}

/// All that so many subrequests carry, in pieces.
fn pieces() -> impl Iterator<Item = std::ops::Range<u64>> {
    (0..N * GRANTED).step_by(32).map(|start| start..(start + PIECE).min(N * GRANTED))
}

/// Pieces are pushed and cut.
fn tiler() -> Call {
    let limits =
        CutLimits { max_blocks: GRANTED, max_segments: usize::MAX, boundary: None, gaps: false };
    let mut tiler = Tiler::new();
    Box::new(move || {
        let mut n_cuts = 0;
        for piece in pieces() {
            tiler.push(Piece::fresh(piece));
            while let Some(cut) = tiler.cut(&limits, false) {
                hint::black_box(cut);
                n_cuts += 1;
            }
        }
        assert_eq!(n_cuts, N);
    })
}

/// Prepared subrequests wait, eight at a time, and leave when the head is sealed.
fn stalled() -> Call {
    let subrequest = |id: u64| Subrequest {
        id,
        blocks: Runs::one(id * GRANTED..(id + 1) * GRANTED),
        boundary: None,
        attempts: 0,
        prepared_at: Duration::ZERO,
        credit: Credit::none(),
    };
    let mut queue = StalledQueue::new();
    Box::new(move || {
        let mut sealed_to = 0;
        for first in (0..N).step_by(8) {
            for id in first..first + 8 {
                queue.push(subrequest(id));
            }
            // Two spans more are sealed each time, until the head is.
            while !queue.is_empty() {
                sealed_to += 2 * PIECE;
                while let Some(left) =
                    queue.pop_ready(|blocks| (blocks.end() <= sealed_to).then_some(()))
                {
                    hint::black_box(left);
                }
            }
        }
    })
}

/// Pieces are wanted, prepared, issued in a window of four, and terminate in another order.
fn collect() -> Call {
    const WINDOW: usize = 4;
    let geometry = Geometry::new(16 << 10).expect("a block size");
    let bytes = GRANTED * geometry.stride_bytes();
    let grant = move |_block| Prepared::Granted(Grant::unlimited().with_max_bytes(bytes));
    let mut in_flight = Vec::new();
    Box::new(move || {
        let mut stream = Stream::new(Role::Must, geometry, WINDOW);
        for piece in pieces() {
            stream.want(piece.clone());
            stream.build(Duration::ZERO, false, grant, |prepared| _ = hint::black_box(prepared));
            while let Some(issued) = stream.issue(Duration::ZERO, |_blocks| Some(bytes)) {
                in_flight.push(issued.id);
            }
            if in_flight.len() == WINDOW {
                for id in in_flight.drain(..).rev() {
                    hint::black_box(stream.terminated(id, Ok(bytes)));
                    hint::black_box(stream.collect(piece.end));
                }
            }
        }
        assert!(stream.is_finished() && stream.collected_to() == N * GRANTED);
    })
}

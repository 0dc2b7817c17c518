//! What a seed decides before the first step.

use std::{ops::Range, time::Duration};

use fastrand::Rng;
use sealback::RetryLimits;
use sealback_crypto::Engine;

use super::MIRROR;

/// How large everything is, and what goes wrong.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) engine: Engine,
    pub(super) n_buffers: usize,
    pub(super) span_blocks: u64,
    pub(super) max_stalled: usize,
    /// There is a second server.
    pub(super) mirrored: bool,
    /// Of the upload, the cache's stream, and the mirror's.
    pub(super) windows: [usize; 3],
    pub(super) credits: Option<i64>,
    pub(super) boundary: Option<u64>,
    /// Of the grants, those for blocks that may lie apart.
    pub(super) gaps: u32,
    pub(super) retry: RetryLimits,
    pub(super) cache_patience: Duration,
    /// Chances in a thousand, for each of them.
    pub(super) transient: [u32; 3],
    pub(super) unknown: [u32; 3],
    pub(super) short: [u32; 3],
    pub(super) fatal: [u32; 3],
    pub(super) conflict: [u32; 3],
    /// Of the blocks, those that were changed in part.
    pub(super) partial: u32,
    /// Of the merges, those that fail.
    pub(super) merge_failure: u32,
    pub(super) seal_failure: u32,
    /// Of the times that the source is asked, those when it has to wait.
    pub(super) later: u32,
    /// Of the steps, those at which somebody begins to wait for the end.
    pub(super) hurry: u32,
    /// The source has something that it cannot hand out.
    pub(super) lacks: bool,
    pub(super) cancel: u32,
    /// Of the cache's writes, those that are never answered.
    pub(super) hang: u32,
    /// While this lasts, the server answers with errors.
    pub(super) down: Range<Duration>,
}

fn chance(rng: &mut Rng, choices: &[u32]) -> u32 {
    choices[rng.usize(..choices.len())]
}

impl Plan {
    pub(super) fn new(rng: &mut Rng, engine: Engine) -> Plan {
        let retry = RetryLimits {
            max_attempts: rng.u32(2..6),
            deadline: Duration::from_millis([3, 30, 60_000][rng.usize(..3)]),
            ..RetryLimits::default()
        };
        let cache_patience = [Duration::MAX, Duration::from_millis(2)][rng.usize(..2)];
        let down_from = Duration::from_micros(rng.u64(..10_000));
        let down_for = Duration::from_millis(u64::from(chance(rng, &[0, 0, 0, 5, 50])));
        // A cache that may hang for ever must be given up some day.
        let may_hang = cache_patience < Duration::MAX;
        let mut transient = [chance(rng, &[0, 0, 20, 200]), chance(rng, &[0, 0, 0, 50]), 0];
        let mut unknown = [chance(rng, &[0, 0, 20, 100]), chance(rng, &[0, 0, 0, 20]), 0];
        let mut short = [chance(rng, &[0, 0, 50, 300]), chance(rng, &[0, 0, 0, 50]), 0];
        let mut fatal = [chance(rng, &[0, 0, 0, 10]), chance(rng, &[0, 0, 20]), 0];
        for chances in [&mut transient, &mut unknown, &mut short, &mut fatal] {
            // What is likely with the one server need not be with the other.
            chances[MIRROR] = chances[rng.usize(..2)];
        }
        // A copy is told of nothing that it could compare; it may do so nevertheless.
        let unasked = chance(rng, &[0, 0, 0, 0, 10]);
        Plan {
            engine,
            mirrored: rng.u32(..3) == 0,
            n_buffers: rng.usize(1..6),
            span_blocks: rng.u64(1..9),
            max_stalled: rng.usize(1..9),
            windows: [rng.usize(1..5), rng.usize(1..5), rng.usize(1..5)],
            credits: rng.bool().then(|| rng.i64(2..6)),
            boundary: rng.bool().then(|| rng.u64(1..12)),
            gaps: chance(rng, &[0, 300, 1000]),
            retry,
            cache_patience,
            transient,
            unknown,
            short,
            fatal,
            conflict: [chance(rng, &[0, 0, 0, 20, 200]), unasked, unasked],
            partial: chance(rng, &[0, 300, 1000, 1000]),
            merge_failure: chance(rng, &[0, 0, 0, 20]),
            seal_failure: chance(rng, &[0, 0, 0, 0, 0, 10]),
            later: chance(rng, &[0, 0, 100, 500]),
            hurry: chance(rng, &[0, 0, 0, 20]),
            lacks: rng.u32(..20) == 0,
            cancel: chance(rng, &[0, 0, 0, 0, 10]),
            hang: if may_hang { chance(rng, &[0, 50, 200]) } else { 0 },
            down: down_from..down_from + down_for,
        }
    }
}

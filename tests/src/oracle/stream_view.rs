//! What the oracle knows of one stream.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use sealback_stream::Runs;

use super::Stored;

/// What a subrequest may carry.
#[derive(Debug)]
pub(super) struct Granted {
    pub(super) max_blocks: u64,
    pub(super) max_segments: usize,
    pub(super) boundary: Option<u64>,
    pub(super) gaps: bool,
}

/// What one stream has done, seen from outside.
#[derive(Debug, Default)]
pub(super) struct StreamView {
    /// What did not go through and was not sent again yet: the attempts that got nowhere.
    pub(super) owed: BTreeMap<u64, u32>,
    /// The greatest count of attempts that anything had.
    pub(super) most_attempts: u32,
    /// Where what is sent again begins that was sent again last.
    pub(super) reissued_from: u64,
    /// What the target said went through.
    pub(super) acknowledged: BTreeSet<u64>,
    /// What of that was merged since, and is to go through once more.
    pub(super) redo: BTreeSet<u64>,
    /// What it has, whatever it said.
    pub(super) stored: BTreeMap<u64, Stored>,
    /// The grant that a subrequest that starts at a block has.
    pub(super) grants: BTreeMap<u64, Granted>,
    pub(super) first_issued_to: u64,
    pub(super) ever_issued: BTreeSet<u64>,
    /// Attempts of each subrequest that is in flight.
    pub(super) in_flight: BTreeMap<u64, u32>,
    /// It was asked, or has answered, then last, if something is in flight.
    pub(super) silent_since: Option<Duration>,
    /// Prepared and not issued when the last step had ended.
    pub(super) stalled: usize,
    /// What is prepared and not issued: what was never issued, and what was.
    pub(super) fresh: VecDeque<(u64, Runs)>,
    pub(super) again: VecDeque<(u64, Runs)>,
    /// The head, when it could go but for its ciphertext, and since when.
    pub(super) held_up: Option<(u64, Duration)>,
    pub(super) collected_to: u64,
    pub(super) off: bool,
}

impl StreamView {
    /// A subrequest was issued.
    pub(super) fn left(&mut self, id: u64) {
        for lane in [&mut self.again, &mut self.fresh] {
            lane.retain(|(prepared, _)| *prepared != id);
        }
    }

    /// What is to go next. Nothing that was never issued goes before what is owed.
    pub(super) fn head(&self) -> Option<&(u64, Runs)> {
        self.again.front().or_else(|| self.fresh.front().filter(|_| self.owed.is_empty()))
    }
}

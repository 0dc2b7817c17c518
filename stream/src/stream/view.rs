//! Where a stream stands, for who wants to see why it does not go on.

use std::{cmp::Reverse, ops::Range, time::Duration};

use super::{Progress, Stream};
use crate::{Runs, Subrequest};

/// Subrequests in flight that a view lists, at most.
const MAX_LISTED: usize = 16;

/// Where a stream stands.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamView {
    /// It takes part: it has a target that has not failed.
    pub is_active: bool,
    /// Subrequests in flight at once, at most.
    pub window: usize,
    /// The block before which everything wanted has gone through (exclusive).
    pub collected_to: u64,
    /// The first block that it wants and that no subrequest was prepared for.
    pub wanted_from: Option<u64>,
    /// The target had no credit when it was asked last.
    pub refused: bool,
    /// Subrequests that are prepared, and not issued.
    pub n_prepared: usize,
    /// The one of them that goes next, since when it was prepared.
    pub head: Option<SubrequestView>,
    /// Subrequests that are with the target.
    pub n_in_flight: usize,
    /// Those that were issued first, since when; at most sixteen.
    pub in_flight: Vec<SubrequestView>,
    /// Subrequests that did not go through, and wait to be cut anew.
    pub n_unfinished: usize,
    /// Subrequests that the target still had when the stream was switched off.
    pub n_abandoned: usize,
}

/// A subrequest that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SubrequestView {
    /// Its number within the stream.
    pub id: u64,
    /// From its first block to its last.
    pub blocks: Range<u64>,
    /// How many of these it carries.
    pub n_blocks: u64,
    /// How often its blocks were issued before, without getting anywhere.
    pub attempts: u32,
    /// Since when it has waited, on the driver's clock.
    pub since: Duration,
}

impl SubrequestView {
    fn new(id: u64, blocks: &Runs, attempts: u32, since: Duration) -> SubrequestView {
        SubrequestView { id, blocks: blocks.hull(), n_blocks: blocks.n_blocks(), attempts, since }
    }
}

impl Stream {
    /// The subrequest that is to be issued next.
    pub fn head(&self) -> Option<&Subrequest> {
        self.stalled.head()
    }

    /// Where it stands.
    pub fn view(&self) -> StreamView {
        let in_flight = self.outstanding.iter().filter_map(|entry| match entry.progress {
            Progress::InFlight { .. } => {
                let (id, attempts, issued_at) = (entry.id, entry.attempts, entry.issued_at);
                Some(SubrequestView::new(id, &entry.blocks, attempts, issued_at))
            }
            Progress::Passed | Progress::Unfinished { .. } => None,
        });
        let mut in_flight: Vec<_> = in_flight.collect();
        in_flight.sort_by_key(|subrequest| (subrequest.since, Reverse(subrequest.attempts)));
        in_flight.truncate(MAX_LISTED);
        let unfinished = |progress: &Progress| matches!(progress, Progress::Unfinished { .. });
        let n_unfinished = self.outstanding.iter().filter(|entry| unfinished(&entry.progress));
        let head = self.head().map(|head| {
            SubrequestView::new(head.id, &head.blocks, head.attempts, head.prepared_at)
        });
        StreamView {
            is_active: self.active,
            window: self.window,
            collected_to: self.collected_to,
            wanted_from: [self.again.start(), self.wanted.start()].into_iter().flatten().min(),
            refused: self.refused,
            n_prepared: self.stalled.len(),
            head,
            n_in_flight: self.in_flight,
            in_flight,
            n_unfinished: n_unfinished.count(),
            n_abandoned: self.abandoned.len(),
        }
    }
}

//! One destination's share of a writeback, as a state machine without I/O.
//!
//! In come wanted blocks, grants and terminations; out go subrequests to issue, and how far the
//! stream has come (`collected_to`). It holds no thread, clock, lock or channel: time is an
//! argument, and what is asked of the target is a closure.
//!
//! **Invariants:**
//! 1. `collected_to` never goes back, and never passes a block that is wanted and not yet through.
//! 2. First issues ascend; reissues ascend among themselves and go first.
//! 3. A subrequest leaves only when all its blocks are sealed and the window has room.
//! 4. What is sent again is exactly what did not go through.

use std::{collections::VecDeque, ops::Range, time::Duration};

use sealback_crypto::Geometry;

use crate::{
    Credit, Cut, CutLimits, Failure, Grant, Piece, Prepared, Runs, StalledQueue, Subrequest,
    TargetError, TargetErrorKind, Tiler,
};

mod collected;
mod view;

pub use collected::Collected;
pub use view::{StreamView, SubrequestView};

/// What becomes of the request if the stream fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It may fail: then it is switched off, and the request goes on without it (a cache).
    May,
    /// It must succeed, or the request fails (a server).
    Must,
}

/// A subrequest that is to go to the target now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// The subrequest's number.
    pub id: u64,
    /// The blocks it carries.
    pub blocks: Runs,
    /// How often they were issued before, without getting anywhere.
    pub attempts: u32,
}

#[derive(Debug)]
struct Outstanding {
    id: u64,
    blocks: Runs,
    boundary: Option<u64>,
    attempts: u32,
    bytes: u64,
    issued_at: Duration,
    progress: Progress,
}

#[derive(Debug)]
enum Progress {
    /// With the target; the credit goes back when it has terminated.
    InFlight {
        credit: Credit,
    },
    Passed,
    /// This did not go through.
    Unfinished {
        left: Runs,
    },
}

/// One stream of one request.
#[derive(Debug)]
pub struct Stream {
    role: Role,
    geometry: Geometry,
    window: usize,
    /// It takes part: it has a target that has not failed.
    active: bool,
    wanted: Tiler,
    again: Tiler,
    grant: Option<Grant>,
    /// The target had none when it was asked last.
    refused: bool,
    stalled: StalledQueue,
    outstanding: VecDeque<Outstanding>,
    in_flight: usize,
    /// What the target still had when the stream was switched off.
    abandoned: Vec<(u64, Credit)>,
    collected_to: u64,
    sent_to: u64,
    last_id: u64,
}

impl Stream {
    /// A stream with nothing to do, that has at most `window` subrequests in flight.
    pub fn new(role: Role, geometry: Geometry, window: usize) -> Stream {
        Stream {
            role,
            geometry,
            window: window.max(1),
            active: true,
            wanted: Tiler::new(),
            again: Tiler::new(),
            grant: None,
            refused: false,
            stalled: StalledQueue::new(),
            outstanding: VecDeque::new(),
            in_flight: 0,
            abandoned: Vec::new(),
            collected_to: 0,
            sent_to: 0,
            last_id: 0,
        }
    }

    /// Adds blocks to carry: one piece of sealed memory. Ascending. Ignored when off.
    ///
    /// # Panics
    /// If they are empty, or begin before the last ones' end.
    pub fn want(&mut self, blocks: Range<u64>) {
        if self.is_active() {
            self.wanted.push(Piece::fresh(blocks));
        }
    }

    /// Prepares subrequests from what is wanted, as many as can be: `prepare` asks the target
    /// what one that starts at a block may carry, and `prepared` hears of each. The last one stays
    /// under construction unless `finish`. What is sent again is never left under construction.
    pub fn build(
        &mut self,
        now: Duration,
        finish: bool,
        mut prepare: impl FnMut(u64) -> Prepared,
        mut prepared: impl FnMut(&Subrequest),
    ) {
        self.refused = false;
        loop {
            let again = !self.again.is_empty();
            let tiler = if again { &mut self.again } else { &mut self.wanted };
            let Some(start) = tiler.start() else { break };
            let granted = self.grant.take().map_or_else(|| prepare(start), Prepared::Granted);
            self.refused = matches!(granted, Prepared::Later);
            let Prepared::Granted(grant) = granted else { break };
            let limits = CutLimits::of(&grant, self.geometry);
            let Some(Cut { blocks, boundary, attempts }) = tiler.cut(&limits, finish || again)
            else {
                self.grant = Some(grant);
                break;
            };
            self.last_id += 1;
            let subrequest = Subrequest {
                id: self.last_id,
                blocks,
                boundary,
                attempts,
                prepared_at: now,
                credit: grant.credit,
            };
            prepared(&subrequest);
            if again {
                self.stalled.push_again(subrequest);
            } else {
                self.stalled.push(subrequest);
            }
        }
    }

    /// Takes the head of the stalled queue to be issued, if the window has room and all its
    /// blocks are sealed: `sealed_bytes` answers how many stored bytes they make, if they are.
    pub fn issue(
        &mut self,
        now: Duration,
        sealed_bytes: impl FnOnce(&Runs) -> Option<u64>,
    ) -> Option<Issued> {
        if !self.has_room() {
            return None;
        }
        let (subrequest, bytes) = self.stalled.pop_ready(sealed_bytes)?;
        let Subrequest { id, blocks, boundary, attempts, credit, .. } = subrequest;
        let entry = Outstanding {
            id,
            blocks: blocks.clone(),
            boundary,
            attempts,
            bytes,
            issued_at: now,
            progress: Progress::InFlight { credit },
        };
        let at = self.outstanding.partition_point(|other| other.blocks.start() < blocks.start());
        self.outstanding.insert(at, entry);
        self.in_flight += 1;
        self.sent_to = self.sent_to.max(blocks.hull().end);
        Some(Issued { id, blocks, attempts })
    }

    /// When a subrequest was issued that is with the target; none of a stream that is off.
    pub fn issued_at(&self, id: u64) -> Option<Duration> {
        let entry = self.outstanding.iter().find(|entry| entry.id == id);
        entry.map(|entry| entry.issued_at)
    }

    /// Notes how a subrequest terminated; its credit goes back.
    ///
    /// # Panics
    /// If it has terminated already: a completion is used once.
    pub fn terminated(&mut self, id: u64, outcome: Result<u64, Failure>) -> Collected {
        let Some(entry) = self.outstanding.iter_mut().find(|entry| entry.id == id) else {
            self.abandoned.retain(|(abandoned, _credit)| *abandoned != id);
            return Collected::Ignored;
        };
        assert!(
            matches!(entry.progress, Progress::InFlight { .. }),
            "subrequest {id} terminated twice"
        );
        self.in_flight -= 1;
        let (through, failure) = match outcome {
            Ok(bytes) if bytes >= entry.bytes => {
                entry.progress = Progress::Passed;
                return Collected::Passed { bytes: entry.bytes };
            }
            Ok(bytes) => (bytes / self.geometry.stride_bytes(), short_write(bytes, entry.bytes)),
            Err(failure) => (0, failure),
        };
        let left =
            entry.blocks.without_first(through).expect("fewer bytes than all of its blocks'");
        let attempts = if through > 0 { 0 } else { entry.attempts + 1 };
        entry.attempts = attempts;
        entry.progress = Progress::Unfinished { left: left.clone() };
        let blocks = left;
        match failure {
            Failure::Conflict(_) | Failure::Renegotiate(_) | Failure::Retry(_) => {
                let bytes = through * self.geometry.stride_bytes();
                Collected::Unfinished { blocks, bytes, attempts, failure }
            }
            Failure::Fatal(_) => Collected::Failed { blocks, attempts, failure },
        }
    }

    /// Puts exactly what did not go through back to be cut anew, under new grants. To be called
    /// with nothing in flight. `segment_end` answers where the piece of sealed memory that holds a
    /// block ends. Blocks of `redo` (ascending) have other bytes now: those that went through are put
    /// back, too. Returns how many subrequests it takes apart.
    ///
    /// # Panics
    /// If something is in flight.
    pub fn retile(&mut self, segment_end: impl Fn(u64) -> u64, redo: &[u64]) -> usize {
        assert_eq!(self.in_flight, 0, "retile with subrequests in flight");
        // The subrequest under construction asks anew later: the retries go first, and may need
        // its credit.
        self.grant = None;
        let stalled = self.stalled.drain_again();
        let mut apart: Vec<_> =
            stalled.map(|sub| (sub.blocks, sub.boundary, sub.attempts)).collect();
        let waiting = apart.len();
        self.outstanding.retain(|entry| match &entry.progress {
            Progress::Unfinished { left } => {
                apart.push((left.clone(), entry.boundary, entry.attempts));
                false
            }
            Progress::InFlight { .. } | Progress::Passed => true,
        });
        let taken_apart = apart.len() - waiting;
        let mut pieces: Vec<Piece> = self.again.drain().collect();
        for (blocks, boundary, attempts) in apart {
            let runs = blocks.iter().cloned();
            pieces.extend(runs.map(|blocks| Piece { blocks, boundary, attempts }));
        }
        let fresh = [self.stalled.start(), self.wanted.start()].into_iter().flatten().min();
        for block in redo {
            let waits = pieces.iter().any(|piece| piece.blocks.contains(block));
            if !waits && fresh.is_none_or(|fresh| *block < fresh) {
                pieces.push(Piece::fresh(*block..block + 1));
            }
        }
        pieces.sort_unstable_by_key(|piece| piece.blocks.start);
        for Piece { blocks, boundary, attempts } in pieces {
            let mut start = blocks.start;
            while start < blocks.end {
                let end = segment_end(start).min(blocks.end);
                self.again.push(Piece { blocks: start..end, boundary, attempts });
                start = end;
            }
        }
        taken_apart
    }

    /// Moves `collected_to` up to the first block that is not through, or to `issued_to` where
    /// there is none, and forgets what lies behind it. Returns whether it moved.
    pub fn collect(&mut self, issued_to: u64) -> bool {
        let waiting = [self.again.start(), self.stalled.start(), self.wanted.start()];
        let waiting = waiting.into_iter().flatten().min().unwrap_or(issued_to);
        while let Some(front) = self.outstanding.front() {
            if !matches!(front.progress, Progress::Passed) {
                break;
            }
            self.outstanding.pop_front();
        }
        let outstanding = self.outstanding.front().map(|front| match &front.progress {
            Progress::Unfinished { left } => left.start(),
            Progress::InFlight { .. } | Progress::Passed => front.blocks.start(),
        });
        let reached = outstanding.map_or(waiting, |start| start.min(waiting));
        let moved = reached > self.collected_to;
        self.collected_to = self.collected_to.max(reached);
        moved
    }

    /// Takes the stream out of the request. What is in flight is no longer waited for; its credit
    /// still goes back when it terminates.
    pub fn switch_off(&mut self) {
        self.active = false;
        self.wanted.clear();
        self.again.clear();
        self.grant = None;
        self.stalled.clear();
        self.abandoned.extend(self.outstanding.drain(..).filter_map(
            |entry| match entry.progress {
                Progress::InFlight { credit } => Some((entry.id, credit)),
                Progress::Passed | Progress::Unfinished { .. } => None,
            },
        ));
        self.in_flight = 0;
    }

    /// Drops what was never issued, or waits to be issued again; what is in flight goes on.
    pub fn cancel_unissued(&mut self) {
        self.wanted.clear();
        self.again.clear();
        self.grant = None;
        self.stalled.clear();
    }

    /// The block before which everything wanted has gone through; exclusive.
    pub fn collected_to(&self) -> u64 {
        self.collected_to
    }

    /// The block from which on nothing was ever with the target; exclusive end of what may be there.
    pub fn sent_to(&self) -> u64 {
        self.sent_to
    }

    /// The block from which on it may still want bytes; exclusive end of what it is done with. The
    /// same as [`collected_to`](Stream::collected_to), unless blocks behind that are sent once more.
    pub fn done_to(&self) -> u64 {
        let outstanding = self.outstanding.iter().find_map(|entry| match &entry.progress {
            Progress::InFlight { .. } => Some(entry.blocks.start()),
            Progress::Passed => None,
            Progress::Unfinished { left } => Some(left.start()),
        });
        let waiting = [self.again.start(), self.stalled.start(), outstanding];
        waiting.into_iter().flatten().fold(self.collected_to, u64::min)
    }

    /// How many subrequests are with the target.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// How many subrequests are prepared and wait to be issued.
    pub fn stalled(&self) -> usize {
        self.stalled.len()
    }

    /// The head of the stalled queue, if it is held up by its ciphertext alone: the window has
    /// room for it.
    pub fn head_with_room(&self) -> Option<&Subrequest> {
        self.stalled.head().filter(|_| self.has_room())
    }

    /// Whether the head may go as soon as it is sealed.
    fn has_room(&self) -> bool {
        // A fresh subrequest must not overtake one that waits for a grant to be sent again.
        let blocked = !self.again.is_empty() && !self.stalled.has_again();
        self.in_flight < self.window && !blocked
    }

    /// Whether it has nothing prepared and nothing with its target: it could use a subrequest,
    /// however small.
    pub fn is_idle(&self) -> bool {
        self.stalled.is_empty() && self.in_flight == 0
    }

    /// Whether nothing is left to do.
    pub fn is_finished(&self) -> bool {
        self.is_idle()
            && self.wanted.is_empty()
            && self.again.is_empty()
            && self.outstanding.iter().all(|entry| matches!(entry.progress, Progress::Passed))
    }

    /// Whether it still takes part.
    pub fn is_active(&self) -> bool {
        self.active
    }

    /// What becomes of the request if it fails.
    pub fn role(&self) -> Role {
        self.role
    }
}

fn short_write(written: u64, asked: u64) -> Failure {
    Failure::Retry(TargetError::new(
        TargetErrorKind::Io,
        format!("short write: {written} of {asked} bytes"),
    ))
}

#[cfg(test)]
mod tests;

//! The collector: how far all streams have come, and what is let go behind that.

use sealback_crypto::Sealed;
use sealback_stream::Role;

use super::{Action, FIRST_SERVER, Host, Phase, Request};
use crate::{
    source::{Destinations, Writeback},
    spans::Passed,
    trace::TraceEvent,
};

impl Request {
    /// Collects every stream, and lets go of what all of them have passed.
    pub(super) fn collect(&mut self, host: &mut impl Host) {
        let issued_to = self.issuer.issued_to();
        for stream in &mut self.streams {
            if stream.is_active() && stream.collect(issued_to) && stream.role() == Role::Must {
                self.retryer.progressed();
            }
        }
        let collected_to = self.collected_to();
        // After a failure, what never left makes the streams look as if they had passed it.
        let running = matches!(self.phase, Phase::Running);
        if running && host.tracing() && collected_to > self.told_to {
            self.told_to = collected_to;
            host.trace(TraceEvent::Collected { to: collected_to });
        }
        while let Some(Passed { sealed, destinations, span }) = self.spans.next_passed(collected_to)
        {
            if !running {
                self.leave_in_doubt(&sealed, destinations);
            } else if self.has(Role::Must, destinations) {
                self.actions.push(Action::Stored { sealed });
            }
            if let Some(sealed) = span
                && running
                && self.has(Role::May, destinations)
            {
                self.actions.push(Action::Cached { sealed });
            }
        }
        if running {
            while let Some(folio) = self.releaser.pop_passed(collected_to) {
                self.release(folio, Writeback::Clean, host);
            }
        }
    }

    /// Tells of what may be on the server, or not, when nothing more is sent.
    pub(super) fn leave_all_in_doubt(&mut self) {
        while let Some(Passed { sealed, destinations, .. }) = self.spans.next_passed(u64::MAX) {
            self.leave_in_doubt(&sealed, destinations);
        }
        self.spans.clear();
    }

    fn leave_in_doubt(&mut self, sealed: &Sealed, destinations: Destinations) {
        let blocks = sealed.blocks();
        let sent = blocks.start..blocks.end.min(self.streams[FIRST_SERVER].sent_to());
        if destinations.contains(FIRST_SERVER) && !sent.is_empty() {
            self.actions.push(Action::InDoubt { sealed: sealed.slice(sent) });
        }
    }

    /// Whether a stream of that role that has not failed was among the destinations.
    fn has(&self, role: Role, destinations: Destinations) -> bool {
        self.streams.iter().enumerate().any(|(index, stream)| {
            stream.role() == role && stream.is_active() && destinations.contains(index)
        })
    }

    pub(super) fn release(&mut self, folio: u64, outcome: Writeback, host: &mut impl Host) {
        let clean = matches!(outcome, Writeback::Clean);
        self.stats.folios += u64::from(clean);
        if host.tracing() {
            host.trace(TraceEvent::Released { folio, clean });
        }
        self.actions.push(Action::Release { folio, outcome });
    }
}

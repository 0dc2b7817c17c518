//! Where a request stands, for who wants to see why it does not go on.

use std::time::Duration;

use sealback_stream::{Stream, StreamView};

use super::{Phase, Request};
use crate::{Error, issuer::IssuerState, retryer::Paused};

/// Where a request stands.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RequestView {
    /// What it does, or waits for.
    pub state: RequestState,
    /// The end of what has been offered to the streams (exclusive), in blocks.
    pub issued_to: u64,
    /// The block before which everything has gone where it should (exclusive).
    pub collected_to: u64,
    /// Spans that are being sealed.
    pub n_sealing: usize,
    /// Each stream, with what it waits for.
    pub streams: Vec<(StreamView, StreamWait)>,
}

/// What a request does, or waits for.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum RequestState {
    /// What failed is sent again at this time, on the clock that its events carry.
    BackingOff {
        /// When.
        until: Duration,
    },
    /// It waits for a sealed buffer to come home.
    Buffer,
    /// It was not looked into: somebody carries it on at this moment, or is held up in doing so.
    Busy,
    /// It has failed, and waits for what is in flight, being sealed, or being merged.
    Ending(Error),
    /// It has ended: the cache's record is set, or a header committed, before those who wait hear of it.
    Finishing,
    /// Blocks that somebody else has changed are read and merged, one after the other.
    Merging {
        /// The one that is being merged.
        block: u64,
        /// How many wait for their turn.
        n_waiting: usize,
    },
    /// It was set up, and not begun.
    NotBegun,
    /// It has paused, and waits for what is in flight before it sends again what failed.
    Pausing,
    /// Everything is queued: it waits for its streams.
    Sending,
    /// It waits for the server's lock on the size, to begin.
    SizeLock,
    /// It waits for its source of folios.
    Source,
}

/// What a stream waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StreamWait {
    /// Answers: everything that it was given is with the target.
    Answers,
    /// The ciphertext of a span: the window has room for the head of the queue.
    Ciphertext {
        /// The span's number.
        span: u64,
    },
    /// More to be joined to what is under construction.
    Construction,
    /// Credit of the target's.
    Credit,
    /// Nothing: it has nothing to do.
    Nothing,
    /// Nothing: it is off.
    Off,
    /// What failed, of any stream, to be sent again.
    Retry,
    /// Room in its window.
    Window,
}

impl RequestView {
    /// Of one that was not looked into.
    pub(crate) fn without(state: RequestState) -> RequestView {
        RequestView { state, issued_to: 0, collected_to: 0, n_sealing: 0, streams: Vec::new() }
    }
}

impl Request {
    /// Where it stands.
    pub fn view(&self) -> RequestView {
        let of = |stream: &Stream| {
            let view = stream.view();
            let wait = self.wait_of(stream, &view);
            (view, wait)
        };
        RequestView {
            state: self.state(),
            issued_to: self.issued_to(),
            collected_to: self.collected_to(),
            n_sealing: self.spans.n_sealing(),
            streams: self.streams.iter().map(of).collect(),
        }
    }

    fn state(&self) -> RequestState {
        match &self.phase {
            Phase::Done => return RequestState::Finishing,
            Phase::Ending(error) => return RequestState::Ending(error.clone()),
            Phase::Running => {}
        }
        if let Some((block, n_waiting)) = self.merger.progress() {
            return RequestState::Merging { block, n_waiting };
        }
        match (self.retryer.paused(), self.issuer.state()) {
            (Some(Paused::Draining), _) => RequestState::Pausing,
            (Some(Paused::Until(until)), _) => RequestState::BackingOff { until },
            // It takes runs until it has to wait: it has never been asked to.
            (None, IssuerState::Running) => RequestState::NotBegun,
            (None, IssuerState::Starved) => RequestState::Buffer,
            (None, IssuerState::Waiting) => RequestState::Source,
            (None, IssuerState::Ahead | IssuerState::Finished) => RequestState::Sending,
        }
    }

    fn wait_of(&self, stream: &Stream, view: &StreamView) -> StreamWait {
        if !view.is_active {
            return StreamWait::Off;
        }
        if self.retryer.is_paused() {
            return StreamWait::Retry;
        }
        let Some(head) = stream.head() else {
            return match (view.refused, view.wanted_from, view.n_in_flight) {
                (true, _, _) => StreamWait::Credit,
                (false, Some(_), _) => StreamWait::Construction,
                (false, None, 0) => StreamWait::Nothing,
                (false, None, _) => StreamWait::Answers,
            };
        };
        if view.n_in_flight >= view.window {
            return StreamWait::Window;
        }
        match self.spans.first_sealing(&head.blocks) {
            Some(span) => StreamWait::Ciphertext { span },
            // It goes behind what waits for a grant to be sent again.
            None => StreamWait::Credit,
        }
    }
}

//! Walks dirty folios and makes, of each run, a span to seal and wanted blocks for the streams.
//!
//! A span's buffer is reserved before its run is taken: what is begun can always be finished. With
//! no buffer left the issuer is starved, and waits for one to come home. While the source has to wait,
//! the buffer is lent to others.

use sealback_crypto::Buffer;
use sealback_stream::Stream;

use crate::{
    Error,
    releaser::Releaser,
    request::{Action, Host},
    source::{DirtyRun, Next, RunContent},
    spans::Spans,
    trace::TraceEvent,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IssuerState {
    /// A stream has enough that is prepared and waits to be issued.
    Ahead,
    /// It takes runs as long as there are buffers.
    Running,
    /// It waits for a buffer.
    Starved,
    /// It waits for the source.
    Waiting,
    /// Everything is queued, or it was told to stop.
    Finished,
}

#[derive(Debug)]
pub(crate) struct Issuer {
    state: IssuerState,
    /// The end of the last run (exclusive): all before it has been offered to the streams.
    issued_to: u64,
    span_blocks: u64,
    /// Subrequests of a stream that wait to be issued, before it takes no more.
    max_stalled: usize,
    buffer: Option<Buffer>,
    /// What the source could not hand out.
    failed: Option<Error>,
}

/// The parts of a request that the issuer hands runs to.
pub(crate) struct Downstream<'a> {
    pub(crate) spans: &'a mut Spans,
    pub(crate) streams: &'a mut [Stream],
    pub(crate) releaser: &'a mut Releaser,
    pub(crate) actions: &'a mut Vec<Action>,
}

impl Issuer {
    pub(crate) fn new(span_blocks: u64, max_stalled: usize) -> Issuer {
        Issuer {
            state: IssuerState::Running,
            issued_to: 0,
            span_blocks: span_blocks.max(1),
            max_stalled: max_stalled.max(1),
            buffer: None,
            failed: None,
        }
    }

    pub(crate) fn state(&self) -> IssuerState {
        self.state
    }

    pub(crate) fn issued_to(&self) -> u64 {
        self.issued_to
    }

    /// What the source could not hand out, once everything else is queued.
    pub(crate) fn take_failure(&mut self) -> Option<Error> {
        self.failed.take()
    }

    /// Takes no more runs.
    pub(crate) fn stop(&mut self) {
        self.state = IssuerState::Finished;
        self.buffer = None;
    }

    /// Takes a run, if the source has one, there is a buffer, and no stream has enough. Returns whether
    /// it did.
    pub(crate) fn take_run(&mut self, down: &mut Downstream<'_>, host: &mut impl Host) -> bool {
        if self.state == IssuerState::Finished {
            return false;
        }
        if self.is_ahead_of(down.streams) {
            self.state = IssuerState::Ahead;
            return false;
        }
        if self.buffer.is_none() {
            self.buffer = host.take_buffer();
        }
        if self.buffer.is_none() {
            self.state = IssuerState::Starved;
            return false;
        }
        match host.next_dirty(self.issued_to, self.span_blocks) {
            Next::Run(run) => {
                self.state = IssuerState::Running;
                self.hand_on(run, down, host);
                return true;
            }
            Next::Later => {
                self.buffer = None;
                self.state = IssuerState::Waiting;
            }
            Next::End => self.stop(),
            Next::Failed(error) => {
                self.failed = Some(error);
                self.stop();
            }
        }
        false
    }

    /// Whether so much of a stream waits to be issued that more would only grow cold: what is sealed just
    /// before it is written is still in the processor's cache. That no stream gets far ahead of another
    /// one holds nobody up: a folio is let go when all have passed it.
    pub(crate) fn is_ahead_of(&self, streams: &[Stream]) -> bool {
        let mut active = streams.iter().filter(|stream| stream.is_active());
        active.any(|stream| stream.stalled() >= self.max_stalled)
    }

    fn hand_on(&mut self, run: DirtyRun, down: &mut Downstream<'_>, host: &mut impl Host) {
        let DirtyRun { blocks, content, destinations, partial, folios } = run;
        assert!(
            self.issued_to <= blocks.start && !blocks.is_empty(),
            "run {blocks:?} behind {}",
            self.issued_to
        );
        assert!(blocks.end - blocks.start <= self.span_blocks, "run {blocks:?} is too long");
        self.issued_to = blocks.end;
        for folio in &folios {
            down.releaser.push(*folio);
        }
        for (index, stream) in down.streams.iter_mut().enumerate() {
            if destinations.contains(index) {
                stream.want(blocks.clone());
            }
        }
        let (plain, sealed) = match content {
            RunContent::Plain(slices) => (Some(slices), None),
            RunContent::Sealed(sealed) => (None, Some(sealed)),
        };
        let span = down.spans.push(blocks.clone(), destinations, partial, sealed);
        if host.tracing() {
            let folios = folios.iter().map(|end| end.folio).collect();
            host.trace(TraceEvent::Span { span, blocks: blocks.clone(), destinations, folios });
        }
        if let Some(plain) = plain {
            let buffer = self.buffer.take().expect("fill reserved a buffer");
            down.actions.push(Action::Seal { span, first_block: blocks.start, plain, buffer });
        }
    }
}

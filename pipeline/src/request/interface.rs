//! What goes into a request and comes out of it.

use std::time::Duration;

use sealback_crypto::{Buffer, Plaintext, SealError, Sealed};
use sealback_stream::{Failure, Prepared, Role, Ticket, Write};

use crate::{
    Error,
    retryer::RetryLimits,
    rmw::{Merge, Merged},
    source::{Next, PlainSlice, Writeback},
    trace::TraceEvent,
};

/// What a request is told.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// Stop: issue nothing more, wait for what is in flight, leave the rest dirty.
    Cancel,
    /// Stop as for [`Cancel`](Event::Cancel), for this reason.
    Fail(Error),
    /// Somebody waits for the end: what failed is sent again at once, if it waits its time. Does not
    /// begin a request.
    Hurry,
    /// A block's merge has ended.
    Merged {
        /// The block, from [`Action::Merge`].
        block: u64,
        /// What came of it.
        result: Result<Merged, Error>,
    },
    /// A span's sealing has ended.
    Sealed {
        /// The span's number, from [`Action::Seal`].
        span: u64,
        /// Its ciphertext.
        result: Result<Sealed, SealError>,
    },
    /// A target has answered.
    Terminated {
        /// The subrequest's ticket, from [`Action::Issue`].
        ticket: Ticket,
        /// Stored bytes that went through, or why not.
        outcome: Result<u64, Failure>,
    },
    /// Begin, or look again: a buffer came home, there is credit, or it is time.
    Wake,
}

/// What a request wants done. Actions are to be carried out in order.
#[derive(Debug)]
#[non_exhaustive]
pub enum Action {
    /// The server and the cache have all blocks of a span: the cache's record may say so.
    Cached {
        /// The blocks.
        sealed: Sealed,
    },
    /// The request has ended; the last action there is.
    Done(Result<(), Error>),
    /// The request ends with an error, and these blocks were with the server: it may have them, or not.
    InDoubt {
        /// The blocks.
        sealed: Sealed,
    },
    /// Send this to a target, then tell the outcome with the ticket.
    Issue {
        /// Names the subrequest.
        ticket: Ticket,
        /// What to write.
        write: Write,
    },
    /// Read this block from the server, lay what was dirtied here over it, seal it, then tell.
    Merge(Merge),
    /// A block is on its way with somebody else's changes in it, too: what is clean of it here is to
    /// become that.
    Refresh {
        /// The block.
        block: u64,
        /// All of its plaintext.
        plain: Plaintext,
    },
    /// A folio's writeback has ended.
    Release {
        /// The source's number for it.
        folio: u64,
        /// How.
        outcome: Writeback,
    },
    /// Seal these bytes into this buffer, then tell.
    Seal {
        /// Names the span.
        span: u64,
        /// The number of the first block.
        first_block: u64,
        /// The bytes, one slice after the other.
        plain: Vec<PlainSlice>,
        /// Takes the ciphertext.
        buffer: Buffer,
    },
    /// The server has these blocks, and every other stream that wants them: their nonces are what is
    /// stored now. Comes before their folios are released; not for what only a cache wanted.
    Stored {
        /// The blocks.
        sealed: Sealed,
    },
    /// A stream was switched off; what its target holds of this request's blocks is not valid.
    StreamOff {
        /// The stream's index.
        stream: usize,
        /// Why.
        failure: Failure,
    },
    /// Wake the request at this time, on the clock that its events carry.
    WakeAt(Duration),
}

/// What a request asks of its surroundings. Nothing here may block.
pub trait Host {
    /// The next dirty run at or behind block `from`; see
    /// [`FolioSource`](crate::source::FolioSource::next_dirty). If later, [`Event::Wake`] follows.
    fn next_dirty(&mut self, from: u64, max_blocks: u64) -> Next;
    /// A buffer for one span; if there is none, [`Event::Wake`] follows when there is.
    fn take_buffer(&mut self) -> Option<Buffer>;
    /// Asks a stream's target what a subrequest that starts at `block` may carry; if later,
    /// [`Event::Wake`] follows.
    fn prepare(&mut self, stream: usize, block: u64) -> Prepared;
    /// A uniform random number, for jitter.
    fn random(&mut self) -> u64;
    /// Whether anybody wants to hear what happens all the time: what is then not told is not made.
    fn tracing(&self) -> bool;
    /// Tells what happened. What happens seldom is told whether anybody wants it or not.
    fn trace(&mut self, event: TraceEvent);
}

/// One stream of a request, as it starts.
#[derive(Clone, Copy, Debug)]
pub struct StreamSetup {
    /// What becomes of the request if it fails.
    pub role: Role,
    /// Subrequests with the target at once, at most.
    pub window: usize,
    /// Whether it takes part at all.
    pub active: bool,
}

/// The measures of a request.
#[derive(Clone, Copy, Debug)]
pub struct RequestLimits {
    /// Blocks in a span, at most; a buffer holds as many.
    pub span_blocks: u64,
    /// Subrequests of one stream that are prepared and not issued, at most, before the issuer takes a
    /// rest; one at least. A run that is cut into several may make it more.
    pub max_stalled: usize,
    /// The bounds of retrying.
    pub retry: RetryLimits,
    /// How long a stream that may fail may answer nothing before it is switched off.
    pub cache_patience: Duration,
}

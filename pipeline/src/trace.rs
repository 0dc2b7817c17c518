//! What a request tells of itself: one event a line, at the points where data changes hands.

use std::{fmt, ops::Range, time::Duration};

use sealback_stream::Runs;

use crate::source::Destinations;

/// Something that happened in a request. Blocks are numbers, ends exclusive.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TraceEvent {
    /// The issuer took a run of blocks from its source and sent it to be sealed.
    Span {
        /// The span's number.
        span: u64,
        /// Its blocks.
        blocks: Range<u64>,
        /// Who wants it.
        destinations: Destinations,
        /// The numbers of the folios that end in it.
        folios: Vec<u64>,
    },
    /// A span's ciphertext is ready.
    Sealed {
        /// The span's number.
        span: u64,
    },
    /// A subrequest was granted and prepared: it waits in its queue for its ciphertext and for room
    /// in the window.
    Prepared {
        /// The stream's index.
        stream: usize,
        /// The subrequest's number.
        id: u64,
        /// Its blocks.
        blocks: Runs,
    },
    /// A subrequest went to its target.
    Issued {
        /// The stream's index.
        stream: usize,
        /// The subrequest's number.
        id: u64,
        /// Its blocks.
        blocks: Runs,
        /// Earlier attempts that got nowhere.
        attempts: u32,
    },
    /// A target answered.
    Terminated {
        /// The stream's index.
        stream: usize,
        /// The subrequest's number.
        id: u64,
        /// Stored bytes that went through, or why none.
        outcome: Result<u64, String>,
    },
    /// The issuer and all streams pause, to send again what failed.
    Paused,
    /// A block was read, laid under what was dirtied here, and sealed anew.
    Merged {
        /// The block.
        block: u64,
    },
    /// What failed was cut anew and is sent again.
    Reissued {
        /// Subrequests that were taken apart.
        subrequests: usize,
    },
    /// A stream was switched off.
    Off {
        /// The stream's index.
        stream: usize,
    },
    /// A folio was released.
    Released {
        /// The source's number for it.
        folio: u64,
        /// Whether it is clean; dirty again otherwise.
        clean: bool,
    },
    /// The request has ended.
    Done {
        /// Whether everything went through.
        ok: bool,
    },
}

/// Hears what a request tells. Called with the request's lock held: it must only note.
pub trait Observer: Send + Sync {
    /// Something happened, `at` since the engine's start.
    fn event(&self, at: Duration, event: &TraceEvent);
}

impl fmt::Debug for dyn Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Observer")
    }
}

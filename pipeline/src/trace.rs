//! What a request tells of itself, at the points where data changes hands.
//!
//! The points are the tracepoints of the ancestor, the kernel's netfs library
//! (`include/trace/events/netfs.h`). Each event goes to the [`Observer`]s there are, and to
//! [`tracing`], where its message is [`TraceEvent::name`]:
//!
//! | target | level | what |
//! |---|---|---|
//! | `sealback::request` | debug | a span for each request, in the span of its caller: number, file, kind, range; begun, done, ended |
//! | | warn | failed: what was to be written is dirty still |
//! | `sealback::span` | trace | a run was taken to be sealed; its ciphertext is ready |
//! | `sealback::subrequest` | trace | prepared, issued, terminated; debug if it did not go through |
//! | `sealback::collect` | trace | how far all has gone where it should |
//! | `sealback::folio` | trace | released |
//! | `sealback::retry` | debug | paused, backing off, reissued; conflict, merged; what is tried again outside of streams |
//! | `sealback::sync` | debug | a span for each sync; barriers |
//! | | warn | a barrier failed |
//! | `sealback::commit` | debug | headers: ours, others' |
//! | `sealback::cache` | warn | a stream to a cache was switched off, or the cache is done without |
//! | `sealback::conflict` | debug | what was told of is resolved |
//! | `sealback::engine` | debug | started, shut down |
//! | | error | what is lost when an engine is dropped |
//! | `sealback::journal` | trace, info | a group was begun; groups that a crash left half done are redone |
//!
//! So `sealback=debug` shows requests, syncs and whatever goes wrong, and `sealback=trace` everything.
//! With no subscriber all of it costs one look for each request. No event holds plaintext or a key.

use std::{fmt, ops::Range, time::Duration};

use sealback_stream::Runs;

use crate::{Cause, WriteKind, source::Destinations};

mod teller;

pub(crate) use teller::{Teller, tell};

/// Something that happened in a request. Blocks are numbers, ends exclusive.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TraceEvent {
    /// What failed waits for its time before it is sent again.
    BackingOff {
        /// When that is.
        until: Duration,
    },
    /// The request was set up.
    Begun {
        /// Its file's number among those of the engine.
        file: u64,
        /// What the server calls the file.
        name: String,
        /// What kind of write it is.
        kind: WriteKind,
        /// The positions that it may write.
        range: Range<u64>,
    },
    /// Everything has gone where it should, up to here.
    Collected {
        /// The block before which it has (exclusive).
        to: u64,
    },
    /// Blocks of a subrequest were not what they were expected to be: they are merged.
    Conflict {
        /// The stream's index.
        stream: usize,
        /// The subrequest's number.
        id: u64,
        /// How many blocks.
        n_blocks: usize,
    },
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
    Paused {
        /// The stream whose subrequest failed.
        stream: usize,
        /// Why.
        cause: Cause,
    },
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
        /// Why.
        cause: Cause,
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

impl TraceEvent {
    /// What happened, in a word or two: the message of the event in `tracing`.
    pub fn name(&self) -> &'static str {
        match self {
            TraceEvent::BackingOff { .. } => "backing off",
            TraceEvent::Begun { .. } => "begun",
            TraceEvent::Collected { .. } => "collected",
            TraceEvent::Conflict { .. } => "conflict",
            TraceEvent::Done { .. } => "done",
            TraceEvent::Issued { .. } => "issued",
            TraceEvent::Merged { .. } => "merged",
            TraceEvent::Off { .. } => "off",
            TraceEvent::Paused { .. } => "paused",
            TraceEvent::Prepared { .. } => "prepared",
            TraceEvent::Reissued { .. } => "reissued",
            TraceEvent::Released { .. } => "released",
            TraceEvent::Sealed { .. } => "sealed",
            TraceEvent::Span { .. } => "span",
            TraceEvent::Terminated { .. } => "terminated",
        }
    }
}

/// Hears what requests tell: one that it was [given to](crate::File::writeback_observed), or all of an
/// [engine](crate::Engine::observe). Called with the request's lock held: it must only note.
pub trait Observer: Send + Sync {
    /// Something happened, `at` since the engine's start, in the request of that number.
    fn event(&self, at: Duration, request: u64, event: &TraceEvent);
}

impl fmt::Debug for dyn Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Observer")
    }
}

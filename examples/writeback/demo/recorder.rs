//! Makes spans and subrequests of what a writeback has told.

use std::{ops::Range, time::Duration};

use sealback::{source::Destinations, trace::TraceEvent};

/// What was told, in order, with the time since the engine's start.
pub(crate) struct Recording {
    pub(crate) events: Vec<(Duration, TraceEvent)>,
}

/// Blocks that were sealed, or copied, together.
pub(crate) struct Span {
    pub(crate) id: u64,
    pub(crate) blocks: Range<u64>,
    pub(crate) way: Way,
}

/// Why blocks are written, and where to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Dirty: sealed for both streams.
    Both,
    /// The server's own bytes: for the cache only.
    CacheOnly,
    /// Dirty, and kept out of the cache.
    UploadOnly,
}

/// A subrequest that went to its target.
pub(crate) struct Subrequest {
    pub(crate) id: u64,
    pub(crate) blocks: Range<u64>,
}

impl Recording {
    pub(crate) fn spans(&self) -> impl Iterator<Item = Span> {
        self.events.iter().filter_map(|(_, event)| match event {
            TraceEvent::Span { span, blocks, destinations, .. } => {
                Some(Span { id: *span, blocks: blocks.clone(), way: Way::of(*destinations) })
            }
            _ => None,
        })
    }

    pub(crate) fn subrequests(&self, of: usize) -> impl Iterator<Item = Subrequest> {
        self.events.iter().filter_map(move |(_, event)| match event {
            TraceEvent::Issued { stream, id, blocks, .. } if *stream == of => {
                Some(Subrequest { id: *id, blocks: blocks.hull() })
            }
            _ => None,
        })
    }
}

impl Way {
    pub(crate) fn of(destinations: Destinations) -> Way {
        match (destinations.contains(UPLOAD), destinations.contains(CACHE)) {
            (false, _) => Way::CacheOnly,
            (true, false) => Way::UploadOnly,
            (true, true) => Way::Both,
        }
    }
}

/// The streams' numbers, which their names follow.
pub(crate) const UPLOAD: usize = 0;
pub(crate) const CACHE: usize = 1;
pub(crate) const STREAMS: [&str; 2] = ["upload", "cache"];

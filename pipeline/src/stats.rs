//! What was done and what it waited for, as plain numbers.

use std::time::Duration;

/// Counts of one request, or of all requests of an engine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestStats {
    /// Spans sealed.
    pub spans: u64,
    /// Folios released clean.
    pub folios: u64,
    /// Blocks that met somebody else's change, each time.
    pub conflicts: u64,
    /// Blocks that were laid over somebody else's change.
    pub merges: u64,
    /// Per stream, in the request's order; the engine's is upload, cache.
    pub streams: Vec<StreamStats>,
}

/// Counts of one stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamStats {
    /// Subrequests prepared.
    pub subrequests: u64,
    /// Stored bytes of the blocks that the target took; those of a torn block are sent again, and count
    /// then.
    pub bytes: u64,
    /// Subrequests that stalled: the window had room for them, their ciphertext was not ready.
    pub stalls: u64,
    /// How long the stream stalled in all.
    pub stall_time: Duration,
    /// Subrequests that did not go through whole.
    pub retries: u64,
}

impl RequestStats {
    pub(crate) fn new(n_streams: usize) -> RequestStats {
        RequestStats { streams: vec![StreamStats::default(); n_streams], ..Default::default() }
    }

    /// Adds another's counts to these.
    pub fn add(&mut self, other: &RequestStats) {
        self.spans += other.spans;
        self.folios += other.folios;
        self.conflicts += other.conflicts;
        self.merges += other.merges;
        if self.streams.len() < other.streams.len() {
            self.streams.resize(other.streams.len(), StreamStats::default());
        }
        for (stream, other) in self.streams.iter_mut().zip(&other.streams) {
            stream.subrequests += other.subrequests;
            stream.bytes += other.bytes;
            stream.stalls += other.stalls;
            stream.stall_time += other.stall_time;
            stream.retries += other.retries;
        }
    }
}

/// Times how long the head of a stream waits for its ciphertext with room in the window.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct StallClock {
    stalled: Option<(u64, Duration)>,
}

impl StallClock {
    /// The head is held up by its ciphertext.
    pub(crate) fn stalled(&mut self, id: u64, now: Duration) {
        if self.stalled.is_none_or(|(stalled, _)| stalled != id) {
            self.stalled = Some((id, now));
        }
    }

    /// A subrequest was issued.
    pub(crate) fn issued(&mut self, id: u64, now: Duration, stats: &mut StreamStats) {
        if let Some((stalled, since)) = self.stalled.take_if(|(stalled, _)| *stalled == id) {
            debug_assert_eq!(stalled, id);
            stats.stalls += 1;
            stats.stall_time += now - since;
        }
    }
}

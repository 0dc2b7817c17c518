//! What was done and what it waited for, as plain numbers.

use std::time::Duration;

mod display;
mod histogram;

pub(crate) use display::stream_name;
pub use histogram::Histogram;

use crate::Cause;

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
    /// How often the issuer and all streams paused, to send again what failed.
    pub pauses: u64,
    /// From the first failure to the reissue, or to the end of the request, in all.
    pub pause_time: Duration,
    /// How often the issuer waited for a sealed buffer to come home.
    pub buffer_waits: u64,
    /// How long it did, in all.
    pub buffer_wait_time: Duration,
    /// Per stream, in the request's order; the engine's is upload, cache.
    pub streams: Vec<StreamStats>,
}

/// Counts of one stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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
    /// Times that the target had no credit when it was asked for a grant.
    pub refused_grants: u64,
    /// Subrequests that did not go through whole, and whose rest was to be sent again.
    pub retries: Retries,
    /// Times that the stream was switched off.
    pub switched_off: u64,
    /// From a subrequest's issue to the target's answer, whatever that was.
    pub latency: Histogram,
}

/// Subrequests, or calls, that did not go through and were tried again, by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retries {
    /// [`Cause::Conflict`].
    pub conflict: u64,
    /// [`Cause::Dropped`].
    pub dropped: u64,
    /// [`Cause::Renegotiated`].
    pub renegotiated: u64,
    /// [`Cause::Short`].
    pub short: u64,
    /// [`Cause::TimedOut`].
    pub timed_out: u64,
    /// [`Cause::Transient`].
    pub transient: u64,
}

impl Retries {
    /// Counts one. What is fatal is not tried again, and not counted.
    pub fn count(&mut self, cause: Cause) {
        match cause {
            Cause::Conflict => self.conflict += 1,
            Cause::Dropped => self.dropped += 1,
            Cause::Fatal => {}
            Cause::Renegotiated => self.renegotiated += 1,
            Cause::Short => self.short += 1,
            Cause::TimedOut => self.timed_out += 1,
            Cause::Transient => self.transient += 1,
        }
    }

    /// All of them, each with its cause.
    pub fn by_cause(&self) -> [(Cause, u64); 6] {
        [
            (Cause::Conflict, self.conflict),
            (Cause::Dropped, self.dropped),
            (Cause::Renegotiated, self.renegotiated),
            (Cause::Short, self.short),
            (Cause::TimedOut, self.timed_out),
            (Cause::Transient, self.transient),
        ]
    }

    /// How many there were, whatever the cause.
    pub fn total(&self) -> u64 {
        self.by_cause().iter().map(|(_, n)| n).sum()
    }

    /// Adds another's counts to these.
    pub fn add(&mut self, other: &Retries) {
        self.conflict += other.conflict;
        self.dropped += other.dropped;
        self.renegotiated += other.renegotiated;
        self.short += other.short;
        self.timed_out += other.timed_out;
        self.transient += other.transient;
    }
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
        self.pauses += other.pauses;
        self.pause_time += other.pause_time;
        self.buffer_waits += other.buffer_waits;
        self.buffer_wait_time += other.buffer_wait_time;
        if self.streams.len() < other.streams.len() {
            self.streams.resize(other.streams.len(), StreamStats::default());
        }
        for (stream, other) in self.streams.iter_mut().zip(&other.streams) {
            stream.add(other);
        }
    }
}

impl StreamStats {
    /// Adds another's counts to these.
    pub fn add(&mut self, other: &StreamStats) {
        self.subrequests += other.subrequests;
        self.bytes += other.bytes;
        self.stalls += other.stalls;
        self.stall_time += other.stall_time;
        self.refused_grants += other.refused_grants;
        self.retries.add(&other.retries);
        self.switched_off += other.switched_off;
        self.latency.add(&other.latency);
    }
}

/// What an engine has done, and what it holds now. `Display` says it in a few lines.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EngineStats {
    /// Sums over the requests that have ended.
    pub requests: RequestStats,
    /// How long each of these took, from its begin to the end that whoever waits for it sees.
    pub request_latency: Histogram,
    /// How long each sync of a file took, whatever came of it.
    pub sync_latency: Histogram,
    /// How long a server took each time that it was asked to make things durable.
    pub barrier_latency: Histogram,
    /// What was tried again outside of streams: headers, cuts, holes, locks.
    pub control_retries: Retries,
    /// How often a writer waited for the memory of folios, or at the limit of what may be dirty.
    pub memory_waits: u64,
    /// How long they did, in all.
    pub memory_wait_time: Duration,
    /// Sealed buffers that are home.
    pub buffers_free: usize,
    /// Sealed buffers in all.
    pub buffers: usize,
    /// Sealed buffers that were out at once, at most.
    pub buffers_high_water: usize,
    /// Stored bytes that reads fetched and that wait for a cache, or are on their way there.
    pub copied_bytes: u64,
    /// Folios that have memory now.
    pub folios_out: usize,
    /// Folios that had memory at once, at most.
    pub folios_high_water: usize,
    /// Requests under way.
    pub active_requests: usize,
}

/// What an engine counts as it goes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Totals {
    pub(crate) requests: RequestStats,
    pub(crate) request_latency: Histogram,
    pub(crate) sync_latency: Histogram,
    pub(crate) barrier_latency: Histogram,
    pub(crate) control_retries: Retries,
    pub(crate) memory_waits: u64,
    pub(crate) memory_wait_time: Duration,
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

/// Times something that begins and ends, and may be told so more than once.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct WaitClock {
    since: Option<Duration>,
}

impl WaitClock {
    /// It waits; `n` counts it, unless it has waited already.
    pub(crate) fn begin(&mut self, now: Duration, n: &mut u64) {
        *n += u64::from(self.since.is_none());
        self.since.get_or_insert(now);
    }

    /// It does not wait, or no longer: `time` grows by how long it did.
    pub(crate) fn end(&mut self, now: Duration, time: &mut Duration) {
        *time += self.since.take().map_or(Duration::ZERO, |since| now.saturating_sub(since));
    }
}

//! Statistics for who reads them: a line or two for each matter, and none for what never happened.

use std::{fmt, time::Duration};

use super::{EngineStats, RequestStats, Retries, StreamStats};

/// `n` of something, and how long that took.
struct Timed(u64, &'static str, Duration);

impl fmt::Display for Timed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Timed(n, what, time) = self;
        write!(f, "{n} {what} ({time:.1?})")
    }
}

/// The causes there were, each with its count.
impl fmt::Display for Retries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.total())?;
        let mut before = " (";
        for (cause, n) in self.by_cause().into_iter().filter(|(_, n)| *n > 0) {
            write!(f, "{before}{n} {cause}")?;
            before = ", ";
        }
        if self.total() > 0 { f.write_str(")") } else { Ok(()) }
    }
}

/// Two lines.
impl fmt::Display for StreamStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stalls = Timed(self.stalls, "stalls", self.stall_time);
        write!(f, "{} subrequests, {} bytes, {stalls}, ", self.subrequests, self.bytes)?;
        write!(f, "{} grants refused, retries: {}", self.refused_grants, self.retries)?;
        if self.switched_off > 0 {
            write!(f, ", switched off {} times", self.switched_off)?;
        }
        write!(f, "\n  answered: {}", self.latency)
    }
}

/// A line for the request, and two for each stream.
impl fmt::Display for RequestStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pauses = Timed(self.pauses, "pauses", self.pause_time);
        let waits = Timed(self.buffer_waits, "waits for a buffer", self.buffer_wait_time);
        let RequestStats { spans, folios, conflicts, merges, .. } = self;
        write!(f, "{spans} spans, {folios} folios, {conflicts} conflicts, {merges} merges, ")?;
        write!(f, "{pauses}, {waits}")?;
        for (index, stream) in self.streams.iter().enumerate() {
            write!(f, "\n{}: {stream}", stream_name(index))?;
        }
        Ok(())
    }
}

/// What streams are called that are known by their index in a request of the engine's.
pub(crate) fn stream_name(index: usize) -> &'static str {
    match index {
        0 => "upload",
        1 => "cache",
        _ => "mirror",
    }
}

impl fmt::Display for EngineStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.requests)?;
        writeln!(f, "requests: {}, {} under way", self.request_latency, self.active_requests)?;
        writeln!(f, "syncs: {}", self.sync_latency)?;
        writeln!(f, "barriers: {}", self.barrier_latency)?;
        writeln!(f, "headers, cuts and holes tried again: {}", self.control_retries)?;
        let waits = Timed(self.memory_waits, "waits for memory", self.memory_wait_time);
        write!(
            f,
            "memory: {waits}, {} of {} buffers out, ",
            self.buffers - self.buffers_free,
            self.buffers
        )?;
        write!(f, "{} at most, {} folios, ", self.buffers_high_water, self.folios_out)?;
        write!(f, "{} at most, {} bytes for caches", self.folios_high_water, self.copied_bytes)
    }
}

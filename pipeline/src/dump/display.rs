//! A dump as text: a line for each request and each thread that waits, those of streams below.

use std::{fmt, time::Duration};

use sealback_stream::{StreamView, SubrequestView};

use super::{Dump, FileDump, RequestDump, WaitDump};
use crate::{
    request::{RequestState, StreamWait},
    stats::stream_name,
};

/// How long ago something was, to a tenth of a millisecond.
struct Age(Duration);

impl Age {
    fn of(since: Duration, at: Duration) -> Age {
        Age(at.saturating_sub(since))
    }
}

impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.4} s", self.0.as_secs_f64())
    }
}

impl fmt::Display for Dump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Dump { at, requests, waits, buffers, folios, .. } = self;
        let (n_requests, n_waits) = (requests.len(), waits.len());
        write!(
            f,
            "{n_requests} requests, {n_waits} waits, {} of {} buffers out, ",
            buffers.0, buffers.1
        )?;
        write!(f, "{} of {} folios, {} after the start", folios.0, folios.1, Age(*at))?;
        for request in requests {
            request.write(f, *at)?;
        }
        for wait in waits {
            wait.write(f, *at)?;
        }
        for (name, n) in self.queues.iter().filter(|(_, n)| *n > 0) {
            write!(f, "\n{n} jobs wait for {name}")?;
        }
        for name in &self.busy {
            write!(f, "\nbusy: {name}")?;
        }
        if self.n_omitted > 0 {
            write!(f, "\nand {} more", self.n_omitted)?;
        }
        Ok(())
    }
}

/// The name is quoted: it may be anybody's.
impl fmt::Display for FileDump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "file {} {name:?}", self.number),
            None => write!(f, "file {}", self.number),
        }
    }
}

impl RequestDump {
    fn write(&self, f: &mut fmt::Formatter<'_>, at: Duration) -> fmt::Result {
        write!(f, "\nrequest {}", self.request)?;
        if let Some((kind, range)) = &self.subject {
            write!(f, ", {kind} of bytes {}..{}", range.start, range.end)?;
        }
        write!(f, " of {}, {}: ", self.file, Age::of(self.since, at))?;
        self.view.state.write(f, at)?;
        if self.view.streams.is_empty() {
            return Ok(());
        }
        write!(f, "\n  issued to block {}, ", self.view.issued_to)?;
        write!(
            f,
            "collected to {}, {} spans are sealed",
            self.view.collected_to, self.view.n_sealing
        )?;
        for (index, (stream, wait)) in self.view.streams.iter().enumerate() {
            write_stream(f, at, index, stream, *wait)?;
        }
        Ok(())
    }
}

impl RequestState {
    fn write(&self, f: &mut fmt::Formatter<'_>, at: Duration) -> fmt::Result {
        match self {
            RequestState::BackingOff { until } => {
                write!(f, "sends again what failed in {}", Age(until.saturating_sub(at)))
            }
            RequestState::Buffer => f.write_str("waits for a buffer"),
            RequestState::Busy => f.write_str("busy"),
            RequestState::Ending(error) => write!(f, "ends with an error: {error}"),
            RequestState::Finishing => f.write_str("has ended, and finishes"),
            RequestState::Merging { block, n_waiting } => {
                write!(f, "merges block {block}, {n_waiting} wait")
            }
            RequestState::NotBegun => f.write_str("is not begun"),
            RequestState::Pausing => f.write_str("waits for answers, then sends again what failed"),
            RequestState::Sending => f.write_str("waits for its streams"),
            RequestState::SizeLock => f.write_str("waits for the server's lock on the size"),
            RequestState::Source => f.write_str("waits for its source"),
        }
    }
}

impl fmt::Display for StreamWait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StreamWait::Answers => f.write_str("waits for answers"),
            StreamWait::Ciphertext { span } => write!(f, "stalls on the ciphertext of span {span}"),
            StreamWait::Construction => f.write_str("waits for more to join"),
            StreamWait::Credit => f.write_str("waits for credit"),
            StreamWait::Nothing => f.write_str("has nothing to do"),
            StreamWait::Off => f.write_str("is off"),
            StreamWait::Retry => f.write_str("waits for the retry"),
            StreamWait::Window => f.write_str("waits for room in its window"),
        }
    }
}

fn write_stream(
    f: &mut fmt::Formatter<'_>,
    at: Duration,
    index: usize,
    stream: &StreamView,
    wait: StreamWait,
) -> fmt::Result {
    let StreamView { window, collected_to, n_prepared, n_in_flight, .. } = stream;
    write!(f, "\n  {} {wait}: {n_in_flight} of {window} in flight, ", stream_name(index))?;
    write!(f, "{n_prepared} prepared, collected to {collected_to}")?;
    let more = [
        (stream.n_unfinished, "to be sent again"),
        (stream.n_abandoned, "given up and not answered"),
    ];
    for (n, what) in more.iter().filter(|(n, _)| *n > 0) {
        write!(f, ", {n} {what}")?;
    }
    for subrequest in &stream.in_flight {
        write_subrequest(f, at, "in flight", subrequest)?;
    }
    stream.head.iter().try_for_each(|head| write_subrequest(f, at, "next", head))
}

fn write_subrequest(
    f: &mut fmt::Formatter<'_>,
    at: Duration,
    what: &str,
    subrequest: &SubrequestView,
) -> fmt::Result {
    let SubrequestView { id, blocks, n_blocks, attempts, since, .. } = subrequest;
    write!(
        f,
        "\n    {what}: subrequest {id}, {n_blocks} blocks of {}..{}",
        blocks.start, blocks.end
    )?;
    write!(f, ", {attempts} attempts before, since {}", Age::of(*since, at))
}

impl WaitDump {
    fn write(&self, f: &mut fmt::Formatter<'_>, at: Duration) -> fmt::Result {
        let WaitDump { thread, what, file, since } = self;
        write!(f, "\nthread {thread} has waited {what} for {}", Age::of(*since, at))?;
        file.iter().try_for_each(|file| write!(f, ", {file}"))
    }
}

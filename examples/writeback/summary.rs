//! What a command tells of what it wrote: a few lines, or one JSON object.

use std::{
    collections::BTreeMap,
    io::{self, StdoutLock, Write},
    time::Duration,
};

use sealback::{
    Engine, EngineStats, File, Histogram, StreamStats,
    crypto::Geometry,
    stream::{Cache, LocalCache, Name},
};
use sealback_examples::{Size, peak_rss_bytes};
use serde::Serialize;

use crate::{failure::Failure, stores::Stores};

/// Prints a report to standard output: as one line of JSON, or as `print` does.
pub(crate) fn tell(
    json: bool,
    report: &impl Serialize,
    print: impl FnOnce(&mut StdoutLock<'static>) -> io::Result<()>,
) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let written = match json {
        true => serde_json::to_writer(&mut out, report)
            .map_err(io::Error::from)
            .and_then(|()| writeln!(out)),
        false => print(&mut out),
    };
    written.and_then(|()| out.flush()).map_err(Failure::of_stdout)
}

/// Plaintext bytes that were written to the file of a name, and how long that took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Written<'a> {
    pub(crate) name: &'a Name,
    pub(crate) bytes: u64,
    pub(crate) took: Duration,
}

/// What was written, how fast, and in how many pieces.
#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    name: String,
    file_id: String,
    bytes: u64,
    seconds: f64,
    gb_per_s: f64,
    peak_rss_bytes: Option<u64>,
    engine: String,
    block_bytes: u64,
    streams: Streams,
    waits: Waits,
    latencies: Latencies,
    cache_file: Option<String>,
}

#[derive(Debug, Serialize)]
struct Streams {
    upload: StreamSummary,
    cache: Option<StreamSummary>,
}

#[derive(Debug, Serialize)]
struct StreamSummary {
    subrequests: u64,
    bytes: u64,
    stalls: u64,
    stall_seconds: f64,
    refused_grants: u64,
    retries: u64,
    /// Those that there were, by cause.
    retries_by_cause: BTreeMap<String, u64>,
    /// From a subrequest's issue to the answer.
    latency: Latency,
}

/// What the whole engine waited for.
#[derive(Debug, Serialize)]
struct Waits {
    pauses: u64,
    pause_seconds: f64,
    for_a_buffer: u64,
    for_a_buffer_seconds: f64,
    for_memory: u64,
    for_memory_seconds: f64,
    buffers_high_water: usize,
    folios_high_water: usize,
}

#[derive(Debug, Serialize)]
struct Latencies {
    requests: Latency,
    syncs: Latency,
    barriers: Latency,
}

#[derive(Debug, Serialize)]
struct Latency {
    count: u64,
    mean_seconds: f64,
    median_seconds: f64,
    p99_seconds: f64,
    max_seconds: f64,
}

impl Summary {
    /// Of a file that was synced. The engine has written nothing else.
    pub(crate) fn new(
        stores: &Stores,
        engine: &Engine,
        file: &File,
        written: &Written<'_>,
    ) -> Summary {
        let Written { name, bytes, took } = *written;
        let seconds = took.as_secs_f64();
        let stats = engine.stats();
        let streams = &stats.requests.streams;
        let stream = |index| streams.get(index).map_or_else(Default::default, StreamSummary::from);
        let cache = stores.cache.as_ref();
        Summary {
            name: name.to_string(),
            file_id: file.file_id().to_string(),
            bytes,
            seconds,
            gb_per_s: bytes as f64 / seconds / 1e9,
            peak_rss_bytes: peak_rss_bytes(),
            engine: engine.config().cipher.to_string(),
            block_bytes: file.block_bytes(),
            streams: Streams { upload: stream(0), cache: cache.map(|_| stream(1)) },
            waits: Waits::from(&stats),
            latencies: Latencies::from(&stats),
            cache_file: cache.and_then(|cache| copy_path(stores, cache, file, name)),
        }
    }

    pub(crate) fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let Summary { name, bytes, seconds, gb_per_s, .. } = self;
        let size = Size(*bytes);
        writeln!(out, "{name}: {bytes} bytes ({size}) in {seconds:.2} s, {gb_per_s:.2} GB/s")?;
        self.streams.upload.print(out, "upload")?;
        let Some(cache) = &self.streams.cache else { return Ok(()) };
        cache.print(out, "cache")?;
        match self.cache_file {
            Some(_) => Ok(()),
            None => writeln!(out, "  the cache failed, and was done without"),
        }
    }
}

impl StreamSummary {
    fn print(&self, out: &mut impl Write, stream: &str) -> io::Result<()> {
        let StreamSummary { subrequests, bytes, stalls, stall_seconds, retries, .. } = self;
        let size = Size(*bytes);
        write!(out, "  {stream:<8}{subrequests} subrequests, {size}, ")?;
        writeln!(out, "{stalls} stalled ({stall_seconds:.3} s), {retries} sent again")
    }
}

/// Of one that nothing was prepared for.
impl Default for StreamSummary {
    fn default() -> StreamSummary {
        StreamSummary::from(&StreamStats::default())
    }
}

impl From<&StreamStats> for StreamSummary {
    fn from(stats: &StreamStats) -> StreamSummary {
        let retried = stats.retries.by_cause().into_iter().filter(|(_, n)| *n > 0);
        StreamSummary {
            subrequests: stats.subrequests,
            bytes: stats.bytes,
            stalls: stats.stalls,
            stall_seconds: stats.stall_time.as_secs_f64(),
            refused_grants: stats.refused_grants,
            retries: stats.retries.total(),
            retries_by_cause: retried.map(|(cause, n)| (cause.to_string(), n)).collect(),
            latency: Latency::from(&stats.latency),
        }
    }
}

impl From<&EngineStats> for Waits {
    fn from(stats: &EngineStats) -> Waits {
        Waits {
            pauses: stats.requests.pauses,
            pause_seconds: stats.requests.pause_time.as_secs_f64(),
            for_a_buffer: stats.requests.buffer_waits,
            for_a_buffer_seconds: stats.requests.buffer_wait_time.as_secs_f64(),
            for_memory: stats.memory_waits,
            for_memory_seconds: stats.memory_wait_time.as_secs_f64(),
            buffers_high_water: stats.buffers_high_water,
            folios_high_water: stats.folios_high_water,
        }
    }
}

impl From<&EngineStats> for Latencies {
    fn from(stats: &EngineStats) -> Latencies {
        Latencies {
            requests: Latency::from(&stats.request_latency),
            syncs: Latency::from(&stats.sync_latency),
            barriers: Latency::from(&stats.barrier_latency),
        }
    }
}

impl From<&Histogram> for Latency {
    fn from(histogram: &Histogram) -> Latency {
        Latency {
            count: histogram.count(),
            mean_seconds: histogram.mean().as_secs_f64(),
            median_seconds: histogram.quantile(0.5).as_secs_f64(),
            p99_seconds: histogram.quantile(0.99).as_secs_f64(),
            max_seconds: histogram.max().as_secs_f64(),
        }
    }
}

/// Where the cache's copy is, if the cache has held out to the end: only then does it have the
/// server's header.
fn copy_path(stores: &Stores, cache: &LocalCache, file: &File, name: &Name) -> Option<String> {
    let header = stores.as_server().open(name).and_then(|target| target.read_header()).ok()?;
    let geometry = Geometry::new(file.block_bytes()).ok()?;
    let copy = cache.open(file.file_id(), geometry).ok()?;
    let current = copy.read_header().is_ok_and(|kept| kept == header);
    current.then(|| cache.path_of(file.file_id()).display().to_string())
}

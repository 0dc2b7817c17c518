//! Puts a file on the server: beside whatever has its name, and in its place when all is there.

use std::{
    fs::File,
    io::{self, Read, Write},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use sealback::{
    CreateOptions, StreamStats,
    crypto::Geometry,
    stream::{Cache, LocalCache, Name, Server},
};
use sealback_examples::{Size, peak_rss_bytes};
use serde::Serialize;

use crate::{
    args::PutArgs,
    failure::Failure,
    progress::Progress,
    stores::{self, Stores},
};

pub(crate) fn run(args: &PutArgs) -> Result<(), Failure> {
    let name = args.name()?;
    let mut source = Source::open(args)?;
    let stores = Stores::open(&args.at, args.with.cache.as_deref())?;
    let engine = stores::engine(&args.with)?;
    let started = Instant::now();
    let options = CreateOptions { block_bytes: args.block_size, replace: true };
    let file = engine
        .create(&stores.place(), &name, &options)
        .map_err(|error| Failure::of_file(&name, &error))?;
    let bytes = match fill(&file, &name, &mut source) {
        Ok(bytes) => bytes,
        Err(failure) => {
            let draft = stores.server.dir().join(format!(".sealback/{}.draft", file.file_id()));
            abandon(file, &draft);
            return Err(failure);
        }
    };
    let seconds = started.elapsed().as_secs_f64();
    let cache_file =
        stores.cache.as_ref().and_then(|cache| copy_path(&stores, cache, &file, &name));
    let stream = |index| engine.stats().requests.streams.get(index).copied().unwrap_or_default();
    let with_cache = stores.cache.is_some();
    let summary = Summary {
        name: name.to_string(),
        file_id: file.file_id().to_string(),
        bytes,
        seconds,
        gb_per_s: bytes as f64 / seconds / 1e9,
        peak_rss_bytes: peak_rss_bytes(),
        engine: args.with.engine.to_string(),
        block_bytes: args.block_size,
        streams: Streams {
            upload: StreamSummary::from(stream(0)),
            cache: with_cache.then(|| StreamSummary::from(stream(1))),
        },
        cache_file,
    };
    summary.tell(args.json).map_err(Failure::of_stdout)
}

/// What is put.
struct Source {
    reader: Box<dyn Read>,
    shown: String,
    len_bytes: Option<u64>,
}

impl Source {
    fn open(args: &PutArgs) -> Result<Source, Failure> {
        if args.is_stdin() {
            let shown = "standard input".to_owned();
            return Ok(Source { reader: Box::new(io::stdin()), shown, len_bytes: None });
        }
        let shown = args.src.display().to_string();
        let failure = |error: io::Error| Failure::of(&shown, error);
        let file = File::open(&args.src).map_err(failure)?;
        let metadata = file.metadata().map_err(failure)?;
        if metadata.is_dir() {
            return Err(Failure::of(&shown, "is a directory, not a file"));
        }
        let len_bytes = metadata.is_file().then_some(metadata.len());
        Ok(Source { reader: Box::new(file), shown, len_bytes })
    }
}

/// Writes all of the source, syncs and publishes. Returns its size.
fn fill(file: &sealback::File, name: &Name, source: &mut Source) -> Result<u64, Failure> {
    let progress = Progress::start(source.len_bytes);
    let failure = |error| Failure::of_file(name, &error);
    let (bytes, ended) =
        file.write_from(0, &mut *source.reader, |bytes| progress.set(bytes)).map_err(failure)?;
    ended.map_err(|error| Failure::of(&source.shown, error))?;
    file.sync().map_err(failure)?;
    file.publish().map_err(failure)?;
    Ok(bytes)
}

/// Lets go of a file that is not to be published, and waits until its draft is gone.
fn abandon(file: sealback::File, draft: &Path) {
    // Only what is cancelled starts no other writeback behind it.
    let writeback = file.writeback();
    writeback.cancel();
    let _ = writeback.wait();
    drop((writeback, file));
    // A thread that has just ended the writeback may hold the draft for a moment longer. If that
    // is not enough, the next one to open the server removes it.
    let started = Instant::now();
    while draft.exists() && started.elapsed() < Duration::from_secs(2) {
        thread::sleep(Duration::from_millis(1));
    }
}

/// Where the cache's copy is, if the cache has held out to the end: only then does it have the
/// server's header.
fn copy_path(
    stores: &Stores,
    cache: &LocalCache,
    file: &sealback::File,
    name: &Name,
) -> Option<String> {
    let header = stores.server.open(name).and_then(|target| target.read_header()).ok()?;
    let geometry = Geometry::new(file.block_bytes()).ok()?;
    let copy = cache.open(file.file_id(), geometry).ok()?;
    let current = copy.read_header().is_ok_and(|kept| kept == header);
    current.then(|| cache.path_of(file.file_id()).display().to_string())
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Summary {
    name: String,
    file_id: String,
    bytes: u64,
    seconds: f64,
    gb_per_s: f64,
    peak_rss_bytes: Option<u64>,
    engine: String,
    block_bytes: u64,
    streams: Streams,
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
    retries: u64,
}

impl Summary {
    fn tell(&self, json: bool) -> io::Result<()> {
        let mut out = io::stdout().lock();
        match json {
            true => {
                serde_json::to_writer(&mut out, self)?;
                writeln!(out)?;
            }
            false => self.print(&mut out)?,
        }
        out.flush()
    }

    fn print(&self, out: &mut impl Write) -> io::Result<()> {
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
        let StreamSummary { subrequests, bytes, stalls, stall_seconds, retries } = self;
        let size = Size(*bytes);
        write!(out, "  {stream:<8}{subrequests} subrequests, {size}, ")?;
        writeln!(out, "{stalls} stalled ({stall_seconds:.3} s), {retries} sent again")
    }
}

impl From<StreamStats> for StreamSummary {
    fn from(stats: StreamStats) -> StreamSummary {
        StreamSummary {
            subrequests: stats.subrequests,
            bytes: stats.bytes,
            stalls: stats.stalls,
            stall_seconds: stats.stall_time.as_secs_f64(),
            retries: stats.retries,
        }
    }
}

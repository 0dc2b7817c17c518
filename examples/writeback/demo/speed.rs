//! A file through both streams and back: how long that takes, and what it takes.

use std::{io::Write, time::Instant};

use sealback::{Config, CreateOptions, Engine, File, Place, StreamStats, stream::Name};
use sealback_examples::{Size, peak_rss_bytes};

use super::{Stores, Trouble, data::Pattern, name};

/// Writes a file, reads it back from the server alone and from the cache alone, and prints how it
/// went.
pub(crate) fn measure(stores: &Stores, out: &mut impl Write) -> Result<(), Trouble> {
    let Stores { server, cut_off, cache, root } = stores;
    let (name, pattern) = (name("speed")?, Pattern::new(1));
    let engine = Engine::new(Config::default())?;
    print_settings(&engine, out)?;
    writeln!(out, "{:<34}{:>9}{:>9}   compared", "", "seconds", "GB/s")?;

    let started = Instant::now();
    let place = Place { server, cache: Some(cache), root };
    let file = engine.create(&place, &name, &CreateOptions::default())?;
    let (_, ended) = file.write_from(0, &mut pattern.reader(SIZE.0), |_| {})?;
    ended.map_err(Trouble::Local)?;
    file.sync()?;
    print_rate("written, to server and cache", started, "", out)?;
    let stats = engine.stats().requests.streams;
    drop((file, engine));

    let place = Place { server, cache: None, root };
    read_back("read, from the server alone", &place, &name, &pattern, out)?;
    let place = Place { server: cut_off, cache: Some(cache), root };
    read_back("read, from the cache alone", &place, &name, &pattern, out)?;

    writeln!(out)?;
    print_streams(&stats, out)?;
    if let Some(bytes) = peak_rss_bytes() {
        writeln!(out, "Peak memory of the process: {}", Size(bytes))?;
    }
    server_and_cache_agree(stores, &name, out)?;
    Ok(())
}

fn print_settings(engine: &Engine, out: &mut impl Write) -> Result<(), Trouble> {
    let config = engine.config();
    let (cipher, threads) = (config.cipher, config.threads);
    let block = Size(CreateOptions::default().block_bytes);
    let memory = Size(config.memory_bytes as u64);
    writeln!(
        out,
        "AES-256-GCM by {cipher}, {threads} threads, blocks of {block}, {memory} for buffers"
    )?;
    writeln!(out)?;
    Ok(())
}

/// Reads a file with an engine of its own, so that nothing is in memory yet, and compares it.
fn read_back(
    what: &str,
    place: &Place<'_>,
    name: &Name,
    pattern: &Pattern,
    out: &mut impl Write,
) -> Result<(), Trouble> {
    let engine = Engine::new(Config::default())?;
    let started = Instant::now();
    let file = engine.open(place, name)?;
    if file.size() != SIZE.0 {
        return Err(Trouble::Differs(format!("{what}: the size is not what was written")));
    }
    compare(what, &file, pattern)?;
    print_rate(what, started, "   ok", out)
}

fn compare(what: &str, file: &File, pattern: &Pattern) -> Result<(), Trouble> {
    let (mut read, mut made) = (vec![0; AT_ONCE_BYTES], vec![0; AT_ONCE_BYTES]);
    let mut at = 0;
    loop {
        let len = file.read_at(at, &mut read)?;
        if len == 0 {
            return Ok(());
        }
        pattern.fill(at, &mut made[..len]);
        if read[..len] != made[..len] {
            return Err(Trouble::Differs(format!("{what}: differs behind byte {at}")));
        }
        at += len as u64;
    }
}

fn print_rate(
    what: &str,
    started: Instant,
    verdict: &str,
    out: &mut impl Write,
) -> Result<(), Trouble> {
    let seconds = started.elapsed().as_secs_f64();
    let rate = SIZE.0 as f64 / seconds / 1e9;
    writeln!(out, "{what:<34}{seconds:>9.3}{rate:>9.2}{verdict}")?;
    Ok(())
}

fn print_streams(streams: &[StreamStats], out: &mut impl Write) -> Result<(), Trouble> {
    writeln!(
        out,
        "{:<10}{:>13}{:>12}{:>12}{:>10}{:>13}{:>9}",
        "stream", "subrequests", "sealed", "mean", "stalls", "stalled", "retries"
    )?;
    for (stream, stats) in ["upload", "cache"].into_iter().zip(streams) {
        let StreamStats { subrequests, bytes, stalls, stall_time, .. } = *stats;
        let retries = stats.retries.total();
        let mean = Size(bytes.checked_div(subrequests).unwrap_or(0));
        let (sealed, stalled) = (Size(bytes), stall_time.as_secs_f64() * 1e3);
        write!(out, "{stream:<10}{subrequests:>13}{sealed:>12}{mean:>12}{stalls:>10}")?;
        writeln!(out, "{stalled:>10.1} ms{retries:>9}")?;
    }
    writeln!(out)?;
    Ok(())
}

/// The copy is the server's file, byte for byte.
fn server_and_cache_agree(
    stores: &Stores,
    name: &Name,
    out: &mut impl Write,
) -> Result<(), Trouble> {
    let engine = Engine::new(Config::default())?;
    let place = Place { server: &stores.server, cache: None, root: &stores.root };
    let id = engine.open(&place, name)?.file_id();
    let read = |path| std::fs::read(path).map_err(Trouble::Local);
    let stored = read(stores.server.dir().join(name.as_str()))?;
    if stored != read(stores.cache.path_of(id))? {
        return Err(Trouble::Differs("the server's file and the cache's copy differ".to_owned()));
    }
    let size = Size(stored.len() as u64);
    writeln!(out, "The server's file and the cache's copy are the same {size}, byte for byte")?;
    Ok(())
}

/// Plaintext.
pub(crate) const SIZE: Size = Size(256 << 20);
const AT_ONCE_BYTES: usize = 4 << 20;

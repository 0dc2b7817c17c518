//! What an open file costs: many files open at once, each with a few dirty KiB, written back by one
//! `sync_all`. Memory is measured as the process's own, at its peak, against what it was with the engine
//! and no file.
//!
//! ```sh
//! cargo run --release --example open_files              # or with a number of files
//! ```

use std::{error::Error, fs, time::Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sealback::{
    Config, CreateOptions, Engine, Place,
    crypto::RootKey,
    stream::{LocalOptions, LocalServer, Name},
};

const N_FILES: usize = 10_000;
/// Bytes that are dirty in each.
const DIRTY_BYTES: usize = 3 << 10;
const CONFIG_MEMORY: usize = 64 << 20;

/// A line of `/proc/self/status`, in bytes.
fn memory(what: &str) -> Result<u64, Box<dyn Error>> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(what));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)).ok_or("no such line")?;
    Ok(kib.parse::<u64>()? << 10)
}

/// Each file has two descriptors: its own, and that of its lock.
fn allow_descriptors(n_files: u64) -> Result<(), Box<dyn Error>> {
    let wanted = 2 * n_files + 100;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_some_and(|current| current < wanted) {
        let maximum = maximum.map(|maximum| maximum.max(wanted));
        let raised = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum });
        raised.map_err(|error| format!("{wanted} open files are not allowed: {error}"))?;
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let n_files = std::env::args().nth(1).map_or(Ok(N_FILES), |n| n.parse())?;
    allow_descriptors(n_files as u64)?;
    let dir = tempfile::tempdir_in(if fs::exists("/dev/shm")? { "/dev/shm" } else { "/tmp" })?;
    let server = LocalServer::open(dir.path(), LocalOptions::default())?;
    let root = RootKey::from_bytes(&[1; 32]);
    let place = Place { server: &server, cache: None, root: &root };
    let config = Config { memory_bytes: CONFIG_MEMORY, folio_bytes: 4 << 10, ..Config::default() };
    let engine = Engine::new(config)?;
    let options = CreateOptions { block_bytes: 4 << 10, replace: false };
    let before = memory("VmRSS")?;

    let mut files = Vec::with_capacity(n_files);
    for number in 0..n_files {
        let file = engine.create(&place, &Name::new(&format!("file{number}"))?, &options)?;
        file.write_at(0, &[7; DIRTY_BYTES])?;
        files.push(file);
    }
    let dirty: u64 = files.iter().map(sealback::File::dirty_bytes).sum();
    let started = Instant::now();
    engine.sync_all().map_err(|unclosed| unclosed.into_iter().next().expect("one has failed"))?;
    let seconds = started.elapsed().as_secs_f64();
    assert!(files.iter().all(|file| file.dirty_bytes() == 0), "everything is written back");

    let grown = memory("VmHWM")?.saturating_sub(before);
    let over = grown.saturating_sub(CONFIG_MEMORY as u64);
    println!("{n_files} files, {} MB dirty, written back in {seconds:.2} s", dirty / 1_000_000);
    println!("memory: {:.1} MB over that of the idle engine at the peak", grown as f64 / 1e6);
    println!("over the budget of 64 MiB: {} bytes for each file", over / n_files as u64);
    println!("without the folios: {} bytes for each file", {
        let folios = (engine.stats().folios_out * (4 << 10)) as u64;
        grown.saturating_sub(folios) / n_files as u64
    });
    Ok(())
}

//! What the system is asked to write and to sync, as `strace` sees it.
//!
//! Skipped, with a word on standard error, where there is no `strace`; with `CI` set it must be there.

use std::{env, fs, path::Path, process::Command};

use sealback::{Config, CreateOptions, Engine, Place};
use sealback_stream::{LocalCache, LocalOptions, LocalServer};
use tempfile::TempDir;

use crate::support::{config, name, root, sample};

const DIR: &str = "SEALBACK_TEST_TRACED_DIR";
const WHAT: &str = "SEALBACK_TEST_TRACED";
const DURABILITY: &str = "SEALBACK_TEST_TRACED_DURABILITY";

const BLOCK: usize = 16 << 10;
const SIZE: usize = 4 << 20;
/// What is written over, and synced after each piece.
const PIECES: [(usize, usize); 4] =
    [(0, 1 << 20), (1_234_567, 700_000), (3 << 20, 1 << 20), (5, 10)];

/// One call, on a file in the server's directory, or the cache's.
#[derive(Debug)]
struct Call {
    name: String,
    /// `server`, `cache`, or what is in these directories.
    path: String,
    /// What it returned: for a write, bytes.
    result: u64,
}

impl Call {
    fn is_sync(&self) -> bool {
        matches!(self.name.as_str(), "fsync" | "fdatasync" | "sync_file_range" | "syncfs")
    }

    fn is_write(&self) -> bool {
        matches!(self.name.as_str(), "write" | "pwrite64" | "pwritev" | "pwritev2" | "writev")
    }

    fn is_of_journal(&self) -> bool {
        self.path.ends_with(".journal")
    }
}

/// Runs one of the things below in a process of its own, and returns what it wrote and synced.
fn traced(dir: &TempDir, what: &str, durability: &str) -> Option<Vec<Call>> {
    let log = dir.path().join("log");
    for name in ["server", "cache"] {
        fs::create_dir_all(dir.path().join(name)).unwrap();
    }
    let traced = Command::new("strace")
        .args(["-f", "-y", "-e"])
        .arg("trace=write,writev,pwrite64,pwritev,pwritev2,fsync,fdatasync,sync_file_range,syncfs,rename,link,linkat,renameat2")
        .arg("-o")
        .arg(&log)
        .arg(env::current_exe().unwrap())
        .args(["--exact", "syscalls::one_that_is_traced"])
        .env(DIR, dir.path())
        .env(WHAT, what)
        .env(DURABILITY, durability)
        .output();
    match traced {
        Ok(output) => assert!(output.status.success(), "{output:?}"),
        Err(error) => {
            assert!(env::var_os("CI").is_none(), "strace: {error}");
            eprintln!("skipped: there is no strace here");
            return None;
        }
    }
    let log = fs::read_to_string(log).unwrap();
    Some(joined(&log).iter().filter_map(|line| parse(line, dir.path())).collect())
}

/// The lines of a log, those that others came between put together.
fn joined(log: &str) -> Vec<String> {
    let mut open = std::collections::BTreeMap::new();
    let mut lines = Vec::new();
    for line in log.lines() {
        let (thread, rest) = line.split_once(' ').unwrap();
        let rest = rest.trim_start();
        if let Some(start) = rest.strip_suffix("<unfinished ...>") {
            open.insert(thread.to_owned(), start.to_owned());
        } else if let Some((_, end)) = rest.split_once("resumed>") {
            lines.push(open.remove(thread).unwrap_or_default() + end);
        } else {
            lines.push(rest.to_owned());
        }
    }
    lines
}

fn parse(line: &str, dir: &Path) -> Option<Call> {
    let (name, arguments) = line.split_once('(')?;
    let (_, path) = arguments.split_once(dir.to_str().unwrap())?;
    let end = path.find(['>', '"'])?;
    let (_, result) = line.rsplit_once("= ")?;
    let result = result.split_whitespace().next()?.parse().ok()?;
    let path = path[..end].trim_start_matches('/').to_owned();
    Some(Call { name: name.to_owned(), path, result })
}

/// What the tests below run in other processes; nothing in this one.
#[test]
fn one_that_is_traced() {
    let Ok(dir) = env::var(DIR) else { return };
    let durability = env::var(DURABILITY).unwrap().parse().unwrap();
    let options = LocalOptions::default().with_durability(durability);
    let [server, cache] = ["server", "cache"].map(|name| Path::new(&dir).join(name));
    let server = LocalServer::open(server, options).unwrap();
    let cache = LocalCache::open(cache, options).unwrap();
    let root = root();
    let place = Place { server: &server, cache: None, root: &root };
    // Memory enough that nothing is written before the sync: when that began would show.
    let engine = Engine::new(Config { memory_bytes: 64 << 20, ..config() }).unwrap();
    match env::var(WHAT).unwrap().as_str() {
        "put" => {
            let options = CreateOptions { block_bytes: BLOCK as u64, replace: true };
            let file = engine.create(&place, &name(), &options).unwrap();
            let plain = sample(SIZE);
            file.write_from(0, &mut &plain[..], |_| ()).unwrap().1.unwrap();
            file.sync().unwrap();
            file.publish().unwrap();
        }
        "create" => drop(engine.create(&place, &name(), &CreateOptions::default()).unwrap()),
        "overwrite" => {
            let file = engine.open(&place, &name()).unwrap();
            for (at, len) in PIECES {
                file.write_at(at as u64, &sample(len)).unwrap();
                file.sync().unwrap();
            }
        }
        "through a cache" => {
            let place = Place { cache: Some(&cache), ..place };
            let file = engine.open(&place, &name()).unwrap();
            for _round in 0..2 {
                file.write_at(0, &sample(BLOCK)).unwrap();
                file.sync().unwrap();
            }
        }
        other => panic!("what is {other}?"),
    }
}

#[test]
fn a_new_file_costs_no_write_and_no_sync_more_for_surviving_a_kill() {
    let count = |durability| {
        let dir = TempDir::new().unwrap();
        let calls = traced(&dir, "put", durability)?;
        let writes: Vec<_> = calls.iter().filter(|call| call.is_write()).collect();
        let bytes: u64 = writes.iter().map(|call| call.result).sum();
        assert!(bytes > SIZE as u64, "{calls:?}");
        Some((writes.len(), bytes, calls.iter().filter(|call| call.is_sync()).count()))
    };
    let Some(none) = count("none") else { return };
    let process = count("process").unwrap();
    println!("writes, bytes, syncs: {none:?} with none, {process:?} with process");
    assert_eq!(none, process);
}

#[test]
fn overwriting_costs_twice_its_bytes_and_one_sync_of_the_journal_for_each_group() {
    let dir = TempDir::new().unwrap();
    if traced(&dir, "put", "process").is_none() {
        return;
    }
    let calls = traced(&dir, "overwrite", "power-cut").unwrap();
    let stride = (BLOCK + 48) as u64;
    let blocks = |(at, len): (usize, usize)| ((at + len).div_ceil(BLOCK) - at / BLOCK) as u64;
    let sealed_bytes = PIECES.map(blocks).iter().sum::<u64>() * stride;
    let written: u64 = calls.iter().filter(|call| call.is_write()).map(|call| call.result).sum();
    // A record is more than a head, which is 128 bytes.
    let is_record = |call: &Call| call.is_write() && call.is_of_journal() && call.result > 512;
    let n_groups = calls.iter().filter(|call| is_record(call)).count() as u64;
    let (of_journal, of_file): (Vec<_>, Vec<_>) =
        calls.iter().filter(|call| call.name == "fdatasync").partition(|call| call.is_of_journal());
    let (n_log_syncs, n_file_syncs) = (of_journal.len() as u64, of_file.len() as u64);
    println!(
        "{sealed_bytes} sealed bytes in {n_groups} groups: {written} bytes written, \
         {n_log_syncs} syncs of the journal, {n_file_syncs} of the file"
    );
    assert!(written <= sealed_bytes * 21 / 10 + n_groups * 4096, "{calls:#?}");
    // One more empties the journal for good when the file is closed.
    assert_eq!(n_log_syncs, n_groups + 1);
    // For each commit of a header; and before the first group, for what others may have left.
    assert_eq!(n_file_syncs, PIECES.len() as u64 + 1, "{calls:#?}");
    // Nothing goes over blocks before the disk has the journal.
    let mut is_pending = false;
    for call in &calls {
        if is_record(call) {
            is_pending = true;
        } else if call.name == "fdatasync" && call.is_of_journal() {
            is_pending = false;
        }
        assert!(!(is_pending && call.is_write() && !call.is_of_journal()), "{calls:#?}");
    }
}

#[test]
fn a_new_file_is_durable_before_it_has_its_name_and_then_the_name_is() {
    for what in ["put", "create"] {
        let dir = TempDir::new().unwrap();
        let Some(calls) = traced(&dir, what, "power-cut") else { return };
        // The first one may try whether a file without a name can be given one.
        let names = |call: &Call| ["link", "linkat"].contains(&call.name.as_str());
        let named = calls.iter().rposition(names).unwrap();
        let (before, after) = calls.split_at(named);
        let last_write = before.iter().rposition(Call::is_write).unwrap();
        assert!(before[last_write..].iter().any(Call::is_sync), "{calls:#?}");
        assert!(after.iter().any(|call| call.is_sync() && call.path == "server"), "{calls:#?}");
        // Who survives less waits less.
        let dir = TempDir::new().unwrap();
        let calls = traced(&dir, what, "process").unwrap();
        assert!(!calls.iter().any(Call::is_sync), "{calls:#?}");
    }
}

/// Goal: no power cut brings back what the cache had of a block that the server has otherwise. Method: a
/// block is written twice through a cache; what the disk has of the record is followed.
#[test]
fn the_disk_has_a_cache_forget_a_block_before_the_server_writes_it_and_not_know_it_before_it_is_there()
 {
    let dir = TempDir::new().unwrap();
    if traced(&dir, "put", "power-cut").is_none() {
        return;
    }
    let calls = traced(&dir, "through a cache", "power-cut").unwrap();
    // An entry of the record is 32 bytes: set, then cleared, then set.
    let is_entry =
        |call: &Call| call.is_write() && call.path.ends_with(".record") && call.result == 32;
    let is_block = |call: &Call, of: &str| {
        call.is_write() && call.path.starts_with(of) && call.result > BLOCK as u64
    };
    let entries: Vec<usize> =
        calls.iter().enumerate().filter(|(_, call)| is_entry(call)).map(|(at, _)| at).collect();
    let [first_set, cleared, second_set] = entries[..] else { panic!("{calls:#?}") };
    let synced = |range: std::ops::Range<usize>, ending: &str| {
        calls[range].iter().any(|call| call.is_sync() && call.path.ends_with(ending))
    };
    let second_write = (cleared..calls.len()).find(|at| is_block(&calls[*at], "server")).unwrap();
    assert!(!calls[first_set..cleared].iter().any(|call| is_block(call, "server")), "{calls:#?}");
    assert!(synced(cleared..second_write, ".record"), "{calls:#?}");
    for set in [first_set, second_set] {
        let copied = (0..set).rev().find(|at| is_block(&calls[*at], "cache")).unwrap();
        assert!(synced(copied..set, ".sealed"), "{calls:#?}");
    }
}

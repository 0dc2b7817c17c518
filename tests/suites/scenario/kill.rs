//! Processes that are killed at any moment, and what they leave.
//!
//! A process overwrites, extends, truncates, punches and syncs a file, and says on a pipe what it begins
//! and what has ended. It is killed (`SIGKILL`); then somebody opens the file, and the next one goes on
//! with it. `SEALBACK_KILLS=N` kills N processes.

use std::{env, fs, io::Write, path::Path, thread, time::Duration};

use fastrand::Rng;
use sealback::{CreateOptions, Place};
use sealback_stream::{Durability, LocalCache, LocalOptions, LocalServer};
use tempfile::TempDir;

use crate::{
    killing::{Told, follow_told, kill, start},
    moments::{Model, Op, apply, read_all},
    support::{engine, name, root},
};

const DIR: &str = "SEALBACK_TEST_KILL_DIR";
const SEED: &str = "SEALBACK_TEST_KILL_SEED";
const WITH_CACHE: &str = "SEALBACK_TEST_KILL_CACHE";
/// What a process does, if nobody kills it.
const N_OPS: u32 = 400;
/// The file grows to about that.
const SIZE: usize = 3 << 20;

/// What a process with that seed does.
struct Life {
    rng: Rng,
    /// Each operation of each life writes something else.
    number: u32,
}

impl Life {
    fn new(seed: u32) -> Life {
        Life { rng: Rng::with_seed(seed.into()), number: seed * N_OPS }
    }

    fn options(&mut self) -> LocalOptions {
        let durable = self.rng.u8(..4) == 0;
        let durability = if durable { Durability::PowerCut } else { Durability::Process };
        LocalOptions::default().with_durability(durability)
    }

    fn next(&mut self) -> (u32, Op) {
        self.number += 1;
        let at = self.rng.usize(..SIZE);
        let op = match self.rng.u8(..20) {
            0 => Op::SetLen(at),
            1 => Op::Punch { at, len: self.rng.usize(..SIZE / 4) },
            2..9 => Op::Sync,
            9..14 => Op::Write { at: at - at % (64 << 10), len: 512 << 10 },
            _ => Op::Write { at, len: self.rng.usize(1..100_000) },
        };
        (self.number, op)
    }
}

/// Where the file of a test is.
struct World {
    server: LocalServer,
    cache: LocalCache,
}

impl World {
    fn open(dir: &Path, options: LocalOptions) -> World {
        let [server, cache] = ["server", "cache"].map(|name| dir.join(name));
        for dir in [&server, &cache] {
            fs::create_dir_all(dir).unwrap();
        }
        World {
            server: LocalServer::open(server, options).unwrap(),
            cache: LocalCache::open(cache, options).unwrap(),
        }
    }

    fn create(&self, block_bytes: u64) {
        let root = root();
        let place = Place { server: &self.server, cache: None, root: &root };
        let options = CreateOptions { block_bytes, replace: false };
        engine().create(&place, &name(), &options).unwrap();
    }

    /// What the file is, to somebody without the cache and to somebody with it, if all who wrote it had
    /// it.
    fn read(&self, with_cache: bool) -> Vec<u8> {
        let root = root();
        let without = Place { server: &self.server, cache: None, root: &root };
        let bytes = read_all(&engine().open(&without, &name()).unwrap()).unwrap();
        if with_cache {
            let with = Place { cache: Some(&self.cache), ..without };
            let file = engine().open(&with, &name()).unwrap();
            assert!(read_all(&file).unwrap() == bytes, "the cache has something else");
        }
        bytes
    }
}

/// What the tests below run in other processes; nothing in this one.
#[test]
fn one_of_those_that_are_killed() {
    let Ok(dir) = env::var(DIR) else { return };
    let mut life = Life::new(env::var(SEED).unwrap().parse().unwrap());
    let world = World::open(Path::new(&dir), life.options());
    let root = root();
    let cache = (env::var(WITH_CACHE).unwrap() == "true").then_some(&world.cache as _);
    let place = Place { server: &world.server, cache, root: &root };
    let file = engine().open(&place, &name()).unwrap();
    let mut out = std::io::stdout();
    for _op in 0..N_OPS {
        let (number, op) = life.next();
        writeln!(out, "begin {number}").unwrap();
        apply(&file, &op, number).unwrap();
        writeln!(out, "end {number}").unwrap();
    }
}

/// Goes through what a killed process said: what it began, and which of that had ended.
fn follow(model: &mut Model, seed: u32, said: &str) {
    let mut life = Life::new(seed);
    life.options();
    follow_told(
        said,
        || life.next(),
        |told| match told {
            Told::Begun(op, number) => model.begin(op, number),
            Told::Ended(op) => model.end(op),
        },
    );
}

/// Kills processes that work on one file.
fn kill_many(n_kills: u32, block_bytes: u64, with_cache: bool, first_seed: u32) {
    let dir = TempDir::new().unwrap();
    let world = World::open(dir.path(), LocalOptions::default());
    world.create(block_bytes);
    let stored = dir.path().join("server").join(name().as_str());
    let mut rng = Rng::with_seed(first_seed.into());
    let (mut n_redone, mut n_ended) = (0, 0);
    let mut model = Model::of(Vec::new());
    for seed in first_seed..first_seed + n_kills {
        let after = Duration::from_micros(rng.u64(..100_000));
        let vars = [
            (DIR, dir.path().display().to_string()),
            (SEED, seed.to_string()),
            (WITH_CACHE, with_cache.to_string()),
        ];
        // Any moment will do.
        let child = start("kill::one_of_those_that_are_killed", &vars);
        let said = kill(child, || thread::sleep(after));
        n_ended += said.matches("end ").count();
        follow(&mut model, seed, &said);
        let left = fs::read(&stored).unwrap();
        let found = world.read(with_cache);
        n_redone += u32::from(fs::read(&stored).unwrap() != left);
        let checked = model.check(&found, usize::try_from(block_bytes).unwrap());
        assert!(
            checked.is_ok(),
            "{checked:?} after seed {seed} in {:?}, which said {said}",
            dir.keep()
        );
        model = Model::of(found);
    }
    println!(
        "blocks of {block_bytes}, cache {with_cache}: {n_kills} killed, {n_ended} operations ended, {n_redone} times what was left half done was carried out"
    );
}

#[test]
fn a_killed_process_loses_nothing_acknowledged_and_leaves_no_block_torn() {
    let n_kills: u32 = env::var("SEALBACK_KILLS").map_or(40, |n| n.parse().unwrap());
    kill_many(n_kills / 3, 16 << 10, false, 1);
    kill_many(n_kills / 3, 16 << 10, true, 1_000_000);
    kill_many(n_kills - n_kills / 3 * 2, 256 << 10, true, 2_000_000);
}

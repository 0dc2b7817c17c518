//! Clients that write behind and are killed at any moment, while somebody else changes other bytes of the
//! same blocks; and one whose server is away for a while.
//!
//! Of each block the first bytes are somebody else's, who goes past what waits; a client writes the others, and
//! says on a pipe what it begins and what has ended. It is killed (`SIGKILL`); what waits is uploaded by the
//! next one, or by whoever resumes. `SEALBACK_KILLS=N` kills N of them, `SEALBACK_AWAY_SECONDS=N` has the
//! server away for so long.

use std::{
    env, fs,
    io::Write,
    ops::Range,
    path::Path,
    process::Child,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use fastrand::Rng;
use sealback::{CreateOptions, File, Place};
use sealback_stream::{Durability, LocalOptions, LocalServer, WriteBehind, WriteBehindOptions};
use sealback_tests::away::{AwayServer, Road};
use tempfile::TempDir;

use crate::{
    killing::{Told, follow_told, kill, start},
    support::{assert_same, engine, name, open, read_all, root, sample},
};

const DIR: &str = "SEALBACK_TEST_BEHIND_DIR";
const SEED: &str = "SEALBACK_TEST_BEHIND_SEED";
const AWAY: &str = "SEALBACK_TEST_BEHIND_AWAY";
const WAY: &str = "SEALBACK_TEST_BEHIND_WAY";
const BLOCK: usize = 16 << 10;
/// So many bytes of each block are somebody else's.
const THEIRS: usize = 1000;
const N_BLOCKS: usize = 60;
/// What a client does, if nobody kills it.
const N_OPS: u32 = 400;

/// What a client does.
#[derive(Clone, Debug)]
enum Op {
    Sync,
    Write(Range<usize>),
}

/// What a client with that seed does.
struct Life {
    rng: Rng,
    number: u32,
}

impl Life {
    fn new(seed: u32) -> Life {
        Life { rng: Rng::with_seed(seed.into()), number: seed * N_OPS }
    }

    fn options(&mut self) -> WriteBehindOptions {
        let durable = self.rng.u8(..8) == 0;
        let durability = if durable { Durability::PowerCut } else { Durability::Process };
        WriteBehindOptions { durability, ..WriteBehindOptions::default() }
    }

    /// A number, which says what is written, and what is done.
    fn next(&mut self) -> (u32, Op) {
        self.number += 1;
        if self.rng.u8(..3) == 0 {
            return (self.number, Op::Sync);
        }
        let start = self.rng.usize(..N_BLOCKS) * BLOCK + self.rng.usize(THEIRS..BLOCK - 1);
        let len = self.rng.usize(1..BLOCK - start % BLOCK);
        (self.number, Op::Write(start..start + len))
    }
}

/// What was written by an operation.
fn content(number: u32) -> u8 {
    u8::try_from(number % 251).unwrap() + 1
}

/// What each byte may be.
struct Model {
    synced: Vec<u8>,
    /// What was begun since the last sync that has ended.
    since: Vec<(Range<usize>, u8)>,
    /// What was begun by a client that was killed before its next sync ended: it is there or not.
    left: Vec<(Range<usize>, u8)>,
}

impl Model {
    fn of(synced: Vec<u8>) -> Model {
        Model { synced, since: Vec::new(), left: Vec::new() }
    }

    fn begin(&mut self, op: &Op, number: u32) {
        if let Op::Write(range) = op {
            self.since.push((range.clone(), content(number)));
        }
    }

    fn end(&mut self, op: &Op) {
        if let Op::Sync = op {
            for (range, byte) in self.since.drain(..) {
                let end = self.synced.len().max(range.end);
                self.synced.resize(end, 0);
                let around = |(left, byte): (Range<usize>, u8)| {
                    let before = left.start..left.end.min(range.start);
                    let behind = left.start.max(range.end)..left.end;
                    [(before, byte), (behind, byte)]
                };
                self.left = self.left.drain(..).flat_map(around).collect();
                self.left.retain(|(left, _)| !left.is_empty());
                self.synced[range].fill(byte);
            }
        }
    }

    /// The client was killed.
    fn died(&mut self) {
        self.left.append(&mut self.since);
    }

    /// The first byte that is none that it may be.
    fn check(&self, found: &[u8]) -> Result<(), String> {
        if found.len() < self.synced.len() {
            return Err(format!("{} bytes, of {}", found.len(), self.synced.len()));
        }
        let is_right = |at: usize| {
            let synced = self.synced.get(at).copied().unwrap_or(0);
            let mut left = self.left.iter().filter(|(range, _)| range.contains(&at));
            found[at] == synced || left.any(|(_, byte)| *byte == found[at])
        };
        match (0..found.len()).filter(|at| at % BLOCK >= THEIRS).find(|at| !is_right(*at)) {
            Some(at) => Err(format!("byte {at} is {}", found[at])),
            None => Ok(()),
        }
    }
}

struct World {
    server: LocalServer,
    dir: TempDir,
    /// What somebody else has written, of each block.
    theirs: Vec<u8>,
    rng: Rng,
}

impl World {
    fn new(seed: u64) -> World {
        let dir = TempDir::new().unwrap();
        let server = server(dir.path());
        let root = root();
        let place = Place { server: &server, cache: None, root: &root };
        let options = CreateOptions { block_bytes: BLOCK as u64, replace: false };
        let file = engine().create(&place, &name(), &options).unwrap();
        file.write_at(0, &vec![0; N_BLOCKS / 2 * BLOCK]).unwrap();
        file.sync().unwrap();
        drop(file);
        World { server, dir, theirs: vec![0; N_BLOCKS], rng: Rng::with_seed(seed) }
    }

    /// Somebody else changes what is his of some blocks.
    fn change_theirs(&mut self, file: &File) {
        let n_blocks = usize::try_from(file.size()).unwrap() / BLOCK;
        for _ in 0..3 {
            let block = self.rng.usize(..n_blocks);
            self.theirs[block] = self.rng.u8(1..);
            file.write_at((block * BLOCK) as u64, &[self.theirs[block]; THEIRS]).unwrap();
        }
        file.sync().unwrap();
    }

    /// Kills a client at some moment, and returns what it said.
    fn kill(&mut self, child: Child) -> String {
        let after = Duration::from_micros(self.rng.u64(..60_000));
        let mut other = None;
        let said = kill(child, || {
            let since = Instant::now();
            let other = other.insert(open(&engine(), &self.server, None));
            while since.elapsed() < after {
                self.change_theirs(other);
                // Any moment will do.
                thread::sleep(after / 4);
            }
        });
        self.change_theirs(&other.expect("the client has begun"));
        said
    }

    /// Uploads what waits, and returns what the file then is to somebody else.
    fn resume(&self) -> Vec<u8> {
        let options = WriteBehindOptions::default();
        let behind = behind(Arc::new(self.server.clone()), self.dir.path(), options);
        let root = root();
        let place = Place { server: &behind, cache: None, root: &root };
        for resumed in engine().resume(&place, &behind).unwrap() {
            resumed.uploaded.unwrap();
        }
        let found = read_all(&open(&engine(), &self.server, None));
        for block in 0..found.len() / BLOCK {
            let theirs = &found[block * BLOCK..block * BLOCK + THEIRS];
            assert_eq!(theirs, [self.theirs[block]; THEIRS], "somebody else's of {block}");
        }
        found
    }
}

fn server(dir: &Path) -> LocalServer {
    let dir = dir.join("server");
    fs::create_dir_all(&dir).unwrap();
    LocalServer::open(dir, LocalOptions::default()).unwrap()
}

fn behind(
    server: Arc<dyn sealback_stream::Server>,
    dir: &Path,
    options: WriteBehindOptions,
) -> WriteBehind {
    WriteBehind::open(server, dir.join("behind"), options).unwrap()
}

/// What the test below runs in other processes; nothing in this one.
#[test]
fn one_of_those_that_write_behind_and_are_killed() {
    let (Ok(dir), Ok(seed)) = (env::var(DIR), env::var(SEED)) else { return };
    let (dir, mut life) = (Path::new(&dir), Life::new(seed.parse().unwrap()));
    let server = AwayServer::new(server(dir), Road::default());
    server.hook.set_away(env::var(AWAY).unwrap() == "true");
    let behind = behind(Arc::new(server), dir, life.options());
    let file = open(&engine(), &behind, None);
    let mut out = std::io::stdout();
    for _op in 0..N_OPS {
        let (number, op) = life.next();
        writeln!(out, "begin {number}").unwrap();
        let done = match &op {
            Op::Sync => file.sync(),
            Op::Write(range) => {
                file.write_at(range.start as u64, &vec![content(number); range.len()])
            }
        };
        // With the server away a block that is not here cannot be changed in part.
        if done.is_ok() {
            writeln!(out, "end {number}").unwrap();
        }
    }
}

/// Goes through what a killed client said: what it began, and which of that had ended. Returns how many syncs
/// had.
fn follow(model: &mut Model, seed: u32, said: &str) -> u32 {
    let mut life = Life::new(seed);
    life.options();
    let mut n_synced = 0;
    follow_told(
        said,
        || life.next(),
        |told| match told {
            Told::Begun(op, number) => model.begin(op, number),
            Told::Ended(op) => {
                n_synced += u32::from(matches!(op, Op::Sync));
                model.end(op);
            }
        },
    );
    n_synced
}

#[test]
fn what_a_killed_client_has_synced_is_on_the_server_after_a_resume_beside_what_others_changed() {
    if env::var(DIR).is_ok() {
        return;
    }
    let n_kills: u32 = env::var("SEALBACK_KILLS").map_or(20, |n| n.parse().unwrap());
    let mut world = World::new(7);
    let mut model = Model::of(world.resume());
    let (mut n_synced, mut n_waited) = (0, 0);
    for seed in 1..=n_kills {
        let away = seed % 4 == 0;
        let test = "behind_kill::one_of_those_that_write_behind_and_are_killed";
        let dir = world.dir.path().display().to_string();
        let vars = [(DIR, dir), (SEED, seed.to_string()), (AWAY, away.to_string())];
        let said = world.kill(start(test, &vars));
        n_synced += follow(&mut model, seed, &said);
        model.died();
        // Now and then the next client finds what waits, and nobody has resumed.
        if world.rng.u8(..4) == 0 {
            continue;
        }
        let before = read_all(&open(&engine(), &world.server, None));
        let found = world.resume();
        n_waited += u32::from(before != found);
        let checked = model.check(&found);
        assert!(checked.is_ok(), "{checked:?} after seed {seed}, which said {said}");
        model = Model::of(found);
    }
    println!("{n_kills} killed, {n_synced} syncs ended, {n_waited} times something waited");
}

/// Seconds that this process has had a processor.
fn cpu_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u32 = fields[11].parse::<u32>().unwrap() + fields[12].parse::<u32>().unwrap();
    // A hundred to the second, on every Linux there is.
    f64::from(ticks) / 100.0
}

/// How a server goes away.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// It answers nothing.
    Silent,
    /// Its directory is unmounted: another one, which is empty, is in its place.
    Unmounted,
}

impl Way {
    fn set_away(self, away: bool, server: &AwayServer<LocalServer>, dir: &Path) {
        let (here, elsewhere) = (dir.join("server"), dir.join("elsewhere"));
        match self {
            Way::Silent => server.hook.set_away(away),
            Way::Unmounted if away => {
                fs::rename(&here, elsewhere).unwrap();
                fs::create_dir(here).unwrap();
            }
            Way::Unmounted => {
                // It is still empty.
                fs::remove_dir(&here).unwrap();
                fs::rename(elsewhere, here).unwrap();
            }
        }
    }
}

/// What the tests below run in another process; nothing in this one.
#[test]
fn one_whose_server_is_away_for_a_while() {
    let (Ok(dir), Ok(way)) = (env::var(DIR), env::var(WAY)) else { return };
    let way = if way == "Silent" { Way::Silent } else { Way::Unmounted };
    let seconds: u64 = env::var("SEALBACK_AWAY_SECONDS").map_or(3, |n| n.parse().unwrap());
    let dir = Path::new(&dir);
    tracing_subscriber::fmt().with_max_level(tracing::Level::INFO).with_ansi(false).init();
    let server = AwayServer::new(server(dir), Road::default());
    let behind = behind(Arc::new(server.clone()), dir, WriteBehindOptions::default());
    let (engine, root) = (engine(), root());
    let place = Place { server: &behind, cache: None, root: &root };
    let options = CreateOptions { block_bytes: BLOCK as u64, replace: true };
    let file = engine.create(&place, &name(), &options).unwrap();
    let content = sample(20 << 20);
    file.write_from(0, &mut &content[..10 << 20], |_| ()).unwrap().1.unwrap();
    // In the middle of a put.
    way.set_away(true, &server, dir);
    file.write_from(10 << 20, &mut &content[10 << 20..], |_| ()).unwrap().1.unwrap();
    file.sync().unwrap();
    file.publish().unwrap();
    let before = cpu_seconds();
    thread::sleep(Duration::from_secs(seconds));
    let spent = cpu_seconds() - before;
    println!(
        "waited {seconds} s, {spent:.2} s of a processor, asked {} times",
        server.hook.n_refused()
    );
    assert!(server.hook.n_refused() < 100 + 10 * seconds, "it asks again and again");
    way.set_away(false, &server, dir);
    let since = Instant::now();
    while !behind.pending().unwrap().is_empty() {
        assert!(since.elapsed() < Duration::from_secs(120), "it is never uploaded");
        thread::sleep(Duration::from_millis(10));
    }
    assert_same(&read_all(&open(&engine, &server, None)), &content, "somebody else");
    println!("it is there");
}

#[test]
fn a_server_that_is_away_costs_one_line_and_next_to_no_time_and_gets_everything_when_it_is_back() {
    is_away_for_a_while(Way::Silent);
}

#[test]
fn a_server_whose_directory_is_unmounted_costs_no_more_and_nothing_is_made_in_its_place() {
    is_away_for_a_while(Way::Unmounted);
}

fn is_away_for_a_while(way: Way) {
    if env::var(DIR).is_ok() {
        return;
    }
    let dir = TempDir::new().unwrap();
    let test = "behind_kill::one_whose_server_is_away_for_a_while";
    let vars = [(DIR, dir.path().display().to_string()), (WAY, format!("{way:?}"))];
    let said = start(test, &vars).wait_with_output().unwrap().stdout;
    let said = String::from_utf8(said).unwrap();
    assert!(said.contains("it is there"), "{said}");
    let lines: Vec<_> = said.lines().filter(|line| line.contains("sealback::")).collect();
    let told = |what: &str| lines.iter().filter(|line| line.contains(what)).count();
    assert_eq!((told("uploads wait"), told("uploads go on")), (1, 1), "{lines:?}");
    println!("{}", said.lines().find(|line| line.starts_with("waited")).unwrap_or_default());
}

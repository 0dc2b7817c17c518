//! Many threads on a few files of one engine, whose targets fail as a seed says: nothing hangs,
//! nothing is lost, nothing is left over.
//!
//! Each thread owns every `N_THREADS`-th stretch of a file, and knows what it wrote there; blocks and
//! folios are shared by all. `SEALBACK_STRESS_SECONDS=N` goes on for so long, from seed to seed.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use fastrand::Rng;
use sealback::{Config, CreateOptions, Engine, Error, File, Place, RetryLimits};
use sealback_stream::{
    MemoryCache, MemoryOptions, MemoryServer, Name,
    faulty::{Faults, FaultyCache, FaultyServer, Rates},
};
use sealback_tests::reader::read_sealed;

use crate::support::{ROOT, config, root};

const N_FILES: usize = 3;
const N_THREADS: usize = 3;
/// Bytes of a stretch: blocks are 4096.
const STRETCH: usize = 1000;
/// Stretches of one thread in one file.
const N_STRETCHES: usize = 200;
/// No operation in any thread for so long means that they hang.
const PATIENCE: Duration = Duration::from_secs(60);

struct World {
    engine: Engine,
    server: FaultyServer<MemoryServer>,
    cache: FaultyCache<MemoryCache>,
    faults: [Faults; 2],
    /// Operations that have ended: what the watchdog looks at.
    n_done: AtomicU64,
}

fn name(file: usize) -> Name {
    Name::new(&format!("file{file}")).unwrap()
}

impl World {
    fn new(seed: u64) -> World {
        let rates = Rates {
            retry: 10,
            renegotiate: 10,
            short: 20,
            unknown: 10,
            dropped: 5,
            elsewhere: 100,
            no_credit: 20,
            ..Rates::default()
        };
        let fatal = u32::from(seed.is_multiple_of(3)) * 5;
        let faults =
            [Faults::seeded(seed, rates), Faults::seeded(seed + 1, Rates { fatal, ..rates })];
        faults.iter().for_each(Faults::stop);
        let retry =
            RetryLimits { first_delay: Duration::from_micros(50), ..RetryLimits::default() };
        let config = Config { retry, folio_bytes: 16 << 10, ..config() };
        let options = MemoryOptions::default().with_credits(4).with_boundary_blocks(16);
        let world = World {
            engine: Engine::new(config).unwrap(),
            server: FaultyServer::new(MemoryServer::new(options), &faults[0]),
            cache: FaultyCache::new(MemoryCache::new(MemoryOptions::default()), &faults[1]),
            faults,
            n_done: AtomicU64::new(0),
        };
        let root = root();
        let place = Place { server: &world.server, cache: Some(&world.cache), root: &root };
        let options = CreateOptions { block_bytes: 4096, replace: false };
        for file in 0..N_FILES {
            let file = world.engine.create(&place, &name(file), &options).unwrap();
            file.write_at(0, &vec![0; STRETCH * N_STRETCHES * N_THREADS]).unwrap();
            file.close().unwrap();
        }
        world.faults.iter().for_each(Faults::resume);
        world
    }

    fn open(&self, file: usize) -> Result<File, Error> {
        let root = root();
        let place = Place { server: &self.server, cache: Some(&self.cache), root: &root };
        self.engine.open(&place, &name(file))
    }

    fn left_over(&self) -> [usize; 5] {
        let stats = self.engine.stats();
        [
            stats.buffers - stats.buffers_free,
            stats.active_requests,
            stats.folios_out,
            self.server.credits_out() as usize,
            self.cache.credits_out() as usize,
        ]
    }
}

/// Works for a while; returns what this thread's stretches hold, file by file.
fn work(world: &World, thread: usize, seed: u64) -> Vec<Vec<u8>> {
    let mut rng = Rng::with_seed(seed * 100 + thread as u64);
    let mut model = vec![vec![0; N_STRETCHES]; N_FILES];
    let open = |file| (0..100).find_map(|_| world.open(file).ok()).expect("it opens some day");
    let mut files: Vec<File> = (0..N_FILES).map(open).collect();
    for _ in 0..400 {
        let which = rng.usize(..N_FILES);
        let stretch = rng.usize(..N_STRETCHES);
        let at = ((stretch * N_THREADS + thread) * STRETCH) as u64;
        let file = &files[which];
        match rng.u32(..100) {
            0..60 => {
                let byte = rng.u8(..);
                file.write_at(at, &[byte; STRETCH]).unwrap();
                model[which][stretch] = byte;
            }
            60..85 => {
                let mut bytes = [0; STRETCH];
                file.read_at(at, &mut bytes).unwrap();
                let expected = model[which][stretch];
                assert!(bytes.iter().all(|byte| *byte == expected), "thread {thread} at {at}");
            }
            // What went wrong is told here; what is dirty stays so.
            85..92 => drop(file.sync()),
            92..96 => {
                let writeback = file.writeback();
                writeback.cancel();
                drop(writeback.wait());
            }
            96..98 => drop(file.writeback()),
            // Another handle keeps what is dirty; the header may be out of luck.
            _ => {
                if let Ok(again) = world.open(which) {
                    files[which] = again;
                }
            }
        }
        world.n_done.fetch_add(1, Ordering::Relaxed);
    }
    // What is dirty is on the server before the threads end.
    for file in &files {
        while file.sync().is_err() {}
    }
    model
}

fn run(seed: u64) {
    let world = Arc::new(World::new(seed));
    let (sender, ended) = mpsc::channel();
    for thread in 0..N_THREADS {
        let (world, sender) = (world.clone(), sender.clone());
        thread::spawn(move || {
            let model = work(&world, thread, seed);
            drop(world);
            sender.send((thread, model))
        });
    }
    drop(sender);
    let (mut models, mut n_done) = (vec![Vec::new(); N_THREADS], 0);
    while models.iter().any(Vec::is_empty) {
        match ended.recv_timeout(PATIENCE) {
            Ok((thread, model)) => models[thread] = model,
            Err(mpsc::RecvTimeoutError::Disconnected) => panic!("seed {seed}: a thread panicked"),
            Err(mpsc::RecvTimeoutError::Timeout) => {
                let done = world.n_done.load(Ordering::Relaxed);
                let left = world.left_over();
                let dump = world.engine.dump();
                assert_ne!(
                    done, n_done,
                    "seed {seed}: nothing goes on; left over: {left:?}\n{dump}"
                );
                n_done = done;
            }
        }
    }
    world.faults.iter().for_each(Faults::stop);
    for file in 0..N_FILES {
        world.open(file).unwrap().close().unwrap();
        let stored = read_sealed(&world.server.stored(&name(file)).unwrap(), &ROOT).unwrap();
        for (index, stretch) in stored.plaintext.chunks(STRETCH).enumerate() {
            let model = &models[index % N_THREADS];
            let differs = stretch.iter().any(|byte| *byte != model[file][index / N_THREADS]);
            assert!(!differs, "seed {seed}: stretch {index} of file {file}");
        }
    }
    for _ in 0..2000 {
        if world.left_over() == [0; 5] {
            return;
        }
        thread::sleep(Duration::from_millis(5));
    }
    panic!("seed {seed}: left over: {:?}\n{}", world.left_over(), world.engine.dump());
}

#[test]
fn many_threads_on_files_whose_targets_fail_hang_lose_and_leave_nothing() {
    let seconds = std::env::var("SEALBACK_STRESS_SECONDS").map_or(0, |n| n.parse().unwrap());
    let (started, at_least) = (Instant::now(), Duration::from_secs(seconds));
    let mut seed = 0;
    while seed < 6 || started.elapsed() < at_least {
        run(seed);
        seed += 1;
    }
    println!("{seed} seeds");
}

//! Vectored writes: what lies apart within one boundary goes to a target that grants gaps in one write.

use std::ops::Range;

use sealback::{Engine, File, RetryLimits};
use sealback_stream::{
    MemoryCache, MemoryOptions, MemoryServer, Runs,
    faulty::{Fault, Faults, FaultyCache, FaultyServer, Operation, Rates, Rule, When},
};
use sealback_tests::{
    counter::{CountedServer, Counter},
    reader::read_sealed,
};

use crate::support::{ROOT, config, create, name, open, read_all, sample};

const BLOCK: usize = 4096;
const STRIDE: u64 = 4096 + 48;
const N_BLOCKS: usize = 32;
/// Blocks of one object.
const OBJECT: u64 = 16;

type Server = CountedServer<FaultyServer<MemoryServer>>;

fn objects() -> MemoryOptions {
    MemoryOptions::default().with_boundary_blocks(OBJECT).with_gaps()
}

/// A server of objects, with a file that was closed and opened again.
fn cold(faults: &Faults) -> (Server, Engine, File, Vec<u8>) {
    let server = FaultyServer::new(MemoryServer::new(objects()), faults);
    let server = CountedServer::new(server, Counter::default());
    let data = sample(N_BLOCKS * BLOCK);
    let engine = Engine::new(config()).unwrap();
    let file = create(&engine, &server, None, BLOCK as u64);
    file.write_at(0, &data).unwrap();
    file.close().unwrap();
    let file = open(&engine, &server, None);
    server.hook.take_written();
    (server, engine, file, data)
}

fn stored(server: &Server) -> Vec<u8> {
    read_sealed(&server.stored(&name()).unwrap(), &ROOT).unwrap().plaintext
}

fn list(runs: &Runs) -> Vec<Range<u64>> {
    runs.iter().cloned().collect()
}

/// Changes of these blocks, in part each.
fn change(file: &File, data: &mut [u8], blocks: &[usize]) {
    for block in blocks {
        let at = block * BLOCK + 100;
        file.write_at(at as u64, b"changed").unwrap();
        data[at..at + 7].copy_from_slice(b"changed");
    }
}

#[test]
fn what_changed_of_an_object_goes_there_in_one_write_and_none_goes_over_its_boundary() {
    let (server, _engine, file, mut data) = cold(&Faults::none());
    // Else a stream with nothing to do goes on with what is there, while the rest is being fetched.
    assert!(read_all(&file) == data);
    change(&file, &mut data, &[1, 5, 6, 12, 15, 16, 30]);
    file.sync().unwrap();
    let written: Vec<_> = server.hook.take_written().iter().map(list).collect();
    assert_eq!(written, [vec![1..2, 5..7, 12..13, 15..16], vec![16..17, 30..31]]);
    assert!(stored(&server) == data);
}

#[test]
fn of_a_vectored_write_that_conflicts_or_is_short_exactly_what_is_left_of_its_list_goes_again() {
    // The second write of the changes tells of two blocks and a part of the third.
    let short = Rule {
        operation: Operation::Write,
        when: When::Once(2 + 1 + 2),
        fault: Fault::Short(2 * STRIDE + 5),
    };
    let (server, _engine, file, mut data) = cold(&Faults::scripted([short]));
    assert!(read_all(&file) == data);
    change(&file, &mut data, &[1, 5, 9]);
    // Somebody else changes other bytes of the block in the middle.
    let others = Engine::new(config()).unwrap();
    let theirs = open(&others, &server, None);
    theirs.write_at(5 * BLOCK as u64, b"theirs").unwrap();
    theirs.sync().unwrap();
    data[5 * BLOCK..5 * BLOCK + 6].copy_from_slice(b"theirs");
    assert!(matches!(&server.hook.take_written()[..], [one] if *one == (5..6)));
    file.sync().unwrap();
    let written: Vec<_> = server.hook.take_written().iter().map(list).collect();
    let all = vec![1..2, 5..6, 9..10];
    assert_eq!(written, [all.clone(), all.clone(), all[2..].to_vec()]);
    assert!(stored(&server) == data && read_all(&file) == data);
}

#[test]
fn whatever_fails_where_gaps_are_granted_at_random_nothing_is_lost_and_the_cache_is_the_servers() {
    for seed in 0..30 {
        let rates = Rates {
            retry: 60,
            renegotiate: 30,
            short: 150,
            unknown: 60,
            elsewhere: 200,
            gaps: 400,
            ..Rates::default()
        };
        let faults = Faults::seeded(seed, rates);
        let caches = Faults::seeded(seed, Rates { gaps: 500, elsewhere: 200, ..Rates::default() });
        faults.stop();
        let bounded = MemoryOptions::default().with_boundary_blocks(OBJECT).with_credits(4);
        let server = FaultyServer::new(MemoryServer::new(bounded), &faults);
        let copies = MemoryOptions::default().with_max_write_bytes(5 * STRIDE);
        let cache = FaultyCache::new(MemoryCache::new(copies), &caches);
        let retry = RetryLimits {
            max_attempts: 30,
            first_delay: std::time::Duration::from_micros(50),
            ..RetryLimits::default()
        };
        let engine = Engine::new(sealback::Config { retry, ..config() }).unwrap();
        let mut data = sample(N_BLOCKS * BLOCK);
        let file = create(&engine, &server, Some(&cache), BLOCK as u64);
        file.write_at(0, &data).unwrap();
        file.sync().unwrap();
        faults.resume();
        let mut rng = fastrand::Rng::with_seed(seed);
        for _pass in 0..4 {
            let blocks: Vec<_> = (0..N_BLOCKS).filter(|_| rng.u32(..3) == 0).collect();
            change(&file, &mut data, &blocks);
            for block in blocks.iter().filter(|_| rng.bool()) {
                file.write_at((block * BLOCK) as u64, &sample(BLOCK)).unwrap();
                data[block * BLOCK..][..BLOCK].copy_from_slice(&sample(BLOCK));
            }
            // A barrier that fails is not asked again: the next sync is.
            let synced = (0..20).any(|_| file.sync().is_ok());
            assert!(synced, "seed {seed}");
            let stored = read_sealed(&server.stored(&name()).unwrap(), &ROOT).unwrap();
            assert!(stored.plaintext == data, "seed {seed}: the server has something else");
        }
        faults.stop();
        let mut differing = Vec::new();
        file.verify_cache(|block, report| {
            differing.extend((report == sealback::CacheReport::Differs).then_some(block));
        })
        .unwrap();
        assert!(differing.is_empty(), "seed {seed}");
        assert!(faults.injected(Operation::Prepare) > 0, "seed {seed}: no gaps were granted");
    }
}

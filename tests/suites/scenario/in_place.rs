//! Changes in place: who sees what while they happen, and what they leave behind.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use sealback::{CacheReport, Config, Engine, File};
use sealback_stream::{
    LocalOptions, LocalServer, MemoryCache, MemoryOptions, MemoryServer,
    faulty::{Fault, Faults, FaultyServer, Operation, Rule, When},
};
use sealback_tests::{
    auditor::Auditor,
    crash::Crash,
    gate::{Gate, GateServer},
    interpose::{InterposedCache, InterposedServer},
};

use crate::support::{all_of, assert_same, config, create, engine, memory, open, read_all, sample};

/// Set by `SEALBACK_OVERWRITES`.
fn n_overwrites() -> u64 {
    let asked = std::env::var("SEALBACK_OVERWRITES").ok();
    asked.and_then(|asked| asked.parse().ok()).unwrap_or(10_000)
}

#[test]
fn readers_of_blocks_that_are_overwritten_see_whole_blocks_and_no_damage() {
    const BLOCK: usize = 4096;
    const N_BLOCKS: usize = 16;
    let dir = tempfile::tempdir().unwrap();
    let server = LocalServer::open(dir.path(), LocalOptions::default()).unwrap();
    let audited = InterposedServer::new(server.clone(), Auditor);
    let writer = Engine::new(config()).unwrap();
    let file = create(&writer, &audited, None, BLOCK as u64);
    file.write_at(0, &vec![0; BLOCK * N_BLOCKS]).unwrap();
    file.sync().unwrap();
    let (done, n_reads) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let small = Config { threads: 1, readahead_bytes: 0, ..config() };
                let reader = open(&Engine::new(small).unwrap(), &server, None);
                let mut bytes = vec![0; BLOCK * N_BLOCKS];
                while !done.load(Ordering::SeqCst) {
                    assert_eq!(reader.read_at(0, &mut bytes).unwrap(), bytes.len());
                    for block in bytes.chunks(BLOCK) {
                        assert!(block.iter().all(|byte| *byte == block[0]), "torn plaintext");
                    }
                    n_reads.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        let mut rng = fastrand::Rng::with_seed(1);
        for round in 0..n_overwrites() {
            let block = vec![rng.u8(..); BLOCK];
            file.write_at((rng.usize(..N_BLOCKS) * BLOCK) as u64, &block).unwrap();
            match round % 16 {
                0 => file.sync().unwrap(),
                4 | 8 | 12 => drop(file.writeback().wait().unwrap()),
                _ => {}
            }
        }
        done.store(true, Ordering::SeqCst);
    });
    println!("{} overwrites beside {} reads", n_overwrites(), n_reads.into_inner());
}

#[test]
fn a_cache_that_failed_claims_nothing_when_the_next_client_finds_it() {
    let engine = engine();
    let server = memory();
    let copies = MemoryCache::new(MemoryOptions::default());
    let cache = InterposedCache::new(copies.clone(), Crash::after(u32::MAX, false));
    let file = create(&engine, &server, Some(&cache), 4096);
    file.write_at(0, &sample(40_000)).unwrap();
    file.sync().unwrap();
    cache.hook.now();
    file.write_at(0, &[1; 4096]).unwrap();
    file.writeback().wait().unwrap();
    // Overwritten without the cache, and never committed.
    file.write_at(8192, &[2; 4096]).unwrap();
    file.writeback().wait().unwrap();
    drop(file);
    let file = open(&self::engine(), &server, Some(&copies));
    let mut found = [0; 3];
    assert!(file.verify_cache(|_, report| found[report as usize] += 1).unwrap());
    assert_eq!(found[CacheReport::Differs as usize], 0, "{found:?}");
    let mut block = [0; 4096];
    file.read_at(8192, &mut block).unwrap();
    assert_eq!(block, [2; 4096], "what the server has");
}

/// A file of four blocks whose writeback waits at a gate.
fn under_writeback() -> (Gate, GateServer<MemoryServer>, File) {
    let gate = Gate::default();
    let server = GateServer::new(MemoryServer::new(MemoryOptions::default()), gate.clone());
    let file = create(&engine(), &server, None, 4096);
    file.write_at(0, &[1; 4 * 4096]).unwrap();
    drop(file.writeback());
    gate.wait_for(1);
    (gate, server, file)
}

#[test]
fn a_cut_into_a_block_that_is_being_written_comes_after_it_and_tears_nothing() {
    let (gate, server, file) = under_writeback();
    let cutting = file.submit(|file| file.set_len(4096 + 100));
    thread::sleep(Duration::from_millis(20));
    assert!(!cutting.is_done(), "what is on its way would come after the cut");
    gate.open();
    cutting.wait().unwrap();
    assert_eq!(file.size(), 4096 + 100);
    file.set_len(3 * 4096).unwrap();
    file.sync().unwrap();
    let mut expected = vec![1; 4096 + 100];
    expected.resize(3 * 4096, 0);
    assert!(read_all(&file) == expected);
    assert!(read_all(&open(&engine(), &server, None)) == expected);
}

#[test]
fn a_file_grows_over_a_hole_while_a_writeback_runs_and_nothing_waits() {
    let (gate, server, file) = under_writeback();
    file.set_len(20 * 4096).unwrap();
    file.write_at(30 * 4096, &[2; 10]).unwrap();
    let mut expected = vec![1; 4 * 4096];
    expected.resize(30 * 4096, 0);
    expected.extend([2; 10]);
    assert_eq!(file.size(), expected.len() as u64);
    let mut read = vec![9; 26 * 4096 + 10];
    assert_eq!(file.read_at(4 * 4096, &mut read).unwrap(), read.len());
    assert!(read == expected[4 * 4096..]);
    gate.open();
    file.sync().unwrap();
    assert!(read_all(&open(&engine(), &server, None)) == expected);
}

#[test]
fn a_block_that_a_short_read_leaves_out_is_punched_and_read_all_the_same() {
    const BLOCK: u64 = 4096;
    for short in [0, 1, 5000, 9000] {
        let rule =
            Rule { operation: Operation::Read, when: When::From(1), fault: Fault::Short(short) };
        let faults = Faults::scripted([rule]);
        faults.stop();
        let server = memory();
        let file = create(&engine(), &FaultyServer::new(server.clone(), &faults), None, BLOCK);
        let mut expected = sample(7 * 4096 + 10);
        file.write_at(0, &expected).unwrap();
        file.sync().unwrap();
        file.revalidate().unwrap();
        faults.resume();
        file.punch(BLOCK..6 * BLOCK).unwrap();
        expected[4096..6 * 4096].fill(0);
        file.revalidate().unwrap();
        assert_same(&read_all(&file), &expected, "through short reads");
        faults.stop();
        assert_same(&all_of(&server), &expected, "a client who opens it now");
    }
}

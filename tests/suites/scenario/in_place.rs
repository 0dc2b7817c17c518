//! Changes in place: who sees what while they happen, and what they leave behind.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use sealback::{CacheReport, Config, Engine};
use sealback_stream::{LocalOptions, LocalServer, MemoryCache, MemoryOptions};
use sealback_tests::{
    auditor::Auditor,
    crash::Crash,
    interpose::{InterposedCache, InterposedServer},
};

use crate::support::{config, create, engine, memory, open, sample};

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
    std::thread::scope(|scope| {
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

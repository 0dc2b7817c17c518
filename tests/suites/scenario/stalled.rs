//! The stalled queue is real: subrequests are prepared beside the crypto, and wait for it.

use std::{sync::Arc, time::Duration};

use sealback::{Config, Engine, trace::TraceEvent};
use sealback_crypto::Engine as Cipher;
use sealback_stream::{MemoryCache, MemoryOptions};
use sealback_tests::{
    gate::{Gate, GateServer},
    recorder::Recorder,
};

use crate::{
    bench::{BLOCK, Bench, STRIDE, Setup},
    support::{config, create, memory, memory_with, sample},
};

/// Sixteen folios of four blocks, each a span; the upload is granted 6 blocks, the cache 3.
fn bench(window: usize) -> Bench {
    Bench::new(Setup { granted: [6, 3], windows: [window; 2], ..Setup::new(N_FOLIOS, 4) })
}

const N_FOLIOS: u64 = 16;

#[test]
fn subrequests_are_granted_and_stalled_in_both_queues_before_any_block_is_sealed() {
    let bench = bench(4);
    assert_eq!(bench.to_seal.len(), 16, "nothing has been sealed");
    assert!(bench.issued.is_empty(), "nothing is issued");
    let [upload, cache] = bench.request.streams() else { panic!("two streams") };
    // 64 blocks: 10 × 6 and one of 4; 21 × 3 and one of 1.
    assert_eq!((upload.stalled(), cache.stalled()), (11, 22));
    let granted = |stream| bench.source.grants.iter().filter(|(of, _)| *of == stream).count();
    assert_eq!((granted(0), granted(1)), (11, 22), "each has a grant of its own");
}

#[test]
fn no_more_is_sealed_while_a_stream_has_enough_that_waits_to_be_issued() {
    let setup = Setup { granted: [4, 2], max_stalled: 4, windows: [1, 64], ..Setup::new(16, 4) };
    let mut bench = Bench::new(setup);
    // Two folios make two subrequests of the upload, and four of the cache.
    assert_eq!(bench.to_seal.len(), 2);
    // Those of the cache leave at once; of the upload the window holds one back, and more.
    for folios_sealed in 1..=5 {
        bench.seal(0);
        let [upload, cache] = bench.request.streams() else { panic!("two streams") };
        assert!(upload.stalled() <= 4 && cache.stalled() <= 4, "after {folios_sealed} folios");
    }
    assert!(bench.to_seal.is_empty(), "the upload has enough");
    while bench.result.is_none() {
        while !bench.writes.is_empty() {
            bench.pass(0);
        }
        while !bench.to_seal.is_empty() {
            bench.seal(0);
        }
    }
    bench.ended().unwrap();
}

#[test]
fn sealing_completed_in_reverse_order_still_issues_in_ascending_order() {
    let mut bench = bench(64);
    for index in (1..16).rev() {
        bench.seal(index);
        assert!(bench.issued.is_empty(), "the heads are not sealed yet");
    }
    bench.seal(0);
    for stream in 0..2 {
        let starts: Vec<_> = bench.issued.iter().filter(|issued| issued.0 == stream).collect();
        assert!(starts.windows(2).all(|pair| pair[0].1.end == pair[1].1.start), "{starts:?}");
        assert_eq!(starts.last().unwrap().1.end, 64);
    }
}

#[test]
fn the_head_alone_leaves_its_queue_as_soon_as_all_its_blocks_are_sealed() {
    let mut bench = bench(64);
    bench.seal(0);
    assert_eq!(bench.issued, [(1, 0..3)], "the upload's head ends in the second span");
    bench.seal(0);
    assert_eq!(bench.issued[1..], [(0, 0..6), (1, 3..6)]);
}

#[test]
fn folios_are_released_in_ascending_order_long_before_the_request_ends() {
    let mut bench = bench(2);
    let mut to_seal_at_first_release = None;
    while bench.result.is_none() {
        bench.seal(0);
        // The latest answer first, as far as the windows allow.
        while !bench.writes.is_empty() {
            bench.pass(bench.writes.len() - 1);
        }
        if !bench.released.is_empty() && to_seal_at_first_release.is_none() {
            to_seal_at_first_release = Some(bench.to_seal.len());
        }
    }
    assert!(to_seal_at_first_release.unwrap() > 0, "spans were still to be sealed");
    bench.ended().unwrap();
}

#[test]
fn the_next_subrequest_is_under_construction_while_earlier_ones_are_in_flight() {
    let server = GateServer::new(
        memory_with(MemoryOptions::default().with_max_write_bytes(20 * STRIDE)),
        Gate::default(),
    );
    let engine = Engine::new(config()).unwrap();
    let file = create(&engine, &server, None, BLOCK);
    let recorder = Arc::new(Recorder::default());
    file.write_at(0, &sample(1_000_000)).unwrap();
    let writeback = file.writeback_observed(Some(recorder.clone()));
    server.hook.wait_for(2);
    let in_flight = server.hook.waiting();
    let prepared = recorder.events().iter().any(|event| {
        matches!(event, TraceEvent::Prepared { blocks, .. }
            if in_flight.iter().all(|range| range.end <= blocks.start()))
    });
    assert!(prepared, "a later subrequest is prepared while {in_flight:?} are in flight");
    server.hook.open();
    writeback.wait().unwrap();
}

#[test]
fn writeback_returns_before_the_first_termination() {
    let server = GateServer::new(memory(), Gate::default());
    let engine = Engine::new(config()).unwrap();
    let file = create(&engine, &server, None, BLOCK);
    file.write_at(0, &sample(1 << 20)).unwrap();
    let writeback = file.writeback();
    assert!(!writeback.is_done());
    assert_eq!(writeback.acknowledged_bytes(), 0);
    server.hook.wait_for(1);
    assert!(!writeback.is_done(), "its first write is still at the gate");
    server.hook.open();
    assert!(writeback.wait().unwrap().streams[0].bytes > 1 << 20);
}

#[test]
fn with_a_slow_cipher_both_streams_stall_and_say_so() {
    let options = MemoryOptions::default().with_max_write_bytes(100 << 10);
    let server = memory_with(options);
    let cache = MemoryCache::new(options.with_max_write_bytes(40 << 10));
    let cipher = Cipher::Slowed { times: 10 };
    let engine = Engine::new(Config { cipher, threads: 1, ..config() }).unwrap();
    let file = create(&engine, &server, Some(&cache), BLOCK);
    file.write_at(0, &sample(1 << 20)).unwrap();
    let recorder = Arc::new(Recorder::default());
    let stats = file.writeback_observed(Some(recorder.clone())).wait().unwrap();
    let first_sealed = recorder.position(|event| matches!(event, TraceEvent::Sealed { .. }));
    for stream in 0..2 {
        let prepared = recorder.position(
            |event| matches!(event, TraceEvent::Prepared { stream: of, .. } if *of == stream),
        );
        assert!(prepared < first_sealed, "stream {stream} prepares before anything is sealed");
        assert!(stats.streams[stream].stalls > 0, "{stats:?}");
        assert!(stats.streams[stream].stall_time > Duration::ZERO, "{stats:?}");
    }
    assert!(stats.streams[1].subrequests > stats.streams[0].subrequests, "{stats:?}");
}

#[test]
fn a_folio_can_be_written_again_while_its_sealed_bytes_are_in_flight() {
    let server = GateServer::new(memory(), Gate::default());
    let engine = Engine::new(config()).unwrap();
    let file = create(&engine, &server, None, BLOCK);
    file.write_at(0, &[1; 8192]).unwrap();
    let writeback = file.writeback();
    server.hook.wait_for(1);
    file.write_at(0, &[2; 4096]).unwrap();
    assert_eq!(file.dirty_bytes(), 4096, "what is dirtied meanwhile is for the next pass");
    server.hook.open();
    writeback.wait().unwrap();
    file.sync().unwrap();
    let mut read = [0; 8192];
    file.read_at(0, &mut read).unwrap();
    assert!(read[..4096].iter().all(|byte| *byte == 2) && read[4096..].iter().all(|b| *b == 1));
}

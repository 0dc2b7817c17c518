//! What was done, waited for and tried again is counted, each thing where it belongs.

use std::{sync::Arc, time::Duration};

use sealback::{Cause, Config, Engine, EngineStats, Retries, RetryLimits, StreamStats};
use sealback_stream::{
    BlockConflict, Failure, MemoryCache, MemoryOptions, MemoryServer, TargetError, TargetErrorKind,
    faulty::{Fault, Faults, FaultyCache, FaultyServer, Operation, Rule, When},
};
use sealback_tests::gate::{Gate, GateServer};

use crate::support::{config, create, memory, n_folios, sample};

const BLOCK: u64 = 4096;

fn quick() -> Config {
    let retry = RetryLimits { first_delay: Duration::from_micros(50), ..RetryLimits::default() };
    Config { retry, ..config() }
}

/// Writes and syncs a file of ten blocks, one a subrequest, with faults in the server and the cache.
fn sync_with(server: &Faults, cache: &Faults) -> EngineStats {
    let engine = Engine::new(quick()).unwrap();
    let options = MemoryOptions::default().with_boundary_blocks(1).with_credits(3);
    let server = FaultyServer::new(MemoryServer::new(options), server);
    let cache = FaultyCache::new(MemoryCache::new(options), cache);
    let file = create(&engine, &server, Some(&cache), BLOCK);
    file.write_at(0, &sample(10 * 4096)).unwrap();
    // It may be told of a conflict, or of what is fatal.
    let _ = file.sync();
    engine.stats()
}

fn rule(operation: Operation, fault: Fault) -> Faults {
    Faults::scripted([Rule { operation, when: When::Once(3), fault }])
}

fn error(kind: TargetErrorKind) -> TargetError {
    TargetError::new(kind, "injected")
}

#[test]
fn a_retry_is_counted_once_and_by_its_cause_whatever_a_target_does() {
    let io = || error(TargetErrorKind::Io);
    let timed_out = Fault::Unknown(TargetErrorKind::TimedOut);
    let table: [(Fault, Option<Cause>); 13] = [
        (Fault::Delay(Duration::from_millis(1)), None),
        (Fault::Drop, Some(Cause::Dropped)),
        (Fault::Elsewhere, None),
        (Fault::Fail(Failure::Retry(io())), Some(Cause::Transient)),
        (Fault::Fail(Failure::Retry(error(TargetErrorKind::TimedOut))), Some(Cause::TimedOut)),
        (Fault::Fail(Failure::Renegotiate(io())), Some(Cause::Renegotiated)),
        (Fault::Meddle, None),
        (Fault::Panic, Some(Cause::Dropped)),
        (Fault::Reorder, None),
        (Fault::Short(0), Some(Cause::Short)),
        (Fault::Short(5), Some(Cause::Short)),
        (Fault::Unknown(TargetErrorKind::Io), Some(Cause::Transient)),
        (timed_out, Some(Cause::TimedOut)),
    ];
    for (fault, cause) in table {
        let what = format!("{fault:?}");
        let stats = sync_with(&rule(Operation::Write, fault), &Faults::none());
        let mut expected = Retries::default();
        cause.iter().for_each(|cause| expected.count(*cause));
        let upload = &stats.requests.streams[0];
        assert_eq!(upload.retries, expected, "{what}");
        assert_eq!(stats.requests.pauses, expected.total(), "{what}: each retry is a pause");
        assert_eq!(stats.requests.pause_time > Duration::ZERO, cause.is_some(), "{what}");
        assert_eq!(upload.latency.count(), 10 + expected.total(), "{what}: each answer is timed");
    }
    let fatal = rule(Operation::Write, Fault::Fail(Failure::Fatal(io())));
    let stats = sync_with(&fatal, &Faults::none()).requests;
    assert_eq!((stats.streams[0].retries, stats.pauses), (Retries::default(), 0));
}

#[test]
fn a_conflict_is_counted_as_one() {
    // The block is changed in part, so that it is sent with an expectation.
    let engine = Engine::new(quick()).unwrap();
    let conflict = || Failure::Conflict(vec![BlockConflict { block: 0, stored: None }]);
    let rule =
        Rule { operation: Operation::Write, when: When::Once(2), fault: Fault::Fail(conflict()) };
    let server =
        FaultyServer::new(MemoryServer::new(MemoryOptions::default()), &Faults::scripted([rule]));
    let file = create(&engine, &server, None, BLOCK);
    file.write_at(0, &sample(4096)).unwrap();
    file.sync().unwrap();
    file.write_at(7, b"changed").unwrap();
    file.sync().unwrap();
    let stats = engine.stats().requests;
    let one = Retries { conflict: 1, ..Retries::default() };
    assert_eq!((stats.streams[0].retries, stats.conflicts, stats.merges), (one, 1, 1));
    assert_eq!(stats.pauses, 1);
}

#[test]
fn refused_grants_and_streams_that_are_switched_off_are_counted() {
    let none = || Faults::none();
    let upload = |stats: EngineStats| stats.requests.streams[0].clone();
    let cache = |stats: EngineStats| stats.requests.streams[1].clone();
    let refused = sync_with(&rule(Operation::Prepare, Fault::NoCredit), &none());
    let StreamStats { refused_grants, retries, switched_off, .. } = upload(refused);
    assert!(refused_grants > 0);
    assert_eq!((retries, switched_off), (Retries::default(), 0));
    let full = Fault::Fail(Failure::Fatal(error(TargetErrorKind::NoSpace)));
    let off = sync_with(&none(), &rule(Operation::Write, full));
    assert_eq!(upload(off.clone()).switched_off, 0);
    let StreamStats { retries, switched_off, .. } = cache(off);
    assert_eq!((retries, switched_off), (Retries::default(), 1));
}

#[test]
fn what_is_tried_again_of_headers_is_counted_apart() {
    // A new file's first sync commits two.
    let fault = Fault::Unknown(TargetErrorKind::TimedOut);
    let last = Rule { operation: Operation::Header, when: When::Once(2), fault };
    let stats = sync_with(&Faults::scripted([last]), &Faults::none());
    assert_eq!(stats.control_retries, Retries { timed_out: 1, ..Retries::default() });
    assert_eq!(stats.requests.streams[0].retries, Retries::default());
}

#[test]
fn each_request_sync_and_barrier_is_timed() {
    let (engine, server) = (Engine::new(quick()).unwrap(), memory());
    let file = create(&engine, &server, None, BLOCK);
    for round in 1..=3 {
        file.write_at(0, &sample(4096 * round)).unwrap();
        file.sync().unwrap();
    }
    let stats = engine.stats();
    assert_eq!((stats.sync_latency.count(), stats.request_latency.count()), (3, 3));
    assert!(stats.barrier_latency.count() >= 3, "each commit has barriers");
    assert!(stats.sync_latency.sum() >= stats.barrier_latency.sum());
    assert!(stats.folios_high_water >= 1 && stats.buffers_high_water >= 1);
}

#[test]
fn a_sync_commits_one_header_and_the_first_of_a_new_file_two() {
    let (engine, server) = (Engine::new(quick()).unwrap(), memory());
    let file = create(&engine, &server, None, BLOCK);
    for (len, generation) in [(4096, 3), (9000, 4), (9000, 5), (20_000, 6)] {
        file.write_at(0, &sample(len)).unwrap();
        file.sync().unwrap();
        assert_eq!(file.info().generation, generation, "{len} bytes");
    }
    file.set_len(100_000).unwrap();
    file.sync().unwrap();
    assert_eq!((file.info().generation, file.info().size), (7, 100_000));
    file.sync().unwrap();
    assert_eq!(file.info().generation, 8, "with nothing to write, too");
}

#[test]
fn an_issuer_without_a_buffer_and_a_writer_without_memory_are_timed() {
    let server = GateServer::new(memory(), Gate::default());
    // One subrequest in flight holds up all: the buffers run out, then the folios.
    let config = Config { upload_window: 1, dirty_expire: Duration::MAX, ..config() };
    let engine = Engine::new(config.clone()).unwrap();
    let file = Arc::new(create(&engine, &server, None, BLOCK));
    let writer = file.clone();
    let writing = std::thread::spawn(move || writer.write_at(0, &sample(12 << 20)));
    server.hook.wait_for(1);
    let limit = n_folios(&config) * usize::from(config.dirty_limit_percent) / 100;
    while engine.stats().folios_out < engine.stats().folios_high_water.max(limit) {
        std::thread::yield_now();
    }
    server.hook.open();
    writing.join().unwrap().unwrap();
    file.sync().unwrap();
    let stats = engine.stats();
    assert!(stats.memory_waits > 0 && stats.memory_wait_time > Duration::ZERO, "{stats}");
    assert!(stats.requests.buffer_waits > 0, "{stats}");
    assert!(stats.requests.buffer_wait_time > Duration::ZERO, "{stats}");
}

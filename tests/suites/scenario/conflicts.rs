//! Two clients of one file: what one changes, the other keeps.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use sealback::{
    CacheReport, Config, Engine, Error, File, Resolution,
    trace::{Observer, TraceEvent},
};
use sealback_stream::{
    BlockConflict, Cache, Failure, LocalCache, LocalOptions, LocalServer, MemoryCache,
    MemoryOptions, Server, TargetError, TargetErrorKind,
    faulty::{Fault, Faults, FaultyServer, Operation, Rule, When},
};
use sealback_tests::reader::read_sealed;

use crate::support::{ROOT, audited, config, create, engine, memory, name, open, read_all, sample};

#[test]
fn what_two_clients_change_in_one_block_is_all_there() {
    let server = memory();
    let (first, second) = (engine(), engine());
    let file = create(&first, &server, None, 4096);
    file.write_at(0, &[b'.'; 4096]).unwrap();
    file.sync().unwrap();
    let other = open(&second, &server, None);
    file.write_at(100, b"first").unwrap();
    other.write_at(0, b"second").unwrap();
    other.sync().unwrap();
    let stats = file.writeback().wait().unwrap();
    assert_eq!((stats.conflicts, stats.merges), (1, 1));
    file.sync().unwrap();
    let read = read_sealed(&server.stored(&name()).unwrap(), &ROOT).unwrap();
    assert_eq!(&read.plaintext[..6], b"second");
    assert_eq!(&read.plaintext[100..105], b"first");
    let mut seen = [0; 6];
    file.read_at(0, &mut seen).unwrap();
    assert_eq!(&seen, b"second", "what is clean here became what is stored");
}

/// Has another client change the block whenever a request waits before it sends again, and once when
/// it does so.
struct Interferer {
    other: File,
    has_met_the_second: AtomicBool,
}

impl Observer for Interferer {
    fn event(&self, _at: Duration, _request: u64, event: &TraceEvent) {
        let again = match event {
            TraceEvent::Reissued { .. } => !self.has_met_the_second.swap(true, Ordering::SeqCst),
            TraceEvent::BackingOff { .. } => true,
            _ => false,
        };
        if again {
            self.other.write_at(0, b"other").unwrap();
            self.other.sync().unwrap();
        }
    }
}

#[test]
fn what_others_change_while_a_request_waits_is_no_further_conflict() {
    let server = memory();
    let engine = engine();
    let file = create(&engine, &server, None, 4096);
    file.write_at(0, &[b'.'; 4096]).unwrap();
    file.sync().unwrap();
    let other = open(&crate::support::engine(), &server, None);
    other.write_at(0, b"first").unwrap();
    other.sync().unwrap();
    engine.observe(Some(Arc::new(Interferer { other, has_met_the_second: false.into() })));
    file.write_at(100, b"mine").unwrap();
    let stats = file.writeback().wait().unwrap();
    engine.observe(None);
    assert_eq!((stats.conflicts, stats.merges), (2, 2));
    file.sync().unwrap();
    let read = read_sealed(&server.stored(&name()).unwrap(), &ROOT).unwrap();
    assert_eq!((&read.plaintext[..5], &read.plaintext[100..104]), (&b"other"[..], &b"mine"[..]));
}

#[test]
fn clients_that_append_to_the_same_block_damage_nothing() {
    let server = memory();
    let file = create(&engine(), &server, None, 4096);
    let other = open(&engine(), &server, None);
    file.write_at(0, &[1; 100]).unwrap();
    other.write_at(0, &[2; 50]).unwrap();
    file.sync().unwrap();
    other.sync().unwrap();
    let mut expected = vec![1; 100];
    expected[..50].fill(2);
    assert_eq!(read_all(&open(&engine(), &server, None)), expected);
}

#[test]
fn after_a_merge_the_cache_has_the_servers_bytes() {
    let server = memory();
    let cache = MemoryCache::new(MemoryOptions::default());
    // One block in each write, so that the cache has its own before the upload meets the conflict.
    let small = Config { span_bytes: 4096, upload_window: 1, ..config() };
    let file = create(&Engine::new(small).unwrap(), &server, Some(&cache), 4096);
    file.write_at(0, &sample(8 * 4096)).unwrap();
    file.sync().unwrap();
    let other = open(&engine(), &server, None);
    for block in [2, 5, 7] {
        other.write_at(block * 4096 + 10, b"other").unwrap();
    }
    other.sync().unwrap();
    for block in 0..8 {
        file.write_at(block * 4096, b"mine").unwrap();
    }
    let stats = file.writeback().wait().unwrap();
    assert_eq!(stats.merges, 3);
    let mut reports = Vec::new();
    assert!(file.verify_cache(|_, report| reports.push(report)).unwrap());
    assert_eq!(reports, [CacheReport::Same; 8]);
}

#[test]
fn a_merged_block_that_is_kept_out_of_the_cache_stays_out_of_it() {
    let server = memory();
    let cache = MemoryCache::new(MemoryOptions::default());
    let file = create(&engine(), &server, Some(&cache), 4096);
    file.bypass_cache(4096..2 * 4096);
    file.write_at(0, &sample(3 * 4096)).unwrap();
    file.sync().unwrap();
    let other = open(&engine(), &server, None);
    other.write_at(4096 + 10, b"other").unwrap();
    other.sync().unwrap();
    for block in 0..3 {
        file.write_at(block * 4096, b"mine").unwrap();
    }
    let stats = file.writeback().wait().unwrap();
    assert_eq!((stats.merges, stats.streams[1].bytes), (1, 2 * (4096 + 48)));
    let mut reports = Vec::new();
    assert!(file.verify_cache(|_, report| reports.push(report)).unwrap());
    assert_eq!(reports, [CacheReport::Same, CacheReport::Absent, CacheReport::Same]);
}

#[test]
fn a_grant_of_one_credit_to_each_stream_is_enough() {
    let options = MemoryOptions::default().with_credits(1).with_boundary_blocks(1);
    let server = crate::support::memory_with(options);
    let cache = MemoryCache::new(options);
    let file = create(&engine(), &server, Some(&cache), 4096);
    for round in 0..300_u64 {
        file.write_at(round % 7 * 10_000, &sample(20_000)).unwrap();
        drop(file.writeback());
    }
    file.sync().unwrap();
}

/// Two clients, each with an engine of its own, change odd and even bytes of the same blocks.
fn change_odd_and_even(server: &(dyn Server + Sync), caches: [Option<&dyn Cache>; 2], rounds: u8) {
    const LEN: usize = 5 * 4096;
    let file = create(&engine(), server, None, 4096);
    file.write_at(0, &[0; LEN]).unwrap();
    file.close().unwrap();
    thread::scope(|scope| {
        for (client, cache) in caches.into_iter().enumerate() {
            let file = open(&engine(), server, cache);
            scope.spawn(move || {
                let mut rng = fastrand::Rng::with_seed(client as u64);
                for round in 1..=rounds {
                    for at in (client..LEN).step_by(2 * rng.usize(50..200)) {
                        file.write_at(at as u64, &[round]).unwrap();
                    }
                    file.sync().unwrap();
                }
                for at in (client..LEN).step_by(2) {
                    file.write_at(at as u64, &[100 + u8::try_from(client).unwrap()]).unwrap();
                }
                file.close().unwrap();
            });
        }
    });
    let bytes = read_all(&open(&engine(), server, None));
    let lost = bytes.iter().enumerate().filter(|(at, byte)| usize::from(**byte) != 100 + at % 2);
    assert_eq!(lost.count(), 0, "bytes of one of the clients are lost");
    for cache in caches {
        assert!(read_all(&open(&engine(), server, cache)) == bytes, "through the cache");
    }
}

#[test]
fn two_clients_lose_nothing_of_each_other_in_memory() {
    let caches = [0; 2].map(|_| MemoryCache::new(MemoryOptions::default()));
    change_odd_and_even(&memory(), caches.each_ref().map(|cache| Some(cache as &dyn Cache)), 20);
}

#[test]
fn two_clients_lose_nothing_of_each_other_on_disk() {
    let dirs = [0; 3].map(|_| tempfile::tempdir().unwrap());
    let server = audited(LocalServer::open(dirs[0].path(), LocalOptions::default()).unwrap());
    let cache =
        |dir: &tempfile::TempDir| LocalCache::open(dir.path(), LocalOptions::default()).unwrap();
    let caches = [cache(&dirs[1]), cache(&dirs[2])];
    change_odd_and_even(&server, [Some(&caches[0]), Some(&caches[1])], 20);
}

#[test]
fn a_whole_block_that_somebody_else_changed_is_overwritten_unless_lost_updates_are_to_be_told() {
    for tells in [false, true] {
        let server = memory();
        let file = create(&engine(), &server, None, 4096);
        file.tell_lost_updates(tells);
        file.write_at(0, &[b'.'; 3 * 4096]).unwrap();
        file.sync().unwrap();
        let other = open(&engine(), &server, None);
        other.write_at(4096 + 7, b"other").unwrap();
        other.sync().unwrap();
        file.write_at(0, &[b'm'; 3 * 4096]).unwrap();
        match file.sync() {
            Ok(()) => assert!(!tells),
            Err(Error::Conflict { blocks }) => {
                assert!(tells);
                assert_eq!(blocks.iter().map(|conflict| conflict.block).collect::<Vec<_>>(), [1]);
            }
            Err(other) => panic!("{other:?}"),
        }
        let read = read_sealed(&server.stored(&name()).unwrap(), &ROOT).unwrap().plaintext;
        let expected: &[u8] = if tells { b"other" } else { b"mmmmm" };
        assert_eq!(&read[4096 + 7..4096 + 12], expected);
        assert_eq!(file.dirty_bytes() > 0, tells, "what was not written is kept");
    }
}

/// A file of three blocks, the second of which is in a conflict that was told of.
fn in_conflict(server: &dyn Server) -> (File, Vec<BlockConflict>) {
    let file = create(&engine(), server, None, 4096);
    file.tell_lost_updates(true);
    file.write_at(0, &[b'.'; 3 * 4096]).unwrap();
    file.sync().unwrap();
    let other = open(&engine(), server, None);
    other.write_at(4096, &[b'o'; 4096]).unwrap();
    other.sync().unwrap();
    file.write_at(0, &[b'm'; 3 * 4096]).unwrap();
    let Err(Error::Conflict { blocks }) = file.sync() else { panic!("nothing was told") };
    // However often it is tried: nobody but the client can say which of the two it is to be.
    assert!(matches!(file.sync(), Err(Error::Conflict { .. })));
    (file, blocks)
}

#[test]
fn a_lost_update_that_was_told_of_is_overwritten_or_taken_over_as_the_client_says() {
    for (resolution, expected) in [(Resolution::Ours, b'm'), (Resolution::Theirs, b'o')] {
        let server = memory();
        let (file, blocks) = in_conflict(&server);
        file.resolve(&blocks, resolution).unwrap();
        file.sync().unwrap();
        let mut all = vec![b'm'; 3 * 4096];
        all[4096..8192].fill(expected);
        assert!(read_all(&file) == all, "{resolution:?}");
        let stored = read_sealed(&server.stored(&name()).unwrap(), &ROOT).unwrap().plaintext;
        assert!(stored == all, "{resolution:?}");
    }
}

#[test]
fn what_changes_once_more_after_it_was_told_of_is_told_of_again() {
    let server = memory();
    let (file, blocks) = in_conflict(&server);
    let third = open(&engine(), &server, None);
    third.write_at(5000, b"third").unwrap();
    third.sync().unwrap();
    file.resolve(&blocks, Resolution::Ours).unwrap();
    let Err(Error::Conflict { blocks: again }) = file.sync() else { panic!("nothing was told") };
    assert_ne!(blocks, again);
    file.resolve(&again, Resolution::Ours).unwrap();
    file.sync().unwrap();
}

#[test]
fn bytes_of_a_block_that_is_changed_in_part_are_merged_even_if_lost_updates_are_to_be_told() {
    let server = memory();
    let file = create(&engine(), &server, None, 4096);
    file.tell_lost_updates(true);
    file.write_at(0, &[b'.'; 4096]).unwrap();
    file.sync().unwrap();
    let other = open(&engine(), &server, None);
    other.write_at(0, b"other").unwrap();
    other.sync().unwrap();
    file.write_at(100, b"mine").unwrap();
    file.sync().unwrap();
    let read = read_sealed(&server.stored(&name()).unwrap(), &ROOT).unwrap().plaintext;
    assert_eq!((&read[..5], &read[100..104]), (&b"other"[..], &b"mine"[..]));
}

#[test]
fn what_somebody_is_appending_to_the_last_block_is_not_cut_off_by_a_change_before_it() {
    let server = memory();
    let file = create(&engine(), &server, None, 4096);
    file.write_at(0, &[b'.'; 1000]).unwrap();
    file.close().unwrap();
    // The append is on the server when the other client reads the block, and in no header yet.
    let header = Rule {
        operation: Operation::Header,
        when: When::Once(1),
        fault: Fault::Fail(Failure::Fatal(TargetError::new(TargetErrorKind::NoSpace, "injected"))),
    };
    let faults = Faults::scripted([header]);
    let appending = open(&engine(), &FaultyServer::new(server.clone(), &faults), None);
    appending.write_at(1000, &[b'a'; 1000]).unwrap();
    appending.sync().unwrap_err();
    let other = open(&engine(), &server, None);
    other.write_at(0, b"other").unwrap();
    other.sync().unwrap();
    appending.sync().unwrap();
    let read = read_sealed(&server.stored(&name()).unwrap(), &ROOT).unwrap().plaintext;
    assert_eq!((read.len(), &read[..5], read[1999]), (2000, &b"other"[..], b'a'));
}

//! Cache granules: what goes to the cache in part takes its clean neighbours along, to the cache alone,
//! as the bytes that the server has.

use std::{ops::Range, sync::Arc, time::Duration};

use sealback::{CacheReport, Config, Decision, Engine, File, trace::TraceEvent};
use sealback_stream::{
    Cache, Failure, Granule, LocalCache, LocalOptions, MemoryCache, MemoryOptions, MemoryServer,
    TargetError, TargetErrorKind,
    faulty::{Fault, Faults, FaultyCache, Operation, Rule, When},
};
use sealback_tests::{interpose::InterposedServer, recorder::Recorder};

use crate::support::{config, create, ends, engine, engine_with, open, read_all, sample};

mod reads;

use reads::{Counted, Reads};

const BLOCK: usize = 4096;
/// Blocks of a granule.
const GRANULE: u64 = 16;

type Server = InterposedServer<MemoryServer, Counted>;

/// A server with a file of so many blocks that was closed, and what is in it.
fn stored(n_blocks: usize) -> (Server, Arc<Reads>, Vec<u8>) {
    let counted = Counted::default();
    let reads = counted.0.clone();
    let server = Server::new(MemoryServer::new(MemoryOptions::default()), counted);
    let data = sample(n_blocks * BLOCK);
    let file = create(&engine(), &server, None, BLOCK as u64);
    file.write_at(0, &data).unwrap();
    file.close().unwrap();
    reads.take_read();
    reads.take_written();
    (server, reads, data)
}

fn granule() -> Granule {
    Granule::new(GRANULE * BLOCK as u64).unwrap()
}

fn cache() -> MemoryCache {
    MemoryCache::new(MemoryOptions::default()).with_granule(granule())
}

/// Writes a whole block, so that nothing has to be read for it.
fn write_block(file: &File, block: usize, data: &mut [u8]) {
    let bytes = &sample(BLOCK + block)[block..];
    file.write_at((block * BLOCK) as u64, bytes).unwrap();
    data[block * BLOCK..][..BLOCK].copy_from_slice(bytes);
}

/// One run of blocks.
fn one(blocks: Range<u64>) -> Vec<Range<u64>> {
    vec![blocks]
}

/// The blocks that the cache has, none of which may be another than the server's.
fn cached(file: &File) -> Vec<u64> {
    let mut cached = Vec::new();
    let each = |block, report| match report {
        CacheReport::Same => cached.push(block),
        CacheReport::Differs => panic!("the cache claims block {block}, which is not stored"),
        _ => {}
    };
    assert!(file.verify_cache(each).unwrap());
    cached
}

/// What a client without a cache and one with it read is `data`.
fn assert_read(server: &Server, cache: &dyn Cache, data: &[u8]) {
    assert!(read_all(&open(&engine(), server, None)) == data);
    assert!(read_all(&open(&engine(), server, Some(cache))) == data);
}

/// It runs out in these tests; on a loaded machine not before the neighbours have been asked for.
const SHORT: Duration = Duration::from_millis(500);

fn patience(cache_patience: Duration) -> Engine {
    Engine::new(Config { cache_patience, ..config() }).unwrap()
}

fn serves_the_granule_of_one_dirty_byte(cache: &dyn Cache) {
    let (server, reads, mut data) = stored(100);
    let file = open(&engine(), &server, Some(cache));
    file.write_at(37 * BLOCK as u64 + 5, &[7]).unwrap();
    data[37 * BLOCK + 5] = 7;
    file.sync().unwrap();
    assert_eq!(reads.take_written(), one(37..38), "the server has the others");
    assert_eq!(cached(&file), (32..48).collect::<Vec<_>>());
    file.close().unwrap();
    reads.take_read();
    let file = open(&engine(), &server, Some(cache));
    let mut bytes = vec![0; 16 * BLOCK];
    file.read_at(32 * BLOCK as u64, &mut bytes).unwrap();
    assert!(bytes == data[32 * BLOCK..48 * BLOCK]);
    assert_eq!(reads.take_read(), [0..0; 0]);
    assert_read(&server, cache, &data);
}

#[test]
fn after_one_dirty_byte_and_a_sync_the_cache_serves_the_whole_granule_without_the_server() {
    serves_the_granule_of_one_dirty_byte(&cache());
    let dir = tempfile::tempdir().unwrap();
    let cache = LocalCache::open(dir.path(), LocalOptions::default()).unwrap();
    serves_the_granule_of_one_dirty_byte(&cache.with_granule(granule()));
}

#[test]
fn dirty_blocks_and_their_neighbours_go_in_one_request_each_stream_in_its_own_tiles() {
    let (server, reads, mut data) = stored(100);
    let cache = cache();
    let engine = engine();
    let file = open(&engine, &server, Some(&cache));
    for block in [20, 37, 38] {
        write_block(&file, block, &mut data);
    }
    let recorder = Arc::new(Recorder::default());
    file.writeback_observed(Some(recorder.clone())).wait().unwrap();
    let issued = |stream: usize| {
        let events = recorder.events().into_iter();
        let runs = events.filter_map(move |event| match event {
            TraceEvent::Issued { stream: of, blocks, .. } if of == stream => Some(blocks),
            _ => None,
        });
        runs.flat_map(|runs| runs.iter().flat_map(|run| run.clone()).collect::<Vec<_>>())
            .collect::<Vec<_>>()
    };
    assert_eq!(issued(0), [20, 37, 38]);
    assert_eq!(issued(1), (16..48).collect::<Vec<_>>(), "in ascending order, none twice");
    let done = |event: &TraceEvent| matches!(event, TraceEvent::Done { .. });
    assert_eq!(recorder.events().iter().filter(|event| done(event)).count(), 1);
    assert_eq!(reads.take_written(), [20..21, 37..39]);
    assert_eq!((cached(&file).len(), engine.stats().copied_bytes), (32, 0));
    file.sync().unwrap();
    assert_read(&server, &cache, &data);
}

#[test]
fn what_the_cache_has_is_not_taken_along_once_more() {
    let (server, reads, mut data) = stored(100);
    let cache = cache();
    let file = open(&engine(), &server, Some(&cache));
    let mut bytes = vec![0; 4 * BLOCK];
    file.read_direct(32 * BLOCK as u64, &mut bytes).unwrap();
    file.writeback().wait().unwrap();
    assert_eq!(cached(&file), [32, 33, 34, 35]);
    reads.take_read();
    write_block(&file, 37, &mut data);
    file.sync().unwrap();
    assert_eq!(reads.take_read(), one(36..48));
    assert_eq!(cached(&file).len(), 16);
    reads.take_read();
    write_block(&file, 40, &mut data);
    file.sync().unwrap();
    assert_eq!(reads.take_read(), [0..0; 0]);
    assert_read(&server, &cache, &data);
}

#[test]
fn a_copy_that_waits_in_memory_goes_along_as_it_came() {
    let (server, reads, mut data) = stored(100);
    let cache = cache();
    let file = open(&engine(), &server, Some(&cache));
    let mut bytes = vec![0; 4 * BLOCK];
    file.read_direct(32 * BLOCK as u64, &mut bytes).unwrap();
    assert_eq!(reads.take_read(), one(32..36));
    write_block(&file, 38, &mut data);
    file.sync().unwrap();
    assert_eq!(reads.take_read(), one(36..48));
    assert_eq!(cached(&file), (32..48).collect::<Vec<_>>());
    assert_read(&server, &cache, &data);
}

#[test]
fn a_neighbour_that_is_written_here_meanwhile_is_not_in_the_cache_as_it_was() {
    let (server, reads, mut data) = stored(100);
    let cache = cache();
    let engine = engine_with(BLOCK);
    let file = open(&engine, &server, Some(&cache));
    write_block(&file, 37, &mut data);
    reads.hold();
    let writeback = file.writeback();
    reads.wait_held();
    write_block(&file, 40, &mut data);
    // Elsewhere it may be written as it likes.
    write_block(&file, 90, &mut data);
    reads.let_go();
    writeback.wait().unwrap();
    let there = (32..48).filter(|block| *block != 40).collect::<Vec<_>>();
    assert_eq!(cached(&file), there, "the others are as they were");
    file.sync().unwrap();
    assert!(cached(&file).contains(&40));
    assert_read(&server, &cache, &data);
}

/// The answer about the neighbours of block 37 comes when the pass has gone on and `meanwhile` is done.
fn answered_late(meanwhile: impl FnOnce(&File, &mut Vec<u8>)) {
    let (server, reads, mut data) = stored(100);
    let cache = cache();
    let engine = patience(SHORT);
    let file = open(&engine, &server, Some(&cache));
    write_block(&file, 37, &mut data);
    reads.hold();
    file.sync().unwrap();
    reads.wait_held();
    reads.state().holds = false;
    meanwhile(&file, &mut data);
    reads.let_go();
    let stats = || engine.stats();
    // What came late goes with what is written next, if it may.
    write_block(&file, 1, &mut data);
    file.sync().unwrap();
    file.sync().unwrap();
    cached(&file);
    assert!(file.dirty_bytes() == 0 && stats().active_requests == 0);
    assert_read(&server, &cache, &data);
}

#[test]
fn an_answer_that_comes_late_brings_nothing_back_that_was_written_since() {
    answered_late(|file, data| {
        for block in 32..48 {
            write_block(file, block, data);
        }
        file.sync().unwrap();
    });
    answered_late(|file, data| {
        let bytes = sample(4 * BLOCK);
        file.write_direct(40 * BLOCK as u64, bytes.clone()).result.unwrap();
        data[40 * BLOCK..44 * BLOCK].copy_from_slice(&bytes);
    });
}

#[test]
fn an_answer_that_comes_late_brings_nothing_back_that_was_cut_off_or_punched_since() {
    answered_late(|file, data| {
        file.set_len(35 * BLOCK as u64 + 7).unwrap();
        file.set_len(100 * BLOCK as u64).unwrap();
        data[35 * BLOCK + 7..].fill(0);
    });
    answered_late(|file, data| {
        file.punch(34 * BLOCK as u64..44 * BLOCK as u64).unwrap();
        data[34 * BLOCK..44 * BLOCK].fill(0);
    });
}

#[test]
fn an_answer_that_comes_late_to_a_file_that_was_closed_does_no_harm() {
    let (server, reads, mut data) = stored(100);
    let cache = cache();
    let engine = patience(SHORT);
    let file = open(&engine, &server, Some(&cache));
    write_block(&file, 37, &mut data);
    reads.hold();
    file.close().unwrap();
    reads.wait_held();
    reads.let_go();
    drop(engine);
    assert_read(&server, &cache, &data);
}

/// Another client writes block 40 while it is asked for as a neighbour of block 37, and answered as it
/// was; `meanwhile` gets our file and theirs. Returns our file, which was written back.
fn beside_another(
    cache: &MemoryCache,
    meanwhile: impl FnOnce(&File, &File, &[u8]),
) -> (Server, File, Vec<u8>) {
    let (server, reads, mut data) = stored(100);
    let file = open(&engine(), &server, Some(cache));
    let theirs = open(&engine(), &server, None);
    write_block(&file, 37, &mut data);
    reads.hold();
    let writeback = file.writeback();
    reads.wait_held();
    reads.state().holds = false;
    write_block(&theirs, 40, &mut data);
    meanwhile(&file, &theirs, &data);
    reads.let_go();
    writeback.wait().unwrap();
    (server, file, data)
}

#[test]
fn a_neighbour_that_another_client_writes_meanwhile_is_not_stale_in_the_cache_when_that_is_known() {
    let cache = cache();
    let (server, file, data) = beside_another(&cache, |_, theirs, _| theirs.sync().unwrap());
    file.sync().unwrap();
    cached(&file);
    assert!(read_all(&file) == data);
    assert_read(&server, &cache, &data);
}

#[test]
fn a_neighbour_of_which_two_reads_differ_is_not_in_the_cache() {
    let is_seen = |file: &File, data: &[u8]| {
        let mut block = vec![0; BLOCK];
        file.read_direct(40 * BLOCK as u64, &mut block).unwrap();
        assert!(block == data[40 * BLOCK..41 * BLOCK], "what was seen once stays seen");
    };
    // They do not say so, and it is seen before the answer about the neighbours comes.
    let (_server, file, data) = beside_another(&cache(), |file, theirs, data| {
        theirs.writeback().wait().unwrap();
        is_seen(file, data);
    });
    assert!(!cached(&file).contains(&40));
    is_seen(&file, &data);
}

#[test]
fn neighbours_that_cannot_be_read_are_done_without() {
    let (server, reads, mut data) = stored(100);
    let cache = cache();
    let file = open(&engine(), &server, Some(&cache));
    for block in [5, 37, 38] {
        write_block(&file, block, &mut data);
    }
    reads.state().fails = true;
    file.sync().unwrap();
    assert!(!reads.take_read().is_empty());
    reads.state().fails = false;
    assert_eq!(cached(&file), [5, 37, 38]);
    write_block(&file, 39, &mut data);
    file.sync().unwrap();
    assert_eq!(cached(&file).len(), 17, "the next writeback tries again");
    assert_read(&server, &cache, &data);
}

#[test]
fn a_server_that_never_answers_about_neighbours_holds_a_sync_up_once_and_not_for_ever() {
    let (server, reads, mut data) = stored(100);
    let cache = cache();
    let engine = patience(SHORT);
    let file = open(&engine, &server, Some(&cache));
    reads.hold();
    for block in [5, 37, 90] {
        write_block(&file, block, &mut data);
    }
    let file = ends(move || {
        file.sync().unwrap();
        file
    })
    .expect("it is not waited for for ever");
    assert_eq!(file.dirty_bytes(), 0);
    reads.wait_held();
    let asked = reads.take_read().len();
    assert!((1..=3).contains(&asked));
    for block in [6, 38, 91] {
        write_block(&file, block, &mut data);
        file.sync().unwrap();
    }
    assert_eq!(reads.take_read(), [0..0; 0], "nothing more is asked before that is answered");
    // Others are answered, and they are not.
    reads.state().holds = false;
    assert_eq!(cached(&file), [5, 6, 37, 38, 90, 91]);
    reads.let_go();
    assert_read(&server, &cache, &data);
}

#[test]
fn dirty_neighbours_that_a_filter_skips_stay_where_they_are_and_clean_ones_go() {
    let (server, reads, mut data) = stored(100);
    let cache = cache();
    let engine = engine_with(BLOCK);
    let file = open(&engine, &server, Some(&cache));
    for block in [34, 37, 40, 50] {
        write_block(&file, block, &mut data);
    }
    let (skipped, deferred) = (34 * BLOCK as u64, 40 * BLOCK as u64);
    let mut asked_again = false;
    let done = file.writeback_filtered(move |positions| match positions.start {
        start if start == skipped || start == 50 * BLOCK as u64 => Decision::Skip,
        start if start == deferred && !asked_again => {
            asked_again = true;
            Decision::Defer
        }
        _ => Decision::Write,
    });
    assert_eq!(done.unwrap().skipped.len(), 2);
    assert_eq!(reads.take_written(), [37..38, 40..41]);
    assert_eq!(file.dirty_bytes(), 2 * BLOCK as u64);
    // What is skipped alone in its granule takes nothing along; what lies before a skipped block had been
    // passed over when something behind it was to be written.
    assert_eq!(cached(&file), (35..48).collect::<Vec<_>>());
    file.sync().unwrap();
    assert_eq!(cached(&file), (32..64).collect::<Vec<_>>());
    assert_read(&server, &cache, &data);
}

#[test]
fn a_neighbour_of_a_newer_write_group_waits_for_its_own() {
    let (server, reads, mut data) = stored(100);
    let cache = cache();
    let engine = engine_with(BLOCK);
    let file = open(&engine, &server, Some(&cache));
    write_block(&file, 37, &mut data);
    file.close_group();
    write_block(&file, 35, &mut data);
    file.writeback().wait().unwrap();
    assert_eq!(reads.take_written(), one(37..38));
    assert_eq!(cached(&file), (32..48).filter(|block| *block != 35).collect::<Vec<_>>());
    file.sync().unwrap();
    assert_eq!(reads.take_written(), one(35..36));
    assert_eq!(cached(&file), (32..48).collect::<Vec<_>>());
    assert_read(&server, &cache, &data);
}

#[test]
fn a_range_that_is_synced_takes_its_granules_along() {
    let (server, reads, mut data) = stored(100);
    let cache = cache();
    let file = open(&engine(), &server, Some(&cache));
    for block in [10, 37, 38, 70] {
        write_block(&file, block, &mut data);
    }
    file.sync_range(37 * BLOCK as u64..37 * BLOCK as u64 + 1).unwrap();
    assert_eq!(reads.take_written(), one(37..39), "all that is dirty of them");
    assert_eq!(cached(&file), (32..48).collect::<Vec<_>>());
    assert_eq!(file.dirty_bytes(), 2 * BLOCK as u64);
}

#[test]
fn a_granule_ends_with_the_file_and_its_holes_need_no_bytes() {
    let (server, reads, mut data) = stored(39);
    let file = open(&engine(), &server, None);
    file.punch(34 * BLOCK as u64..36 * BLOCK as u64).unwrap();
    file.write_at(data.len() as u64, &[9; 100]).unwrap();
    file.close().unwrap();
    data[34 * BLOCK..36 * BLOCK].fill(0);
    data.extend([9; 100]);
    reads.take_written();
    let cache = cache();
    let file = open(&engine(), &server, Some(&cache));
    write_block(&file, 37, &mut data);
    file.sync().unwrap();
    assert_eq!(reads.take_written(), one(37..38));
    assert_eq!(cached(&file), [32, 33, 36, 37, 38, 39]);
    // Behind the end there is nothing, and then there is what is written.
    data.resize(41 * BLOCK, 0);
    write_block(&file, 40, &mut data);
    file.sync().unwrap();
    assert!(read_all(&file) == data);
    cached(&file);
    assert_read(&server, &cache, &data);
}

#[test]
fn a_granule_that_is_larger_than_the_memory_for_copies_is_taken_along_as_far_as_there_is_room() {
    let (server, _, mut data) = stored(4096 + 10);
    let cache = MemoryCache::new(MemoryOptions::default());
    let cache = cache.with_granule(Granule::new(16 << 20).unwrap());
    let engine = engine();
    let file = open(&engine, &server, Some(&cache));
    write_block(&file, 3000, &mut data);
    let file = ends(move || {
        file.sync().unwrap();
        file
    })
    .expect("it waits for no room");
    let cached = cached(&file);
    assert!(cached.contains(&3000) && cached.len() > 100, "{} blocks", cached.len());
    file.close().unwrap();
    assert_eq!(engine.stats().copied_bytes, 0);
    assert_read(&server, &cache, &data);
}

#[test]
fn many_granules_share_a_little_memory() {
    let (server, reads, mut data) = stored(4096);
    let cache = cache();
    let engine = engine();
    // An eighth of the memory, with the blocks' prefixes.
    let most = engine.config().memory_bytes / 8 / 4096;
    let file = open(&engine, &server, Some(&cache));
    let blocks: Vec<_> = (0..4096).step_by(24).collect();
    for block in &blocks {
        write_block(&file, *block, &mut data);
    }
    file.sync().unwrap();
    let written: usize = reads.take_written().into_iter().map(|run| run.count()).sum();
    assert_eq!(written, blocks.len(), "nothing but what is dirty goes to the server");
    let n_cached = cached(&file).len();
    assert!(n_cached > 2 * most, "room is used again: {n_cached} blocks, {most} at once");
    assert_eq!(engine.stats().copied_bytes, 0);
    assert_read(&server, &cache, &data);
}

#[test]
fn without_a_cache_or_a_granule_or_past_the_cache_nothing_is_read() {
    let (server, reads, mut data) = stored(100);
    let file = open(&engine(), &server, None);
    write_block(&file, 36, &mut data);
    file.sync().unwrap();
    assert_eq!(reads.take_read(), [0..0; 0]);
    let plain = MemoryCache::new(MemoryOptions::default());
    let file = open(&engine(), &server, Some(&plain));
    write_block(&file, 37, &mut data);
    file.sync().unwrap();
    assert_eq!(reads.take_read(), [0..0; 0]);
    assert_eq!(cached(&file), [37]);
    let small = MemoryCache::new(MemoryOptions::default());
    let small = small.with_granule(Granule::new(BLOCK as u64).unwrap());
    let file = open(&engine(), &server, Some(&small));
    write_block(&file, 38, &mut data);
    reads.take_read();
    file.sync().unwrap();
    assert_eq!(reads.take_read(), [0..0; 0], "a block is a granule");
    assert_eq!(cached(&file), [38]);
    let cache = cache();
    let file = open(&engine(), &server, Some(&cache));
    file.bypass_cache(39 * BLOCK as u64..40 * BLOCK as u64);
    write_block(&file, 39, &mut data);
    reads.take_read();
    file.sync().unwrap();
    assert_eq!(reads.take_read(), [0..0; 0]);
    assert_eq!(cached(&file), [0; 0]);
    assert_read(&server, &cache, &data);
}

#[test]
fn a_cache_that_fails_in_the_middle_of_a_granule_fails_no_sync() {
    let (server, _, mut data) = stored(100);
    let failure = Failure::Fatal(TargetError::new(TargetErrorKind::Io, "injected"));
    let (operation, when) = (Operation::Write, When::From(1));
    let faults = Faults::scripted([Rule { operation, when, fault: Fault::Fail(failure) }]);
    let cache = FaultyCache::new(cache(), &faults);
    let engine = engine();
    let file = open(&engine, &server, Some(&cache));
    for block in [5, 37, 90] {
        write_block(&file, block, &mut data);
    }
    file.sync().unwrap();
    assert_eq!((file.dirty_bytes(), engine.stats().copied_bytes), (0, 0));
    write_block(&file, 38, &mut data);
    file.sync().unwrap();
    assert_read(&server, &cache, &data);
}

//! Files as their clients use them: against a model, with failures, and from a second reader.

use std::time::Duration;

use sealback::{Config, CreateOptions, Engine, Error, Place, Resolution, RetryLimits};
use sealback_crypto::Engine as Cipher;
use sealback_stream::{
    BlockConflict, Failure, LocalCache, LocalOptions, LocalServer, MemoryCache, MemoryOptions,
    MemoryServer, TargetError, TargetErrorKind,
    faulty::{Fault, Faults, FaultyServer, Operation, Rule, When},
};
use sealback_tests::{
    gate::{Gate, GateServer},
    reader::{read_sealed, read_sealed_file, repeated_nonces},
};

use crate::support::{
    ROOT, audited, config, create, engine, memory, name, open, read_all, root, sample,
};

#[test]
fn every_size_about_a_block_comes_back_from_server_cache_and_independent_reader() {
    for cipher in Cipher::all() {
        let engine = Engine::new(Config { cipher: *cipher, ..config() }).unwrap();
        for len in [0, 1, 4095, 4096, 4097, 8192, 300_001] {
            let (server, cache) = (memory(), MemoryCache::new(MemoryOptions::default()));
            let data = sample(len);
            let file = create(&engine, &server, Some(&cache), 4096);
            file.write_at(0, &data).unwrap();
            let file_id = file.file_id();
            file.close().unwrap();
            assert_eq!(read_all(&open(&engine, &server, None)), data);
            let stored = server.stored(&name()).unwrap();
            assert_eq!(cache.stored(file_id).unwrap(), stored, "{len} bytes: the same bytes");
            let read = read_sealed(&stored, &ROOT).unwrap();
            assert_eq!(read.plaintext, data);
            assert!(repeated_nonces(&read.blocks).is_empty());
            let reads = server.n_reads();
            assert_eq!(read_all(&open(&engine, &server, Some(&cache))), data);
            assert_eq!(server.n_reads(), reads, "all of it came from the cache");
        }
    }
}

#[test]
fn folios_need_not_match_blocks() {
    let data = sample(1_000_003);
    for folio_bytes in [4096, 16384, 1 << 20] {
        for block_bytes in [4096, 16384, 65536, 1 << 20] {
            let engine = Engine::new(Config { folio_bytes, ..config() }).unwrap();
            let server = memory();
            let file = create(&engine, &server, None, block_bytes);
            for (index, part) in data.chunks(77_777).enumerate() {
                file.write_at(index as u64 * 77_777, part).unwrap();
            }
            file.sync().unwrap();
            drop(file);
            let what = format!("folios of {folio_bytes}, blocks of {block_bytes}");
            assert_eq!(read_all(&open(&engine, &server, None)), data, "{what}");
            let read = read_sealed(&server.stored(&name()).unwrap(), &ROOT).unwrap();
            assert_eq!(read.plaintext, data, "{what}");
        }
    }
}

#[test]
fn a_file_larger_than_the_memory_is_written_and_read() {
    let engine = engine();
    let server = memory();
    let file = create(&engine, &server, None, 16384);
    let data = sample(40 << 20);
    let mut seen = 0;
    let (len, ended) = file.write_from(0, &mut &data[..], |bytes| seen = bytes).unwrap();
    ended.unwrap();
    assert_eq!((len, seen), (40 << 20, 40 << 20));
    file.sync().unwrap();
    let stats = engine.stats();
    assert_eq!(stats.buffers_free, stats.buffers, "every buffer is home");
    assert_eq!(stats.active_requests, 0);
    assert!(stats.folios_out * (64 << 10) <= 36 << 17, "folios stay within their share");
    drop(file);
    assert_eq!(read_all(&open(&engine, &server, None)), data);
}

#[test]
fn a_gap_reads_as_zeros_and_so_does_the_rest_of_the_old_last_block() {
    let engine = engine();
    let server = memory();
    let file = create(&engine, &server, None, 4096);
    file.write_at(0, b"head").unwrap();
    file.sync().unwrap();
    file.write_at(50_000, b"tail").unwrap();
    file.sync().unwrap();
    drop(file);
    let mut expected = vec![0; 50_004];
    expected[..4].copy_from_slice(b"head");
    expected[50_000..].copy_from_slice(b"tail");
    let file = open(&engine, &server, None);
    assert_eq!(read_all(&file), expected);
    assert_eq!(file.info().holes, 0..12, "the first block is short");
    let read = read_sealed(&server.stored(&name()).unwrap(), &ROOT).unwrap();
    assert_eq!(read.plaintext, expected);
}

#[test]
fn transient_errors_and_short_writes_are_retried_until_all_is_there() {
    let engine = engine();
    let server = GateServer::new(memory(), Gate::default());
    let file = create(&engine, &server, None, 4096);
    let data = sample(500_000);
    file.write_at(0, &data).unwrap();
    let writeback = file.writeback();
    let transient = || Failure::Retry(TargetError::new(TargetErrorKind::TimedOut, "injected"));
    server.hook.wait_for(1);
    server.hook.fail(0, transient());
    server.hook.wait_for(1);
    server.hook.open();
    let stats = writeback.wait().unwrap();
    assert_eq!(stats.streams[0].retries.total(), 1);
    file.sync().unwrap();
    drop(file);
    assert_eq!(read_all(&open(&engine, &server, None)), data);
}

#[test]
fn a_block_that_stays_in_conflict_is_a_typed_error_and_its_data_stays_dirty() {
    let retry = RetryLimits { first_delay: Duration::from_micros(10), ..RetryLimits::default() };
    let engine = Engine::new(Config { retry, ..config() }).unwrap();
    let server = GateServer::new(memory(), Gate::default());
    let file = create(&engine, &server, None, 4096);
    file.write_at(0, b"mine").unwrap();
    let writeback = file.writeback();
    for _attempt in 0..retry.max_attempts {
        server.hook.wait_for(1);
        let blocks = vec![BlockConflict { block: 0, stored: None }];
        server.hook.fail(0, Failure::Conflict(blocks));
    }
    assert!(matches!(writeback.wait(), Err(Error::Conflict { blocks }) if blocks[0].block == 0));
    assert_eq!(file.dirty_bytes(), 4);
    server.hook.open();
    assert!(matches!(file.sync(), Err(Error::Conflict { .. })), "told once");
    file.sync().unwrap();
    drop(file);
    assert_eq!(read_all(&open(&engine, &server, None)), b"mine");
}

#[test]
fn a_failed_upload_is_told_once_to_each_handle_and_loses_nothing() {
    let engine = engine();
    let server = GateServer::new(memory(), Gate::default());
    let file = create(&engine, &server, None, 4096);
    let other = open(&engine, &server, None);
    let data = sample(100_000);
    file.write_at(0, &data).unwrap();
    let writeback = file.writeback();
    server.hook.wait_for(1);
    let full = TargetError::new(TargetErrorKind::NoSpace, "the disk is full");
    server.hook.fail(0, Failure::Fatal(full));
    let error = writeback.wait().unwrap_err();
    assert_eq!(error.target_kind(), Some(TargetErrorKind::NoSpace));
    assert_eq!(file.dirty_bytes(), 100_000);
    server.hook.open();
    for handle in [&file, &other] {
        assert_eq!(handle.sync().unwrap_err().target_kind(), Some(TargetErrorKind::NoSpace));
        handle.sync().unwrap();
    }
    drop((file, other));
    assert_eq!(read_all(&open(&engine, &server, None)), data);
}

#[test]
fn who_finds_no_memory_is_told_of_a_full_disk_each_time_he_asks_however_long_it_is_left_alone_else()
{
    let full = || Failure::Fatal(TargetError::new(TargetErrorKind::NoSpace, "the disk is full"));
    let (operation, when) = (Operation::Write, When::From(1));
    let faults = Faults::scripted([Rule { operation, when, fault: Fault::Fail(full()) }]);
    let server = FaultyServer::new(memory(), &faults);
    let hour = Duration::from_secs(3600);
    let retry = RetryLimits { first_delay: hour, max_delay: hour, ..RetryLimits::default() };
    let engine = Engine::new(Config { memory_bytes: 8 << 20, retry, ..config() }).unwrap();
    let file = create(&engine, &server, None, 4096);
    let data = sample(16 << 20);
    let mut n_refused = 0;
    for (piece, at) in data.chunks(64 << 10).zip((0..).step_by(64 << 10)) {
        while let Err(error) = file.write_at(at, piece) {
            assert_eq!(error.target_kind(), Some(TargetErrorKind::NoSpace));
            n_refused += 1;
            if n_refused == 5 {
                faults.stop();
            }
        }
    }
    assert_eq!(n_refused, 5);
    // The error was told by the calls that met it, and is by the next sync of those that did not wait.
    assert_eq!(file.sync().unwrap_err().target_kind(), Some(TargetErrorKind::NoSpace));
    file.sync().unwrap();
    drop(file);
    assert_eq!(read_all(&open(&engine, &server, None)), data);
}

#[test]
fn what_a_server_could_not_make_durable_is_dirty_again_and_every_handle_is_told() {
    let error = || Failure::Retry(TargetError::new(TargetErrorKind::Io, "injected"));
    let (operation, when) = (Operation::Barrier, When::From(1));
    let faults = Faults::scripted([Rule { operation, when, fault: Fault::Fail(error()) }]);
    faults.stop();
    let memory = MemoryServer::new(MemoryOptions::default());
    let server = FaultyServer::new(memory.clone(), &faults);
    let engine = engine();
    let file = create(&engine, &server, None, 4096);
    let mut data = sample(50_000);
    file.write_at(0, &data).unwrap();
    file.sync().unwrap();
    let other = open(&engine, &server, None);
    let durable = memory.stored(&name()).unwrap();
    other.write_at(5000, &[1; 20_000]).unwrap();
    data[5000..25_000].fill(1);
    faults.resume();
    assert_eq!(file.sync().unwrap_err().target_kind(), Some(TargetErrorKind::Io));
    faults.stop();
    assert_eq!(file.dirty_bytes(), 20_000);
    // The server has lost it, and makes durable what comes from here on.
    memory.set_stored(&name(), durable);
    assert_eq!(other.sync().unwrap_err().target_kind(), Some(TargetErrorKind::Io));
    file.sync().unwrap();
    other.sync().unwrap();
    assert!(read_all(&open(&self::engine(), &memory, None)) == data);
}

#[test]
#[expect(clippy::reversed_empty_ranges, reason = "what a client may get wrong")]
fn positions_that_no_file_has_are_refused_or_hold_nothing() {
    let server = memory();
    let file = create(&engine(), &server, None, 4096);
    let mut data = sample(50_000);
    file.write_at(0, &data).unwrap();
    file.sync().unwrap();
    let most = 1 << 60;
    let empty = [5..3, 0..0, 40_000..20_000, u64::MAX..u64::MAX, u64::MAX..0];
    let behind = [most..most + 1, most - 1..most, u64::MAX - 5..u64::MAX];
    for range in empty.into_iter().chain(behind) {
        file.punch(range.clone()).unwrap();
        file.sync_range(range.clone()).unwrap();
        file.bypass_cache(range.clone());
        let start = range.start;
        assert_eq!(file.read_at(start, &mut []).unwrap(), 0);
        assert_eq!(file.read_direct(start, &mut []).unwrap(), 0);
        if start > most {
            assert!(matches!(file.write_at(start, &[]), Err(Error::TooLarge)));
            assert!(matches!(file.set_len(start), Err(Error::TooLarge)));
        }
        if start > 50_000 {
            assert_eq!(file.read_at(start, &mut [0; 10]).unwrap(), 0);
        }
    }
    for block in [most / 4096, 1 << 52, u64::MAX] {
        let conflict = [BlockConflict { block, stored: None }];
        file.resolve(&conflict, Resolution::Ours).unwrap();
        file.resolve(&conflict, Resolution::Theirs).unwrap();
        let fetched = file.fetch_blocks(block..block.saturating_add(1), &mut [0; 4096]);
        assert!(fetched.is_err(), "{block}");
        assert!(
            file.fetch_blocks(block..0, &mut []).is_ok_and(|blocks| blocks.is_empty())
                || block > most / 4096
        );
    }
    file.sync_range(0..u64::MAX).unwrap();
    file.write_at(100, b"and on it goes").unwrap();
    data[100..114].copy_from_slice(b"and on it goes");
    file.sync().unwrap();
    assert!(read_all(&open(&engine(), &server, None)) == data);
}

#[test]
fn a_cancelled_writeback_leaves_the_rest_dirty_and_a_later_one_takes_it() {
    let engine = engine();
    let server = GateServer::new(memory(), Gate::default());
    let file = create(&engine, &server, None, 4096);
    let data = sample(900_000);
    file.write_at(0, &data).unwrap();
    let writeback = file.writeback();
    server.hook.wait_for(1);
    writeback.cancel();
    server.hook.open();
    assert!(matches!(writeback.wait(), Err(Error::Cancelled)));
    assert!(file.dirty_bytes() > 0);
    let _ = file.sync();
    file.sync().unwrap();
    drop(file);
    assert_eq!(read_all(&open(&engine, &server, None)), data);
}

#[test]
fn a_damaged_cache_costs_a_read_of_the_server_and_nothing_else() {
    let engine = engine();
    let server = memory();
    let dir = tempfile::tempdir().unwrap();
    let cache = LocalCache::open(dir.path(), LocalOptions::default()).unwrap();
    let data = sample(200_000);
    let file = create(&engine, &server, Some(&cache), 4096);
    file.write_at(0, &data).unwrap();
    let path = cache.path_of(file.file_id());
    file.close().unwrap();
    let mut copy = std::fs::read(&path).unwrap();
    copy[8192 + 3 * 4144 + 100] ^= 1;
    std::fs::write(&path, copy).unwrap();
    assert_eq!(read_all(&open(&engine, &server, Some(&cache))), data);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(read_all(&open(&engine, &server, Some(&cache))), data);
}

#[test]
fn a_damaged_block_is_named_and_the_others_are_read() {
    let engine = engine();
    let server = memory();
    let data = sample(20 * 4096);
    let file = create(&engine, &server, None, 4096);
    file.write_at(0, &data).unwrap();
    file.close().unwrap();
    let mut stored = server.stored(&name()).unwrap();
    stored[8192 + 7 * 4144 + 60] ^= 0x80;
    server.set_stored(&name(), stored);
    let file = open(&engine, &server, None);
    let mut to = vec![0xEE; data.len()];
    let error = file.read_at(0, &mut to).unwrap_err();
    assert!(matches!(&error, Error::Damaged(damage) if damage.block == 7), "{error}");
    assert!(!to.windows(16).any(|part| part == &data[7 * 4096..7 * 4096 + 16]));
    let mut block = vec![0; 4096];
    file.read_at(8 * 4096, &mut block).unwrap();
    assert_eq!(block, data[8 * 4096..9 * 4096]);
}

#[test]
fn a_replaced_file_is_whole_until_the_new_one_is_published() {
    let dir = tempfile::tempdir().unwrap();
    let server = audited(LocalServer::open(dir.path(), LocalOptions::default()).unwrap());
    let engine = engine();
    let (old, new) = (sample(50_000), sample(60_000));
    let file = create(&engine, &server, None, 4096);
    file.write_at(0, &old).unwrap();
    file.close().unwrap();
    let root = root();
    let place = Place { server: &server, cache: None, root: &root };
    let options = CreateOptions { replace: true, ..CreateOptions::default() };
    let abandoned = engine.create(&place, &name(), &options).unwrap();
    abandoned.write_at(0, &new).unwrap();
    abandoned.sync().unwrap();
    drop(abandoned);
    assert_eq!(read_all(&open(&engine, &server, None)), old);
    let file = engine.create(&place, &name(), &options).unwrap();
    file.write_at(0, &new).unwrap();
    file.sync().unwrap();
    assert_eq!(read_all(&open(&engine, &server, None)), old);
    file.publish().unwrap();
    drop(file);
    assert_eq!(read_all(&open(&engine, &server, None)), new);
}

#[test]
fn what_was_read_from_the_server_goes_to_the_cache_as_it_is() {
    let engine = engine();
    let (server, cache) = (memory(), MemoryCache::new(MemoryOptions::default()));
    let data = sample(300_000);
    let file = create(&engine, &server, None, 4096);
    file.write_at(0, &data).unwrap();
    file.close().unwrap();
    let file = open(&engine, &server, Some(&cache));
    assert_eq!(read_all(&file), data);
    let written = server.n_writes();
    let stats = file.writeback().wait().unwrap();
    assert_eq!(stats.spans, 0, "nothing is sealed again");
    assert_eq!(server.n_writes(), written, "the upload stream has nothing to do");
    file.sync().unwrap();
    let reads = server.n_reads();
    assert_eq!(read_all(&file), data);
    assert_eq!(server.n_reads(), reads, "all of it came from the cache");
}

#[test]
fn a_cache_filled_by_reading_alone_is_good_for_the_next_open() {
    let engine = engine();
    let (server, cache) = (memory(), MemoryCache::new(MemoryOptions::default()));
    let data = sample(300_000);
    let file = create(&engine, &server, None, 4096);
    file.write_at(0, &data).unwrap();
    file.close().unwrap();
    let file = open(&engine, &server, Some(&cache));
    assert_eq!(read_all(&file), data);
    file.writeback().wait().unwrap();
    drop(file);
    let reads = server.n_reads();
    assert_eq!(read_all(&open(&engine, &server, Some(&cache))), data);
    assert_eq!(server.n_reads(), reads, "all of it came from the cache");
}

#[test]
fn what_a_partial_write_expects_is_asked_of_the_server_and_not_of_the_cache() {
    let engine = engine();
    let (server, cache) = (memory(), MemoryCache::new(MemoryOptions::default()));
    let file = create(&engine, &server, None, 4096);
    file.write_at(0, &sample(20_000)).unwrap();
    file.close().unwrap();
    let file = open(&engine, &server, Some(&cache));
    file.write_at(5000, b"changed").unwrap();
    let stats = file.writeback().wait().unwrap();
    assert!(stats.streams[1].bytes > 0, "the cache took what it did not have before: {stats:?}");
    file.close().unwrap();
    let mut expected = sample(20_000);
    expected[5000..5007].copy_from_slice(b"changed");
    assert_eq!(read_all(&open(&engine, &server, Some(&cache))), expected);
}

#[test]
fn an_independent_reader_opens_what_a_put_leaves_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let cached = tempfile::tempdir().unwrap();
    let server = audited(LocalServer::open(dir.path(), LocalOptions::default()).unwrap());
    let cache = LocalCache::open(cached.path(), LocalOptions::default()).unwrap();
    let engine = engine();
    for len in [0, 1, 16383, 16384, 16385, 3_000_001] {
        let data = sample(len);
        let place = Place { server: &server, cache: Some(&cache), root: &root() };
        let options = CreateOptions { replace: true, ..CreateOptions::default() };
        let file = engine.create(&place, &name(), &options).unwrap();
        file.write_from(0, &mut &data[..], |_| ()).unwrap().1.unwrap();
        file.sync().unwrap();
        file.publish().unwrap();
        let copy = cache.path_of(file.file_id());
        file.close().unwrap();

        let stored = dir.path().join(name().as_str());
        let mut plain = Vec::new();
        let read = read_sealed_file(&stored, &ROOT, |_, bytes| plain.extend_from_slice(bytes));
        let read = read.unwrap();
        assert!(plain == data, "{len} bytes");
        assert_eq!(read.size, len as u64);
        assert!(repeated_nonces(&read.blocks).is_empty(), "every nonce is used once");
        assert!(std::fs::read(stored).unwrap() == std::fs::read(copy).unwrap(), "the same bytes");
    }
}

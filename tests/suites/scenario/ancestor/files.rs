//! The same bugs, looked for from the outside: through files, engines and targets.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use sealback::{Config, Engine, File, RetryLimits};
use sealback_crypto::Buffer;
use sealback_stream::{
    Completion, LocalCache, LocalOptions, LocalServer, MemoryCache, MemoryOptions, Read,
    ReadCompletion, Target, TargetError, TargetErrorKind, Write,
};
use sealback_tests::{
    crash::Crash,
    gate::{Gate, GateServer},
    interpose::{Hook, InterposedCache, InterposedServer},
    reader::read_sealed,
};

use crate::{
    bench::{STRIDE, fatal, injected},
    support::{
        ROOT, config, create, ends, engine, memory, memory_with, name, open, read_all, sample,
    },
};

/// What a test says that was given up.
const NO_END: &str = "it panicked, or somebody waits for ever";

/// Fails one operation, the n-th of all, once.
#[derive(Debug)]
struct Once(AtomicI64);

impl Once {
    fn is_due(&self) -> bool {
        self.0.fetch_sub(1, Ordering::SeqCst) == 0
    }
}

impl Hook for Once {
    fn write(&self, target: &Arc<dyn Target>, write: Write, done: Completion) {
        match self.is_due() {
            true => done.failed(fatal()),
            false => target.write(write, done),
        }
    }

    fn read(&self, target: &Arc<dyn Target>, read: Read, done: ReadCompletion) {
        match self.is_due() {
            true => done.failed(injected(TargetErrorKind::NotPermitted)),
            false => target.read(read, done),
        }
    }

    fn control(
        &self,
        change: &mut dyn FnMut() -> Result<(), TargetError>,
    ) -> Result<(), TargetError> {
        match self.is_due() {
            true => Err(injected(TargetErrorKind::NotPermitted)),
            false => change(),
        }
    }
}

#[test]
fn whichever_operation_fails_the_next_writer_goes_on_and_nothing_is_lost() {
    let n_failures = ends(fail_each_operation).expect(NO_END);
    assert!(n_failures > 5, "only {n_failures} operations failed");
}

/// Returns how many operations' failures were told.
fn fail_each_operation() -> u32 {
    let options = MemoryOptions::default().with_max_write_bytes(3 * STRIDE);
    let mut n_failures = 0;
    for n in 0..100 {
        let server = InterposedServer::new(memory_with(options), Once(AtomicI64::new(i64::MAX)));
        let (first, second) = (engine(), engine());
        let file = create(&first, &server, None, 4096);
        file.write_at(0, &sample(40_000)).unwrap();
        file.sync().unwrap();
        // Partial blocks, so that some are merged; and a cut, which has steps of its own.
        let other = open(&second, &server, None);
        other.write_at(100, b"other").unwrap();
        other.sync().unwrap();
        server.hook.0.store(n, Ordering::SeqCst);
        let changed = file
            .write_at(200, b"mine")
            .and_then(|()| file.write_at(4096, &[1; 50_000]))
            .and_then(|()| file.sync())
            .and_then(|()| file.set_len(30_001));
        if server.hook.0.swap(i64::MAX, Ordering::SeqCst) >= 0 {
            changed.unwrap();
            break;
        }
        n_failures += u32::from(changed.is_err());
        let next = open(&second, &server, None);
        next.write_at(60_000, b"next").unwrap();
        next.sync().unwrap();
        // The error is told once; what was kept goes then.
        file.write_at(200, b"mine").unwrap();
        if file.sync().is_err() {
            file.sync().unwrap();
        }
        assert_eq!(file.dirty_bytes(), 0);
        let stored = read_sealed(&server.stored(&name()).unwrap(), &ROOT).unwrap().plaintext;
        assert_eq!(&stored[100..105], b"other", "operation {n}");
        assert_eq!(&stored[200..204], b"mine", "operation {n}");
        assert_eq!(&stored[60_000..60_004], b"next", "operation {n}");
    }
    n_failures
}

#[test]
fn a_failure_in_the_middle_of_what_is_appended_leaves_no_hole_for_others() {
    let ended = ends(|| {
        let options = MemoryOptions::default().with_max_write_bytes(2 * STRIDE);
        let server = GateServer::new(memory_with(options), Gate::default());
        let retry = RetryLimits { max_attempts: 1, ..RetryLimits::default() };
        let file = create(&Engine::new(Config { retry, ..config() }).unwrap(), &server, None, 4096);
        let data = sample(8 * 4096);
        file.write_at(0, &data).unwrap();
        let writeback = file.writeback();
        server.hook.wait_for(4);
        server.hook.pass(3);
        server.hook.pass(0);
        server.hook.pass(1);
        server.hook.fail(0, fatal());
        writeback.wait().unwrap_err();
        let read = read_sealed(&server.stored(&name()).unwrap(), &ROOT).unwrap();
        assert!(read.plaintext.len() <= 4 * 4096, "{} bytes count", read.plaintext.len());
        assert_eq!(read.plaintext, data[..read.plaintext.len()]);
        server.hook.open();
        file.sync().unwrap_err();
        file.sync().unwrap();
        assert!(read_all(&open(&engine(), &server, None)) == data);
    });
    ended.expect(NO_END);
}

#[test]
fn a_size_one_off_any_granule_is_whole_on_server_and_in_cache() {
    let ended = ends(|| {
        let granules = [4096, 16384, 32768, 5 * 4096, 7 * 4096, 96 << 10];
        let options =
            MemoryOptions::default().with_max_write_bytes(5 * STRIDE).with_boundary_blocks(7);
        let small = Config { folio_bytes: 16384, span_bytes: 32768, ..config() };
        let engine = Engine::new(small).unwrap();
        for size in granules.into_iter().flat_map(|granule| [granule - 1, granule, granule + 1]) {
            let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
            let local = LocalServer::open(dirs[0].path(), LocalOptions::default()).unwrap();
            let on_disk = LocalCache::open(dirs[1].path(), LocalOptions::default()).unwrap();
            let data = sample(size);

            let file = create(&engine, &local, Some(&on_disk), 4096);
            file.write_at(0, &data).unwrap();
            let copy = on_disk.path_of(file.file_id());
            file.close().unwrap();
            let stored = std::fs::read(dirs[0].path().join(name().as_str())).unwrap();
            assert!(read_sealed(&stored, &ROOT).unwrap().plaintext == data, "{size} bytes on disk");
            assert!(std::fs::read(copy).unwrap() == stored, "{size} bytes: not the server's");

            let (server, cache) = (memory_with(options), MemoryCache::new(options));
            let file = create(&engine, &server, Some(&cache), 4096);
            file.write_at(0, &data).unwrap();
            let file_id = file.file_id();
            file.close().unwrap();
            let stored = server.stored(&name()).unwrap();
            assert!(read_sealed(&stored, &ROOT).unwrap().plaintext == data, "{size} bytes");
            assert!(cache.stored(file_id).unwrap() == stored, "{size} bytes: not the server's");
        }
    });
    ended.expect(NO_END);
}

#[test]
fn what_a_pass_in_the_background_skips_stays_dirty_until_it_is_synced() {
    let ended = ends(|| {
        let small = Config { readahead_bytes: 0, ..config() };
        let server = memory();
        let file = create(&Engine::new(small).unwrap(), &server, None, 4096);
        // More than the memory: passes run in the background, and none takes a block that may grow.
        let data = sample((12 << 20) + 1000);
        for (n, part) in data.chunks(100_001).enumerate() {
            file.write_at(n as u64 * 100_001, part).unwrap();
        }
        assert!(file.dirty_bytes() >= 1000, "the last block is dirty");
        file.sync().unwrap();
        assert_eq!(file.dirty_bytes(), 0);
        assert!(read_all(&open(&engine(), &server, None)) == data);
    });
    ended.expect(NO_END);
}

#[test]
fn a_cache_that_is_lost_before_it_gets_what_was_read_holds_up_nothing() {
    let ended = ends(|| {
        let server = memory();
        let data = sample(300_000);
        let file = create(&engine(), &server, None, 4096);
        file.write_at(0, &data).unwrap();
        file.close().unwrap();
        let copies = MemoryCache::new(MemoryOptions::default());
        let cache = InterposedCache::new(copies, Crash::after(u32::MAX, false));
        let file = open(&engine(), &server, Some(&cache));
        assert!(read_all(&file) == data);
        cache.hook.now();
        file.write_at(100_000, b"changed").unwrap();
        file.writeback().wait().unwrap();
        file.sync().unwrap();
        assert_eq!(file.dirty_bytes(), 0);
        assert_eq!(file.writeback().wait().unwrap().streams[1].bytes, 0, "nothing is kept for it");
        assert!(!file.verify_cache(|_, _| ()).unwrap(), "there is no copy any more");
    });
    ended.expect(NO_END);
}

#[test]
fn a_read_beside_a_writeback_sees_what_was_written_last() {
    let ended = ends(|| {
        let server = GateServer::new(memory(), Gate::default());
        let file = create(&engine(), &server, None, 4096);
        server.hook.open();
        file.write_at(0, &[1; 20_000]).unwrap();
        file.close().unwrap();

        let server = GateServer::new((*server).clone(), Gate::default());
        let file = open(&engine(), &server, None);
        let mut expected = vec![1; 20_000];
        expected[5000..5100].fill(2);
        file.write_at(5000, &[2; 100]).unwrap();
        let writeback = file.writeback();
        server.hook.wait_for(1);
        assert!(read_all(&file) == expected, "what is under writeback");
        expected[5050..5060].fill(3);
        file.write_at(5050, &[3; 10]).unwrap();
        assert!(read_all(&file) == expected, "what was written beside it");
        server.hook.open();
        writeback.wait().unwrap();
        assert!(read_all(&file) == expected, "afterwards");
        file.close().unwrap();
        assert!(read_all(&open(&engine(), &server, None)) == expected);
    });
    ended.expect(NO_END);
}

#[test]
fn what_was_written_directly_before_a_cut_is_kept_up_to_the_cut_and_nothing_behind_it() {
    let ended = ends(|| {
        let cuts = [1, 4095, 4096, 4097, 16383, 16384, 16385, 29_999];
        let before: [fn(&File); 3] =
            [|_| (), |file| drop(file.writeback()), |file| file.sync().unwrap()];
        for cut in cuts {
            for before in before {
                let server = memory();
                let file = create(&engine(), &server, None, 4096);
                let mut data = sample(30_000);
                file.write_at(0, &data).unwrap();
                before(&file);
                file.write_at(cut - 1, &[7]).unwrap();
                file.set_len(cut).unwrap();
                file.set_len(30_000).unwrap();
                let cut = usize::try_from(cut).unwrap();
                data[cut - 1] = 7;
                data[cut..].fill(0);
                assert!(read_all(&file) == data, "cut to {cut}");
                file.close().unwrap();
                let stored = read_sealed(&server.stored(&name()).unwrap(), &ROOT).unwrap();
                assert!(stored.plaintext == data, "cut to {cut}, on the server");
            }
        }
    });
    ended.expect(NO_END);
}

#[test]
fn a_change_of_part_of_a_block_that_somebody_else_made_a_hole_is_laid_over_zeros() {
    let ended = ends(|| {
        for (at, len) in [(0, 1), (0, 4095), (1, 4095), (1000, 100), (4095, 1)] {
            let server = memory();
            let file = create(&engine(), &server, None, 4096);
            file.write_at(0, &sample(5 * 4096)).unwrap();
            file.sync().unwrap();
            let change = vec![0xAB; len];
            file.write_at(2 * 4096 + at as u64, &change).unwrap();
            open(&engine(), &server, None).punch(2 * 4096..3 * 4096).unwrap();
            file.sync().unwrap();
            let mut expected = sample(5 * 4096);
            expected[2 * 4096..3 * 4096].fill(0);
            expected[2 * 4096 + at..2 * 4096 + at + len].copy_from_slice(&change);
            let stored = read_sealed(&server.stored(&name()).unwrap(), &ROOT).unwrap();
            assert!(stored.plaintext == expected, "{len} bytes at {at}");
            assert!(read_all(&file) == expected, "{len} bytes at {at}, as this client sees it");
        }
    });
    ended.expect(NO_END);
}

#[test]
fn a_second_writeback_of_a_file_joins_the_one_that_runs() {
    let ended = ends(|| {
        let (engine, server) = (engine(), GateServer::new(memory(), Gate::default()));
        let file = create(&engine, &server, None, 4096);
        let again = open(&engine, &server, None);
        file.write_at(0, &[1; 4096]).unwrap();
        let first = file.writeback();
        server.hook.wait_for(1);
        again.write_at(4096, &[2; 4096]).unwrap();
        let second = again.writeback();
        assert_eq!(engine.stats().active_requests, 1);
        let blocks: Vec<_> = server.hook.waiting().into_iter().flatten().collect();
        assert_eq!(blocks, [0], "what was written since is for the next pass");
        server.hook.open();
        first.wait().unwrap();
        second.wait().unwrap();
        assert_eq!(file.dirty_bytes(), 4096);
        file.sync().unwrap();
        assert_eq!(file.dirty_bytes(), 0);
    });
    ended.expect(NO_END);
}

/// Claims to have read more than it was asked for, with the buffer that it was given or another one of
/// so many bytes.
#[derive(Debug)]
struct Boastful {
    own_buffer: Option<usize>,
}

impl Hook for Boastful {
    fn read(&self, target: &Arc<dyn Target>, read: Read, done: ReadCompletion) {
        let own_buffer = self.own_buffer;
        let boast = ReadCompletion::new(move |outcome| match outcome {
            Ok((given, _)) => done.read(own_buffer.map_or(given, Buffer::unpooled), usize::MAX),
            Err(error) => done.failed(error),
        });
        target.read(read, boast);
    }
}

#[test]
fn a_target_that_claims_to_have_read_more_than_it_was_asked_for_is_not_believed() {
    let ended = ends(|| {
        let inner = memory();
        let file = create(&engine(), &inner, None, 4096);
        file.write_at(0, &sample(20_000)).unwrap();
        file.close().unwrap();
        // One of exactly a block, which is a short answer; one of a block and a part.
        for own_buffer in [None, Some(100), Some(4096 + 48), Some(5000)] {
            let server = InterposedServer::new(inner.clone(), Boastful { own_buffer });
            let file = open(&engine(), &server, None);
            let mut bytes = vec![0xEE; 20_000];
            match file.read_at(0, &mut bytes[..10_000]) {
                Ok(len) => {
                    assert!(own_buffer.is_none() && bytes[..len] == sample(20_000)[..10_000]);
                }
                Err(error) => assert!(own_buffer.is_some(), "{error}"),
            }
            assert!(bytes[10_000..].iter().all(|byte| *byte == 0xEE), "it wrote behind the buffer");
        }
    });
    ended.expect(NO_END);
}

//! Direct writes and reads: past the page cache, and of one mind with it.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use fastrand::Rng;
use sealback::{CacheReport, Config, Engine, Error, File};
use sealback_stream::{
    Failure, MemoryCache, MemoryOptions, MemoryServer, TargetError, TargetErrorKind,
    faulty::{Fault, Faults, FaultyServer, Operation, Rule, When},
};
use sealback_tests::{
    counter::{CountedServer, Counter},
    gate::{Gate, GateServer},
    reader::read_sealed,
};

use crate::{
    lifecycle::block_on,
    support::{Log, ROOT, config, create, ends, engine, memory, name, open, read_all, sample},
};

const BLOCK: usize = 4096;

fn stored(server: &MemoryServer) -> Vec<u8> {
    read_sealed(&server.stored(&name()).unwrap(), &ROOT).unwrap().plaintext
}

/// An engine that has nothing in memory.
fn another() -> Engine {
    engine()
}

fn write(file: &File, at: usize, data: &[u8]) {
    let written = file.write_direct(at as u64, data.to_vec());
    written.result.unwrap();
    assert_eq!((written.bytes, &written.buffer[..]), (data.len() as u64, data));
}

#[test]
fn a_direct_write_is_on_the_server_when_it_returns_wherever_it_begins_and_ends() {
    let server = MemoryServer::new(MemoryOptions::default());
    let engine = engine();
    let file = create(&engine, &server, None, BLOCK as u64);
    let mut model = Vec::new();
    for (at, len) in [
        (0, BLOCK),
        (BLOCK, 100),
        (BLOCK + 100, 3 * BLOCK),
        (10, 20),
        (3 * BLOCK - 1, 2),
        (5 * BLOCK, 300_000),
        (400_000, 1),
        (0, 500_001),
        (500_001, 0),
    ] {
        let data = sample(len);
        write(&file, at, &data);
        model.resize(model.len().max(at + len), 0);
        model[at..at + len].copy_from_slice(&data);
        assert!(stored(&server) == model, "{len} bytes at {at}");
        assert_eq!(file.size(), model.len() as u64);
    }
    assert!(read_all(&file) == model);
    assert_eq!(file.dirty_bytes(), 0);
}

/// One handle, all ways of writing and reading, and now and then the view of another client.
#[test]
fn direct_and_buffered_calls_in_any_order_see_what_the_others_wrote() {
    for seed in 0..30 {
        let mut rng = Rng::with_seed(seed);
        let server = memory();
        let folio_bytes = [4096, 16 << 10, 64 << 10][rng.usize(..3)];
        let config = Config { folio_bytes, ..config() };
        let block_bytes = [4096, 16 << 10][rng.usize(..2)];
        let cache = MemoryCache::new(MemoryOptions::default());
        let engine = Engine::new(config).unwrap();
        let file = create(&engine, &server, rng.bool().then_some(&cache as _), block_bytes);
        let (mut model, mut log) = (Vec::new(), Log::default());
        for step in 0..120 {
            let at = rng.usize(..200_000);
            let len = [1, 512, 4096, 100_000][rng.usize(..4)];
            let data = vec![rng.u8(..); rng.usize(..=len)];
            let kind = rng.u32(..7);
            log.0.push(format!("seed {seed} step {step}: {kind} at {at}, {} or {len}", data.len()));
            match kind {
                0 | 1 if !data.is_empty() => {
                    match kind {
                        0 => write(&file, at, &data),
                        _ => file.write_at(at as u64, &data).unwrap(),
                    }
                    model.resize(model.len().max(at + data.len()), 0);
                    model[at..at + data.len()].copy_from_slice(&data);
                }
                2 | 3 => {
                    let mut read = vec![0; len];
                    let n = match kind {
                        2 if len % 2 == 0 => file.read_at(at as u64, &mut read).unwrap(),
                        2 => file.read_once(at as u64, &mut read).unwrap(),
                        _ => file.read_direct(at as u64, &mut read).unwrap(),
                    };
                    let expected = &model[at.min(model.len())..(at + len).min(model.len())];
                    assert!(read[..n] == *expected, "seed {seed} step {step}: {len} at {at}");
                }
                4 => drop(file.writeback()),
                5 => {
                    let size = rng.usize(..200_000);
                    file.set_len(size as u64).unwrap();
                    model.resize(size, 0);
                }
                _ => {
                    file.sync().unwrap();
                    let other = open(&another(), &server, None);
                    let all = read_all(&other);
                    let differs: Vec<_> =
                        (0..model.len()).filter(|i| all[*i] != model[*i]).collect();
                    let mine = read_all(&file);
                    let md: Vec<_> = (0..model.len()).filter(|i| mine[*i] != model[*i]).collect();
                    assert!(
                        differs.is_empty(),
                        "seed {seed} step {step} {:?}..{:?} n {} got {:?} want {:?} mine {:?} bb {block_bytes} fb {folio_bytes}",
                        differs.first(),
                        differs.last(),
                        differs.len(),
                        all[differs[0]],
                        model[differs[0]],
                        md.len()
                    );
                }
            }
            assert_eq!(file.size(), model.len() as u64, "seed {seed} step {step}");
        }
        assert!(read_all(&file) == model, "seed {seed}");
        let mut differs = 0;
        file.sync().unwrap();
        file.verify_cache(|_, report| differs += u32::from(report == CacheReport::Differs))
            .unwrap();
        assert_eq!(differs, 0, "seed {seed}");
    }
}

#[test]
fn whole_blocks_are_written_without_a_read_and_do_not_fill_the_page_cache() {
    let server =
        CountedServer::new(MemoryServer::new(MemoryOptions::default()), Counter::default());
    let engine = engine();
    let file = create(&engine, &server, None, BLOCK as u64);
    let data = sample(64 * BLOCK);
    write(&file, 0, &data);
    write(&file, 8 * BLOCK, &data[..BLOCK]);
    assert!(server.hook.take_read().is_empty());
    assert_eq!(engine.stats().folios_out, 0);
    let mut read = vec![0; 2 * BLOCK];
    assert_eq!(file.read_direct(BLOCK as u64, &mut read).unwrap(), 2 * BLOCK);
    assert!(read == data[BLOCK..3 * BLOCK]);
    let mut fetched = server.hook.take_read();
    assert_eq!((fetched.pop(), fetched.len()), (Some(1..3), 0));
    assert_eq!(engine.stats().folios_out, 0);
}

#[test]
fn what_is_read_once_is_not_kept_and_what_is_in_memory_is_not_fetched() {
    let server =
        CountedServer::new(MemoryServer::new(MemoryOptions::default()), Counter::default());
    let file = create(&engine(), &server, None, BLOCK as u64);
    let mut data = sample(64 * BLOCK + 100);
    write(&file, 0, &data);
    file.close().unwrap();
    let engine = another();
    let file = open(&engine, &server, None);
    data[20 * BLOCK..21 * BLOCK].fill(7);
    file.write_at(20 * BLOCK as u64, &data[20 * BLOCK..21 * BLOCK]).unwrap();
    let n_folios = engine.stats().folios_out;
    server.hook.take_read();
    let mut read = vec![0; 100 * BLOCK];
    let n = file.read_once(7, &mut read).unwrap();
    assert!(read[..n] == data[7..]);
    let mut fetched: Vec<_> = server.hook.take_read().into_iter().flatten().collect();
    fetched.sort_unstable();
    assert!(fetched.into_iter().eq((0..20).chain(21..65)), "each once");
    assert_eq!(engine.stats().folios_out, n_folios);
}

#[test]
fn a_direct_write_that_fails_counts_what_is_there_and_leaves_no_hole_below_it() {
    for failing in 1..=8 {
        let memory = MemoryServer::new(MemoryOptions::default().with_boundary_blocks(4));
        let file = create(&engine(), &memory, None, BLOCK as u64);
        file.write_at(0, &sample(2 * BLOCK)).unwrap();
        file.close().unwrap();
        let fault = TargetError::new(TargetErrorKind::NoSpace, "injected");
        let fault = Fault::Fail(Failure::Fatal(fault));
        let rule = Rule { operation: Operation::Write, when: When::From(failing), fault };
        let faults = Faults::scripted([rule]);
        let server = FaultyServer::new(memory.clone(), &faults);
        let engine = Engine::new(Config { span_bytes: 4 * BLOCK, ..config() }).unwrap();
        let file = open(&engine, &server, None);
        let data = vec![7; 30 * BLOCK + 11];
        let written = file.write_direct(BLOCK as u64, data);
        let kind = written.result.unwrap_err().target_kind();
        assert_eq!(kind, Some(TargetErrorKind::NoSpace), "write {failing}");
        let count = usize::try_from(written.bytes).unwrap();
        assert!(count < written.buffer.len());
        faults.stop();
        let expected_size = (BLOCK + count).max(2 * BLOCK);
        assert_eq!(file.size(), expected_size as u64, "write {failing}");
        let now = read_all(&file);
        assert!(now[BLOCK..BLOCK + count].iter().all(|byte| *byte == 7), "write {failing}");
        // The rest can be written later, by whatever way, and nothing of before shows through.
        file.set_len(100 * BLOCK as u64).unwrap();
        file.sync().unwrap();
        let all = read_all(&open(&another(), &memory, None));
        assert!(all[expected_size..].iter().all(|byte| *byte == 0), "write {failing}");
        assert!(all[..expected_size] == now, "write {failing}");
        write(&file, BLOCK, &written.buffer);
        assert!(stored(&memory)[BLOCK..][..written.buffer.len()] == written.buffer);
    }
}

/// A file on a gated server; the engine has room for a few spans, one write in flight, and seals as many
/// more as it has threads before it rests.
fn gated() -> (Gate, GateServer<MemoryServer>, Engine) {
    let gate = Gate::default();
    let memory = MemoryServer::new(MemoryOptions::default().with_boundary_blocks(4));
    let server = GateServer::new(memory, gate.clone());
    let small = Config { upload_window: 1, span_bytes: 4 * BLOCK, threads: 3, ..config() };
    (gate, server, Engine::new(small).unwrap())
}

#[test]
fn the_next_part_is_sealed_while_the_last_is_in_flight() {
    let (gate, server, engine) = gated();
    let file = create(&engine, &server, None, BLOCK as u64);
    let writing = file.start_write_direct(0, sample(16 * BLOCK));
    gate.wait_for(1);
    for _ in 0..5000 {
        let stats = engine.stats();
        if stats.buffers - stats.buffers_free == 4 {
            break;
        }
        thread::sleep(Duration::from_millis(1));
    }
    let stats = engine.stats();
    assert_eq!(stats.buffers - stats.buffers_free, 4, "all four spans are sealed or being sealed");
    assert_eq!(gate.waiting().len(), 1, "one is in flight");
    gate.open();
    writing.wait().result.unwrap();
}

#[test]
fn a_direct_write_is_cancelled_only_if_that_is_asked_for() {
    let (gate, server, engine) = gated();
    let file = create(&engine, &server, None, BLOCK as u64);
    let data = sample(16 * BLOCK);
    let writing = file.start_write_direct(0, data.clone());
    gate.wait_for(1);
    writing.cancel();
    assert!(!writing.is_done(), "what is with the server is waited for");
    gate.pass(0);
    let written = writing.wait();
    assert!(matches!(written.result, Err(Error::Cancelled)), "{:?}", written.result);
    assert!(written.buffer == data && written.bytes <= 4 * BLOCK as u64);
    assert!(gate.waiting().is_empty(), "nothing more was sent");

    gate.open();
    drop(file.start_write_direct(0, data.clone()));
    let (sender, done) = mpsc::channel();
    file.start_write_direct(16 * BLOCK as u64, data.clone())
        .on_done(move |written| sender.send(written.result.is_ok()).unwrap());
    assert!(done.recv().unwrap());
    let awaited = block_on(file.start_write_direct(32 * BLOCK as u64, data.clone()));
    awaited.result.unwrap();
    assert!(
        read_all(&open(&another(), &server, None)) == [&data[..]; 3].concat(),
        "the dropped one went on"
    );
}

#[test]
fn what_is_dirty_of_the_same_blocks_goes_before_a_direct_write() {
    let server = memory();
    let cache = MemoryCache::new(MemoryOptions::default());
    let file = create(&engine(), &server, Some(&cache), BLOCK as u64);
    file.write_at(0, &[1; 8 * BLOCK]).unwrap();
    file.write_at(20 * BLOCK as u64, &[1; BLOCK]).unwrap();
    write(&file, 2 * BLOCK + 10, &[2; 4 * BLOCK]);
    let mut expected = vec![1; 8 * BLOCK];
    expected.resize(20 * BLOCK, 0);
    expected.extend([1; BLOCK]);
    expected[2 * BLOCK + 10..][..4 * BLOCK].fill(2);
    assert!(read_all(&file) == expected, "what is here of them is what is there");
    file.sync().unwrap();
    assert!(read_all(&open(&engine(), &server, None)) == expected);
    let mut differs = 0;
    assert!(file.verify_cache(|_, r| differs += u32::from(r == CacheReport::Differs)).unwrap());
    assert_eq!(differs, 0);
}

#[test]
fn a_direct_write_into_part_of_a_block_keeps_what_others_change_in_it() {
    let server = memory();
    let file = create(&engine(), &server, None, BLOCK as u64);
    file.write_at(0, &[0; 3 * BLOCK]).unwrap();
    file.sync().unwrap();
    thread::scope(|scope| {
        for client in 0..2 {
            let server = &server;
            scope.spawn(move || {
                let file = open(&engine(), server, None);
                let mine = u8::try_from(client + 1).unwrap();
                for round in 0..150 {
                    let at = (round * 2 + client) * 20;
                    write(&file, at, &[mine; 20]);
                }
            });
        }
    });
    let all = read_all(&open(&engine(), &server, None));
    for (index, stretch) in all[..300 * 20].chunks(20).enumerate() {
        let of = u8::try_from(index % 2 + 1).unwrap();
        assert!(stretch.iter().all(|byte| *byte == of), "stretch {index}: {stretch:?}");
    }
}

#[test]
fn a_direct_write_over_a_block_that_somebody_else_has_changed_is_told_of_where_that_was_asked_for()
{
    let server = memory();
    let file = create(&engine(), &server, None, BLOCK as u64);
    file.write_at(0, &[1; 2 * BLOCK]).unwrap();
    file.sync().unwrap();
    file.tell_lost_updates(true);
    let other = open(&engine(), &server, None);
    write(&other, BLOCK, &[2; BLOCK]);
    let written = file.write_direct(0, vec![3; 2 * BLOCK]);
    let Err(Error::Conflict { blocks }) = &written.result else { panic!("{written:?}") };
    assert_eq!(blocks.iter().map(|conflict| conflict.block).collect::<Vec<_>>(), [1]);
    let mut seen = [0; BLOCK];
    file.read_at(BLOCK as u64, &mut seen).unwrap();
    assert_eq!(seen, [2; BLOCK], "it is as the other left it");
    write(&file, 0, &written.buffer);
    assert!(read_all(&open(&engine(), &server, None)) == written.buffer);
}

#[test]
fn buffered_and_direct_writers_of_one_file_lose_nothing_of_one_another() {
    let server = memory();
    let engine = engine();
    let file = create(&engine, &server, None, BLOCK as u64);
    file.write_at(0, &[0; 64 * BLOCK]).unwrap();
    thread::scope(|scope| {
        for thread in 0..4_usize {
            let file = &file;
            scope.spawn(move || {
                let mut rng = Rng::with_seed(thread as u64);
                for round in 1..=60_u8 {
                    // Each has every fourth stretch of 1000 bytes.
                    let at = (rng.usize(..64) * 4 + thread) * 1000;
                    match thread % 2 {
                        0 => write(file, at, &[round; 1000]),
                        _ => file.write_at(at as u64, &[round; 1000]).unwrap(),
                    }
                    let mut read = [0; 1000];
                    file.read_at(at as u64, &mut read).unwrap();
                    assert_eq!(read, [round; 1000], "thread {thread} at {at}");
                    if rng.u32(..8) == 0 {
                        file.sync().unwrap();
                    }
                }
            });
        }
    });
    let all = read_all(&file);
    file.close().unwrap();
    assert!(read_all(&open(&another(), &server, None)) == all);
    for stretch in all[..256_000].chunks(1000) {
        assert!(stretch.iter().all(|byte| *byte == stretch[0]));
    }
}

#[test]
fn a_direct_write_beyond_what_a_file_can_hold_is_refused_and_gives_the_buffer_back() {
    let server = memory();
    let engine = engine();
    let file = create(&engine, &server, None, BLOCK as u64);
    for position in [u64::MAX, 1 << 60, (1 << 60) - 1] {
        let written = file.write_direct(position, vec![1; 2]);
        assert!(matches!(written.result, Err(Error::TooLarge)), "{position}");
        assert_eq!((written.bytes, written.buffer), (0, vec![1; 2]));
    }
    assert_eq!(file.read_direct(u64::MAX, &mut [0; 8]).unwrap(), 0);
    engine.shutdown().unwrap();
    let written = file.write_direct(0, vec![1; 2]);
    assert!(matches!(written.result, Err(Error::Closed)));
}

#[test]
fn a_direct_write_that_grows_the_file_is_committed_with_all_that_lies_before_it() {
    for folio_bytes in [BLOCK, 4 * BLOCK] {
        let server = memory();
        let engine = Engine::new(Config { folio_bytes, ..config() }).unwrap();
        let file = create(&engine, &server, None, BLOCK as u64);
        file.append(&[1; 2 * BLOCK]).unwrap();
        write(&file, 2 * BLOCK, &[2; 3]);
        assert_eq!((file.dirty_bytes(), file.info().size), (0, 2 * BLOCK as u64 + 3));
        file.set_len(BLOCK as u64 + 1).unwrap();
        file.sync().unwrap();
        let expected = vec![1; BLOCK + 1];
        assert!(read_all(&open(&another(), &server, None)) == expected);
    }
}

#[test]
fn a_direct_write_into_a_gap_leaves_what_was_never_sent_before_it_to_be_cut() {
    let server = memory();
    let file = create(&engine(), &server, None, BLOCK as u64);
    file.append(&[1; BLOCK]).unwrap();
    file.write_at(18 * BLOCK as u64, &[3; 3]).unwrap();
    write(&file, BLOCK, &[2; 4]);
    file.set_len(1).unwrap();
    file.sync().unwrap();
    assert!(read_all(&open(&another(), &server, None)) == [1]);
}

#[test]
fn what_was_cut_off_after_a_direct_write_does_not_come_back() {
    let server = memory();
    let file = create(&engine(), &server, None, BLOCK as u64);
    file.write_at(0, &[1; 2]).unwrap();
    write(&file, BLOCK, &[2; 2 * BLOCK]);
    file.set_len(BLOCK as u64 + 1).unwrap();
    file.write_at(2 * BLOCK as u64 - 10, &[3; 5]).unwrap();
    file.sync().unwrap();
    let mut expected = vec![0; 2 * BLOCK - 5];
    expected[..2].fill(1);
    expected[BLOCK] = 2;
    expected[2 * BLOCK - 10..].fill(3);
    assert!(read_all(&open(&another(), &server, None)) == expected);
}

#[test]
fn a_file_that_grows_over_a_block_that_is_still_dirty_is_not_committed_beyond_it() {
    let server = memory();
    let engine = engine();
    let file = create(&engine, &server, None, BLOCK as u64);
    file.write_at(0, &[1; BLOCK + 100]).unwrap();
    file.sync().unwrap();
    // The block that the file ends in is dirty before its end, and longer than it is stored.
    file.write_at(BLOCK as u64 + 10, &[2; 20]).unwrap();
    file.set_len(BLOCK as u64 + 200).unwrap();
    write(&file, 0, &[3; BLOCK]);
    assert_eq!(file.info().size, BLOCK as u64 + 100);
    let other = open(&another(), &server, None);
    assert!(read_all(&other)[BLOCK..] == [1; 100], "others see nothing of it yet");
    file.sync().unwrap();
    let mut expected = [vec![3; BLOCK], vec![1; 100], vec![0; 100]].concat();
    expected[BLOCK + 10..BLOCK + 30].fill(2);
    assert!(read_all(&open(&another(), &server, None)) == expected);
}

#[test]
fn who_appends_beside_a_direct_write_that_grows_the_file_does_so_behind_it() {
    let gate = Gate::default();
    let server = GateServer::new(MemoryServer::new(MemoryOptions::default()), gate.clone());
    let file = create(&engine(), &server, None, BLOCK as u64);
    let writing = file.start_write_direct(0, vec![1; 8 * BLOCK]);
    gate.wait_for(1);
    let appending = file.submit(|file| file.append(&[2; 100]));
    thread::sleep(Duration::from_millis(50));
    assert!(!appending.is_done(), "it is not known yet where the file ends");
    gate.open();
    writing.wait().result.unwrap();
    assert_eq!(appending.wait().unwrap(), 8 * BLOCK as u64);
    file.sync().unwrap();
    let expected = [vec![1; 8 * BLOCK], vec![2; 100]].concat();
    assert!(read_all(&open(&another(), &server, None)) == expected);
}

/// A buffer that has become short when it is looked at so often.
struct Shrinking {
    bytes: Vec<u8>,
    looks: AtomicUsize,
}

impl AsRef<[u8]> for Shrinking {
    fn as_ref(&self) -> &[u8] {
        let left =
            self.looks.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        if left.is_ok() { &self.bytes } else { &self.bytes[..10] }
    }
}

#[test]
fn a_buffer_that_is_not_as_long_as_it_said_fails_its_write_and_no_other() {
    for looks in 1..12 {
        let ended = ends(move || {
            let server = memory();
            let file = create(&engine(), &server, None, BLOCK as u64);
            let buffer = Shrinking { bytes: vec![7; 300_000], looks: AtomicUsize::new(looks) };
            let writing = file.submit(move |file| file.write_direct(10, buffer).result.is_ok());
            // Or the call has panicked, as its buffer did.
            let went_well = catch_unwind(AssertUnwindSafe(|| writing.wait()));
            assert!(!went_well.unwrap_or(false));
            write(&file, 0, &[1; 3 * BLOCK]);
            read_all(&open(&another(), &server, None))[..3 * BLOCK] == [1; 3 * BLOCK]
        });
        assert_eq!(ended, Some(true), "{looks}");
    }
}

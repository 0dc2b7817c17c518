//! The page cache: what is read for a write, and when.

use std::{sync::Arc, thread, time::Duration};

use sealback::{Config, CreateOptions, Engine, Error, File, Place};
use sealback_stream::{MemoryOptions, MemoryServer, Name, Runs};
use sealback_tests::{
    counter::{CountedServer, Counter},
    gate::{Gate, GateServer},
    reader::read_sealed,
};

use crate::support::{
    ROOT, config, create, ends, engine, n_folios, name, open, read_all, root, sample,
};

const BLOCK: usize = 4096;

fn counted() -> CountedServer<MemoryServer> {
    CountedServer::new(MemoryServer::new(MemoryOptions::default()), Counter::default())
}

/// A file of `n_blocks` that was written, closed and opened again, with nothing in memory.
fn cold(server: &CountedServer<MemoryServer>, n_blocks: usize) -> (Engine, File, Vec<u8>) {
    let data = sample(n_blocks * BLOCK);
    let file = create(&engine(), server, None, BLOCK as u64);
    file.write_at(0, &data).unwrap();
    file.close().unwrap();
    let engine = Engine::new(config()).unwrap();
    let file = open(&engine, server, None);
    server.hook.take_read();
    server.hook.take_written();
    (engine, file, data)
}

fn stored(server: &CountedServer<MemoryServer>) -> Vec<u8> {
    read_sealed(&server.stored(&name()).unwrap(), &ROOT).unwrap().plaintext
}

#[test]
fn a_write_into_part_of_a_block_reads_nothing_until_it_is_written_back() {
    let server = counted();
    let (_engine, file, mut data) = cold(&server, 8);
    for at in [0, 4095, 3 * BLOCK + 7, 8 * BLOCK - 1] {
        file.write_at(at as u64, &[1]).unwrap();
        data[at] = 1;
    }
    assert!(server.hook.take_read().is_empty(), "nothing is read for a write");
    file.sync().unwrap();
    let mut read = server.hook.take_read();
    read.sort_by_key(|blocks| blocks.start);
    assert_eq!(read, [0..1, 3..4, 7..8], "what the blocks lack, once");
    assert!(stored(&server) == data && read_all(&file) == data);
}

#[test]
fn a_block_that_is_written_piece_by_piece_is_never_read() {
    let server = counted();
    let (_engine, file, _) = cold(&server, 4);
    for at in (0..4 * BLOCK).step_by(512) {
        file.write_at(at as u64, &[7; 512]).unwrap();
    }
    file.sync().unwrap();
    assert!(server.hook.take_read().is_empty());
    assert!(stored(&server) == vec![7; 4 * BLOCK]);
}

#[test]
fn an_append_reads_the_block_that_the_file_ends_in_and_nothing_else() {
    let server = counted();
    let engine = engine();
    let file = create(&engine, &server, None, BLOCK as u64);
    let mut data = sample(3 * BLOCK + 100);
    file.write_at(0, &data).unwrap();
    file.close().unwrap();
    let file = open(&Engine::new(config()).unwrap(), &server, None);
    server.hook.take_read();
    file.write_at(file.size(), &[9; 3 * BLOCK]).unwrap();
    assert!(server.hook.take_read().is_empty());
    file.sync().unwrap();
    // Once to see that nothing lies behind the end, and once for what is before it.
    assert!(server.hook.take_read().iter().all(|blocks| *blocks == (3..4)));
    data.extend([9; 3 * BLOCK]);
    assert!(stored(&server) == data && read_all(&file) == data);
}

#[test]
fn bytes_written_beside_bytes_that_are_not_here_are_read_together_with_them() {
    let server = counted();
    let (_engine, file, mut data) = cold(&server, 4);
    file.write_at(5000, &[3; 50]).unwrap();
    data[5000..5050].fill(3);
    assert!(read_all(&file) == data);
    let mut part = [0; 100];
    assert_eq!(file.read_at(4980, &mut part).unwrap(), 100);
    assert!(part[..] == data[4980..5080]);
    file.sync().unwrap();
    assert!(stored(&server) == data);
}

#[test]
fn a_block_that_cannot_be_read_fails_the_sync_and_all_others_are_written() {
    let server = counted();
    let (_engine, file, mut data) = cold(&server, 40);
    server.hook.set_unreadable([5, 6, 30]);
    for block in (0..40).step_by(5).chain([6]) {
        file.write_at((block * BLOCK + 9) as u64, &[1, 2, 3]).unwrap();
    }
    let error = file.sync().unwrap_err();
    assert!(matches!(error, Error::Unread { .. }), "{error:?}");
    assert_eq!(file.dirty_bytes(), 9, "the blocks that cannot be read");
    let mut written: Vec<u64> = server.hook.take_written().iter().flat_map(Runs::blocks).collect();
    written.sort_unstable();
    assert_eq!(written, [0, 10, 15, 20, 25, 35]);
    server.hook.set_unreadable([]);
    file.sync().unwrap();
    assert_eq!(file.dirty_bytes(), 0);
    for block in (0..40).step_by(5).chain([6]) {
        data[block * BLOCK + 9..][..3].copy_from_slice(&[1, 2, 3]);
    }
    assert!(stored(&server) == data);
}

#[test]
fn what_was_read_is_not_read_again_as_long_as_there_is_memory() {
    let server = counted();
    let (_engine, file, data) = cold(&server, 64);
    assert!(read_all(&file) == data);
    let mut read: Vec<u64> = server.hook.take_read().into_iter().flatten().collect();
    read.sort_unstable();
    assert!(read.into_iter().eq(0..64), "each block once, ahead or not");
    assert!(read_all(&file) == data);
    assert!(server.hook.take_read().is_empty());
}

#[test]
fn a_random_read_fetches_its_blocks_and_no_others() {
    let server = counted();
    let (_engine, file, data) = cold(&server, 200);
    for (block, len) in [(150, 10), (20, 4096), (99, 5000), (3, 1)] {
        let mut to = vec![0; len];
        assert_eq!(file.read_at((block * BLOCK) as u64, &mut to).unwrap(), len);
        assert!(to[..] == data[block * BLOCK..][..len]);
        let read: Vec<u64> = server.hook.take_read().into_iter().flatten().collect();
        assert!(read.into_iter().eq(block as u64..(block + len.div_ceil(BLOCK)) as u64));
    }
}

#[test]
fn the_clean_folio_that_was_used_least_recently_goes_first() {
    let server = counted();
    let config = Config { readahead_bytes: 0, folio_bytes: 256 << 10, ..config() };
    let n_folios = n_folios(&config);
    let data = sample((n_folios + 1) * config.folio_bytes);
    let writer = create(&engine(), &server, None, BLOCK as u64);
    writer.write_at(0, &data).unwrap();
    writer.close().unwrap();
    let engine = Engine::new(config.clone()).unwrap();
    let file = open(&engine, &server, None);
    let read = |folio: usize| {
        server.hook.take_read();
        let (at, mut to) = (folio * config.folio_bytes, vec![0; config.folio_bytes]);
        file.read_at(at as u64, &mut to).unwrap();
        assert!(to[..] == data[at..][..to.len()]);
        !server.hook.take_read().is_empty()
    };
    assert!((0..n_folios).all(read), "they fill the memory");
    assert!(!read(0), "it is used again");
    assert!(read(n_folios), "something has to go");
    assert!(!read(0), "not what was used last");
    assert!(read(1), "but what was used longest ago");
}

#[test]
fn a_file_that_others_have_changed_is_read_anew_when_it_is_opened_once_more() {
    let server = counted();
    let (engine, file, mut data) = cold(&server, 8);
    assert!(read_all(&file) == data);
    let other = open(&Engine::new(config()).unwrap(), &server, None);
    other.write_at(9000, b"changed").unwrap();
    other.close().unwrap();
    data[9000..9007].copy_from_slice(b"changed");
    let again = open(&engine, &server, None);
    assert!(read_all(&again) == data, "close to open");
    assert!(read_all(&file) == data, "handles of a file share its folios");
}

/// A file behind a gate, with some of it dirty and a background writeback of that waiting at the gate.
fn gated(config: &Config) -> (Engine, GateServer<MemoryServer>, File) {
    let server = GateServer::new(MemoryServer::new(MemoryOptions::default()), Gate::default());
    let engine = Engine::new(config.clone()).unwrap();
    let file = create(&engine, &server, None, BLOCK as u64);
    (engine, server, file)
}

#[test]
fn what_is_dirty_for_long_is_written_back_though_nobody_asks() {
    let config = Config { dirty_expire: Duration::from_millis(50), ..config() };
    let (_engine, server, file) = gated(&config);
    file.write_at(0, b"a few bytes").unwrap();
    server.hook.wait_for(1);
    server.hook.open();
    let clean = ends(move || {
        while file.dirty_bytes() > 0 {
            thread::sleep(Duration::from_millis(5));
        }
    });
    clean.expect("it becomes clean");
}

#[test]
fn more_than_the_background_share_is_written_back_whosever_files_it_is_in() {
    let config = Config { dirty_background_percent: 20, folio_bytes: 64 << 10, ..config() };
    let (engine, server, first) = gated(&config);
    let n_folios = n_folios(&config);
    // Sealed as soon as its pass begins, like the others.
    first.write_at(0, &[1; 4 * 4096]).unwrap();
    let names: Vec<_> =
        (0..n_folios / 4).map(|n| Name::new(&format!("file {n}")).unwrap()).collect();
    let root = root();
    let place = Place { server: &server, cache: None, root: &root };
    let files: Vec<_> = names
        .iter()
        .map(|name| engine.create(&place, name, &CreateOptions::default()).unwrap())
        .collect();
    assert!(server.hook.waiting().is_empty(), "little is dirty");
    files.iter().for_each(|file| file.write_at(0, &[2; 20_000]).unwrap());
    server.hook.wait_for(1);
    let went_first = server.hook.waiting()[0].clone();
    server.hook.open();
    assert_eq!(went_first, 0..4, "the one first that has been dirty for longest");
}

#[test]
fn small_files_are_written_back_until_no_more_than_the_background_share_is_dirty() {
    let ended = ends(|| {
        let config = Config { dirty_background_percent: 10, folio_bytes: 4096, ..config() };
        let engine = Engine::new(Config { dirty_expire: Duration::MAX, ..config }).unwrap();
        let (server, root) = (MemoryServer::new(MemoryOptions::default()), root());
        let place = Place { server: &server, cache: None, root: &root };
        let create = |n| {
            let name = Name::new(&format!("file {n}")).unwrap();
            engine.create(&place, &name, &CreateOptions::default()).unwrap()
        };
        let files: Vec<_> = (0..300).map(create).collect();
        // The last block of each is all it has.
        files.iter().for_each(|file| file.write_at(0, b"small").unwrap());
        let n_dirty = || files.iter().filter(|file| file.dirty_bytes() > 0).count();
        while n_dirty() > 128 || engine.stats().active_requests > 0 {
            thread::sleep(Duration::from_millis(5));
        }
    });
    ended.expect("passes begin again and again, and write nothing");
}

#[test]
fn a_file_that_was_made_longer_is_so_on_the_server_some_time_later() {
    let config = Config { dirty_expire: Duration::from_millis(50), ..config() };
    let (_engine, server, file) = gated(&config);
    server.hook.open();
    file.set_len(100_000).unwrap();
    let committed = ends(move || {
        while file.info().size < 100_000 {
            thread::sleep(Duration::from_millis(5));
        }
    });
    committed.expect("nobody asks, and it is committed all the same");
}

#[test]
fn a_writer_waits_at_the_limit_until_writeback_has_made_room() {
    let config = Config { dirty_limit_percent: 50, folio_bytes: 64 << 10, ..config() };
    let n_folios = n_folios(&config);
    let data = sample(n_folios * config.folio_bytes * 2);
    let copied = |file: &File, data: &[u8]| file.write_at(0, data).unwrap();
    let taken = |file: &File, mut data: &[u8]| {
        file.write_from(0, &mut data, |_| ()).unwrap().1.unwrap();
    };
    let writes: [fn(&File, &[u8]); 2] = [copied, taken];
    for write in writes {
        let (engine, server, file) = gated(&config);
        let file = Arc::new(file);
        let writer = thread::spawn({
            let (file, data) = (file.clone(), data.clone());
            move || write(&file, &data)
        });
        server.hook.wait_for(1);
        thread::sleep(Duration::from_millis(100));
        assert!(!writer.is_finished(), "it waits");
        let out = engine.stats().folios_out;
        assert!(out <= n_folios / 2 + 1, "{out} of {n_folios} folios are dirty");
        server.hook.open();
        writer.join().unwrap();
        file.sync().unwrap();
        assert!(read_all(&file) == data);
    }
}

#[test]
fn a_sync_does_not_wait_for_what_is_written_after_its_call() {
    let (_engine, server, file) = gated(&config());
    file.write_at(0, &[1; 2 * BLOCK]).unwrap();
    let file = Arc::new(file);
    let syncing = thread::spawn({
        let file = file.clone();
        move || file.sync().unwrap()
    });
    server.hook.wait_for(1);
    // Behind what is under writeback, and more than once.
    for _ in 0..3 {
        file.write_at(100 * BLOCK as u64, &[2; 64 * BLOCK]).unwrap();
    }
    server.hook.open();
    syncing.join().unwrap();
    assert_eq!(file.dirty_bytes(), 64 * BLOCK as u64, "it is dirty as it was");
    file.sync().unwrap();
}

#[test]
fn a_sync_makes_a_background_pass_end_and_runs_one_of_its_own() {
    let (engine, server, file) = gated(&config());
    let data = sample(3 << 20);
    let all_spans = (data.len() / config().span_bytes) as u64;
    file.write_at(0, &data).unwrap();
    server.hook.wait_for(1);
    let syncing = file.submit(File::sync);
    // Time to find the pass running, and to wait.
    thread::sleep(Duration::from_millis(100));
    assert!(!syncing.is_done());
    // Counted when it has ended.
    while engine.stats().requests.spans == 0 {
        if server.hook.waiting().is_empty() {
            thread::yield_now();
        } else {
            server.hook.pass(0);
        }
    }
    let spans = engine.stats().requests.spans;
    assert!(spans < all_spans, "it gave way, with {spans} of {all_spans} spans");
    server.hook.open();
    syncing.wait().unwrap();
    assert_eq!(engine.stats().requests.spans, all_spans, "the second pass took the rest");
    assert_eq!(file.dirty_bytes(), 0);
    assert!(read_sealed(&server.stored(&name()).unwrap(), &ROOT).unwrap().plaintext == data);
}

#[test]
fn a_pass_fetches_what_a_block_lacks_however_many_of_its_folios_were_written_since() {
    const LARGE: u64 = 1 << 20;
    let ended = ends(|| {
        let server = GateServer::new(MemoryServer::new(MemoryOptions::default()), Gate::default());
        server.hook.open();
        let file = create(&engine(), &server, None, LARGE);
        let mut data = sample(6 << 20);
        file.write_at(0, &data).unwrap();
        file.close().unwrap();
        let gate = Gate::default();
        let server = GateServer::new(MemoryServer::clone(&server), gate.clone());
        let config = Config { dirty_background_percent: 100, dirty_limit_percent: 100, ..config() };
        let engine = Engine::new(Config { folio_bytes: 4096, ..config }).unwrap();
        let file = open(&engine, &server, None);
        let mut write = |at: u64, bytes: &[u8]| {
            file.write_at(at, bytes).unwrap();
            let at = usize::try_from(at).unwrap();
            data[at..at + bytes.len()].copy_from_slice(bytes);
        };
        // There are two buffers for such blocks: the pass waits before the third.
        write(0, &[1; 3 << 20]);
        write(5 * LARGE + 800_000, b"before");
        let syncing = file.submit(File::sync);
        gate.wait_for(1);
        for folio in 0..8 {
            write(5 * LARGE + folio * 4096, b"since");
        }
        gate.open();
        syncing.wait().unwrap();
        file.sync().unwrap();
        assert!(read_all(&file) == data);
    });
    ended.expect("it waits for ever for what nobody fetches");
}

#[test]
fn a_sync_of_a_range_writes_its_blocks_and_no_others() {
    let server = counted();
    let (_engine, file, mut data) = cold(&server, 100);
    for block in [3, 10, 11, 12, 50] {
        file.write_at((block * BLOCK + 5) as u64, &[8; 10]).unwrap();
        data[block * BLOCK + 5..][..10].fill(8);
    }
    let (start, end) = ((10 * BLOCK + 4000) as u64, 11 * BLOCK as u64 + 1);
    file.sync_range(start..end).unwrap();
    let mut written: Vec<u64> = server.hook.take_written().iter().flat_map(Runs::blocks).collect();
    written.sort_unstable();
    assert_eq!(written, [10, 11]);
    assert_eq!(file.dirty_bytes(), 30);
    // Behind the end, everything that is new goes with it.
    file.write_at(200 * BLOCK as u64, &[9; 100]).unwrap();
    file.sync_range(200 * BLOCK as u64..201 * BLOCK as u64).unwrap();
    assert_eq!((file.dirty_bytes(), file.info().size), (0, 200 * BLOCK as u64 + 100));
    data.resize(200 * BLOCK, 0);
    data.extend([9; 100]);
    assert!(stored(&server) == data);
}

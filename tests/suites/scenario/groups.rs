//! Write groups: what was written before others is on the server before them, as it was.

use std::{
    ops::Range,
    sync::{Arc, Mutex, mpsc},
};

use fastrand::Rng;
use sealback::{CreateOptions, Engine, Error, File, Place};
use sealback_stream::{
    Failure, MemoryCache, MemoryOptions, MemoryServer, Runs, Server, TargetError, TargetErrorKind,
    faulty::{Fault, Faults, FaultyServer, Operation, Rates, Rule, When},
};
use sealback_tests::{
    counter::{CountedServer, Counter},
    gate::{Gate, GateServer},
    reader::read_sealed,
};

use crate::{
    lifecycle::block_on,
    support::{Log, ROOT, create, ends, engine_with, memory, name, open, read_all, root, sample},
};

const BLOCK: usize = 4096;

fn stored(server: &MemoryServer) -> Vec<u8> {
    read_sealed(&server.stored(&name()).unwrap(), &ROOT).unwrap().plaintext
}

/// A file of so many blocks, all of them on the server, in folios of one block.
fn written(server: &dyn Server, n_blocks: usize) -> (Engine, File) {
    let engine = engine_with(BLOCK);
    let file = create(&engine, server, None, BLOCK as u64);
    file.write_at(0, &vec![1; n_blocks * BLOCK]).unwrap();
    file.sync().unwrap();
    (engine, file)
}

fn counted() -> CountedServer<MemoryServer> {
    CountedServer::new(MemoryServer::new(MemoryOptions::default()), Counter::default())
}

fn write_blocks(file: &File, blocks: &[u64], byte: u8) {
    for block in blocks {
        file.write_at(block * BLOCK as u64, &[byte; BLOCK]).unwrap();
    }
}

fn taken(server: &CountedServer<MemoryServer>) -> Vec<u64> {
    server.hook.take_written().iter().flat_map(Runs::blocks).collect()
}

#[test]
fn older_groups_are_written_back_whole_before_newer_ones() {
    let gate = Gate::default();
    let server = GateServer::new(MemoryServer::new(MemoryOptions::default()), gate.clone());
    gate.open();
    let (_engine, file) = written(&server, 20);
    gate.close();
    write_blocks(&file, &[3, 10], 2);
    file.close_group();
    write_blocks(&file, &[0, 5, 15], 3);
    file.close_group();
    write_blocks(&file, &[4, 11], 4);
    let syncing = file.submit(|file| file.sync());
    for group in [vec![3..4, 10..11], vec![0..1, 5..6, 15..16], vec![4..5, 11..12]] {
        gate.wait_for(group.len());
        let mut waiting = gate.waiting();
        waiting.sort_by_key(|blocks| blocks.start);
        assert_eq!(waiting, group, "a group, whole, and nothing of another");
        (0..group.len()).for_each(|_| gate.pass(0));
    }
    syncing.wait().unwrap();
    assert_eq!(file.dirty_bytes(), 0);
}

#[test]
fn a_write_into_a_folio_of_an_older_group_has_that_written_back_first_and_no_more() {
    let server = counted();
    let (_engine, file) = written(&server, 20);
    write_blocks(&file, &[0, 2, 4, 6], 2);
    file.close_group();
    server.hook.take_written();
    write_blocks(&file, &[10], 3);
    assert!(taken(&server).is_empty(), "it is nobody's yet");
    file.write_at(2 * BLOCK as u64 + 5, &[3; 10]).unwrap();
    assert_eq!(taken(&server), [2]);
    assert_eq!(stored(&server)[2 * BLOCK..3 * BLOCK], [2; BLOCK], "as it was in its group");
    file.write_at(2 * BLOCK as u64 + 5, &[3; 100]).unwrap();
    assert!(taken(&server).is_empty(), "now it is of this group");
    file.close_group();
    file.write_at(10 * BLOCK as u64, &[4; 10]).unwrap();
    let written = taken(&server);
    assert_eq!(written, [0, 4, 6, 10], "older ones go first, then it");
    file.sync().unwrap();
    assert_eq!(taken(&server), [2, 10]);
}

#[test]
fn a_write_into_a_block_of_an_older_group_has_its_other_folios_written_back_too() {
    let server = counted();
    let engine = engine_with(BLOCK);
    let file = create(&engine, &server, None, 4 * BLOCK as u64);
    file.write_at(0, &vec![1; 16 * BLOCK]).unwrap();
    file.sync().unwrap();
    file.write_at(0, &[2; 10]).unwrap();
    file.close_group();
    server.hook.take_written();
    // Another folio, and the same block.
    file.write_at(3 * BLOCK as u64, &[3; 10]).unwrap();
    assert_eq!(taken(&server), [0]);
    let stored = stored(&server);
    assert_eq!((stored[0], stored[3 * BLOCK]), (2, 1));
}

#[test]
fn the_end_of_a_group_is_told_when_it_is_on_the_server_and_before_anything_newer_is_sent() {
    let server = counted();
    let (_engine, file) = written(&server, 20);
    let first = file.write_group();
    write_blocks(&file, &[1, 2, 9], 2);
    let waited = file.group_ended(first);
    assert_eq!(file.close_group(), first);
    assert!(file.write_group() > first && !waited.is_done());
    let (sender, told) = mpsc::channel();
    let (hook, memory) = (server.hook.clone(), MemoryServer::clone(&server));
    file.group_ended(first).on_done(move |ended| {
        let stored = stored(&memory);
        let is_there = [1, 2, 9].iter().all(|block| stored[block * BLOCK] == 2);
        let written: Vec<_> = hook.take_written().iter().flat_map(Runs::blocks).collect();
        sender.send((ended.is_ok() && is_there, written)).unwrap();
    });
    server.hook.take_written();
    write_blocks(&file, &[0, 3, 19], 3);
    file.writeback().wait().unwrap();
    assert_eq!(told.recv().unwrap(), (true, vec![1, 2, 9]));
    waited.wait().unwrap();
    let second = file.close_group();
    let awaited = file.group_ended(second);
    assert!(!awaited.is_done());
    file.sync().unwrap();
    block_on(awaited).unwrap();
    // Of those that have ended, and of one with nothing in it, it is told at once.
    assert!(file.group_ended(first).is_done());
    let empty = file.close_group();
    assert!(file.group_ended(empty).is_done());
}

#[test]
fn a_group_that_makes_the_file_longer_ends_with_a_header_that_says_so_and_says_no_more() {
    let server = memory();
    let engine = engine_with(BLOCK);
    let file = create(&engine, &server, None, BLOCK as u64);
    file.write_at(0, &[2; 100]).unwrap();
    let group = file.close_group();
    let (sender, told) = mpsc::channel();
    let behind = MemoryServer::clone(&server);
    file.group_ended(group).on_done(move |_| sender.send(stored(&behind)).unwrap());
    file.write_at(5 * BLOCK as u64, &[3; 100]).unwrap();
    file.sync().unwrap();
    assert!(told.recv().unwrap() == [2; 100]);
    assert_eq!(file.info().size, 5 * BLOCK as u64 + 100);
}

#[test]
fn a_write_into_an_older_group_that_cannot_be_written_back_fails_and_changes_nothing() {
    let memory = MemoryServer::new(MemoryOptions::default());
    written(&memory, 8).1.close().unwrap();
    let full = TargetError::new(TargetErrorKind::NoSpace, "injected");
    let fault = Fault::Fail(Failure::Fatal(full));
    let rule = Rule { operation: Operation::Write, when: When::From(1), fault };
    let faults = Faults::scripted([rule]);
    let server = FaultyServer::new(memory.clone(), &faults);
    let engine = engine_with(BLOCK);
    let file = open(&engine, &server, None);
    write_blocks(&file, &[2], 2);
    let group = file.close_group();
    let ended = file.group_ended(group);
    let error = file.write_at(2 * BLOCK as u64, &[3; 10]).unwrap_err();
    assert_eq!(error.target_kind(), Some(TargetErrorKind::NoSpace));
    assert!(read_all(&file)[2 * BLOCK..3 * BLOCK] == [2; BLOCK]);
    assert!(!ended.is_done(), "it has not ended");
    faults.stop();
    file.write_at(2 * BLOCK as u64, &[3; 10]).unwrap();
    ended.wait().unwrap();
    assert_eq!(stored(&memory)[2 * BLOCK..3 * BLOCK], [2; BLOCK]);
    // What is dropped is not waited for, and neither is a file that is gone.
    let group = file.close_group();
    let dropped = file.group_ended(group);
    file.discard();
    dropped.wait().unwrap();
    let never = file.group_ended(file.write_group());
    drop(file);
    drop(engine);
    assert!(matches!(ends(move || never.wait()), Some(Err(Error::Closed))));
}

#[test]
fn a_group_ends_while_a_direct_write_or_a_writethrough_goes_on_and_not_before_what_it_began_with() {
    let gate = Gate::default();
    let server = GateServer::new(MemoryServer::new(MemoryOptions::default()), gate.clone());
    gate.open();
    let (_engine, file) = written(&server, 20);
    gate.close();
    let direct = file.start_write_direct(0, vec![2; BLOCK]);
    gate.wait_for(1);
    let ended = file.group_ended(file.close_group());
    assert!(!ended.is_done(), "what is on its way was begun before");
    gate.open();
    direct.wait().result.unwrap();
    ended.wait().unwrap();
    let mut writing = file.writethrough(4 * BLOCK as u64).unwrap();
    writing.advance(&[3; 2 * BLOCK + 10]).unwrap();
    let group = file.close_group();
    let ended = file.group_ended(group);
    writing.advance(&[4; 3 * BLOCK]).unwrap();
    writing.end().unwrap();
    ended.wait().unwrap();
    let mut expected = vec![1; 20 * BLOCK];
    expected[..BLOCK].fill(2);
    expected[4 * BLOCK..6 * BLOCK + 10].fill(3);
    expected[6 * BLOCK + 10..9 * BLOCK + 10].fill(4);
    assert!(stored(&server) == expected);
}

#[test]
fn a_draft_has_groups_like_any_other_file() {
    let server = counted();
    let engine = engine_with(BLOCK);
    let (root, options) = (root(), CreateOptions { block_bytes: BLOCK as u64, replace: true });
    let place = Place { server: &server, cache: None, root: &root };
    let file = engine.create(&place, &name(), &options).unwrap();
    write_blocks(&file, &[0, 1, 2], 2);
    let ended = file.group_ended(file.close_group());
    write_blocks(&file, &[1, 3], 3);
    file.sync().unwrap();
    file.publish().unwrap();
    ended.wait().unwrap();
    let written = taken(&server);
    assert_eq!(written, [0, 1, 2, 1, 3]);
}

type Snapshots = Arc<Mutex<Vec<(usize, Vec<u8>)>>>;

/// One step of a client; it also happens to the model. Whether it has failed, which writes may.
fn step(file: &File, model: &mut Vec<u8>, rng: &mut Rng) -> (String, Result<(), Error>) {
    let most = [10, 5000, 40_000][rng.usize(..3)];
    let (at, len) = (rng.usize(..100_000), rng.usize(1..most));
    let data = vec![rng.u8(1..); len];
    let kind = rng.u32(..10);
    let mut put = |at: usize, n: usize| {
        model.resize(model.len().max(at + n), 0);
        model[at..at + n].copy_from_slice(&data[..n]);
    };
    let result = match kind {
        0..4 => file.write_at(at as u64, &data).inspect(|()| put(at, len)),
        4 => file.append(&data).map(|at| put(usize::try_from(at).unwrap(), len)),
        5 => {
            let mut writing = file.writethrough(at as u64).unwrap();
            let written = writing.advance(&data);
            let n = usize::try_from(writing.position()).unwrap() - at;
            put(at, n);
            // Every other one is dropped.
            written.and_then(|()| if len % 2 == 0 { writing.end() } else { Ok(()) })
        }
        6 => file.write_direct(at as u64, data.clone()).result.inspect(|()| put(at, len)),
        7 => {
            let size = rng.usize(..100_000);
            file.set_len(size as u64).inspect(|()| model.resize(size, 0))
        }
        8 => {
            file.writeback();
            Ok(())
        }
        _ => file.sync(),
    };
    (format!("{kind} at {at}, {len}: {result:?}"), result)
}

#[test]
fn the_server_has_a_closed_group_as_it_was_closed_when_its_end_is_told() {
    let rounds = std::env::var("SEALBACK_CASES").map_or(40, |cases| cases.parse().unwrap());
    for seed in 0..rounds {
        let (mut rng, mut log) = (Rng::with_seed(seed), Log::default());
        let server = memory();
        let engine = engine_with([4096, 16 << 10, 64 << 10][rng.usize(..3)]);
        let block_bytes = [4096, 16 << 10][rng.usize(..2)];
        let cache = MemoryCache::new(MemoryOptions::default());
        let file = create(&engine, &server, rng.bool().then_some(&cache as _), block_bytes);
        let (mut model, mut closed) = (Vec::new(), Vec::new());
        let snapshots = Snapshots::default();
        for number in 0..80 {
            if rng.u32(..8) == 0 {
                let group = file.close_group();
                log.0.push(format!("seed {seed} step {number}: close {group:?}"));
                let (told, behind, n) =
                    (snapshots.clone(), MemoryServer::clone(&server), closed.len());
                closed.push(model.clone());
                file.group_ended(group).on_done(move |ended| {
                    ended.unwrap();
                    told.lock().unwrap().push((n, stored(&behind)));
                });
            }
            let (what, result) = step(&file, &mut model, &mut rng);
            log.0.push(format!("seed {seed} step {number}: {what}"));
            result.unwrap();
        }
        file.sync().unwrap();
        assert!(stored(&server) == model, "seed {seed}");
        let snapshots = snapshots.lock().unwrap();
        assert_eq!(snapshots.len(), closed.len(), "seed {seed}: each is told of once");
        for (place, (n, snapshot)) in snapshots.iter().enumerate() {
            assert_eq!(*n, place, "seed {seed}: in their order");
            let (is, was) = (snapshot, &closed[*n]);
            let differs: Vec<usize> =
                (0..is.len().min(was.len())).filter(|at| is[*at] != was[*at]).collect();
            let hull: Range<Option<&usize>> = differs.first()..differs.last();
            assert!(
                is == was,
                "seed {seed} group {n}: {} or {} bytes, {hull:?}",
                is.len(),
                was.len()
            );
        }
    }
}

#[test]
fn groups_end_in_their_order_whatever_fails_on_the_way() {
    let rates = Rates { retry: 60, fatal: 30, short: 40, unknown: 30, ..Rates::default() };
    for seed in 0..15 {
        let mut rng = Rng::with_seed(seed);
        let memory = MemoryServer::new(MemoryOptions::default());
        let faults = Faults::seeded(seed, rates);
        faults.stop();
        let server = FaultyServer::new(memory.clone(), &faults);
        let (_engine, file) = written(&server, 20);
        faults.resume();
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut n_closed = 0;
        for _ in 0..60 {
            if rng.u32(..5) == 0 {
                let (told, n) = (order.clone(), n_closed);
                file.group_ended(file.close_group()).on_done(move |ended| {
                    told.lock().unwrap().push((n, ended.is_ok()));
                });
                n_closed += 1;
            }
            // It may fail, and then it is tried again.
            let at = rng.u64(..20 * BLOCK as u64 - 5000);
            drop(file.write_at(at, &sample(rng.usize(1..5000))));
            if rng.u32(..6) == 0 {
                drop(file.sync());
            }
        }
        faults.stop();
        while file.sync().is_err() {}
        let told = order.lock().unwrap();
        assert!(told.iter().copied().eq((0..n_closed).map(|n| (n, true))), "seed {seed}: {told:?}");
        assert!(stored(&memory) == read_all(&file), "seed {seed}");
    }
}

#[test]
fn what_a_failed_barrier_makes_dirty_again_stays_in_its_group() {
    let server = memory();
    create(&engine_with(BLOCK), &server, None, BLOCK as u64).close().unwrap();
    let fault = Fault::Fail(Failure::Fatal(TargetError::new(TargetErrorKind::Io, "injected")));
    let faults =
        Faults::scripted([Rule { operation: Operation::Barrier, when: When::From(1), fault }]);
    let engine = engine_with(BLOCK);
    let file = open(&engine, &FaultyServer::new(server.clone(), &faults), None);
    file.write_at(40_000, &[1; 5000]).unwrap();
    let ended = file.group_ended(file.close_group());
    file.sync().unwrap_err();
    faults.stop();
    // What is written directly waits for older groups, and what it waits for must not wait for it.
    file.write_direct(0, vec![2; 10]).result.unwrap();
    assert!(ended.is_done());
    file.sync().unwrap();
    let seen = stored(&server);
    assert_eq!((seen[0], seen[40_000], seen[44_999], seen.len()), (2, 1, 1, 45_000));
}

#[test]
fn a_group_that_a_cut_by_somebody_else_made_dirty_again_does_not_end_before_that_is_sent() {
    let server = memory();
    let (_engine, file) = written(&server, 4);
    file.write_at(8 * BLOCK as u64, &[5; 100]).unwrap();
    let group = file.close_group();
    let ended = file.group_ended(group);
    let other = open(&engine_with(BLOCK), &server, None);
    other.set_len(BLOCK as u64).unwrap();
    other.close().unwrap();
    file.revalidate().unwrap();
    assert!(!ended.is_done(), "nothing of it is on the server");
    file.write_at(8 * BLOCK as u64 + 50, &[6; 100]).unwrap();
    assert!(ended.is_done(), "it goes before what is newer in the same block");
    let seen = stored(&server);
    assert_eq!((seen.len(), seen[seen.len() - 1]), (8 * BLOCK + 100, 5), "as it was closed");
    file.sync().unwrap();
    let seen = stored(&server);
    assert_eq!((seen.len(), seen[8 * BLOCK + 49]), (8 * BLOCK + 150, 5));
    assert_eq!(seen[8 * BLOCK + 50..], [6; 100]);
}

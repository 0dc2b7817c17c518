//! Writebacks of a part of what is dirty: filtered, deferred, stopped, cancelled. What is passed over is
//! dirty, unlocked, and written by the next one.

use std::{
    ops::Range,
    sync::{Arc, Mutex},
    thread,
};

use fastrand::Rng;
use sealback::{Config, Decision, Engine, Error, File};
use sealback_stream::{
    Failure, MemoryCache, MemoryOptions, MemoryServer, Runs, TargetError, TargetErrorKind,
    faulty::{Fault, Faults, FaultyServer, Operation, Rule, When},
};
use sealback_tests::{
    counter::{CountedServer, Counter},
    gate::{Gate, GateServer},
    reader::read_sealed,
};

use crate::support::{ROOT, config, create, engine_with, memory, name, read_all, sample};

const BLOCK: usize = 4096;

fn stored(server: &MemoryServer) -> Vec<u8> {
    read_sealed(&server.stored(&name()).unwrap(), &ROOT).unwrap().plaintext
}

fn index(position: u64) -> usize {
    usize::try_from(position).unwrap()
}

/// The number of the block that positions are.
fn block(positions: &Range<u64>) -> usize {
    assert_eq!(positions.end - positions.start, BLOCK as u64);
    index(positions.start) / BLOCK
}

/// A file of eight blocks, all of it on the server, then all of it dirty.
fn dirty(server: &dyn sealback_stream::Server) -> (Engine, File) {
    let engine = engine_with(BLOCK);
    let file = create(&engine, server, None, BLOCK as u64);
    file.write_at(0, &[1; 8 * BLOCK]).unwrap();
    file.sync().unwrap();
    file.write_at(0, &[2; 8 * BLOCK]).unwrap();
    (engine, file)
}

/// Blocks 0 to 8: which of them have byte 2.
fn new_blocks(server: &MemoryServer) -> Vec<usize> {
    let stored = stored(server);
    (0..8).filter(|block| stored[block * BLOCK] == 2).collect()
}

#[test]
fn what_a_filter_skips_stays_dirty_unlocked_and_goes_with_the_next_writeback() {
    let gate = Gate::default();
    let server = GateServer::new(MemoryServer::new(MemoryOptions::default()), gate.clone());
    let engine = engine_with(BLOCK);
    let file = create(&engine, &server, None, BLOCK as u64);
    file.write_at(0, &[2; 8 * BLOCK]).unwrap();
    let writing = file.submit(|file| {
        file.writeback_filtered(|positions| match block(&positions) {
            3 | 4 => Decision::Skip,
            _ => Decision::Write,
        })
    });
    gate.wait_for(1);
    // Nobody waits for it: it is read and written beside the writeback.
    file.write_at(3 * BLOCK as u64 + 7, &[3; 10]).unwrap();
    assert!(read_all(&file)[4 * BLOCK..5 * BLOCK] == [2; BLOCK]);
    gate.open();
    let done = writing.wait().unwrap();
    assert_eq!(done.skipped.first(), Some(&(3 * BLOCK as u64..5 * BLOCK as u64)));
    assert!(done.deferred.is_empty() && !done.stopped);
    assert_eq!(file.dirty_bytes(), 2 * BLOCK as u64);
    assert_eq!(file.info().size, 3 * BLOCK as u64, "no header speaks for what is not there");
    file.writeback().wait().unwrap();
    assert_eq!(file.dirty_bytes(), 0);
    let mut expected = vec![2; 8 * BLOCK];
    expected[3 * BLOCK + 7..][..10].fill(3);
    assert!(stored(&server) == expected);
}

#[test]
fn what_a_filter_defers_is_asked_for_again_when_all_others_are_on_the_server() {
    let server =
        CountedServer::new(MemoryServer::new(MemoryOptions::default()), Counter::default());
    let (_engine, file) = dirty(&server);
    server.hook.take_written();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let (noted, counter) = (asked.clone(), server.hook.clone());
    let done = file.writeback_filtered(move |positions| {
        let block = block(&positions);
        let mut asked = noted.lock().unwrap();
        let again = asked.contains(&block);
        asked.push(block);
        if again {
            let written = counter.take_written().iter().flat_map(Runs::blocks).count();
            assert!(written == 6 || written == 0, "the others are there: {written}");
        }
        if [2, 5].contains(&block) && !again { Decision::Defer } else { Decision::Write }
    });
    let done = done.unwrap();
    assert_eq!(*asked.lock().unwrap(), [0, 1, 2, 3, 4, 5, 6, 7, 2, 5]);
    assert!(done.deferred.is_empty() && done.skipped.is_empty());
    assert_eq!(file.dirty_bytes(), 0);
    assert_eq!(new_blocks(&server), (0..8).collect::<Vec<_>>());
}

#[test]
fn what_is_deferred_until_nothing_else_is_left_stays_dirty_and_goes_with_the_next_writeback() {
    let server = memory();
    let (_engine, file) = dirty(&server);
    let asked = Arc::new(Mutex::new(0));
    let noted = asked.clone();
    let done = file.writeback_filtered(move |positions| {
        let block = block(&positions);
        *noted.lock().unwrap() += 1;
        if block < 6 { Decision::Defer } else { Decision::Write }
    });
    let done = done.unwrap();
    assert_eq!(*asked.lock().unwrap(), 8 + 6, "each was asked for once more");
    assert_eq!(done.deferred.first(), Some(&(0..6 * BLOCK as u64)));
    assert_eq!(file.dirty_bytes(), 6 * BLOCK as u64);
    assert_eq!(new_blocks(&server), [6, 7]);
    file.writeback().wait().unwrap();
    assert_eq!(new_blocks(&server), (0..8).collect::<Vec<_>>());
}

#[test]
fn what_lies_behind_where_a_filter_stops_stays_dirty_and_goes_with_the_next_writeback() {
    let server = memory();
    let (_engine, file) = dirty(&server);
    let done = file.writeback_filtered(|positions| match block(&positions) {
        1 => Decision::Defer,
        4 => Decision::Stop,
        block => {
            assert!(block < 4, "nothing more is asked");
            Decision::Write
        }
    });
    let done = done.unwrap();
    assert!(done.stopped);
    assert_eq!(done.deferred.first(), Some(&(BLOCK as u64..2 * BLOCK as u64)));
    assert_eq!(new_blocks(&server), [0, 2, 3]);
    assert_eq!(file.dirty_bytes(), 5 * BLOCK as u64);
    file.write_at(6 * BLOCK as u64, &[2; 5]).unwrap();
    file.sync().unwrap();
    assert_eq!(new_blocks(&server), (0..8).collect::<Vec<_>>());
    assert_eq!(file.dirty_bytes(), 0);
}

#[test]
fn what_a_cancelled_writeback_has_not_sent_is_dirty_unlocked_and_goes_with_the_next_one() {
    let gate = Gate::default();
    let options = MemoryOptions::default().with_boundary_blocks(2);
    let server = GateServer::new(MemoryServer::new(options), gate.clone());
    let engine = Engine::new(Config { folio_bytes: BLOCK, upload_window: 1, ..config() }).unwrap();
    let file = create(&engine, &server, None, BLOCK as u64);
    file.write_at(0, &[2; 8 * BLOCK]).unwrap();
    let writeback = file.writeback();
    gate.wait_for(1);
    writeback.cancel();
    gate.pass(0);
    assert!(matches!(writeback.wait(), Err(Error::Cancelled)));
    assert!(file.dirty_bytes() >= 6 * BLOCK as u64, "what was not sent is dirty");
    assert!(gate.waiting().is_empty());
    file.write_at(5 * BLOCK as u64, &[3; 10]).unwrap();
    gate.open();
    file.writeback().wait().unwrap();
    assert_eq!(file.dirty_bytes(), 0);
    let mut expected = vec![2; 8 * BLOCK];
    expected[5 * BLOCK..][..10].fill(3);
    assert!(stored(&server) == expected);
}

#[test]
fn a_filter_is_asked_once_for_each_folio_or_block_in_ascending_order_whatever_their_sizes() {
    for seed in 0..40 {
        let mut rng = Rng::with_seed(seed);
        let folio_bytes = [4096, 16 << 10, 64 << 10][rng.usize(..3)];
        let block_bytes = [4096, 16 << 10, 64 << 10][rng.usize(..3)];
        let server = memory();
        let cache = MemoryCache::new(MemoryOptions::default());
        let engine = engine_with(folio_bytes);
        let file = create(&engine, &server, rng.bool().then_some(&cache as _), block_bytes);
        let mut model = sample(rng.usize(1..400_000));
        file.write_at(0, &model).unwrap();
        if rng.bool() {
            file.sync().unwrap();
        }
        for _ in 0..rng.usize(..10) {
            let (at, len) = (rng.usize(..400_000), rng.usize(1..30_000));
            model.resize(model.len().max(at + len), 0);
            model[at..at + len].fill(rng.u8(..));
            file.write_at(at as u64, &model[at..at + len]).unwrap();
        }
        let unit = (folio_bytes as u64).max(block_bytes);
        let (size, drawn) = (model.len() as u64, rng.u64(..));
        let asked = Arc::new(Mutex::new(Vec::<u64>::new()));
        let noted = asked.clone();
        let done = file.writeback_filtered(move |positions| {
            assert_eq!(positions.start % unit, 0);
            assert_eq!(positions.end, (positions.start + unit).min(size));
            noted.lock().unwrap().push(positions.start);
            match Rng::with_seed(drawn ^ positions.start).u32(..3) {
                0 => Decision::Defer,
                1 => Decision::Skip,
                _ => Decision::Write,
            }
        });
        let done = done.unwrap();
        let asked = asked.lock().unwrap();
        let rounds = asked.windows(2).filter(|pair| pair[0] >= pair[1]).count() + 1;
        assert!(rounds <= 2, "seed {seed}: {asked:?}");
        let len = |ranges: &[Range<u64>]| ranges.iter().map(|r| r.end - r.start).sum::<u64>();
        let passed_over = len(&done.skipped) + len(&done.deferred);
        assert!(file.dirty_bytes() <= passed_over, "seed {seed}");
        assert_eq!(file.dirty_bytes() == 0, passed_over == 0, "seed {seed}");
        assert!(read_all(&file) == model, "seed {seed}");
        file.sync().unwrap();
        assert!(stored(&server) == model, "seed {seed}");
    }
}

#[test]
fn an_error_of_a_filtered_writeback_is_told_once_and_a_filter_that_panics_hangs_nobody() {
    let inner = MemoryServer::new(MemoryOptions::default());
    let full = TargetError::new(TargetErrorKind::NoSpace, "injected");
    let fault = Fault::Fail(Failure::Fatal(full));
    let faults =
        Faults::scripted([Rule { operation: Operation::Write, when: When::From(2), fault }]);
    let server = FaultyServer::new(inner.clone(), &faults);
    let (engine, file) = dirty(&server);
    let second = crate::support::open(&engine, &server, None);
    let error = file.writeback_filtered(|_| Decision::Write).unwrap_err();
    assert_eq!(error.target_kind(), Some(TargetErrorKind::NoSpace));
    faults.stop();
    file.sync().unwrap();
    second.sync().unwrap_err();
    second.sync().unwrap();
    file.write_at(0, &[4; 10]).unwrap();
    file.writeback_filtered(|_| panic!("the filter")).unwrap_err();
    thread::scope(|scope| {
        scope.spawn(|| file.sync().unwrap());
    });
    assert_eq!(file.dirty_bytes(), 0);
    assert_eq!(stored(&inner)[..10], [4; 10]);
}

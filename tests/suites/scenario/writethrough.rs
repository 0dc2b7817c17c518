//! Writethrough: what is written goes out while it is being written, and no way of leaving it keeps
//! others out.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    thread,
};

use fastrand::Rng;
use sealback::{Config, Engine, Error, File};
use sealback_stream::{
    Failure, MemoryOptions, MemoryServer, Server, TargetError, TargetErrorKind,
    faulty::{Fault, Faults, FaultyServer, Operation, Rule, When},
};
use sealback_tests::{
    gate::{Gate, GateServer},
    reader::read_sealed,
};

use crate::support::{ROOT, config, create, ends, engine, memory, name, open, read_all, sample};

const BLOCK: usize = 4096;
const FOLIO: usize = 16 << 10;

fn small_folios() -> Engine {
    Engine::new(Config { folio_bytes: FOLIO, ..config() }).unwrap()
}

fn stored(server: &MemoryServer) -> Vec<u8> {
    read_sealed(&server.stored(&name()).unwrap(), &ROOT).unwrap().plaintext
}

/// A file of `data` that somebody has written, with nothing of it in memory.
fn open_cold(server: &dyn Server, engine: &Engine, data: &[u8]) -> File {
    let file = create(&self::engine(), server, None, BLOCK as u64);
    file.write_at(0, data).unwrap();
    file.close().unwrap();
    open(engine, server, None)
}

fn gated() -> (Gate, GateServer<MemoryServer>) {
    let gate = Gate::default();
    let server = GateServer::new(MemoryServer::new(MemoryOptions::default()), gate.clone());
    (gate, server)
}

#[test]
fn a_write_larger_than_a_folio_leaves_while_it_is_being_copied_in() {
    let (gate, server) = gated();
    let file = create(&small_folios(), &server, None, BLOCK as u64);
    let data = sample(4 * FOLIO + 100);
    let mut writing = file.writethrough(0).unwrap();
    writing.advance(&data[..FOLIO - 1]).unwrap();
    assert!(gate.waiting().is_empty(), "the folio is not full");
    writing.advance(&data[FOLIO - 1..FOLIO]).unwrap();
    gate.wait_for(1);
    assert_eq!(gate.waiting().first(), Some(&(0..4)), "the first folio, and the write is not over");
    writing.advance(&data[FOLIO..]).unwrap();
    assert_eq!(writing.position(), data.len() as u64);
    gate.open();
    writing.end().unwrap();
    assert!(stored(&server) == data, "a header speaks for it");
    assert_eq!(file.dirty_bytes(), 0);
    assert!(read_all(&file) == data, "it is in the page cache");
}

#[test]
fn the_end_waits_for_the_server_only_if_it_is_to() {
    let (gate, server) = gated();
    let file = create(&small_folios(), &server, None, BLOCK as u64);
    let data = sample(FOLIO + 100);
    let mut writing = file.writethrough(0).unwrap();
    writing.advance(&data).unwrap();
    let writeback = writing.end_later().unwrap();
    gate.wait_for(1);
    assert!(!writeback.is_done());
    gate.open();
    writeback.wait().unwrap();
    assert_eq!(file.dirty_bytes(), 0, "the last folio, which is not full, went too");
    assert!(stored(&server) == data);
    // One of less than a folio, and one of nothing.
    let mut writing = file.writethrough(10).unwrap();
    writing.advance(&[1; 5]).unwrap();
    writing.end_later().unwrap().wait().unwrap();
    file.writethrough(7).unwrap().end().unwrap();
    file.writethrough(7).unwrap().end_later().unwrap().wait().unwrap();
    assert!(stored(&server)[10..15] == [1; 5]);
}

#[test]
fn exactly_what_is_written_through_becomes_dirty_and_is_written() {
    let server = memory();
    let engine = small_folios();
    let mut data = sample(6 * FOLIO);
    let file = open_cold(&server, &engine, &data);
    // Both ends within a block; somebody else changes others of their bytes.
    let (start, end) = (FOLIO + 50, 3 * FOLIO + 70);
    let mut writing = file.writethrough(start as u64).unwrap();
    for piece in vec![1; end - start].chunks(999) {
        writing.advance(piece).unwrap();
    }
    let other = open(&self::engine(), &server, None);
    for at in [start - 10, end] {
        other.write_at(at as u64, &[2; 10]).unwrap();
        data[at..at + 10].fill(2);
    }
    other.close().unwrap();
    file.write_at(5 * FOLIO as u64, &[3; 10]).unwrap();
    writing.end().unwrap();
    data[start..end].fill(1);
    assert!(stored(&server) == data);
    assert_eq!(file.dirty_bytes(), 10, "what was written elsewhere is as dirty as it was");
}

/// What can go wrong on the way, and how.
fn faults() -> Vec<(Operation, Fault)> {
    let fatal = || {
        let error = TargetError::new(TargetErrorKind::NoSpace, "injected");
        Fault::Fail(Failure::Fatal(error))
    };
    let all = [
        (Operation::Barrier, fatal()),
        (Operation::Header, fatal()),
        (Operation::Prepare, Fault::Panic),
        (Operation::Read, fatal()),
        (Operation::Read, Fault::Panic),
        (Operation::Write, fatal()),
        (Operation::Write, Fault::Panic),
        (Operation::Write, Fault::Drop),
    ];
    all.into_iter().collect()
}

/// A writethrough in five pieces; what the first error was, and how far it has come.
fn write_through(file: &File, start: usize, data: &[u8]) -> (Result<(), Error>, usize) {
    let mut writing = file.writethrough(start as u64).unwrap();
    for piece in data.chunks(data.len() / 5 + 1) {
        if let Err(error) = writing.advance(piece) {
            return (Err(error), usize::try_from(writing.position()).unwrap() - start);
        }
    }
    (writing.end(), data.len())
}

#[test]
fn whichever_step_of_a_writethrough_fails_the_error_is_told_and_the_next_writer_goes_on() {
    for (operation, fault) in faults() {
        let mut n_told = 0;
        // Of a file that it grows, and of one that it does not; the step that fails.
        for (len, step) in
            [2 * FOLIO + 9, 8 * FOLIO].iter().flat_map(|len| (1..6).map(move |n| (*len, n)))
        {
            let what = format!("{operation:?} {step} {fault:?} of {len}");
            let memory = memory();
            let rule = Rule { operation, when: When::From(step), fault: fault.clone() };
            let faults = Faults::scripted([rule]);
            let server = FaultyServer::new(memory.clone(), &faults);
            let engine = small_folios();
            let mut model = sample(len);
            drop(open_cold(&memory, &engine, &model));
            let file = open(&engine, &server, None);
            let second = open(&engine, &server, None);
            let start = FOLIO + 100;
            let data = vec![1; 5 * FOLIO];
            let (result, written) = write_through(&file, start, &data);
            model.resize(model.len().max(start + written), 0);
            model[start..start + written].fill(1);
            faults.stop();
            assert!(read_all(&file) == model, "{what}: what was taken in is here");
            // The next writer: nobody keeps the file from being written back.
            let synced = ends(move || {
                second.write_at(10, &[2; 10]).unwrap();
                let first = second.sync();
                second.sync().unwrap();
                first
            });
            let synced = synced.unwrap_or_else(|| panic!("{what}: the next writer waits for ever"));
            model[10..20].fill(2);
            let told = result.is_err();
            assert!(told || synced.is_ok(), "{what}: others were told, and the caller was not");
            n_told += u32::from(told);
            file.sync().unwrap_or_else(|error| panic!("{what}: told twice: {error}"));
            assert_eq!(file.dirty_bytes(), 0, "{what}");
            assert!(stored(&memory) == model, "{what}: everything is there in the end");
        }
        assert!(n_told > 0, "{operation:?} {fault:?} was never met");
    }
}

#[test]
fn an_error_of_a_writethrough_is_told_once_to_its_caller_and_once_to_every_other_handle() {
    for dropped in [false, true] {
        let memory = memory();
        let error = TargetError::new(TargetErrorKind::NoSpace, "injected");
        let fault = Fault::Fail(Failure::Fatal(error));
        let rule = Rule { operation: Operation::Write, when: When::From(1), fault };
        let faults = Faults::scripted([rule]);
        let server = FaultyServer::new(memory.clone(), &faults);
        let engine = small_folios();
        let file = create(&engine, &server, None, BLOCK as u64);
        let second = open(&engine, &server, None);
        let mut writing = file.writethrough(0).unwrap();
        let mut told = writing.advance(&vec![1; 3 * FOLIO]);
        if dropped {
            drop(writing);
            drop(file.sync());
            faults.stop();
        } else {
            if told.is_ok() {
                told = writing.end();
            }
            assert_eq!(told.unwrap_err().target_kind(), Some(TargetErrorKind::NoSpace));
            faults.stop();
        }
        file.sync().unwrap();
        second.sync().unwrap_err();
        second.sync().unwrap();
        assert!(stored(&memory) == vec![1; 3 * FOLIO]);
    }
}

#[test]
fn a_writethrough_that_is_dropped_or_whose_writer_panics_keeps_nobody_out() {
    let (gate, server) = gated();
    let file = create(&small_folios(), &server, None, BLOCK as u64);
    let mut writing = file.writethrough(0).unwrap();
    writing.advance(&[1; FOLIO + 10]).unwrap();
    gate.wait_for(1);
    drop(writing);
    gate.open();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let mut writing = file.writethrough(2 * FOLIO as u64).unwrap();
        writing.advance(&[2; FOLIO + 10]).unwrap();
        panic!("the writer");
    }));
    panicked.unwrap_err();
    let file = ends(move || {
        file.set_len(3 * FOLIO as u64 + 5).unwrap();
        file.sync().unwrap();
        file
    });
    let file = file.expect("whoever comes next goes on");
    let mut model = vec![1; FOLIO + 10];
    model.resize(2 * FOLIO, 0);
    model.resize(3 * FOLIO + 5, 2);
    assert!(stored(&server) == model && read_all(&file) == model);
}

#[test]
fn what_else_is_done_to_the_file_does_not_wait_for_the_end_of_a_writethrough() {
    let server = memory();
    let engine = small_folios();
    let file = open_cold(&server, &engine, &sample(3 * FOLIO));
    let model = ends(move || {
        let mut writing = file.writethrough(0).unwrap();
        writing.advance(&vec![1; 2 * FOLIO]).unwrap();
        file.write_at(100, &[9; 10]).unwrap();
        file.sync().unwrap();
        writing.advance(&vec![1; 2 * FOLIO]).unwrap();
        file.set_len(FOLIO as u64).unwrap();
        writing.advance(&vec![1; FOLIO]).unwrap();
        file.punch(4 * FOLIO as u64..5 * FOLIO as u64 - 1).unwrap();
        let direct = file.write_direct(4096, vec![4; 4096]);
        direct.result.unwrap();
        let mut second = file.writethrough(FOLIO as u64 / 2).unwrap();
        second.advance(&vec![5; FOLIO]).unwrap();
        writing.advance(&[1; 10]).unwrap();
        second.end().unwrap();
        writing.end().unwrap();
        assert_eq!(file.dirty_bytes(), 0);
        read_all(&file)
    });
    let mut expected = vec![1; FOLIO];
    expected[100..110].fill(9);
    expected.resize(5 * FOLIO - 1, 0);
    expected.extend([1; 11]);
    expected[4096..8192].fill(4);
    expected[FOLIO / 2..FOLIO / 2 + FOLIO].fill(5);
    let model = model.expect("nobody waits for ever");
    assert!(model == expected);
    assert!(stored(&server) == model);
}

#[test]
fn a_writethrough_goes_on_after_somebody_else_has_cut_the_file() {
    let server = memory();
    let engine = small_folios();
    let file = open_cold(&server, &engine, &sample(3 * FOLIO));
    let mut writing = file.writethrough(FOLIO as u64).unwrap();
    writing.advance(&vec![1; FOLIO + 5]).unwrap();
    open(&self::engine(), &server, None).set_len(5000).unwrap();
    writing.advance(&vec![1; 2 * FOLIO]).unwrap();
    writing.end().unwrap();
    let stored = stored(&server);
    assert_eq!(stored.len(), 4 * FOLIO + 5);
    assert!(stored[..5000] == sample(3 * FOLIO)[..5000]);
    assert!(stored[5000..FOLIO].iter().all(|byte| *byte == 0));
    let through = &stored[FOLIO..];
    assert!(through.iter().all(|byte| *byte <= 1), "nothing strange");
    assert!(through[FOLIO + 5..].iter().all(|byte| *byte == 1), "what came after the cut");
}

#[test]
fn a_writethrough_larger_than_the_memory_goes_on_whoever_else_has_filled_it() {
    let server = memory();
    let engine = small_folios();
    let file = create(&engine, &server, None, BLOCK as u64);
    let model = ends(move || {
        let mut writing = file.writethrough(40 << 20).unwrap();
        writing.advance(&vec![1; 2 * FOLIO]).unwrap();
        // More than there is memory for, in the same file, by the same thread.
        file.write_at(0, &sample(12 << 20)).unwrap();
        writing.advance(&sample(12 << 20)).unwrap();
        writing.end().unwrap();
        file.sync().unwrap();
        read_all(&file)
    });
    let model = model.expect("nobody waits for ever");
    let large = sample(12 << 20);
    assert!(model[..large.len()] == large[..]);
    assert!(model[(40 << 20) + 2 * FOLIO..] == large[..]);
    assert!(stored(&server) == model);
}

#[test]
fn writers_of_all_kinds_in_one_file_lose_nothing_of_one_another() {
    let server = memory();
    let engine = small_folios();
    let file = create(&engine, &server, None, BLOCK as u64);
    file.write_at(0, &vec![0; 64 * BLOCK]).unwrap();
    thread::scope(|scope| {
        for thread in 0..4_usize {
            let file = &file;
            scope.spawn(move || {
                let mut rng = Rng::with_seed(thread as u64);
                for round in 1..=40_u8 {
                    // Each has every fourth stretch of 20000 bytes.
                    let at = (rng.usize(..10) * 4 + thread) * 20_000;
                    if thread % 2 == 0 {
                        let mut writing = file.writethrough(at as u64).unwrap();
                        for piece in vec![round; 20_000].chunks(7000) {
                            writing.advance(piece).unwrap();
                        }
                        match rng.u32(..3) {
                            0 => drop(writing),
                            1 => drop(writing.end_later().unwrap()),
                            _ => writing.end().unwrap(),
                        }
                    } else {
                        file.write_at(at as u64, &[round; 20_000]).unwrap();
                    }
                    let mut read = vec![0; 20_000];
                    file.read_at(at as u64, &mut read).unwrap();
                    assert_eq!(read, [round; 20_000], "thread {thread} at {at}");
                    if rng.u32(..8) == 0 {
                        file.sync().unwrap();
                    }
                }
            });
        }
    });
    let all = read_all(&file);
    file.close().unwrap();
    assert!(stored(&server) == all);
    for stretch in all.chunks(20_000) {
        assert!(stretch.iter().all(|byte| *byte == stretch[0]));
    }
}

#[test]
fn a_writethrough_beyond_what_a_file_can_hold_or_after_the_end_is_refused() {
    let server = memory();
    let engine = engine();
    let file = create(&engine, &server, None, BLOCK as u64);
    assert!(matches!(file.writethrough(u64::MAX), Err(Error::TooLarge)));
    let mut writing = file.writethrough((1 << 60) - 1).unwrap();
    assert!(matches!(writing.advance(&[1; 2]), Err(Error::TooLarge)));
    assert_eq!(writing.position(), (1 << 60) - 1);
    drop(writing);
    engine.shutdown().unwrap();
    assert!(matches!(file.writethrough(0), Err(Error::Closed)));
}

//! Somebody else makes a file shorter while it is open here: nothing that was cut off comes back, and
//! nothing that was written here is lost without a word.

use std::{ops::Range, thread};

use sealback::{Error, File};
use sealback_stream::{
    Failure, TargetError, TargetErrorKind,
    faulty::{Fault, Faults, FaultyServer, Operation, Rule, When},
};
use sealback_tests::reader::read_sealed;

use crate::support::{ROOT, create, engine, memory, memory_locked, name, open, read_all, sample};

const LEN: usize = 100_000;

/// What the server has, read by somebody who knows nothing of these clients.
macro_rules! stored {
    ($server:expr) => {
        read_sealed(&$server.stored(&name()).unwrap(), &ROOT).unwrap().plaintext
    };
}

fn read(file: &File, positions: Range<u64>) -> Vec<u8> {
    let mut bytes = vec![0xee; usize::try_from(positions.end - positions.start).unwrap()];
    let len = file.read_at(positions.start, &mut bytes).unwrap();
    bytes.truncate(len);
    bytes
}

#[test]
fn a_file_that_somebody_else_has_cut_is_read_to_its_new_end() {
    let server = memory();
    let writer = create(&engine(), &server, None, 4096);
    writer.write_at(0, &sample(LEN)).unwrap();
    writer.close().unwrap();
    let reader = open(&engine(), &server, None);
    assert_eq!(read(&reader, 0..100), sample(LEN)[..100]);
    let other = open(&engine(), &server, None);
    other.set_len(5000).unwrap();
    reader.revalidate().unwrap();
    assert_eq!(read(&reader, 4990..6000), sample(LEN)[4990..5000]);
    assert!(read(&reader, 50_000..50_100).is_empty());
    assert_eq!(reader.size(), 5000);
    reader.sync().unwrap();
    assert_eq!(stored!(server), sample(LEN)[..5000], "a reader's sync made it longer again");
}

#[test]
fn a_file_that_somebody_else_has_cut_is_as_it_is_now_when_it_is_opened_once_more() {
    let (server, here) = (memory(), engine());
    let file = create(&here, &server, None, 4096);
    file.write_at(0, &sample(LEN)).unwrap();
    file.sync().unwrap();
    assert_eq!(read_all(&file), sample(LEN));
    let other = open(&engine(), &server, None);
    other.set_len(5000).unwrap();
    other.set_len(9000).unwrap();
    other.write_at(50, b"changed").unwrap();
    other.sync().unwrap();
    let again = open(&here, &server, None);
    assert_eq!((again.size(), file.size()), (9000, 9000));
    let mut expected = sample(LEN)[..5000].to_vec();
    expected.resize(9000, 0);
    expected[50..57].copy_from_slice(b"changed");
    assert_eq!(read_all(&again), expected);
}

#[test]
fn what_is_dirty_when_somebody_else_cuts_the_file_makes_it_grow_again() {
    let server = memory();
    let file = create(&engine(), &server, None, 4096);
    file.write_at(0, &sample(LEN)).unwrap();
    file.sync().unwrap();
    file.write_at(4000, &[1; 2000]).unwrap();
    file.write_at(60_000, &[2; 100]).unwrap();
    open(&engine(), &server, None).set_len(5000).unwrap();
    file.sync().unwrap();
    let mut expected = sample(LEN)[..4000].to_vec();
    expected.extend([1; 2000]);
    expected.resize(60_000, 0);
    expected.extend([2; 100]);
    assert!(stored!(server) == expected);
    assert!(read_all(&file) == expected, "what this client sees");
}

#[test]
fn what_is_dirty_before_somebody_elses_cut_stays_and_the_file_does_not_grow() {
    let server = memory();
    let file = create(&engine(), &server, None, 4096);
    file.write_at(0, &sample(LEN)).unwrap();
    file.sync().unwrap();
    file.write_at(100, &[1; 10]).unwrap();
    file.write_at(4990, &[2; 10]).unwrap();
    open(&engine(), &server, None).set_len(5000).unwrap();
    file.sync().unwrap();
    let mut expected = sample(LEN)[..5000].to_vec();
    expected[100..110].fill(1);
    expected[4990..].fill(2);
    assert!(stored!(server) == expected);
    assert!(read_all(&file) == expected);
}

#[test]
fn what_was_sent_and_not_committed_when_somebody_else_cut_the_file_is_kept_too() {
    let server = memory();
    let file = create(&engine(), &server, None, 4096);
    file.write_at(0, &sample(LEN)).unwrap();
    file.sync().unwrap();
    file.write_at(60_000, &[2; 100]).unwrap();
    file.writeback().wait().unwrap();
    open(&engine(), &server, None).set_len(5000).unwrap();
    file.sync().unwrap();
    let stored = stored!(server);
    assert_eq!(stored.len(), 60_100);
    assert_eq!(stored[60_000..], [2; 100]);
    assert!(stored[5000..60_000].iter().all(|byte| *byte == 0), "what was cut off is back");
}

#[test]
fn what_was_appended_and_sent_here_survives_somebody_elses_cut_before_the_sync() {
    let server = memory();
    let file = create(&engine(), &server, None, 4096);
    file.write_at(0, &sample(LEN)).unwrap();
    file.sync().unwrap();
    file.write_at(LEN as u64, &[3; 9000]).unwrap();
    open(&engine(), &server, None).set_len(5000).unwrap();
    // The pass would grow the file, and finds the cut when it begins.
    drop(file.writeback().wait());
    file.sync().unwrap();
    let stored = stored!(server);
    assert_eq!(stored[..5000], sample(LEN)[..5000]);
    assert!(stored[5000..LEN].iter().all(|byte| *byte == 0));
    assert_eq!(stored[LEN..], [3; 9000]);
}

#[test]
fn what_is_dirty_behind_a_cut_that_was_left_half_done_makes_the_file_grow_again() {
    let server = memory();
    let file = create(&engine(), &server, None, 4096);
    file.write_at(0, &sample(LEN)).unwrap();
    file.sync().unwrap();
    file.write_at(4990, &[1; 3000]).unwrap();
    // The last block is sealed anew, and the stored file not cut.
    let full = Failure::Fatal(TargetError::new(TargetErrorKind::NoSpace, "injected"));
    let faults = Faults::scripted([Rule {
        operation: Operation::Cut,
        when: When::From(1),
        fault: Fault::Fail(full),
    }]);
    let other = open(&engine(), &FaultyServer::new(server.clone(), &faults), None);
    other.set_len(5000).unwrap_err();
    drop(other);
    file.sync().unwrap();
    let mut expected = sample(LEN)[..4990].to_vec();
    expected.extend([1; 3000]);
    assert!(stored!(server) == expected);
    assert!(read_all(&file) == expected, "what this client sees");
}

#[test]
fn a_file_that_was_cut_elsewhere_can_be_cut_punched_and_written_here() {
    let change: [fn(&File); 4] = [
        |file| file.set_len(3000).unwrap(),
        |file| file.set_len(200_000).unwrap(),
        |file| file.punch(1000..90_000).unwrap(),
        |file| file.write_at(4500, &[9; 1000]).unwrap(),
    ];
    let expected: [fn(Vec<u8>) -> Vec<u8>; 4] = [
        |bytes| bytes[..3000].to_vec(),
        |mut bytes| {
            bytes.resize(200_000, 0);
            bytes
        },
        |mut bytes| {
            bytes[1000..].fill(0);
            bytes
        },
        |mut bytes| {
            bytes.resize(5500, 0);
            bytes[4500..].fill(9);
            bytes
        },
    ];
    for (change, expected) in change.into_iter().zip(expected) {
        let server = memory();
        let file = create(&engine(), &server, None, 4096);
        file.write_at(0, &sample(LEN)).unwrap();
        file.close().unwrap();
        // One that knows nothing of it, one that has all of it in memory.
        for warm in [false, true] {
            let file = open(&engine(), &server, None);
            if warm {
                file.write_at(0, &sample(LEN)).unwrap();
                file.sync().unwrap();
            }
            let other = open(&engine(), &server, None);
            other.set_len(5000).unwrap();
            change(&file);
            file.sync().unwrap();
            let expected = expected(sample(LEN)[..5000].to_vec());
            assert_eq!(stored!(server).len(), expected.len(), "warm: {warm}");
            assert!(stored!(server) == expected, "warm: {warm}");
            assert!(read_all(&file) == expected, "what this client sees; warm: {warm}");
        }
    }
}

#[test]
fn what_was_sent_and_is_no_longer_here_when_somebody_else_cuts_the_file_is_told_of_once() {
    let server = memory();
    let engine = engine();
    let file = create(&engine, &server, None, 4096);
    let large = sample(24 << 20);
    file.write_at(0, &large).unwrap();
    file.sync().unwrap();
    let second = open(&engine, &server, None);
    // More than the memory holds: most of it is sent, and given up, before the sync.
    file.write_at(0, &large).unwrap();
    open(&crate::support::engine(), &server, None).set_len(5000).unwrap();
    for handle in [&file, &second] {
        let told = handle.sync();
        assert!(matches!(told, Err(Error::Cut { size: 5000 })), "{told:?}");
        handle.sync().unwrap();
    }
    let stored = stored!(server);
    assert!(stored.len() > 5000, "what was still here made it grow");
    assert!(read_all(&file) == stored);
    for (at, (stored, written)) in stored.iter().zip(&large).enumerate() {
        assert!(stored == written || (at >= 5000 && *stored == 0), "a strange byte at {at}");
    }
}

#[test]
fn clients_that_write_cut_and_punch_at_once_leave_a_whole_file() {
    let rounds = std::env::var("SEALBACK_CASES").map_or(20, |cases| cases.parse().unwrap());
    for seed in 0..rounds {
        let server = memory_locked(seed % 2 == 0);
        create(&engine(), &server, None, 4096).close().unwrap();
        thread::scope(|scope| {
            for client in 1..=2 {
                let server = &server;
                scope.spawn(move || {
                    let file = open(&engine(), server, None);
                    let mut rng = fastrand::Rng::with_seed(seed * 2 + u64::from(client));
                    for _ in 0..60 {
                        change(&file, &mut rng, client);
                    }
                    told(file.sync());
                    file.close().unwrap();
                });
            }
        });
        let stored = stored!(server);
        assert!(stored.iter().all(|byte| *byte <= 2), "seed {seed}: a byte that nobody wrote");
        assert!(read_all(&open(&engine(), &server, None)) == stored, "seed {seed}");
    }
}

fn change(file: &File, rng: &mut fastrand::Rng, client: u8) {
    let at = rng.u64(..60_000);
    match rng.u32(..14) {
        0..6 => file.write_at(at, &vec![client; rng.usize(1..9000)]).unwrap(),
        10 | 11 => told(file.write_direct(at, vec![client; rng.usize(1..20_000)]).result),
        12 => assert!(file.append(&vec![client; rng.usize(1..3000)]).is_ok()),
        13 => {
            let mut bytes = vec![0; 5000];
            let len = file.read_direct(at, &mut bytes).unwrap();
            assert!(bytes[..len].iter().all(|byte| *byte <= 2));
        }
        6 => told(file.sync()),
        7 => told(file.set_len(at)),
        8 => told(file.punch(at..at + 20_000)),
        _ => assert!(read(file, at..at + 5000).iter().all(|byte| *byte <= 2)),
    }
}

/// What was sent can be cut off by the other one; nothing else may fail.
#[track_caller]
fn told(result: Result<(), Error>) {
    assert!(matches!(result, Ok(()) | Err(Error::Cut { .. })), "{result:?}");
}

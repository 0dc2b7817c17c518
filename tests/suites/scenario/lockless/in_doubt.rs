//! What a pass that failed has left behind the end, where there is no lock: it does not come into the file
//! when that grows.

use sealback::{Error, File};
use sealback_stream::{
    Failure, Server, TargetError, TargetErrorKind,
    faulty::{Fault, Faults, FaultyServer, Operation, Rule, When},
};

use super::named::{client_without_commits, file_of};
use crate::support::{all_of, assert_same, engine, lockless, open, read_all};

/// What follows the fault, and what the file then is made of: positions, lengths and bytes.
type Growth = (fn(&File), u64, &'static [(usize, usize, u8)]);

const GROWTHS: [Growth; 4] = [
    (|file| file.set_len(50_000).unwrap(), 50_000, &[]),
    (|file| file.write_at(5000, &[3; 100]).unwrap(), 5100, &[(5000, 100, 3)]),
    (|file| file.write_at(30_000, &[3; 9]).unwrap(), 30_009, &[(30_000, 9, 3)]),
    (|file| file.write_direct(5100, [3; 900]).result.unwrap(), 6000, &[(5100, 900, 3)]),
];

fn check(server: &impl Server, file: &File, growth: &Growth) {
    let (grow, size, writes) = growth;
    assert_same(&read_all(file), &[1; 5000], "after the failure");
    grow(file);
    file.sync().unwrap();
    let mut expected = vec![0; usize::try_from(*size).unwrap()];
    for (at, len, byte) in [&(0, 5000, 1)].into_iter().chain(*writes) {
        expected[*at..at + len].fill(*byte);
    }
    assert_same(&read_all(file), &expected, "who has made it longer");
    assert_same(&all_of(server), &expected, "a client who opens it now");
}

#[test]
fn what_a_direct_write_that_failed_has_left_behind_the_end_does_not_show_when_the_file_grows() {
    for growth in &GROWTHS {
        let server = lockless();
        file_of(&server, &[1; 5000]);
        let refused = Failure::Fatal(TargetError::new(TargetErrorKind::Io, "injected"));
        let faults = [
            (When::Once(1), Fault::Unknown(TargetErrorKind::TimedOut)),
            (When::Once(2), Fault::Fail(refused)),
        ];
        let rules = faults.map(|(when, fault)| Rule { operation: Operation::Write, when, fault });
        let faults = Faults::scripted(rules);
        let faulty = FaultyServer::new(server.clone(), &faults);
        let file = open(&engine(), &faulty, None);
        let written = file.write_direct(5000, [2; 40_000]);
        assert!(matches!(written.result, Err(Error::Server { .. })), "{:?}", written.result);
        assert_eq!(written.bytes, 0);
        check(&server, &file, growth);
    }
}

/// A client that has sent 40,000 bytes behind the end of 5000, committed none, and dropped them.
fn with_discarded(server: &(impl Server + Clone)) -> File {
    file_of(server, &[1; 5000]);
    let (file, faults) = client_without_commits(server);
    file.write_at(5000, &[2; 40_000]).unwrap();
    file.sync().unwrap_err();
    file.discard();
    faults.stop();
    file
}

#[test]
fn what_was_sent_and_then_discarded_does_not_show_when_the_file_grows() {
    for growth in &GROWTHS {
        let server = lockless();
        let file = with_discarded(&server);
        check(&server, &file, growth);
    }
}

#[test]
fn what_another_client_has_sent_into_the_same_block_stays_when_ours_is_discarded() {
    let server = lockless();
    file_of(&server, &[1; 5000]);
    let (slow, slow_faults) = client_without_commits(&server);
    slow.write_at(5000, &[2; 100]).unwrap();
    slow.sync().unwrap_err();
    let (other, faults) = client_without_commits(&server);
    other.write_at(6000, &[3; 50]).unwrap();
    other.sync().unwrap_err();
    other.discard();
    faults.stop();
    other.set_len(20_000).unwrap();
    other.sync().unwrap();
    slow_faults.stop();
    slow.sync().unwrap();
    assert_same(&all_of(&server)[..5100], &[[1; 5000].as_slice(), &[2; 100]].concat(), "anybody");
}

#[test]
fn what_was_discarded_does_not_stay_in_a_block_that_is_changed_before_the_file_grows() {
    let server = lockless();
    let file = with_discarded(&server);
    file.write_at(4200, &[3; 10]).unwrap();
    file.sync().unwrap();
    file.set_len(50_000).unwrap();
    file.sync().unwrap();
    assert_same(&all_of(&server)[5000..], &[0; 45_000], "anybody");
}

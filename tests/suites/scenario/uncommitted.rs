//! What one client has sent behind the end of a file, and no header speaks for yet, while another one
//! writes there, too: it is sent again, or told of, and never takes anything of the other's along.

use std::collections::BTreeSet;

use sealback::{Error, File};
use sealback_stream::{
    Failure, Server, TargetError, TargetErrorKind,
    faulty::{Fault, Faults, FaultyServer, Operation as FaultyOperation, Rule, When},
};

use crate::support::{all_of, assert_same, create, engine, memory, open, read_all};

const BLOCK: u64 = 4096;

#[test]
fn what_somebody_else_wrote_behind_the_end_is_not_overwritten_by_the_zeros_of_growing() {
    let server = memory();
    let file = create(&engine(), &server, None, BLOCK);
    file.write_at(0, &[1; 100]).unwrap();
    file.sync().unwrap();
    // It knows no more of what is stored.
    file.revalidate().unwrap();
    let other = open(&engine(), &server, None);
    other.write_at(3000, &[2; 10]).unwrap();
    other.close().unwrap();
    file.write_at(200, &[3; 10]).unwrap();
    file.write_at(3500, &[3; 10]).unwrap();
    file.sync().unwrap();
    let mut expected = vec![0; 3510];
    for (at, len, byte) in [(0, 100, 1), (3000, 10, 2), (200, 10, 3), (3500, 10, 3)] {
        expected[at..at + len].fill(byte);
    }
    assert_same(&all_of(&server), &expected, "a client who opens it now");
    assert_same(&read_all(&file), &expected, "this client");
}

#[test]
fn what_was_sent_and_not_committed_and_somebody_else_made_a_hole_of_is_sent_again_after_a_look() {
    let server = memory();
    create(&engine(), &server, None, BLOCK).close().unwrap();
    let rule = failing(FaultyOperation::Header, When::From(1), TargetErrorKind::Io);
    let faults = Faults::scripted([rule]);
    let file = open(&engine(), &FaultyServer::new(server.clone(), &faults), None);
    file.write_at(40_000, &[1; 5000]).unwrap();
    file.sync().unwrap_err();
    assert_eq!(file.dirty_bytes(), 0, "it is there, and no header says so");
    faults.stop();
    let other = open(&engine(), &server, None);
    other.write_at(100_000, &[2; 10]).unwrap();
    other.close().unwrap();
    file.revalidate().unwrap();
    file.sync().unwrap();
    let mut expected = vec![0; 100_010];
    expected[40_000..45_000].fill(1);
    expected[100_000..].fill(2);
    assert_same(&all_of(&server), &expected, "a client who opens it now");
}

#[test]
fn what_two_clients_have_sent_behind_the_end_and_not_committed_is_sent_again_by_who_meets_it() {
    let server = memory();
    create(&engine(), &server, None, BLOCK).close().unwrap();
    let client = || {
        let rule = failing(FaultyOperation::Header, When::From(1), TargetErrorKind::Io);
        let faults = Faults::scripted([rule]);
        let faulty = FaultyServer::new(server.clone(), &faults);
        (open(&engine(), &faulty, None), faults)
    };
    let [(first, first_faults), (second, second_faults)] = [client(), client()];
    first.write_at(40_000, &[1; 5000]).unwrap();
    first.sync().unwrap_err();
    // In the middle of the other's: behind the end that is nobody's. No header tells of it.
    second.write_at(42_000, &[2; 100]).unwrap();
    second.sync().unwrap_err();
    first_faults.stop();
    first.sync().unwrap();
    let mut expected = vec![0; 45_000];
    expected[40_000..].fill(1);
    assert_same(&all_of(&server), &expected, "a client who opens it when the first has synced");
    second_faults.stop();
    second.sync().unwrap();
    expected[42_000..42_100].fill(2);
    assert_same(&all_of(&server), &expected, "a client who opens it in the end");
}

#[test]
fn what_somebody_else_has_made_longer_stays_so_however_often_it_is_written_from_here() {
    let server = memory();
    let file = create(&engine(), &server, None, BLOCK);
    file.write_at(0, &[1; 100]).unwrap();
    file.sync().unwrap();
    let other = open(&engine(), &server, None);
    other.write_at(150, &[2; 50]).unwrap();
    other.close().unwrap();
    let mut expected = [vec![1; 100], vec![0; 50], vec![2; 50]].concat();
    for at in [10, 20, 30] {
        file.write_at(at as u64, &[3]).unwrap();
        // On the server, with no commit that would meet the other's.
        file.writeback().wait().unwrap();
        expected[at] = 3;
        assert_same(&all_of(&server), &expected, "a client who opens it now");
    }
    file.sync().unwrap();
    assert_same(&read_all(&file), &expected, "this client");
}

/// Of blocks that were sent and not committed, and are not here any more, somebody else makes holes,
/// after `before`: those that are told of in 8 looks.
fn told_of_holes(faults: &Faults, before: impl FnOnce(&File)) -> BTreeSet<u64> {
    let file = with_holes(&memory(), faults, before);
    let mut told = BTreeSet::new();
    for _look in 0..8 {
        drop(file.revalidate());
        if let Some(Error::Conflict { blocks }) = file.take_error() {
            told.extend(blocks.iter().map(|conflict| conflict.block));
        }
    }
    told
}

/// The client whose blocks they were.
fn with_holes(server: &(impl Server + Clone), faults: &Faults, before: impl FnOnce(&File)) -> File {
    create(&engine(), server, None, BLOCK).close().unwrap();
    let rule = failing(FaultyOperation::Header, When::From(1), TargetErrorKind::Io);
    let no_header = Faults::scripted([rule]);
    faults.stop();
    let faulty = FaultyServer::new(FaultyServer::new(server.clone(), &no_header), faults);
    let file = open(&engine(), &faulty, None);
    for block in GONE {
        file.write_at(block * BLOCK, &[1; 4096]).unwrap();
    }
    file.sync().unwrap_err();
    no_header.stop();
    file.revalidate().unwrap();
    before(&file);
    let other = open(&engine(), server, None);
    other.write_at(100_000, &[2; 10]).unwrap();
    other.close().unwrap();
    faults.resume();
    file
}

fn gone_in(result: Result<(), Error>) -> BTreeSet<u64> {
    match result {
        Err(Error::Conflict { blocks }) => blocks.iter().map(|conflict| conflict.block).collect(),
        other => panic!("of what is gone nothing is told: {other:?}"),
    }
}

#[test]
fn what_is_gone_is_told_by_the_next_sync_even_if_that_fails_for_another_reason() {
    let rule = failing(FaultyOperation::Write, When::From(1), TargetErrorKind::NoSpace);
    let faults = Faults::scripted([rule]);
    let file = with_holes(&memory(), &faults, |_| ());
    file.write_at(0, &[3; 100]).unwrap();
    assert_eq!(gone_in(file.sync()), BTreeSet::from(GONE));
    let failed = file.sync().unwrap_err();
    assert_eq!(failed.target_kind(), Some(TargetErrorKind::NoSpace), "{failed:?}");
    faults.stop();
    file.sync().unwrap();
}

#[test]
fn what_a_direct_write_finds_gone_is_told_by_the_next_sync_and_not_by_it() {
    let (faults, server) = (Faults::none(), memory());
    let file = with_holes(&server, &faults, |_| ());
    file.write_direct(200_000, [4; 5000]).result.unwrap();
    assert_eq!(gone_in(file.sync()), BTreeSet::from(GONE));
    file.sync().unwrap();
    assert_eq!(all_of(&server)[200_000..], [4; 5000]);
}

const GONE: [u64; 4] = [10, 11, 14, 15];

fn failing(operation: FaultyOperation, when: When, kind: TargetErrorKind) -> Rule {
    let fault = Fault::Fail(Failure::Fatal(TargetError::new(kind, "injected")));
    Rule { operation, when, fault }
}

#[test]
fn what_somebody_else_made_holes_of_is_told_even_if_a_look_at_it_fails_on_the_way() {
    for every in 2..=4 {
        let when = When::Every(every);
        let rule = failing(FaultyOperation::Read, when, TargetErrorKind::NotPermitted);
        let faults = Faults::scripted([rule]);
        let told = told_of_holes(&faults, |_| ());
        assert!(faults.injected(FaultyOperation::Read) > 0);
        assert_eq!(told, BTreeSet::from(GONE), "one read of {every} fails");
    }
}

#[test]
fn what_somebody_else_made_holes_of_is_told_even_if_a_barrier_has_failed_before() {
    let rule = failing(FaultyOperation::Barrier, When::From(1), TargetErrorKind::Io);
    let faults = Faults::scripted([rule]);
    let told = told_of_holes(&faults, |file| {
        faults.resume();
        file.sync().unwrap_err();
        faults.stop();
    });
    assert_eq!(told, BTreeSet::from(GONE));
}

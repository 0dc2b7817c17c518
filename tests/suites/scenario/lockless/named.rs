//! One fault each, with the operations of two clients in one order.

use std::{
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use sealback::{CreateOptions, File, Place};
use sealback_stream::{
    Failure, Server, TargetError, TargetErrorKind,
    faulty::{Fault, Faults, FaultyServer, Operation, Rule, When},
};
use sealback_tests::interpose::{Hook, InterposedServer};

use crate::support::{
    all_of, assert_same, create, engine, lockless, memory_locked, name, open, read_all, root,
    sample,
};

const BLOCK: u64 = 4096;

/// A client that can send blocks and, until the faults are stopped, commit nothing.
pub(super) fn client_without_commits(server: &(impl Server + Clone)) -> (File, Faults) {
    let refused = Failure::Fatal(TargetError::new(TargetErrorKind::Io, "injected"));
    let fault = Fault::Fail(refused);
    let rule = Rule { operation: Operation::Header, when: When::From(1), fault };
    let faults = Faults::scripted([rule]);
    (open(&engine(), &FaultyServer::new(server.clone(), &faults), None), faults)
}

pub(super) fn file_of(server: &impl Server, data: &[u8]) {
    let file = create(&engine(), server, None, BLOCK);
    file.write_at(0, data).unwrap();
    file.close().unwrap();
}

#[test]
fn what_another_client_has_sent_and_not_committed_is_left_alone_by_who_makes_the_file_longer() {
    let server = lockless();
    file_of(&server, &[1; 5000]);
    let (slow, faults) = client_without_commits(&server);
    // In the block that the file ends in, and in one that the other passes over.
    slow.write_at(5000, &[2; 100]).unwrap();
    slow.write_at(40_000, &[2; 5000]).unwrap();
    slow.sync().unwrap_err();
    slow.revalidate().unwrap();
    let other = open(&engine(), &server, None);
    other.write_at(6000, &[3; 50]).unwrap();
    other.write_at(100_000, &[3; 10]).unwrap();
    other.close().unwrap();
    faults.stop();
    slow.sync().unwrap();
    let mut expected = vec![0; 100_010];
    for (at, len, byte) in
        [(0, 5000, 1), (5000, 100, 2), (40_000, 5000, 2), (6000, 50, 3), (100_000, 10, 3)]
    {
        expected[at..at + len].fill(byte);
    }
    assert_same(&all_of(&server), &expected, "a client who opens it now");
}

#[test]
fn a_cut_keeps_what_somebody_else_has_changed_in_the_block_that_it_ends_in() {
    for locked in [true, false] {
        let server = memory_locked(locked);
        file_of(&server, &[1; 9000]);
        let file = open(&engine(), &server, None);
        assert_eq!(read_all(&file), [1; 9000]);
        let other = open(&engine(), &server, None);
        other.write_at(4500, &[2; 100]).unwrap();
        other.sync().unwrap();
        file.set_len(5000).unwrap();
        let mut expected = vec![1; 5000];
        expected[4500..4600].fill(2);
        assert_same(&all_of(&server), &expected, "a client who opens it now");
        assert_same(&read_all(&file), &expected, "the one who has cut it");
    }
}

#[test]
fn a_file_that_somebody_else_has_made_longer_is_cut_by_who_does_not_know_of_it() {
    for (locked, grown_here) in [(true, 0), (true, 8000), (false, 0), (false, 8000)] {
        let server = memory_locked(locked);
        file_of(&server, &[1; 5000]);
        let file = open(&engine(), &server, None);
        let other = open(&engine(), &server, None);
        other.write_at(5000, &[2; 5000]).unwrap();
        other.sync().unwrap();
        file.write_at(grown_here, &[3; 10]).unwrap();
        file.set_len(6000).unwrap();
        file.sync().unwrap();
        let mut expected = [vec![1; 5000], vec![2; 1000]].concat();
        if grown_here == 0 {
            expected[..10].fill(3);
        }
        assert_same(&all_of(&server), &expected, "a client who opens it now");
    }
}

/// Calls a function once, after the change of a header or the cut of that number.
struct After {
    number: usize,
    n_changes: AtomicUsize,
    call: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl fmt::Debug for After {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("After").field("number", &self.number).finish_non_exhaustive()
    }
}

impl Hook for After {
    fn control(
        &self,
        change: &mut dyn FnMut() -> Result<(), TargetError>,
    ) -> Result<(), TargetError> {
        let changed = change();
        if self.n_changes.fetch_add(1, Ordering::SeqCst) + 1 == self.number
            && let Some(call) = self.call.lock().unwrap().take()
        {
            call();
        }
        changed
    }
}

#[test]
fn who_comes_late_with_a_cut_that_another_has_finished_takes_nothing_of_what_came_after_it() {
    let server = lockless();
    file_of(&server, &sample(20_000));
    let (slow, faults) = client_without_commits(&server);
    faults.stop();
    let slow = Arc::new(slow);
    let (writer, refuses) = (slow.clone(), faults.clone());
    let call = move || {
        // Finishes the cut, and sends what it does not commit: to the last block, and behind it.
        writer.revalidate().unwrap();
        writer.sync().unwrap();
        refuses.resume();
        writer.write_at(4900, &[2; 300]).unwrap();
        writer.write_at(12_000, &[2; 3000]).unwrap();
        writer.sync().unwrap_err();
    };
    let call: Box<dyn FnOnce() + Send> = Box::new(call);
    let after = After { number: 1, n_changes: AtomicUsize::new(0), call: Mutex::new(Some(call)) };
    let file = open(&engine(), &InterposedServer::new(server.clone(), after), None);
    file.set_len(5000).unwrap();
    slow.revalidate().unwrap();
    faults.stop();
    slow.sync().unwrap();
    let mut expected = sample(20_000)[..4900].to_vec();
    expected.extend([2; 300]);
    expected.resize(12_000, 0);
    expected.extend([2; 3000]);
    assert_same(&all_of(&server), &expected, "a client who opens it now");
}

#[test]
fn a_block_that_was_longer_than_was_known_and_is_gone_is_not_written_again_with_what_was_in_it() {
    for locked in [true, false] {
        let server = memory_locked(locked);
        file_of(&server, &[1; 4100]);
        let file = open(&engine(), &server, None);
        let other = open(&engine(), &server, None);
        other.write_at(4100, &[2; 100]).unwrap();
        other.sync().unwrap();
        assert_eq!(read_all(&file), [1; 4100]);
        file.write_at(4098, &[3]).unwrap();
        other.set_len(100).unwrap();
        file.sync().unwrap();
        let mut expected = [vec![1; 100], vec![0; 3999]].concat();
        expected[4098] = 3;
        assert_same(&all_of(&server), &expected, "a client who opens it now");
    }
}

#[test]
fn holes_up_to_the_end_leave_what_somebody_else_has_sent_behind_it() {
    for locked in [true, false] {
        let server = memory_locked(locked);
        file_of(&server, &[1; 5000]);
        let (slow, faults) = client_without_commits(&server);
        slow.write_at(5000, &[2; 100]).unwrap();
        slow.sync().unwrap_err();
        open(&engine(), &server, None).punch(0..5000).unwrap();
        faults.stop();
        slow.sync().unwrap();
        let expected = [vec![0; 5000], vec![2; 100]].concat();
        assert_same(&all_of(&server), &expected, "a client who opens it now");
    }
}

#[test]
fn what_was_cut_off_before_it_was_committed_does_not_come_back_when_the_file_grows() {
    for locked in [true, false] {
        let server = memory_locked(locked);
        file_of(&server, &[1; 100]);
        let (file, faults) = client_without_commits(&server);
        file.write_at(100, &[2; 9000]).unwrap();
        file.sync().unwrap_err();
        faults.stop();
        file.set_len(5000).unwrap();
        file.write_at(12_000, &[3; 10]).unwrap();
        file.sync().unwrap();
        let mut expected = [vec![1; 100], vec![2; 4900], vec![0; 7010]].concat();
        expected[12_000..].fill(3);
        assert_same(&all_of(&server), &expected, "a client who opens it now");
    }
}

#[test]
fn what_was_cut_off_a_draft_does_not_come_back_when_it_grows_and_nothing_before_it_is_lost() {
    for locked in [true, false] {
        let server = memory_locked(locked);
        file_of(&server, &[1; 100]);
        let (engine, root) = (engine(), root());
        let place = Place { server: &server, cache: None, root: &root };
        let options = CreateOptions { block_bytes: BLOCK, replace: true };
        let file = engine.create(&place, &name(), &options).unwrap();
        file.write_at(0, &[2; 9000]).unwrap();
        file.writeback().wait().unwrap();
        file.set_len(5000).unwrap();
        file.revalidate().unwrap();
        file.write_at(6000, &[3; 10]).unwrap();
        file.write_at(12_000, &[3; 10]).unwrap();
        file.sync().unwrap();
        file.publish().unwrap();
        let mut expected = [vec![2; 5000], vec![0; 7010]].concat();
        expected[6000..6010].fill(3);
        expected[12_000..].fill(3);
        assert_same(&all_of(&server), &expected, "a client who opens it now");
    }
}

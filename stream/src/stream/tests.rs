use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use proptest::prelude::*;

use super::*;
use crate::CreditSource;

const BLOCK: u64 = 4096 + 48;
const NOW: Duration = Duration::ZERO;

fn stream(window: usize) -> Stream {
    Stream::new(Role::Must, Geometry::new(4096).unwrap(), window)
}

fn grant(blocks: u64) -> impl FnMut(u64) -> Prepared {
    move |_| Prepared::Granted(Grant::unlimited().with_max_bytes(blocks * BLOCK))
}

fn all_sealed(blocks: &Runs) -> Option<u64> {
    Some(blocks.n_blocks() * BLOCK)
}

/// The same, with gaps.
fn with_gaps(blocks: u64) -> impl FnMut(u64) -> Prepared {
    move |_| Prepared::Granted(Grant::unlimited().with_max_bytes(blocks * BLOCK).with_gaps())
}

fn list(blocks: &Runs) -> Vec<Range<u64>> {
    blocks.iter().cloned().collect()
}

fn retry() -> Failure {
    Failure::Retry(TargetError::new(TargetErrorKind::Io, "injected"))
}

#[test]
fn a_gap_is_passed_over_and_an_idle_stream_adopts_the_issuers_position() {
    let mut stream = stream(4);
    stream.want(10..12);
    stream.build(NOW, true, grant(8), |_| ());
    stream.collect(12);
    assert_eq!(stream.collected_to(), 10);
    let id = stream.issue(NOW, all_sealed).unwrap().id;
    assert!(matches!(stream.terminated(id, Ok(2 * BLOCK)), Collected::Passed { .. }));
    assert!(stream.collect(12));
    assert_eq!(stream.collected_to(), 12);
    stream.collect(40);
    assert_eq!(stream.collected_to(), 40);
    assert!(stream.is_finished());
}

#[test]
fn terminations_out_of_order_are_collected_in_order() {
    let mut stream = stream(4);
    stream.want(0..6);
    stream.build(NOW, true, grant(2), |_| ());
    let ids: Vec<_> = std::iter::from_fn(|| stream.issue(NOW, all_sealed)).map(|i| i.id).collect();
    stream.terminated(ids[2], Ok(2 * BLOCK));
    stream.terminated(ids[1], Ok(2 * BLOCK));
    stream.collect(6);
    assert_eq!(stream.collected_to(), 0);
    stream.terminated(ids[0], Ok(2 * BLOCK));
    stream.collect(6);
    assert_eq!(stream.collected_to(), 6);
}

#[test]
fn a_short_write_counts_whole_blocks_and_the_torn_block_is_sent_again() {
    let mut stream = stream(4);
    stream.want(0..4);
    stream.build(NOW, true, grant(8), |_| ());
    let id = stream.issue(NOW, all_sealed).unwrap().id;
    let Collected::Unfinished { blocks, attempts, .. } = stream.terminated(id, Ok(2 * BLOCK + 100))
    else {
        panic!("a short write is unfinished")
    };
    assert!(blocks == (2..4) && attempts == 0);
    stream.collect(4);
    assert_eq!(stream.collected_to(), 2);
    assert_eq!(stream.retile(|_| u64::MAX, &[]), 1);
    stream.build(NOW, false, grant(1), |_| ());
    assert_eq!(stream.issue(NOW, all_sealed).unwrap().blocks, 2..3);
    assert_eq!(stream.issue(NOW, all_sealed).unwrap().blocks, 3..4);
}

#[test]
fn bytes_count_once_and_only_as_many_as_were_sent_whatever_the_target_claims() {
    let mut stream = stream(4);
    stream.want(0..4);
    stream.build(NOW, true, grant(8), |_| ());
    let id = stream.issue(NOW, all_sealed).unwrap().id;
    assert_eq!(stream.terminated(id, Ok(2 * BLOCK - 1)).bytes(), BLOCK);
    stream.retile(|_| u64::MAX, &[]);
    stream.build(NOW, true, grant(8), |_| ());
    let id = stream.issue(NOW, all_sealed).unwrap().id;
    assert_eq!(stream.terminated(id, Ok(u64::MAX)).bytes(), 3 * BLOCK);
}

#[test]
fn retries_are_split_and_merged_by_the_new_grant_and_go_first() {
    let mut stream = stream(2);
    stream.want(0..6);
    stream.build(NOW, true, grant(2), |_| ());
    let first = stream.issue(NOW, all_sealed).unwrap().id;
    let second = stream.issue(NOW, all_sealed).unwrap().id;
    stream.terminated(second, Err(retry()));
    stream.terminated(first, Err(retry()));
    assert_eq!(stream.retile(|_| u64::MAX, &[]), 2);
    stream.build(NOW, false, grant(3), |_| ());
    let again = stream.issue(NOW, all_sealed).unwrap();
    assert!(again.blocks == (0..3) && again.attempts == 1);
    assert_eq!(stream.issue(NOW, all_sealed).unwrap().blocks, 3..4);
}

#[test]
fn a_stream_that_is_switched_off_gives_credit_back_when_the_target_has_answered() {
    #[derive(Debug)]
    struct Stock(AtomicU32);
    impl CreditSource for Stock {
        fn give_back(&self, n: u32) {
            self.0.fetch_add(n, Ordering::SeqCst);
        }
    }
    let stock = Arc::new(Stock(AtomicU32::new(0)));
    let mut stream = stream(4);
    stream.want(0..2);
    let grant = || Grant::unlimited().with_credit(Credit::new(stock.clone(), 1));
    stream.build(NOW, true, |_| Prepared::Granted(grant()), |_| ());
    let id = stream.issue(NOW, all_sealed).unwrap().id;
    stream.switch_off();
    assert!(stream.is_finished());
    assert_eq!(stock.0.load(Ordering::SeqCst), 0, "the target has not answered yet");
    assert!(matches!(stream.terminated(id, Ok(2 * BLOCK)), Collected::Ignored));
    assert_eq!(stock.0.load(Ordering::SeqCst), 1);
}

#[test]
fn nothing_fresh_overtakes_a_retry_that_waits_for_credit() {
    let mut stream = stream(4);
    stream.want(0..4);
    stream.build(NOW, true, grant(2), |_| ());
    let id = stream.issue(NOW, all_sealed).unwrap().id;
    stream.terminated(id, Err(retry()));
    stream.retile(|_| u64::MAX, &[]);
    stream.build(NOW, false, |_| Prepared::Later, |_| ());
    assert_eq!(stream.issue(NOW, all_sealed), None);
    stream.build(NOW, false, grant(2), |_| ());
    assert_eq!(stream.issue(NOW, all_sealed).unwrap().blocks, 0..2);
    assert_eq!(stream.issue(NOW, all_sealed).unwrap().blocks, 2..4);
}

/// Prepared subrequests and those under way of a stream that wants blocks 0 to 8, two in each; the
/// first was issued and has failed, or has gone through.
fn first_of_four(outcome: Result<u64, Failure>) -> Stream {
    let mut stream = stream(1);
    stream.want(0..8);
    stream.build(NOW, true, grant(2), |_| ());
    let id = stream.issue(NOW, all_sealed).unwrap().id;
    stream.terminated(id, outcome);
    stream
}

#[test]
fn blocks_with_other_bytes_go_again_if_they_went_through_and_are_not_still_to_go() {
    let mut stream = first_of_four(Ok(2 * BLOCK));
    // Block 2 is the first of those that were never issued: it goes with its new bytes anyway.
    assert_eq!(stream.retile(|_| u64::MAX, &[1, 2]), 0);
    stream.build(NOW, true, grant(9), |_| ());
    let mut went = Vec::new();
    while let Some(issued) = stream.issue(NOW, all_sealed) {
        stream.terminated(issued.id, Ok(u64::MAX));
        went.push(issued.blocks);
    }
    assert_eq!(went, [1..2, 2..4, 4..6, 6..8]);
}

#[test]
fn nothing_is_joined_over_a_boundary_when_it_goes_again() {
    let mut stream = stream(1);
    stream.want(0..4);
    let bounded =
        |block: u64| Prepared::Granted(Grant::unlimited().with_boundary((block / 2 + 1) * 2));
    stream.build(NOW, true, bounded, |_| ());
    let id = stream.issue(NOW, all_sealed).unwrap().id;
    stream.terminated(id, Err(retry()));
    // The pieces of memory are shorter than what failed: the last of them ends at the boundary.
    assert_eq!(stream.retile(|block| block + 1, &[]), 1);
    stream.build(NOW, true, grant(9), |_| ());
    let issued = stream.issue(NOW, all_sealed).unwrap();
    assert_eq!(issued.blocks, 0..2);
    stream.terminated(issued.id, Ok(u64::MAX));
    assert_eq!(stream.issue(NOW, all_sealed).unwrap().blocks, 2..4);
}

#[test]
fn of_a_write_with_gaps_exactly_the_rest_of_its_list_is_sent_again() {
    let mut stream = stream(4);
    for blocks in [0..2, 5..7, 9..12] {
        stream.want(blocks);
    }
    stream.build(NOW, true, with_gaps(9), |_| ());
    let issued = stream.issue(NOW, all_sealed).unwrap();
    assert_eq!(list(&issued.blocks), [0..2, 5..7, 9..12]);
    // Three blocks and a part of a fourth: the list is counted through, not the gaps.
    let short = stream.terminated(issued.id, Ok(3 * BLOCK + 7));
    let Collected::Unfinished { blocks, .. } = short else { panic!("a short write: {short:?}") };
    assert_eq!(list(&blocks), [6..7, 9..12]);
    stream.collect(12);
    assert_eq!(stream.collected_to(), 6);
    assert_eq!(stream.retile(|_| u64::MAX, &[]), 1);
    // Without gaps now: one subrequest for each run.
    stream.build(NOW, false, grant(9), |_| ());
    let [first, second] = [(); 2].map(|()| stream.issue(NOW, all_sealed).unwrap());
    assert!(first.blocks == (6..7) && second.blocks == (9..12));
    stream.terminated(first.id, Ok(BLOCK));
    stream.collect(12);
    assert_eq!(stream.collected_to(), 9, "the gap is passed over");
}

#[test]
fn what_failed_apart_is_sent_again_in_one_list_over_what_went_through_between() {
    let mut stream = stream(4);
    stream.want(0..9);
    stream.build(NOW, true, grant(3), |_| ());
    let [first, second, third] = [(); 3].map(|()| stream.issue(NOW, all_sealed).unwrap().id);
    stream.terminated(second, Ok(3 * BLOCK));
    stream.terminated(first, Err(retry()));
    stream.terminated(third, Ok(2 * BLOCK));
    assert_eq!(stream.retile(|_| u64::MAX, &[4]), 2);
    stream.build(NOW, false, with_gaps(9), |_| ());
    let again = stream.issue(NOW, all_sealed).unwrap();
    assert_eq!(list(&again.blocks), [0..3, 4..5, 8..9]);
    assert!(!stream.collect(9));
    stream.terminated(again.id, Ok(3 * BLOCK));
    stream.collect(9);
    assert_eq!((stream.collected_to(), stream.done_to()), (4, 4));
    stream.retile(|_| u64::MAX, &[]);
    stream.build(NOW, false, with_gaps(9), |_| ());
    let again = stream.issue(NOW, all_sealed).unwrap();
    stream.terminated(again.id, Ok(2 * BLOCK));
    stream.collect(9);
    assert!(stream.is_finished() && stream.collected_to() == 9);
}

#[test]
fn what_went_through_behind_what_waits_to_go_again_is_not_collected() {
    let mut stream = stream(2);
    stream.want(0..4);
    stream.build(NOW, true, grant(2), |_| ());
    let [first, second] = [(); 2].map(|()| stream.issue(NOW, all_sealed).unwrap().id);
    stream.terminated(second, Ok(2 * BLOCK));
    stream.terminated(first, Err(retry()));
    stream.retile(|_| u64::MAX, &[]);
    assert!(!stream.collect(4), "nothing has moved");
    assert_eq!(stream.collected_to(), 0);
    stream.build(NOW, true, grant(2), |_| ());
    let again = stream.issue(NOW, all_sealed).unwrap();
    assert_eq!(again.blocks, 0..2);
    stream.terminated(again.id, Ok(2 * BLOCK));
    assert!(stream.collect(4), "all has");
    assert!(!stream.collect(4), "nothing more");
    assert_eq!(stream.collected_to(), 4);
}

#[test]
fn the_head_is_held_up_by_its_ciphertext_alone_while_the_window_has_room() {
    let mut stream = stream(1);
    assert!(stream.head_with_room().is_none(), "nothing is prepared");
    stream.want(0..4);
    stream.build(NOW, true, grant(2), |_| ());
    assert_eq!(stream.stalled(), 2);
    assert_eq!(stream.head_with_room().unwrap().blocks, 0..2);
    let id = stream.issue(NOW, all_sealed).unwrap().id;
    assert!(stream.head_with_room().is_none(), "the window is full");
    stream.terminated(id, Ok(2 * BLOCK));
    assert_eq!(stream.stalled(), 1);
    assert_eq!(stream.head_with_room().unwrap().blocks, 2..4);
}

#[test]
fn what_waits_behind_a_retry_is_not_held_up_by_its_ciphertext() {
    let mut stream = stream(1);
    stream.want(0..4);
    stream.build(NOW, true, grant(2), |_| ());
    let id = stream.issue(NOW, all_sealed).unwrap().id;
    stream.terminated(id, Err(retry()));
    stream.retile(|_| u64::MAX, &[]);
    assert!(stream.head_with_room().is_none(), "the retry has no grant yet");
    stream.build(NOW, true, grant(2), |_| ());
    assert_eq!(stream.head_with_room().unwrap().blocks, 0..2);
}

proptest! {
    #[test]
    fn whatever_fails_all_that_is_wanted_goes_through_once(
        runs in prop::collection::vec((0u64..3, 1u64..6), 1..20),
        faults in prop::collection::vec((0u64..4, 1u64..6, any::<bool>()), 60),
    ) {
        let mut stream = stream(3);
        let (mut at, mut wanted, mut through) = (0, Vec::new(), Vec::new());
        for (gap, len) in runs {
            let blocks = at + gap..at + gap + len;
            at = blocks.end;
            wanted.extend(blocks.clone());
            stream.want(blocks);
        }
        let mut faults = faults.into_iter().chain(std::iter::repeat((3, 4, true)));
        let mut rounds = 0..1_000;
        while !stream.is_finished() {
            prop_assert!(rounds.next().is_some(), "it comes to no end");
            let (_, granted, gaps) = faults.next().unwrap();
            match gaps {
                true => stream.build(NOW, true, with_gaps(granted), |_| ()),
                false => stream.build(NOW, true, grant(granted), |_| ()),
            }
            let issued: Vec<_> = std::iter::from_fn(|| stream.issue(NOW, all_sealed)).collect();
            for Issued { id, blocks, .. } in issued.into_iter().rev() {
                let (fault, part, _) = faults.next().unwrap();
                let n_blocks = blocks.n_blocks();
                let done = match fault {
                    0 => 0,
                    1 => part.min(n_blocks),
                    _ => n_blocks,
                };
                let carried = blocks.blocks();
                through.extend(carried.take(usize::try_from(done).unwrap()));
                let outcome = if fault == 0 { Err(retry()) } else { Ok(done * BLOCK) };
                stream.terminated(id, outcome);
                let before = stream.collected_to();
                stream.collect(at);
                prop_assert!(stream.collected_to() >= before);
                let to = stream.collected_to();
                prop_assert!(wanted.iter().filter(|b| **b < to).all(|b| through.contains(b)));
            }
            stream.retile(|_| u64::MAX, &[]);
        }
        stream.collect(at);
        prop_assert_eq!(stream.collected_to(), at);
        through.sort_unstable();
        prop_assert_eq!(through, wanted);
    }
}

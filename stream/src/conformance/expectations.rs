//! Compare-and-write of blocks.

use std::{sync::Arc, thread};

use sealback_crypto::Sealed;

use super::{
    Broken, ServerChecks, Verdict, ensure,
    sample::{Sample, absent, name, put, same, try_write, write, write_if},
};
use crate::{BlockConflict, Expectation, Failure, Segment, Server, Target};

pub(super) const CHECKS: ServerChecks = &[
    ("a write whose expectations hold goes through", hold),
    ("where one does not hold, nothing is written and every block that differs is named", differ),
    ("a block's own nonce counts as met", own_nonce),
    ("a hole counts as absent", hole_is_absent),
    ("a hole that is sent again counts as met, whatever it expected", hole_again),
    ("comparing and writing are one step, through whatever handles", race),
];

fn hold(server: &dyn Server) -> Verdict {
    let sample = Sample::new(server)?;
    let target = sample.create(server, &name("a")?)?;
    let first = sample.seal(2..5, 1)?;
    write_if(&*target, one(&first), vec![absent(2), absent(3), absent(4)])?;
    // Only some of the blocks; a gap, which is absent; and beyond the end.
    let second = sample.seal(1..6, 2)?;
    write_if(&*target, one(&second), vec![absent(1), same(&first, 3), absent(5)])?;
    sample.ensure_stored(&*target, &second)
}

fn differ(server: &dyn Server) -> Verdict {
    let sample = Sample::new(server)?;
    let target = sample.create(server, &name("a")?)?;
    let (first, other) = (sample.seal(0..4, 1)?, sample.seal(0..10, 2)?);
    put(&*target, &first)?;
    let again = sample.seal(0..6, 3)?;
    let expectations = vec![
        same(&first, 0),
        same(&other, 1),
        absent(2),
        same(&first, 3),
        absent(4),
        same(&other, 5),
    ];
    ensure_conflict(
        &*target,
        one(&again),
        expectations,
        &[(1, Some(&first)), (2, Some(&first)), (5, None)],
    )?;
    sample.ensure_stored(&*target, &first)?;
    let beyond = super::sample::read(&*target, sample.geometry(), 4..6)?;
    ensure!(beyond.is_empty(), "something was written beyond the end");
    // The one that differs is in another segment than what would be written first.
    let far = sample.seal(9..10, 4)?;
    let segments = vec![sample.hole(0..1), Segment::Sealed(far)];
    ensure_conflict(&*target, segments, vec![same(&other, 9)], &[(9, None)])?;
    sample.ensure_stored(&*target, &first)
}

fn own_nonce(server: &dyn Server) -> Verdict {
    let sample = Sample::new(server)?;
    let target = sample.create(server, &name("a")?)?;
    let sealed = sample.seal(0..3, 1)?;
    write_if(&*target, one(&sealed), vec![absent(0), absent(1), absent(2)])?;
    write_if(&*target, one(&sealed), vec![absent(0), absent(1), absent(2)])?;
    let (again, other) = (sample.seal(0..3, 2)?, sample.seal(0..3, 3)?);
    put(&*target, &again.slice(1..2))?;
    // Partly done before: each block is as it was expected, or done.
    write_if(&*target, one(&again), (0..3).map(|block| same(&sealed, block)).collect())?;
    // Another's is not one's own.
    ensure_conflict(&*target, one(&other), vec![same(&sealed, 1)], &[(1, Some(&again))])?;
    sample.ensure_stored(&*target, &again)
}

fn hole_is_absent(server: &dyn Server) -> Verdict {
    let sample = Sample::new(server)?;
    let target = sample.create(server, &name("a")?)?;
    let first = sample.seal(0..4, 1)?;
    put(&*target, &first)?;
    write(&*target, vec![sample.hole(1..3)])?;
    let second = sample.seal(1..2, 2)?;
    ensure_conflict(&*target, one(&second), vec![same(&first, 1)], &[(1, None)])?;
    write_if(&*target, one(&second), vec![absent(1)])?;
    // A hole is written on condition, too.
    let hole = || vec![sample.hole(3..4)];
    ensure_conflict(&*target, hole(), vec![absent(3)], &[(3, Some(&first))])?;
    write_if(&*target, hole(), vec![same(&first, 3)])?;
    sample.ensure_stored(&*target, &second)
}

fn hole_again(server: &dyn Server) -> Verdict {
    let sample = Sample::new(server)?;
    let target = sample.create(server, &name("a")?)?;
    let (first, other) = (sample.seal(0..4, 1)?, sample.seal(0..9, 2)?);
    put(&*target, &first)?;
    let expectations = || vec![same(&first, 1), same(&first, 2)];
    for _attempt in 0..2 {
        write_if(&*target, vec![sample.hole(1..3)], expectations())?;
    }
    // Partly done before, and beside what is not.
    put(&*target, &first.slice(2..3))?;
    write_if(&*target, vec![sample.hole(1..3)], expectations())?;
    put(&*target, &other.slice(2..3))?;
    let named = [(2, Some(&other))];
    ensure_conflict(&*target, vec![sample.hole(1..3)], expectations(), &named)?;
    // Where the file ends before it, a hole is made all the same.
    write_if(&*target, vec![sample.hole(7..9)], vec![same(&other, 8)])?;
    let last = super::sample::read(&*target, sample.geometry(), 8..9)?;
    ensure!(last == vec![0; last.len()] && last.len() >= 48, "{} bytes of it", last.len());
    for (sealed, blocks) in [(&first, 0..1), (&other, 2..3), (&first, 3..4)] {
        sample.ensure_stored(&*target, &sealed.slice(blocks))?;
    }
    Ok(())
}

fn race(server: &dyn Server) -> Verdict {
    let (sample, name) = (Sample::new(server)?, name("a")?);
    let created = sample.create(server, &name)?;
    let other = server.open(&name)?;
    let mut stored = sample.seal(3..5, 0)?;
    put(&*created, &stored)?;
    for round in 0..25 {
        let attempts = (0..4).map(|_| sample.seal(3..5, round));
        let attempts: Vec<Sealed> = attempts.collect::<Result<_, _>>()?;
        let winners = compete(&attempts, [&created, &other], &stored)?;
        let [winner] = winners[..] else {
            ensure!(false, "in round {round}, {} of 4 went through", winners.len());
            continue;
        };
        stored = attempts[winner].clone();
        sample.ensure_stored(&*created, &stored)?;
    }
    Ok(())
}

/// Writes all attempts at once, each on condition that `stored` is there; which went through.
fn compete(
    attempts: &[Sealed],
    targets: [&Arc<dyn Target>; 2],
    stored: &Sealed,
) -> Result<Vec<usize>, Broken> {
    let outcomes: Vec<_> = thread::scope(|scope| {
        let threads = attempts.iter().zip(targets.iter().cycle()).map(|(sealed, target)| {
            let expectations = vec![same(stored, 3), same(stored, 4)];
            scope.spawn(move || try_write(&***target, one(sealed), expectations))
        });
        let threads: Vec<_> = threads.collect();
        threads.into_iter().map(thread::ScopedJoinHandle::join).collect()
    });
    let mut winners = Vec::new();
    for (attempt, outcome) in outcomes.into_iter().enumerate() {
        let outcome = outcome.map_err(|_| Broken("a writing thread panicked".to_owned()))?;
        match outcome? {
            Ok(_) => winners.push(attempt),
            Err(Failure::Conflict(_)) => {}
            Err(failure) => return Err(failure.into()),
        }
    }
    Ok(winners)
}

/// That a write conflicts, and names these blocks, with what is stored there.
fn ensure_conflict(
    target: &dyn Target,
    segments: Vec<Segment>,
    expectations: Vec<Expectation>,
    named: &[(u64, Option<&Sealed>)],
) -> Verdict {
    let named = named.iter().map(|(block, stored)| {
        let stored = stored.map(|sealed| sealed.nonce(*block));
        BlockConflict { block: *block, stored }
    });
    let named: Vec<BlockConflict> = named.collect();
    match try_write(target, segments, expectations)? {
        Err(Failure::Conflict(found)) => {
            ensure!(found == named, "{found:?} was named, where {named:?} is right");
            Ok(())
        }
        Err(failure) => Err(failure.into()),
        Ok(_) => Err(Broken("a write that should have conflicted went through".to_owned())),
    }
}

fn one(sealed: &Sealed) -> Vec<Segment> {
    vec![Segment::Sealed(sealed.clone())]
}

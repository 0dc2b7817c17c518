//! Compare-and-write of headers, cutting, barriers and the lock of the size.

use std::{sync::mpsc, thread, time::Duration};

use sealback_crypto::{Header, SlotWrite};

use super::{
    Broken, ServerChecks, Verdict, ensure,
    names::ensure_kind,
    sample::{Sample, name, put, read, wait_for},
};
use crate::{Server, SizeLockAttempt, Target, TargetErrorKind};

pub(super) const CHECKS: ServerChecks = &[
    ("a slot is written where the header is still what was read", slots),
    ("a slot is not written over another MAC than what was read", stale_slot),
    ("a slot is not written under another prologue than what was read", other_prologue),
    ("of several who write a slot at once, one goes through", slot_race),
    ("a cut leaves the last block, and nothing behind it", cut),
    ("a cut leaves all of a last block that is longer than the size", longer_last_block),
    ("what was cut away is zeros when the file grows over it", cut_and_grown),
    ("a file is not cut where the header is no longer what was read", stale_cut),
    ("a barrier returns", barrier),
    ("who holds the size excludes others until it is dropped", size_held),
];

fn slots(server: &dyn Server) -> Verdict {
    let (sample, name) = (Sample::new(server)?, name("a")?);
    let target = sample.create(server, &name)?;
    put(&*target, &sample.seal(0..1, 1)?)?;
    let mut header = sample.new.header.clone();
    // The first writes a slot that was never written, the others overwrite.
    for size in 1..6 {
        let commit = Sample::commit(&header, size)?;
        target.write_slot(&commit.write)?;
        header = commit.header;
        ensure_header(&*target, &header)?;
        ensure_header(&*server.open(&name)?, &header)?;
    }
    Ok(())
}

fn stale_slot(server: &dyn Server) -> Verdict {
    let (sample, name) = (Sample::new(server)?, name("a")?);
    let target = sample.create(server, &name)?;
    let first = Sample::commit(&sample.new.header, 1)?;
    let late = Sample::commit(&sample.new.header, 2)?;
    server.open(&name)?.write_slot(&first.write)?;
    ensure_refused(&*target, &late.write, &first.header)?;
    // One that takes the slot for written where it is not.
    let (sample, name) = (Sample::new(server)?, super::sample::name("b")?);
    let target = sample.create(server, &name)?;
    let mut write = Sample::commit(&sample.new.header, 1)?.write;
    write.expect.mac[31] = 1;
    ensure_refused(&*target, &write, &sample.new.header)
}

fn other_prologue(server: &dyn Server) -> Verdict {
    let (sample, other) = (Sample::new(server)?, Sample::new(server)?);
    let target = sample.create(server, &name("a")?)?;
    // Both slots are zeros in both files: only the prologue tells.
    let write = Sample::commit(&other.new.header, 1)?.write;
    ensure_refused(&*target, &write, &sample.new.header)?;
    let mut write = Sample::commit(&sample.new.header, 1)?.write;
    write.expect.prologue[63] ^= 1;
    ensure_refused(&*target, &write, &sample.new.header)
}

fn slot_race(server: &dyn Server) -> Verdict {
    let (sample, name) = (Sample::new(server)?, name("a")?);
    let created = sample.create(server, &name)?;
    let other = server.open(&name)?;
    let mut header = sample.new.header.clone();
    for round in 0..25 {
        let commits = (0..4).map(|writer| Sample::commit(&header, 10 * round + writer));
        let commits = commits.collect::<Result<Vec<_>, _>>()?;
        let outcomes: Vec<_> = thread::scope(|scope| {
            let targets = [&created, &other].into_iter().cycle();
            let threads = commits
                .iter()
                .zip(targets)
                .map(|(commit, target)| scope.spawn(move || target.write_slot(&commit.write)));
            let threads: Vec<_> = threads.collect();
            threads.into_iter().map(thread::ScopedJoinHandle::join).collect()
        });
        let mut winners = Vec::new();
        for (commit, outcome) in commits.into_iter().zip(outcomes) {
            match outcome.map_err(|_| Broken("a writing thread panicked".to_owned()))? {
                Ok(()) => winners.push(commit.header),
                error => ensure_kind(error, TargetErrorKind::Conflict)?,
            }
        }
        let n_winners = winners.len();
        ensure!(n_winners == 1, "in round {round}, {n_winners} of 4 went through");
        header = winners.remove(0);
        ensure_header(&*created, &header)?;
    }
    Ok(())
}

fn cut(server: &dyn Server) -> Verdict {
    let sample = Sample::new(server)?;
    let target = sample.create(server, &name("a")?)?;
    let sealed = sample.seal(0..10, 1)?;
    put(&*target, &sealed)?;
    let expect = sample.new.header.expectation();
    // In the midst of a block's bytes, between two blocks, and to no block at all.
    for size in [7 * 4096 + 100, 4 * 4096, 0] {
        let n_blocks = sample.geometry().n_blocks(size);
        let stored_bytes = sample.geometry().stored_bytes(size);
        if size % 4096 != 0 {
            let first = sample.geometry().block_at(size);
            put(&*target, &sample.seal_bytes(first, size % 4096, 2)?)?;
        }
        target.cut(sample.geometry(), n_blocks, &expect)?;
        let stored = read(&*target, sample.geometry(), 0..10)?;
        let found = 8192 + stored.len() as u64;
        ensure!(found == stored_bytes, "{found} bytes are stored, where {stored_bytes} is right");
        sample.ensure_stored(&*target, &sealed.slice(0..size / 4096))?;
        ensure_header(&*target, &sample.new.header)?;
    }
    Ok(())
}

fn longer_last_block(server: &dyn Server) -> Verdict {
    let sample = Sample::new(server)?;
    let target = sample.create(server, &name("a")?)?;
    let sealed = sample.seal(0..10, 1)?;
    put(&*target, &sealed)?;
    // The size may be anything within the last block: what is stored of it is what counts.
    target.cut(sample.geometry(), 7, &sample.new.header.expectation())?;
    let stored = read(&*target, sample.geometry(), 0..10)?;
    ensure!(stored == sealed.slice(0..7).bytes(), "{} bytes are stored", stored.len());
    Ok(())
}

fn cut_and_grown(server: &dyn Server) -> Verdict {
    let sample = Sample::new(server)?;
    let target = sample.create(server, &name("a")?)?;
    let sealed = sample.seal(0..10, 1)?;
    put(&*target, &sealed)?;
    target.cut(sample.geometry(), 3, &sample.new.header.expectation())?;
    put(&*target, &sample.seal(8..9, 2)?)?;
    let stored = read(&*target, sample.geometry(), 0..8)?;
    let (kept, grown) = stored.split_at(sealed.slice(0..3).bytes().len());
    ensure!(kept == sealed.slice(0..3).bytes(), "what was not cut away is no longer there");
    ensure!(grown.len() == 5 * 4144, "{} bytes of the gap are there", grown.len());
    ensure!(grown.iter().all(|byte| *byte == 0), "what was cut away is there again");
    Ok(())
}

fn stale_cut(server: &dyn Server) -> Verdict {
    let (sample, name) = (Sample::new(server)?, name("a")?);
    let target = sample.create(server, &name)?;
    let sealed = sample.seal(0..4, 1)?;
    put(&*target, &sealed)?;
    let flagged = Sample::commit(&sample.new.header, 4096)?;
    target.write_slot(&flagged.write)?;
    let expect = flagged.header.expectation();
    // Somebody else has finished the cut, and may have made the file longer.
    let next = Sample::commit(&flagged.header, 2)?;
    server.open(&name)?.write_slot(&next.write)?;
    ensure_kind(target.cut(sample.geometry(), 1, &expect), TargetErrorKind::Conflict)?;
    let mut expect = next.header.expectation();
    expect.prologue[20] ^= 1;
    ensure_kind(target.cut(sample.geometry(), 1, &expect), TargetErrorKind::Conflict)?;
    sample.ensure_stored(&*target, &sealed)
}

fn barrier(server: &dyn Server) -> Verdict {
    let sample = Sample::new(server)?;
    let target = sample.create(server, &name("a")?)?;
    target.barrier()?;
    let sealed = sample.seal(0..4, 1)?;
    put(&*target, &sealed)?;
    target.barrier()?;
    sample.ensure_stored(&*target, &sealed)
}

fn size_held(server: &dyn Server) -> Verdict {
    let (sample, name) = (Sample::new(server)?, name("a")?);
    let target = sample.create(server, &name)?;
    let takes = |target: &dyn Target| -> Result<bool, Broken> {
        Ok(matches!(target.try_lock_size()?, SizeLockAttempt::Taken(_)))
    };
    let Some(held) = target.lock_size()? else {
        ensure!(!takes(&*target)?, "there is a lock for those who do not wait for it only");
        return Ok(());
    };
    let other = server.open(&name)?;
    ensure!(!takes(&*target)? && !takes(&*other)?, "a second holder was let in at once");
    // It does not exclude writers.
    put(&*other, &sample.seal(0..1, 1)?)?;
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || drop(sender.send(other.lock_size().map(|lock| lock.is_some()))));
    let early = receiver.recv_timeout(Duration::from_millis(50));
    ensure!(early.is_err(), "a second holder was let in");
    drop(held);
    let has_lock = wait_for(&receiver, "taking a lock that is free")??;
    ensure!(has_lock, "one handle has a lock of the size, another has none");
    drop(target.lock_size()?);
    if let SizeLockAttempt::Taken(held) = target.try_lock_size()? {
        ensure!(!takes(&*target)?, "who did not wait excludes nobody");
        ensure!(!takes(&*server.open(&name)?)?, "who did not wait excludes no other handle");
        drop(held);
        ensure!(takes(&*target)?, "a lock that was let go of is not free");
    }
    Ok(())
}

/// That a slot is not written, because the header is another.
fn ensure_refused(target: &dyn Target, write: &SlotWrite, stored: &Header) -> Verdict {
    ensure_kind(target.write_slot(write), TargetErrorKind::Conflict)?;
    ensure_header(target, stored)
}

fn ensure_header(target: &dyn Target, header: &Header) -> Verdict {
    let stored = target.read_header()?;
    ensure!(stored == header.to_bytes()[..], "the stored header is another");
    Ok(())
}

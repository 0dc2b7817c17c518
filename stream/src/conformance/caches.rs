//! Copies and their records.

use std::{ops::Range, sync::Arc};

use sealback_crypto::Sealed;

use super::{
    Broken, CacheChecks, Verdict, ensure,
    sample::{Sample, absent, put, read, same, try_write, write_if},
};
use crate::{Cache, CacheFile, Failure, Segment};

pub(super) const CHECKS: CacheChecks = &[
    ("of a new copy, no block is present", new_is_empty),
    ("what was confirmed is present, and nothing else", confirmed),
    ("what was forgotten is absent, and nothing else", forgotten),
    ("when a copy was invalidated, no block is present", invalidated),
    ("all openings of a copy have one record", shared),
    ("two files have two copies", kept_apart),
    ("what was written to a copy reads back", round_trips),
    ("what a write to a copy expects is compared", compared),
    ("a copy keeps the header, and is cut", header_kept),
    ("what a header cuts is forgotten, a block that it goes through, too", cut_is_forgotten),
    ("what was cut away since it was written is not confirmed", cut_not_confirmed),
    ("forgetting what was never confirmed does nothing to what comes then", forgotten_before),
    ("a copy takes barriers, and publishing does nothing", barrier),
];

fn new_is_empty(cache: &dyn Cache) -> Verdict {
    let sample = Sample::flat()?;
    let copy = open(cache, &sample)?;
    ensure_present(&*copy, 0..3000, &[])?;
    copy.forget(0..3000)?;
    ensure_present(&*copy, 0..3000, &[])?;
    ensure!(read(&*copy, sample.geometry(), 0..2)?.is_empty(), "a new copy has bytes");
    Ok(())
}

fn confirmed(cache: &dyn Cache) -> Verdict {
    let sample = Sample::flat()?;
    let copy = open(cache, &sample)?;
    let runs = [sample.seal(0..2, 1)?, sample.seal(5..6, 1)?, sample.seal(1020..1030, 1)?];
    for sealed in &runs {
        put(&*copy, sealed)?;
        copy.confirm(sealed)?;
    }
    ensure_present(&*copy, 0..3000, &runs)?;
    ensure_present(&*copy, 1..6, &[runs[0].slice(1..2), runs[1].clone()])?;
    // Set anew, to another nonce.
    let anew = sample.seal(5..6, 2)?;
    copy.forget(5..6)?;
    put(&*copy, &anew)?;
    copy.confirm(&anew)?;
    ensure_present(&*copy, 2..1000, &[anew])
}

fn forgotten(cache: &dyn Cache) -> Verdict {
    let sample = Sample::flat()?;
    let copy = open(cache, &sample)?;
    let (left, right) = (keep(&sample, &*copy, 0..16)?, keep(&sample, &*copy, 1018..1034)?);
    copy.forget(3..5)?;
    copy.forget(1023..1025)?;
    let runs =
        [left.slice(0..3), left.slice(5..16), right.slice(1018..1023), right.slice(1025..1034)];
    ensure_present(&*copy, 0..2000, &runs)?;
    copy.forget(10..1020)?;
    copy.forget(5000..6000)?;
    let runs = [left.slice(0..3), left.slice(5..10), right.slice(1020..1023), runs[3].clone()];
    ensure_present(&*copy, 0..2000, &runs)?;
    copy.forget(0..u64::from(u32::MAX))?;
    ensure_present(&*copy, 0..2000, &[])?;
    let again = keep(&sample, &*copy, 2..4)?;
    ensure_present(&*copy, 0..2000, &[again])
}

fn invalidated(cache: &dyn Cache) -> Verdict {
    let sample = Sample::flat()?;
    let copy = open(cache, &sample)?;
    keep(&sample, &*copy, 0..16)?;
    keep(&sample, &*copy, 1100..1101)?;
    copy.invalidate()?;
    ensure_present(&*copy, 0..2000, &[])?;
    let again = keep(&sample, &*copy, 2..4)?;
    ensure_present(&*copy, 0..2000, &[again])
}

fn shared(cache: &dyn Cache) -> Verdict {
    let sample = Sample::flat()?;
    let (first, second) = (open(cache, &sample)?, open(cache, &sample)?);
    let sealed = keep(&sample, &*first, 0..4)?;
    ensure_present(&*second, 0..10, std::slice::from_ref(&sealed))?;
    sample.ensure_stored(&*second, &sealed)?;
    second.forget(0..1)?;
    ensure_present(&*first, 0..10, &[sealed.slice(1..4)])
}

fn kept_apart(cache: &dyn Cache) -> Verdict {
    let (sample, other) = (Sample::flat()?, Sample::flat()?);
    let copy = open(cache, &sample)?;
    keep(&sample, &*copy, 0..4)?;
    let other_copy = open(cache, &other)?;
    ensure_present(&*other_copy, 0..10, &[])?;
    ensure!(read(&*other_copy, other.geometry(), 0..4)?.is_empty(), "it has another's bytes");
    Ok(())
}

fn round_trips(cache: &dyn Cache) -> Verdict {
    let sample = Sample::flat()?;
    let copy = open(cache, &sample)?;
    for blocks in [4..8, 0..1, 700..702, 5..6] {
        let sealed = keep(&sample, &*copy, blocks)?;
        sample.ensure_stored(&*copy, &sealed)?;
    }
    let short = sample.seal_bytes(900, 5, 2)?;
    put(&*copy, &short)?;
    let stored = read(&*copy, sample.geometry(), 900..902)?;
    ensure!(stored == short.bytes(), "{} bytes of a short last block", stored.len());
    Ok(())
}

fn compared(cache: &dyn Cache) -> Verdict {
    let sample = Sample::flat()?;
    let copy = open(cache, &sample)?;
    let (first, second) = (sample.seal(0..2, 1)?, sample.seal(0..2, 2)?);
    let one = |sealed: &Sealed| vec![Segment::Sealed(sealed.clone())];
    write_if(&*copy, one(&first), vec![absent(0), absent(1)])?;
    let outcome = try_write(&*copy, one(&second), vec![absent(0), same(&first, 1)])?;
    ensure!(matches!(outcome, Err(Failure::Conflict(_))), "{outcome:?}");
    sample.ensure_stored(&*copy, &first)?;
    write_if(&*copy, one(&second), vec![same(&first, 0)])?;
    sample.ensure_stored(&*copy, &second)
}

fn header_kept(cache: &dyn Cache) -> Verdict {
    let sample = Sample::flat()?;
    let copy = open(cache, &sample)?;
    let geometry = sample.geometry();
    copy.set_header(&sample.new.bytes, geometry.stored_bytes(0))?;
    ensure!(copy.read_header()? == sample.new.bytes[..], "the header is another");
    let sealed = keep(&sample, &*copy, 0..8)?;
    // Not longer than that: nothing is cut.
    let commit = Sample::commit(&sample.new.header, 8 * 4096)?;
    copy.set_header(&commit.header.to_bytes(), geometry.stored_bytes(8 * 4096))?;
    ensure_present(&*copy, 0..10, std::slice::from_ref(&sealed))?;
    sample.ensure_stored(&*copy, &sealed)?;
    let commit = Sample::commit(&commit.header, 3 * 4096)?;
    copy.set_header(&commit.header.to_bytes(), geometry.stored_bytes(3 * 4096))?;
    ensure!(copy.read_header()? == commit.header.to_bytes()[..], "the header is another");
    let stored = read(&*copy, geometry, 0..8)?;
    ensure!(stored == sealed.slice(0..3).bytes(), "{} bytes stayed", stored.len());
    for nonce in copy.present(3..8) {
        ensure!(nonce.is_none(), "a block that was cut away is present");
    }
    Ok(())
}

fn cut_is_forgotten(cache: &dyn Cache) -> Verdict {
    let sample = Sample::flat()?;
    let copy = open(cache, &sample)?;
    let sealed = keep(&sample, &*copy, 0..8)?;
    let far = keep(&sample, &*copy, 1500..1501)?;
    for (size, n_whole) in [(2000 * 4096, 8), (5 * 4096 + 100, 5), (3 * 4096, 3), (1, 0)] {
        copy.set_header(&sample.new.bytes, sample.geometry().stored_bytes(size))?;
        let mut runs = vec![sealed.slice(0..n_whole)];
        runs.extend((n_whole == 8).then(|| far.clone()));
        ensure_present(&*copy, 0..2000, &runs)?;
        sample.ensure_stored(&*copy, &runs[0])?;
    }
    Ok(())
}

fn cut_not_confirmed(cache: &dyn Cache) -> Verdict {
    let sample = Sample::flat()?;
    let copy = open(cache, &sample)?;
    let sealed = sample.seal(0..6, 1)?;
    put(&*copy, &sealed)?;
    copy.set_header(&sample.new.bytes, sample.geometry().stored_bytes(2 * 4096 + 100))?;
    // The copy has grown again when the server's answer comes.
    keep(&sample, &*copy, 9..10)?;
    // It may say so; what it must not do is to claim them.
    drop(copy.confirm(&sealed));
    for nonce in copy.present(2..6) {
        ensure!(nonce.is_none(), "a block that was cut away is present");
    }
    put(&*copy, &sealed)?;
    copy.confirm(&sealed)?;
    ensure_present(&*copy, 0..9, std::slice::from_ref(&sealed))?;
    sample.ensure_stored(&*copy, &sealed)
}

fn forgotten_before(cache: &dyn Cache) -> Verdict {
    let sample = Sample::flat()?;
    let copy = open(cache, &sample)?;
    let sealed = sample.seal(1020..1030, 1)?;
    put(&*copy, &sealed)?;
    for blocks in [0..1, 1022..1026, 5000..5001, 0..1 << 40] {
        copy.forget(blocks)?;
    }
    copy.confirm(&sealed)?;
    let runs = std::slice::from_ref(&sealed);
    ensure_present(&*copy, 0..3000, runs)?;
    // Beside it, and none at all.
    for blocks in [0..1020, 1030..1 << 40, 1025..1025] {
        copy.forget(blocks)?;
        ensure_present(&*copy, 0..3000, runs)?;
    }
    sample.ensure_stored(&*copy, &sealed)
}

fn barrier(cache: &dyn Cache) -> Verdict {
    let sample = Sample::flat()?;
    let copy = open(cache, &sample)?;
    let sealed = keep(&sample, &*copy, 0..2)?;
    copy.barrier()?;
    copy.publish()?;
    ensure_present(&*copy, 0..10, std::slice::from_ref(&sealed))?;
    sample.ensure_stored(&*copy, &sealed)
}

pub(super) fn survives(reopen: &dyn Fn() -> Arc<dyn Cache>) -> Verdict {
    let sample = Sample::flat()?;
    let first = open(&*reopen(), &sample)?;
    first.set_header(&sample.new.bytes, sample.geometry().stored_bytes(0))?;
    let (left, right) = (keep(&sample, &*first, 0..4)?, keep(&sample, &*first, 1500..1502)?);
    first.forget(1..2)?;
    first.barrier()?;
    drop(first);
    let runs = [left.slice(0..1), left.slice(2..4), right.clone()];
    let second = open(&*reopen(), &sample)?;
    ensure!(second.read_header()? == sample.new.bytes[..], "the header is another");
    ensure_present(&*second, 0..3000, &runs)?;
    sample.ensure_stored(&*second, &right)?;
    second.forget(0..3)?;
    let newer = keep(&sample, &*second, 3000..3001)?;
    drop(second);
    let third = open(&*reopen(), &sample)?;
    ensure_present(&*third, 0..4000, &[left.slice(3..4), right, newer])?;
    third.forget(1501..3001)?;
    third.invalidate()?;
    drop(third);
    ensure_present(&*open(&*reopen(), &sample)?, 0..4000, &[])
}

fn open(cache: &dyn Cache, sample: &Sample) -> Result<Arc<dyn CacheFile>, Broken> {
    Ok(cache.open(sample.new.header.file_id(), sample.geometry())?)
}

/// Writes blocks to a copy, in their order: forgotten, written, confirmed.
fn keep(sample: &Sample, copy: &dyn CacheFile, blocks: Range<u64>) -> Result<Sealed, Broken> {
    let sealed = sample.seal(blocks.clone(), 1)?;
    copy.forget(blocks)?;
    put(copy, &sealed)?;
    copy.confirm(&sealed)?;
    Ok(sealed)
}

/// That of `blocks`, the record has what is in `runs`, and nothing else.
fn ensure_present(copy: &dyn CacheFile, blocks: Range<u64>, runs: &[Sealed]) -> Verdict {
    let found = copy.present(blocks.clone());
    let n_blocks = usize::try_from(blocks.end - blocks.start)?;
    ensure!(found.len() == n_blocks, "{} answers for {n_blocks} blocks", found.len());
    for (block, found) in blocks.zip(found) {
        let run = runs.iter().find(|run| run.blocks().contains(&block));
        let right = run.map(|run| run.nonce(block));
        ensure!(found == right, "of block {block}, the record has {found:?}, not {right:?}");
    }
    Ok(())
}

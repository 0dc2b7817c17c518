//! Cuts: what lies behind becomes empty, and what somebody writes meanwhile stays.

use super::*;
use crate::{
    TargetErrorKind,
    conformance::sample::{put, read, write},
};

#[test]
fn a_cut_over_chunks_leaves_empty_objects_which_are_holes_and_can_be_written_again() -> Verdict {
    let world = World::of_chunks(4);
    let (sample, target, other) = world.file()?;
    let sealed = sample.seal(0..16, 1)?;
    (0..4).try_for_each(|chunk| put(&*target, &sealed.slice(4 * chunk..4 * chunk + 4)))?;
    let expect = sample.new.header.expectation();
    for (n_blocks, lengths) in [
        (13, [4, 4, 4, 1]),
        (12, [4, 4, 4, 0]),
        (6, [4, 2, 0, 0]),
        (6, [4, 2, 0, 0]),
        (0, [0, 0, 0, 0]),
    ] {
        target.cut(sample.geometry(), n_blocks, &expect)?;
        let chunks: Vec<_> = world.chunks().into_iter().map(|(_, bytes)| bytes / STRIDE).collect();
        assert_eq!(chunks, lengths, "cut to {n_blocks}");
        let stored = read(&*other, sample.geometry(), 0..16)?;
        assert_eq!(stored, sealed.slice(0..16).bytes()[..stored.len()]);
        assert_eq!(stored.len() as u64, n_blocks * STRIDE);
    }
    // Up again, over what was cut away.
    put(&*other, &sealed.slice(9..11))?;
    let stored = read(&*target, sample.geometry(), 0..16)?;
    let (gap, again) = stored.split_at(9 * usize::try_from(STRIDE)?);
    assert!(gap.iter().all(|byte| *byte == 0));
    assert_eq!(again, sealed.slice(9..11).bytes());
    Ok(())
}

#[test]
fn what_another_client_writes_behind_a_cut_stays_if_his_header_says_that_he_knows_of_it() -> Verdict
{
    for knows in [false, true] {
        let world = World::of_chunks(4);
        let (sample, target, other) = world.file()?;
        let sealed = sample.seal(0..12, 1)?;
        (0..3).try_for_each(|chunk| put(&*target, &sealed.slice(4 * chunk..4 * chunk + 4)))?;
        let flagged = Sample::commit(&sample.new.header, 2 * 4096)?;
        target.write_slot(&flagged.write)?;
        let theirs = sample.seal(9..10, 2)?;
        let second = Sample::commit(&flagged.header, 12 * 4096)?;
        let third = Sample::commit(&second.header, 12 * 4096)?;
        let meddling = (other.clone(), theirs.clone());
        // It has noted what is there, and replaces the first.
        world.script.once(puts_chunk, move || {
            put(&*meddling.0, &meddling.1).unwrap();
            if knows {
                meddling.0.write_slot(&second.write).unwrap();
                meddling.0.write_slot(&third.write).unwrap();
            }
            StoreFault::Pass
        });
        let cut = target.cut(sample.geometry(), 2, &flagged.header.expectation());
        match knows {
            true => {
                assert_eq!(cut.unwrap_err().kind(), TargetErrorKind::Conflict);
                sample.ensure_stored(&*target, &theirs)?;
            }
            false => {
                cut?;
                assert_eq!(world.chunks(), [(0, 2 * STRIDE), (1, 0), (2, 0)]);
            }
        }
        sample.ensure_stored(&*target, &sealed.slice(0..2))?;
    }
    Ok(())
}

#[test]
fn a_last_chunk_that_another_client_changes_during_a_cut_is_cut_as_he_left_it() -> Verdict {
    let world = World::of_chunks(4);
    let (sample, target, other) = world.file()?;
    put(&*target, &sample.seal(0..4, 1)?)?;
    let theirs = sample.seal(0..2, 2)?;
    let meddling = (other.clone(), theirs.clone());
    world.script.once(puts_chunk, move || {
        put(&*meddling.0, &meddling.1).unwrap();
        StoreFault::Pass
    });
    target.cut(sample.geometry(), 2, &sample.new.header.expectation())?;
    assert_eq!(read(&*other, sample.geometry(), 0..4)?, theirs.bytes());
    Ok(())
}

#[test]
fn a_cut_whose_answers_are_lost_is_carried_out() -> Verdict {
    for nth in 1..4 {
        let world = World::of_chunks(4);
        let (sample, target, _) = world.file()?;
        let sealed = sample.seal(0..12, 1)?;
        (0..3).try_for_each(|chunk| put(&*target, &sealed.slice(4 * chunk..4 * chunk + 4)))?;
        let mut n_puts = 0;
        world.script.set(move |request| {
            n_puts += u32::from(is_put(request));
            if is_put(request) && n_puts == nth { lost() } else { StoreFault::Pass }
        });
        target.cut(sample.geometry(), 2, &sample.new.header.expectation())?;
        let lengths: Vec<_> = world.chunks().into_iter().map(|(_, bytes)| bytes / STRIDE).collect();
        assert_eq!(lengths, [2, 0, 0], "put {nth}");
        sample.ensure_stored(&*target, &sealed.slice(0..2))?;
    }
    Ok(())
}

#[test]
fn who_alone_writes_leaves_no_empty_objects() -> Verdict {
    let options = ObjectOptions::default().with_chunk_bytes(4 * STRIDE).with_single_writer();
    let world = World::with(options);
    let (sample, target, _) = world.file()?;
    let sealed = sample.seal(0..12, 1)?;
    (0..3).try_for_each(|chunk| put(&*target, &sealed.slice(4 * chunk..4 * chunk + 4)))?;
    target.cut(sample.geometry(), 2, &sample.new.header.expectation())?;
    assert_eq!(world.chunks(), [(0, 2 * STRIDE)]);
    write(&*target, vec![sample.hole(2..9)])?;
    world.server.remove(&name("a")?)?;
    drop(target);
    assert_eq!(world.objects(), []);
    Ok(())
}

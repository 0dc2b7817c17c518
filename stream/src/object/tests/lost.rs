//! Answers that are lost: what took place is found by reading, and is neither done twice nor taken for
//! somebody else's.

use super::*;
use crate::{
    Failure, Segment, TargetErrorKind,
    conformance::sample::{absent, put, same, try_write, write_if},
};

#[test]
fn the_contract_is_kept_where_answers_to_puts_are_lost_and_puts_refused_for_a_while() {
    let faults: [(u32, fn() -> StoreFault); 3] = [
        (3, lost),
        // Done, and told to be somebody else's doing.
        (3, || StoreFault::Lose(precondition())),
        (4, || StoreFault::Fail(generic("status code: 500 "))),
    ];
    for (step, fault) in faults {
        for check in conformance::server_checks() {
            let world = World::with(ObjectOptions::default());
            world.server.probe().unwrap();
            let mut n_puts = 0;
            world.script.set(move |request| {
                n_puts += u32::from(is_put(request));
                match is_put(request) && n_puts % step == 0 {
                    true => fault(),
                    false => StoreFault::Pass,
                }
            });
            check.run(&world.server);
        }
    }
}

#[test]
fn a_write_whose_answer_is_lost_is_done_and_is_not_put_again() -> Verdict {
    let world = World::of_chunks(4);
    let (sample, target, other) = world.file()?;
    let first = sample.seal(0..3, 1)?;
    world.script.once(puts_chunk, lost);
    write_if(&*target, vec![Segment::Sealed(first.clone())], vec![absent(0)])?;
    assert_eq!(world.script.count(puts_chunk), 1, "it was created once");
    sample.ensure_stored(&*other, &first)?;
    let second = sample.seal(1..2, 2)?;
    world.script.once(puts_chunk, lost);
    write_if(&*target, vec![Segment::Sealed(second.clone())], vec![same(&first, 1)])?;
    assert_eq!(world.script.count(puts_chunk), 1, "it was replaced once");
    sample.ensure_stored(&*other, &second)
}

#[test]
fn a_write_whose_answer_is_lost_and_that_is_then_overwritten_is_a_conflict() -> Verdict {
    let world = World::of_chunks(4);
    let (sample, target, other) = world.file()?;
    let (first, ours, theirs) =
        (sample.seal(0..3, 1)?, sample.seal(1..2, 2)?, sample.seal(1..2, 3)?);
    put(&*target, &first)?;
    let mut n_puts = 0;
    let overwriting = theirs.clone();
    world.script.set(move |request| match request {
        StoreRequest::Put { .. } => {
            n_puts += 1;
            lost()
        }
        // It looks what has become of its put.
        StoreRequest::Get { .. } if n_puts == 1 => {
            n_puts += 1;
            put(&*other, &overwriting).unwrap();
            StoreFault::Pass
        }
        _ => StoreFault::Pass,
    });
    let written =
        try_write(&*target, vec![Segment::Sealed(ours)], vec![same(&first, 1)])?.unwrap_err();
    let Failure::Conflict(conflicts) = written else { panic!("{written}") };
    assert_eq!(conflicts[0].stored, Some(theirs.nonce(1)));
    assert_eq!(world.script.count(puts_chunk), 1);
    sample.ensure_stored(&*target, &theirs)
}

#[test]
fn a_header_whose_answer_is_lost_is_written_once() -> Verdict {
    let world = World::of_chunks(4);
    world.server.probe()?;
    world.script.once(puts_header, lost);
    let (sample, target, other) = world.file()?;
    let commit = Sample::commit(&sample.new.header, 1)?;
    world.script.once(puts_header, lost);
    target.write_slot(&commit.write)?;
    assert_eq!(other.read_header()?, commit.header.to_bytes()[..]);
    // Somebody else's is not taken for it.
    let [ours, theirs] = [2, 3].map(|size| Sample::commit(&commit.header, size));
    let (ours, theirs) = (ours?, theirs?);
    other.write_slot(&theirs.write)?;
    world.script.once(puts_header, lost);
    let error = target.write_slot(&ours.write).unwrap_err();
    assert_eq!(error.kind(), TargetErrorKind::Conflict, "{error}");
    assert_eq!(target.read_header()?, theirs.header.to_bytes()[..]);
    Ok(())
}

#[test]
fn a_draft_whose_publishing_is_not_answered_and_a_removal_likewise_take_place_once() -> Verdict {
    let world = World::of_chunks(4);
    let (_, earlier, _) = world.file()?;
    let sample = Sample::new(&world.server)?;
    let draft = sample.draft(&world.server, &name("a")?)?;
    put(&*draft, &sample.seal(0..6, 1)?.slice(0..4))?;
    world.script.once(puts_header, lost);
    draft.publish()?;
    assert_eq!(world.other().open(&name("a")?)?.read_header()?, sample.new.bytes[..]);
    drop(earlier);
    world.script.once(puts_header, lost);
    world.server.remove(&name("a")?)?;
    assert_eq!(world.other().list()?, []);
    let error = world.server.remove(&name("a")?).unwrap_err();
    assert_eq!(error.kind(), TargetErrorKind::NotFound);
    Ok(())
}

//! Blocks and the chunks they lie in: one request each, in order within a chunk, at once in several.

use std::{sync::mpsc, task::Waker, time::Duration};

use super::*;
use crate::{
    Completion, CompletionSink, Failure, Prepared, Segment, Ticket, Write,
    conformance::sample::{put, read, try_write, write, write_if},
};

#[test]
fn a_chunk_has_a_block_at_least_and_no_more_than_its_bytes() -> Verdict {
    for (chunk_bytes, n_blocks) in [(0, 1), (1, 1), (STRIDE, 1), (3 * STRIDE - 1, 2)] {
        let options = ObjectOptions::default().with_chunk_bytes(chunk_bytes);
        let world = World::with(options);
        assert_eq!(world.server.chunk_blocks(4096), n_blocks);
        let (sample, target, other) = world.file()?;
        let sealed = sample.seal(0..5, 1)?;
        for first in (0..5).step_by(n_blocks as usize) {
            put(&*target, &sealed.slice(first..(first + u64::from(n_blocks)).min(5)))?;
        }
        sample.ensure_stored(&*other, &sealed)?;
        assert_eq!(world.chunks().len() as u64, 5_u64.div_ceil(n_blocks.into()));
    }
    Ok(())
}

#[test]
fn a_grant_ends_where_the_chunk_does_and_a_write_that_goes_on_is_cut_anew() -> Verdict {
    let world = World::of_chunks(4);
    let (sample, target, _) = world.file()?;
    for (block, boundary) in [(0, 4), (3, 4), (4, 8), (1 << 50, (1 << 50) + 4)] {
        let Prepared::Granted(grant) = target.prepare(block, Waker::noop()) else { panic!() };
        assert_eq!((grant.boundary, grant.gaps), (Some(boundary), true));
    }
    let over = vec![Segment::Sealed(sample.seal(2..6, 1)?)];
    let written = try_write(&*target, over, Vec::new())?;
    assert!(matches!(&written, Err(Failure::Renegotiate(_))), "{written:?}");
    assert_eq!(world.chunks(), [], "nothing of it was written");
    // Of several segments, those of the first chunk go through.
    let (first, second) = (sample.seal(2..4, 1)?, sample.seal(4..6, 1)?);
    let segments = [&first, &second].map(|sealed| Segment::Sealed(sealed.clone()));
    let written = try_write(&*target, segments.into(), Vec::new())?;
    assert!(matches!(&written, Err(Failure::Renegotiate(_))), "{written:?}");
    Ok(())
}

#[test]
fn a_new_chunk_is_one_put_and_a_part_of_one_that_is_there_a_get_and_a_put() -> Verdict {
    let world = World::of_chunks(4);
    let (sample, target, other) = world.file()?;
    let sealed = sample.seal(0..4, 1)?;
    world.script.set(|_| StoreFault::Pass);
    put(&*target, &sealed)?;
    assert_eq!((world.script.count(|_| true), world.script.count(puts_chunk)), (1, 1));
    // What is new of it lies apart.
    world.script.set(|_| StoreFault::Pass);
    let (left, right) = (sample.seal(0..1, 2)?, sample.seal(3..4, 2)?);
    write(&*target, [&left, &right].map(|new| Segment::Sealed(new.clone())).into())?;
    assert_eq!((world.script.count(|_| true), world.script.count(puts_chunk)), (2, 1));
    for sealed in [&left, &right, &sealed.slice(1..3)] {
        sample.ensure_stored(&*other, sealed)?;
    }
    // All of it anew: nothing of it need be read.
    world.script.set(|_| StoreFault::Pass);
    put(&*target, &sealed)?;
    assert_eq!(world.script.count(|request| matches!(request, StoreRequest::Get { .. })), 0);
    sample.ensure_stored(&*other, &sealed)
}

#[test]
fn holes_over_many_chunks_ask_only_for_those_that_are_there_and_the_last() -> Verdict {
    let world = World::of_chunks(4);
    let (sample, target, other) = world.file()?;
    put(&*target, &sample.seal(8..12, 1)?)?;
    world.script.set(|_| StoreFault::Pass);
    write(&*target, vec![sample.hole(2..4_000_001)])?;
    assert_eq!(world.script.count(puts_chunk), 2);
    let stored = read(&*other, sample.geometry(), 0..16)?;
    assert!(stored.iter().all(|byte| *byte == 0) && stored.len() as u64 == 16 * STRIDE);
    let last = read(&*other, sample.geometry(), 4_000_000..4_000_001)?;
    assert_eq!(last, [0; PREFIX_BYTES]);
    Ok(())
}

#[test]
fn a_block_that_is_short_or_a_hole_at_a_chunks_end_does_not_end_a_read() -> Verdict {
    let world = World::of_chunks(4);
    let (sample, target, other) = world.file()?;
    let (short, behind) = (sample.seal_bytes(3, 100, 1)?, sample.seal(4..6, 2)?);
    for first in [sample.hole(3..4), Segment::Sealed(short)] {
        write(&*target, vec![first])?;
        put(&*target, &behind)?;
        let stored = read(&*other, sample.geometry(), 0..6)?;
        assert_eq!(stored.len() as u64, 6 * STRIDE);
        assert!(stored.ends_with(behind.bytes()));
    }
    Ok(())
}

struct Sink(mpsc::Sender<Result<u64, Failure>>);

impl CompletionSink for Sink {
    fn terminated(&self, _ticket: Ticket, outcome: Result<u64, Failure>) {
        // Nobody hears it when the test has failed.
        drop(self.0.send(outcome));
    }
}

#[test]
fn writes_to_one_chunk_follow_one_another_and_those_to_several_are_under_way_at_once() -> Verdict {
    let world = World::of_chunks(4);
    let (sample, target, other) = world.file()?;
    let sealed = sample.seal(0..16, 1)?;
    (0..4).try_for_each(|chunk| put(&*target, &sealed.slice(4 * chunk..4 * chunk + 4)))?;
    // None of the first of each goes through before all are there.
    let at_once = Arc::new(Mutex::new(0));
    world.script.set(move |request| {
        if !puts_chunk(request) {
            return StoreFault::Pass;
        }
        *at_once.lock().unwrap() += 1;
        let at_once = at_once.clone();
        StoreFault::Wait(Box::pin(std::future::poll_fn(move |context| {
            match *at_once.lock().unwrap() >= 4 {
                true => std::task::Poll::Ready(()),
                false => {
                    context.waker().wake_by_ref();
                    std::task::Poll::Pending
                }
            }
        })))
    });
    let (sender, outcomes) = mpsc::channel();
    let new = sample.seal(0..16, 2)?;
    for block in (0..16).rev() {
        let segments = vec![Segment::Sealed(new.slice(block..block + 1))];
        let write = Write { segments, expectations: Vec::new(), dirty: Vec::new() };
        let ticket = Ticket { stream: 0, id: block };
        target.write(write, Completion::new(Arc::new(Sink(sender.clone())), ticket));
    }
    for _ in 0..16 {
        outcomes.recv_timeout(Duration::from_secs(30)).unwrap().unwrap();
    }
    assert_eq!(world.script.count(puts_chunk), 16, "none was defeated by another");
    sample.ensure_stored(&*other, &new)
}

#[test]
fn a_race_with_another_client_is_settled_by_reading_again() -> Verdict {
    let world = World::of_chunks(4);
    let (sample, target, other) = world.file()?;
    let sealed = sample.seal(0..4, 1)?;
    put(&*target, &sealed)?;
    let (ours, theirs) = (sample.seal(0..1, 2)?, sample.seal(3..4, 3)?);
    let meddling = (other.clone(), theirs.clone());
    world.script.once(puts_chunk, move || {
        put(&*meddling.0, &meddling.1).unwrap();
        StoreFault::Pass
    });
    let expected = conformance::sample::same(&sealed, 0);
    write_if(&*target, vec![Segment::Sealed(ours.clone())], vec![expected])?;
    for sealed in [&ours, &theirs, &sealed.slice(1..3)] {
        sample.ensure_stored(&*target, sealed)?;
    }
    assert_eq!(world.script.count(puts_chunk), 2);
    Ok(())
}

#[test]
fn a_store_that_is_slow_is_waited_for() -> Verdict {
    let world = World::of_chunks(4);
    let (sample, target, _) = world.file()?;
    world.script.set(|_| StoreFault::Delay(Duration::from_millis(20)));
    let sealed = sample.seal(0..4, 1)?;
    put(&*target, &sealed)?;
    sample.ensure_stored(&*target, &sealed)
}

#[test]
fn who_reads_behind_an_objects_end_while_it_becomes_longer_reads_what_is_there_then() -> Verdict {
    let world = World::of_chunks(4);
    let (sample, target, other) = world.file()?;
    let (first, longer) = (sample.seal(0..1, 1)?, sample.seal(1..3, 2)?);
    put(&*target, &first)?;
    // Its answer is of before, and it is told after somebody else has written.
    let behind = "non-2xx status code: 416 Range Not Satisfiable: <Code>InvalidRange</Code>";
    let (theirs, writer) = (longer.clone(), other.clone());
    let is_read =
        |request: &StoreRequest| matches!(request, StoreRequest::Get { key } if is_chunk(key));
    world.script.once(is_read, move || {
        put(&*writer, &theirs).unwrap();
        StoreFault::Fail(generic(behind))
    });
    sample.ensure_stored(&*target, &longer)?;
    // One that says so for ever is not asked for ever.
    world.script.set(move |request| match is_read(request) {
        true => StoreFault::Fail(generic(behind)),
        false => StoreFault::Pass,
    });
    let told = format!("{:?}", sample.ensure_stored(&*target, &longer).unwrap_err());
    assert!(told.contains("416"), "{told}");
    Ok(())
}

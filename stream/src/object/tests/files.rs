//! Files by name: drafts, what replaces what, and what a removed one leaves.

use super::*;
use crate::{TargetErrorKind, conformance::sample::put};

#[test]
fn a_draft_that_is_dropped_leaves_no_object() -> Verdict {
    let world = World::of_chunks(4);
    let sample = Sample::new(&world.server)?;
    let draft = sample.draft(&world.server, &name("a")?)?;
    put(&*draft, &sample.seal(0..4, 1)?)?;
    assert_eq!(world.objects().len(), 1);
    drop(draft);
    assert_eq!(world.objects(), []);
    Ok(())
}

#[test]
fn a_file_that_is_replaced_is_read_on_by_who_has_it_open_here_and_goes_with_the_last() -> Verdict {
    let world = World::of_chunks(4);
    let (sample, target, _) = world.file()?;
    let sealed = sample.seal(0..4, 1)?;
    put(&*target, &sealed)?;
    let new = Sample::new(&world.server)?;
    let draft = new.draft(&world.server, &name("a")?)?;
    put(&*draft, &new.seal(0..2, 2)?)?;
    draft.publish()?;
    sample.ensure_stored(&*target, &sealed)?;
    assert_eq!(target.read_header()?, sample.new.bytes[..]);
    let refused = target.write_slot(&Sample::commit(&sample.new.header, 1)?.write).unwrap_err();
    assert_eq!(refused.kind(), TargetErrorKind::NotFound);
    drop(target);
    assert_eq!(world.objects().len(), 2, "the header, and the new file's chunk");
    new.ensure_stored(&*world.other().open(&name("a")?)?, &new.seal(0..2, 2)?).unwrap_err();
    Ok(())
}

#[test]
fn a_file_that_another_client_replaced_or_removed_takes_no_header_any_more() -> Verdict {
    for is_removed in [false, true] {
        let world = World::of_chunks(4);
        let (sample, target, _) = world.file()?;
        let other = world.other();
        if is_removed {
            other.remove(&name("a")?)?;
        } else {
            let new = Sample::new(&other)?;
            new.draft(&other, &name("a")?)?.publish()?;
        }
        let commit = Sample::commit(&sample.new.header, 1)?;
        let error = target.write_slot(&commit.write).unwrap_err();
        let kind = if is_removed { TargetErrorKind::NotFound } else { TargetErrorKind::Conflict };
        assert_eq!(error.kind(), kind, "{error}");
    }
    Ok(())
}

#[test]
fn a_removed_file_leaves_an_empty_header_that_is_no_file_and_can_be_created_over() -> Verdict {
    let world = World::of_chunks(4);
    let (sample, target, other) = world.file()?;
    put(&*target, &sample.seal(0..4, 1)?)?;
    drop((target, other));
    world.other().remove(&name("a")?)?;
    let left = world.objects();
    assert_eq!((left.len(), left[0].size), (1, 0));
    assert_eq!(world.server.list()?, []);
    assert_eq!(world.server.open(&name("a")?).unwrap_err().kind(), TargetErrorKind::NotFound);
    let again = Sample::new(&world.server)?;
    again.create(&world.server, &name("a")?)?;
    again.create(&world.server, &name("b")?)?;
    assert_eq!(world.server.list()?, [name("a")?, name("b")?]);
    let error = again.create(&world.server, &name("a")?).map(drop);
    assert!(error.is_ok(), "its own header is there: an earlier attempt's");
    let taken = Sample::new(&world.server)?;
    assert!(taken.create(&world.server, &name("a")?).is_err());
    Ok(())
}

#[test]
fn of_clients_that_create_or_publish_one_name_at_once_none_is_mixed_with_another() -> Verdict {
    let world = World::of_chunks(4);
    let servers = [world.server.clone(), world.other(), world.other()];
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let creating = servers.iter().map(|server| {
            scope.spawn(move || {
                let sample = Sample::new(server).unwrap();
                sample.create(server, &name("a").unwrap()).map(|_| sample.new.bytes)
            })
        });
        let creating: Vec<_> = creating.collect();
        creating.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let winners: Vec<_> = outcomes.into_iter().filter_map(Result::ok).collect();
    assert_eq!(winners.len(), 1);
    assert_eq!(world.server.open(&name("a")?)?.read_header()?, winners[0][..]);
    let published: Vec<_> = std::thread::scope(|scope| {
        let publishing = servers.iter().map(|server| {
            scope.spawn(move || {
                let sample = Sample::new(server).unwrap();
                let draft = sample.draft(server, &name("a").unwrap()).unwrap();
                put(&*draft, &sample.seal(0..4, 1).unwrap()).unwrap();
                draft.publish().unwrap();
                (sample, draft)
            })
        });
        let publishing: Vec<_> = publishing.collect();
        publishing.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let there = world.server.open(&name("a")?)?.read_header()?;
    assert!(published.iter().any(|(sample, _)| there == sample.new.bytes[..]));
    Ok(())
}

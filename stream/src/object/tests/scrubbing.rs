//! What a crash has left is found, and nothing else.

use std::time::Duration;

use super::*;
use crate::{Orphans, TargetErrorKind, conformance::sample::put};

/// Chunks that a put has left which was killed: its draft is never dropped.
fn killed_put(world: &World, server: &ObjectServer, n_chunks: u64) -> Result<Sample, Broken> {
    let sample = Sample::new(server)?;
    let draft = sample.draft(server, &name("a")?)?;
    for chunk in 0..n_chunks {
        put(&*draft, &sample.seal(4 * chunk..4 * chunk + 4, 1)?)?;
    }
    std::mem::forget(draft);
    assert!(world.chunks().len() as u64 >= n_chunks);
    Ok(sample)
}

fn aged(orphan_age: Duration) -> ObjectOptions {
    ObjectOptions::default().with_chunk_bytes(4 * STRIDE).with_orphan_age(orphan_age)
}

#[test]
fn a_killed_puts_chunks_are_counted_and_with_age_listed_and_removed_and_no_others() -> Verdict {
    let world = World::with(aged(Duration::from_secs(3600)));
    let (sample, target, _) = world.file()?;
    let sealed = sample.seal(0..4, 1)?;
    put(&*target, &sealed)?;
    killed_put(&world, &world.other(), 5)?;
    let young = world.server.orphans()?;
    assert_eq!((young.objects.len(), young.n_younger), (0, 5));
    let later = world.other_with(aged(Duration::ZERO));
    let Orphans { objects, n_younger, .. } = later.orphans()?;
    assert_eq!((objects.len(), n_younger), (5, 0));
    assert!(
        objects
            .iter()
            .all(|orphan| orphan.bytes == 4 * STRIDE && orphan.name == name("a").unwrap())
    );
    assert_eq!(later.remove_orphans(&objects)?, 5);
    assert_eq!(later.orphans()?, Orphans::default());
    assert_eq!(world.chunks().len(), 1);
    sample.ensure_stored(&*target, &sealed)
}

#[test]
fn what_was_published_since_it_was_listed_is_not_removed() -> Verdict {
    let world = World::with(aged(Duration::ZERO));
    let server = world.other();
    let sample = Sample::new(&server)?;
    let draft = sample.draft(&server, &name("a")?)?;
    let sealed = sample.seal(0..4, 1)?;
    put(&*draft, &sealed)?;
    let orphans = world.server.orphans()?.objects;
    assert_eq!(orphans.len(), 1);
    draft.write_slot(&Sample::commit(&sample.new.header, 4 * 4096)?.write)?;
    draft.publish()?;
    assert_eq!(world.server.remove_orphans(&orphans)?, 0);
    sample.ensure_stored(&*world.server.open(&name("a")?)?, &sealed)
}

#[test]
fn who_alone_writes_finds_what_cuts_and_removals_of_others_have_left_empty() -> Verdict {
    let world = World::with(aged(Duration::ZERO));
    let (sample, target, other) = world.file()?;
    let sealed = sample.seal(0..8, 1)?;
    (0..2).try_for_each(|chunk| put(&*target, &sealed.slice(4 * chunk..4 * chunk + 4)))?;
    let commit = Sample::commit(&sample.new.header, 4096)?;
    target.write_slot(&commit.write)?;
    target.cut(sample.geometry(), 1, &commit.header.expectation())?;
    Sample::new(&world.server)?.create(&world.server, &name("b")?)?;
    world.server.remove(&name("b")?)?;
    drop((target, other));
    assert_eq!(world.other().orphans()?, Orphans::default(), "they may be written to");
    let alone = world.other_with(aged(Duration::ZERO).with_single_writer());
    let objects = alone.orphans()?.objects;
    assert_eq!(objects.iter().map(|orphan| orphan.bytes).collect::<Vec<_>>(), [0, 0]);
    assert_eq!(alone.remove_orphans(&objects)?, 2);
    assert_eq!(world.objects().len(), 2);
    sample.ensure_stored(&*alone.open(&name("a")?)?, &sealed.slice(0..1))
}

#[test]
fn a_draft_whose_chunks_a_scrub_has_taken_is_not_published_and_what_was_there_stays() -> Verdict {
    let world = World::with(aged(Duration::ZERO));
    let (sample, earlier, _) = world.file()?;
    let sealed = sample.seal(0..4, 1)?;
    put(&*earlier, &sealed)?;
    let server = world.other();
    let replacing = Sample::new(&server)?;
    let draft = replacing.draft(&server, &name("a")?)?;
    let blocks = replacing.seal(0..12, 2)?;
    (0..3).try_for_each(|chunk| put(&*draft, &blocks.slice(4 * chunk..4 * chunk + 4)))?;
    // What is cut off was not taken.
    let commit = Sample::commit(&replacing.new.header, 8 * 4096)?;
    draft.write_slot(&commit.write)?;
    draft.cut(replacing.geometry(), 8, &commit.header.expectation())?;
    let orphans = world.server.orphans()?.objects;
    world.server.remove_orphans(&orphans[..1])?;
    let error = draft.publish().unwrap_err();
    assert_eq!(error.kind(), TargetErrorKind::NotFound, "{error}");
    sample.ensure_stored(&*world.other().open(&name("a")?)?, &sealed)?;
    // Put once more, it is whole.
    put(&*draft, &blocks.slice(0..4))?;
    draft.publish()?;
    replacing.ensure_stored(&*world.other().open(&name("a")?)?, &blocks.slice(0..8))
}

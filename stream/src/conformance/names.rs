//! Creating, drafting, publishing, opening and removing.

use super::{
    Broken, ServerChecks, Verdict, ensure,
    sample::{Sample, name, put},
};
use crate::{Name, Server, TargetError, TargetErrorKind};

pub(super) const CHECKS: ServerChecks = &[
    ("a created file has its whole header, and nothing else", created_whole),
    ("a file is not created where one is", create_refused),
    ("names are kept apart", kept_apart),
    ("what is not there is not found", not_found),
    ("a removed file is gone, and its name is free", removed),
    ("a draft is not seen before it is published", draft_unseen),
    ("a draft that is dropped unpublished is gone", draft_dropped),
    ("a published draft is what its name stands for", draft_published),
    ("what was open before a draft replaced it can still be read", earlier_version),
    ("a draft that was published goes on as an ordinary file", draft_goes_on),
    ("publishing what is no draft does nothing", publish_again),
];

fn created_whole(server: &dyn Server) -> Verdict {
    let (sample, name) = (Sample::new(server)?, name("a")?);
    let created = sample.create(server, &name)?;
    ensure!(created.read_header()? == sample.new.bytes[..], "the creator reads another header");
    ensure_header(server, &name, &sample)?;
    let stored = super::sample::read(&*server.open(&name)?, sample.geometry(), 0..1)?;
    ensure!(stored.is_empty(), "there are {} bytes behind the header", stored.len());
    Ok(())
}

fn create_refused(server: &dyn Server) -> Verdict {
    let (first, second, name) = (Sample::new(server)?, Sample::new(server)?, name("a")?);
    let kept = first.create(server, &name)?;
    put(&*kept, &first.seal(0..2, 1)?)?;
    let refused = server.create(&name, second.new.header.file_id(), &second.new.bytes);
    ensure_kind(refused.map(drop), TargetErrorKind::AlreadyExists)?;
    ensure_header(server, &name, &first)
}

fn kept_apart(server: &dyn Server) -> Verdict {
    let longest = "x".repeat(255);
    let names = ["a", "a b", "-a", "..a", "a.", "\u{e4}\u{1f980}", "a\n", "*", "\\", &longest];
    let mut files = Vec::new();
    for text in names {
        let (sample, name) = (Sample::new(server)?, name(text)?);
        let target = sample.create(server, &name)?;
        let sealed = sample.seal(0..1, 1)?;
        put(&*target, &sealed)?;
        files.push((name, sample, sealed));
    }
    for (name, sample, sealed) in files {
        ensure_header(server, &name, &sample)?;
        sample.ensure_stored(&*server.open(&name)?, &sealed)?;
    }
    Ok(())
}

fn not_found(server: &dyn Server) -> Verdict {
    ensure_gone(server, &name("a")?)
}

fn removed(server: &dyn Server) -> Verdict {
    let (first, second, name) = (Sample::new(server)?, Sample::new(server)?, name("a")?);
    let file = first.create(server, &name)?;
    // What was taken for it does not outlive it.
    drop(file.lock_size()?);
    put(&*file, &first.seal(0..1, 1)?)?;
    server.remove(&name)?;
    ensure_gone(server, &name)?;
    second.create(server, &name)?;
    ensure_header(server, &name, &second)
}

fn draft_unseen(server: &dyn Server) -> Verdict {
    let (first, second, name) = (Sample::new(server)?, Sample::new(server)?, name("a")?);
    let draft = first.draft(server, &name)?;
    put(&*draft, &first.seal(0..3, 1)?)?;
    ensure_gone(server, &name)?;
    second.create(server, &name)?;
    put(&*draft, &first.seal(3..5, 1)?)?;
    ensure_header(server, &name, &second)
}

fn draft_dropped(server: &dyn Server) -> Verdict {
    let (sample, name) = (Sample::new(server)?, name("a")?);
    let draft = sample.draft(server, &name)?;
    put(&*draft, &sample.seal(0..3, 1)?)?;
    drop(draft);
    ensure_gone(server, &name)?;
    // The same file may be begun anew, and has nothing of the first attempt.
    let again = sample.draft(server, &name)?;
    let stored = super::sample::read(&*again, sample.geometry(), 0..1)?;
    ensure!(stored.is_empty(), "a new draft has {} bytes of the dropped one", stored.len());
    Ok(())
}

fn draft_published(server: &dyn Server) -> Verdict {
    let (first, second, name) = (Sample::new(server)?, Sample::new(server)?, name("a")?);
    first.create(server, &name)?;
    let draft = second.draft(server, &name)?;
    let sealed = second.seal(0..3, 1)?;
    put(&*draft, &sealed)?;
    draft.publish()?;
    ensure_header(server, &name, &second)?;
    second.ensure_stored(&*server.open(&name)?, &sealed)?;
    drop(draft);
    ensure_header(server, &name, &second)
}

fn earlier_version(server: &dyn Server) -> Verdict {
    let (first, second, name) = (Sample::new(server)?, Sample::new(server)?, name("a")?);
    let sealed = first.seal(0..3, 1)?;
    put(&*first.create(server, &name)?, &sealed)?;
    let open = server.open(&name)?;
    second.draft(server, &name)?.publish()?;
    ensure!(open.read_header()? == first.new.bytes[..], "its header is another");
    first.ensure_stored(&*open, &sealed)?;
    ensure_header(server, &name, &second)
}

fn draft_goes_on(server: &dyn Server) -> Verdict {
    let (sample, name) = (Sample::new(server)?, name("a")?);
    let draft = sample.draft(server, &name)?;
    draft.publish()?;
    let sealed = sample.seal(0..2, 1)?;
    put(&*draft, &sealed)?;
    let commit = Sample::commit(&sample.new.header, 2 * 4096)?;
    draft.write_slot(&commit.write)?;
    draft.barrier()?;
    let open = server.open(&name)?;
    sample.ensure_stored(&*open, &sealed)?;
    ensure!(open.read_header()? == commit.header.to_bytes()[..], "the header is another");
    Ok(())
}

fn publish_again(server: &dyn Server) -> Verdict {
    let (first, second, name) = (Sample::new(server)?, Sample::new(server)?, name("a")?);
    let draft = first.draft(server, &name)?;
    draft.publish()?;
    server.remove(&name)?;
    let created = second.create(server, &name)?;
    draft.publish()?;
    created.publish()?;
    ensure_header(server, &name, &second)
}

fn ensure_header(server: &dyn Server, name: &Name, sample: &Sample) -> Verdict {
    let header = server.open(name)?.read_header()?;
    ensure!(header == sample.new.bytes[..], "'{name}' has another file's header");
    Ok(())
}

fn ensure_gone(server: &dyn Server, name: &Name) -> Verdict {
    ensure_kind(server.open(name).map(drop), TargetErrorKind::NotFound)?;
    ensure_kind(server.remove(name), TargetErrorKind::NotFound)
}

/// That something failed in this way.
pub(super) fn ensure_kind(
    outcome: Result<(), TargetError>,
    kind: TargetErrorKind,
) -> Result<(), Broken> {
    match outcome {
        Ok(()) => Err(Broken(format!("it succeeded, where {kind:?} is right"))),
        Err(error) => {
            ensure!(error.kind() == kind, "{:?} ({error}), where {kind:?} is right", error.kind());
            Ok(())
        }
    }
}

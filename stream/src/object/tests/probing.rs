//! A store is believed when it has shown that it keeps conditions.

use object_store::{Error, PutMode};

use super::*;
use crate::{TargetErrorKind, conformance::sample::put};

fn is_probe(request: &StoreRequest) -> bool {
    request.key().as_ref().starts_with(".sealback/probe")
}

#[test]
fn a_store_is_probed_once_before_the_first_change_and_never_for_who_reads() -> Verdict {
    let world = World::of_chunks(4);
    assert_eq!(world.server.list()?, []);
    assert!(world.server.open(&name("a")?).is_err());
    assert_eq!(world.script.count(|_| true), world.script.count(|request| !is_put(request)));
    let sample = Sample::new(&world.server)?;
    let target = sample.create(&world.server, &name("a")?)?;
    let n_asked = world.script.count(is_probe);
    assert!(n_asked > 4);
    let sealed = sample.seal(0..3, 1)?;
    put(&*target, &sealed)?;
    target.write_slot(&Sample::commit(&sample.new.header, 1)?.write)?;
    world.server.probe()?;
    assert_eq!(world.script.count(is_probe), n_asked);
    // Who may not write reads.
    let reader = HookedStore::new(world.memory.clone(), Script::default());
    reader.hook.set(|request| match is_put(request) {
        true => StoreFault::Fail(denied()),
        false => StoreFault::Pass,
    });
    let reader = ObjectServer::open(Arc::new(reader), Path::ROOT, world.options)?;
    assert_eq!(reader.list()?, [name("a")?]);
    let opened = reader.open(&name("a")?)?;
    sample.ensure_stored(&*opened, &sealed)?;
    let error = reader.remove(&name("a")?).unwrap_err();
    assert_eq!(error.kind(), TargetErrorKind::NotPermitted, "{error}");
    Ok(())
}

fn denied() -> Error {
    Error::PermissionDenied { path: "a".to_owned(), source: "it is forbidden".into() }
}

fn exists() -> Error {
    Error::AlreadyExists { path: "a".to_owned(), source: "it is there".into() }
}

fn unknown() -> Error {
    Error::NotImplemented { operation: "put".to_owned(), implementer: "fake".to_owned() }
}

#[test]
fn a_store_that_breaks_a_rule_is_refused_with_the_rule_and_opened_on_the_users_word() -> Verdict {
    type Fault = fn(&PutMode) -> StoreFault;
    let rules: [(&str, Fault); 6] = [
        ("refuses to create an object where none is", |mode| match mode {
            PutMode::Create => StoreFault::Fail(exists()),
            _ => StoreFault::Pass,
        }),
        ("creates an object where one is already", |mode| match mode {
            PutMode::Create => StoreFault::Unconditional,
            _ => StoreFault::Pass,
        }),
        ("refuses to replace an object that is what was read", |mode| match mode {
            PutMode::Update(_) => StoreFault::Fail(precondition()),
            _ => StoreFault::Pass,
        }),
        ("replaces an object that is no longer what was read", |mode| match mode {
            PutMode::Update(_) => StoreFault::Unconditional,
            _ => StoreFault::Pass,
        }),
        ("that replace what was read at once", |mode| match mode {
            PutMode::Update(_) => StoreFault::TwoSteps,
            _ => StoreFault::Pass,
        }),
        ("knows no conditions", |mode| match mode {
            PutMode::Overwrite => StoreFault::Pass,
            _ => StoreFault::Fail(unknown()),
        }),
    ];
    for (rule, fault) in rules {
        for single_writer in [false, true] {
            let options = ObjectOptions { single_writer, ..ObjectOptions::default() };
            let world = World::with(options);
            world.script.set(move |request| match request {
                StoreRequest::Put { mode, .. } => fault(mode),
                _ => StoreFault::Pass,
            });
            let sample = Sample::new(&world.server)?;
            let created =
                world.server.create(&name("a")?, sample.new.header.file_id(), &sample.new.bytes);
            if single_writer {
                put(&*created?, &sample.seal(0..3, 1)?)?;
                assert_eq!(world.objects().len(), 2, "{rule}");
                continue;
            }
            let error = created.unwrap_err();
            assert_eq!(error.kind(), TargetErrorKind::Unsupported, "{error}");
            assert!(error.to_string().contains(rule), "{rule}: {error}");
            assert!(error.to_string().contains("ObjectOptions::single_writer"), "{error}");
            assert_eq!(world.objects(), [], "{rule}: nothing is put before the store is believed");
        }
    }
    Ok(())
}

#[test]
fn a_probe_is_not_misled_by_answers_that_are_lost_or_are_echoes_of_its_own() -> Verdict {
    let faults: [fn() -> StoreFault; 4] = [
        lost,
        || StoreFault::Lose(exists()),
        || StoreFault::Lose(precondition()),
        || StoreFault::Fail(busy()),
    ];
    for fault in faults {
        for nth in 1..9 {
            let world = World::of_chunks(4);
            let mut left = nth;
            world.script.set(move |request| {
                left -= u32::from(is_put(request) && left > 0);
                match is_put(request) && left == 0 {
                    true => {
                        left = u32::MAX;
                        fault()
                    }
                    false => StoreFault::Pass,
                }
            });
            world.file()?;
            assert_eq!(world.objects().len(), 1);
        }
    }
    Ok(())
}

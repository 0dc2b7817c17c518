//! What a store says is a decision for who asked, and says no secret.

use object_store::{Error, aws::AmazonS3Builder};

use super::*;
use crate::{
    Failure, Segment, TargetErrorKind,
    conformance::sample::{put, try_write},
};

fn denied() -> Error {
    Error::PermissionDenied { path: "a".to_owned(), source: "<Code>AccessDenied</Code>".into() }
}

fn unauthenticated() -> Error {
    Error::Unauthenticated {
        path: "a".to_owned(),
        source: "<Code>InvalidAccessKeyId</Code>".into(),
    }
}

fn no_bucket() -> Error {
    let source = "non-2xx status code: 404: <Code>NoSuchBucket</Code>".into();
    Error::NotFound { path: "a".to_owned(), source }
}

#[test]
fn what_is_transient_is_tried_again_and_what_is_not_ends_a_write() -> Verdict {
    type Case = (fn() -> Error, Option<TargetErrorKind>);
    let faults: [Case; 8] = [
        (busy, None),
        (|| generic("non-2xx status code: 429 Too Many Requests"), None),
        (|| generic("non-2xx status code: 500 Internal Server Error"), None),
        (|| generic("the connection was reset"), None),
        (denied, Some(TargetErrorKind::NotPermitted)),
        (unauthenticated, Some(TargetErrorKind::NotPermitted)),
        (no_bucket, Some(TargetErrorKind::NotFound)),
        (
            || generic("non-2xx status code: 507 Insufficient Storage"),
            Some(TargetErrorKind::NoSpace),
        ),
    ];
    for (error, kind) in faults {
        let world = World::of_chunks(4);
        let (sample, target, _) = world.file()?;
        let mut left = 3;
        world.script.set(move |request| match is_put(request) && left > 0 {
            true => {
                left -= 1;
                StoreFault::Fail(error())
            }
            false => StoreFault::Pass,
        });
        let sealed = sample.seal(0..2, 1)?;
        let written = try_write(&*target, vec![Segment::Sealed(sealed.clone())], Vec::new())?;
        match (written, kind) {
            (Ok(_), None) => assert_eq!(world.script.count(puts_chunk), 4),
            (Err(Failure::Fatal(error)), Some(kind)) => {
                assert_eq!(error.kind(), kind, "{error}");
                assert_eq!(world.script.count(puts_chunk), 1, "{error}");
                continue;
            }
            other => panic!("{}: {other:?}", error()),
        }
        sample.ensure_stored(&*target, &sealed)?;
    }
    Ok(())
}

#[test]
fn a_store_that_stays_busy_is_left_to_who_asked() -> Verdict {
    let world = World::of_chunks(4);
    let (sample, target, _) = world.file()?;
    world.script.set(|request| match is_put(request) {
        true => StoreFault::Fail(generic("the line is dead")),
        false => StoreFault::Pass,
    });
    let segments = vec![Segment::Sealed(sample.seal(0..2, 1)?)];
    let written = try_write(&*target, segments, Vec::new())?;
    assert!(matches!(&written, Err(Failure::Retry(_))), "{written:?}");
    Ok(())
}

#[test]
fn a_bucket_that_is_not_there_is_named_whoever_asks() -> Verdict {
    let world = World::of_chunks(4);
    world.script.set(|_| StoreFault::Fail(no_bucket()));
    let sample = Sample::new(&world.server)?;
    let file_id = sample.new.header.file_id();
    for error in [
        world.server.probe().unwrap_err(),
        world.server.create(&name("a")?, file_id, &sample.new.bytes).map(drop).unwrap_err(),
        world.server.open(&name("a")?).map(drop).unwrap_err(),
        world.server.list().map(drop).unwrap_err(),
        world.server.orphans().map(drop).unwrap_err(),
    ] {
        assert_eq!(error.kind(), TargetErrorKind::NotFound, "{error}");
        assert!(error.to_string().contains("InMemory"), "it says in which store: {error}");
    }
    Ok(())
}

#[test]
fn no_error_and_no_debug_line_has_a_secret() -> Verdict {
    const SECRET: &str = "wJalrXUtnFEMI-K7MDENG";
    let builder = AmazonS3Builder::new()
        .with_bucket_name("bucket")
        .with_access_key_id("AK")
        .with_secret_access_key(SECRET)
        .with_token(SECRET)
        // Nobody listens there.
        .with_endpoint("http://127.0.0.1:9")
        .with_allow_http(true)
        .with_region("r")
        .with_retry(object_store::RetryConfig { max_retries: 0, ..Default::default() });
    let store = Arc::new(builder.build().unwrap());
    let server = ObjectServer::open(store, Path::ROOT, ObjectOptions::default())?;
    let error = server.open(&name("a")?).unwrap_err();
    assert_eq!(error.kind(), TargetErrorKind::Io, "{error}");
    for line in [format!("{error}"), format!("{error:?}"), format!("{server:?}")] {
        assert!(!line.contains(SECRET) && !line.is_empty(), "{line}");
    }
    // A store that repeats what it was sent.
    let world = World::of_chunks(4);
    let (sample, target, _) = world.file()?;
    world.script.set(|_| {
        let said = format!(
            "PUT https://host/b/k?X-Amz-Signature={SECRET}&x=1 failed, https://host/?sig={SECRET}: \
             status code: 403: <Code>No</Code><StringToSign>{SECRET}</StringToSign>"
        );
        StoreFault::Fail(generic(&said))
    });
    let segments = vec![Segment::Sealed(sample.seal(0..1, 1)?)];
    let Err(Failure::Fatal(error)) = try_write(&*target, segments, Vec::new())? else {
        panic!("it may not");
    };
    assert!(!error.to_string().contains(SECRET), "{error}");
    assert!(error.to_string().contains("https://host/b/k"), "{error}");
    let debug = format!("{target:?}");
    assert!(!debug.contains(SECRET), "{debug}");
    Ok(())
}

#[test]
fn a_header_that_is_being_put_holds_up_no_blocks() -> Verdict {
    let world = World::of_chunks(4);
    let (sample, target, _) = world.file()?;
    let seen = Arc::new(Mutex::new(false));
    world.script.set(move |request| {
        if puts_chunk(request) {
            *seen.lock().unwrap() = true;
        }
        if !puts_header(request) {
            return StoreFault::Pass;
        }
        let seen = seen.clone();
        StoreFault::Wait(Box::pin(std::future::poll_fn(move |context| {
            match *seen.lock().unwrap() {
                true => std::task::Poll::Ready(()),
                false => {
                    context.waker().wake_by_ref();
                    std::task::Poll::Pending
                }
            }
        })))
    });
    let commit = Sample::commit(&sample.new.header, 1)?;
    let sealed = sample.seal(0..1, 1)?;
    std::thread::scope(|scope| {
        let slot = scope.spawn(|| target.write_slot(&commit.write));
        // Only when the header is under way.
        while world.script.count(puts_header) == 0 {
            std::thread::yield_now();
        }
        put(&*target, &sealed)?;
        slot.join().unwrap()?;
        Ok(())
    })
}

//! Handles, engines, and how they end: calls beside others, appends, shutdown, and what is dropped.

use std::{
    collections::BTreeSet,
    fs,
    future::Future,
    path::{Path, PathBuf},
    pin::Pin,
    sync::{Arc, Mutex, mpsc},
    task::{Context, Poll, Wake, Waker},
    thread,
    time::Duration,
};

use sealback::{
    Config, CreateOptions, Engine, Error, File, Place, RetryLimits,
    trace::{Observer, TraceEvent},
};
use sealback_stream::{
    Failure, MemoryCache, MemoryOptions, MemoryServer, Name, TargetError, TargetErrorKind,
    faulty::{Fault, Faults, FaultyServer, Operation, Rule, When},
};
use sealback_tests::{
    gate::{Gate, GateServer},
    reader::read_sealed,
};

use crate::support::{
    ROOT, config, create, ends, engine, memory, name, open, read_all, root, sample,
};

const NO_END: &str = "it panicked, or somebody waits for ever";

fn stored(server: &MemoryServer) -> Vec<u8> {
    read_sealed(&server.stored(&name()).unwrap(), &ROOT).unwrap().plaintext
}

/// A server that refuses every write from now on, until its faults are cleared.
fn refusing(server: &MemoryServer) -> (Faults, FaultyServer<MemoryServer>) {
    let fault = Fault::Fail(Failure::Fatal(TargetError::new(TargetErrorKind::NoSpace, "injected")));
    let rule = Rule { operation: Operation::Write, when: When::From(1), fault };
    let faults = Faults::scripted([rule]);
    let server = FaultyServer::new(server.clone(), &faults);
    (faults, server)
}

struct Unpark(thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// The smallest of runtimes.
pub(crate) fn block_on<F: Future + Unpin>(mut future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    loop {
        match Pin::new(&mut future).poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

#[test]
fn a_call_can_be_waited_for_awaited_and_called_back_from() {
    let server = GateServer::new(MemoryServer::new(MemoryOptions::default()), Gate::default());
    let file = create(&engine(), &server, None, 4096);
    let data = sample(50_000);
    file.write_at(0, &data).unwrap();
    let syncs = [file.submit(File::sync), file.submit(File::sync), file.submit(File::sync)];
    server.hook.wait_for(1);
    assert!(syncs.iter().all(|sync| !sync.is_done()), "nobody waits, and nothing is there yet");
    let [waited, awaited, called] = syncs;
    let (sender, receiver) = mpsc::channel();
    called.on_done(move |result| sender.send(result).unwrap());
    server.hook.open();
    waited.wait().unwrap();
    block_on(awaited).unwrap();
    receiver.recv().unwrap().unwrap();
    assert_eq!(stored(&server), data);
}

#[test]
fn a_writeback_can_be_waited_for_awaited_and_called_back_from() {
    let server = GateServer::new(MemoryServer::new(MemoryOptions::default()), Gate::default());
    let file = create(&engine(), &server, None, 4096);
    file.write_at(0, &[1; 50_000]).unwrap();
    let writeback = file.writeback();
    let (before, awaited) = (writeback.operation(), writeback.operation());
    let (sender, receiver) = mpsc::channel();
    before.on_done(move |result| sender.send(result.unwrap().spans).unwrap());
    server.hook.open();
    assert!(block_on(awaited).unwrap().spans > 0);
    assert!(receiver.recv().unwrap() > 0);
    writeback.wait().unwrap();
    assert!(writeback.operation().is_done(), "asked for after the end");
}

#[test]
fn a_callback_may_panic_or_call_the_engine_and_the_others_are_called() {
    let ended = ends(|| {
        let server = GateServer::new(MemoryServer::new(MemoryOptions::default()), Gate::default());
        let file = Arc::new(create(&engine(), &server, None, 4096));
        file.write_at(0, &[1; 50_000]).unwrap();
        let writeback = file.writeback();
        let [first, second, third] = [0; 3].map(|_| writeback.operation());
        first.on_done(|_| panic!("a callback"));
        let (sender, receiver) = mpsc::channel();
        let again = file.clone();
        second.on_done(move |_| {
            again.write_at(0, &[2; 50_000]).unwrap();
            sender.send(again.sync().is_ok()).unwrap();
        });
        server.hook.open();
        third.wait().unwrap();
        assert!(receiver.recv().unwrap());
        // Of an operation that has ended, the callback is called at once, and panics here.
        let (go, wait) = mpsc::channel();
        let syncing = file.submit(move |file| wait.recv().map(|()| file.sync()));
        syncing.on_done(|_| panic!("a callback"));
        go.send(()).unwrap();
        file.sync().unwrap();
        stored(&server) == [2; 50_000]
    });
    assert_eq!(ended, Some(true), "{NO_END}");
}

#[test]
fn an_operation_that_is_dropped_goes_on() {
    let server = GateServer::new(MemoryServer::new(MemoryOptions::default()), Gate::default());
    let file = create(&engine(), &server, None, 4096);
    file.write_at(0, &[1; 5000]).unwrap();
    drop(file.submit(File::sync));
    server.hook.wait_for(1);
    server.hook.open();
    file.sync().unwrap();
    assert_eq!(stored(&server), [1; 5000]);
}

#[test]
fn a_configuration_is_refused_or_works_however_far_it_goes() {
    for threads in [0, 1025, usize::MAX] {
        let refused = Engine::new(Config { threads, ..config() });
        assert!(matches!(refused, Err(Error::Config(_))), "{threads} threads");
    }
    let retry =
        RetryLimits { max_delay: Duration::MAX, deadline: Duration::MAX, ..RetryLimits::default() };
    let nearly_for_ever = Duration::MAX - Duration::from_nanos(1);
    let few = Config { dirty_background_percent: 0, dirty_limit_percent: 1, ..config() };
    for config in [
        Config { memory_bytes: usize::MAX, readahead_bytes: usize::MAX, ..config() },
        Config { upload_window: usize::MAX, cache_window: usize::MAX, ..config() },
        Config { folio_bytes: 4 << 20, ..few.clone() },
        few,
        Config { dirty_expire: Duration::from_nanos(1), retry, ..config() },
        Config { dirty_expire: nearly_for_ever, cache_patience: nearly_for_ever, ..config() },
        Config { cache_patience: Duration::ZERO, ..config() },
    ] {
        let what = format!("{config:?}");
        let ended = ends(move || {
            let (server, cache) = (memory(), MemoryCache::new(MemoryOptions::default()));
            let file = create(&Engine::new(config).unwrap(), &server, Some(&cache), 4096);
            let data = sample(9 << 20);
            file.write_at(0, &data).unwrap();
            file.sync().unwrap();
            let read = read_all(&file);
            file.close().map_err(|unclosed| unclosed.error).unwrap();
            read == data
        });
        assert_eq!(ended, Some(true), "{what}");
    }
}

#[test]
fn appends_of_several_handles_do_not_overlap_and_leave_no_gap() {
    let server = memory();
    let engine = engine();
    let first = create(&engine, &server, None, 4096);
    let positions: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (1..=4_u8)
            .map(|handle| {
                let file = open(&engine, &server, None);
                scope.spawn(move || {
                    let append = |n: usize| {
                        let record = vec![handle; 1 + n * 37 % 5000];
                        (file.append(&record).unwrap(), record)
                    };
                    (0..60).map(append).collect::<Vec<_>>()
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let mut records = positions;
    records.sort_unstable_by_key(|(position, _)| *position);
    let mut expected = Vec::new();
    for (position, record) in records {
        assert_eq!(position, expected.len() as u64);
        expected.extend(record);
    }
    first.sync().unwrap();
    assert!(read_all(&first) == expected);
    assert!(read_sealed(&server.stored(&name()).unwrap(), &ROOT).unwrap().plaintext == expected);
}

#[test]
fn a_file_that_is_dropped_is_written_back_before_the_engine_has_gone() {
    for engine_first in [true, false] {
        let server = MemoryServer::new(MemoryOptions::default());
        let engine = engine();
        let file = create(&engine, &server, None, 4096);
        file.write_at(0, &sample(300_000)).unwrap();
        if engine_first {
            drop(engine);
            drop(file);
        } else {
            drop(file);
            drop(engine);
        }
        assert_eq!(stored(&server), sample(300_000), "the engine first: {engine_first}");
    }
}

#[test]
fn a_file_that_is_dropped_and_opened_again_has_what_was_written() {
    let server = memory();
    let engine = engine();
    for round in 0..50 {
        let file = if round == 0 {
            create(&engine, &server, None, 4096)
        } else {
            open(&engine, &server, None)
        };
        assert!(read_all(&file) == vec![1; round * 1000]);
        file.append(&[1; 1000]).unwrap();
    }
}

/// The engine's threads that it was called on, as directories of the system's.
#[derive(Debug, Default)]
struct Threads(Mutex<BTreeSet<PathBuf>>);

impl Observer for Threads {
    fn event(&self, _at: Duration, _request: u64, _event: &TraceEvent) {
        if thread::current().name().is_some_and(|name| name.starts_with("sealback-")) {
            let this = Path::new("/proc").join(fs::read_link("/proc/thread-self").unwrap());
            self.0.lock().unwrap().insert(this);
        }
    }
}

#[test]
fn an_engine_that_is_dropped_leaves_nothing_behind() {
    let ended = ends(|| {
        let server = memory();
        let cache = MemoryCache::new(MemoryOptions::default());
        // A cache is waited for longer than this test is.
        let patient = Config { cache_patience: Duration::from_secs(3600), ..config() };
        let engine = Engine::new(patient).unwrap();
        let file = create(&engine, &server, Some(&cache), 4096);
        file.write_at(0, &sample(100_000)).unwrap();
        let threads = Arc::new(Threads::default());
        file.writeback_observed(Some(threads.clone())).wait().unwrap();
        file.close().unwrap();
        drop(engine);
        let threads = Arc::into_inner(threads).expect("the request has let go").0;
        let of_the_engine = threads.into_inner().unwrap();
        assert!(!of_the_engine.is_empty());
        while of_the_engine.iter().any(|thread| thread.exists()) {
            thread::yield_now();
        }
    });
    ended.expect("a thread goes on");
}

#[test]
fn a_shutdown_writes_every_file_back_or_hands_it_out_with_its_error() {
    let ended = ends(|| {
        let (good, bad) = (memory(), MemoryServer::new(MemoryOptions::default()));
        let engine = engine();
        let written = create(&engine, &good, None, 4096);
        written.write_at(0, &sample(100_000)).unwrap();
        let closed = engine.clone();
        let (faults, refusing) = refusing(&bad);
        let refused = create(&engine, &refusing, None, 4096);
        refused.write_at(0, &sample(50_000)).unwrap();
        // Of this one nobody has a handle any more.
        drop(refused);

        let mut unclosed = engine.shutdown().unwrap_err();
        assert_eq!(unclosed.len(), 1);
        let error = &unclosed[0].error;
        assert_eq!(error.target_kind(), Some(TargetErrorKind::NoSpace), "{error:?}");
        assert_eq!(written.dirty_bytes(), 0);
        assert!(matches!(written.write_at(0, b"late"), Err(Error::Closed)));
        assert!(matches!(written.append(b"late"), Err(Error::Closed)));
        for size in [10, 200_000] {
            assert!(matches!(written.set_len(size), Err(Error::Closed)));
        }
        assert!(matches!(written.punch(0..50_000), Err(Error::Closed)));
        assert!(matches!(written.rekey(&root()), Err(Error::Closed)));
        let root = root();
        let place = Place { server: &good, cache: None, root: &root };
        assert!(matches!(closed.open(&place, &name()), Err(Error::Closed)));
        let options = CreateOptions::default();
        assert!(matches!(closed.create(&place, &name(), &options), Err(Error::Closed)));

        faults.stop();
        let refused = unclosed.pop().unwrap().file;
        // A writeback that began with the drop may end, and be told of, only now.
        let _told_late = refused.sync();
        refused.close().map_err(|unclosed| unclosed.error).unwrap();
        assert_eq!(stored(&bad), sample(50_000));
    });
    ended.expect(NO_END);
}

#[test]
fn what_is_discarded_is_not_written_and_the_rest_of_the_file_is_as_it_was() {
    let server = memory();
    let engine = engine();
    let file = create(&engine, &server, None, 4096);
    file.write_at(0, &sample(50_000)).unwrap();
    file.sync().unwrap();
    file.write_at(20_000, &[1; 10_000]).unwrap();
    file.append(&[2; 50_000]).unwrap();
    let other = open(&engine, &server, None);
    file.discard();
    assert_eq!((other.dirty_bytes(), other.size()), (0, 50_000));
    assert!(read_all(&other) == sample(50_000));
    other.write_at(100, b"on it goes").unwrap();
    other.sync().unwrap();
    let mut expected = sample(50_000);
    expected[100..110].copy_from_slice(b"on it goes");
    assert!(read_sealed(&server.stored(&name()).unwrap(), &ROOT).unwrap().plaintext == expected);
}

#[test]
fn ten_thousand_files_with_a_few_dirty_kibibytes_each_are_written_back_by_one_sync_all() {
    let server = MemoryServer::new(MemoryOptions::default());
    let engine = Engine::new(Config { folio_bytes: 4096, ..config() }).unwrap();
    let root = root();
    let place = Place { server: &server, cache: None, root: &root };
    let options = CreateOptions { block_bytes: 4096, ..CreateOptions::default() };
    let data = |number: usize| vec![u8::try_from(number % 251).unwrap(); 1000 + number % 5000];
    let names: Vec<_> = (0..10_000).map(|n| Name::new(&format!("file {n}")).unwrap()).collect();
    let files: Vec<_> = names
        .iter()
        .enumerate()
        .map(|(number, name)| {
            let file = engine.create(&place, name, &options).unwrap();
            file.write_at(0, &data(number)).unwrap();
            file
        })
        .collect();
    engine.sync_all().unwrap();
    let stats = engine.stats();
    assert!(stats.folios_out * 4096 <= 36 << 17, "folios stay within their share");
    assert_eq!(stats.buffers_free, stats.buffers, "every buffer is home");
    assert!(files.iter().all(|file| file.dirty_bytes() == 0));
    for (number, name) in names.iter().enumerate() {
        let read = read_sealed(&server.stored(name).unwrap(), &ROOT).unwrap();
        assert!(read.plaintext == data(number), "file {number}");
    }
}

#[test]
fn syncs_of_a_growing_file_do_not_wait_for_one_another_in_a_circle() {
    let ended = ends(|| {
        for _ in 0..20 {
            let server = memory();
            let engine = engine();
            let file = create(&engine, &server, None, 4096);
            thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        for _ in 0..10 {
                            file.append(&[1; 3000]).unwrap();
                            file.sync().unwrap();
                        }
                    });
                }
            });
            assert_eq!(file.info().size, 120_000);
        }
    });
    ended.expect(NO_END);
}

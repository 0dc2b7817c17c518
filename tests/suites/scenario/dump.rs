//! A dump says who waits for whom, whatever is stuck, and never gets stuck itself.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use sealback::{
    Config, Engine, RetryLimits, WriteKind,
    dump::{Dump, RequestDump, WaitFor},
    request::{RequestState, StreamWait},
    trace::{Observer, TraceEvent},
};
use sealback_stream::{
    Failure, MemoryCache, MemoryOptions, MemoryServer, Name, Server, TargetError, TargetErrorKind,
    faulty::{Fault, Faults, FaultyServer, Operation, Rule, When},
};
use sealback_tests::gate::{Gate, GateServer};

use crate::{
    bench::{Bench, STRIDE, Setup, transient},
    support::{config, create, memory, memory_with, name, sample},
};

const BLOCK: u64 = 4096;

/// Dumps until one fits.
fn dump_until(engine: &Engine, what: &str, mut fits: impl FnMut(&Dump) -> bool) -> Dump {
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        let dump = engine.dump();
        if fits(&dump) {
            return dump;
        }
        assert!(Instant::now() < until, "{what} does not come:\n{dump}");
        thread::yield_now();
    }
}

fn only(dump: &Dump) -> &RequestDump {
    assert_eq!(dump.requests.len(), 1, "{dump}");
    &dump.requests[0]
}

fn waits_for(dump: &Dump, what: WaitFor) -> bool {
    dump.waits.iter().any(|wait| wait.what == what)
}

fn held(nth: u64) -> Faults {
    let operation = Operation::Write;
    Faults::scripted([Rule { operation, when: When::Once(nth), fault: Fault::Hold }])
}

/// Answers what is held, and what comes to be held meanwhile, until `run` returns.
fn release_while<T>(faults: &Faults, run: impl FnOnce() -> T) -> T {
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                faults.release();
                thread::yield_now();
            }
        });
        let returned = run();
        ended.store(true, Ordering::Relaxed);
        returned
    })
}

#[test]
fn of_a_request_that_a_target_holds_up_it_names_the_subrequest_the_stream_and_who_waits() {
    let faults = held(2);
    let options = MemoryOptions::default().with_boundary_blocks(4);
    let server = FaultyServer::new(MemoryServer::new(options), &faults);
    let engine = Engine::new(config()).unwrap();
    let file = create(&engine, &server, Some(&MemoryCache::new(options)), BLOCK);
    file.write_at(0, &sample(10 * 4 * 4096)).unwrap();
    let syncing = file.submit(|file| file.sync());
    let dump = dump_until(&engine, "one subrequest in flight", |dump| {
        let [request] = &dump.requests[..] else { return false };
        let streams = &request.view.streams;
        matches!(&streams[..], [(upload, StreamWait::Answers), (cache, StreamWait::Nothing)]
            if upload.n_in_flight == 1 && cache.n_in_flight == 0)
            && waits_for(dump, WaitFor::Request(request.request))
    });
    let request = only(&dump);
    assert_eq!(request.subject, Some((WriteKind::Sync, 0..10 * 4 * 4096)));
    assert_eq!(request.file.name.as_deref(), Some("file"));
    assert!(matches!(request.view.state, RequestState::Sending), "{dump}");
    assert_eq!((request.view.issued_to, request.view.collected_to), (40, 4));
    let upload = &request.view.streams[0].0;
    let [stuck] = &upload.in_flight[..] else { panic!("{dump}") };
    assert_eq!((stuck.id, stuck.blocks.clone(), stuck.attempts), (2, 4..8, 0));
    assert!(waits_for(&dump, WaitFor::Sync), "{dump}");
    assert!(waits_for(&dump, WaitFor::Request(request.request)), "{dump}");
    let text = dump.to_string();
    for words in [
        "sync of bytes 0..163840 of file 0 \"file\"",
        "upload waits for answers: 1 of 4 in flight",
        "in flight: subrequest 2, 4 blocks of 4..8, 0 attempts before",
        "thread sealback-call has waited for a sync for ",
        "thread sealback-call has waited for the end of request 1 for ",
    ] {
        assert!(text.contains(words), "{words:?} is missing in\n{text}");
    }
    release_while(&faults, || syncing.wait().unwrap());
    let dump = dump_until(&engine, "the end", |dump| dump.requests.is_empty());
    assert!(dump.waits.is_empty(), "{dump}");
}

/// Waits in its first event until it is let go, and dumps in each.
struct Blocking {
    engine: Engine,
    began: mpsc::SyncSender<()>,
    go_on: Mutex<mpsc::Receiver<()>>,
}

impl Observer for Blocking {
    fn event(&self, _at: Duration, _request: u64, _event: &TraceEvent) {
        let dump = self.engine.dump();
        assert!(matches!(only(&dump).view.state, RequestState::Busy), "{dump}");
        let _ = self.began.try_send(());
        let _ = self.go_on.lock().unwrap().recv();
    }
}

#[test]
fn while_a_thread_hangs_that_carries_a_request_on_it_returns_and_says_busy() {
    let (engine, server) = (Engine::new(config()).unwrap(), memory());
    let file = create(&engine, &server, None, BLOCK);
    file.write_at(0, &sample(4096)).unwrap();
    let (sender, began) = mpsc::sync_channel(1);
    let (go_on, receiver) = mpsc::channel();
    let go_on_later = Mutex::new(receiver);
    let observer = Blocking { engine: engine.clone(), began: sender, go_on: go_on_later };
    let writer = thread::spawn(move || {
        let stats = file.writeback_observed(Some(Arc::new(observer))).wait();
        (file, stats)
    });
    began.recv().unwrap();
    let dump = engine.dump();
    assert!(matches!(only(&dump).view.state, RequestState::Busy), "{dump}");
    assert!(only(&dump).view.streams.is_empty());
    assert!(dump.to_string().contains("file 0 \"file\", "), "{dump}");
    drop(go_on);
    writer.join().unwrap().1.unwrap();
}

#[test]
fn of_a_request_that_pauses_and_backs_off_it_says_so() {
    let retry = RetryLimits { max_attempts: 4, ..RetryLimits::default() };
    let setup = Setup { retry, granted: [2, 2], windows: [2, 8], ..Setup::new(4, 2) };
    let mut bench = Bench::new(Setup { cached: false, ..setup });
    let wait = |bench: &Bench| bench.request.view().streams[0].1;
    assert_eq!(wait(&bench), StreamWait::Ciphertext { span: 0 });
    assert_eq!(bench.request.view().n_sealing, 4);
    bench.seal(0);
    assert_eq!(wait(&bench), StreamWait::Ciphertext { span: 1 });
    bench.seal_all();
    assert_eq!(wait(&bench), StreamWait::Window);
    for attempt in 1..=2 {
        bench.fail(0, transient());
        assert!(matches!(bench.request.view().state, RequestState::Pausing), "{attempt}");
        assert_eq!(wait(&bench), StreamWait::Retry);
        let (upload, _) = &bench.request.view().streams[0];
        assert_eq!((upload.n_unfinished, upload.n_in_flight), (1, 1));
        bench.fail(0, transient());
    }
    let RequestState::BackingOff { until } = bench.request.view().state else {
        panic!("{:?}", bench.request.view())
    };
    assert!(until > bench.now);
    bench.run(|_, write| Ok(write.bytes()));
    assert!(matches!(bench.request.view().state, RequestState::Finishing));
    bench.ended().unwrap();
}

#[test]
fn of_a_request_without_buffer_or_credit_it_says_so() {
    let mut bench = Bench::new(Setup { n_buffers: 2, ..Setup::new(4, 1) });
    assert!(matches!(bench.request.view().state, RequestState::Buffer));
    bench.seal_all();
    bench.run(|_, write| Ok(write.bytes()));
    bench.ended().unwrap();
    let mut bench = Bench::new(Setup { credits: 1, cached: false, ..Setup::new(4, 1) });
    bench.seal_all();
    let view = bench.request.view();
    assert!(matches!(view.state, RequestState::Sending));
    let [(upload, wait), (_, off)] = &view.streams[..] else { panic!("{view:?}") };
    assert_eq!((*wait, *off), (StreamWait::Credit, StreamWait::Off));
    assert!(upload.refused && upload.n_in_flight == 1 && upload.wanted_from == Some(1));
    bench.run(|_, write| Ok(write.bytes()));
    bench.ended().unwrap();
}

#[test]
fn of_a_writer_that_waits_for_memory_it_names_the_thread_and_the_request_in_the_way() {
    let options = MemoryOptions::default().with_max_write_bytes(20 * STRIDE);
    let server = GateServer::new(memory_with(options), Gate::default());
    let engine = Engine::new(Config { dirty_expire: Duration::MAX, ..config() }).unwrap();
    let file = create(&engine, &server, None, BLOCK);
    let writer = thread::Builder::new().name("the writer".to_owned());
    let writing = writer.spawn(move || {
        file.write_at(0, &sample(12 << 20)).unwrap();
        file
    });
    let dump = dump_until(&engine, "a wait for memory", |dump| {
        waits_for(dump, WaitFor::Memory) && dump.requests.len() == 1
    });
    let wait = dump.waits.iter().find(|wait| wait.what == WaitFor::Memory).unwrap();
    assert_eq!(wait.thread, "the writer");
    assert_eq!(wait.file, Some(only(&dump).file.clone()));
    let (out, of) = dump.folios;
    assert!(0 < out && out <= of, "{dump}");
    server.hook.open();
    let file = writing.unwrap().join().unwrap();
    file.close().unwrap();
}

#[test]
fn of_a_sync_that_waits_for_another_clients_lock_on_the_size_it_says_so() {
    let (engine, server) =
        (Engine::new(config()).unwrap(), MemoryServer::new(MemoryOptions::default()));
    let file = create(&engine, &server, None, BLOCK);
    let other = server.open(&name()).unwrap();
    let locked = other.lock_size().unwrap();
    file.write_at(0, &sample(4096)).unwrap();
    let syncing = file.submit(|file| file.sync());
    let dump = dump_until(&engine, "a wait for the lock", |dump| {
        waits_for(dump, WaitFor::SizeLock) && !dump.requests.is_empty()
    });
    assert!(matches!(only(&dump).view.state, RequestState::SizeLock), "{dump}");
    assert!(dump.to_string().contains("thread sealback-lock has waited for the server's lock"));
    drop(locked);
    syncing.wait().unwrap();
}

#[test]
fn of_a_shutdown_that_waits_it_names_what_it_waits_for() {
    let faults = held(1);
    let server = FaultyServer::new(MemoryServer::new(MemoryOptions::default()), &faults);
    let engine = Engine::new(config()).unwrap();
    let file = create(&engine, &server, None, BLOCK);
    file.write_at(0, &sample(4096)).unwrap();
    let ending = engine.clone();
    let shutdown = thread::spawn(move || ending.shutdown().is_ok());
    dump_until(&engine, "a shutdown that waits for a request with a write in flight", |dump| {
        let is_waited_for = |request: &RequestDump| {
            waits_for(dump, WaitFor::Request(request.request))
                && request.view.streams.iter().any(|(stream, _)| stream.n_in_flight == 1)
        };
        waits_for(dump, WaitFor::SyncAll) && dump.requests.iter().any(is_waited_for)
    });
    assert!(release_while(&faults, || shutdown.join().unwrap()));
}

#[test]
fn it_is_bounded_and_quotes_what_anybody_may_have_named() {
    const N_FILES: usize = 300;
    let faults = Faults::scripted([Rule {
        operation: Operation::Write,
        when: When::From(1),
        fault: Fault::Hold,
    }]);
    let server = FaultyServer::new(MemoryServer::new(MemoryOptions::default()), &faults);
    let engine = Engine::new(Config { memory_bytes: 64 << 20, ..config() }).unwrap();
    let root = crate::support::root();
    let place = sealback::Place { server: &server, cache: None, root: &root };
    let options = sealback::CreateOptions { block_bytes: BLOCK, replace: true };
    let open = |number: usize| {
        let name = Name::new(&format!("odd\n\u{1b}[31m name {number}")).unwrap();
        let file = engine.create(&place, &name, &options).unwrap();
        file.write_at(0, &[7; 100]).unwrap();
        drop(file.writeback());
        file
    };
    let files: Vec<_> = (0..N_FILES).map(open).collect();
    let dump = engine.dump();
    assert_eq!(dump.requests.len() + dump.n_omitted, N_FILES);
    assert_eq!(dump.requests.len(), 256);
    let text = dump.to_string();
    assert!(text.contains(r#""odd\n\u{1b}[31m name 7""#), "{text}");
    assert!(text.ends_with("and 44 more"));
    faults.stop();
    release_while(&faults, || engine.sync_all().unwrap());
    drop(files);
}

#[test]
fn an_error_that_ends_a_request_is_told_while_it_ends() {
    let mut bench = Bench::new(Setup { cached: false, ..Setup::new(4, 1) });
    bench.seal_all();
    let full = TargetError::new(TargetErrorKind::NoSpace, "the disk is full");
    bench.fail(0, Failure::Fatal(full));
    let RequestState::Ending(error) = bench.request.view().state else { panic!() };
    assert!(error.to_string().contains("the disk is full"), "{error}");
    bench.run(|_, write| Ok(write.bytes()));
    assert!(bench.ended().is_err());
}

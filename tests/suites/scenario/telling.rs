//! What requests tell, they tell observers and `tracing` alike, for every kind of write; and nothing is
//! made or formatted for nobody.

use std::{
    fmt, io,
    sync::{
        Arc, LazyLock, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use sealback::{
    Config, CreateOptions, Decision, Engine, File, Place, RetryLimits, WriteKind,
    trace::{Observer, TraceEvent},
};
use sealback_crypto::RootKey;
use sealback_stream::{
    Failure, MemoryCache, MemoryOptions, MemoryServer, Server, TargetError, TargetErrorKind,
    faulty::{Fault, Faults, FaultyCache, FaultyServer, Operation, Rule, When},
};
use tracing::{Dispatch, Level, Subscriber, dispatcher, level_filters::LevelFilter};

use crate::support::{config, create, memory, name, open, read_all, sample};

const BLOCK: u64 = 4096;

/// What was told by `tracing`, a line for each event, with the spans that it is in.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<u8>>>);

impl io::Write for Told {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Two that hear nothing. While there is one subscriber alone, `tracing` asks the thread that first comes
/// to an event whether anybody wants it, and keeps the answer: another test's, which has none, would
/// silence it for all (<https://github.com/tokio-rs/tracing/issues/3611>).
static DEAF: LazyLock<[Dispatch; 2]> = LazyLock::new(|| {
    let deaf = || tracing_subscriber::fmt().with_max_level(LevelFilter::OFF).finish();
    [Dispatch::new(deaf()), Dispatch::new(deaf())]
});

/// Runs something with a subscriber.
fn with<S: Subscriber + Send + Sync, R>(subscriber: S, run: impl FnOnce() -> R) -> R {
    LazyLock::force(&DEAF);
    dispatcher::with_default(&Dispatch::new(subscriber), run)
}

impl Told {
    /// Runs something with a subscriber that hears up to a level.
    fn hear<R>(&self, level: Level, run: impl FnOnce() -> R) -> R {
        let told = self.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(level)
            .without_time()
            .with_ansi(false)
            .with_writer(move || told.clone());
        with(subscriber.finish(), run)
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    /// The events of one request that are of these targets, by their message.
    fn messages(&self, request: u64, targets: &[&str]) -> Vec<String> {
        let of = format!("request={request}");
        let text = self.text();
        let lines = text.lines().filter_map(|line| {
            let rest = targets.iter().find_map(|target| {
                let (_, rest) = line.split_once(&format!(" sealback::{target}: "))?;
                Some(rest)
            })?;
            let own = rest.split_whitespace().any(|word| word == of);
            // The message stands before the first field.
            let end = rest.find(" request=").unwrap_or(rest.len());
            own.then(|| rest[..end].to_owned())
        });
        lines.collect()
    }
}

/// Keeps what it hears, with the request's number.
#[derive(Default)]
struct Ears(Mutex<Vec<(u64, TraceEvent)>>);

impl Observer for Ears {
    fn event(&self, _at: Duration, request: u64, event: &TraceEvent) {
        self.0.lock().unwrap().push((request, event.clone()));
    }
}

impl Ears {
    fn events(&self) -> Vec<(u64, TraceEvent)> {
        self.0.lock().unwrap().clone()
    }

    /// The kinds of the requests that it heard begin.
    fn kinds(&self) -> Vec<WriteKind> {
        let events = self.events();
        let begun = events.iter().filter_map(|(_, event)| match event {
            TraceEvent::Begun { kind, .. } => Some(*kind),
            _ => None,
        });
        begun.collect()
    }
}

fn quick() -> Config {
    let retry = RetryLimits { first_delay: Duration::from_micros(50), ..RetryLimits::default() };
    Config { retry, ..config() }
}

fn io_error() -> TargetError {
    TargetError::new(TargetErrorKind::Io, "the line is busy")
}

fn once(nth: u64, fault: Fault) -> Faults {
    Faults::scripted([Rule { operation: Operation::Write, when: When::Once(nth), fault }])
}

const TARGETS: [&str; 7] = ["request", "span", "subrequest", "collect", "folio", "retry", "cache"];

#[test]
fn the_events_of_a_retry_are_told_in_order_to_an_observer_and_by_tracing_alike() {
    let faults = Faults::scripted((2..4).map(|nth| Rule {
        operation: Operation::Write,
        when: When::Once(nth),
        fault: Fault::Fail(Failure::Retry(io_error())),
    }));
    let options = MemoryOptions::default().with_boundary_blocks(1);
    let server = FaultyServer::new(MemoryServer::new(options), &faults);
    let engine = Engine::new(Config { upload_window: 1, ..quick() }).unwrap();
    let (told, ears) = (Told::default(), Arc::new(Ears::default()));
    engine.observe(Some(ears.clone()));
    told.hear(Level::TRACE, || {
        let file = create(&engine, &server, None, BLOCK);
        file.write_at(0, &sample(3 * 4096)).unwrap();
        file.writeback().wait().unwrap();
    });
    let events = ears.events();
    let request = events[0].0;
    assert!(events.iter().all(|(of, _)| *of == request));
    let names: Vec<_> = events.iter().map(|(_, event)| event.name()).collect();
    // What is sealed when is for the crypto pool to say.
    let in_order: Vec<_> = names.iter().copied().filter(|name| *name != "sealed").collect();
    assert_eq!(
        in_order,
        [
            "begun",
            "span",
            "prepared",
            "prepared",
            "prepared",
            "issued",
            "terminated",
            "collected",
            "issued",
            "terminated",
            "paused",
            "reissued",
            "prepared",
            "issued",
            "terminated",
            "paused",
            "backing off",
            "reissued",
            "prepared",
            "issued",
            "terminated",
            "collected",
            "issued",
            "terminated",
            "collected",
            "released",
            "done",
        ]
    );
    // The end that those who wait see is told by `tracing` alone.
    let messages = told.messages(request, &TARGETS);
    let ended = messages.iter().filter(|message| *message == "ended").count();
    let own: Vec<_> = messages.iter().filter(|message| *message != "ended").collect();
    assert_eq!(own, names, "{}", told.text());
    assert_eq!(ended, 1);
    let text = told.text();
    for words in ["the line is busy", "cause=transient", "kind=\"sync\"", "file=\"file\""] {
        assert!(text.contains(words), "{words:?} is missing in\n{text}");
    }
}

#[test]
fn every_kind_of_write_is_told_by_its_name_and_in_the_span_of_its_caller() {
    let (engine, server) = (Engine::new(config()).unwrap(), memory());
    let (told, ears) = (Told::default(), Arc::new(Ears::default()));
    engine.observe(Some(ears.clone()));
    told.hear(Level::DEBUG, || {
        let file = create(&engine, &server, None, BLOCK);
        let _in_span = tracing::info_span!("the_caller").entered();
        file.write_at(0, &sample(100_000)).unwrap();
        file.sync().unwrap();
        file.write_at(0, &sample(10_000)).unwrap();
        file.sync_range(0..5000).unwrap();
        file.write_direct(4096, sample(4096)).result.unwrap();
        let mut writing = file.writethrough(0).unwrap();
        writing.advance(&sample(200_000)).unwrap();
        writing.end().unwrap();
        file.write_at(0, &sample(100)).unwrap();
        file.writeback_filtered(|_| Decision::Write).unwrap();
    });
    let kinds = ears.kinds();
    for kind in [
        WriteKind::Sync,
        WriteKind::Range,
        WriteKind::Direct,
        WriteKind::Writethrough,
        WriteKind::Filtered,
    ] {
        assert!(kinds.contains(&kind), "{kind} is missing in {kinds:?}");
        let text = told.text();
        let begun = text.lines().filter(|line| line.contains("request: begun"));
        let mut of_kind = begun.filter(|line| line.contains(&format!("kind=\"{kind}\"")));
        let in_span = of_kind.next().is_some_and(|line| line.contains("the_caller:"));
        assert!(in_span, "{kind} is not told in its caller's span:\n{text}");
    }
    let text = told.text();
    assert!(text.contains("the_caller:sync{file=\"file\" kind=Sync}:request{"), "{text}");
    for words in ["sealback::commit: committed", "sealback::sync: barrier"] {
        assert!(text.contains(words), "{words:?} is missing in\n{text}");
    }
    assert!(!text.contains("TRACE"), "only debug was asked for");
}

#[test]
fn writeback_that_nobody_asked_for_is_told_to_the_engines_observer() {
    let ears = Arc::new(Ears::default());
    let engine = Engine::new(Config { dirty_background_percent: 0, ..config() }).unwrap();
    engine.observe(Some(ears.clone()));
    let (server, cache) = (memory(), MemoryCache::new(MemoryOptions::default()));
    let file = create(&engine, &server, None, BLOCK);
    file.write_at(0, &sample(2 << 20)).unwrap();
    file.close().unwrap();
    assert!(ears.kinds().contains(&WriteKind::Background), "{:?}", ears.kinds());
    // Nothing of it is in this one's memory.
    let engine = Engine::new(config()).unwrap();
    engine.observe(Some(ears.clone()));
    let file = open(&engine, &server, Some(&cache));
    // More than half of what may wait to be copied.
    assert_eq!(read_all(&file).len(), 2 << 20);
    while !ears.kinds().contains(&WriteKind::CopyToCache) {
        thread::yield_now();
    }
}

#[test]
fn what_is_lost_or_given_up_is_told_to_who_hears_warnings_alone() {
    let full = || Fault::Fail(Failure::Fatal(TargetError::new(TargetErrorKind::NoSpace, "full")));
    let (server, cache) = (once(2, full()), once(1, full()));
    let options = MemoryOptions::default().with_boundary_blocks(1);
    let server = FaultyServer::new(MemoryServer::new(options), &server);
    let cache = FaultyCache::new(MemoryCache::new(options), &cache);
    let engine = Engine::new(quick()).unwrap();
    let told = Told::default();
    told.hear(Level::WARN, || {
        let file = create(&engine, &server, Some(&cache), BLOCK);
        file.write_at(0, &sample(3 * 4096)).unwrap();
        assert!(file.sync().is_err());
        file.sync().unwrap();
    });
    let text = told.text();
    assert!(text.lines().all(|line| line.trim_start().starts_with("WARN ")), "{text}");
    for words in [
        "sealback::cache: off request=1 stream=1 cause=fatal",
        "sealback::cache: done without file=\"file\"",
        "sealback::request: failed request=1 error=",
    ] {
        assert!(text.contains(words), "{words:?} is missing in\n{text}");
    }
}

/// An error whose text nobody should ask for.
#[derive(Debug)]
struct Loud(Arc<AtomicUsize>);

impl fmt::Display for Loud {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fetch_add(1, Ordering::Relaxed);
        f.write_str("loud")
    }
}

impl std::error::Error for Loud {}

#[test]
fn nothing_is_formatted_when_nobody_listens() {
    let n_formatted = Arc::new(AtomicUsize::new(0));
    let run = || {
        let loud = io::Error::other(Loud(n_formatted.clone()));
        let failure = Failure::Retry(TargetError::from_io("writing", loud));
        let faults = once(2, Fault::Fail(failure));
        let options = MemoryOptions::default().with_boundary_blocks(1);
        let server = FaultyServer::new(MemoryServer::new(options), &faults);
        let engine = Engine::new(quick()).unwrap();
        let file = create(&engine, &server, None, BLOCK);
        file.write_at(0, &sample(3 * 4096)).unwrap();
        file.sync().unwrap();
        assert_eq!(engine.stats().requests.streams[0].retries.transient, 1);
    };
    run();
    assert_eq!(n_formatted.load(Ordering::Relaxed), 0, "for nobody");
    Told::default().hear(Level::WARN, run);
    assert_eq!(n_formatted.load(Ordering::Relaxed), 0, "for who wants to hear of less");
    Told::default().hear(Level::DEBUG, run);
    assert!(n_formatted.load(Ordering::Relaxed) > 0, "and somebody does");
}

#[test]
fn no_event_no_dump_and_no_statistic_holds_a_key_or_plaintext() {
    const SECRET: &[u8] = b"for your eyes only, whoever you are";
    let key: [u8; 32] = std::array::from_fn(|index| u8::try_from(index * 7 + 13).unwrap());
    let rates = sealback_stream::faulty::Rates {
        retry: 100,
        short: 100,
        unknown: 50,
        dropped: 50,
        ..Default::default()
    };
    let (told, ears) = (Told::default(), Arc::new(Ears::default()));
    let mut text = told.hear(Level::TRACE, || {
        let faults = Faults::seeded(7, rates);
        let options = MemoryOptions::default().with_boundary_blocks(1);
        let server = FaultyServer::new(MemoryServer::new(options), &faults);
        let cache = FaultyCache::new(MemoryCache::new(options), &faults);
        let engine = Engine::new(quick()).unwrap();
        engine.observe(Some(ears.clone()));
        faults.stop();
        let root = RootKey::from_bytes(&key);
        let place = Place { server: &server, cache: Some(&cache), root: &root };
        let options = CreateOptions { block_bytes: BLOCK, replace: false };
        let file: File = engine.create(&place, &name(), &options).unwrap();
        faults.resume();
        for round in 0..20_u64 {
            file.write_at(round * 5000, SECRET).unwrap();
            let _ = file.sync();
        }
        faults.stop();
        file.write_direct(3, SECRET.to_vec()).result.unwrap();
        let dump = format!("{:?}\n{}", engine.dump(), engine.dump());
        file.close().unwrap();
        assert!(server.open(&name()).is_ok());
        format!("{dump}\n{:?}\n{}\n{engine:?}", engine.stats(), engine.stats())
    });
    text += &told.text();
    text += &format!("{:?}", ears.events());
    assert!(text.len() > 50_000, "something was told");
    for secret in [SECRET, &key] {
        for part in secret.windows(8) {
            let hex: String = part.iter().map(|byte| format!("{byte:02x}")).collect();
            let listed = format!("{part:?}");
            let raw = String::from_utf8_lossy(part).into_owned();
            for form in [hex.to_uppercase(), hex, listed[1..listed.len() - 1].to_owned(), raw] {
                assert!(!text.contains(&form), "{form:?} was told");
            }
        }
    }
}

#[test]
fn a_subscriber_or_an_observer_of_the_engine_that_panics_hangs_nobody() {
    struct Panicking;
    impl Observer for Panicking {
        fn event(&self, _at: Duration, _request: u64, _event: &TraceEvent) {
            panic!("injected: an observer panics");
        }
    }
    let panicking = tracing_subscriber::fmt().with_max_level(Level::TRACE).with_writer(|| {
        panic!("injected: a subscriber panics");
        #[expect(unreachable_code, reason = "says what it would be")]
        io::sink()
    });
    let (engine, server) = (Engine::new(quick()).unwrap(), memory());
    engine.observe(Some(Arc::new(Panicking)));
    let file = create(&engine, &server, None, BLOCK);
    file.write_at(0, &sample(10_000)).unwrap();
    let writeback = with(panicking.finish(), || file.writeback());
    writeback.wait().unwrap();
    assert_eq!(file.dirty_bytes(), 0);
}

//! Targets that fail, with real threads: every kind of failure in every place. What is transient is not
//! noticed; what is not is told once to each handle, and the data is sent by a later sync. Whatever
//! happened, nothing is left over.

use std::{sync::Arc, thread, time::Duration};

use sealback::{
    CacheReport, Config, Engine, Error, File, RetryLimits,
    trace::{Observer, TraceEvent},
};
use sealback_stream::{
    Failure, MemoryCache, MemoryOptions, TargetError, TargetErrorKind,
    faulty::{Fault, Faults, FaultyCache, FaultyServer, Operation, Rates, Rule, When},
};
use sealback_tests::reader::read_sealed;

use super::served::{Served, credits_out, served_by, stored};
use crate::support::{ROOT, config, create, name, open, read_all, sample};

/// Blocks that one subrequest to the server carries at most.
const BOUNDARY: u64 = 4;
/// Subrequests in a full file.
const N_SUBREQUESTS: u64 = 10;
const FULL: usize = 10 * 4 * 4096;

/// One engine with a faulty server and a faulty cache, both with few credits.
struct World {
    engine: Engine,
    server: FaultyServer<Served>,
    cache: FaultyCache<MemoryCache>,
    faults: [Faults; 2],
}

fn quick() -> Config {
    let retry = RetryLimits { first_delay: Duration::from_micros(50), ..RetryLimits::default() };
    Config { retry, ..config() }
}

impl World {
    fn new(server: Faults, cache: Faults) -> World {
        World::with(server, cache, quick())
    }

    fn with(server: Faults, cache: Faults, config: Config) -> World {
        let copies = MemoryOptions::default().with_credits(2).with_max_write_bytes(10_000);
        World {
            engine: Engine::new(config).unwrap(),
            server: FaultyServer::new(served_by(BOUNDARY, 3), &server),
            cache: FaultyCache::new(MemoryCache::new(copies), &cache),
            faults: [server, cache],
        }
    }

    fn create(&self) -> File {
        create(&self.engine, &self.server, Some(&self.cache), 4096)
    }

    /// What an independent reader finds on the server.
    fn stored(&self) -> Vec<u8> {
        read_sealed(&stored(&self.server, &name()), &ROOT).unwrap().plaintext
    }

    /// Closes the file and looks whether anything is left over.
    fn end(self, file: File, data: &[u8], what: &str) {
        self.faults.iter().for_each(Faults::stop);
        file.close().unwrap();
        assert!(self.stored() == data, "{what}: the server has something else");
        let file = open(&self.engine, &self.server, Some(&self.cache));
        assert!(read_all(&file) == data, "{what}: through the cache");
        let mut differing = Vec::new();
        file.verify_cache(|block, report| {
            differing.extend((report == CacheReport::Differs).then_some(block));
        })
        .unwrap();
        assert!(differing.is_empty(), "{what}: the cache claims what the server has not");
        drop(file);
        self.faults.iter().for_each(Faults::release);
        self.nothing_is_left(what);
    }

    /// Gauges go back to zero; some, of a cache that was given up, only soon.
    fn nothing_is_left(&self, what: &str) {
        let left = || {
            let stats = self.engine.stats();
            [
                stats.buffers - stats.buffers_free,
                stats.active_requests,
                stats.folios_out,
                credits_out(&self.server) as usize,
                self.cache.credits_out() as usize,
            ]
        };
        for _ in 0..2000 {
            if left() == [0; 5] {
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
        let dump = self.engine.dump();
        panic!("{what}: buffers, requests, folios and credits left over: {:?}\n{dump}", left());
    }
}

fn error(kind: TargetErrorKind) -> TargetError {
    TargetError::new(kind, "injected")
}

/// What a client that waits does not notice.
fn transient() -> Vec<Fault> {
    let io = || error(TargetErrorKind::Io);
    vec![
        Fault::Fail(Failure::Retry(io())),
        Fault::Fail(Failure::Renegotiate(io())),
        Fault::Short(0),
        Fault::Short(1),
        Fault::Short(5000),
        Fault::Unknown(TargetErrorKind::TimedOut),
        Fault::Drop,
        Fault::Delay(Duration::from_millis(1)),
        Fault::Elsewhere,
        Fault::Reorder,
    ]
}

fn write_rule(when: When, fault: Fault) -> Faults {
    Faults::scripted([Rule { operation: Operation::Write, when, fault }])
}

/// The first, the last and others of ten subrequests; and the only one.
fn places() -> [(usize, u64); 5] {
    [(FULL, 1), (FULL, 2), (FULL, 5), (FULL, N_SUBREQUESTS), (5000, 1)]
}

#[test]
fn a_transient_failure_of_the_server_is_not_noticed_whichever_and_wherever_it_is() {
    for fault in transient() {
        for (len, nth) in places() {
            let what = format!("{fault:?} of write {nth} for {len} bytes");
            let world = World::new(write_rule(When::Once(nth), fault.clone()), Faults::none());
            let (file, data) = (world.create(), sample(len));
            file.write_at(0, &data).unwrap();
            file.sync().unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(world.faults[0].injected(Operation::Write), 1, "{what}");
            world.end(file, &data, &what);
        }
    }
}

#[test]
fn a_failure_of_the_cache_is_never_noticed_whichever_and_wherever_it_is() {
    let fatal = Fault::Fail(Failure::Fatal(error(TargetErrorKind::NoSpace)));
    for fault in transient().into_iter().chain([fatal, Fault::Hold]) {
        for (len, nth) in places() {
            let what = format!("{fault:?} of the cache's write {nth} for {len} bytes");
            let hangs = matches!(fault, Fault::Hold);
            let patience = if hangs { Duration::from_secs(1) } else { Duration::MAX };
            let config = Config { cache_patience: patience, ..quick() };
            let faults = write_rule(When::Once(nth), fault.clone());
            let world = World::with(Faults::none(), faults, config);
            let (file, data) = (world.create(), sample(len));
            file.write_at(0, &data).unwrap();
            file.sync().unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(world.faults[1].injected(Operation::Write), 1, "{what}");
            world.end(file, &data, &what);
        }
    }
}

#[test]
fn a_failure_for_good_is_told_once_to_each_handle_and_a_later_sync_sends_what_is_dirty() {
    for (len, nth) in places() {
        let fatal = Fault::Fail(Failure::Fatal(error(TargetErrorKind::NoSpace)));
        let what = format!("write {nth} for {len} bytes");
        let world = World::new(write_rule(When::Once(nth), fatal), Faults::none());
        let (file, data) = (world.create(), sample(len));
        let other = open(&world.engine, &world.server, Some(&world.cache));
        file.write_at(0, &data).unwrap();
        let told = file.sync();
        let full = |told: &Result<(), Error>| {
            told.as_ref().is_err_and(|e| e.target_kind() == Some(TargetErrorKind::NoSpace))
        };
        assert!(full(&told), "{what}: {told:?}");
        let Err(Error::Server { range: Some(range), attempts: 1, .. }) = told else {
            panic!("{what}: {told:?}");
        };
        assert!(range.start / (4096 * BOUNDARY) < N_SUBREQUESTS, "{what}: {range:?}");
        assert!(file.dirty_bytes() > 0, "{what}: the data is kept");
        assert!(full(&other.sync()), "{what}: the other handle is told, too");
        file.sync().unwrap_or_else(|error| panic!("{what}: told twice: {error}"));
        other.sync().unwrap_or_else(|error| panic!("{what}: told twice: {error}"));
        drop(other);
        world.end(file, &data, &what);
    }
}

#[test]
fn an_error_that_is_taken_is_not_told_by_the_next_sync() {
    let fatal = Fault::Fail(Failure::Fatal(error(TargetErrorKind::NoSpace)));
    let world = World::new(write_rule(When::Once(1), fatal), Faults::none());
    let (file, data) = (world.create(), sample(5000));
    let other = open(&world.engine, &world.server, Some(&world.cache));
    assert!(file.take_error().is_none(), "nothing has failed yet");
    file.write_at(0, &data).unwrap();
    file.sync().unwrap_err();
    assert!(file.take_error().is_none(), "the sync has told");
    let taken = other.take_error().expect("nobody has told this handle");
    assert_eq!(taken.target_kind(), Some(TargetErrorKind::NoSpace));
    assert!(other.take_error().is_none());
    other.sync().unwrap();
    drop(other);
    world.end(file, &data, "taken");
}

#[test]
fn a_server_that_never_does_what_it_should_ends_in_its_own_error_and_loses_nothing() {
    for fault in [
        Fault::Fail(Failure::Retry(error(TargetErrorKind::Io))),
        Fault::Fail(Failure::Renegotiate(error(TargetErrorKind::Io))),
        Fault::Short(0),
        Fault::Drop,
    ] {
        let what = format!("{fault:?} for ever");
        let world = World::new(write_rule(When::From(4), fault), Faults::none());
        let (file, data) = (world.create(), sample(FULL));
        file.write_at(0, &data).unwrap();
        let told = file.sync();
        let attempts = quick().retry.max_attempts;
        let Err(Error::Server { attempts: told, .. }) = told else { panic!("{what}: {told:?}") };
        assert_eq!(told, attempts, "{what}");
        world.end(file, &data, &what);
    }
}

#[test]
fn a_target_or_an_observer_that_panics_hangs_nobody_and_loses_nothing() {
    struct Panicking;
    impl Observer for Panicking {
        fn event(&self, _at: Duration, _request: u64, _event: &TraceEvent) {
            panic!("injected: an observer panics");
        }
    }
    for operation in [Operation::Prepare, Operation::Write, Operation::Read] {
        let what = format!("{operation:?} panics");
        let rule = Rule { operation, when: When::Once(2), fault: Fault::Panic };
        let world = World::new(Faults::scripted([rule]), Faults::none());
        let (file, data) = (world.create(), sample(FULL));
        file.write_at(0, &data).unwrap();
        // A server that panics when it is asked for a grant ends the pass; the next one goes on.
        if let Err(error) = file.sync() {
            assert_eq!(operation, Operation::Prepare, "{what}: {error}");
        }
        drop(file.writeback_observed(Some(Arc::new(Panicking))).wait());
        world.end(file, &data, &what);
    }
}

#[test]
fn what_a_cache_answers_after_it_was_given_up_gives_its_credit_back_at_once() {
    let write = |when, fault| Rule { operation: Operation::Write, when, fault };
    let fatal = Fault::Fail(Failure::Fatal(error(TargetErrorKind::NoSpace)));
    let faults = Faults::scripted([write(When::Once(1), Fault::Hold), write(When::Once(2), fatal)]);
    // Its patience keeps the request in memory for long after its end.
    let config = Config { cache_patience: Duration::from_secs(3600), ..quick() };
    let world = World::with(Faults::none(), faults, config);
    let (file, data) = (world.create(), sample(FULL));
    file.write_at(0, &data).unwrap();
    file.sync().unwrap();
    assert_eq!(world.cache.credits_out(), 1, "the held one");
    world.faults[1].release();
    world.end(file, &data, "a late answer");
}

#[test]
fn both_targets_may_fail_at_the_same_time() {
    let retry = || Fault::Fail(Failure::Retry(error(TargetErrorKind::Io)));
    let fatal = || Fault::Fail(Failure::Fatal(error(TargetErrorKind::NoSpace)));
    for nth in [1, 3, N_SUBREQUESTS] {
        let what = format!("write {nth} of both");
        let world =
            World::new(write_rule(When::Once(nth), retry()), write_rule(When::From(nth), fatal()));
        let (file, data) = (world.create(), sample(FULL));
        file.write_at(0, &data).unwrap();
        file.sync().unwrap();
        world.end(file, &data, &what);
    }
}

#[test]
fn headers_and_barriers_that_fail_or_answer_nothing_known_are_tried_again_or_told() {
    let io = || Fault::Fail(Failure::Retry(error(TargetErrorKind::Io)));
    let timed_out = || Fault::Unknown(TargetErrorKind::TimedOut);
    for (operation, fault) in [
        (Operation::Header, io()),
        (Operation::Header, timed_out()),
        (Operation::Barrier, io()),
        (Operation::Barrier, timed_out()),
    ] {
        for nth in 1..=3 {
            let what = format!("{fault:?} of {operation:?} {nth}");
            let rule = Rule { operation, when: When::Once(nth), fault: fault.clone() };
            let world = World::new(Faults::scripted([rule]), Faults::none());
            let (file, data) = (world.create(), sample(30_000));
            file.write_at(0, &data).unwrap();
            // A barrier that failed may not be asked again for the same: it is told.
            if let Err(error) = file.sync() {
                assert_eq!(operation, Operation::Barrier, "{what}: {error}");
            }
            world.end(file, &data, &what);
        }
    }
}

#[test]
fn whatever_a_seed_makes_of_both_targets_all_comes_through() {
    let rates = Rates {
        retry: 40,
        renegotiate: 20,
        short: 60,
        unknown: 30,
        dropped: 20,
        elsewhere: 200,
        no_credit: 50,
        ..Rates::default()
    };
    let cases = std::env::var("SEALBACK_CASES").map_or(60, |cases| cases.parse().unwrap());
    for seed in 0..cases {
        let what = format!("seed {seed}");
        let cache_rates =
            if seed % 2 == 0 { Rates::default() } else { Rates { fatal: 10, ..rates } };
        let faults = [Faults::seeded(seed, rates), Faults::seeded(seed + 1, cache_rates)];
        let world = World::new(faults[0].clone(), faults[1].clone());
        let mut rng = fastrand::Rng::with_seed(seed);
        faults.iter().for_each(Faults::stop);
        let file = world.create();
        faults.iter().for_each(Faults::resume);
        let mut data = vec![0; FULL];
        for round in 1..=20_u8 {
            let at = rng.usize(..FULL - 20_000);
            let len = rng.usize(1..20_000);
            data[at..at + len].fill(round);
            file.write_at(at as u64, &data[at..at + len]).unwrap();
            if rng.u32(..4) == 0 {
                // A header that was unlucky often is told; what is dirty stays so.
                drop(file.sync());
            }
        }
        data.truncate(usize::try_from(file.size()).unwrap());
        world.end(file, &data, &what);
    }
}

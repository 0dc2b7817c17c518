//! How a request ends: once, whatever comes last; and who goes on after a pause.

use std::time::Duration;

use sealback::{Error, request::Event, source::Destinations};
use sealback_stream::Write;

use crate::bench::{Bench, CACHE, Setup, UPLOAD, everything, fatal, transient};

/// What happens next on a bench.
#[derive(Clone, Copy, Debug)]
enum Step {
    Cancel,
    Fatal(usize),
    /// The target lets go of a write that it has answered.
    LetGo(usize),
    Pass(usize),
    PassTime,
    Seal(usize),
    Transient(usize),
    Wake,
}

/// What may happen on a bench, besides sealing and answers that say all is well.
#[derive(Clone, Copy)]
struct May {
    cancel: bool,
    fail: bool,
    /// Targets may keep a write when they have answered it.
    keep: bool,
}

/// A run whose every step was chosen.
struct Run {
    bench: Bench,
    may: May,
    kept: Vec<Write>,
    steps: Vec<Step>,
}

impl Run {
    fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        for index in 0..self.bench.writes.len() {
            steps.push(Step::Pass(index));
            if self.may.fail {
                steps.extend([Step::Transient(index), Step::Fatal(index)]);
            }
        }
        steps.extend((0..self.bench.to_seal.len()).map(Step::Seal));
        steps.extend((0..self.kept.len()).map(Step::LetGo));
        steps.extend(self.bench.is_to_be_woken().then_some(Step::Wake));
        let cancelled = self.steps.iter().any(|step| matches!(step, Step::Cancel));
        let running = self.bench.result.is_none();
        if steps.is_empty() && running && !self.bench.timers.is_empty() {
            steps.push(Step::PassTime);
        }
        steps.extend((self.may.cancel && running && !cancelled).then_some(Step::Cancel));
        steps
    }

    fn take(&mut self, step: Step) {
        self.steps.push(step);
        let bench = &mut self.bench;
        match step {
            Step::Cancel => bench.hand(Event::Cancel),
            Step::Fatal(index) => bench.fail(index, fatal()),
            Step::LetGo(index) => drop(self.kept.remove(index)),
            Step::Pass(index) => {
                let bytes = bench.writes[index].1.bytes();
                let write = bench.answer(index, Ok(bytes));
                self.kept.extend(self.may.keep.then_some(write));
            }
            Step::PassTime => bench.pass_time(),
            Step::Seal(index) => bench.seal(index),
            Step::Transient(index) => bench.fail(index, transient()),
            Step::Wake => bench.wake(),
        }
    }
}

/// Runs a bench in every order that there is, and hands each run to `check`; returns their number.
fn in_every_order(setup: &Setup, may: May, check: impl Fn(Run)) -> usize {
    let mut choices: Vec<(usize, usize)> = Vec::new();
    for n_runs in 1.. {
        let bench = Bench::new(setup.clone());
        let mut run = Run { bench, may, kept: Vec::new(), steps: Vec::new() };
        let mut depth = 0;
        loop {
            let steps = run.steps();
            if steps.is_empty() {
                break;
            }
            assert!(depth < 100, "no end: {:?}", run.steps);
            if depth == choices.len() {
                choices.push((0, steps.len()));
            }
            run.take(steps[choices[depth].0]);
            depth += 1;
        }
        check(run);
        while choices.last().is_some_and(|(chosen, of)| chosen + 1 == *of) {
            choices.pop();
        }
        match choices.last_mut() {
            Some((chosen, _)) => *chosen += 1,
            None => return n_runs,
        }
    }
    unreachable!("the orders are finitely many")
}

const NOTHING: May = May { cancel: false, fail: false, keep: false };

#[test]
fn whatever_comes_last_a_request_ends_once() {
    let two = Setup::new(2, 1);
    let setups = [
        two.clone(),
        Setup { cached: false, ..Setup::new(3, 1) },
        // All is queued only when the last buffer comes home.
        Setup { n_buffers: 1, ..two.clone() },
        Setup { n_buffers: 2, credits: 1, ..two.clone() },
        Setup { folios: vec![(0..1, Destinations::CACHE), (3..4, Destinations::UPLOAD)], ..two },
    ];
    for setup in &setups {
        let n_runs = in_every_order(setup, May { keep: true, ..NOTHING }, |run| {
            run.bench.ended().unwrap_or_else(|error| panic!("{error} after {:?}", run.steps));
        });
        assert!(n_runs >= 10, "only {n_runs} orders of {setup:?}");
    }
}

#[test]
fn whatever_fails_or_is_cancelled_at_whatever_moment_a_request_ends_once() {
    let mut one = Setup::new(1, 2);
    one.retry.max_attempts = 2;
    let may = May { cancel: true, fail: true, keep: false };
    let n_runs = in_every_order(&one, may, |run| {
        let steps = run.steps.clone();
        let cancelled = steps.iter().any(|step| matches!(step, Step::Cancel));
        let clean = run.bench.released.iter().all(|(_, clean)| *clean);
        let uploaded = run.bench.stored[UPLOAD].len();
        match run.bench.ended() {
            Ok(()) => assert!(uploaded == 2 && clean, "{steps:?}"),
            Err(Error::Cancelled) => assert!(cancelled, "{steps:?}"),
            Err(_) => assert!(uploaded < 2 && !clean, "{steps:?}"),
        }
    });
    assert!(n_runs > 1000, "{n_runs} orders");
}

#[test]
fn a_request_with_nothing_to_do_is_done_at_once() {
    for cached in [true, false] {
        let bench = Bench::new(Setup { cached, ..Setup::new(0, 1) });
        assert!(bench.issued.is_empty() && bench.to_seal.is_empty());
        bench.ended().unwrap();
    }
}

#[test]
fn what_no_stream_wants_any_more_is_released_and_the_request_ends() {
    let for_the_cache: Vec<_> = (0..4).map(|n| (n..n + 1, Destinations::CACHE)).collect();
    let setup = Setup { folios: for_the_cache, ..Setup::new(0, 1) };
    Bench::new(Setup { cached: false, ..setup.clone() }).ended().unwrap();

    let mut bench = Bench::new(Setup { windows: [1, 2], n_buffers: 2, ..setup });
    bench.fail(0, fatal());
    assert_eq!(bench.streams_off, [CACHE]);
    assert!(bench.result.is_some(), "the cache has not answered all, and nobody waits for it");
    assert!(bench.cached.is_empty(), "what the cache has of it counts for nothing");
    bench.run(everything);
    bench.ended().unwrap();
}

/// The upload's only write has failed, two of the cache's are with it, and the issuer has no buffer.
fn paused(setup: Setup) -> Bench {
    let setup = Setup { n_buffers: 2, granted: [8, 1], ..setup };
    let mut bench = Bench::new(setup);
    bench.seal_all();
    assert_eq!(bench.issued, [(CACHE, 0..1), (UPLOAD, 0..2), (CACHE, 1..2)]);
    bench.fail(bench.write_of(UPLOAD).unwrap(), transient());
    bench
}

#[test]
fn nothing_leaves_between_a_failure_and_its_reissue_and_a_drained_stream_ends_the_pause() {
    let mut bench = paused(Setup::new(4, 1));
    assert_eq!(bench.issued.len(), 3);
    bench.wake();
    bench.pass(0);
    assert_eq!(bench.issued.len(), 3, "one is still with the cache");
    assert!(bench.to_seal.is_empty(), "the issuer is paused, too");
    bench.pass(0);
    assert_eq!(bench.issued[3], (UPLOAD, 0..2));
    bench.run(everything);
    bench.ended().unwrap();
}

#[test]
fn a_paused_issuer_takes_nothing_though_there_is_a_buffer() {
    let mut bench = Bench::new(Setup { cached: false, n_buffers: 3, ..Setup::new(6, 1) });
    bench.seal_all();
    bench.fail(2, transient());
    bench.pass(0);
    assert_eq!(bench.source.pool.n_free(), 1);
    bench.wake();
    assert!(bench.to_seal.is_empty() && bench.issued.len() == 3, "one is still with the server");
    bench.pass(0);
    assert_eq!(bench.issued[3], (UPLOAD, 2..3));
    bench.run(everything);
    bench.ended().unwrap();
}

#[test]
fn a_cache_that_never_answers_does_not_keep_an_upload_from_being_sent_again() {
    let cache_patience = Duration::from_secs(1);
    let mut bench = paused(Setup { cache_patience, ..Setup::new(4, 1) });
    bench.pass_time();
    assert_eq!(bench.streams_off, [CACHE]);
    assert_eq!(bench.issued[3], (UPLOAD, 0..2));
    let late: Vec<_> = (0..2).map(|_| bench.writes.remove(0)).collect();
    bench.run(everything);
    assert!(bench.result.is_none(), "its buffers are with the cache that does not answer");
    bench.writes = late;
    bench.run(everything);
    bench.ended().unwrap();
}

#[test]
fn a_request_that_is_cancelled_while_it_is_paused_ends_once() {
    // Draining: two are still with the cache.
    let mut bench = paused(Setup::new(4, 1));
    bench.hand(Event::Cancel);
    assert!(bench.result.is_none());
    bench.run(everything);
    assert!(matches!(bench.ended(), Err(Error::Cancelled)));

    // Backing off: nothing is under way but a timer.
    let mut bench = Bench::new(Setup::new(1, 1));
    bench.seal_all();
    bench.pass(bench.write_of(CACHE).unwrap());
    bench.fail(0, transient());
    bench.fail(0, transient());
    assert!(bench.writes.is_empty() && !bench.timers.is_empty());
    bench.hand(Event::Cancel);
    assert!(bench.result.is_some(), "there is nothing to wait for");
    bench.pass_time();
    assert!(matches!(bench.ended(), Err(Error::Cancelled)));
}

use std::sync::atomic::AtomicUsize;

use sealback_crypto::{
    Header,
    models::{Timeouts, explore},
};
use sealback_stream::{Cache, CacheFile, MemoryCache, MemoryOptions, MemoryServer};
use shuttle::thread;

use super::*;
use crate::{
    Engine, WriteKind,
    claims::Claims,
    engine::models::{Answers, BLOCK, File, end, start},
    origin::Subject,
    source::{Destinations, DirtyRun, FolioEnd, Next, PlainSlice, RunContent, Writeback},
};

/// Blocks 0, 2, 4, ...: each of them a run, a span and a folio by itself.
#[derive(Debug)]
struct Source {
    n_runs: u64,
    released: Mutex<Vec<u64>>,
}

impl FolioSource for Source {
    fn next_dirty(&self, from: u64, _max_blocks: u64, _waker: &Waker) -> Next {
        let block = from.next_multiple_of(2);
        if block >= 2 * self.n_runs {
            return Next::End;
        }
        let plain = PlainSlice::new(Arc::new(vec![1; BLOCK]), 0..BLOCK);
        Next::Run(DirtyRun {
            blocks: block..block + 1,
            content: RunContent::Plain(vec![plain]),
            destinations: Destinations::ALL,
            partial: Vec::new(),
            folios: vec![FolioEnd { folio: block, end: block + 1 }],
        })
    }

    fn end_writeback(&self, folio: u64, outcome: Writeback) {
        if matches!(outcome, Writeback::Clean) {
            self.released.lock().unwrap().push(folio);
        }
    }
}

/// A request, and what is counted of it.
struct Pass {
    driver: Arc<Driver>,
    source: Arc<Source>,
    n_ends: Arc<AtomicUsize>,
}

impl Pass {
    fn begin(
        engine: &Engine,
        n_runs: u64,
        (file, header): (Arc<File>, Header),
        cache: Option<Arc<dyn CacheFile>>,
    ) -> Pass {
        let source = Arc::new(Source { n_runs, released: Mutex::default() });
        let n_ends = Arc::new(AtomicUsize::new(0));
        let ends = n_ends.clone();
        let subject = Subject { kind: WriteKind::Sync, range: 0..0 };
        let origin = Origin { request: 1, file: 1, subject };
        let parts = Parts {
            teller: Teller::new(&origin, "file", [None, None]),
            source: source.clone(),
            content_key: header.content_key().clone(),
            seal_gen: header.view().seal_gen().unwrap(),
            targets: vec![Some(file), cache.clone().map(|cache| cache as Arc<dyn Target>)],
            cache: cache.map(|cache| Arc::<Claims>::default().claim(cache, Weak::new())),
            merge: Arc::new(|_| unreachable!("nobody else writes")),
            growth: None,
            on_done: Box::new(move |_| {
                ends.fetch_add(1, Ordering::Relaxed);
            }),
        };
        let core = engine.core();
        let driver = core.start(origin, parts);
        core.begin(&driver);
        Pass { driver, source, n_ends }
    }

    /// Waits for the end, and looks whether it was one.
    fn wait(&self) {
        self.driver.wait().result.unwrap();
        assert!(self.driver.ended().is_some());
        assert_eq!(self.n_ends.load(Ordering::Relaxed), 1);
        let released = self.source.released.lock().unwrap();
        let all: Vec<_> = (0..self.source.n_runs).map(|run| 2 * run).collect();
        assert_eq!(*released, all, "each clean, once, in order");
    }
}

/// One request to a server and a cache, and several who wait for it.
fn one_request(answers: Answers) {
    let engine = start();
    let (file, header) = File::create(MemoryOptions::default(), answers);
    let cache = MemoryCache::new(MemoryOptions::default());
    let copy = cache.open(header.file_id(), header.geometry()).unwrap();
    let pass = Arc::new(Pass::begin(&engine, 2, (file, header), Some(copy)));
    let waiters = [0, 1].map(|_| {
        let pass = pass.clone();
        thread::spawn(move || pass.wait())
    });
    pass.wait();
    waiters.into_iter().for_each(|thread| thread.join().unwrap());
    drop(pass);
    end(engine);
}

#[test]
fn a_request_whose_target_answers_inside_the_call_ends_once_and_all_who_wait_hear_of_it() {
    explore(Timeouts::Never, || one_request(Answers::Inside));
}

#[test]
fn a_request_whose_target_answers_on_other_threads_ends_once_and_all_who_wait_hear_of_it() {
    explore(Timeouts::Never, || one_request(Answers::Elsewhere));
}

#[test]
fn a_request_whose_target_is_immediate_ends_once_and_all_who_wait_hear_of_it() {
    explore(Timeouts::Never, || one_request(Answers::Immediately));
}

/// Trying again takes the timer.
#[test]
fn a_request_whose_completion_is_dropped_ends_once_and_all_who_wait_hear_of_it() {
    explore(Timeouts::AtAnyTime, || one_request(Answers::FirstDropped));
}

/// Two requests, three spans each, two buffers: whoever finds none is told of the next.
#[test]
fn a_request_that_waits_for_a_buffer_is_told_of_the_one_that_comes_home() {
    explore(Timeouts::Never, || {
        let engine = start();
        let passes = [0, 1].map(|_| {
            let file = File::create(MemoryOptions::default(), Answers::Elsewhere);
            Pass::begin(&engine, 3, file, None)
        });
        passes.iter().for_each(Pass::wait);
        drop(passes);
        assert_eq!(engine.stats().buffers_free, engine.stats().buffers);
        end(engine);
    });
}

/// One of three that wait for two buffers ends before it is told of one, or behind that.
#[test]
fn a_buffer_that_one_request_has_no_use_for_is_told_of_to_the_next() {
    explore(Timeouts::Never, || {
        let engine = start();
        let passes = [2, 3, 3].map(|n_runs| {
            let file = File::create(MemoryOptions::default(), Answers::Elsewhere);
            Pass::begin(&engine, n_runs, file, None)
        });
        passes[1].driver.post(Event::Cancel);
        passes[0].wait();
        passes[1].driver.wait();
        passes[2].wait();
        drop(passes);
        assert_eq!(engine.stats().buffers_free, engine.stats().buffers);
        end(engine);
    });
}

/// Two requests on one server with one credit.
#[test]
fn a_request_that_waits_for_a_credit_is_told_of_the_one_that_comes_back() {
    explore(Timeouts::Never, || {
        let engine = start();
        let server = MemoryServer::new(MemoryOptions::default().with_credits(1));
        let passes = ["a", "b"].map(|name| {
            let file = File::create_on(&server, name, Answers::Elsewhere);
            Pass::begin(&engine, 2, file, None)
        });
        passes.iter().for_each(Pass::wait);
        drop(passes);
        end(engine);
        assert_eq!(server.credits_out(), 0);
    });
}

/// Events go on coming while the request ends, and after.
#[test]
fn events_that_come_with_the_end_or_after_it_change_nothing() {
    explore(Timeouts::Never, || {
        let engine = start();
        let file = File::create(MemoryOptions::default(), Answers::Elsewhere);
        let pass = Pass::begin(&engine, 1, file, None);
        let posters = [0, 1].map(|_| {
            let driver = pass.driver.clone();
            thread::spawn(move || (0..3).for_each(|_| driver.post(Event::Wake)))
        });
        pass.wait();
        posters.into_iter().for_each(|thread| thread.join().unwrap());
        pass.driver.post(Event::Wake);
        let is_at_rest = || {
            let inbox = pass.driver.inbox();
            !inbox.is_driven && inbox.events.is_empty()
        };
        // Somebody may be driving; an event that is lost stays for ever.
        while !is_at_rest() {
            thread::yield_now();
        }
        assert!(pass.driver.state().parts.is_none());
        pass.wait();
        drop(pass);
        end(engine);
    });
}

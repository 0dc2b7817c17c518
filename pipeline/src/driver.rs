//! Drives one request with real threads: whoever brings an event carries it through.
//!
//! Events are put into an inbox. Whoever finds that nobody drives does: it takes the lock that nobody
//! else wants, hands the events to the request and carries its actions out, until the inbox is empty.
//! So no event waits for a thread to be woken, no lock is held for long that others want, and an event
//! that comes from inside (a target that answers at once) is only put there.

use std::{
    fmt,
    task::{Wake, Waker},
    time::Duration,
};

use sealback_crypto::{ContentKey, Geometry};
use sealback_stream::{CompletionSink, Failure, Target, Ticket};

use crate::{
    Error, RequestStats,
    buffers::SealedBuffers,
    caller::Caller,
    claims::Claim,
    engine::{CACHE, Core, UPLOAD},
    growth::Growth,
    io::Job,
    open_file::OpenFile,
    origin::Origin,
    request::{Action, Event, Request, RequestState, RequestView},
    rmw::{Merge, Merged},
    source::FolioSource,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    trace::Teller,
    waits::{WaitFor, Waiting},
};

mod actions;
mod host;

use self::host::DriverHost;

/// Merges a block that met somebody else's change.
pub(crate) type RunMerge = Arc<dyn Fn(&Merge) -> Result<Merged, Error> + Send + Sync>;

/// What one request works with.
pub(crate) struct Parts {
    pub(crate) source: Arc<dyn FolioSource>,
    pub(crate) content_key: ContentKey,
    pub(crate) seal_gen: u32,
    /// One for each stream; none where the stream is off.
    pub(crate) targets: Vec<Option<Arc<dyn Target>>>,
    pub(crate) cache: Option<Claim>,
    /// Tells what happens.
    pub(crate) teller: Teller,
    /// Merges a block that met somebody else's change. May block.
    pub(crate) merge: RunMerge,
    /// Where the pass grows the file: left before the request counts as ended.
    pub(crate) growth: Option<(Growth, Arc<OpenFile>)>,
    /// Called once when the request has ended, before anyone who waits for it goes on.
    pub(crate) on_done: Box<dyn FnOnce(&Ending) + Send>,
}

/// How a request ended.
#[derive(Clone, Debug)]
pub(crate) struct Ending {
    pub(crate) result: Result<(), Error>,
    /// The cache's stream was switched off.
    pub(crate) cache_failed: bool,
    /// A header was committed for all that it wrote, and for what was on the server before.
    pub(crate) committed: bool,
    /// One for all who are told.
    pub(crate) stats: Arc<RequestStats>,
}

/// A request under way.
pub(crate) struct Driver {
    me: Weak<Driver>,
    core: Arc<Core>,
    origin: Origin,
    /// When it was set up, on the engine's clock.
    began: Duration,
    state: Mutex<State>,
    inbox: Mutex<Inbox>,
    /// Always the same, so that who keeps it can tell that he has it already: otherwise each wake
    /// would leave more of them behind than it took.
    waker: Waker,
    geometry: Geometry,
    /// Whether it is in the queue for a buffer.
    pub(crate) queued_for_buffer: AtomicBool,
    /// Stored bytes that the server has acknowledged.
    acknowledged: AtomicU64,
    /// Nothing of it is being sealed, or is with a target.
    at_rest: AtomicBool,
    /// Who waits for the end, and how it ended.
    pub(crate) caller: Caller,
    /// Who is to be told of the end.
    watchers: Mutex<Vec<Watcher>>,
}

/// Is told of a request's end.
pub(crate) type Watcher = Box<dyn FnOnce(Ending) + Send>;

/// What has come and was not handed to the request yet.
#[derive(Default)]
struct Inbox {
    events: Vec<Event>,
    /// Somebody looks into it until it is empty.
    is_driven: bool,
}

pub(crate) struct State {
    request: Request,
    /// Whether the writes to the server that are under way are the caller's to carry out.
    caller_writes: bool,
    actions: Vec<Action>,
    /// Let go when the request has ended, so that nothing holds on to the file.
    parts: Option<Parts>,
    cache_failed: bool,
    random: fastrand::Rng,
}

impl State {
    /// Where the request stands.
    pub(crate) fn view(&self) -> RequestView {
        let mut view = self.request.view();
        let grows = self.parts.as_ref().is_some_and(|parts| parts.growth.is_some());
        if grows && matches!(view.state, RequestState::NotBegun) {
            view.state = RequestState::SizeLock;
        }
        view
    }
}

impl Driver {
    pub(crate) fn new(
        core: Arc<Core>,
        origin: Origin,
        request: Request,
        parts: Parts,
    ) -> Arc<Driver> {
        let random = fastrand::Rng::new();
        let geometry = parts.content_key.geometry();
        let (actions, parts) = (Vec::new(), Some(parts));
        Arc::new_cyclic(|me| Driver {
            me: me.clone(),
            waker: Waker::from(Arc::new(EventWaker(me.clone()))),
            origin,
            began: core.now(),
            core,
            state: Mutex::new(State {
                request,
                caller_writes: false,
                actions,
                parts,
                cache_failed: false,
                random,
            }),
            inbox: Mutex::default(),
            geometry,
            queued_for_buffer: AtomicBool::new(false),
            acknowledged: AtomicU64::new(0),
            at_rest: AtomicBool::new(true),
            caller: Caller::default(),
            watchers: Mutex::default(),
        })
    }

    /// Takes an event, and carries it through unless somebody is at it.
    pub(crate) fn post(self: &Arc<Self>, event: Event) {
        let mut inbox = self.inbox();
        inbox.events.push(event);
        let is_driven = std::mem::replace(&mut inbox.is_driven, true);
        drop(inbox);
        if !is_driven {
            self.drive();
        }
    }

    fn drive(self: &Arc<Self>) {
        let mut events = Vec::new();
        while self.take_events(&mut events) {
            let woken = events.iter().any(|event| matches!(event, Event::Wake));
            let mut state = self.state();
            for event in events.drain(..) {
                self.handle(&mut state, event);
            }
            let ending = self.act(&mut state);
            drop(state);
            if woken {
                // It may have been told of a buffer that it has no use for.
                self.buffers().tell_next_of_free();
            }
            if let Some((parts, ending)) = ending {
                self.end(parts, ending);
            }
        }
    }

    /// Takes what has come, in exchange for an empty list; if nothing has, nobody drives any more.
    fn take_events(&self, into: &mut Vec<Event>) -> bool {
        let mut inbox = self.inbox();
        inbox.is_driven = !inbox.events.is_empty();
        std::mem::swap(&mut inbox.events, into);
        inbox.is_driven
    }

    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("a request's state machine does not panic")
    }

    fn handle(self: &Arc<Self>, state: &mut State, event: Event) {
        let State { request, parts, random, .. } = state;
        if let Some(parts) = parts {
            let now = self.core.now();
            let mut host = DriverHost { driver: self, parts, now, random };
            request.handle(event, now, &mut host);
            let acknowledged = request.stats().streams[UPLOAD].bytes;
            self.acknowledged.store(acknowledged, Ordering::Relaxed);
            self.at_rest.store(request.is_at_rest(), Ordering::Relaxed);
        } else if let Event::Terminated { ticket, outcome } = event {
            request.answered_late(ticket, outcome);
        }
    }

    /// Lets the file go on, then those who wait. Where the cache's thread still has records to
    /// set, that is for the thread to do, behind them. What may wait for the server is not for the thread
    /// that drives.
    fn end(self: &Arc<Self>, parts: Parts, mut ending: Ending) {
        // Before it is no longer under way: it is never in neither list.
        let finishing = self.core.finishing(self.origin.request, self.origin.file);
        self.core.ended(self, &ending.stats);
        let driver = self.clone();
        let core = self.core.clone();
        let Parts { targets, growth, on_done, source, merge, teller, .. } = parts;
        let confirming = targets[CACHE].as_ref().is_some_and(|cache| !cache.is_immediate());
        let may_wait = growth.as_ref().is_some_and(|(_, file)| !file.is_left_at_once());
        // When those who wait go on, nothing here holds on to the file: who closes it and opens it
        // again finds it on the server.
        drop((source, merge));
        let finish = move || {
            teller.within(|| {
                if let Some((growth, file)) = growth {
                    growth.leave(&file, &mut ending);
                }
                on_done(&ending);
            });
            teller.end(&ending.result);
            let took = driver.core.now().saturating_sub(driver.began);
            driver.core.totals().request_latency.record(took);
            drop(finishing);
            driver.caller.end(ending.clone());
            let watchers = std::mem::take(&mut *driver.watchers());
            for watcher in watchers {
                // A client's callback may panic, or call the engine, which needs this thread.
                let ending = ending.clone();
                driver.core.calls.run(move || watcher(ending));
            }
        };
        let confirming = confirming && !self.core.io.is_stuck(CACHE);
        let caller = self.clone();
        let then = move || {
            if !may_wait {
                finish();
            } else if let Err(finish) = caller.caller.offer(finish) {
                core.io.control(finish);
            }
        };
        if confirming {
            self.core.io.send(CACHE, Job::Run(Box::new(then)));
        } else {
            then();
        }
    }

    /// Waits for the end.
    pub(crate) fn wait(&self) -> Ending {
        let what = WaitFor::Request(self.origin.request);
        let _waiting = self.core.waiting(what, Some(self.origin.file));
        self.caller.wait()
    }

    /// Somebody waits for his turn, as long as what is returned is there.
    pub(crate) fn has_its_turn(&self) -> Waiting {
        self.core.waiting(WaitFor::Turn(self.origin.request), Some(self.origin.file))
    }

    /// What it is of.
    pub(crate) fn origin(&self) -> &Origin {
        &self.origin
    }

    /// When it was set up, on the engine's clock.
    pub(crate) fn began(&self) -> Duration {
        self.began
    }

    /// Its state, to be looked at by who does not block.
    pub(crate) fn state_mutex(&self) -> &Mutex<State> {
        &self.state
    }

    fn watchers(&self) -> MutexGuard<'_, Vec<Watcher>> {
        self.watchers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells `watcher` of the end, when it comes, or now.
    pub(crate) fn on_end(&self, watcher: Watcher) {
        let mut watchers = self.watchers();
        // The end is noted before the watchers are taken.
        match self.ended() {
            Some(ending) => {
                drop(watchers);
                watcher(ending);
            }
            None => watchers.push(watcher),
        }
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&self) -> Option<Ending> {
        self.caller.ended()
    }

    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Whether nothing of it was being sealed, or with a target, when it was driven last.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.at_rest.load(Ordering::Relaxed)
    }

    /// The buffers that its spans are sealed into.
    fn buffers(&self) -> &SealedBuffers {
        self.core.buffers_for(self.geometry)
    }

    /// Goes on, on another thread: this one may be in the middle of another request.
    pub(crate) fn wake_elsewhere(self: Arc<Self>) {
        let core = self.core.clone();
        let bytes = core.config.span_bytes as u64;
        core.workers.wake(bytes, move || self.post(Event::Wake));
    }
}

impl CompletionSink for Driver {
    fn terminated(&self, ticket: Ticket, outcome: Result<u64, Failure>) {
        self.core.io.heard(ticket.stream);
        let driver = self.me.upgrade().expect("a completion holds its driver");
        driver.post(Event::Terminated { ticket, outcome });
    }
}

/// Posts an event for a target that has credit again, or a source that knows more.
struct EventWaker(Weak<Driver>);

impl Wake for EventWaker {
    fn wake(self: Arc<Self>) {
        if let Some(driver) = self.0.upgrade() {
            driver.post(Event::Wake);
        }
    }
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver").field("ending", &self.ended()).finish_non_exhaustive()
    }
}

fn source_panicked() -> Error {
    Error::Source("a source of folios panicked")
}

#[cfg(shuttle)]
#[cfg(test)]
mod models;

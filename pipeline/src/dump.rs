//! Who waits for whom: every request under way and every thread that waits, at one moment.
//!
//! [`Engine::dump`] is for when nothing seems to go on: like the kernel's `/proc/fs/netfs/requests` and
//! its sysrq keys. It may be called from any thread at any time, from an observer or a target, too. It
//! never waits for a request: one that is held up by whoever carries it on is said to be busy. It is
//! bounded in what it lists, and in the time that it tries. No part of it holds plaintext or a key.
//!
//! ```
//! # use sealback::{Config, Engine};
//! let engine = Engine::new(Config::default())?;
//! // … when a call has not returned for a minute:
//! eprintln!("{}", engine.dump());
//! # Ok::<(), sealback::Error>(())
//! ```

use std::{
    collections::HashMap,
    ops::Range,
    time::{Duration, Instant},
};

use crate::{
    Engine, WriteKind,
    driver::Driver,
    engine::Core,
    request::{RequestState, RequestView},
    sync::{Arc, Mutex, MutexGuard, Weak, thread},
    waits::{Entry, What},
};

pub use crate::waits::WaitFor;

mod display;

/// What an engine does, and who waits for what.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Dump {
    /// When: since the engine's start, the clock of all times in here.
    pub at: Duration,
    /// Requests under way, and those that finish; the first of them began first.
    pub requests: Vec<RequestDump>,
    /// Threads that wait. One that waits for several things, one within the other, is there with each.
    pub waits: Vec<WaitDump>,
    /// Requests and waits that did not fit.
    pub n_omitted: usize,
    /// Lists that somebody held all the time that they were tried for: what they have is not here.
    pub busy: Vec<&'static str>,
    /// Sealed buffers that are out, and how many there are.
    pub buffers: (usize, usize),
    /// Folios that have memory, and how many may have.
    pub folios: (usize, usize),
    /// Jobs that wait for one of the engine's I/O threads, by the threads' name.
    pub queues: Vec<(&'static str, usize)>,
}

/// A request under way.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RequestDump {
    /// Its number among the requests of the engine.
    pub request: u64,
    /// Its file.
    pub file: FileDump,
    /// What kind of write it is, and the positions that it may write; not known of one that finishes.
    pub subject: Option<(WriteKind, Range<u64>)>,
    /// Since when it has been under way, or has finished.
    pub since: Duration,
    /// Where it stands. Of one that is busy, or finishes, there is nothing but the state.
    pub view: RequestView,
}

/// A file that something is about.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileDump {
    /// Its number among the files of the engine.
    pub number: u64,
    /// Its name, if it is still open, and could be asked.
    pub name: Option<String>,
}

/// A thread that waits.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct WaitDump {
    /// The thread's name, or its number.
    pub thread: String,
    /// What it waits for.
    pub what: WaitFor,
    /// The file that this is about, if it is one.
    pub file: Option<FileDump>,
    /// Since when.
    pub since: Duration,
}

/// Requests, and waits, that are listed at most.
const MAX_LISTED: usize = 256;
/// How long it tries for all locks together that others hold.
const PATIENCE: Duration = Duration::from_millis(20);
const TRY_AGAIN_AFTER: Duration = Duration::from_micros(50);

/// Looks into what others may hold, and does not wait for long.
struct Glance {
    until: Instant,
    busy: Vec<&'static str>,
}

impl Glance {
    fn lock<'a, T>(&self, mutex: &'a Mutex<T>) -> Option<MutexGuard<'a, T>> {
        loop {
            if let Ok(guard) = mutex.try_lock() {
                return Some(guard);
            }
            if Instant::now() >= self.until {
                return None;
            }
            thread::sleep(TRY_AGAIN_AFTER);
        }
    }

    /// A part of what a mutex holds; nothing of it, said so, if it cannot be had.
    fn take<T, R: Default>(
        &mut self,
        name: &'static str,
        mutex: &Mutex<T>,
        part: impl FnOnce(&T) -> R,
    ) -> R {
        if let Some(guard) = self.lock(mutex) {
            return part(&guard);
        }
        self.busy.push(name);
        R::default()
    }
}

impl Engine {
    /// Says of each request under way, and of each thread that waits, what it waits for: see
    /// [`dump`](crate::dump).
    pub fn dump(&self) -> Dump {
        self.core().dump()
    }
}

impl Core {
    fn dump(&self) -> Dump {
        let mut glance = Glance { until: Instant::now() + PATIENCE, busy: Vec::new() };
        let first = |all: &Vec<_>| (all.iter().take(MAX_LISTED).cloned().collect(), all.len());
        let (drivers, n_drivers): (Vec<Arc<Driver>>, usize) =
            glance.take("the list of requests", self.active_mutex(), first);
        let (entries, n_entries): (Vec<Entry>, usize) =
            glance.take("the list of who waits", self.waits.mutex(), |list| {
                let entries = list.entries.iter().take(MAX_LISTED).cloned();
                (entries.collect(), list.entries.len())
            });
        let numbers = drivers.iter().map(|driver| driver.origin().file);
        let numbers = numbers.chain(entries.iter().filter_map(|entry| entry.file));
        let names = self.names(numbers, &mut glance);
        let of = |number| FileDump { number, name: names.get(&number).cloned() };
        let mut requests: Vec<_> = drivers
            .iter()
            .map(|driver| {
                let view = glance.lock(driver.state_mutex()).map(|state| state.view());
                let origin = driver.origin();
                RequestDump {
                    request: origin.request,
                    file: of(origin.file),
                    subject: Some((origin.subject.kind, origin.subject.range.clone())),
                    since: driver.began(),
                    view: view.unwrap_or_else(|| RequestView::without(RequestState::Busy)),
                }
            })
            .collect();
        let mut waits = Vec::new();
        for Entry { what, file, since, .. } in entries {
            match (what, file) {
                (What::Finishing { request }, Some(file)) => requests.push(RequestDump {
                    request,
                    file: of(file),
                    subject: None,
                    since,
                    view: RequestView::without(RequestState::Finishing),
                }),
                (What::Finishing { .. }, None) => unreachable!("a request has a file"),
                (What::Waiting { thread, what }, file) => {
                    let named = thread.name().map(str::to_owned);
                    let thread = named.unwrap_or_else(|| format!("{:?}", thread.id()));
                    waits.push(WaitDump { thread, what, file: file.map(of), since });
                }
            }
        }
        requests.sort_by_key(|request| request.request);
        waits.sort_by_key(|wait| wait.since);
        let (buffers_free, buffers) = self.count_buffers();
        Dump {
            at: self.now(),
            requests,
            waits,
            n_omitted: n_drivers.saturating_sub(MAX_LISTED) + n_entries.saturating_sub(MAX_LISTED),
            busy: glance.busy,
            buffers: (buffers - buffers_free, buffers),
            folios: (self.folios.n_out(), self.folios.max()),
            queues: self.io.queued(),
        }
    }

    /// The names of files, by number.
    fn names(
        &self,
        numbers: impl Iterator<Item = u64>,
        glance: &mut Glance,
    ) -> HashMap<u64, String> {
        // What is let go of last of a file may need this very list: not with it held.
        let open: Vec<_> = glance.take("the list of files", self.files_mutex(), |files| {
            numbers
                .filter_map(|number| files.by_number.get(&number).and_then(Weak::upgrade))
                .collect()
        });
        open.iter().map(|file| (file.number(), file.name().to_owned())).collect()
    }
}

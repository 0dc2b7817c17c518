//! Who waits now, and for what: a list that a dump can read at any time.
//!
//! Whoever may wait for long enters himself before and leaves after: a lock that nobody holds for
//! longer than that takes, and no allocation in steady state.

use std::{fmt, thread::Thread, time::Duration};

use crate::{
    engine::Core,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// What somebody waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WaitFor {
    /// That nobody else reads or writes the file's blocks: to cut it, or to punch it.
    Alone,
    /// The server, to make durable what was written.
    Barrier,
    /// The server, to take a header.
    Commit,
    /// The server, to cut the stored file.
    Cut,
    /// Blocks that another reader is fetching.
    Fetched,
    /// The server, to make holes.
    Holes,
    /// Memory for folios, or that less is dirty.
    Memory,
    /// A target, to read blocks.
    Read,
    /// The end of a request.
    Request(u64),
    /// The file's sizes, which somebody is changing.
    Sizes,
    /// The server's lock on the size.
    SizeLock,
    /// Everything that a sync takes.
    Sync,
    /// Syncs of all files, of a shutdown or not.
    SyncAll,
    /// That a request of the same file ends, or gives way.
    Turn(u64),
}

impl fmt::Display for WaitFor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self {
            WaitFor::Alone => "to have the file alone",
            WaitFor::Barrier => "for a barrier",
            WaitFor::Commit => "for a header's commit",
            WaitFor::Cut => "for a cut",
            WaitFor::Fetched => "for blocks that another reader is fetching",
            WaitFor::Holes => "for holes",
            WaitFor::Memory => "for memory",
            WaitFor::Read => "for blocks to be read",
            WaitFor::Request(request) => return write!(f, "for the end of request {request}"),
            WaitFor::Sizes => "for the file's sizes",
            WaitFor::SizeLock => "for the server's lock on the size",
            WaitFor::Sync => "for a sync",
            WaitFor::SyncAll => "for syncs of all files",
            WaitFor::Turn(request) => return write!(f, "for its turn behind request {request}"),
        };
        f.write_str(what)
    }
}

/// Everybody who waits.
#[derive(Debug, Default)]
pub(crate) struct Waits {
    list: Mutex<List>,
}

#[derive(Debug, Default)]
pub(crate) struct List {
    last_number: u64,
    pub(crate) entries: Vec<Entry>,
}

/// One who waits.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    number: u64,
    pub(crate) what: What,
    /// The file's number.
    pub(crate) file: Option<u64>,
    pub(crate) since: Duration,
}

/// What an entry is about.
#[derive(Clone, Debug)]
pub(crate) enum What {
    /// A request that has ended, and of which those who wait for it have not heard yet.
    Finishing { request: u64 },
    /// A thread.
    Waiting { thread: Thread, what: WaitFor },
}

/// Is in the list as long as this is there.
#[derive(Debug)]
pub(crate) struct Waiting {
    waits: Arc<Waits>,
    number: u64,
}

impl Waits {
    /// The list, to be looked at by who does not block.
    pub(crate) fn mutex(&self) -> &Mutex<List> {
        &self.list
    }

    fn list(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(self: &Arc<Self>, what: What, file: Option<u64>, since: Duration) -> Waiting {
        let mut list = self.list();
        list.last_number += 1;
        let number = list.last_number;
        list.entries.push(Entry { number, what, file, since });
        Waiting { waits: self.clone(), number }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut list = self.waits.list();
        // Most leave soon: the last ones are looked at first.
        if let Some(at) = list.entries.iter().rposition(|entry| entry.number == self.number) {
            list.entries.swap_remove(at);
        }
    }
}

impl Core {
    /// This thread waits, as long as what is returned is there.
    pub(crate) fn waiting(&self, what: WaitFor, file: Option<u64>) -> Waiting {
        let what = What::Waiting { thread: std::thread::current(), what };
        self.waits.enter(what, file, self.now())
    }

    /// A request has ended, and finishes, as long as what is returned is there.
    pub(crate) fn finishing(&self, request: u64, file: u64) -> Waiting {
        self.waits.enter(What::Finishing { request }, Some(file), self.now())
    }
}

//! Targets that make trouble, for the tests of whoever links this crate (feature `faulty`).
//!
//! [`FaultyServer`] and [`FaultyCache`] wrap any server and cache. What goes wrong is said by
//! [`Faults`]: drawn from a seed, or by rules ("the third write, once"). The wrapped target keeps
//! its contract whatever goes wrong: each operation is answered once, or not at all until
//! [`Faults::release`].
//!
//! [`DiskServer`] is a server on a simulated disk that can be stopped anywhere: by a kill, or a power cut.
//!
//! ```
//! use sealback_stream::faulty::{Fault, Faults, FaultyServer, Operation, Rule, When};
//! use sealback_stream::{Failure, MemoryOptions, MemoryServer, TargetError, TargetErrorKind};
//!
//! let busy = Failure::Retry(TargetError::new(TargetErrorKind::Io, "the line is busy"));
//! let faults = Faults::scripted([
//!     Rule { operation: Operation::Write, when: When::Once(3), fault: Fault::Fail(busy) },
//!     Rule { operation: Operation::Write, when: When::From(5), fault: Fault::Short(5000) },
//! ]);
//! let server = FaultyServer::new(MemoryServer::new(MemoryOptions::default()), &faults);
//! // … write through `server`, then see that it went wrong as often as it should:
//! assert_eq!(faults.injected(Operation::Write), 0);
//! # drop(server);
//! ```

use std::{
    fmt,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use fastrand::Rng;

use crate::{Failure, TargetError, TargetErrorKind};

mod disk;
mod disk_server;
mod later;
#[cfg(feature = "object-store")]
mod store;
mod target;
#[cfg(test)]
mod tests;

pub use disk::Crash;
#[cfg(test)]
pub(crate) use disk::{Disk, DiskBytes};
#[cfg(test)]
pub(crate) use disk_server::Alone;
pub use disk_server::DiskServer;
use later::Later;
#[cfg(feature = "object-store")]
pub use store::{HookedStore, StoreFault, StoreHook, StoreRequest};
pub use target::{FaultyCache, FaultyServer};

/// What can go wrong with an operation.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Fault {
    /// The answer comes after so long, from another thread.
    Delay(Duration),
    /// Nothing is done, and the completion is dropped unused.
    Drop,
    /// The answer comes from another thread at once, not from inside the call.
    Elsewhere,
    /// Nothing is done, and this is the answer. Operations that know no [`Failure`] answer with the
    /// error in it, or with a conflict.
    Fail(Failure),
    /// A grant is for blocks that may lie apart, whatever the target's own says.
    Gaps,
    /// It is done, and its answer does not come until [`Faults::release`].
    Hold,
    /// Whoever was set with [`Faults::set_meddler`] is called first, with the blocks: another client
    /// who changes them. Then it is done.
    Meddle,
    /// There is no credit now; the waker is woken shortly after, from another thread.
    NoCredit,
    /// Nothing is done: the call panics.
    Panic,
    /// The answer comes after that of the next operation, or shortly, if there is none.
    Reorder,
    /// A write goes through up to so many bytes, whole blocks of it, and answers so many; a read
    /// answers so many bytes at most, or its first block; a grant is for so many at most.
    Short(u64),
    /// It is done, and the answer is that nobody knows: an error of this kind.
    Unknown(TargetErrorKind),
}

/// Operations that are counted apart from one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Operation {
    /// Waiting for durability.
    Barrier,
    /// Setting a cache's record.
    Confirm,
    /// Cutting the stored file.
    Cut,
    /// Clearing a cache's record, of some blocks or all.
    Forget,
    /// Writing a slot of the header, or keeping a copy of it.
    Header,
    /// Opening or creating a file or a copy.
    Open,
    /// Asking for a grant.
    Prepare,
    /// Reading blocks.
    Read,
    /// Writing blocks.
    Write,
}

const N_OPERATIONS: usize = Operation::Write as usize + 1;

/// Which operations of a kind a rule is for, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Each whose number is a multiple of this.
    Every(u64),
    /// This one and all after it.
    From(u64),
    /// This one.
    Once(u64),
}

impl When {
    fn is_now(self, number: u64) -> bool {
        match self {
            When::Every(step) => step > 0 && number.is_multiple_of(step),
            When::From(first) => number >= first,
            When::Once(one) => number == one,
        }
    }
}

/// What goes wrong, and when.
#[derive(Clone, Debug)]
pub struct Rule {
    /// With which operations.
    pub operation: Operation,
    /// With which of them.
    pub when: When,
    /// How.
    pub fault: Fault,
}

/// Chances in a thousand of what goes wrong, for each operation that it fits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// [`Failure::Retry`], and a transient error of what is no write.
    pub retry: u32,
    /// [`Failure::Renegotiate`].
    pub renegotiate: u32,
    /// [`Failure::Fatal`].
    pub fatal: u32,
    /// Writes and reads that go through in part, grants that are small.
    pub short: u32,
    /// What is done and answered as a failure.
    pub unknown: u32,
    /// Completions dropped.
    pub dropped: u32,
    /// Answers from another thread: at once, late, or after the next one's.
    pub elsewhere: u32,
    /// Grants refused for want of credit.
    pub no_credit: u32,
    /// Blocks that somebody else changes first.
    pub meddle: u32,
    /// Grants for blocks that may lie apart.
    pub gaps: u32,
}

/// What goes wrong with the targets that were made with it. Clones are the same.
#[derive(Clone)]
pub struct Faults(Arc<Shared>);

struct Shared {
    plan: Mutex<Plan>,
    later: Later,
}

/// Another client, who changes blocks.
type Meddler = Arc<dyn Fn(Range<u64>) + Send + Sync>;

struct Plan {
    source: Source,
    /// Operations so far, and those that something went wrong with.
    counts: [(u64, u64); N_OPERATIONS],
    meddler: Option<Meddler>,
    stopped: bool,
}

enum Source {
    Rules(Vec<Rule>),
    Seed(Rng, Rates),
}

impl Faults {
    fn new(source: Source) -> Faults {
        let counts = [(0, 0); N_OPERATIONS];
        let plan = Plan { source, counts, meddler: None, stopped: false };
        Faults(Arc::new(Shared { plan: Mutex::new(plan), later: Later::default() }))
    }

    /// Nothing goes wrong.
    pub fn none() -> Faults {
        Faults::scripted([])
    }

    /// The first rule that is for an operation says what goes wrong with it.
    ///
    /// # Panics
    /// If a fault does not fit the operation that it is for: it would never be met.
    pub fn scripted(rules: impl IntoIterator<Item = Rule>) -> Faults {
        let rules: Vec<Rule> = rules.into_iter().collect();
        for Rule { operation, fault, .. } in &rules {
            assert!(fits(fault, *operation), "{fault:?} does not fit {operation:?}");
        }
        Faults::new(Source::Rules(rules))
    }

    /// What goes wrong is drawn, with these chances. The same seed draws the same for operations that
    /// come in the same order.
    pub fn seeded(seed: u64, rates: Rates) -> Faults {
        Faults::new(Source::Seed(Rng::with_seed(seed), rates))
    }

    /// Who is called by [`Fault::Meddle`]. It must not use the target it is called from.
    pub fn set_meddler(&self, meddler: impl Fn(Range<u64>) + Send + Sync + 'static) {
        self.plan().meddler = Some(Arc::new(meddler));
    }

    /// From now on nothing goes wrong; what is held stays so.
    pub fn stop(&self) {
        self.plan().stopped = true;
    }

    /// Things go wrong again.
    pub fn resume(&self) {
        self.plan().stopped = false;
    }

    /// Answers everything that is held.
    pub fn release(&self) {
        self.0.later.release();
    }

    /// How many operations there were.
    pub fn operations(&self, operation: Operation) -> u64 {
        self.plan().counts[operation as usize].0
    }

    /// With how many of them something went wrong.
    pub fn injected(&self, operation: Operation) -> u64 {
        self.plan().counts[operation as usize].1
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.0.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What goes wrong with the next operation of a kind.
    fn next(&self, operation: Operation) -> Option<Fault> {
        let mut plan = self.plan();
        let Plan { source, counts, stopped, .. } = &mut *plan;
        let (number, injected) = &mut counts[operation as usize];
        *number += 1;
        if *stopped {
            return None;
        }
        let fault = match source {
            Source::Rules(rules) => rules
                .iter()
                .find(|rule| rule.operation == operation && rule.when.is_now(*number))
                .map(|rule| rule.fault.clone()),
            Source::Seed(rng, rates) => draw(rng, rates).filter(|fault| fits(fault, operation)),
        };
        *injected += u64::from(fault.is_some());
        fault
    }

    fn meddle(&self, blocks: Range<u64>) {
        // It may come back here through another target: not with the plan locked.
        let meddler = self.plan().meddler.clone();
        if let Some(meddler) = meddler {
            meddler(blocks);
        }
    }

    /// What an operation that only answers well or with an error does.
    fn control<T>(
        &self,
        operation: Operation,
        run: impl FnOnce() -> Result<T, TargetError>,
    ) -> Result<T, TargetError> {
        match self.next(operation) {
            Some(Fault::Fail(failure)) => Err(error_of(failure)),
            Some(Fault::Unknown(kind)) => run().and(Err(unknown(kind))),
            _ => run(),
        }
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faults").field("counts", &self.plan().counts).finish_non_exhaustive()
    }
}

/// Whether a fault can be met by an operation.
fn fits(fault: &Fault, operation: Operation) -> bool {
    let blocks = matches!(operation, Operation::Read | Operation::Write);
    match fault {
        Fault::Delay(_) | Fault::Drop | Fault::Elsewhere | Fault::Hold | Fault::Reorder => blocks,
        Fault::Fail(_) => operation != Operation::Prepare,
        Fault::Meddle => operation == Operation::Write,
        Fault::Gaps | Fault::NoCredit => operation == Operation::Prepare,
        Fault::Panic | Fault::Short(_) => blocks || operation == Operation::Prepare,
        Fault::Unknown(_) => !matches!(operation, Operation::Prepare | Operation::Read),
    }
}

fn draw(rng: &mut Rng, rates: &Rates) -> Option<Fault> {
    let error = || TargetError::new(TargetErrorKind::Io, "injected");
    type Make<'a> = &'a dyn Fn(&mut Rng) -> Fault;
    let faults: [(u32, Make<'_>); 10] = [
        (rates.retry, &|_| Fault::Fail(Failure::Retry(error()))),
        (rates.renegotiate, &|_| Fault::Fail(Failure::Renegotiate(error()))),
        (rates.fatal, &|_| {
            let full = TargetError::new(TargetErrorKind::NoSpace, "injected");
            Fault::Fail(Failure::Fatal(full))
        }),
        (rates.short, &|rng| Fault::Short(rng.u64(..100_000))),
        (rates.unknown, &|_| Fault::Unknown(TargetErrorKind::TimedOut)),
        (rates.dropped, &|_| Fault::Drop),
        (rates.elsewhere, &|rng| match rng.u32(..3) {
            0 => Fault::Elsewhere,
            1 => Fault::Reorder,
            _ => Fault::Delay(Duration::from_micros(rng.u64(..2000))),
        }),
        (rates.no_credit, &|_| Fault::NoCredit),
        (rates.meddle, &|_| Fault::Meddle),
        (rates.gaps, &|_| Fault::Gaps),
    ];
    let mut drawn = rng.u32(..1000);
    for (rate, fault) in faults {
        if drawn < rate {
            return Some(fault(rng));
        }
        drawn -= rate;
    }
    None
}

fn unknown(kind: TargetErrorKind) -> TargetError {
    TargetError::new(kind, "injected: it was done")
}

/// A failure, for operations that know errors only.
fn error_of(failure: Failure) -> TargetError {
    match failure {
        Failure::Conflict(_) => TargetError::new(TargetErrorKind::Conflict, "injected"),
        Failure::Fatal(error) | Failure::Renegotiate(error) | Failure::Retry(error) => error,
    }
}

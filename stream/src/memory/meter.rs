//! What a memory server or cache grants, and what it counts.

use std::task::Waker;

use crate::{
    Credit, Grant, Prepared,
    credits::Credits,
    flat::Operation,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// What a memory server or cache can be told. Made by `default`, changed by the `with_` functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryOptions {
    /// Subrequests must end where a multiple of so many blocks begins.
    pub boundary_blocks: Option<u64>,
    /// Credits, of which each subrequest takes one; `None`: they need none.
    pub credits: Option<u32>,
    /// Whether the blocks of one write may lie apart.
    pub gaps: bool,
    /// Pieces of memory of one write, at most.
    pub max_segments: usize,
    /// Stored bytes of one write, at most; fewer than one block's count as one block.
    pub max_write_bytes: u64,
    /// Whether there is a lock under which sizes change. Object stores have none.
    pub size_lock: bool,
}

impl MemoryOptions {
    /// The same, with subrequests that end where a multiple of so many blocks begins.
    #[must_use]
    pub fn with_boundary_blocks(mut self, boundary_blocks: u64) -> MemoryOptions {
        self.boundary_blocks = Some(boundary_blocks);
        self
    }

    /// The same with so many credits.
    #[must_use]
    pub fn with_credits(mut self, credits: u32) -> MemoryOptions {
        self.credits = Some(credits);
        self
    }

    /// The same, with writes whose blocks may lie apart.
    #[must_use]
    pub fn with_gaps(mut self) -> MemoryOptions {
        self.gaps = true;
        self
    }

    /// The same with at most so many segments.
    #[must_use]
    pub fn with_max_segments(mut self, max_segments: usize) -> MemoryOptions {
        self.max_segments = max_segments;
        self
    }

    /// The same with at most so many stored bytes in one write.
    #[must_use]
    pub fn with_max_write_bytes(mut self, max_write_bytes: u64) -> MemoryOptions {
        self.max_write_bytes = max_write_bytes;
        self
    }

    /// The same without a lock under which sizes change.
    #[must_use]
    pub fn without_size_lock(mut self) -> MemoryOptions {
        self.size_lock = false;
        self
    }
}

impl Default for MemoryOptions {
    fn default() -> MemoryOptions {
        MemoryOptions {
            boundary_blocks: None,
            credits: None,
            gaps: false,
            max_segments: 1024,
            max_write_bytes: 1 << 20,
            size_lock: true,
        }
    }
}

/// The stock of credits, and the counters.
#[derive(Debug)]
pub(super) struct Meter {
    options: MemoryOptions,
    credits: Option<Arc<Credits>>,
    // Read for statistics only: they publish nothing.
    n_barriers: AtomicU64,
    n_reads: AtomicU64,
    n_writes: AtomicU64,
}

impl Meter {
    pub(super) fn new(options: MemoryOptions) -> Arc<Meter> {
        Arc::new(Meter {
            options,
            credits: options.credits.map(Credits::new),
            n_barriers: AtomicU64::new(0),
            n_reads: AtomicU64::new(0),
            n_writes: AtomicU64::new(0),
        })
    }

    pub(super) fn grant(&self, block: u64, waker: &Waker) -> Prepared {
        let credit = match &self.credits {
            Some(credits) => match credits.take(waker) {
                Some(credit) => credit,
                None => return Prepared::Later,
            },
            None => Credit::none(),
        };
        let mut grant = Grant::unlimited()
            .with_max_bytes(self.options.max_write_bytes)
            .with_max_segments(self.options.max_segments)
            .with_credit(credit);
        if let Some(n_blocks) = self.options.boundary_blocks {
            // A boundary every zero blocks would never be reached.
            let n_blocks = n_blocks.max(1);
            grant = grant.with_boundary((block / n_blocks + 1).saturating_mul(n_blocks));
        }
        Prepared::Granted(if self.options.gaps { grant.with_gaps() } else { grant })
    }

    pub(super) fn has_size_lock(&self) -> bool {
        self.options.size_lock
    }

    pub(super) fn note(&self, operation: Operation) {
        self.counter(operation).fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn credits_out(&self) -> u32 {
        self.credits.as_ref().map_or(0, |credits| credits.n_out())
    }

    pub(super) fn count(&self, operation: Operation) -> u64 {
        self.counter(operation).load(Ordering::Relaxed)
    }

    fn counter(&self, operation: Operation) -> &AtomicU64 {
        match operation {
            Operation::Barrier => &self.n_barriers,
            Operation::Read => &self.n_reads,
            Operation::Write => &self.n_writes,
        }
    }
}

#[cfg(shuttle)]
#[cfg(test)]
mod models;

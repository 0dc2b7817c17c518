//! What a target grants to one subrequest, and the credits that go with it.

use std::{fmt, sync::Arc};

/// What [`Target::prepare`](crate::Target::prepare) answers.
#[derive(Debug)]
pub enum Prepared {
    /// The subrequest may carry this much.
    Granted(Grant),
    /// No credits now. The target wakes the waker it was given when there are some.
    Later,
}

/// How much one subrequest may carry.
///
/// Made with [`Grant::unlimited`] and narrowed; fields may be added in later versions.
#[derive(Debug)]
#[non_exhaustive]
pub struct Grant {
    /// Stored bytes (prefixes included), at most. Fewer than one block's count as one block.
    pub max_bytes: u64,
    /// Pieces of memory the write may be made of, at most; at least 1.
    pub max_segments: usize,
    /// The block before which the subrequest must end, if there is one (exclusive).
    pub boundary: Option<u64>,
    /// Whether its blocks may lie apart: one write then carries a list of runs, all before the
    /// boundary. An object store so pays one request for an object, however many places of it
    /// have changed.
    pub gaps: bool,
    /// Given back when the subrequest has terminated, or was not needed.
    pub credit: Credit,
}

impl Grant {
    /// A grant without limits or credits.
    pub fn unlimited() -> Grant {
        Grant {
            max_bytes: u64::MAX,
            max_segments: usize::MAX,
            boundary: None,
            gaps: false,
            credit: Credit::none(),
        }
    }

    /// The same with at most so many stored bytes.
    #[must_use]
    pub fn with_max_bytes(mut self, max_bytes: u64) -> Grant {
        self.max_bytes = max_bytes;
        self
    }

    /// The same with at most so many segments.
    #[must_use]
    pub fn with_max_segments(mut self, max_segments: usize) -> Grant {
        self.max_segments = max_segments.max(1);
        self
    }

    /// The same, ending before a block.
    #[must_use]
    pub fn with_boundary(mut self, boundary: u64) -> Grant {
        self.boundary = Some(boundary);
        self
    }

    /// The same, for blocks that may lie apart.
    #[must_use]
    pub fn with_gaps(mut self) -> Grant {
        self.gaps = true;
        self
    }

    /// The same, holding a credit.
    #[must_use]
    pub fn with_credit(mut self, credit: Credit) -> Grant {
        self.credit = credit;
        self
    }
}

/// Who hands out credits, and takes them back.
pub trait CreditSource: Send + Sync {
    /// Takes `n` credits back. Called exactly once for each [`Credit`] made, from any thread.
    fn give_back(&self, n: u32);
}

/// Credits held by a grant or a subrequest; they go back to their source when it is dropped.
pub struct Credit(Option<(Arc<dyn CreditSource>, u32)>);

impl Credit {
    /// No credit, of no source.
    pub fn none() -> Credit {
        Credit(None)
    }

    /// `n` credits that `source` has just taken from its stock.
    pub fn new(source: Arc<dyn CreditSource>, n: u32) -> Credit {
        Credit(Some((source, n)))
    }

    /// How many credits are held.
    pub fn count(&self) -> u32 {
        self.0.as_ref().map_or(0, |(_, n)| *n)
    }
}

impl Drop for Credit {
    fn drop(&mut self) {
        if let Some((source, n)) = self.0.take() {
            source.give_back(n);
        }
    }
}

impl fmt::Debug for Credit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Credit").field(&self.count()).finish()
    }
}

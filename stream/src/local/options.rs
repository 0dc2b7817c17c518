//! What a local server or cache can be told.

use std::{error, fmt, fs::File, str::FromStr};

use crate::{Grant, Prepared, TargetError};

/// What a local server or cache can be told. Made by `default`, changed by the `with_` functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LocalOptions {
    /// What a barrier makes things survive.
    pub durability: Durability,
    /// Stored bytes of one write, at most; fewer than one block's count as one block. More than 32 MiB
    /// count as these.
    pub max_write_bytes: u64,
}

/// What written blocks survive once a barrier has returned; and what leaves each block that is being
/// written over as it was or as it was to be, never in between.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Nothing is asked for; what a file system gives anyway is that of `Process`. A server writes
    /// without a journal: a process that is killed may leave blocks torn.
    None,
    /// The end of the process, however it comes: the system has the bytes. No call waits for the
    /// disk. A cache's record counts only until the machine starts anew. A server writes twice what
    /// goes over other blocks, first to its journal.
    #[default]
    Process,
    /// The loss of power: a barrier waits until the disk has the bytes, and what was created or
    /// published is found under its name. A server waits once for each write that goes over other
    /// blocks until the disk has its journal.
    PowerCut,
}

/// Why a string names no [`Durability`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownDurability;

impl FromStr for Durability {
    type Err = UnknownDurability;

    /// `none`, `process` or `power-cut`.
    fn from_str(text: &str) -> Result<Durability, UnknownDurability> {
        match text {
            "none" => Ok(Durability::None),
            "process" => Ok(Durability::Process),
            "power-cut" => Ok(Durability::PowerCut),
            _ => Err(UnknownDurability),
        }
    }
}

impl fmt::Display for UnknownDurability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the durability is none, process or power-cut")
    }
}

impl error::Error for UnknownDurability {}

impl LocalOptions {
    /// The same with another durability.
    #[must_use]
    pub fn with_durability(mut self, durability: Durability) -> LocalOptions {
        self.durability = durability;
        self
    }

    /// The same with at most so many stored bytes in one write.
    #[must_use]
    pub fn with_max_write_bytes(mut self, max_write_bytes: u64) -> LocalOptions {
        self.max_write_bytes = max_write_bytes;
        self
    }

    /// Whether the disk is to be waited for.
    pub(super) fn survives_power_cut(&self) -> bool {
        self.durability == Durability::PowerCut
    }

    /// Waits until the disk has a file's bytes, where that is asked for.
    pub(super) fn sync(&self, file: &File) -> Result<(), TargetError> {
        if !self.survives_power_cut() {
            return Ok(());
        }
        file.sync_data()
            .map_err(|error| TargetError::from_io("waiting for the disk to have a file", error))
    }

    /// What each subrequest may carry; there are no credits. What lies apart goes together: the journal
    /// takes it in one record, and waits for the disk once.
    pub(super) fn grant(&self) -> Prepared {
        // What is written over is one record of the journal, which takes twice that.
        let grant = Grant::unlimited().with_max_bytes(self.max_write_bytes.min(32 << 20));
        Prepared::Granted(grant.with_max_segments(MAX_SEGMENTS).with_gaps())
    }
}

impl Default for LocalOptions {
    fn default() -> LocalOptions {
        LocalOptions { durability: Durability::default(), max_write_bytes: 1 << 20 }
    }
}

/// Pieces of memory that one `pwritev` takes: Linux's `IOV_MAX`.
pub(super) const MAX_SEGMENTS: usize = 1024;

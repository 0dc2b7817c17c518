//! What a local server or cache can be told.

use std::fs::File;

use crate::{Grant, Prepared, TargetError};

/// What a local server or cache can be told. Made by `default`, changed by the `with_` functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LocalOptions {
    /// What a barrier makes things survive.
    pub durability: Durability,
    /// Stored bytes of one write, at most; fewer than one block's count as one block.
    pub max_write_bytes: u64,
}

/// What written blocks survive once a barrier has returned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Nothing is asked for; what a file system gives anyway is that of `Process`.
    None,
    /// The end of the process, however it comes: the system has the bytes. No call waits for the
    /// disk. A cache's record counts only until the machine starts anew.
    #[default]
    Process,
    /// The loss of power: a barrier waits until the disk has the bytes, and what was created or
    /// published is found under its name.
    PowerCut,
}

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

    /// What each subrequest may carry; there are no credits.
    pub(super) fn grant(&self) -> Prepared {
        let grant = Grant::unlimited().with_max_bytes(self.max_write_bytes);
        Prepared::Granted(grant.with_max_segments(MAX_SEGMENTS))
    }
}

impl Default for LocalOptions {
    fn default() -> LocalOptions {
        LocalOptions { durability: Durability::default(), max_write_bytes: 1 << 20 }
    }
}

/// Pieces of memory that one `pwritev` takes: Linux's `IOV_MAX`.
pub(super) const MAX_SEGMENTS: usize = 1024;

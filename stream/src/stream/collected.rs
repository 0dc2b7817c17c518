//! What a termination meant.

use crate::{Failure, Runs};

/// What a termination meant.
#[derive(Clone, Debug)]
pub enum Collected {
    /// All of it went through.
    Passed {
        /// Its stored bytes, whatever the target claims to have taken.
        bytes: u64,
    },
    /// These blocks did not, and are to be sent again, merged first if they met a conflict; so many
    /// attempts got nowhere.
    Unfinished {
        /// What did not go through.
        blocks: Runs,
        /// Stored bytes of the whole blocks that did: those of a torn block are sent again.
        bytes: u64,
        /// How often it was issued without getting anywhere.
        attempts: u32,
        /// Why; a short write says so in an error of its own.
        failure: Failure,
    },
    /// These blocks did not go through and must not be sent again as they are.
    Failed {
        /// What did not go through.
        blocks: Runs,
        /// How often it was issued without getting anywhere.
        attempts: u32,
        /// Why.
        failure: Failure,
    },
    /// The stream is off: nobody waits for this any more.
    Ignored,
}

impl Collected {
    /// Stored bytes that went through and are not sent again.
    pub fn bytes(&self) -> u64 {
        match self {
            Collected::Passed { bytes } | Collected::Unfinished { bytes, .. } => *bytes,
            Collected::Failed { .. } | Collected::Ignored => 0,
        }
    }
}

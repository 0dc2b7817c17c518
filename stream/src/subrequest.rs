//! A subrequest: what one stream sends to its target in one go.

use std::time::Duration;

use crate::{Credit, Runs};

/// Blocks that a stream prepared for its target.
#[derive(Debug)]
pub struct Subrequest {
    /// Its number within the stream; a reissue has a new one.
    pub id: u64,
    /// The blocks it carries.
    pub blocks: Runs,
    /// The block that it had to end before: nothing from there on may be joined to it.
    pub boundary: Option<u64>,
    /// How often its blocks were issued before, without getting anywhere.
    pub attempts: u32,
    /// When it was prepared, on the driver's clock.
    pub prepared_at: Duration,
    /// What it holds of the target's credits until it terminates.
    pub credit: Credit,
}

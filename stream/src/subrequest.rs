//! A subrequest: what one stream sends to its target in one go.

use std::{ops::Range, time::Duration};

use crate::Credit;

/// A run of blocks that a stream prepared for its target.
#[derive(Debug)]
pub struct Subrequest {
    /// Its number within the stream; a reissue has a new one.
    pub id: u64,
    /// The blocks it carries.
    pub blocks: Range<u64>,
    /// It ends at a boundary: nothing may be joined to it behind its end.
    pub boundary: bool,
    /// How often its blocks were issued before, without getting anywhere.
    pub attempts: u32,
    /// When it was prepared, on the driver's clock.
    pub prepared_at: Duration,
    /// What it holds of the target's credits until it terminates.
    pub credit: Credit,
}

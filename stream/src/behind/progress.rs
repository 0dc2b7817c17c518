//! Which blocks of a segment are on the server already.
//!
//! Who is killed in the middle of an upload, or before a segment is removed, uploads it again. A block that
//! was there by then, and that somebody else has changed since, must not be laid over that. So what went
//! through is noted, beside the segment, before anything else is done.

use std::{io, ops::Range};

use super::{
    chain::{Bytes, Chain},
    record::Record,
};

/// The file beside a segment.
pub(super) struct Progress {
    chain: Chain,
    sent: Vec<Range<u64>>,
}

impl Progress {
    /// What was noted of a segment, whose content `segment` stands for: what was noted of another one of the
    /// same name does not count.
    pub(super) fn recover(bytes: Bytes, segment: blake3::Hash) -> io::Result<Progress> {
        let (chain, placed) = Chain::recover(bytes, segment)?;
        let sent = placed.into_iter().filter_map(|placed| match placed.record {
            Record::Sent { blocks } => Some(blocks),
            Record::Blocks(_) | Record::Cut { .. } | Record::Promise(_) => None,
        });
        Ok(Progress { chain, sent: sent.collect() })
    }

    /// Notes blocks that the server has taken; a power cut is survived after the next sync.
    pub(super) fn note(&mut self, blocks: Range<u64>) -> io::Result<()> {
        self.chain.push(Record::Sent { blocks: blocks.clone() }, &[])?;
        self.sent.push(blocks);
        Ok(())
    }

    pub(super) fn sync(&mut self) -> io::Result<()> {
        self.chain.sync()
    }

    /// Whether the server has taken a block.
    pub(super) fn has(&self, block: u64) -> bool {
        self.sent.iter().any(|sent| sent.contains(&block))
    }
}

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
pub(super) struct Progress(Chain);

impl Progress {
    /// The file, and the blocks that were noted of a segment, whose content `segment` stands for: what was
    /// noted of another one of the same name does not count.
    pub(super) fn recover(
        bytes: Bytes,
        segment: blake3::Hash,
    ) -> io::Result<(Progress, Vec<Range<u64>>)> {
        let (chain, placed) = Chain::recover(bytes, segment)?;
        let sent = placed.into_iter().filter_map(|placed| match placed.record {
            Record::Sent { blocks } => Some(blocks),
            Record::Blocks(_) | Record::Cut { .. } | Record::Kept | Record::Promise(..) => None,
        });
        Ok((Progress(chain), sent.collect()))
    }

    /// Notes blocks that the server has taken; a power cut is survived after the next sync.
    pub(super) fn note(&mut self, blocks: Range<u64>) -> io::Result<()> {
        self.0.push(Record::Sent { blocks }, &[]).map(drop)
    }

    pub(super) fn sync(&mut self) -> io::Result<()> {
        self.0.sync()
    }
}

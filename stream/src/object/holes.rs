//! Holes over many chunks: where no object is, there is nothing to do.
//!
//! What is there keeps its length, in zeros: an object that became empty could be, after somebody's cut,
//! the one that holds the file's last block, and would be too short for that. So punching frees no room
//! on an object store.

use std::ops::Range;

use futures_util::StreamExt;

use super::{chunk::Part, file::OpenObject, keys::Key};
use crate::{Failure, Segment, TargetError, TargetErrorKind, Write};

impl OpenObject {
    /// Makes holes of blocks, whatever is there; the object of the last reaches the end of its prefix.
    pub(super) async fn make_holes(&self, blocks: &Range<u64>) -> Result<(), TargetError> {
        let chunk_blocks = u64::from(self.geometry.chunk_blocks());
        let last = (blocks.end - 1) / chunk_blocks;
        let chunks = blocks.start / chunk_blocks..last + 1;
        let mut changed = self.chunks_that_are_there(&chunks).await?;
        changed.push(last);
        changed.sort_unstable();
        changed.dedup();
        for chunk in changed {
            let start = (chunk * chunk_blocks).max(blocks.start);
            let end = ((chunk + 1) * chunk_blocks).min(blocks.end);
            let segments = vec![Segment::Hole { blocks: start..end, geometry: self.geometry }];
            let write = Write { segments, expectations: Vec::new(), dirty: Vec::new() };
            let part = Part::first_of(&write, self.geometry).map_err(error)?;
            self.write_part(&part).await.map_err(error)?;
        }
        Ok(())
    }

    /// The chunks among `chunks` that have bytes.
    async fn chunks_that_are_there(&self, chunks: &Range<u64>) -> Result<Vec<u64>, TargetError> {
        let prefix = self.keys.chunks(self.file_id);
        // Keys in ascending order are not every store's: what lies before the first is passed over.
        let before = chunks.start.checked_sub(1).map(|before| self.chunk_key(before));
        let mut listed = self.store.list(&prefix, before.as_ref());
        let mut there = Vec::new();
        while let Some(object) = listed.next().await {
            let object = object?;
            if let Some(chunk) = Key::chunk_of(&object.location)
                && chunks.contains(&chunk)
                && object.size > 0
            {
                there.push(chunk);
            }
        }
        Ok(there)
    }
}

/// Holes expect nothing, and lie within one chunk each.
fn error(failure: Failure) -> TargetError {
    match failure {
        Failure::Fatal(error) | Failure::Renegotiate(error) | Failure::Retry(error) => error,
        Failure::Conflict(_) => TargetError::new(TargetErrorKind::Io, failure.to_string()),
    }
}

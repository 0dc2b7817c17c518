//! Writing blocks: one object, put on condition.

use object_store::PutPayload;

use super::{
    alter::{First, Object, Step, Unaltered},
    chunk::Part,
    failure::failure,
    file::{Chunk, OpenObject, Standing},
    header::gone,
    store::Found,
};
use crate::{BlockConflict, Failure, Segment, TargetErrorKind, Write};

impl OpenObject {
    /// Writes what lies in the first chunk, and, if it is nothing but holes, all the rest, too. Returns
    /// the stored bytes that went through.
    pub(super) async fn write(&self, write: &Write) -> Result<u64, Failure> {
        if write.segments.is_empty() {
            return Ok(0);
        }
        if let Standing::Gone { .. } = &*self.standing() {
            return Err(Failure::Fatal(gone()));
        }
        let part = Part::first_of(write, self.geometry)?;
        if part.write.blocks().end < write.blocks().end
            && let [Segment::Hole { blocks, .. }] = &write.segments[..]
            && write.expectations.is_empty()
        {
            self.make_holes(blocks).await.map_err(failure)?;
            return Ok(write.bytes());
        }
        self.write_part(&part).await?;
        Ok(part.write.bytes())
    }

    /// Writes blocks of one chunk.
    pub(super) async fn write_part(&self, part: &Part) -> Result<(), Failure> {
        let key = self.chunk_key(part.chunk);
        let object = Object { key: &key, max_bytes: self.chunk_bytes() };
        let queue = self.queue(part.chunk);
        let mut chunk = queue.lock().await;
        let first = match *chunk {
            Chunk::Unknown if self.is_new => First::Guess(Found::Absent),
            _ if part.replaces_all(0) => First::Length,
            Chunk::There | Chunk::Unknown => First::Content,
        };
        let mut has_put = false;
        let decide = |found: &Found| {
            let step = self.step(part, found, has_put);
            has_put |= matches!(step, Step::Put(_));
            step
        };
        let altered = self.store.alter(object, first, decide).await;
        altered.map_err(|unaltered| match unaltered {
            Unaltered::Refused(conflicts) => Failure::Conflict(conflicts),
            // Somebody else changes it all the time.
            Unaltered::Failed(error) if error.kind() == TargetErrorKind::Conflict => {
                Failure::Retry(error)
            }
            Unaltered::Failed(error) => failure(error),
        })?;
        *chunk = Chunk::There;
        Ok(())
    }

    fn step(&self, part: &Part, found: &Found, has_put: bool) -> Step<Vec<BlockConflict>> {
        let empty = bytes::Bytes::new();
        let object = match found {
            Found::Absent => &empty,
            Found::Content { bytes, .. } => bytes,
            Found::Length { len, .. } if !has_put && part.replaces_all(*len) => &empty,
            Found::Length { .. } => return Step::Look,
        };
        let conflicts = part.conflicts(object);
        if !conflicts.is_empty() {
            return Step::Refuse(conflicts);
        }
        if part.is_in(object) { Step::Done } else { Step::Put(part.spliced_into(object)) }
    }
}

/// An object that has lost its blocks.
pub(super) fn nothing() -> PutPayload {
    PutPayload::new()
}

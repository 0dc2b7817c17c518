//! Cutting a file: no store deletes on condition, so what lies behind becomes empty on condition.
//!
//! In FORMAT.md's order without a lock: note which version each object is, read the header again, then
//! replace only what is unchanged. What has been changed since is looked at again: as long as the header
//! counts, nobody has written it who knows of the cut, and it may hold what was cut off. An empty object
//! is a hole, and counts as not there.

use bytes::Bytes;
use futures_util::StreamExt;
use object_store::path::Path;
use sealback_crypto::{Geometry, PREFIX_BYTES, SlotExpectation};

use super::{
    alter::pause,
    chunk::{end_of_block, resized},
    file::OpenObject,
    keys::Key,
    store::Found,
    write::nothing,
};
use crate::{TargetError, TargetErrorKind};

/// Objects that others keep changing are looked at again so often.
const MAX_ATTEMPTS: u32 = 8;

/// An object, and what it was when the cut began.
struct Noted {
    key: Path,
    found: Found,
}

impl OpenObject {
    pub(super) async fn cut(
        &self,
        geometry: Geometry,
        n_blocks: u64,
        expect: &SlotExpectation,
    ) -> Result<(), TargetError> {
        self.check_header(expect).await?;
        let last = n_blocks.checked_sub(1).and_then(|block| geometry.chunk_of(block));
        for attempt in 1..=MAX_ATTEMPTS {
            let n_kept = last.map_or(0, |last| last.chunk + 1);
            let behind = self.note_behind(n_kept).await?;
            let last_chunk = match last {
                Some(last) => Some((self.note_last(last.chunk).await?, last.offset)),
                None => None,
            };
            self.check_header(expect).await?;
            match self.take_away(behind, last_chunk).await {
                Err(error) if error.kind() == TargetErrorKind::Conflict => pause(attempt).await,
                other => return other,
            }
        }
        let context = "the chunks of a file that is being cut keep being changed";
        Err(TargetError::new(TargetErrorKind::Io, context))
    }

    /// Takes what was noted behind a cut, and what the last chunk has behind the block at an offset.
    async fn take_away(
        &self,
        behind: Vec<Noted>,
        last: Option<(Noted, u64)>,
    ) -> Result<(), TargetError> {
        self.empty(behind).await?;
        match last {
            Some((noted, offset)) => self.shorten(&noted, offset).await,
            None => Ok(()),
        }
    }

    /// The objects behind a cut that are not empty yet.
    async fn note_behind(&self, n_kept: u64) -> Result<Vec<Noted>, TargetError> {
        let chunks = self.keys.chunks(self.file_id);
        let before = n_kept.checked_sub(1).map(|kept| self.chunk_key(kept));
        let mut listed = self.store.list(&chunks, before.as_ref());
        let mut noted = Vec::new();
        while let Some(object) = listed.next().await {
            let object = object?;
            let is_behind = Key::chunk_of(&object.location).is_some_and(|chunk| chunk >= n_kept);
            if is_behind && object.size > 0 {
                let key = object.location;
                // What a list says of versions is not what a put compares, on every store.
                let found = if self.store.single_writer() {
                    Found::Absent
                } else {
                    self.store.head(&key).await?
                };
                noted.push(Noted { key, found });
            }
        }
        Ok(noted)
    }

    async fn note_last(&self, chunk: u64) -> Result<Noted, TargetError> {
        let key = self.chunk_key(chunk);
        let found = self.store.get(&key, self.chunk_bytes()).await?;
        Ok(Noted { key, found })
    }

    /// Takes the bytes of objects that are what they were.
    async fn empty(&self, behind: Vec<Noted>) -> Result<(), TargetError> {
        if self.store.single_writer() {
            return self.store.delete(behind.into_iter().map(|noted| noted.key).collect()).await;
        }
        for Noted { key, found } in behind {
            if found.len() == 0 {
                continue;
            }
            self.store.replace(&key, nothing(), &found).await?;
        }
        Ok(())
    }

    /// Makes an object end with the block that begins at `offset`: it has all of its prefix, and as many
    /// bytes as that says.
    async fn shorten(&self, noted: &Noted, offset: u64) -> Result<(), TargetError> {
        let empty = Bytes::new();
        let object = match &noted.found {
            Found::Content { bytes, .. } => bytes,
            Found::Absent | Found::Length { .. } => &empty,
        };
        let offset = usize::try_from(offset).unwrap_or(usize::MAX - PREFIX_BYTES);
        let end = end_of_block(object, offset).min(object.len()).max(offset + PREFIX_BYTES);
        if object.len() == end {
            return Ok(());
        }
        self.store.replace(&noted.key, resized(object, end), &noted.found).await.map(drop)
    }
}

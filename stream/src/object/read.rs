//! Reading blocks: one ranged get of one object.

use bytes::Bytes;
use futures_util::StreamExt;
use sealback_crypto::PREFIX_BYTES;

use super::file::OpenObject;
use crate::{Read, TargetError};

impl OpenObject {
    /// Reads what is stored of the blocks that lie in the first one's chunk, and returns how many bytes
    /// of the buffer that is.
    pub(super) async fn read(&self, read: &mut Read) -> Result<usize, TargetError> {
        let stride = self.geometry.stride_bytes();
        let Some(position) = self.geometry.chunk_of(read.blocks.start) else { return Ok(0) };
        let n_blocks = read.blocks.end.saturating_sub(read.blocks.start);
        let in_chunk = self.chunk_bytes() - position.offset;
        let goes_on = n_blocks.saturating_mul(stride) > in_chunk;
        let asked = n_blocks.saturating_mul(stride).min(in_chunk);
        let asked = usize::try_from(asked).map_or(read.buffer.len(), |n| n.min(read.buffer.len()));
        if asked == 0 {
            return Ok(0);
        }
        let part = position.offset..position.offset + asked as u64;
        let mut stored = self.store.get_part(&self.chunk_key(position.chunk), part).await?;
        stored.truncate(asked);
        read.buffer[..stored.len()].copy_from_slice(&stored);
        // Who asks for more behind it must not take a short block for the file's end.
        let is_all = stored.len() == asked || (!goes_on && self.is_short_end(&stored, asked));
        if is_all || !self.is_there_behind(position.chunk).await? {
            return Ok(stored.len());
        }
        read.buffer[stored.len()..asked].fill(0);
        Ok(asked)
    }

    /// Whether all that lacks is of the last block, which has been sealed short, and is whole.
    fn is_short_end(&self, stored: &Bytes, asked: usize) -> bool {
        let stride = usize::try_from(self.geometry.stride_bytes()).unwrap_or(usize::MAX);
        let last = asked - stride.min(asked);
        stored.len() >= last + PREFIX_BYTES
            && super::chunk::end_of_block(stored, last) == stored.len()
    }

    /// Whether the file goes on behind a chunk: what is not there is then a hole.
    async fn is_there_behind(&self, chunk: u64) -> Result<bool, TargetError> {
        let chunks = self.keys.chunks(self.file_id);
        let mut listed = self.store.list(&chunks, Some(&self.chunk_key(chunk)));
        while let Some(object) = listed.next().await {
            if object?.size > 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

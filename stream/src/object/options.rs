//! What a client can tell of an object store.

use std::time::Duration;

use sealback_crypto::Geometry;

/// A chunk's object is held whole when a part of it is written.
pub(super) const MAX_CHUNK_BYTES: u64 = 1 << 30;

/// How an [`ObjectServer`](super::ObjectServer) works. Made by `default`, changed by the `with_` functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ObjectOptions {
    /// Stored bytes of a chunk of a new file, at most, but one block at least: 8 MiB. Files that have
    /// others keep them.
    pub chunk_bytes: u64,
    /// Writes of one file under way at once: 8.
    pub max_in_flight: u32,
    /// What was left behind is listed if it is so old: an hour. What is younger may be of a put that is
    /// under way.
    pub orphan_age: Duration,
    /// Nobody else writes, on the client's word: no conditions are put, and the store is not asked whether
    /// it keeps them. `false`.
    pub single_writer: bool,
}

impl ObjectOptions {
    /// The same, with new files' chunks of so many stored bytes, at most.
    #[must_use]
    pub fn with_chunk_bytes(mut self, chunk_bytes: u64) -> ObjectOptions {
        self.chunk_bytes = chunk_bytes;
        self
    }

    /// The same, with so many writes of one file at once; 0 counts as 1.
    #[must_use]
    pub fn with_max_in_flight(mut self, max_in_flight: u32) -> ObjectOptions {
        self.max_in_flight = max_in_flight.max(1);
        self
    }

    /// The same, for what was left behind so long ago.
    #[must_use]
    pub fn with_orphan_age(mut self, orphan_age: Duration) -> ObjectOptions {
        self.orphan_age = orphan_age;
        self
    }

    /// The same, for a store that nobody else writes to: it need not know conditional puts. If somebody
    /// does, what they wrote is lost.
    #[must_use]
    pub fn with_single_writer(mut self) -> ObjectOptions {
        self.single_writer = true;
        self
    }

    /// How many blocks of a new file, of so many bytes of plaintext each, go into a chunk.
    #[must_use]
    pub fn chunk_blocks(&self, block_bytes: u64) -> u32 {
        let stride_bytes = Geometry::new(block_bytes).map_or(u64::MAX, Geometry::stride_bytes);
        let n_blocks = self.chunk_bytes.min(MAX_CHUNK_BYTES) / stride_bytes;
        u32::try_from(n_blocks).unwrap_or(u32::MAX).max(1)
    }
}

impl Default for ObjectOptions {
    fn default() -> ObjectOptions {
        ObjectOptions {
            chunk_bytes: 8 << 20,
            max_in_flight: 8,
            orphan_age: Duration::from_secs(3600),
            single_writer: false,
        }
    }
}

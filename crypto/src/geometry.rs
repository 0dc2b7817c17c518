//! Plaintext positions to stored positions and back: pure arithmetic, checked.
//!
//! ```text
//!  plaintext       | block 0 (B) | block 1 (B) | last (1..=B) |
//!  stored  | 8192 | 48 | B | 48 | B | 48 | 1..=B |
//! ```

use std::ops::Range;
use std::{error, fmt};

/// Bytes of a sealed file before its first block.
pub const HEADER_BYTES: usize = 8192;

/// Bytes before each block's ciphertext: nonce, tag, len and seal_gen.
pub const PREFIX_BYTES: usize = 48;

/// The most plaintext that a file may have, in bytes (inclusive).
pub const MAX_FILE_BYTES: u64 = 1 << 60;

/// How a file is cut into blocks, and its blocks into chunk objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    block_shift: u8,
    chunk_blocks: u32,
}

impl Geometry {
    /// A flat file of blocks of `block_bytes` bytes of plaintext.
    ///
    /// # Errors
    /// `block_bytes` is no power of two, or not within 4 KiB to 1 MiB (inclusive).
    pub fn new(block_bytes: u64) -> Result<Geometry, GeometryError> {
        (MIN_SHIFT..=MAX_SHIFT)
            .find(|shift| 1 << shift == block_bytes)
            .map(|block_shift| Geometry { block_shift, chunk_blocks: 0 })
            .ok_or(GeometryError { block_bytes })
    }

    /// From the header's fields; `None` if the shift is not within 12 to 20 (inclusive).
    pub(crate) fn from_fields(block_shift: u8, chunk_blocks: u32) -> Option<Geometry> {
        (MIN_SHIFT..=MAX_SHIFT)
            .contains(&block_shift)
            .then_some(Geometry { block_shift, chunk_blocks })
    }

    /// The same blocks in chunk objects of `chunk_blocks` blocks; 0 makes one flat file.
    #[must_use]
    pub fn with_chunk_blocks(self, chunk_blocks: u32) -> Geometry {
        Geometry { chunk_blocks, ..self }
    }

    /// Bytes of plaintext in a full block: the B of the format.
    pub fn block_bytes(self) -> u64 {
        1 << self.block_shift
    }

    /// The power of two that is [`Geometry::block_bytes`].
    pub fn block_shift(self) -> u8 {
        self.block_shift
    }

    /// Blocks in a chunk object, or 0 for one flat file.
    pub fn chunk_blocks(self) -> u32 {
        self.chunk_blocks
    }

    /// Bytes from one stored block's start to the next one's: B + 48.
    pub fn stride_bytes(self) -> u64 {
        self.block_bytes() + PREFIX
    }

    /// The block that holds the plaintext byte at `position`.
    pub fn block_at(self, position: u64) -> u64 {
        position >> self.block_shift
    }

    /// The plaintext position at which `block` begins, in bytes.
    ///
    /// # Panics
    /// The position does not fit 64 bits, far beyond any file.
    pub fn block_start(self, block: u64) -> u64 {
        block.checked_mul(self.block_bytes()).expect("a block of a file lies within 2^60 bytes")
    }

    /// How many blocks a file of `size` bytes has.
    pub fn n_blocks(self, size: u64) -> u64 {
        size.div_ceil(self.block_bytes())
    }

    /// Bytes of plaintext of `block` in a file of `size` bytes; 0 beyond the end.
    pub fn block_len(self, block: u64, size: u64) -> u64 {
        if block > self.block_at(size) {
            return 0;
        }
        (size - self.block_start(block)).min(self.block_bytes())
    }

    /// The blocks that hold any of `positions` (an exclusive end): rounded outwards. An empty
    /// range gives an empty one.
    pub fn blocks_covering(self, positions: Range<u64>) -> Range<u64> {
        let first = self.block_at(positions.start);
        if positions.is_empty() {
            return first..first;
        }
        first..self.n_blocks(positions.end)
    }

    /// The full blocks of which every byte is in `positions` (an exclusive end): rounded inwards,
    /// perhaps empty.
    pub fn blocks_within(self, positions: Range<u64>) -> Range<u64> {
        let first = self.n_blocks(positions.start);
        first..self.block_at(positions.end).max(first)
    }

    /// Where `block` begins in the flat sealed file, in bytes: its prefix's first byte.
    ///
    /// # Panics
    /// The place does not fit 64 bits, far beyond any file.
    pub fn stored_start(self, block: u64) -> u64 {
        block
            .checked_mul(self.stride_bytes())
            .and_then(|bytes| bytes.checked_add(HEADER))
            .expect("a block of a file lies within 2^60 bytes")
    }

    /// Bytes of the flat sealed file of `size` bytes of plaintext, header included, no holes.
    ///
    /// # Panics
    /// `size` is far over [`MAX_FILE_BYTES`]: the length does not fit 64 bits.
    pub fn stored_bytes(self, size: u64) -> u64 {
        HEADER.checked_add(self.span_bytes(size)).expect("a file has at most 2^60 bytes")
    }

    /// Bytes that `plain_len` bytes of plaintext take when they are sealed from a block's start:
    /// what [`crate::ContentKey::seal`] needs of its buffer.
    ///
    /// # Panics
    /// `plain_len` is far over [`MAX_FILE_BYTES`]: the length does not fit 64 bits.
    pub fn span_bytes(self, plain_len: u64) -> u64 {
        self.n_blocks(plain_len)
            .checked_mul(PREFIX)
            .and_then(|prefixes| prefixes.checked_add(plain_len))
            .expect("a span lies within 2^60 bytes")
    }

    /// The chunk object that holds `block` and where in it; `None` for a flat file.
    pub fn chunk_of(self, block: u64) -> Option<ChunkPosition> {
        let chunk_blocks = u64::from(self.chunk_blocks);
        let chunk = block.checked_div(chunk_blocks)?;
        Some(ChunkPosition { chunk, offset: block % chunk_blocks * self.stride_bytes() })
    }

    /// A count of bytes within a buffer; `None` if memory cannot be that large.
    pub(crate) fn span_len(self, plain_len: usize) -> Option<usize> {
        let plain_len = u64::try_from(plain_len).ok()?;
        let prefixes = self.n_blocks(plain_len).checked_mul(PREFIX)?;
        usize::try_from(prefixes.checked_add(plain_len)?).ok()
    }

    /// B, as a length in memory.
    pub(crate) fn block_len_max(self) -> usize {
        1 << self.block_shift
    }

    /// B + 48, as a length in memory.
    pub(crate) fn stride_len(self) -> usize {
        self.block_len_max() + PREFIX_BYTES
    }
}

/// Where a block lies on a server that keeps the file in chunk objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkPosition {
    /// The object's number, from 0.
    pub chunk: u64,
    /// Bytes from the object's start to the block's prefix.
    pub offset: u64,
}

/// A block size that format 1 does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GeometryError {
    /// The size that was asked for, in bytes.
    pub block_bytes: u64,
}

impl fmt::Display for GeometryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a block size is a power of two within 4096 to 1048576 bytes, not {}",
            self.block_bytes
        )
    }
}

impl error::Error for GeometryError {}

/// Bytes that [`crate::ContentKey::seal`] needs of its buffer for `plain_len` bytes of plaintext:
/// [`Geometry::span_bytes`].
///
/// # Panics
/// As [`Geometry::span_bytes`].
pub fn sealed_bytes(geometry: Geometry, plain_len: u64) -> u64 {
    geometry.span_bytes(plain_len)
}

const MIN_SHIFT: u8 = 12;
const MAX_SHIFT: u8 = 20;
const PREFIX: u64 = PREFIX_BYTES as u64;
const HEADER: u64 = HEADER_BYTES as u64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_powers_of_two_from_4_kib_to_1_mib_are_block_sizes() {
        for shift in 0..64_u8 {
            let found = Geometry::new(1 << shift);
            assert_eq!(found.is_ok(), (12..=20).contains(&shift), "{shift}");
            assert_eq!(Geometry::from_fields(shift, 0), found.ok());
            assert!(Geometry::new((1 << shift) + 3).is_err());
        }
        assert!(Geometry::new(0).is_err());
    }

    #[test]
    fn a_small_file_lies_where_the_format_says() {
        let geometry = Geometry::new(4096).unwrap();
        assert_eq!(geometry.stored_start(2), 8192 + 2 * 4144);
        assert_eq!(geometry.stored_bytes(0), 8192);
        assert_eq!(geometry.stored_bytes(1), 8192 + 49);
        assert_eq!(geometry.stored_bytes(4096), 8192 + 4144);
        assert_eq!(geometry.stored_bytes(4097), 8192 + 4144 + 49);
        assert_eq!(geometry.chunk_of(7), None);
        let chunked = geometry.with_chunk_blocks(3);
        let (chunk, offset) = (2, 4144);
        assert_eq!(chunked.chunk_of(7), Some(ChunkPosition { chunk, offset }));
    }

    proptest! {
        #[test]
        fn positions_and_blocks_agree(
            shift in 12_u8..=20,
            a in 0..=MAX_FILE_BYTES,
            b in 0..=MAX_FILE_BYTES,
        ) {
            let geometry = Geometry::from_fields(shift, 0).unwrap();
            let (start, end) = (a.min(b), a.max(b));
            let block = geometry.block_at(start);
            prop_assert!(geometry.block_start(block) <= start);
            prop_assert!(geometry.block_start(block + 1) > start);

            let covering = geometry.blocks_covering(start..end);
            let within = geometry.blocks_within(start..end);
            if start == end {
                prop_assert!(covering.is_empty() && within.is_empty());
            } else {
                prop_assert_eq!(&covering, &(block..geometry.block_at(end - 1) + 1));
            }
            if !within.is_empty() {
                prop_assert!(geometry.block_start(within.start) >= start);
                prop_assert!(geometry.block_start(within.end) <= end);
                prop_assert!(within.start - covering.start <= 1);
                prop_assert!(covering.end - within.end <= 1);
            }
        }

        #[test]
        fn block_lengths_add_up_to_the_size(shift in 12_u8..=20, size in 0_u64..=40 << 20) {
            let geometry = Geometry::from_fields(shift, 0).unwrap();
            let n_blocks = geometry.n_blocks(size);
            let lens = (0..n_blocks + 2).map(|block| geometry.block_len(block, size));
            prop_assert_eq!(lens.clone().sum::<u64>(), size);
            prop_assert_eq!(lens.filter(|&len| len > 0).count() as u64, n_blocks);
            prop_assert_eq!(geometry.block_len(u64::MAX, size), 0);
            let dense = (0..n_blocks).last().map_or(8192, |last| {
                geometry.stored_start(last) + 48 + geometry.block_len(last, size)
            });
            prop_assert_eq!(geometry.stored_bytes(size), dense);
        }

        #[test]
        fn chunks_cut_up_the_same_bytes(chunk_blocks in 1_u32..1000, block in 0_u64..1 << 40) {
            let geometry = Geometry::new(16384).unwrap().with_chunk_blocks(chunk_blocks);
            let ChunkPosition { chunk, offset } = geometry.chunk_of(block).unwrap();
            let chunk_bytes = u64::from(chunk_blocks) * geometry.stride_bytes();
            prop_assert!(offset < chunk_bytes);
            prop_assert_eq!(8192 + chunk * chunk_bytes + offset, geometry.stored_start(block));
        }
    }
}

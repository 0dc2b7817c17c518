//! Sealed blocks, ready for any target: immutable, shared, cut without copying.
//!
//! `seal.rs` makes them of plaintext, `open.rs` of bytes from a server that all authenticated.
//! Upload and cache streams hold clones; the buffer goes home when the last is dropped.
//!
//! **Invariant:** each block but the last holds B bytes of plaintext, so the bytes between two
//! prefixes are all ciphertext.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::buffer::Buffer;
use crate::bytes;
use crate::geometry::{Geometry, PREFIX_BYTES};
use crate::nonce::Nonce;

/// A run of whole consecutive blocks, exactly as they are stored: a proof that no plaintext is
/// sent, for only this crate can make one.
#[derive(Clone)]
pub struct Sealed {
    span: Arc<Span>,
    /// Within the span's; never empty unless cut so.
    blocks: Range<u64>,
}

impl Sealed {
    /// `buffer` begins with the sealed blocks, from `first_block` on, of `plain_len` bytes.
    pub(crate) fn new(
        geometry: Geometry,
        first_block: u64,
        plain_len: u64,
        buffer: Buffer,
    ) -> Sealed {
        let blocks = first_block..first_block + geometry.n_blocks(plain_len);
        let span = Span { geometry, blocks: blocks.clone(), plain_len, buffer };
        assert!(span.end_of(blocks.end) <= span.buffer.len());
        Sealed { span: Arc::new(span), blocks }
    }

    /// The blocks it holds, by their numbers in the file (exclusive end).
    pub fn blocks(&self) -> Range<u64> {
        self.blocks.clone()
    }

    /// How the file is cut into blocks.
    pub fn geometry(&self) -> Geometry {
        self.span.geometry
    }

    /// The stored bytes of all its blocks, one after the other: `(n - 1) * stride + 48 + len` of
    /// the last.
    pub fn bytes(&self) -> &[u8] {
        if self.blocks.is_empty() {
            return &[];
        }
        let start = self.span.start_of(self.blocks.start);
        &self.span.buffer[start..self.span.end_of(self.blocks.end)]
    }

    /// Where [`Sealed::bytes`] begin in the flat sealed file.
    pub fn stored_start(&self) -> u64 {
        self.span.geometry.stored_start(self.blocks.start)
    }

    /// The part that holds `blocks`, sharing the same memory.
    ///
    /// # Panics
    /// `blocks` do not lie within [`Sealed::blocks`].
    #[must_use]
    pub fn slice(&self, blocks: Range<u64>) -> Sealed {
        assert!(
            self.blocks.start <= blocks.start
                && blocks.start <= blocks.end
                && blocks.end <= self.blocks.end,
            "blocks {blocks:?} are not within {:?}",
            self.blocks
        );
        Sealed { span: Arc::clone(&self.span), blocks }
    }

    /// The same blocks, but that `block` takes the place of the one of its number: sealed anew,
    /// after somebody else changed it. In place where nobody shares the memory, else in a copy that
    /// belongs to no pool.
    ///
    /// # Panics
    /// `block` is not one block within [`Sealed::blocks`] and of the same geometry; or it is not full
    /// and not the last.
    #[must_use]
    pub fn replace(self, block: &Sealed) -> Sealed {
        let (geometry, number) = (self.geometry(), block.blocks.start);
        let is_last = number + 1 == self.blocks.end;
        assert!(
            block.blocks == (number..number + 1)
                && self.blocks.contains(&number)
                && block.geometry() == geometry
                && (is_last || block.plaintext_len() == geometry.block_bytes()),
            "{block:?} cannot take a place within {self:?}"
        );
        let before = (number - self.blocks.start) * geometry.block_bytes();
        let plain_len = if is_last { before + block.plaintext_len() } else { self.plaintext_len() };
        let needed = geometry
            .span_len(usize::try_from(plain_len).expect("it is in memory"))
            .expect("it is in memory");
        let Sealed { span, blocks } = self;
        let mut buffer = match Arc::try_unwrap(span) {
            Ok(span) if span.blocks == blocks && span.buffer.len() >= needed => span.buffer,
            Ok(span) => Sealed { span: Arc::new(span), blocks: blocks.clone() }.copied(needed),
            Err(span) => Sealed { span, blocks: blocks.clone() }.copied(needed),
        };
        let at = usize::try_from(number - blocks.start).expect("it is in memory")
            * geometry.stride_len();
        buffer[at..at + block.bytes().len()].copy_from_slice(block.bytes());
        Sealed::new(geometry, blocks.start, plain_len, buffer)
    }

    /// Its bytes, in a buffer of so many at least.
    fn copied(&self, bytes: usize) -> Buffer {
        let mut buffer = Buffer::unpooled(bytes.max(self.bytes().len()));
        buffer[..self.bytes().len()].copy_from_slice(self.bytes());
        buffer
    }

    /// The nonce of one block.
    ///
    /// # Panics
    /// `block` is not one of [`Sealed::blocks`].
    pub fn nonce(&self, block: u64) -> Nonce {
        Nonce::from_bytes(bytes::field(self.block_bytes_of(block), 0))
    }

    /// Each block's number and nonce, ascending.
    pub fn nonces(&self) -> impl Iterator<Item = (u64, Nonce)> {
        self.blocks().map(|block| (block, self.nonce(block)))
    }

    /// The stored bytes of one block: prefix and ciphertext.
    ///
    /// # Panics
    /// `block` is not one of [`Sealed::blocks`].
    pub fn block_bytes_of(&self, block: u64) -> &[u8] {
        assert!(self.blocks.contains(&block), "block {block} is not within {:?}", self.blocks);
        &self.span.buffer[self.span.start_of(block)..self.span.end_of(block + 1)]
    }

    /// Bytes of plaintext that were sealed in its blocks.
    pub fn plaintext_len(&self) -> u64 {
        let geometry = self.span.geometry;
        (self.blocks.start..self.blocks.end).next_back().map_or(0, |last| {
            let before = (last - self.blocks.start) * geometry.block_bytes();
            before + geometry.block_len(last - self.span.blocks.start, self.span.plain_len)
        })
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealed")
            .field("blocks", &self.blocks)
            .field("len_bytes", &self.bytes().len())
            .finish()
    }
}

/// What the clones and slices of one sealing share.
struct Span {
    geometry: Geometry,
    blocks: Range<u64>,
    plain_len: u64,
    buffer: Buffer,
}

impl Span {
    /// Where `block` begins in the buffer.
    fn start_of(&self, block: u64) -> usize {
        let blocks_before = usize::try_from(block - self.blocks.start)
            .expect("a buffer holds fewer blocks than it has bytes");
        blocks_before * self.geometry.stride_len()
    }

    /// Where the block before `block` ends in the buffer.
    fn end_of(&self, block: u64) -> usize {
        if block < self.blocks.end {
            return self.start_of(block);
        }
        let last = self.blocks.end - 1;
        let len = self.geometry.block_len(last - self.blocks.start, self.plain_len);
        let len = usize::try_from(len).expect("a block is at most 1 MiB");
        self.start_of(last) + PREFIX_BYTES + len
    }
}

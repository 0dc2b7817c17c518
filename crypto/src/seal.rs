//! Plaintext to [`Sealed`]: one span, one subkey, one pass, straight into the buffer.
//!
//! Called on the threads of a crypto pool. Plaintext comes in as slices, wherever pages begin and
//! end, and goes only through the cipher: a block that crosses slices is gathered into scratch that
//! is wiped, never into the buffer, which a target will see.

use std::{error, fmt};

use crate::buffer::Buffer;
use crate::cipher::Cipher;
use crate::content::ContentKey;
use crate::geometry::{Geometry, MAX_FILE_BYTES, PREFIX_BYTES};
use crate::nonce::SpanNonces;
use crate::plaintext::Plaintext;
use crate::random::RandomError;
use crate::sealed::Sealed;

impl ContentKey {
    /// Seals consecutive blocks from `first_block` on, under nonces drawn for this call.
    ///
    /// `plain` is a list of slices whose concatenation is the plaintext; all blocks are full but
    /// perhaps the last. `seal_gen` is [`crate::FileView::seal_gen`] of the header that was read
    /// before. Of `buffer`, [`Geometry::span_bytes`] bytes are used.
    ///
    /// `tag, ciphertext = XAES-256-GCM[key](nonce, block || len || seal_gen, plaintext)`
    ///
    /// # Errors
    /// There is no plaintext, it reaches beyond [`MAX_FILE_BYTES`], the buffer is too small, or
    /// the operating system gave no random bytes. The buffer goes home then.
    pub fn seal(
        &self,
        first_block: u64,
        seal_gen: u32,
        plain: &[&[u8]],
        buffer: Buffer,
    ) -> Result<Sealed, SealError> {
        let nonces = SpanNonces::draw().map_err(SealError::Random)?;
        self.seal_with(nonces, (first_block, seal_gen), plain, buffer)
    }

    /// The same under given nonces, which must never have been used.
    pub(crate) fn seal_with(
        &self,
        mut nonces: SpanNonces,
        (first_block, seal_gen): (u64, u32),
        plain: &[&[u8]],
        mut buffer: Buffer,
    ) -> Result<Sealed, SealError> {
        let geometry = self.geometry();
        let (plain_len, needed) = check(geometry, first_block, plain, buffer.len())?;
        let subkey = self.xaes().subkey(nonces.derivation_part());
        let cipher = Cipher::new(self.engine(), &subkey);
        let mut pieces = Pieces::new(plain, geometry.block_len_max());
        let stored_blocks = buffer[..needed].chunks_mut(geometry.stride_len());
        for (block, stored) in (first_block..).zip(stored_blocks) {
            // A span would need 2^32 blocks, 16 TiB of memory, to run out.
            let nonce = nonces.give().expect("a span has fewer than 2^32 blocks");
            let (prefix, sealed) = stored.split_at_mut(PREFIX_BYTES);
            let len = u32::try_from(sealed.len()).expect("a block is at most 1 MiB");
            let aad = ContentKey::block_aad(block, len, seal_gen);
            let tag = cipher.seal(&nonce.gcm_part(), &aad, pieces.take(sealed.len()), sealed);
            prefix[..24].copy_from_slice(nonce.as_bytes());
            prefix[24..40].copy_from_slice(&tag);
            prefix[40..44].copy_from_slice(&len.to_le_bytes());
            prefix[44..48].copy_from_slice(&seal_gen.to_le_bytes());
        }
        Ok(Sealed::new(geometry, first_block, plain_len, buffer))
    }
}

/// The plaintext's length, and that of the buffer it needs.
fn check(
    geometry: Geometry,
    first_block: u64,
    plain: &[&[u8]],
    buffer_bytes: usize,
) -> Result<(u64, usize), SealError> {
    let too_long = SealError::BeyondMaximum { first_block };
    let sum = |len: usize, slice: &&[u8]| len.checked_add(slice.len());
    let plain_len = plain.iter().try_fold(0, sum).ok_or(too_long)?;
    let needed = geometry.span_len(plain_len).ok_or(too_long)?;
    let plain_len = u64::try_from(plain_len).map_err(|_| too_long)?;
    let end = first_block
        .checked_mul(geometry.block_bytes())
        .and_then(|start| start.checked_add(plain_len));
    match end {
        _ if plain_len == 0 => Err(SealError::NothingToSeal),
        Some(end) if end <= MAX_FILE_BYTES => {
            if needed > buffer_bytes {
                return Err(SealError::BufferTooSmall { needed, buffer_bytes });
            }
            Ok((plain_len, needed))
        }
        _ => Err(too_long),
    }
}

/// The plaintext slices, taken off block by block.
struct Pieces<'a> {
    /// What is left of the slice at the front.
    front: &'a [u8],
    rest: std::slice::Iter<'a, &'a [u8]>,
    /// Empty until a block crosses slices.
    scratch: Plaintext,
    block_len_max: usize,
}

impl<'a> Pieces<'a> {
    fn new(plain: &'a [&'a [u8]], block_len_max: usize) -> Pieces<'a> {
        Pieces { front: &[], rest: plain.iter(), scratch: Plaintext::default(), block_len_max }
    }

    /// The next `len` bytes: where they lie, if they lie together, else gathered.
    fn take(&mut self, len: usize) -> &[u8] {
        self.skip_empty();
        if let Some((piece, after)) = self.front.split_at_checked(len) {
            self.front = after;
            return piece;
        }
        // Never grown afterwards: a reallocation would leave an unwiped copy behind.
        if self.scratch.is_empty() {
            self.scratch = Plaintext::zeros(self.block_len_max);
        }
        let mut filled = 0;
        while filled < len {
            self.skip_empty();
            let n = self.front.len().min(len - filled);
            self.scratch[filled..filled + n].copy_from_slice(&self.front[..n]);
            self.front = &self.front[n..];
            filled += n;
        }
        &self.scratch[..len]
    }

    fn skip_empty(&mut self) {
        while self.front.is_empty() {
            self.front = self.rest.next().expect("the lengths were added up before");
        }
    }
}

/// Why nothing was sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SealError {
    /// The plaintext would reach beyond [`MAX_FILE_BYTES`].
    BeyondMaximum {
        /// The block at which it would begin.
        first_block: u64,
    },
    /// The sealed bytes do not fit the buffer.
    BufferTooSmall {
        /// Bytes that the span takes, sealed.
        needed: usize,
        /// Bytes of the buffer.
        buffer_bytes: usize,
    },
    /// No plaintext was given; a block holds at least one byte.
    NothingToSeal,
    /// The operating system gave no random bytes for the nonces.
    Random(RandomError),
}

impl fmt::Display for SealError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SealError::BeyondMaximum { first_block } => {
                write!(f, "plaintext from block {first_block} on would reach beyond 2^60 bytes")
            }
            SealError::BufferTooSmall { needed, buffer_bytes } => write!(
                f,
                "sealed, the span takes {needed} bytes, but the buffer has {buffer_bytes}"
            ),
            SealError::NothingToSeal => f.write_str("no plaintext to seal"),
            SealError::Random(_) => f.write_str("no nonce could be drawn"),
        }
    }
}

impl error::Error for SealError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            SealError::Random(error) => Some(error),
            SealError::BeyondMaximum { .. }
            | SealError::BufferTooSmall { .. }
            | SealError::NothingToSeal => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cipher::Engine;

    fn key() -> ContentKey {
        let geometry = Geometry::new(4096).unwrap();
        ContentKey::new(&[1; 32], geometry, Engine::fastest())
    }

    fn seal_fixed(plain: &[&[u8]]) -> Sealed {
        // Exactly as long as it must be, so that nothing may reach behind.
        let plain_len = plain.iter().map(|slice| slice.len()).sum();
        let buffer = Buffer::unpooled(key().geometry().span_len(plain_len).unwrap());
        key().seal_with(SpanNonces::from_random([2; 20]), (3, 4), plain, buffer).unwrap()
    }

    #[test]
    fn misuse_is_named() {
        let key = key();
        let buffer = || Buffer::unpooled(4144);
        let sealed = |block, plain: &[&[u8]]| key.seal(block, 2, plain, buffer()).map(drop);
        assert_eq!(sealed(0, &[]), Err(SealError::NothingToSeal));
        assert_eq!(sealed(0, &[b"", b""]), Err(SealError::NothingToSeal));
        let error = SealError::BufferTooSmall { needed: 4097 + 96, buffer_bytes: 4144 };
        assert_eq!(sealed(0, &[&[0; 4096], b"x"]), Err(error));
        let last = (1 << 48) - 1;
        assert_eq!(sealed(last, &[&[0; 4096]]), Ok(()));
        for first_block in [last + 1, u64::MAX] {
            let error = SealError::BeyondMaximum { first_block };
            assert_eq!(sealed(first_block, &[b"x"]), Err(error));
        }
    }

    #[test]
    fn each_sealing_draws_a_new_nonce_and_counts_within_the_span() {
        let (plain, key) = ([7; 10_000], key());
        let seal = || key.seal(0, 2, &[&plain], Buffer::unpooled(20_000)).unwrap();
        let (first, second) = (seal(), seal());
        assert_eq!(first.nonces().count(), 3);
        for (block, nonce) in first.nonces() {
            assert_eq!(nonce.as_bytes()[20..], u32::try_from(block).unwrap().to_be_bytes());
            assert_eq!(nonce.as_bytes()[..20], first.nonce(0).as_bytes()[..20]);
            assert_ne!(nonce.as_bytes()[..20], second.nonce(block).as_bytes()[..20]);
        }
        assert_ne!(first.bytes()[48..], second.bytes()[48..]);
    }

    #[test]
    fn slices_of_a_sealed_span_are_its_blocks() {
        let sealed = seal_fixed(&[&[5; 4096 * 2 + 9]]);
        assert_eq!(sealed.blocks(), 3..6);
        assert_eq!(sealed.bytes().len(), 2 * 4144 + 48 + 9);
        assert_eq!(sealed.plaintext_len(), 4096 * 2 + 9);
        assert_eq!(sealed.stored_start(), 8192 + 3 * 4144);
        let joined: Vec<u8> =
            (3..6).flat_map(|block| sealed.block_bytes_of(block).to_vec()).collect();
        assert_eq!(joined, sealed.bytes());
        let tail = sealed.slice(4..6);
        assert_eq!(tail.bytes(), &sealed.bytes()[4144..]);
        assert_eq!(tail.plaintext_len(), 4096 + 9);
        let middle = tail.slice(4..5);
        assert_eq!(middle.bytes(), &sealed.bytes()[4144..8288]);
        assert_eq!(middle.plaintext_len(), 4096);
        assert_eq!(middle.nonce(4), sealed.nonce(4));
        assert!(sealed.slice(6..6).bytes().is_empty());
        assert_eq!(format!("{middle:?}"), "Sealed { blocks: 4..5, len_bytes: 4144 }");
    }

    #[test]
    #[should_panic(expected = "not within")]
    fn a_slice_outside_panics() {
        drop(seal_fixed(&[b"x"]).slice(3..5));
    }

    proptest! {
        #[test]
        fn where_the_slices_are_cut_does_not_matter(
            len in 1_usize..20_000,
            cuts in proptest::collection::vec(0_usize..20_000, 0..12),
        ) {
            let plain: Vec<u8> = (0..=250).cycle().take(len).collect();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut % (len + 1)).collect();
            cuts.extend([0, len]);
            cuts.sort_unstable();
            let slices: Vec<&[u8]> = cuts.windows(2).map(|cut| &plain[cut[0]..cut[1]]).collect();
            let (whole, cut) = (seal_fixed(&[&plain]), seal_fixed(&slices));
            prop_assert_eq!(whole.bytes(), cut.bytes());
        }
    }
}

//! Nonces: drawn at random once per span, then counted within it, never given twice.
//!
//! `nonce = 12 random bytes || 8 random bytes || number within the span as u32, big-endian`
//!
//! The XAES subkey depends on the first 12 bytes alone, so it is derived once per span.

use std::fmt;

use crate::bytes;
use crate::random::{self, RandomError};

/// The 24 bytes that stand at the head of a sealed block; a block sealed anew always has another.
#[derive(Clone, Copy, Hash, PartialEq, Eq)]
pub struct Nonce([u8; 24]);

impl Nonce {
    /// Takes the nonce as it is stored.
    pub const fn from_bytes(bytes: [u8; 24]) -> Nonce {
        Nonce(bytes)
    }

    /// The 24 bytes, as they are stored.
    pub const fn as_bytes(&self) -> &[u8; 24] {
        &self.0
    }

    /// Whether all bytes are zero, as they are where nothing was ever sealed.
    pub fn is_zero(&self) -> bool {
        self.0 == [0; 24]
    }

    /// The first 12 bytes, on which the XAES subkey depends.
    pub(crate) fn derivation_part(&self) -> [u8; 12] {
        bytes::field(&self.0, 0)
    }

    /// The last 12 bytes, which are the nonce of AES-GCM.
    pub(crate) fn gcm_part(&self) -> [u8; 12] {
        bytes::field(&self.0, 12)
    }
}

impl fmt::Debug for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        bytes::write_hex(f, &self.0)
    }
}

/// The nonces of one span, in order; the only maker of nonces for blocks.
///
/// Not `Clone`: a copy would give the same nonces again.
pub(crate) struct SpanNonces {
    random: [u8; 20],
    /// The next number; `None` when all 2^32 are spent.
    next: Option<u32>,
}

impl SpanNonces {
    /// Draws the span's 20 random bytes.
    pub(crate) fn draw() -> Result<SpanNonces, RandomError> {
        let mut random = [0; 20];
        random::fill(&mut random)?;
        Ok(SpanNonces::from_random(random))
    }

    /// Known-answer tests come in here; everything else through `draw`.
    pub(crate) fn from_random(random: [u8; 20]) -> SpanNonces {
        SpanNonces { random, next: Some(0) }
    }

    pub(crate) fn derivation_part(&self) -> [u8; 12] {
        bytes::field(&self.random, 0)
    }

    /// The next nonce, or `None` after 2^32 of them.
    pub(crate) fn give(&mut self) -> Option<Nonce> {
        let number = self.next?;
        self.next = number.checked_add(1);
        let mut nonce = [0; 24];
        nonce[..20].copy_from_slice(&self.random);
        nonce[20..].copy_from_slice(&number.to_be_bytes());
        Some(Nonce(nonce))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_big_endian_and_end_after_the_last() {
        let mut nonces = SpanNonces::from_random([7; 20]);
        assert_eq!(nonces.give().unwrap().as_bytes()[20..], [0, 0, 0, 0]);
        assert_eq!(nonces.give().unwrap().as_bytes()[20..], [0, 0, 0, 1]);
        nonces.next = Some(u32::MAX);
        assert_eq!(nonces.give().unwrap().as_bytes()[20..], [255; 4]);
        assert_eq!(nonces.give(), None, "the counter must not begin anew");
    }

    #[test]
    fn two_spans_draw_different_nonces() {
        let first = SpanNonces::draw().unwrap().give().unwrap();
        let second = SpanNonces::draw().unwrap().give().unwrap();
        assert_ne!(first.derivation_part(), second.derivation_part());
        assert_ne!(first.gcm_part(), second.gcm_part());
        assert!(!first.is_zero() && Nonce::from_bytes([0; 24]).is_zero());
    }
}

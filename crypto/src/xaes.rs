//! XAES-256-GCM: AES-256-GCM under a subkey drawn from the first half of a 24-byte nonce.
//!
//! ```text
//!  L  = AES[K](0^16)          K1 = L << 1, xor 0x87 in the last byte if L's first bit is set
//!  Kx = AES[K](00 01 58 00 || N[..12] xor K1) || AES[K](00 02 58 00 || N[..12] xor K1)
//!  ciphertext, tag = AES-256-GCM[Kx](N[12..], aad, plaintext)
//! ```
//! <https://c2sp.org/XAES-256-GCM>. What depends on K alone is computed once per key.

use aes::cipher::{BlockCipherEncrypt, KeyInit};
use aes::{Aes256, Block};
use zeroize::{ZeroizeOnDrop, Zeroizing};

use crate::cipher::{Cipher, Engine, Refused};
use crate::nonce::Nonce;

/// A key of XAES-256-GCM, made ready; wiped when dropped.
pub(crate) struct Xaes {
    /// K's key schedule.
    aes: Aes256,
    k1: Zeroizing<[u8; 16]>,
}

impl Xaes {
    pub(crate) fn new(key: &[u8; 32]) -> Xaes {
        let aes = Aes256::new(key.into());
        let mut l = Zeroizing::new([0; 16]);
        aes.encrypt_block((&mut *l).into());
        let mut k1 = Zeroizing::new([0; 16]);
        let mut carry = 0;
        for (to, from) in k1.iter_mut().zip(l.iter()).rev() {
            *to = from << 1 | carry;
            carry = from >> 7;
        }
        // A mask and no branch: which way it goes is secret.
        k1[15] ^= 0x87 & 0_u8.wrapping_sub(carry);
        Xaes { aes, k1 }
    }

    /// `Kx` for all nonces that begin with these 12 bytes.
    pub(crate) fn subkey(&self, derivation_part: [u8; 12]) -> Zeroizing<[u8; 32]> {
        let mut subkey = Zeroizing::new([0; 32]);
        for (half, number) in subkey.chunks_exact_mut(16).zip([1, 2]) {
            half[..4].copy_from_slice(&[0, number, b'X', 0]);
            half[4..].copy_from_slice(&derivation_part);
            for (byte, mask) in half.iter_mut().zip(self.k1.iter()) {
                *byte ^= mask;
            }
            let half: &mut Block = half.try_into().expect("half a subkey is 16 bytes");
            self.aes.encrypt_block(half);
        }
        subkey
    }

    /// Seals one message whole; blocks are sealed by the span instead, in `seal.rs`.
    pub(crate) fn seal(
        &self,
        engine: Engine,
        nonce: Nonce,
        aad: &[u8],
        plain: &[u8],
        sealed: &mut [u8],
    ) -> [u8; 16] {
        let subkey = self.subkey(nonce.derivation_part());
        Cipher::new(engine, &subkey).seal(&nonce.gcm_part(), aad, plain, sealed)
    }

    /// Opens one message whole. `plain` is all zeros if it is refused.
    pub(crate) fn open(
        &self,
        engine: Engine,
        nonce: Nonce,
        aad: &[u8],
        (sealed, tag): (&[u8], &[u8; 16]),
        plain: &mut [u8],
    ) -> Result<(), Refused> {
        let subkey = self.subkey(nonce.derivation_part());
        Cipher::new(engine, &subkey).open(&nonce.gcm_part(), aad, (sealed, tag), plain)
    }

    #[cfg(test)]
    pub(crate) fn k1(&self) -> &[u8; 16] {
        &self.k1
    }
}

// Both fields wipe themselves: `Aes256` by its feature `zeroize`, `k1` as it is `Zeroizing`.
impl ZeroizeOnDrop for Xaes {}

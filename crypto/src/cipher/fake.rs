//! A fake cipher for tests: quick, no secrecy, but wrong inputs are noticed.
//!
//! `ciphertext = plaintext xor stream(nonce)`; the tag is a checksum of key, nonce, aad, length and
//! every byte of the ciphertext. It is built with the feature `testkit` alone, and it is here and
//! not behind an open trait because such a trait would let anyone make a `Sealed` of plaintext.

use zeroize::Zeroizing;

/// A key of the fake cipher.
pub(crate) struct Fake {
    key: Zeroizing<[u64; 4]>,
}

impl Fake {
    pub(crate) fn new(key: &[u8; 32]) -> Fake {
        let mut words = Zeroizing::new([0; 4]);
        for (word, bytes) in words.iter_mut().zip(key.chunks_exact(8)) {
            *word = word_of(bytes);
        }
        Fake { key: words }
    }

    pub(crate) fn seal(
        &self,
        nonce: &[u8; 12],
        aad: &[u8],
        plain: &[u8],
        sealed: &mut [u8],
    ) -> [u8; 16] {
        self.xor(nonce, plain, sealed);
        self.checksum(nonce, aad, sealed)
    }

    /// Whether the tag was right; only then is anything written.
    pub(crate) fn open(
        &self,
        nonce: &[u8; 12],
        aad: &[u8],
        (sealed, tag): (&[u8], &[u8; 16]),
        plain: &mut [u8],
    ) -> bool {
        let right = self.checksum(nonce, aad, sealed) == *tag;
        if right {
            self.xor(nonce, sealed, plain);
        }
        right
    }

    /// Adds the stream; the same again takes it off. Rows of four words, which the compiler
    /// turns into vectors.
    fn xor(&self, nonce: &[u8; 12], from: &[u8], to: &mut [u8]) {
        let mut stream = self.absorb(nonce, &[]);
        let (from_rows, from_rest) = from.as_chunks::<32>();
        let (to_rows, to_rest) = to.as_chunks_mut::<32>();
        for (to, from) in to_rows.iter_mut().zip(from_rows) {
            *to = xor_row(from, &stream);
            for word in &mut stream {
                *word = word.wrapping_add(ODD[0]);
            }
        }
        let mut last = [0; 32];
        last[..from_rest.len()].copy_from_slice(from_rest);
        to_rest.copy_from_slice(&xor_row(&last, &stream)[..from_rest.len()]);
    }

    /// Each step is a bijection of its lane, so a single changed word always changes the tag.
    fn checksum(&self, nonce: &[u8; 12], aad: &[u8], sealed: &[u8]) -> [u8; 16] {
        let mut lanes = self.absorb(nonce, aad);
        let mut rows = sealed.chunks_exact(32);
        for row in &mut rows {
            for ((lane, word), odd) in lanes.iter_mut().zip(row.chunks_exact(8)).zip(ODD) {
                *lane = step(*lane, word_of(word), odd);
            }
        }
        for ((lane, word), odd) in lanes.iter_mut().zip(rows.remainder().chunks(8)).zip(ODD) {
            *lane = step(*lane, word_of(word), odd);
        }
        lanes[0] = step(lanes[0], sealed.len() as u64, ODD[1]);
        // Round and round, until each lane has reached both halves of the tag.
        for _ in 0..2 {
            for lane in 0..4 {
                lanes[(lane + 1) % 4] = step(lanes[(lane + 1) % 4], lanes[lane], ODD[lane]);
            }
        }
        let mut tag = [0; 16];
        tag[..8].copy_from_slice(&lanes[0].to_le_bytes());
        tag[8..].copy_from_slice(&lanes[1].to_le_bytes());
        tag
    }

    fn absorb(&self, nonce: &[u8; 12], aad: &[u8]) -> [u64; 4] {
        let mut lanes = *self.key;
        for (at, bytes) in nonce.chunks(8).chain(aad.chunks(8)).enumerate() {
            for (lane, odd) in lanes.iter_mut().zip(ODD) {
                *lane = step(*lane, word_of(bytes) ^ at as u64, odd);
            }
        }
        lanes
    }
}

fn xor_row(row: &[u8; 32], stream: &[u64; 4]) -> [u8; 32] {
    let mut out = [0; 32];
    for ((out, word), stream) in out.chunks_exact_mut(8).zip(row.chunks_exact(8)).zip(stream) {
        out.copy_from_slice(&(word_of(word) ^ stream).to_le_bytes());
    }
    out
}

fn step(lane: u64, word: u64, odd: u64) -> u64 {
    (lane ^ word).wrapping_mul(odd).rotate_left(29)
}

/// Up to 8 bytes as a little-endian number.
fn word_of(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    word[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(word)
}

/// Odd, so that multiplying by them loses nothing.
const ODD: [u64; 4] =
    [0x9e37_79b9_7f4a_7c15, 0xbf58_476d_1ce4_e5b9, 0x94d0_49bb_1331_11eb, 0xd6e8_feb8_6659_fd93];

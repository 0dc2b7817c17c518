//! Plaintext in passing: bytes that are wiped when they are dropped.
//!
//! A block's way through memory that is neither the caller's nor a folio's. `Zeroizing<Vec<u8>>` would be wiped
//! byte by byte, which for 16 KiB takes longer than sealing them; and where it grows it leaves behind what it
//! was.

use std::{
    fmt,
    ops::{Deref, DerefMut},
};

use zeroize::Zeroize;

/// As many bytes as it was made with, or fewer. `Debug` prints how many.
#[derive(Default)]
pub struct Plaintext(Vec<u8>);

impl Plaintext {
    /// So many zeros.
    #[must_use]
    pub fn zeros(len: usize) -> Plaintext {
        Plaintext(vec![0; len])
    }

    /// Keeps the first `len` bytes, if there are more, and wipes the others.
    pub fn truncate(&mut self, len: usize) {
        if let Some(behind) = self.get_mut(len..) {
            behind.zeroize();
        }
        self.0.truncate(len);
    }
}

impl From<&[u8]> for Plaintext {
    fn from(bytes: &[u8]) -> Plaintext {
        Plaintext(bytes.into())
    }
}

impl Deref for Plaintext {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Plaintext {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl AsRef<[u8]> for Plaintext {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for Plaintext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Plaintext").field(&self.len()).finish()
    }
}

impl Drop for Plaintext {
    fn drop(&mut self) {
        // The slice: the vector would be wiped byte by byte.
        self.deref_mut().zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_gets_shorter_only_and_is_not_printed() {
        let mut plaintext = Plaintext::from(&b"for your eyes only"[..]);
        plaintext.truncate(100);
        assert_eq!(*plaintext, b"for your eyes only"[..]);
        plaintext.truncate(8);
        assert_eq!((&*plaintext, &*format!("{plaintext:?}")), (&b"for your"[..], "Plaintext(8)"));
        assert!(Plaintext::zeros(3).iter().all(|byte| *byte == 0));
    }
}

//! Root keys and file ids: what a client holds and what it may remember.
//!
//! A root key comes in from a key file or from the operating system's random source and never
//! goes out but by [`RootKey::as_bytes`], for whoever writes the key file. What is derived from it
//! is in `derive.rs`.

use std::str::FromStr;
use std::{error, fmt};

use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::bytes;
use crate::derive::Secret;
use crate::random::{self, RandomError};

/// The 32 secret bytes that open a client's files; wiped when dropped.
///
/// They lie on the heap, so that moving the key leaves no copy behind.
pub struct RootKey(Secret);

impl RootKey {
    /// Draws a new key from the operating system.
    ///
    /// # Errors
    /// The operating system gave no random bytes.
    pub fn generate() -> Result<RootKey, RandomError> {
        let mut key = RootKey::zeroed();
        random::fill(&mut key.0[..])?;
        Ok(key)
    }

    /// Reads a key file's content: 32 raw bytes, else 64 hex digits of either case and at most
    /// one newline after them.
    ///
    /// # Errors
    /// The length fits neither form, or one of the 64 is not a hex digit.
    pub fn parse(bytes: &[u8]) -> Result<RootKey, KeyError> {
        let mut key = RootKey::zeroed();
        if bytes.len() == 32 {
            key.0.copy_from_slice(bytes);
            return Ok(key);
        }
        let digits = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        if digits.len() != 64 {
            let len_bytes = bytes.len();
            return Err(KeyError::Length { len_bytes });
        }
        bytes::read_hex(digits, &mut key.0[..]).map_err(|at| KeyError::NotHex { at })?;
        Ok(key)
    }

    /// Copies the key from where it is; wiping that place stays with the caller.
    pub fn from_bytes(bytes: &[u8; 32]) -> RootKey {
        let mut key = RootKey::zeroed();
        key.0.copy_from_slice(bytes);
        key
    }

    /// The secret bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// A place on the heap in which the key is then made.
    fn zeroed() -> RootKey {
        RootKey(Box::new(Zeroizing::new([0; 32])))
    }
}

impl fmt::Debug for RootKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RootKey(..)")
    }
}

impl Zeroize for RootKey {
    fn zeroize(&mut self) {
        self.0.zeroize();
    }
}

// The field is `Zeroizing`, whose drop wipes it where it lies.
impl ZeroizeOnDrop for RootKey {}

/// Why a key file holds no root key. Says nothing of its content but a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyError {
    /// Neither 32 bytes nor 64 hex digits and at most one newline.
    Length {
        /// Bytes that were there.
        len_bytes: usize,
    },
    /// One of the 64 is not a hex digit.
    NotHex {
        /// Its index, from 0.
        at: usize,
    },
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeyError::Length { len_bytes } => write!(
                f,
                "a root key is 32 raw bytes, or 64 hex digits and at most one newline, \
                 but {len_bytes} bytes were given"
            ),
            KeyError::NotHex { at } => {
                write!(f, "root key: byte {at} of the key file is not a hex digit")
            }
        }
    }
}

impl error::Error for KeyError {}

/// A sealed file's name for life: 32 random bytes drawn when it is created. Not a secret.
#[derive(Clone, Copy, Hash, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileId([u8; 32]);

impl FileId {
    /// Takes the id as the header holds it.
    pub const fn from_bytes(bytes: [u8; 32]) -> FileId {
        FileId(bytes)
    }

    /// The id as the header holds it.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        bytes::write_hex(f, &self.0)
    }
}

impl fmt::Debug for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for FileId {
    type Err = FileIdError;

    fn from_str(digits: &str) -> Result<FileId, FileIdError> {
        let mut id = [0; 32];
        if digits.len() != 64 || bytes::read_hex(digits.as_bytes(), &mut id).is_err() {
            return Err(FileIdError);
        }
        Ok(FileId(id))
    }
}

/// A string is not the 64 hex digits of a file id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileIdError;

impl fmt::Display for FileIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a file id is 64 hex digits")
    }
}

impl error::Error for FileIdError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_files_of_either_form_are_read() {
        let raw: Vec<u8> = (0..32).map(|byte| byte * 7).collect();
        let hex: String = raw.iter().map(|byte| format!("{byte:02x}")).collect();
        let mixed = format!("{}{}", &hex[..20], hex[20..].to_uppercase());
        for form in [raw.clone(), hex.clone().into(), format!("{mixed}\n").into()] {
            assert_eq!(RootKey::parse(&form).unwrap().as_bytes()[..], raw);
        }
        let length = |len_bytes| KeyError::Length { len_bytes };
        for (bad, error) in [
            (String::new(), length(0)),
            (hex[1..].to_owned(), length(63)),
            (format!("{hex}\n\n"), length(66)),
            (format!("{hex}\r\n"), length(66)),
            (format!("\n{hex}"), length(65)),
            (format!("{}g", &hex[1..]), KeyError::NotHex { at: 63 }),
        ] {
            assert_eq!(RootKey::parse(bad.as_bytes()).unwrap_err(), error);
        }
    }

    #[test]
    fn keys_are_drawn_wiped_and_never_printed() {
        fn wiped<T: ZeroizeOnDrop>() {}
        wiped::<RootKey>();
        let mut key = RootKey::generate().unwrap();
        assert_ne!(key.as_bytes(), RootKey::generate().unwrap().as_bytes());
        assert_eq!(format!("{key:?}"), "RootKey(..)");
        key.zeroize();
        assert_eq!(key.as_bytes(), &[0; 32]);
    }

    #[test]
    fn a_file_id_is_read_back_from_what_it_prints() {
        let id = FileId::from_bytes([0xa5; 32]);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!("a5".parse::<FileId>(), Err(FileIdError));
    }
}

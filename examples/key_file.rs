//! Key files: 32 raw bytes, or 64 hex digits and at most one newline.

use std::{
    error, fmt,
    fs::File,
    io::{self, Read},
    path::Path,
};

use sealback::crypto::{KeyError, RootKey};
use zeroize::Zeroizing;

/// Why a file is no key file.
#[derive(Debug)]
pub enum BadKeyFile {
    /// It holds something else.
    Content(KeyError),
    /// It is larger than one can be.
    TooLong,
    /// It cannot be read.
    Unread(io::Error),
}

/// Reads a key file. Its bytes are wiped wherever they were.
///
/// # Errors
/// [`BadKeyFile`] says why it is none.
pub fn read(path: &Path) -> Result<RootKey, BadKeyFile> {
    let mut file = File::open(path).map_err(BadKeyFile::Unread)?;
    let mut bytes = Zeroizing::new([0; LONGEST + 1]);
    let mut len = 0;
    while len < bytes.len() {
        match file.read(&mut bytes[len..]) {
            Ok(0) => break,
            Ok(n) => len += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(BadKeyFile::Unread(error)),
        }
    }
    if len > LONGEST {
        return Err(BadKeyFile::TooLong);
    }
    RootKey::parse(&bytes[..len]).map_err(BadKeyFile::Content)
}

impl fmt::Display for BadKeyFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadKeyFile::Content(error) => error.fmt(f),
            BadKeyFile::TooLong => write!(f, "over {LONGEST} bytes, so it holds no root key"),
            BadKeyFile::Unread(error) => error.fmt(f),
        }
    }
}

impl error::Error for BadKeyFile {}

/// 64 hex digits and a newline.
const LONGEST: usize = 65;

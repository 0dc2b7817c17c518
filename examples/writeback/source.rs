//! What is written to a sealed file: a file, or a stream.

use std::{
    fs::{File, Metadata},
    io::{self, Read},
    path::Path,
};

use crate::failure::Failure;

/// Plaintext to be written.
pub(crate) struct Source {
    pub(crate) reader: Box<dyn Read>,
    /// What it is called in errors.
    pub(crate) shown: String,
    /// Its length in bytes, where that is known.
    pub(crate) len_bytes: Option<u64>,
    /// What the system knows of it; nothing for standard input.
    pub(crate) metadata: Option<Metadata>,
}

impl Source {
    /// Opens a file; `-` is standard input.
    pub(crate) fn open(path: &Path) -> Result<Source, Failure> {
        if path.as_os_str() == "-" {
            return Ok(Source {
                reader: Box::new(io::stdin()),
                shown: "standard input".to_owned(),
                len_bytes: None,
                metadata: None,
            });
        }
        let shown = path.display().to_string();
        let failure = |error: io::Error| Failure::of(&shown, error);
        let file = File::open(path).map_err(failure)?;
        let metadata = file.metadata().map_err(failure)?;
        if metadata.is_dir() {
            return Err(Failure::of(&shown, "is a directory, not a file"));
        }
        let len_bytes = metadata.is_file().then_some(metadata.len());
        Ok(Source { reader: Box::new(file), shown, len_bytes, metadata: Some(metadata) })
    }
}

//! What a file's header says, and what is stored, for its client.

use std::ops::Range;

use sealback_crypto::{FileId, HEADER_BYTES, PREFIX_BYTES};

use crate::{BlockReport, CacheReport, Error, File};

impl File {
    /// What the header says now.
    pub fn info(&self) -> FileInfo {
        let header = self.file.header();
        let view = header.view();
        FileInfo {
            file_id: header.file_id(),
            block_bytes: header.geometry().block_bytes(),
            generation: view.generation,
            size: view.size,
            cuts: header.cuts(),
            holes: view.holes,
            cut_pending: header.cut_pending(),
        }
    }

    /// Opens every block that is stored, from the server alone, and tells what it found: the
    /// block's number, and what the server holds there.
    ///
    /// # Errors
    /// [`Error::Server`] if the server does not answer. Damage is told, not returned.
    pub fn verify(&self, each: impl FnMut(u64, &BlockReport)) -> Result<(), Error> {
        crate::verify::verify(&self.file, each)
    }

    /// Compares the cache's copy with the server's file, block by block: what its record calls
    /// present should be, byte for byte, what the server has. Returns whether there is a copy in
    /// use at all. Changes nothing.
    ///
    /// # Errors
    /// [`Error::Server`] if the server does not answer.
    pub fn verify_cache(&self, each: impl FnMut(u64, CacheReport)) -> Result<bool, Error> {
        crate::verify::verify_cache(&self.file, each)
    }
}

/// What a file's header says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileInfo {
    /// The file's id.
    pub file_id: FileId,
    /// The block size in bytes.
    pub block_bytes: u64,
    /// How many headers were committed.
    pub generation: u64,
    /// The size in bytes of plaintext.
    pub size: u64,
    /// How often the size has gone down.
    pub cuts: u64,
    /// Blocks that may be holes.
    pub holes: Range<u64>,
    /// A cut of the stored file is still to be made.
    pub cut_pending: bool,
}

impl FileInfo {
    /// Bytes that the dense sealed file takes on the server.
    pub fn stored_bytes(&self) -> u64 {
        let n_blocks = self.size.div_ceil(self.block_bytes);
        HEADER_BYTES as u64 + n_blocks * PREFIX_BYTES as u64 + self.size
    }
}

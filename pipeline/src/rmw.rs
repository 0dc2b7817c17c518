//! Read-modify-write: lays what was dirtied here over a block that somebody else has changed.
//!
//! The block's dirty bytes are taken from what was sealed for it, not from a folio, which may have
//! moved on; and only exactly they: what was not written here does not overwrite what was written
//! elsewhere.

use std::{collections::VecDeque, error, fmt, ops::Range};

use sealback_crypto::{
    BlockDamage, Buffer, ContentKey, FileView, Geometry, Nonce, SealError, Sealed, Stored, Verdict,
};
use sealback_stream::Expected;
use zeroize::{Zeroize, Zeroizing};

use crate::ranges::index_of;

/// A block that met somebody else's change.
#[derive(Clone, Debug)]
pub struct Merge {
    /// Its number.
    pub block: u64,
    /// What was sealed for it here.
    pub ours: Sealed,
    /// The positions in the file that were dirty here, ascending.
    pub dirty: Vec<Range<u64>>,
}

/// Both changes in one block.
#[derive(Debug)]
pub struct Merged {
    /// The block, sealed anew.
    pub sealed: Sealed,
    /// What it was made of: what must still be stored when it is written.
    pub expected: Expected,
    /// All of its plaintext.
    pub plain: Zeroizing<Vec<u8>>,
}

/// Why a block could not be merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MergeError {
    /// What is stored does not open.
    Damaged(BlockDamage),
    /// It could not be sealed.
    Seal(SealError),
}

impl fmt::Display for MergeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MergeError::Damaged(damage) => damage.fmt(f),
            MergeError::Seal(error) => error.fmt(f),
        }
    }
}

impl error::Error for MergeError {}

impl Merge {
    /// Lays the dirty bytes over what is stored now. Of that so many bytes count, from the block's start:
    /// what lies behind the committed size is nobody's for who has the size lock, and what is being cut
    /// off is gone.
    ///
    /// # Errors
    /// What is stored does not open, or sealing failed.
    pub fn run(
        &self,
        key: &ContentKey,
        seal_gen: u32,
        stored: Stored,
        their_bytes: u64,
    ) -> Result<Merged, MergeError> {
        let geometry = key.geometry();
        let start = geometry.block_start(self.block);
        let nonce = stored.nonce(geometry, 0);
        let (mut plain, their_len) = match their_bytes {
            0 => (Zeroizing::new(vec![0; block_len(geometry)]), 0),
            _ => open(key, self.block, stored).map_err(MergeError::Damaged)?,
        };
        let their_len = their_len.min(index_of(their_bytes));
        plain[their_len..].zeroize();
        let (ours, our_len) = open(key, self.block, self.stored()).map_err(MergeError::Damaged)?;
        for dirty in &self.dirty {
            let range = index_of(dirty.start - start)..index_of(dirty.end - start);
            plain[range.clone()].copy_from_slice(&ours[range]);
        }
        plain.truncate(their_len.max(our_len));
        seal(key, seal_gen, self.block, nonce, plain)
    }

    /// What was sealed here, as if it had been read.
    fn stored(&self) -> Stored {
        let bytes = self.ours.bytes();
        let mut buffer = Buffer::unpooled(bytes.len());
        buffer.copy_from_slice(bytes);
        Stored { len: bytes.len(), buffer }
    }
}

/// Seals a block anew that holds more than `len` bytes, without what is behind them; `None` if it
/// holds no more.
///
/// # Errors
/// What is stored does not open, or sealing failed.
pub(crate) fn trim(
    key: &ContentKey,
    seal_gen: u32,
    block: u64,
    stored: Stored,
    len: usize,
) -> Result<Option<Merged>, MergeError> {
    let nonce = stored.nonce(key.geometry(), 0);
    let (mut plain, stored_len) = open(key, block, stored).map_err(MergeError::Damaged)?;
    if stored_len <= len {
        return Ok(None);
    }
    plain[len..].zeroize();
    plain.truncate(len);
    seal(key, seal_gen, block, nonce, plain).map(Some)
}

/// Seals one block, and says what it was made of.
fn seal(
    key: &ContentKey,
    seal_gen: u32,
    block: u64,
    nonce: Option<Nonce>,
    plain: Zeroizing<Vec<u8>>,
) -> Result<Merged, MergeError> {
    let buffer = Buffer::unpooled(index_of(key.geometry().span_bytes(plain.len() as u64)));
    let sealed = key.seal(block, seal_gen, &[&plain], buffer).map_err(MergeError::Seal)?;
    let expected = nonce.map_or(Expected::Absent, Expected::Nonce);
    Ok(Merged { sealed, expected, plain })
}

/// Opens one block, whatever its length: a block of plaintext with zeros behind, and its length.
fn open(
    key: &ContentKey,
    block: u64,
    stored: Stored,
) -> Result<(Zeroizing<Vec<u8>>, usize), BlockDamage> {
    let geometry = key.geometry();
    let mut plain = Zeroizing::new(vec![0; block_len(geometry)]);
    // Any length and any hole will do, and whose header speaks for it is for the commit to say.
    let (size, holes) = (geometry.block_start(block + 1), block..block + 1);
    let view = FileView { size, generation: u64::MAX - 1, holes };
    let opened = key.open(&view, block, stored, &mut plain);
    match opened.verdicts().first() {
        Some(Verdict::Opened { len, .. }) => Ok((plain, index_of(u64::from(*len)))),
        Some(Verdict::Damaged(damage)) => Err(*damage),
        _ => Ok((plain, 0)),
    }
}

fn block_len(geometry: Geometry) -> usize {
    index_of(geometry.block_bytes())
}

/// The blocks of a request that are to be merged before anything is sent again; one at a time.
#[derive(Debug, Default)]
pub(crate) struct Merger {
    waiting: VecDeque<u64>,
    running: Option<u64>,
    /// What was merged and is to be sent again.
    done: Vec<u64>,
}

impl Merger {
    pub(crate) fn add(&mut self, block: u64) {
        if !self.waiting.contains(&block) {
            self.waiting.push_back(block);
        }
    }

    /// Whether something is still to be merged.
    pub(crate) fn is_busy(&self) -> bool {
        self.is_running() || !self.waiting.is_empty()
    }

    pub(crate) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// The next block to merge, if none is being merged.
    pub(crate) fn start(&mut self) -> Option<u64> {
        if self.is_running() {
            return None;
        }
        self.running = self.waiting.pop_front();
        self.running
    }

    /// The block that was being merged has been, or could not be.
    pub(crate) fn ended(&mut self) {
        self.done.extend(self.running.take());
    }

    /// Takes the blocks that were merged, ascending.
    pub(crate) fn take_done(&mut self) -> Vec<u64> {
        let mut done = std::mem::take(&mut self.done);
        done.sort_unstable();
        done.dedup();
        done
    }
}

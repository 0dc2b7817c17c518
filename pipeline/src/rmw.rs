//! Read-modify-write: lays what was dirtied here over a block that somebody else has changed.
//!
//! The block's dirty bytes are taken from what was sealed for it, not from a folio, which may have
//! moved on; and only exactly they: what was not written here does not overwrite what was written
//! elsewhere.

use std::{collections::VecDeque, error, fmt, ops::Range};

use sealback_crypto::{
    BlockDamage, Buffer, ContentKey, FileView, Geometry, Nonce, Plaintext, SealError, Sealed,
    Stored, Verdict,
};
use sealback_stream::Expected;
use zeroize::Zeroize;

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

/// How much counts of what is stored for a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Theirs {
    /// At most so many bytes from its start: what lies behind the committed size is nobody's for who has
    /// the size lock.
    First(u64),
    /// All of it, or nothing if it does not open: it is left from a crash.
    IfItOpens,
}

/// Both changes in one block.
#[derive(Debug)]
pub struct Merged {
    /// The block, sealed anew.
    pub sealed: Sealed,
    /// What it was made of: what must still be stored when it is written.
    pub expected: Expected,
    /// All of its plaintext.
    pub plain: Plaintext,
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
    /// Lays the dirty bytes over what counts of what is stored now.
    ///
    /// # Errors
    /// What is stored does not open, or sealing failed.
    pub fn run(
        &self,
        key: &ContentKey,
        seal_gen: u32,
        stored: Stored,
        theirs: Theirs,
    ) -> Result<Merged, MergeError> {
        let geometry = key.geometry();
        let start = geometry.block_start(self.block);
        let nonce = stored.nonce(geometry, 0);
        let nothing = || (Plaintext::zeros(block_len(geometry)), 0);
        let (mut plain, mut their_len) = match theirs {
            Theirs::First(0) => nothing(),
            Theirs::First(_) => open(key, self.block, stored).map_err(MergeError::Damaged)?,
            Theirs::IfItOpens => open(key, self.block, stored).unwrap_or_else(|_| nothing()),
        };
        if let Theirs::First(bytes) = theirs {
            their_len = their_len.min(index_of(bytes));
            plain[their_len..].zeroize();
        }
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
    plain.truncate(len);
    seal(key, seal_gen, block, nonce, plain).map(Some)
}

/// Whether a block opens, of whatever length; a hole does.
pub(crate) fn opens(key: &ContentKey, block: u64, stored: Stored) -> bool {
    open(key, block, stored).is_ok()
}

/// Seals one block, and says what it was made of.
fn seal(
    key: &ContentKey,
    seal_gen: u32,
    block: u64,
    nonce: Option<Nonce>,
    plain: Plaintext,
) -> Result<Merged, MergeError> {
    let buffer = Buffer::unpooled(index_of(key.geometry().span_bytes(plain.len() as u64)));
    let sealed = key.seal(block, seal_gen, &[&plain], buffer).map_err(MergeError::Seal)?;
    let expected = Expected::of(nonce);
    Ok(Merged { sealed, expected, plain })
}

/// The greatest: no block was sealed for a later one.
const ANY_GENERATION: u64 = u64::MAX;

/// Opens one block, whatever its length: a block of plaintext with zeros behind, and its length.
fn open(key: &ContentKey, block: u64, stored: Stored) -> Result<(Plaintext, usize), BlockDamage> {
    let geometry = key.geometry();
    let mut plain = Plaintext::zeros(block_len(geometry));
    // Any length and any hole will do, and whose header speaks for it is for the commit to say.
    let (size, holes) = (geometry.block_start(block + 1), block..block + 1);
    let view = FileView { size, generation: ANY_GENERATION, holes };
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

    /// The block that is being merged, if one is, and how many wait.
    pub(crate) fn progress(&self) -> Option<(u64, usize)> {
        self.running.map(|block| (block, self.waiting.len()))
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

#[cfg(test)]
mod tests {
    use sealback_crypto::{DamageKind, Engine, Header, RootKey};

    use super::*;

    const BLOCK: usize = 4096;
    const GENERATION: u32 = 3;

    fn key() -> ContentKey {
        let geometry = Geometry::new(BLOCK as u64).expect("a block size");
        let root = RootKey::from_bytes(&[5; 32]);
        let new = Header::create(&root, geometry, Engine::AesGcm).expect("random bytes");
        new.header.content_key().clone()
    }

    fn sealed(key: &ContentKey, plain: &[u8]) -> Sealed {
        let plain = Plaintext::from(plain);
        seal(key, GENERATION, 1, None, plain).expect("it fits").sealed
    }

    fn stored(sealed: &Sealed) -> Stored {
        let merge = Merge { block: 1, ours: sealed.clone(), dirty: Vec::new() };
        merge.stored()
    }

    /// Twenty bytes of ours over forty of theirs, of which so many count.
    fn merged(their_bytes: u64) -> Vec<u8> {
        let key = key();
        let (ours, theirs) = (sealed(&key, &[1; 20]), sealed(&key, &[2; 40]));
        let start = BLOCK as u64;
        let dirty = vec![start + 5..start + 6, start + 6..start + 9];
        let merge = Merge { block: 1, ours, dirty };
        let counts = Theirs::First(their_bytes);
        let merged = merge.run(&key, GENERATION, stored(&theirs), counts).expect("both open");
        assert_eq!(merged.expected, Expected::Nonce(theirs.nonce(1)));
        let (plain, len) = open(&key, 1, stored(&merged.sealed)).expect("it opens");
        assert_eq!(plain[..len], merged.plain[..]);
        merged.plain.to_vec()
    }

    #[test]
    fn exactly_the_dirty_bytes_are_laid_over_what_counts_of_theirs() {
        let laid_over = |mut theirs: Vec<u8>| {
            theirs[5..9].fill(1);
            theirs
        };
        assert_eq!(merged(BLOCK as u64), laid_over(vec![2; 40]));
        let of_thirty = [vec![2; 30], vec![]].concat();
        assert_eq!(merged(30), laid_over(of_thirty));
        let of_seven = [vec![2; 7], vec![0; 13]].concat();
        assert_eq!(merged(7), laid_over(of_seven), "as long as ours");
        assert_eq!(merged(0), laid_over(vec![0; 20]));
    }

    #[test]
    fn what_does_not_open_is_an_error_unless_it_does_not_count() {
        let key = key();
        let ours = sealed(&key, &[1; 20]);
        let mut damaged = stored(&sealed(&key, &[2; 40]));
        let (last, start) = (damaged.len - 1, BLOCK as u64);
        damaged.buffer[last] ^= 1;
        let dirty = vec![start..start + 1, start + 3..start + 4];
        let merge = Merge { block: 1, ours, dirty };
        let copy = |stored: &Stored| {
            let mut buffer = Buffer::unpooled(stored.len);
            buffer.copy_from_slice(&stored.buffer[..stored.len]);
            Stored { len: stored.len, buffer }
        };
        let damage = BlockDamage { block: 1, kind: DamageKind::AlteredOrTorn };
        let error =
            merge.run(&key, GENERATION, copy(&damaged), Theirs::First(1)).expect_err("damaged");
        assert_eq!(error, MergeError::Damaged(damage));
        assert_eq!(error.to_string(), damage.to_string());
        let sealing = MergeError::Seal(SealError::NothingToSeal);
        assert_eq!(sealing.to_string(), SealError::NothingToSeal.to_string());
        for theirs in [Theirs::First(0), Theirs::IfItOpens] {
            let merged = merge.run(&key, GENERATION, copy(&damaged), theirs).expect("not counted");
            assert_eq!(merged.expected, Expected::Nonce(damaged.nonce(key.geometry(), 0).unwrap()));
            assert!(merged.plain.iter().all(|byte| *byte <= 1), "something of theirs");
        }
        let whole = stored(&sealed(&key, &[2; 40]));
        let merged = merge.run(&key, GENERATION, whole, Theirs::IfItOpens).expect("it opens");
        assert_eq!(*merged.plain, [vec![1, 2, 2, 1], vec![2; 36]].concat());
    }

    #[test]
    fn a_block_is_cut_to_its_length_if_it_is_longer() {
        let key = key();
        let block = sealed(&key, &[2; 40]);
        let trimmed = |len| trim(&key, GENERATION, 1, stored(&block), len).expect("it opens");
        assert!(trimmed(40).is_none() && trimmed(41).is_none());
        let shorter = trimmed(39).expect("it is longer");
        assert_eq!(*shorter.plain, vec![2; 39]);
        assert_eq!(shorter.expected, Expected::Nonce(block.nonce(1)));
        let (_, len) = open(&key, 1, stored(&shorter.sealed)).expect("it opens");
        assert_eq!(len, 39);
    }
}

//! Stored bytes to plaintext, and for each block a verdict.
//!
//! Called on the threads of a crypto pool with what a target had. What a block claims of itself
//! (length, seal_gen) is authenticated with it, so a verdict that rests on a claim is given only
//! after the block has authenticated.
//!
//! **Invariants:**
//! 1. Where a verdict is damage, that block's part of the plaintext is zeros.
//! 2. A block reads as zeros only within `FileView::holes`.

use std::ops::Range;
use std::{error, fmt};

use zeroize::Zeroize;

use crate::buffer::Buffer;
use crate::bytes;
use crate::cipher::Cipher;
use crate::content::ContentKey;
use crate::geometry::{Geometry, PREFIX_BYTES};
use crate::nonce::Nonce;
use crate::plaintext::Plaintext;
use crate::sealed::Sealed;

mod places;

use places::Places;

impl ContentKey {
    /// Opens what was stored for consecutive blocks from `first_block` on.
    ///
    /// `plain` is what the caller wants of the file from the start of `first_block` on; `stored`
    /// is what the target had from [`Geometry::stored_start`] on. Whole blocks must be asked of
    /// the target (n strides), for another writer may have sealed more into the last block than
    /// `view.size` says. There is one verdict for each block that `plain` touches. After the call
    /// each block's part of `plain` is its plaintext, or zeros for a hole or damage.
    ///
    /// # Panics
    /// `plain` does not lie within `view.size`, or `stored.len` is more than its buffer.
    pub fn open(
        &self,
        view: &FileView,
        first_block: u64,
        stored: Stored,
        plain: &mut [u8],
    ) -> Opened {
        self.open_into(view, first_block, stored, vec![plain])
    }

    /// As [`open`](ContentKey::open), into slices that are filled one after the other. A block that
    /// lies in one slice is opened where it is to be; one that crosses a border is copied.
    ///
    /// # Panics
    /// As for [`open`](ContentKey::open).
    pub fn open_into(
        &self,
        view: &FileView,
        first_block: u64,
        stored: Stored,
        plain: Vec<&mut [u8]>,
    ) -> Opened {
        let geometry = self.geometry();
        assert!(stored.len <= stored.buffer.len(), "no buffer holds so much");
        let mut places = Places::new(plain, geometry.block_len_max());
        let wanted = u64::try_from(places.left()).expect("memory is shorter than 2^64 bytes");
        let end = geometry
            .block_start(first_block)
            .checked_add(wanted)
            .expect("what is read lies within the file");
        assert!(end <= view.size, "what is read must lie within the file: {end} > {}", view.size);
        let mut opener = Opener { key: self, view, cipher: None, scratch: Plaintext::default() };
        let mut verdicts = Vec::with_capacity(places.left().div_ceil(geometry.block_len_max()));
        for block in first_block.. {
            if places.left() == 0 {
                break;
            }
            let stored = stored.block(geometry, verdicts.len());
            verdicts.push(places.next(|plain| opener.open_block(block, stored, plain)));
        }
        Opened { verdicts, geometry, first_block, stored }
    }
}

/// What the header says of the blocks: everything that decides how one reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileView {
    /// Bytes of plaintext in the file.
    pub size: u64,
    /// The header's generation.
    pub generation: u64,
    /// The blocks that may be holes or short (exclusive end); empty: none.
    pub holes: Range<u64>,
}

impl FileView {
    /// The seal_gen of what is sealed after this header was read: its generation + 1.
    ///
    /// `None` once that is over 2^32 - 1: nothing can be sealed in this file any more; its content
    /// must be written to a new one.
    pub fn seal_gen(&self) -> Option<u32> {
        u32::try_from(self.generation.checked_add(1)?).ok()
    }
}

/// What a target had stored for a run of blocks.
#[derive(Debug)]
pub struct Stored {
    /// Holds it from its first byte on.
    pub buffer: Buffer,
    /// How many bytes it is; fewer than asked for where the file ends.
    pub len: usize,
}

impl Stored {
    /// The nonce of the block at `index`, authentic or not; `None` where there is a hole or no
    /// whole prefix.
    pub fn nonce(&self, geometry: Geometry, index: usize) -> Option<Nonce> {
        let prefix = self.block(geometry, index).get(..PREFIX_BYTES)?;
        bytes::first_nonzero(prefix)?;
        Some(Nonce::from_bytes(bytes::field(prefix, 0)))
    }

    /// How many of the blocks, from the first on, it reaches: has a whole prefix of, or zeros in its
    /// place.
    pub fn n_reached(&self, geometry: Geometry) -> usize {
        let stride = geometry.stride_len();
        self.len / stride + usize::from(self.len % stride >= PREFIX_BYTES)
    }

    /// The prefix and the ciphertext of the block at `index`, by the length that its prefix claims,
    /// authentic or not; `None` where there is less.
    pub fn block_bytes(&self, geometry: Geometry, index: usize) -> Option<&[u8]> {
        let block = self.block(geometry, index);
        let len = bytes::u32_at(block.get(..PREFIX_BYTES)?, 40);
        block.get(..PREFIX_BYTES.checked_add(usize::try_from(len).ok()?)?)
    }

    /// What there is of the block at `index`, its stride at most.
    fn block(&self, geometry: Geometry, index: usize) -> &[u8] {
        let stride = geometry.stride_len();
        let start = index.saturating_mul(stride).min(self.len);
        let end = start.saturating_add(stride).min(self.len);
        &self.buffer[start..end]
    }
}

/// What came of opening: a verdict for each block, and the stored bytes.
#[derive(Debug)]
#[must_use]
pub struct Opened {
    verdicts: Vec<Verdict>,
    geometry: Geometry,
    first_block: u64,
    stored: Stored,
}

impl Opened {
    /// One for each block that was asked for, ascending.
    pub fn verdicts(&self) -> &[Verdict] {
        &self.verdicts
    }

    /// How the file is cut into blocks.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// The first damaged block, if any is.
    pub fn first_damage(&self) -> Option<&BlockDamage> {
        self.verdicts.iter().find_map(|verdict| match verdict {
            Verdict::Damaged(damage) => Some(damage),
            Verdict::Opened { .. } | Verdict::Hole => None,
        })
    }

    /// The nonce that is stored for `block`, authentic or not; `None` where there is a hole or
    /// no whole prefix, or if `block` was not asked for.
    pub fn nonce(&self, block: u64) -> Option<Nonce> {
        let index = usize::try_from(block.checked_sub(self.first_block)?).ok()?;
        self.verdicts.get(index)?;
        self.stored.nonce(self.geometry, index)
    }

    /// The server's own bytes, if all of them were verified and may go to a cache.
    ///
    /// `None` if any block is damaged or a hole, or a block before the last is not full: the bytes
    /// behind a short one are nobody's.
    pub fn into_sealed(self) -> Option<Sealed> {
        let n_blocks = self.verdicts.len() as u64;
        let all = self.first_block..self.first_block + n_blocks;
        self.into_sealed_runs().pop().filter(|run| run.blocks() == all)
    }

    /// The server's own bytes of each run of blocks, ascending, that were verified and may go to a
    /// cache: without what is damaged, holes, and blocks before the last that are not full.
    pub fn into_sealed_runs(self) -> Vec<Sealed> {
        let Opened { geometry, first_block, verdicts, stored } = self;
        let block_bytes = geometry.block_bytes();
        let len = |verdict: &Verdict| match verdict {
            Verdict::Opened { len, .. } => u64::from(*len),
            Verdict::Hole | Verdict::Damaged(_) => 0,
        };
        let Some(last) = verdicts.iter().rposition(|verdict| len(verdict) > 0) else {
            return Vec::new();
        };
        // A short one may stand at the very end, where nothing is behind it.
        let may_go = |index: usize| {
            len(&verdicts[index]) == block_bytes || (index == last && last + 1 == verdicts.len())
        };
        let plain_len = last as u64 * block_bytes + len(&verdicts[last]);
        let whole = Sealed::new(geometry, first_block, plain_len, stored.buffer);
        let mut runs = Vec::new();
        let mut index = 0;
        while let Some(first) = (index..=last).find(|index| may_go(*index)) {
            index = (first..=last).find(|index| !may_go(*index)).unwrap_or(last + 1);
            runs.push(whole.slice(first_block + first as u64..first_block + index as u64));
        }
        runs
    }
}

/// What was found of one block.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// It authenticated. Beyond `len` it reads as zeros, which its place in the hole range allows.
    Opened {
        /// Bytes of plaintext that are sealed in it: perhaps more than were asked for, perhaps
        /// fewer.
        len: u32,
        /// The generation that its writer was about to commit.
        seal_gen: u32,
    },
    /// Nothing is stored, and the header allows it; reads as zeros.
    Hole,
    /// It must not be used; reads as zeros so that nobody does.
    Damaged(BlockDamage),
}

/// One block that must not be used, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockDamage {
    /// Its number in the file.
    pub block: u64,
    /// What is wrong.
    pub kind: DamageKind,
}

impl fmt::Display for BlockDamage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "block {}: {}", self.block, self.kind)
    }
}

impl error::Error for BlockDamage {}

/// What is wrong with a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DamageKind {
    /// It does not authenticate: a byte was changed, it belongs elsewhere, or a crash tore it.
    AlteredOrTorn,
    /// The stored bytes end within it, or before it in the object where the file ends.
    CutShort,
    /// It was sealed after a later header than this one.
    HeaderPutBack,
    /// Nothing, or too little, is stored where the header allows no hole.
    Missing,
}

impl fmt::Display for DamageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DamageKind::AlteredOrTorn => "altered or torn (it does not authenticate)",
            DamageKind::CutShort => "cut short (the stored bytes end too early)",
            DamageKind::HeaderPutBack => "header put back (the block is of a later one)",
            DamageKind::Missing => "block missing or put back (no hole is allowed here)",
        })
    }
}

/// One call's opening of blocks, in order.
struct Opener<'a> {
    key: &'a ContentKey,
    view: &'a FileView,
    /// The last subkey, which blocks that were sealed together share.
    cipher: Option<([u8; 12], Cipher)>,
    /// Empty until a block holds more than is wanted of it.
    scratch: Plaintext,
}

impl Opener<'_> {
    /// Fills `plain` and judges; damage leaves zeros.
    fn open_block(&mut self, block: u64, stored: &[u8], plain: &mut [u8]) -> Verdict {
        let verdict = self.try_open_block(block, stored, plain);
        match verdict {
            Ok(verdict) => verdict,
            Err(kind) => {
                plain.zeroize();
                Verdict::Damaged(BlockDamage { block, kind })
            }
        }
    }

    fn try_open_block(
        &mut self,
        block: u64,
        stored: &[u8],
        plain: &mut [u8],
    ) -> Result<Verdict, DamageKind> {
        let may_be_hole = self.view.holes.contains(&block);
        let Some((prefix, sealed)) = stored.split_at_checked(PREFIX_BYTES) else {
            // Only the object that holds the last block must reach up to it; others may be absent.
            return match (stored.is_empty() && !self.is_beside_last(block), may_be_hole) {
                (true, true) => {
                    plain.fill(0);
                    Ok(Verdict::Hole)
                }
                (true, false) => Err(DamageKind::Missing),
                (false, _) => Err(DamageKind::CutShort),
            };
        };
        if bytes::first_nonzero(prefix).is_none() {
            if !may_be_hole {
                return Err(DamageKind::Missing);
            }
            plain.fill(0);
            return Ok(Verdict::Hole);
        }
        let (len, seal_gen) = (bytes::u32_at(prefix, 40), bytes::u32_at(prefix, 44));
        let len_bytes = usize::try_from(len).map_err(|_| DamageKind::AlteredOrTorn)?;
        if len == 0 || len_bytes > self.key.geometry().block_len_max() {
            return Err(DamageKind::AlteredOrTorn);
        }
        let sealed = sealed.get(..len_bytes).ok_or(DamageKind::CutShort)?;
        self.authenticate(block, prefix, sealed, plain)?;
        // From here on the prefix is known to be what a holder of the key wrote.
        if u64::from(seal_gen) > self.view.generation.saturating_add(1) {
            return Err(DamageKind::HeaderPutBack);
        }
        let full = self.key.geometry().block_len(block, self.view.size);
        if u64::from(len) < full && !may_be_hole {
            return Err(DamageKind::Missing);
        }
        Ok(Verdict::Opened { len, seal_gen })
    }

    /// Decrypts as much as is wanted into `plain`, zeros behind it, if the block authenticates.
    /// Otherwise no plaintext is left there.
    fn authenticate(
        &mut self,
        block: u64,
        prefix: &[u8],
        sealed: &[u8],
        plain: &mut [u8],
    ) -> Result<(), DamageKind> {
        let nonce = Nonce::from_bytes(bytes::field(prefix, 0));
        let message = (sealed, &bytes::field(prefix, 24));
        let len = u32::try_from(sealed.len()).expect("a block is at most 1 MiB");
        let aad = ContentKey::block_aad(block, len, bytes::u32_at(prefix, 44));
        self.ready_cipher(nonce);
        let (_, cipher) = self.cipher.as_ref().expect("it was just made ready");
        let opened = if let Some((front, behind)) = plain.split_at_mut_checked(sealed.len()) {
            behind.fill(0);
            cipher.open(&nonce.gcm_part(), &aad, message, front)
        } else {
            // More is sealed in it than is wanted, but all of it must be authenticated. Never
            // grown afterwards: a reallocation would leave an unwiped copy behind.
            if self.scratch.is_empty() {
                self.scratch = Plaintext::zeros(self.key.geometry().block_len_max());
            }
            let whole = &mut self.scratch[..sealed.len()];
            let opened = cipher.open(&nonce.gcm_part(), &aad, message, whole);
            plain.copy_from_slice(&whole[..plain.len()]);
            opened
        };
        opened.map_err(|_| DamageKind::AlteredOrTorn)
    }

    fn ready_cipher(&mut self, nonce: Nonce) {
        let part = nonce.derivation_part();
        if self.cipher.as_ref().is_none_or(|(of, _)| *of != part) {
            let subkey = self.key.xaes().subkey(part);
            self.cipher = Some((part, Cipher::new(self.key.engine(), &subkey)));
        }
    }

    /// Whether a block is in the same object as the file's last: in a flat file all are.
    fn is_beside_last(&self, block: u64) -> bool {
        let geometry = self.key.geometry();
        let last = geometry.n_blocks(self.view.size) - 1;
        let chunk = |block| geometry.chunk_of(block).map(|position| position.chunk);
        chunk(block) == chunk(last)
    }
}

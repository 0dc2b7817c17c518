//! The header of a sealed file: who may open it, what it says of the blocks, how it is changed.
//!
//! Bytes come in from a target and go out as compare-and-writes; the reading is in `read.rs`, the
//! layouts in `prologue.rs` and `slot.rs`. A [`Header`] is a value: committing gives the next one,
//! which counts once the caller has its bytes on the server.
//!
//! ```text
//!  0         64      512          1024   4096       4160    4608        5120   8192
//!  | prologue | zeros | even slot | zeros | prologue | zeros | odd slot | zeros |
//! ```
//!
//! **Invariants:** generation g is written to the slot of its parity, so the slot that counts is
//! never overwritten; every slot carries the same file key.

mod claims;
mod error;
mod prologue;
mod read;
mod slot;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::bytes;
use crate::cipher::Engine;
use crate::content::ContentKey;
use crate::derive::{self, Secret};
use crate::geometry::{Geometry, HEADER_BYTES};
use crate::key::{FileId, RootKey};
use crate::nonce::Nonce;
use crate::open::FileView;
use crate::random::{self, RandomError};
use prologue::Prologue;
use slot::{Slot, Values, Wrap};

pub use claims::HeaderClaims;
pub use error::HeaderError;
pub use read::OpenOptions;
pub use slot::SLOT_BYTES;

/// A header that was read and authenticated, or is about to be written, with the file's keys.
#[derive(Clone)]
pub struct Header {
    prologue: Prologue,
    keys: FileKeys,
    /// What the slot that counts says.
    current: Slot,
    /// Both slots as they are stored, the even one first; the other one may be torn.
    slots: [Box<[u8; SLOT_BYTES]>; 2],
}

impl Header {
    /// Makes a new file: a file id and a file key from the operating system, generation 1, size 0.
    /// `bytes` must be written whole, on condition that nothing is there.
    ///
    /// # Errors
    /// The operating system gave no random bytes.
    pub fn create(
        root: &RootKey,
        geometry: Geometry,
        engine: Engine,
    ) -> Result<NewHeader, RandomError> {
        // All in one call of the system.
        let mut drawn = Zeroizing::new([0; 32 + 32 + 24]);
        random::fill(&mut drawn[..])?;
        let prologue = Prologue::new(FileId::from_bytes(bytes::field(&drawn[..], 0)), geometry);
        let mut file_key: Secret = Box::new(Zeroizing::new([0; 32]));
        file_key.copy_from_slice(&drawn[32..64]);
        let nonce = Nonce::from_bytes(bytes::field(&drawn[..], 64));
        Ok(Header::create_with(root, (prologue, engine), file_key, nonce))
    }

    /// The same of given random bytes.
    fn create_with(
        root: &RootKey,
        (prologue, engine): (Prologue, Engine),
        file_key: Secret,
        nonce: Nonce,
    ) -> NewHeader {
        let keys = FileKeys::new(file_key, &prologue, engine);
        let wrap = Wrap::new(root, &prologue, &keys.file_key, nonce);
        let values = Values { generation: 1, size: 0, cut_pending: false, cuts: 0, holes: 0..0 };
        let current = Slot { values, wrap };
        let odd = current.to_bytes(&keys.header_key, &prologue);
        let header = Header { prologue, keys, current, slots: [Box::new([0; SLOT_BYTES]), odd] };
        let bytes = header.to_bytes();
        NewHeader { header, bytes }
    }

    /// Reads and authenticates the first [`HEADER_BYTES`] of `bytes`; more may follow.
    ///
    /// # Errors
    /// Anything is not as format 1 has it, was altered, belongs to another key, or is not what
    /// `options` expect: see [`HeaderError`]. Before reporting an error, read the bytes again, for
    /// a writer may have been at it.
    pub fn open(
        bytes: &[u8],
        root: &RootKey,
        options: &OpenOptions,
    ) -> Result<Header, HeaderError> {
        read::read(bytes, root, options)
    }

    /// Reads the header again, as it is now, with the keys this one has: no root key is needed, and
    /// a file key wrapped anew meanwhile is no obstacle.
    ///
    /// # Errors
    /// As for [`Header::open`]; it must be the same file, and not an older or another state of it.
    pub fn reopen(&self, bytes: &[u8]) -> Result<Header, HeaderError> {
        read::reread(self, bytes)
    }

    /// The next header, with `change`'s values, and the one write that brings it about.
    ///
    /// # Errors
    /// A value is not allowed by the format, `cuts` would go back, or the generations are spent.
    pub fn commit(&self, change: &HeaderChange) -> Result<HeaderCommit, HeaderError> {
        if change.cuts < self.cuts() {
            return Err(HeaderError::CutsWentBack { found: self.cuts(), wanted: change.cuts });
        }
        let holes =
            if change.holes.start == change.holes.end { 0..0 } else { change.holes.clone() };
        let values = Values {
            generation: self.next_generation()?,
            size: change.size,
            cut_pending: change.cut_pending,
            cuts: change.cuts,
            holes,
        };
        values.check(self.geometry())?;
        let wrap = self.current.wrap.clone();
        Ok(self.commit_slot(Slot { values, wrap }))
    }

    /// The next header, the same but for the file key's wrap, which is made anew under `new_root`.
    ///
    /// Do it twice, so that no slot keeps the old wrap. No block changes. It does not revoke: who
    /// held the old root key may know the file key.
    ///
    /// # Errors
    /// The operating system gave no random bytes, or the generations are spent.
    pub fn rewrap(&self, new_root: &RootKey) -> Result<HeaderCommit, HeaderError> {
        let nonce = draw_wrap_nonce().map_err(HeaderError::Random)?;
        let mut values = self.current.values.clone();
        values.generation = self.next_generation()?;
        let wrap = Wrap::new(new_root, &self.prologue, &self.keys.file_key, nonce);
        Ok(self.commit_slot(Slot { values, wrap }))
    }

    /// Encodes `slot` over the older one.
    fn commit_slot(&self, slot: Slot) -> HeaderCommit {
        let index = slot.values.slot_index();
        let bytes = slot.to_bytes(&self.keys.header_key, &self.prologue);
        let offset = slot::SLOT_OFFSETS[index] as u64;
        let write = SlotWrite { offset, bytes: bytes.clone(), expect: self.expectation() };
        let mut header = self.clone();
        header.slots[index] = bytes;
        header.current = slot;
        HeaderCommit { header, write }
    }

    fn next_generation(&self) -> Result<u64, HeaderError> {
        let next = self.generation().checked_add(1);
        next.ok_or(HeaderError::GenerationsSpent)
    }

    /// The same header to whoever has promised more than it says, and will commit that later: a file of at
    /// least `size` bytes, in which `holes` are allowed, too. Only in memory: what is stored, the generation
    /// and the MAC are what they were.
    #[must_use]
    pub fn promising(mut self, size: u64, holes: &Range<u64>) -> Header {
        let values = &mut self.current.values;
        values.size = values.size.max(size);
        if values.holes.is_empty() {
            values.holes = holes.clone();
        } else if !holes.is_empty() {
            let hull = &mut values.holes;
            *hull = hull.start.min(holes.start)..hull.end.max(holes.end);
        }
        self
    }

    /// A MAC for what a client keeps of the file where others may alter it, and no server sees.
    ///
    /// `mac = BLAKE3.keyed_hash(vouching key, said)`
    #[must_use]
    pub fn vouch(&self, said: &[u8]) -> [u8; 32] {
        *self.vouched(said).as_bytes()
    }

    /// Whether whoever made that MAC, of the same bytes, had the file's key.
    #[must_use]
    pub fn has_vouched(&self, said: &[u8], mac: &[u8; 32]) -> bool {
        // In a time that says nothing of the bytes.
        self.vouched(said) == blake3::Hash::from_bytes(*mac)
    }

    fn vouched(&self, said: &[u8]) -> blake3::Hash {
        let key = derive::vouching_key(&self.keys.file_key, self.prologue.as_bytes());
        let mut hasher = Zeroizing::new(blake3::Hasher::new_keyed(&key));
        hasher.update(said).finalize()
    }

    /// All bytes of the header as it stands, both slots.
    pub fn to_bytes(&self) -> Box<[u8; HEADER_BYTES]> {
        let mut bytes = Box::new([0; HEADER_BYTES]);
        for (index, slot) in self.slots.iter().enumerate() {
            let prologue = prologue::OFFSETS[index];
            bytes[prologue..prologue + 64].copy_from_slice(self.prologue.as_bytes());
            let offset = slot::SLOT_OFFSETS[index];
            bytes[offset..offset + SLOT_BYTES].copy_from_slice(&slot[..]);
        }
        bytes
    }

    /// The file's name for life.
    pub fn file_id(&self) -> FileId {
        self.prologue.file_id()
    }

    /// How the file is cut into blocks and chunk objects.
    pub fn geometry(&self) -> Geometry {
        self.prologue.geometry()
    }

    /// Counts the commits, from 1.
    pub fn generation(&self) -> u64 {
        self.current.values.generation
    }

    /// Bytes of plaintext in the file.
    pub fn size(&self) -> u64 {
        self.current.values.size
    }

    /// How often the size has gone down.
    pub fn cuts(&self) -> u64 {
        self.current.values.cuts
    }

    /// The blocks that may be holes or short (exclusive end); none: 0..0.
    pub fn holes(&self) -> Range<u64> {
        self.current.values.holes.clone()
    }

    /// Whether the stored blocks behind the size are still to be cut off.
    pub fn cut_pending(&self) -> bool {
        self.current.values.cut_pending
    }

    /// The MAC of the slot that counts: which commit this is, among all of its generation.
    pub fn mac(&self) -> [u8; 32] {
        slot::mac_of(&self.slots[self.current.values.slot_index()])
    }

    /// Where [`Header::mac`] stands in the header, in bytes.
    pub fn mac_offset(&self) -> u64 {
        let offset = slot::SLOT_OFFSETS[self.current.values.slot_index()];
        (offset + slot::MAC_OFFSET) as u64
    }

    /// Holds as long as nobody has committed another header, and the file is the same: the older slot,
    /// which the next commit is written over, is what it was. What a commit expects, and a cut.
    pub fn expectation(&self) -> SlotExpectation {
        let older = 1 - self.current.values.slot_index();
        SlotExpectation {
            prologue: *self.prologue.as_bytes(),
            mac_offset: (slot::SLOT_OFFSETS[older] + slot::MAC_OFFSET) as u64,
            mac: slot::mac_of(&self.slots[older]),
        }
    }

    /// Names the root key that wraps the file key; not a secret.
    pub fn key_id(&self) -> [u8; 16] {
        self.current.wrap.key_id()
    }

    /// What opening blocks needs to know of the header.
    pub fn view(&self) -> FileView {
        FileView { size: self.size(), generation: self.generation(), holes: self.holes() }
    }

    /// The key of the file's blocks.
    pub fn content_key(&self) -> &ContentKey {
        &self.keys.content_key
    }
}

impl fmt::Debug for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Header")
            .field("file_id", &self.file_id())
            .field("values", &self.current.values)
            .finish_non_exhaustive()
    }
}

/// A header that no server has yet.
#[derive(Clone, Debug)]
pub struct NewHeader {
    /// As it will be read.
    pub header: Header,
    /// As it must be written, at once.
    pub bytes: Box<[u8; HEADER_BYTES]>,
}

/// The values of a commit: all of them, changed or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderChange {
    /// Bytes of plaintext in the file, at most [`crate::MAX_FILE_BYTES`].
    pub size: u64,
    /// The blocks that may be holes or short (exclusive end); any empty range says none.
    pub holes: Range<u64>,
    /// How often the size has gone down; never less than before.
    pub cuts: u64,
    /// Whether stored blocks behind the size are still to be cut off.
    pub cut_pending: bool,
}

/// The next header, and the write that brings it about.
#[derive(Clone, Debug)]
pub struct HeaderCommit {
    /// As it will be once the write is on the server.
    pub header: Header,
    /// The compare-and-write.
    pub write: SlotWrite,
}

/// One slot to be written if the header is still what was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotWrite {
    /// Where in the header it goes, in bytes.
    pub offset: u64,
    /// The whole slot.
    pub bytes: Box<[u8; SLOT_BYTES]>,
    /// What must be stored for the write to take place.
    pub expect: SlotExpectation,
}

/// What must be stored for a [`SlotWrite`] or a cut to take place; otherwise it is a conflict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotExpectation {
    /// Must stand at 0.
    pub prologue: [u8; 64],
    /// Where `mac` must stand, in bytes from the header's start.
    pub mac_offset: u64,
    /// The MAC of the slot in question: the one that is overwritten (zeros if it was never
    /// written), or the one that asks for the cut.
    pub mac: [u8; 32],
}

/// All keys of one file; clones share them, the last one wipes.
#[derive(Clone)]
struct FileKeys {
    file_key: Arc<Secret>,
    header_key: Arc<Secret>,
    content_key: ContentKey,
}

impl FileKeys {
    fn new(file_key: Secret, prologue: &Prologue, engine: Engine) -> FileKeys {
        let content_key = derive::content_key(&file_key, prologue.as_bytes());
        let header_key = derive::header_key(&file_key, prologue.as_bytes());
        FileKeys {
            content_key: ContentKey::new(&content_key, prologue.geometry(), engine),
            header_key: Arc::new(header_key),
            file_key: Arc::new(file_key),
        }
    }
}

fn draw_wrap_nonce() -> Result<Nonce, RandomError> {
    let mut nonce = [0; 24];
    random::fill(&mut nonce)?;
    Ok(Nonce::from_bytes(nonce))
}

#[cfg(test)]
mod tests;

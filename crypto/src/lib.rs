//! Sealed files: what is encrypted, with what, and what is not promised.
//!
//! Plaintext and keys come in; sealed bytes go out, laid out as `FORMAT.md` beside this crate
//! says, to the byte. The crate knows no page, no target and no file: it has no thread, no clock
//! and no I/O. Whoever calls it does so on a thread of their own.
//!
//! ```text
//!  RootKey --+                          plaintext slices --+
//!            v                                             v
//!  header bytes --> Header --> ContentKey -- seal(span, Buffer) --> Sealed --> any target
//!                     |            ^
//!                     v            +------- open(FileView, Stored) --> plaintext + verdicts
//!                  FileView
//! ```
//!
//! **Invariants:**
//! 1. Only this crate can make a [`Sealed`], so what takes nothing else cannot be handed plaintext.
//! 2. A nonce is drawn from the operating system for each sealing and is never given twice.
//! 3. No byte of a block that did not authenticate is ever left in a caller's memory.
//! 4. All real engines give the same bytes.
//! 5. Keys and key schedules are wiped where they lie, on the heap, when they are dropped (what a
//!    compiler leaves on the stack while it moves one there is out of reach), and no `Debug` prints one.
//!
//! # Security notes
//! Sealed are a file's contents and its size; visible to the server are sizes, generations, cuts,
//! holes, times, and which blocks were sealed together. Blocks, headers or whole files that were
//! valid once and are put back are noticed only as far as `FORMAT.md` says: give
//! [`OpenOptions::expected_file_id`] and [`OpenOptions::least`] whatever you remember.
//!
//! # Performance notes
//! A block is sealed out of place in one pass, from the caller's slices straight into the buffer;
//! only a block that crosses slices is gathered first. One key schedule is made per span, so spans
//! should be hundreds of KiB. The engine [`Engine::AesGcm`] is several times slower than
//! `Engine::AwsLc` (feature `aws-lc`, on by default).
//!
//! # Examples
//! ```
//! use sealback_crypto::{
//!     Buffer, Engine, Geometry, Header, HeaderChange, OpenOptions, RootKey, Stored, sealed_bytes,
//! };
//!
//! let root = RootKey::generate()?;
//! let new = Header::create(&root, Geometry::new(16384)?, Engine::fastest())?;
//! let header = Header::open(&new.bytes[..], &root, &OpenOptions::default())?;
//!
//! // Sealing: first the blocks go to the server, then the header that speaks for them.
//! let plain = [7; 20_000];
//! let n_bytes = usize::try_from(sealed_bytes(header.geometry(), 20_000))?;
//! let seal_gen = header.view().seal_gen().expect("a new file has generations left");
//! let key = header.content_key();
//! let sealed = key.seal(0, seal_gen, &[&plain], Buffer::unpooled(n_bytes))?;
//! let change = HeaderChange { size: 20_000, holes: 0..0, cuts: 0, cut_pending: false };
//! let header = header.commit(&change)?.header;
//!
//! // Opening what the server has.
//! let mut buffer = Buffer::unpooled(n_bytes);
//! buffer.copy_from_slice(sealed.bytes());
//! let mut read = [0; 20_000];
//! let opened = key.open(&header.view(), 0, Stored { buffer, len: n_bytes }, &mut read);
//! assert!(opened.first_damage().is_none());
//! assert_eq!(read, plain);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod buffer;
mod bytes;
mod cipher;
mod content;
mod derive;
mod geometry;
mod header;
mod key;
#[cfg(shuttle)]
pub mod models;
mod nonce;
mod open;
mod plaintext;
mod random;
mod seal;
mod sealed;
mod sync;
#[cfg(test)]
mod vectors;
mod xaes;

pub use buffer::{Buffer, BufferPool};
pub use cipher::{Engine, UnknownEngine};
pub use content::ContentKey;
pub use geometry::{
    ChunkPosition, Geometry, GeometryError, HEADER_BYTES, MAX_FILE_BYTES, PREFIX_BYTES,
    sealed_bytes,
};
pub use header::{
    Header, HeaderChange, HeaderClaims, HeaderCommit, HeaderError, NewHeader, OpenOptions,
    SLOT_BYTES, SlotExpectation, SlotWrite,
};
pub use key::{FileId, FileIdError, KeyError, RootKey};
pub use nonce::Nonce;
pub use open::{BlockDamage, DamageKind, FileView, Opened, Stored, Verdict};
pub use plaintext::Plaintext;
pub use random::RandomError;
pub use seal::SealError;
pub use sealed::Sealed;

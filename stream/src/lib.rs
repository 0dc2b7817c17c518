//! Subrequests, their stalled queues, and the targets they go to: the streams of `sealback`.
//!
//! A *stream* takes one destination's share of a writeback. It cuts what it is to carry into
//! *subrequests*, as large as its *target* grants, keeps the prepared ones stalled in file order
//! until their ciphertext is there, issues them within a window, and collects their terminations.
//!
//! ```text
//!  wanted blocks ─► Tiler ─► Subrequest ─► StalledQueue ─► issued ─► Target ─► Completion
//!                     ▲  prepare: bytes, segments,  ▲ sealed?           │
//!                     │  boundary, credits          │ window?           ▼
//!                     └────────── failed ranges ◄───┴──────────── collected_to
//! ```
//!
//! What is here knows block numbers and sealed bytes. It knows no key, no folio and no plaintext:
//! a target is handed [`Sealed`](sealback_crypto::Sealed), which only `sealback-crypto` can make.
//!
//! - The seam for whoever writes a server or a cache: [`Target`], [`Server`], [`Cache`], and the
//!   suite in `conformance` (feature `conformance`) that shows whether it keeps the contract.
//! - For tests: servers and caches that fail as they are told, in `faulty` (feature `faulty`).
//! - Ready targets: [`LocalServer`], [`LocalCache`], [`MemoryServer`], [`MemoryCache`],
//!   [`NullServer`], [`NullCache`]; over an object store, `ObjectServer` (feature `object-store`).
//! - Before a server that is slow, or away at times: [`WriteBehind`]; that may be away from the start:
//!   [`LateServer`].
//! - The sans-I/O parts: [`Tiler`], [`StalledQueue`], [`Stream`].
#![forbid(unsafe_code)]

mod behind;
mod completion;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
mod credits;
mod error;
#[cfg(any(test, feature = "faulty"))]
pub mod faulty;
mod flat;
mod grant;
mod granule;
mod held_size;
mod journal;
mod late;
mod local;
mod memory;
mod name;
mod null;
#[cfg(feature = "object-store")]
mod object;
mod reading;
mod runs;
mod stalled;
mod stream;
mod subrequest;
mod sync;
mod target;
mod tiler;

pub use behind::{
    BehindFile, LoggedBlock, Pending, Promise, Upload, WhenFull, WriteBehind, WriteBehindOptions,
    WriteLog,
};
pub use completion::{Completion, CompletionSink, ReadCompletion, Ticket};
pub use error::{BlockConflict, Failure, TargetError, TargetErrorKind};
pub use grant::{Credit, CreditSource, Grant, Prepared};
pub use granule::{Granule, InvalidGranule};
pub use late::LateServer;
pub use local::{Durability, LocalCache, LocalOptions, LocalServer, UnknownDurability};
pub use memory::{MemoryCache, MemoryOptions, MemoryServer};
pub use name::{BadName, Name};
pub use null::{NullCache, NullServer};
#[cfg(feature = "object-store")]
pub use object::{ObjectOptions, ObjectServer, Orphan, Orphans};
pub use reading::{read_stored, read_whole};
pub use runs::Runs;
pub use stalled::StalledQueue;
pub use stream::{Collected, Issued, Role, Stream, StreamView, SubrequestView};
pub use subrequest::Subrequest;
pub use target::{
    Cache, CacheFile, Expectation, Expected, Read, Segment, Server, SizeLock, SizeLockAttempt,
    Target, Write,
};
pub use tiler::{Cut, CutLimits, Piece, Tiler};

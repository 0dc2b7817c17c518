//! Writes an encrypting filesystem's dirty pages back, sealed, to a server and a local cache.
//!
//! A client links this crate, hands it plaintext, and gets files whose every byte that leaves the
//! process is encrypted and authenticated. Sealing runs on a pool of threads beside the preparing of
//! subrequests; prepared subrequests stall in ordered queues until their ciphertext is there,
//! then two streams, one to the server and one to a cache, carry the same sealed bytes in sizes of
//! their own.
//!
//! ```text
//!  dirty folios ──► issuer ──► spans ──► crypto pool ──► sealed buffers (bounded)
//!                      │                                      │ ready
//!                      └─► tiler per stream ─► prepared subrequests ─► stalled queue ─► upload ─► server
//!                                                              └────► stalled queue ─► cache stream ─► cache
//!                                                                                        │ terminated
//!        folios released, buffers home ◄── collector ◄──────────────────────────────────┘
//!                                              │ short, refused
//!                                              └──► retryer ── pause, drain, cut anew, reissue
//! ```
//!
//! # A file, there and back
//!
//! ```
//! use sealback::{Config, CreateOptions, Engine, Place};
//! use sealback::crypto::RootKey;
//! use sealback::stream::{MemoryOptions, MemoryServer, Name};
//!
//! let engine = Engine::new(Config::default())?;
//! let (server, root) = (MemoryServer::new(MemoryOptions::default()), RootKey::from_bytes(&[7; 32]));
//! let place = Place { server: &server, cache: None, root: &root };
//! let name = Name::new("letter").expect("a plain name");
//!
//! let file = engine.create(&place, &name, &CreateOptions::default())?;
//! file.write_at(0, b"for your eyes only")?;
//! file.sync()?;
//! drop(file);
//!
//! let file = engine.open(&place, &name)?;
//! let mut text = [0; 18];
//! assert_eq!(file.read_at(0, &mut text)?, 18);
//! assert_eq!(&text, b"for your eyes only");
//! # Ok::<(), sealback::Error>(())
//! ```
//!
//! # Linking it into a filesystem
//!
//! [`guide`] leads through it: what a FUSE daemon or a network filesystem calls where, from mounting to
//! unmounting, with a page cache of its own or with the engine's.
//!
//! # Driving the core yourself
//!
//! [`request::Request`] is the machinery without threads: events in, actions out. The engine
//! drives it with threads; a simulator, or a client with a loop of its own, can drive the same code.
#![deny(unsafe_code)]

mod behind;
mod buffers;
mod caller;
mod calls;
mod cause;
mod claims;
mod commit;
mod config;
mod control;
mod copying;
mod cut_elsewhere;
mod direct;
mod driver;
pub mod dump;
mod engine;
mod error;
mod error_seq;
mod file;
mod file_info;
mod fill;
mod filter;
mod flusher;
mod folio;
mod following;
mod granule;
mod groups;
mod growth;
mod in_doubt;
#[doc = include_str!("guide.md")]
pub mod guide {}
mod io;
mod issuer;
mod open_file;
mod operation;
mod origin;
mod outside;
mod page_cache;
mod pass;
mod passes;
mod patience;
mod place;
mod ranges;
mod readahead;
mod reader;
mod releaser;
pub mod request;
mod resize;
mod resolve;
mod retryer;
mod revalidate;
pub mod rmw;
mod shutdown;
pub mod source;
mod spans;
mod stats;
mod streamed;
mod sync;
#[cfg(feature = "testkit")]
pub mod testkit;
pub mod trace;
mod verify;
mod waits;
mod workers;
mod writeback;
mod writethrough;

pub use behind::{Resumed, Uploaded};
pub use cause::Cause;
pub use config::Config;
pub use direct::{DirectWrite, Written};
pub use engine::Engine;
pub use error::Error;
pub use file::{File, Unclosed};
pub use file_info::FileInfo;
pub use filter::{Decision, Filtered};
pub use groups::WriteGroup;
pub use operation::Operation;
pub use origin::WriteKind;
pub use place::{CreateOptions, Place};
pub use resolve::Resolution;
pub use retryer::RetryLimits;
pub use sealback_crypto as crypto;
pub use sealback_stream as stream;
pub use stats::{EngineStats, Histogram, RequestStats, Retries, StreamStats};
pub use verify::{BlockReport, CacheReport};
pub use writeback::WritebackHandle;
pub use writethrough::Writethrough;

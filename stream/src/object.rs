//! Files as chunk objects in an object store: a server past one machine, with conditional puts.
//!
//! `NAME/header` is the header, `NAME/blocks/<file id>/<chunk>` are the blocks, as FORMAT.md has it. A
//! target's calls come in on any thread; all requests go out on a thread of the server's own, where its
//! runtime lives and ends, and answers are told on another, so that whoever hears one may take his time.
//!
//! ```text
//!  Target::write ─► one queue per chunk ─► Create, or read, compare, splice, Update ─► Completion
//!  Target::read  ─► one ranged get of one chunk                                     ─► ReadCompletion
//! ```
//!
//! **Invariants:**
//! 1. An object is replaced only on condition that it is what was read, unless the client has said that
//!    nobody else writes ([`ObjectOptions::with_single_writer`]).
//! 2. What was not read is never refused or called done: a guess is only ever put to the store.
//! 3. An outcome that is not known is settled by reading what is there.
//! 4. Nothing is deleted that somebody might write to: objects that lose their blocks become empty.
//!
//! There is no lock of the size, and no multipart upload: an object goes up in one request.

mod alter;
mod chunk;
mod cut;
mod failure;
mod file;
mod header;
mod holes;
mod keys;
mod options;
mod probe;
mod read;
mod runtime;
mod scrub;
mod server;
mod store;
mod target;
#[cfg(test)]
mod tests;
mod url;
mod write;

pub use options::ObjectOptions;
pub use scrub::{Orphan, Orphans};
pub use server::ObjectServer;

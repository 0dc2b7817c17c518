//! Sealed files on a local file system, by ordinary system calls.
//!
//! [`LocalServer`] keeps `DIR/NAME`, exactly the sealed file, and beside the files, in
//! `DIR/.sealback/`, locks, journals and drafts by file id. [`LocalCache`] keeps a sparse copy and a record
//! for each file id. Every call blocks until the system has answered.

mod cache;
mod copy;
mod disk;
mod eviction;
mod file;
mod handed;
mod headed;
mod lazy;
mod lock;
mod open_copies;
mod options;
mod record;
mod root;
mod run;
mod server;
mod size;
mod tenancy;
#[cfg(test)]
mod tests;

pub use cache::LocalCache;
pub use options::{Durability, LocalOptions, UnknownDurability};
pub use server::LocalServer;

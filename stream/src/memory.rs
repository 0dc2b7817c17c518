//! Sealed files in memory: a server and a cache for tests, examples and measurements.
//!
//! They keep the whole contract, and can be told to be difficult: small grants, boundaries, few
//! credits. Every operation is done when the call returns.

mod cache;
mod file;
mod meter;
mod server;
mod shelf;
#[cfg(test)]
mod tests;

pub use cache::MemoryCache;
pub use meter::MemoryOptions;
pub use server::MemoryServer;
pub(crate) use shelf::{Shelf, Shelved, Unpublished};

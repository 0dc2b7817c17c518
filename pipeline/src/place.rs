//! Where files are, and how they are created.

use std::fmt;

use sealback_crypto::RootKey;
use sealback_stream::{Cache, Server};

/// How a file is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CreateOptions {
    /// The block size in bytes: a power of two, 4 KiB to 1 MiB.
    pub block_bytes: u64,
    /// Beside whatever has the name, to take its place when it is
    /// [published](crate::File::publish); else only if nothing has.
    pub replace: bool,
}

impl Default for CreateOptions {
    /// Blocks of 16 KiB; only if nothing has the name.
    fn default() -> CreateOptions {
        CreateOptions { block_bytes: 16 << 10, replace: false }
    }
}

/// Where a file is, and what opens it.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    /// The server.
    pub server: &'a dyn Server,
    /// The cache, if there is one. A cache that fails is done without.
    pub cache: Option<&'a dyn Cache>,
    /// The root key.
    pub root: &'a RootKey,
}

impl fmt::Debug for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place")
            .field("server", &self.server)
            .field("cache", &self.cache)
            .finish_non_exhaustive()
    }
}

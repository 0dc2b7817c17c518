//! Whether a server or a cache keeps the contract of the seam: a suite for whoever writes one.
//!
//! Each check is one sentence of the contract, and panics with it where it does not hold. The
//! checks make their own files, with keys of their own, and leave them behind.
//!
//! ```no_run
//! use std::sync::Arc;
//! use sealback_stream::{MemoryOptions, MemoryServer, conformance};
//!
//! conformance::server(&|| Arc::new(MemoryServer::new(MemoryOptions::default())));
//! ```
//!
//! Blocks are of 4 KiB. Each write is prepared first and its grant held until it has terminated,
//! but its size is the check's: at most 16 blocks in 4 segments. A target that grants less than
//! that is to be made, for this suite, such that it takes it.
//!
//! What cannot be seen from outside is not checked: that a barrier makes things durable, and that
//! other processes are excluded where a second handle in this process is.

use std::{error, fmt, sync::Arc};

use crate::{Cache, Server};

mod blocks;
mod caches;
mod credits;
mod expectations;
mod headers;
mod names;
pub(crate) mod sample;

/// One sentence of the contract of a [`Server`] and its files.
#[derive(Clone, Copy)]
pub struct ServerCheck {
    /// What holds.
    pub sentence: &'static str,
    run: fn(&dyn Server) -> Verdict,
}

/// One sentence of the contract of a [`Cache`] and its files.
#[derive(Clone, Copy)]
pub struct CacheCheck {
    /// What holds.
    pub sentence: &'static str,
    run: fn(&dyn Cache) -> Verdict,
}

/// Runs every check on a server of its own, made by `make`.
///
/// # Panics
/// A sentence does not hold; the message begins with it.
pub fn server(make: &dyn Fn() -> Arc<dyn Server>) {
    for check in server_checks() {
        check.run(&*make());
    }
}

/// Runs every check on a cache of its own, made by `make`.
///
/// # Panics
/// A sentence does not hold; the message begins with it.
pub fn cache(make: &dyn Fn() -> Arc<dyn Cache>) {
    for check in cache_checks() {
        check.run(&*make());
    }
}

/// Checks that a cache's copies outlive it: `reopen` opens the same one each time.
///
/// # Panics
/// They do not.
pub fn persistent_cache(reopen: &dyn Fn() -> Arc<dyn Cache>) {
    settle("a copy and its record outlive the cache that made them", caches::survives(reopen));
}

/// All checks of a server.
pub fn server_checks() -> impl Iterator<Item = ServerCheck> {
    [names::CHECKS, blocks::CHECKS, expectations::CHECKS, headers::CHECKS, credits::CHECKS]
        .into_iter()
        .flatten()
        .map(|(sentence, run)| ServerCheck { sentence, run: *run })
}

/// All checks of a cache.
pub fn cache_checks() -> impl Iterator<Item = CacheCheck> {
    caches::CHECKS.iter().map(|(sentence, run)| CacheCheck { sentence, run: *run })
}

impl ServerCheck {
    /// Runs the check.
    ///
    /// # Panics
    /// The sentence does not hold; the message begins with it.
    pub fn run(&self, server: &dyn Server) {
        settle(self.sentence, (self.run)(server));
    }
}

impl CacheCheck {
    /// Runs the check.
    ///
    /// # Panics
    /// The sentence does not hold; the message begins with it.
    pub fn run(&self, cache: &dyn Cache) {
        settle(self.sentence, (self.run)(cache));
    }
}

impl fmt::Debug for ServerCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ServerCheck").field(&self.sentence).finish()
    }
}

impl fmt::Debug for CacheCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CacheCheck").field(&self.sentence).finish()
    }
}

type Verdict = Result<(), Broken>;
type ServerChecks = &'static [(&'static str, fn(&dyn Server) -> Verdict)];
type CacheChecks = &'static [(&'static str, fn(&dyn Cache) -> Verdict)];

/// What was found where a sentence does not hold.
#[derive(Debug)]
pub(crate) struct Broken(String);

impl<E: error::Error> From<E> for Broken {
    fn from(error: E) -> Broken {
        Broken(error.to_string())
    }
}

fn settle(sentence: &str, verdict: Verdict) {
    if let Err(Broken(found)) = verdict {
        panic!("does not hold: {sentence}: {found}");
    }
}

/// Ends a check, with what was found, unless something holds.
macro_rules! ensure {
    ($holds:expr, $($found:tt)+) => {
        if !$holds {
            return Err(crate::conformance::Broken(format!($($found)+)));
        }
    };
}
use ensure;

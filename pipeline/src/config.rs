//! What an engine may use, and how much of it: every bound of the system in one place.

use std::{num::NonZero, thread, time::Duration};

use sealback_crypto::{Engine as Cipher, Geometry, PREFIX_BYTES};

use crate::{Error, retryer::RetryLimits};

const MIB: usize = 1 << 20;
const LARGEST_BLOCK: usize = MIB;
const MAX_THREADS: usize = 1024;

/// What an [`Engine`](crate::Engine) may use. Sizes are bytes.
///
/// ```
/// let config = sealback::Config { memory_bytes: 128 << 20, ..sealback::Config::default() };
/// assert!(config.check().is_ok());
/// ```
#[derive(Clone, Debug)]
pub struct Config {
    /// Which implementation of the cipher seals and opens; the fastest built in by default.
    pub cipher: Cipher,
    /// Memory for folios and for sealed buffers, in all; at least 8 MiB.
    pub memory_bytes: usize,
    /// Threads that seal and open, 1 to 1024; one for each core by default.
    pub threads: usize,
    /// A folio's size: a power of two, 4 KiB to 4 MiB. It need not match the block size.
    pub folio_bytes: usize,
    /// Plaintext sealed in one go, at most; at least one block, or one block is what it is.
    pub span_bytes: usize,
    /// Subrequests with the server at once, at most, for one file.
    pub upload_window: usize,
    /// Subrequests with the cache at once, at most, for one file.
    pub cache_window: usize,
    /// How often and how long a server is asked again.
    pub retry: RetryLimits,
    /// How long a cache may answer nothing before a writeback goes on without it, and how long a server
    /// may take to answer with what only the cache would get, five seconds at most; [`Duration::MAX`]: for
    /// ever, for the cache.
    pub cache_patience: Duration,
    /// When more than so many percent of the folios are dirty, they are written back in the
    /// background.
    pub dirty_background_percent: u8,
    /// While so many percent of the folios are dirty, writers wait.
    pub dirty_limit_percent: u8,
    /// After so long what is dirty is written back in any case; [`Duration::MAX`]: never. Give or
    /// take a quarter.
    pub dirty_expire: Duration,
    /// Sequential reads are read ahead this far; 0 turns it off.
    pub readahead_bytes: usize,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            cipher: Cipher::fastest(),
            memory_bytes: 64 * MIB,
            threads: thread::available_parallelism().map_or(1, NonZero::get),
            folio_bytes: 64 << 10,
            span_bytes: 512 << 10,
            upload_window: 4,
            cache_window: 4,
            retry: RetryLimits::default(),
            cache_patience: Duration::from_secs(30),
            dirty_background_percent: 25,
            dirty_limit_percent: 75,
            dirty_expire: Duration::from_secs(30),
            readahead_bytes: 4 * MIB,
        }
    }
}

/// How the memory is shared out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shares {
    /// Folios.
    pub(crate) n_folios: usize,
    /// Buffers for sealed spans: how many, and their bytes.
    pub(crate) buffers: (usize, usize),
    /// Buffers for spans of one block that is larger than a span is meant to be.
    pub(crate) large_buffers: (usize, usize),
    /// Buffers for units of reading.
    pub(crate) n_read_buffers: usize,
}

/// Plaintext read from a target in one go. Large enough that the calls cost little, small enough to
/// stay in a core's cache between reading and opening.
pub(crate) const READ_UNIT_BYTES: usize = MIB;

/// The same in blocks: one at least.
pub(crate) fn read_unit_blocks(geometry: Geometry) -> u64 {
    (READ_UNIT_BYTES as u64 / geometry.block_bytes()).max(1)
}

impl Config {
    /// Checks that the values fit together.
    ///
    /// # Errors
    /// [`Error::Config`] names what does not fit.
    pub fn check(&self) -> Result<(), Error> {
        let folio_fits = (4096..=4 * MIB).contains(&self.folio_bytes);
        if self.memory_bytes < 8 * MIB {
            Err(Error::Config("the memory must be at least 8 MiB"))
        } else if !(1..=MAX_THREADS).contains(&self.threads) {
            Err(Error::Config("there are 1 to 1024 threads"))
        } else if !folio_fits || !self.folio_bytes.is_power_of_two() {
            Err(Error::Config("a folio is a power of two from 4 KiB to 4 MiB"))
        } else if self.span_bytes < 4096 || self.span_bytes > 64 * MIB {
            Err(Error::Config("a span is 4 KiB to 64 MiB"))
        } else if self.upload_window == 0 || self.cache_window == 0 {
            Err(Error::Config("a window has room for at least one subrequest"))
        } else if self.dirty_background_percent > self.dirty_limit_percent
            || !(1..=100).contains(&self.dirty_limit_percent)
        {
            Err(Error::Config("of the shares that may be dirty, the background's is the smaller"))
        } else if self.dirty_expire.is_zero() {
            Err(Error::Config("what is dirty must have some time before it is written back"))
        } else if self.retry.max_attempts == 0 {
            Err(Error::Config("there must be at least one attempt"))
        } else {
            Ok(())
        }
    }

    /// Of 64 MiB, 36 are for folios, 17 for sealed spans and 4 for large ones, 7 for reading: so two chunks
    /// of 8 MiB are on their way to an object store, sealed and as folios, while a third one is filled. What
    /// is not used is not resident: a pool takes its memory as it goes.
    pub(crate) fn shares(&self) -> Shares {
        let buffers = |memory_bytes: usize, span_bytes: usize| {
            let buffer_bytes = span_bytes + span_bytes.div_ceil(4096) * PREFIX_BYTES;
            ((memory_bytes / buffer_bytes).max(2), buffer_bytes)
        };
        Shares {
            n_folios: (self.memory_bytes / 64 * 36 / self.folio_bytes).max(4),
            buffers: buffers(self.memory_bytes / 64 * 17, self.span_bytes),
            large_buffers: buffers(self.memory_bytes / 64 * 4, LARGEST_BLOCK),
            n_read_buffers: (self.memory_bytes / 64 * 7 / READ_UNIT_BYTES).max(1),
        }
    }
}

//! The seam through which the issuer gets its folios.
//!
//! Our page cache is one [`FolioSource`]; a client with a page cache of its own implements it, and
//! hands it to [`File::writeback_from`](crate::File::writeback_from). The issuer asks for runs of
//! dirty blocks in ascending order, and each folio comes back exactly once: clean, or dirty again.
//!
//! A source decides what goes, one run at a time. What it skips it does not hand out: it stays dirty,
//! and goes with a later writeback. What it is to be asked for again it answers with [`Next::Later`],
//! and lets go of meanwhile; everything behind waits with it, since blocks ascend. And it may end the
//! writeback at any point, with [`Next::End`]. Clients of the engine's own page cache do so with
//! [`File::writeback_filtered`](crate::File::writeback_filtered).

use std::{fmt, ops::Range, sync::Arc, task::Waker};

use sealback_crypto::Sealed;
use sealback_stream::Expected;

use crate::Error;

/// Where dirty folios come from.
///
/// Called by the thread that drives a request, with the request's lock held: it must neither
/// block on I/O nor call back into the engine.
pub trait FolioSource: fmt::Debug + Send + Sync + 'static {
    /// The next run of blocks at or behind block `from` that a stream wants, of at most
    /// `max_blocks`. From here on its folios are under writeback: what is dirtied in them meanwhile
    /// belongs to the next pass. A source that has to wait for the next one, for bytes of it that are
    /// still being read, says so, and wakes `waker` when it is to be asked again.
    fn next_dirty(&self, from: u64, max_blocks: u64, waker: &Waker) -> Next;

    /// Blocks have gone where they should, with these nonces: what a later partial change of one
    /// is to expect. Called before the folios are released. Does nothing unless overridden.
    fn stored(&self, sealed: &Sealed) {
        let _ = sealed;
    }

    /// The writeback fails, and the server may have these blocks, or not. Called before their folios are
    /// released. Does nothing unless overridden.
    fn in_doubt(&self, sealed: &Sealed) {
        let _ = sealed;
    }

    /// A block was changed by somebody else, and is stored with both changes now: `plain` is all of
    /// it. What is not dirty in it becomes that. Does nothing unless overridden.
    fn merged(&self, block: u64, plain: &[u8]) {
        let _ = (block, plain);
    }

    /// A folio's writeback has ended: what was dirty when it was handed out is on the server, or
    /// is dirty again. Called once for each time a folio was handed out, in that order.
    fn end_writeback(&self, folio: u64, outcome: Writeback);
}

/// What a source has next.
#[derive(Clone, Debug)]
pub enum Next {
    /// Blocks to be written.
    Run(DirtyRun),
    /// Not known yet.
    Later,
    /// Nothing more.
    End,
    /// Nothing more, and something that should have been there could not be had: what was handed out
    /// goes its way, and then the request ends with this.
    Failed(Error),
}

/// How a folio's writeback ended.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Writeback {
    /// Every stream that wanted it has passed it.
    Clean,
    /// It is not on the server: it is as dirty as it was before.
    Redirty(Error),
}

/// Consecutive blocks that go the same way.
///
/// A run begins where it was asked for or behind that, is no longer than was asked for, and lies within
/// the file. A source that hands out another ends its writeback with [`Error::Source`], and has the
/// run's folios back.
#[derive(Clone, Debug)]
pub struct DirtyRun {
    /// Whole blocks.
    pub blocks: Range<u64>,
    /// What they hold.
    pub content: RunContent,
    /// The streams that want them.
    pub destinations: Destinations,
    /// Those of them that are written only over what is expected there, ascending.
    pub partial: Vec<PartialBlock>,
    /// The folios whose last block of this pass is in this run, ascending by that block.
    pub folios: Vec<FolioEnd>,
}

/// A block that is written only over what is expected there. Most were changed in part: their other
/// bytes are what was read, and must still be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartialBlock {
    /// Its number.
    pub block: u64,
    /// What must be stored for it when it is written.
    pub expected: Expected,
    /// The positions that were changed, ascending, apart from one another: what is laid over the
    /// block if somebody else has changed it. They are part of the run's content. If there are none,
    /// nothing is laid over anything: the request ends with the conflict.
    pub dirty: Vec<Range<u64>>,
}

/// A folio that can be released when the streams have passed its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FolioEnd {
    /// The source's number for it.
    pub folio: u64,
    /// The block before which it ends (exclusive).
    pub end: u64,
}

/// What a run holds.
#[derive(Clone, Debug)]
pub enum RunContent {
    /// Plaintext to be sealed. The slices, one after the other, are the run's bytes; only the
    /// last block of the file may be shorter than the others, and then it is one of the run's partial
    /// blocks.
    Plain(Vec<PlainSlice>),
    /// The server's own sealed bytes, which only the cache wants. They are never sealed again.
    Sealed(Sealed),
}

/// Bytes of a folio that stay as they are while they are being sealed.
#[derive(Clone)]
pub struct PlainSlice {
    bytes: Arc<dyn AsRef<[u8]> + Send + Sync>,
    range: Range<usize>,
}

impl PlainSlice {
    /// The bytes `range` of `bytes`. A writer that finds the `Arc` shared copies before it writes.
    ///
    /// # Panics
    /// If `range` is not within `bytes`.
    pub fn new(bytes: Arc<dyn AsRef<[u8]> + Send + Sync>, range: Range<usize>) -> PlainSlice {
        let len = (*bytes).as_ref().len();
        assert!(range.start <= range.end && range.end <= len, "{range:?} of {len} bytes");
        PlainSlice { bytes, range }
    }

    /// How many bytes it says that there are: a client's buffer need not keep to it.
    pub(crate) fn said_bytes(&self) -> u64 {
        self.range.len() as u64
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        &(*self.bytes).as_ref()[self.range.clone()]
    }
}

/// Prints the length only.
impl fmt::Debug for PlainSlice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PlainSlice").field(&self.range.len()).finish()
    }
}

/// A set of streams, by their index in the request.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Destinations(u8);

impl Destinations {
    /// No stream.
    pub const NONE: Destinations = Destinations(0);
    /// The upload stream alone: stream 0.
    pub const UPLOAD: Destinations = Destinations(1);
    /// The cache stream alone: stream 1.
    pub const CACHE: Destinations = Destinations(2);
    /// Every stream.
    pub const ALL: Destinations = Destinations(u8::MAX);
    /// Every stream but the cache's: all servers, if there are mirrors.
    pub const SERVERS: Destinations = Destinations(!2);

    /// Whether the stream of that index is one of them.
    pub fn contains(self, stream: usize) -> bool {
        stream < 8 && self.0 & (1 << stream) != 0
    }
}

impl fmt::Debug for Destinations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries((0..8).filter(|stream| self.contains(*stream))).finish()
    }
}

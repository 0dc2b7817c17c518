//! The seam: what a server or a cache is to a stream, and the contract it keeps.

use std::{fmt, ops::Range, sync::Arc, task::Waker};

use sealback_crypto::{
    Buffer, FileId, Geometry, HEADER_BYTES, Nonce, Sealed, SlotExpectation, SlotWrite,
};

use crate::{BehindFile, Completion, Granule, Name, Prepared, ReadCompletion, Runs, TargetError};

/// One sealed file in one place: where a stream goes, and where blocks come back from.
///
/// # The contract
///
/// The conformance suite (feature `conformance`)
/// checks each sentence that can be checked.
///
/// 1. **Threads.** Every method may be called from any thread, several at once. `prepare` must
///    not block. `write` and `read` may block the caller, which is one of the engine's I/O
///    threads, or a thread that waits for the outcome, never one that seals for others; or they
///    start the operation and return. A target that [is immediate](Target::is_immediate) has `write`
///    called on any thread, and never blocks it.
/// 2. **Exactly once.** Each `write` and `read` uses its completion up, from any thread, inside the
///    call or later. A read's buffer comes back with the answer.
/// 3. **Whole.** A write terminates with the bytes that went through *from its start*, segment after
///    segment; a gap between two counts nothing. What lies behind them may or may not have been
///    written; it is sent again, the same bytes.
/// 4. **Compare-and-write.** A write's expectations are all compared first. If one does not hold,
///    nothing is written and every block that differs is named. Comparing and writing are one
///    atomic step against every other write, conditional or not, of any process. An
///    expectation also holds where what is being written, a nonce or a hole, is already stored: a
///    resend after an unknown outcome is then done, not in conflict.
/// 5. **Headers.** `write_slot` compares the prologue and the MAC and writes the slot in one atomic
///    step. `cut` does the same before it cuts.
/// 6. **Read what was written.** A read that starts after a write terminated sees it, or what was
///    written since. A gap reads as zeros, and bytes beyond the stored end are not there. A read may
///    also bring less than it was asked for, but of its first block all that is stored: who wants
///    the others asks again, from the first that did not come whole.
/// 7. **Barrier.** When `barrier` returns, every write that terminated before it was called is as
///    durable as the target was opened for.
/// 8. **Failures are named**, by [`Failure`](crate::Failure), and never guessed by the caller.
/// 9. **Credits** held by a grant go back when it is dropped; the target needs no other call.
pub trait Target: fmt::Debug + Send + Sync + 'static {
    /// Equal for two targets of this process that are the same stored file, different for two that
    /// are not, as long as both are there. So a client can tell that it has a file open already.
    fn identity(&self) -> u128;

    /// Says how much a subrequest that starts at `block` may carry. Does not block: if there is no
    /// credit it answers [`Prepared::Later`] and wakes `waker` once when there is.
    fn prepare(&self, block: u64, waker: &Waker) -> Prepared;

    /// Whether [`write`](Target::write) never blocks: it starts the operation and returns, or needs no
    /// longer than a copy in memory takes. The engine then calls it where the request is driven, and
    /// does without an I/O thread; of a cache, what it [forgets](CacheFile::forget) and
    /// [confirms](CacheFile::confirm), too. `false` unless overridden.
    fn is_immediate(&self) -> bool {
        false
    }

    /// Writes sealed blocks, then says how it went.
    fn write(&self, write: Write, done: Completion);

    /// Reads stored blocks, then says how it went.
    fn read(&self, read: Read, done: ReadCompletion);

    /// Reads the stored header: [`HEADER_BYTES`], or fewer where the stored file is shorter.
    ///
    /// # Errors
    /// [`TargetError`] of any kind; a short file is no error.
    fn read_header(&self) -> Result<Vec<u8>, TargetError>;

    /// Writes one slot of the header if the header is still what was read.
    ///
    /// # Errors
    /// [`TargetErrorKind::Conflict`](crate::TargetErrorKind::Conflict) if it is not, and nothing is
    /// written; any other kind if the write did not go through.
    fn write_slot(&self, write: &SlotWrite) -> Result<(), TargetError>;

    /// Cuts the stored file behind the last of its `n_blocks` blocks, if the header is still what was
    /// read. As many bytes of that block stay as its prefix says that there are: somebody who does not
    /// know of the cut may have written it since.
    ///
    /// # Errors
    /// As for [`write_slot`](Target::write_slot).
    fn cut(
        &self,
        geometry: Geometry,
        n_blocks: u64,
        expect: &SlotExpectation,
    ) -> Result<(), TargetError>;

    /// Waits until everything that terminated before is durable.
    ///
    /// # Errors
    /// [`TargetError`]: nothing can be said of what was written since the last barrier.
    fn barrier(&self) -> Result<(), TargetError>;

    /// Makes a draft the file of its name, atomically; does nothing for a file that is no draft. Called
    /// again after an error, it does what is left to do.
    ///
    /// # Errors
    /// [`TargetError`]: the earlier file of that name is still there, whole; or this one is in its
    /// place, and it is not known whether that is durable.
    fn publish(&self) -> Result<(), TargetError>;

    /// What it is of a file that is [written behind](crate::WriteBehind): there, what a writer commits is
    /// promised, and a header is committed by who uploads. `None` unless overridden.
    fn behind(&self) -> Option<&BehindFile> {
        None
    }

    /// Takes the lock under which sizes change, where the target has one. Blocks.
    ///
    /// # Errors
    /// [`TargetError`] if the lock cannot be had.
    fn lock_size(&self) -> Result<Option<SizeLock>, TargetError>;

    /// The same, without waiting for whoever has the lock. Unless overridden it cannot be had so, and
    /// is waited for on a thread of the engine's.
    ///
    /// # Errors
    /// As for [`lock_size`](Target::lock_size).
    fn try_lock_size(&self) -> Result<SizeLockAttempt, TargetError> {
        Ok(SizeLockAttempt::Unavailable)
    }
}

/// What comes of trying to take the lock under which sizes change.
#[derive(Debug)]
pub enum SizeLockAttempt {
    /// The target has no such lock.
    Lockless,
    /// It is held now.
    Taken(SizeLock),
    /// Somebody has it, or it cannot be had without waiting.
    Unavailable,
}

/// The lock under which a file's size changes; dropped, it is free.
pub struct SizeLock {
    _guard: Box<dyn Send>,
}

impl SizeLock {
    /// A lock that is free again when `guard` is dropped.
    pub fn new(guard: impl Send + 'static) -> SizeLock {
        SizeLock { _guard: Box::new(guard) }
    }
}

impl fmt::Debug for SizeLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SizeLock")
    }
}

/// A place that holds sealed files by name.
pub trait Server: fmt::Debug + Send + Sync + 'static {
    /// Creates a file, by one write of its whole header, if nothing is there.
    ///
    /// # Errors
    /// [`TargetErrorKind::AlreadyExists`](crate::TargetErrorKind::AlreadyExists) if something is.
    fn create(
        &self,
        name: &Name,
        file_id: FileId,
        header: &[u8; HEADER_BYTES],
    ) -> Result<Arc<dyn Target>, TargetError>;

    /// Begins a new file beside whatever has that name; [`Target::publish`] puts it in its place.
    /// A draft that is dropped unpublished is gone.
    ///
    /// # Errors
    /// [`TargetError`] if it cannot be begun.
    fn draft(
        &self,
        name: &Name,
        file_id: FileId,
        header: &[u8; HEADER_BYTES],
    ) -> Result<Arc<dyn Target>, TargetError>;

    /// Opens the file of a name.
    ///
    /// # Errors
    /// [`TargetErrorKind::NotFound`](crate::TargetErrorKind::NotFound) and others.
    fn open(&self, name: &Name) -> Result<Arc<dyn Target>, TargetError>;

    /// Removes the file of a name.
    ///
    /// # Errors
    /// [`TargetErrorKind::NotFound`](crate::TargetErrorKind::NotFound) and others.
    fn remove(&self, name: &Name) -> Result<(), TargetError>;

    /// How many blocks of a new file, of so many bytes of plaintext each, go into a chunk object: what the
    /// new file's header is to say. 0 unless overridden: files are flat.
    fn chunk_blocks(&self, _block_bytes: u64) -> u32 {
        0
    }

    /// Says what tells this server from any other that may answer in its place, such as the directory that a
    /// disk is mounted over: given what it said before, the same; given nothing, what it says from now on.
    /// `None`, unless overridden: nobody can tell.
    ///
    /// # Errors
    /// [`TargetErrorKind::TimedOut`](crate::TargetErrorKind::TimedOut) if it is another server, which is left
    /// as it is; others if it does not answer.
    fn identify(&self, _known: Option<u128>) -> Result<Option<u128>, TargetError> {
        Ok(None)
    }
}

/// A place that holds copies of sealed files by their file id.
pub trait Cache: fmt::Debug + Send + Sync + 'static {
    /// Opens, or makes, the copy of a file.
    ///
    /// # Errors
    /// [`TargetError`]: the caller goes on without a cache.
    fn open(&self, file_id: FileId, geometry: Geometry) -> Result<Arc<dyn CacheFile>, TargetError>;
}

/// A cache's copy of a file: a target with a record, per block, of what is there.
///
/// The record of a block is *cleared* before either stream overwrites the block, and *set*, to
/// the nonce, only after the server acknowledged that same nonce and the copy was written. So a
/// block that the record calls present is, byte for byte, what the server acknowledged last. A
/// record that is lost or damaged means absent: that costs speed, never data.
pub trait CacheFile: Target {
    /// For each of `blocks`, the nonce that the record holds; `None` for absent.
    fn present(&self, blocks: Range<u64>) -> Vec<Option<Nonce>>;

    /// Clears the record of `blocks`. Cheap where it is clear already. When this returns, a crash
    /// cannot bring the record back.
    ///
    /// # Errors
    /// [`TargetError`]: the record may still be there; the caller must not overwrite the server's
    /// blocks before [`invalidate`](CacheFile::invalidate) went through.
    fn forget(&self, blocks: Range<u64>) -> Result<(), TargetError>;

    /// Sets the record of every block of `sealed` to its nonce, but for those whose bytes the copy
    /// no longer has: cut away, or evicted, since they were written.
    ///
    /// # Errors
    /// [`TargetError`]: some of the blocks, or all, count as absent.
    fn confirm(&self, sealed: &Sealed) -> Result<(), TargetError>;

    /// Drops everything: all records are clear when this returns.
    ///
    /// # Errors
    /// [`TargetError`]: the copy must not be read any more.
    fn invalidate(&self) -> Result<(), TargetError>;

    /// Keeps a copy of the file's header. A copy that is longer than `stored_bytes` is cut to it:
    /// the record of the block that the cut goes through, and of those behind, is cleared.
    ///
    /// # Errors
    /// [`TargetError`]: the next open drops the copy, because its header is not the server's.
    fn set_header(&self, header: &[u8; HEADER_BYTES], stored_bytes: u64)
    -> Result<(), TargetError>;

    /// What the cache would rather have as a whole: where a writeback takes a part of such a granule
    /// to the cache, it takes along what the cache lacks of the rest, as the server has it. Larger than
    /// a block, or it changes nothing. `None` unless overridden: blocks come as they are written, or
    /// read. Does not block.
    fn granule(&self) -> Option<Granule> {
        None
    }
}

/// One write: what a subrequest carries to its target.
#[derive(Clone, Debug)]
pub struct Write {
    /// What to write, ascending and without overlap. Each piece knows its place. Between two of them
    /// there is a gap only where the grant allowed for gaps.
    pub segments: Vec<Segment>,
    /// What must hold first, ascending by block; each block is one of the segments'.
    pub expectations: Vec<Expectation>,
    /// What the writer has changed of the blocks that are expected to be something: positions in the
    /// file, ascending, in as many ranges as it takes. A block without any was written over as a whole.
    /// Only who keeps a write to send it later needs them.
    pub dirty: Vec<Range<u64>>,
}

impl Write {
    /// Stored bytes in all.
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(Segment::bytes).sum()
    }

    /// The blocks from the first to the last (exclusive), gaps included.
    ///
    /// # Panics
    /// If there is no segment.
    pub fn blocks(&self) -> Range<u64> {
        let first = self.segments.first().expect("a write has a segment");
        let last = self.segments.last().expect("a write has a segment");
        first.blocks().start..last.blocks().end
    }

    /// The blocks, without the gaps.
    ///
    /// # Panics
    /// If there is no segment, or an empty one.
    pub fn runs(&self) -> Runs {
        let mut segments = self.segments.iter().map(Segment::blocks);
        let mut runs = Runs::one(segments.next().expect("a write has a segment"));
        segments.for_each(|blocks| runs.push(blocks));
        runs
    }

    /// The nonce that this write stores for `block`; `None` for a hole or a block it leaves out.
    pub fn nonce(&self, block: u64) -> Option<Nonce> {
        self.segments.iter().find_map(|segment| match segment {
            Segment::Sealed(sealed) if sealed.blocks().contains(&block) => {
                Some(sealed.nonce(block))
            }
            Segment::Sealed(_) | Segment::Hole { .. } => None,
        })
    }
}

/// A piece of a write.
#[derive(Clone, Debug)]
pub enum Segment {
    /// Consecutive blocks become holes: at least the 48 prefix bytes of each are zeroed.
    Hole {
        /// The blocks.
        blocks: Range<u64>,
        /// Where they stand.
        geometry: Geometry,
    },
    /// Consecutive sealed blocks, to be stored at [`Sealed::stored_start`].
    Sealed(Sealed),
}

impl Segment {
    /// The blocks it covers.
    pub fn blocks(&self) -> Range<u64> {
        match self {
            Segment::Hole { blocks, .. } => blocks.clone(),
            Segment::Sealed(sealed) => sealed.blocks(),
        }
    }

    /// How the file is cut into blocks.
    pub fn geometry(&self) -> Geometry {
        match self {
            Segment::Hole { geometry, .. } => *geometry,
            Segment::Sealed(sealed) => sealed.geometry(),
        }
    }

    /// Stored bytes it covers.
    pub fn bytes(&self) -> u64 {
        match self {
            Segment::Hole { blocks, geometry } => {
                (blocks.end - blocks.start) * geometry.stride_bytes()
            }
            Segment::Sealed(sealed) => sealed.bytes().len() as u64,
        }
    }
}

/// What must be stored for a block when it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expectation {
    /// The block's number.
    pub block: u64,
    /// What must stand there.
    pub expected: Expected,
}

/// The two things that can be expected of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// A hole: zero prefix bytes, or the stored file ends before it.
    Absent,
    /// This nonce.
    Nonce(Nonce),
}

impl Expected {
    /// What nothing that is stored can be: a write that expects it is told what is there. For who has not
    /// read all of a block, or not all of it at once, and so must not write it over anything, nor where
    /// nothing is any more. No span has so many blocks that one is sealed under this nonce.
    pub const UNKNOWN: Expected = Expected::Nonce(Nonce::from_bytes([0xff; 24]));

    /// What a nonce that was read, or none, is to be expected as.
    pub fn of(nonce: Option<Nonce>) -> Expected {
        nonce.map_or(Expected::Absent, Expected::Nonce)
    }
}

impl Expectation {
    /// Whether it holds where `stored` is found and `writing` is about to be written (`None` for a
    /// hole, both): the expected, or what an earlier attempt of ours has left.
    pub fn holds(&self, stored: Option<Nonce>, writing: Option<Nonce>) -> bool {
        if stored == writing {
            return true;
        }
        match self.expected {
            Expected::Absent => stored.is_none(),
            Expected::Nonce(nonce) => stored == Some(nonce),
        }
    }
}

/// One read of consecutive stored blocks.
#[derive(Debug)]
pub struct Read {
    /// The blocks to read.
    pub blocks: Range<u64>,
    /// Where they stand.
    pub geometry: Geometry,
    /// Takes the stored bytes, from the start of the first block's prefix; at least
    /// `blocks × stride` long.
    pub buffer: Buffer,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_never_found() {
        let unknown = Expectation { block: 0, expected: Expected::UNKNOWN };
        let writing = Some(Nonce::from_bytes([1; 24]));
        assert!(!unknown.holds(None, writing));
        assert!(!unknown.holds(Some(Nonce::from_bytes([2; 24])), writing));
    }

    #[test]
    fn an_expectation_holds_for_what_is_expected_and_for_what_is_being_written() {
        let [old, new, other] = [1, 2, 3].map(|byte| Some(Nonce::from_bytes([byte; 24])));
        let holds = |expected: Option<Nonce>, stored, writing| {
            let expected = Expected::of(expected);
            Expectation { block: 0, expected }.holds(stored, writing)
        };
        for writing in [new, None] {
            for expected in [old, None] {
                for stored in [old, new, other, None] {
                    let right = stored == expected || stored == writing;
                    assert_eq!(holds(expected, stored, writing), right);
                }
            }
        }
    }
}

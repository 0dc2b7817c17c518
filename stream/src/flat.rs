//! A flat sealed file, wherever its bytes are: what every target does to one, written once.
//!
//! A target says where the bytes are ([`Flat`]) and how one step excludes others ([`Place`]); from
//! that it is a [`Target`]. Called on whatever thread calls the target.
//!
//! **Invariants:**
//! 1. Comparing and writing happen within one [`Place::exclusively`].
//! 2. Where an expectation does not hold, nothing is written.
//! 3. What is reported as gone through went through from the write's start.

use std::{
    fmt,
    io::{self, IoSlice},
    ops::Range,
    task::Waker,
};

use sealback_crypto::{
    Geometry, HEADER_BYTES, Nonce, PREFIX_BYTES, Sealed, SlotExpectation, SlotWrite,
};

use crate::{
    BlockConflict, Completion, Failure, Prepared, Read, ReadCompletion, Segment, SizeLock,
    SizeLockAttempt, Target, TargetError, TargetErrorKind, Write,
};

mod bytes;

/// The bytes of one stored file.
pub(crate) trait Flat {
    /// How long the file is.
    fn len(&self) -> io::Result<u64>;

    /// Reads from `at` on; fewer bytes than asked only where the file ends.
    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<usize>;

    /// Writes the pieces, one after the other, from `at` on.
    fn write_at(&mut self, at: u64, pieces: &mut [IoSlice<'_>]) -> Through;

    /// Makes zeros of a range within the file and gives its room back; `false` if this cannot be
    /// done here, and nothing was.
    fn punch(&mut self, stored: Range<u64>) -> io::Result<bool>;

    /// Cuts the file, or makes it longer by zeros.
    fn set_len(&mut self, len: u64) -> io::Result<()>;

    /// Hears of a write before its first byte is written.
    fn begin(&mut self, _write: &Write) -> io::Result<()> {
        Ok(())
    }

    /// Waits until what was written is durable.
    fn sync(&mut self) -> io::Result<()>;
}

/// How far a write got, and what stopped it.
#[derive(Debug)]
pub(crate) struct Through {
    pub(crate) bytes: u64,
    pub(crate) error: Option<io::Error>,
}

impl Through {
    /// All of what was asked, or the error.
    pub(crate) fn whole(self) -> io::Result<()> {
        self.error.map_or(Ok(()), Err)
    }
}

/// Where one flat file is kept. Whatever is a place is a [`Target`].
pub(crate) trait Place: fmt::Debug + Send + Sync + 'static {
    /// As [`Target::identity`].
    fn identity(&self) -> u128;

    /// As [`Target::prepare`].
    fn grant(&self, block: u64, waker: &Waker) -> Prepared;

    /// Makes room for a write that is to come, where there is a limit.
    fn make_room(&self, _write: &Write) {}

    /// Runs a step that nobody else's step can come between, of any thread or process.
    fn exclusively<R>(&self, step: impl FnOnce(&mut dyn Flat) -> R) -> Result<R, TargetError>;

    /// Runs a step that only reads.
    fn look<R>(&self, step: impl FnOnce(&dyn Flat) -> R) -> R;

    /// Finishes what a crash has left half done, if that can be done here.
    fn settle(&self) -> Result<(), TargetError> {
        Ok(())
    }

    /// As [`Target::barrier`].
    fn make_durable(&self) -> Result<(), TargetError>;

    /// As [`Target::publish`].
    fn put_in_place(&self) -> Result<(), TargetError> {
        Ok(())
    }

    /// As [`Target::lock_size`].
    fn hold_size(&self) -> Result<Option<SizeLock>, TargetError> {
        Ok(None)
    }

    /// As [`Target::try_lock_size`].
    fn try_hold_size(&self) -> Result<SizeLockAttempt, TargetError> {
        Ok(SizeLockAttempt::Unavailable)
    }

    /// Hears of each operation, for those who count them.
    fn note(&self, _operation: Operation) {}
}

/// What a place can count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Barrier,
    Read,
    Write,
}

impl<P: Place> Target for P {
    fn identity(&self) -> u128 {
        Place::identity(self)
    }

    fn prepare(&self, block: u64, waker: &Waker) -> Prepared {
        self.grant(block, waker)
    }

    fn write(&self, write: Write, done: Completion) {
        self.note(Operation::Write);
        self.make_room(&write);
        let outcome = self.exclusively(|flat| carry_out(flat, &write));
        // The sealed buffers go home before anyone hears of the end.
        drop(write);
        match outcome {
            Ok(Ok(bytes)) => done.written(bytes),
            Ok(Err(failure)) => done.failed(failure),
            Err(error) => done.failed(Failure::Fatal(error)),
        }
    }

    fn read(&self, read: Read, done: ReadCompletion) {
        self.note(Operation::Read);
        let Read { blocks, geometry, mut buffer } = read;
        let asked = blocks.end.saturating_sub(blocks.start).saturating_mul(geometry.stride_bytes());
        let asked = usize::try_from(asked).map_or(buffer.len(), |asked| asked.min(buffer.len()));
        let at = geometry.stored_start(blocks.start);
        match self.look(|flat| flat.read_at(at, &mut buffer[..asked])) {
            Ok(bytes) => done.read(buffer, bytes),
            Err(error) => {
                let context = format!("reading blocks {} to {}", blocks.start, blocks.end);
                done.failed(TargetError::from_io(context, error));
            }
        }
    }

    fn read_header(&self) -> Result<Vec<u8>, TargetError> {
        self.settle()?;
        let mut header = vec![0; HEADER_BYTES];
        let n = self
            .look(|flat| flat.read_at(0, &mut header))
            .map_err(|error| TargetError::from_io("reading the header", error))?;
        header.truncate(n);
        Ok(header)
    }

    fn write_slot(&self, write: &SlotWrite) -> Result<(), TargetError> {
        self.exclusively(|flat| write_slot(flat, write))?
    }

    fn cut(
        &self,
        geometry: Geometry,
        n_blocks: u64,
        expect: &SlotExpectation,
    ) -> Result<(), TargetError> {
        self.exclusively(|flat| {
            check_header(flat, expect)?;
            let end = match n_blocks.checked_sub(1) {
                Some(last) => end_of_block(flat, geometry, last),
                None => Ok(HEADER_BYTES as u64),
            };
            end.and_then(|end| cut_before(flat, end))
                .map_err(|error| TargetError::from_io("cutting the stored file", error))
        })?
    }

    fn barrier(&self) -> Result<(), TargetError> {
        self.note(Operation::Barrier);
        self.make_durable()
    }

    fn publish(&self) -> Result<(), TargetError> {
        self.put_in_place()
    }

    fn lock_size(&self) -> Result<Option<SizeLock>, TargetError> {
        self.hold_size()
    }

    fn try_lock_size(&self) -> Result<SizeLockAttempt, TargetError> {
        self.try_hold_size()
    }
}

/// Writes a slot if the header is still what was read. To be called exclusively.
pub(crate) fn write_slot(flat: &mut dyn Flat, write: &SlotWrite) -> Result<(), TargetError> {
    check_header(flat, &write.expect)?;
    overwrite(flat, write.offset, &write.bytes[..])
        .map_err(|error| TargetError::from_io("writing a header slot", error))
}

/// Writes all of `bytes` at a place.
pub(crate) fn overwrite(flat: &mut dyn Flat, at: u64, bytes: &[u8]) -> io::Result<()> {
    flat.write_at(at, &mut [IoSlice::new(bytes)]).whole()
}

/// Cuts the file if it is longer than that.
pub(crate) fn cut_before(flat: &mut dyn Flat, stored_bytes: u64) -> io::Result<()> {
    if flat.len()? > stored_bytes { flat.set_len(stored_bytes) } else { Ok(()) }
}

/// The first block of which a cut to `stored_bytes` can take something.
pub(crate) fn first_cut(geometry: Geometry, stored_bytes: u64) -> u64 {
    stored_bytes.saturating_sub(geometry.stored_start(0)) / geometry.stride_bytes()
}

/// The nonce that is stored for a block; `None` for a hole or where the file ends before it.
///
/// Bytes that the file has not are zeros: a prefix that is cut short is a nonce that nobody
/// expects, unless all of it that is there is zero.
fn nonce_at(flat: &dyn Flat, geometry: Geometry, block: u64) -> io::Result<Option<Nonce>> {
    let mut prefix = [0; PREFIX_BYTES];
    flat.read_at(geometry.stored_start(block), &mut prefix)?;
    Ok((prefix != [0; PREFIX_BYTES]).then(|| {
        let mut nonce = [0; 24];
        nonce.copy_from_slice(&prefix[..24]);
        Nonce::from_bytes(nonce)
    }))
}

/// The nonce of each block of `sealed` that is stored with it; `None` where something else is.
pub(crate) fn stored_of(flat: &dyn Flat, sealed: &Sealed) -> io::Result<Vec<Option<Nonce>>> {
    let stored = |(block, nonce)| {
        Ok(nonce_at(flat, sealed.geometry(), block)?.filter(|stored| *stored == nonce))
    };
    sealed.nonces().map(stored).collect()
}

/// How many blocks, from the first on, the file is long enough for, by what their prefixes say.
pub(crate) fn whole_blocks(flat: &dyn Flat, geometry: Geometry) -> io::Result<u64> {
    let len = flat.len()?;
    let last = first_cut(geometry, len);
    Ok(if end_of_block(flat, geometry, last)? <= len { last + 1 } else { last })
}

/// Where a block's bytes end, by what its prefix says of them.
fn end_of_block(flat: &dyn Flat, geometry: Geometry, block: u64) -> io::Result<u64> {
    let mut prefix = [0; PREFIX_BYTES];
    flat.read_at(geometry.stored_start(block), &mut prefix)?;
    let sealed = u32::from_le_bytes([prefix[40], prefix[41], prefix[42], prefix[43]]);
    Ok(geometry.stored_start(block) + (PREFIX_BYTES as u64 + u64::from(sealed)))
}

/// Compares a write's expectations, then writes it. To be called exclusively.
fn carry_out(flat: &mut dyn Flat, write: &Write) -> Result<u64, Failure> {
    let Some(geometry) = write.segments.first().map(Segment::geometry) else { return Ok(0) };
    let conflicts = conflicts(flat, write, geometry).map_err(|error| failure(write, error))?;
    if !conflicts.is_empty() {
        return Err(Failure::Conflict(conflicts));
    }
    flat.begin(write).map_err(|error| failure(write, error))?;
    let mut bytes = 0;
    let mut rest = &write.segments[..];
    while let Some(first) = rest.first() {
        let (n_segments, through) = match first {
            Segment::Hole { blocks, geometry } => (1, hole_through(flat, blocks, *geometry)),
            Segment::Sealed(sealed) => write_run(flat, sealed, rest),
        };
        bytes += through.bytes;
        if let Some(error) = through.error {
            // Fewer bytes than a block's count as none: a resend that always gets that far would
            // hide the error for ever.
            return if bytes >= geometry.stride_bytes() {
                Ok(bytes)
            } else {
                Err(failure(write, error))
            };
        }
        rest = &rest[n_segments..];
    }
    Ok(bytes)
}

/// Every expectation that does not hold.
fn conflicts(flat: &dyn Flat, write: &Write, geometry: Geometry) -> io::Result<Vec<BlockConflict>> {
    let mut conflicts = Vec::new();
    if write.expectations.is_empty() {
        return Ok(conflicts);
    }
    // Most blocks of a growing file are beyond its end, and need no reading.
    let len = flat.len()?;
    for expectation in &write.expectations {
        let block = expectation.block;
        let stored = match geometry.stored_start(block) < len {
            true => nonce_at(flat, geometry, block)?,
            false => None,
        };
        if !expectation.holds(stored, write.nonce(block)) {
            conflicts.push(BlockConflict { block, stored });
        }
    }
    Ok(conflicts)
}

/// Writes the sealed segments at the front that are stored end to end; returns how many.
fn write_run(flat: &mut dyn Flat, first: &Sealed, segments: &[Segment]) -> (usize, Through) {
    let start = first.stored_start();
    let mut end = start;
    let mut n_segments = 0;
    let mut pieces = Vec::new();
    for segment in segments {
        let Segment::Sealed(sealed) = segment else { break };
        if sealed.stored_start() != end {
            break;
        }
        end += segment.bytes();
        n_segments += 1;
        if !sealed.bytes().is_empty() {
            pieces.push(IoSlice::new(sealed.bytes()));
        }
    }
    (n_segments, flat.write_at(start, &mut pieces))
}

/// Makes holes of blocks: all or nothing is reported.
fn hole_through(flat: &mut dyn Flat, blocks: &Range<u64>, geometry: Geometry) -> Through {
    match make_hole(flat, blocks, geometry) {
        Ok(()) => {
            let bytes = (blocks.end - blocks.start) * geometry.stride_bytes();
            Through { bytes, error: None }
        }
        Err(error) => Through { bytes: 0, error: Some(error) },
    }
}

/// Makes holes of blocks.
pub(crate) fn make_hole(
    flat: &mut dyn Flat,
    blocks: &Range<u64>,
    geometry: Geometry,
) -> io::Result<()> {
    let Some(last) = blocks.clone().next_back() else { return Ok(()) };
    let len = flat.len()?;
    let stored = geometry.stored_start(blocks.start)..geometry.stored_start(blocks.end).min(len);
    if !stored.is_empty() && !flat.punch(stored)? {
        for block in blocks.clone() {
            let at = geometry.stored_start(block);
            if at >= len {
                break;
            }
            overwrite(flat, at, &[0; PREFIX_BYTES])?;
        }
    }
    // A stored file always reaches the end of its last block's prefix.
    let least = geometry.stored_start(last) + PREFIX_BYTES as u64;
    if flat.len()? < least { flat.set_len(least) } else { Ok(()) }
}

/// Whether the header is still what was read. A header that is cut short is another.
pub(crate) fn check_header(flat: &dyn Flat, expect: &SlotExpectation) -> Result<(), TargetError> {
    let unread = |error| TargetError::from_io("reading the header to compare it", error);
    let mut header = [0; HEADER_BYTES];
    let mac_at = usize::try_from(expect.mac_offset).unwrap_or(HEADER_BYTES);
    let mac_at = mac_at..(mac_at + expect.mac.len()).min(HEADER_BYTES);
    // All of it at once, up to the MAC: that is one call, and not much to copy.
    flat.read_at(0, &mut header[..mac_at.end]).map_err(unread)?;
    if header.starts_with(&expect.prologue) && header[mac_at] == expect.mac {
        return Ok(());
    }
    Err(TargetError::new(TargetErrorKind::Conflict, "the header is no longer what was read"))
}

/// What an error of the system means for a write.
fn failure(write: &Write, error: io::Error) -> Failure {
    let transient = matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock);
    let blocks = write.blocks();
    let context = format!("writing blocks {} to {}", blocks.start, blocks.end);
    let error = TargetError::from_io(context, error);
    if transient { Failure::Retry(error) } else { Failure::Fatal(error) }
}

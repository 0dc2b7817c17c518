//! Records behind one another in a file, each of which knows the one before it.
//!
//! **Invariants:**
//! 1. What is read after a crash is what was written up to some record, which is not before the last sync.
//! 2. A record that is left of what was cut off counts no more, whatever was written in its place: it knows
//!    another one before it.
//! 3. Where something that was kept cannot be read, all stays as it is found.

use std::io;

use super::record::{self, Placed, Record};
use crate::flat::Flat;

/// The bytes of a file that is written to.
pub(super) type Bytes = Box<dyn Flat + Send + Sync>;

/// A file of records, and where the next one goes.
pub(super) struct Chain {
    bytes: Bytes,
    end: u64,
    /// The hash of the last record; of none, what the first one knows.
    last: blake3::Hash,
    /// Where the last record ends that says that all before it is kept.
    kept: u64,
}

impl Chain {
    /// A file as it is found, and its records; what stands behind the last whole one is dropped, or an error
    /// if it was kept. `start` is what tells this file from any other.
    pub(super) fn recover(
        mut bytes: Bytes,
        start: blake3::Hash,
    ) -> io::Result<(Chain, Vec<Placed>)> {
        let (mut placed, mut end, mut last, mut kept) = (Vec::new(), 0, start, 0);
        while let Some(next) = Record::read(&*bytes, &last, end)? {
            (end, last) = (next.end, next.hash);
            kept = if next.record == Record::Kept { end } else { kept };
            placed.push(next);
        }
        if bytes.len()? > end {
            if record::has_kept(&*bytes, end)? {
                let what =
                    format!("damaged at byte {end}, before the end of what was acknowledged");
                return Err(io::Error::new(io::ErrorKind::InvalidData, what));
            }
            bytes.set_len(end)?;
        }
        Ok((Chain { bytes, end, last, kept }, placed))
    }

    /// Takes back, for good, what stands behind the record that ends there and is known by that hash.
    pub(super) fn take_back(&mut self, end: u64, last: blake3::Hash) -> io::Result<()> {
        self.bytes.set_len(end)?;
        if self.kept > end {
            // Or else that, found once more behind something torn, would make that damage.
            self.bytes.sync()?;
            self.kept = end;
        }
        (self.end, self.last) = (end, last);
        Ok(())
    }

    /// Writes a record behind the others. One that fails is none.
    pub(super) fn push(&mut self, record: Record, payload: &[&[u8]]) -> io::Result<Placed> {
        let placed = record.write(&mut *self.bytes, &self.last, self.end, payload)?;
        (self.end, self.last) = (placed.end, placed.hash);
        Ok(placed)
    }

    /// Reads all of `to` from a record's payload.
    pub(super) fn read(&self, at: u64, to: &mut [u8]) -> io::Result<()> {
        let n = self.bytes.read_at(at, to)?;
        if n == to.len() { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    pub(super) fn sync(&mut self) -> io::Result<()> {
        self.bytes.sync()
    }

    /// Says that all that is in it is there for good.
    pub(super) fn keep(&mut self) -> io::Result<()> {
        if self.kept < self.end {
            self.push(Record::Kept, &[])?;
            self.kept = self.end;
        }
        Ok(())
    }

    /// What tells all that is in it from anything else.
    pub(super) fn last(&self) -> blake3::Hash {
        self.last
    }

    /// Bytes that it takes.
    pub(super) fn bytes(&self) -> u64 {
        self.end
    }
}

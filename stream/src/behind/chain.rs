//! Records behind one another in a file, each of which knows the one before it.
//!
//! **Invariants:**
//! 1. What is read after a crash is what was written up to some record, which is not before the last sync.
//! 2. A record that is left of what was cut off counts no more, whatever was written in its place: it knows
//!    another one before it.

use std::io;

use super::record::{Placed, Record};
use crate::flat::Flat;

/// The bytes of a file that is written to.
pub(super) type Bytes = Box<dyn Flat + Send + Sync>;

/// A file of records, and where the next one goes.
pub(super) struct Chain {
    bytes: Bytes,
    end: u64,
    /// The hash of the last record; of none, what the first one knows.
    last: blake3::Hash,
}

impl Chain {
    /// A file as it is found, and its records; what stands behind the last whole one is dropped. `start` is
    /// what tells this file from any other.
    pub(super) fn recover(
        mut bytes: Bytes,
        start: blake3::Hash,
    ) -> io::Result<(Chain, Vec<Placed>)> {
        let (mut placed, mut end, mut last) = (Vec::new(), 0, start);
        while let Some(next) = Record::read(&*bytes, &last, end)? {
            (end, last) = (next.end, next.hash);
            placed.push(next);
        }
        if bytes.len()? > end {
            bytes.set_len(end)?;
        }
        Ok((Chain { bytes, end, last }, placed))
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

    /// What tells all that is in it from anything else.
    pub(super) fn last(&self) -> blake3::Hash {
        self.last
    }

    /// Bytes that it takes.
    pub(super) fn bytes(&self) -> u64 {
        self.end
    }
}

//! A file whose header is in memory until the file gets its name.
//!
//! Each sync of a new file commits headers, one over the other, and nobody can read them before the
//! file has a name. So they go to memory, and what has come of them is written once.

use std::{
    fs::File,
    io::{self, IoSlice},
    ops::Range,
};

use sealback_crypto::HEADER_BYTES;

use crate::flat::{Flat, Through, overwrite};

/// A header that is not in its file yet.
pub(super) type Unwritten = Option<Box<[u8; HEADER_BYTES]>>;

/// A file, and its header, if that is not in it yet.
#[derive(Debug)]
pub(super) struct Headed<'a> {
    pub(super) file: &'a File,
    pub(super) header: &'a mut Unwritten,
}

impl Headed<'_> {
    /// Writes the header to the file, where it belongs from then on.
    pub(super) fn write_header(&mut self) -> io::Result<()> {
        if let Some(header) = &self.header {
            overwrite(&mut self.file, 0, &header[..])?;
            *self.header = None;
        }
        Ok(())
    }
}

impl Flat for Headed<'_> {
    fn len(&self) -> io::Result<u64> {
        let least = if self.header.is_some() { HEADER_BYTES as u64 } else { 0 };
        Ok(self.file.len()?.max(least))
    }

    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<usize> {
        let held = self.header.as_ref().and_then(|header| header.get(usize::try_from(at).ok()?..));
        let held = held.unwrap_or_default();
        let n_held = held.len().min(into.len());
        let (first, rest) = into.split_at_mut(n_held);
        first.copy_from_slice(&held[..n_held]);
        Ok(n_held + Flat::read_at(&self.file, at + n_held as u64, rest)?)
    }

    fn write_at(&mut self, at: u64, pieces: &mut [IoSlice<'_>]) -> Through {
        let bytes: usize = pieces.iter().map(|piece| piece.len()).sum();
        let within = usize::try_from(at).ok().and_then(|at| Some(at..at.checked_add(bytes)?));
        if let Some(held) =
            self.header.as_mut().zip(within).and_then(|(held, within)| held.get_mut(within))
        {
            let mut rest = held;
            for piece in pieces {
                let (first, behind) = rest.split_at_mut(piece.len());
                first.copy_from_slice(piece);
                rest = behind;
            }
            return Through { bytes: bytes as u64, error: None };
        }
        if at < HEADER_BYTES as u64
            && let Err(error) = self.write_header()
        {
            return Through { bytes: 0, error: Some(error) };
        }
        Flat::write_at(&mut self.file, at, pieces)
    }

    fn punch(&mut self, stored: Range<u64>) -> io::Result<bool> {
        self.write_header()?;
        self.file.punch(stored)
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        self.write_header()?;
        Flat::set_len(&mut self.file, len)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.write_header()?;
        self.file.sync()
    }
}

//! A flat file that is a vector of bytes.

use std::{
    io::{self, IoSlice},
    ops::Range,
};

use super::{Flat, Through};

impl Flat for Vec<u8> {
    fn len(&self) -> io::Result<u64> {
        Ok(self.as_slice().len() as u64)
    }

    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<usize> {
        let Some(stored) = usize::try_from(at).ok().and_then(|at| self.get(at..)) else {
            return Ok(0);
        };
        let n = stored.len().min(into.len());
        into[..n].copy_from_slice(&stored[..n]);
        Ok(n)
    }

    fn write_at(&mut self, at: u64, pieces: &mut [IoSlice<'_>]) -> Through {
        let total: u64 = pieces.iter().map(|piece| piece.len() as u64).sum();
        let mut room = || grow(self, at.saturating_add(total)).and_then(|()| index(at));
        match room() {
            Ok(mut at) => {
                for piece in pieces {
                    self[at..at + piece.len()].copy_from_slice(piece);
                    at += piece.len();
                }
                Through { bytes: total, error: None }
            }
            Err(error) => Through { bytes: 0, error: Some(error) },
        }
    }

    fn punch(&mut self, stored: Range<u64>) -> io::Result<bool> {
        let end = index(stored.end)?.min(self.as_slice().len());
        let start = index(stored.start)?.min(end);
        self[start..end].fill(0);
        Ok(true)
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        grow(self, len)?;
        self.truncate(index(len)?);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Makes the vector at least so long, by zeros.
fn grow(bytes: &mut Vec<u8>, len: u64) -> io::Result<()> {
    let len = index(len)?;
    let have = bytes.as_slice().len();
    if len > have {
        bytes.try_reserve(len - have).map_err(|_| io::Error::from(io::ErrorKind::StorageFull))?;
        bytes.resize(len, 0);
    }
    Ok(())
}

fn index(at: u64) -> io::Result<usize> {
    usize::try_from(at).map_err(|_| io::Error::from(io::ErrorKind::StorageFull))
}

//! A file that is made when something is written to it.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, IoSlice},
    ops::Range,
    path::PathBuf,
};

use super::{disk::Own, lock};
use crate::flat::{Flat, Through};

/// A file at a path, of which nobody else knows. As long as it is not there, it is empty.
#[derive(Debug)]
pub(super) struct LazyFile {
    path: PathBuf,
    state: State,
}

#[derive(Debug)]
enum State {
    /// It has to be looked whether it is there.
    Unknown,
    NotThere,
    Open(Own<File>),
}

impl LazyFile {
    pub(super) fn new(path: PathBuf) -> LazyFile {
        LazyFile { path, state: State::Unknown }
    }

    /// Opens it if it is there.
    pub(super) fn look(&mut self) -> io::Result<()> {
        if let State::Unknown = self.state {
            let mut options = OpenOptions::new();
            self.state = match lock::open_there(&self.path, options.read(true).write(true)) {
                Ok(file) => State::Open(Own::new(file)?),
                Err(error) if error.kind() == io::ErrorKind::NotFound => State::NotThere,
                Err(error) => return Err(error),
            };
        }
        Ok(())
    }

    /// Whether it has been looked whether it is there.
    pub(super) fn is_known(&self) -> bool {
        !matches!(self.state, State::Unknown)
    }

    /// Removes it, unless `is_needed` says otherwise of it.
    pub(super) fn remove(&mut self, is_needed: impl FnOnce(&dyn Flat) -> bool) -> io::Result<()> {
        self.look()?;
        if let State::Open(file) = &self.state
            && !is_needed(file)
        {
            fs::remove_file(&self.path)?;
            self.state = State::NotThere;
        }
        Ok(())
    }

    fn open(&self) -> Option<&Own<File>> {
        if let State::Open(file) = &self.state { Some(file) } else { None }
    }

    fn make(&mut self) -> io::Result<&mut Own<File>> {
        if !matches!(self.state, State::Open(_)) {
            self.state = State::Open(Own::new(lock::make_there(&self.path)?)?);
        }
        match &mut self.state {
            State::Open(file) => Ok(file),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

impl Flat for LazyFile {
    fn len(&self) -> io::Result<u64> {
        self.open().map_or(Ok(0), Flat::len)
    }

    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<usize> {
        self.open().map_or(Ok(0), |file| file.read_at(at, into))
    }

    fn write_at(&mut self, at: u64, pieces: &mut [IoSlice<'_>]) -> Through {
        match self.make() {
            Ok(file) => file.write_at(at, pieces),
            Err(error) => Through { bytes: 0, error: Some(error) },
        }
    }

    fn punch(&mut self, stored: Range<u64>) -> io::Result<bool> {
        if let State::Open(file) = &mut self.state { file.punch(stored) } else { Ok(true) }
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        match &mut self.state {
            State::Open(file) => file.set_len(len),
            _ if len == 0 => Ok(()),
            _ => self.make()?.set_len(len),
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        if let State::Open(file) = &mut self.state { file.sync() } else { Ok(()) }
    }
}

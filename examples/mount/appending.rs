//! Who may append, where several mounts have one tree: one at a time, of whatever file.
//!
//! Where a file ends is known to nobody as long as somebody else makes it longer, and the server's lock on its
//! size is held by each write that does, which is too late: it has its place already. So there is a lock of the
//! mounts' own around both.

use std::{
    fs::{File, OpenOptions},
    io,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::{
    errors::{Result, of_io},
    lower,
};

/// The lock, between mounts and between threads.
pub(crate) struct Appending(Mutex<File>);

/// Nobody else appends as long as it is there.
pub(crate) struct Turn<'a>(MutexGuard<'a, File>);

impl Appending {
    /// Opens the lock of a tree, beside its sealed files.
    pub(crate) fn open(beside: &Path) -> io::Result<Appending> {
        let mut options = OpenOptions::new();
        let lock = lower::own_file(&beside.join("append.lock"), options.read(true).write(true))?;
        Ok(Appending(Mutex::new(lock)))
    }

    /// Waits until nobody else appends.
    pub(crate) fn turn(&self) -> Result<Turn<'_>> {
        let file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match file.lock() {
                Ok(()) => return Ok(Turn(file)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(of_io(&error)),
            }
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        // One that stays locked would keep all others waiting; there is nobody to tell.
        let _ = self.0.unlock();
    }
}

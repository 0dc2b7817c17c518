//! The copies that this process has open: one object each, however often they are opened.
//!
//! The system's lock on a record keeps other processes out, and would keep out a second opening
//! here, too.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak},
};

use super::copy::LocalCopy;

/// Held while a copy is opened or removed, so that the one never meets the other's lock.
static OPEN: Mutex<BTreeMap<PathBuf, Weak<LocalCopy>>> = Mutex::new(BTreeMap::new());

/// Notified when a copy has left [`OPEN`].
static CLOSED: Condvar = Condvar::new();

/// The copy at a path, which `open` opens if it is not open.
pub(super) fn open(
    path: &Path,
    open: impl FnOnce() -> io::Result<LocalCopy>,
) -> io::Result<Arc<LocalCopy>> {
    let mut copies = copies();
    while let Some(copy) = copies.get(path) {
        if let Some(copy) = copy.upgrade() {
            return Ok(copy);
        }
        // It is being closed, by another thread, and its record is not yet free.
        copies = CLOSED.wait(copies).unwrap_or_else(PoisonError::into_inner);
    }
    let copy = Arc::new(open()?);
    copies.insert(path.to_owned(), Arc::downgrade(&copy));
    Ok(copy)
}

/// Takes a copy that is being dropped, and has freed its record, from the list.
pub(super) fn closed(path: &Path) {
    copies().remove(path);
    CLOSED.notify_all();
}

/// The copies in a directory that are open.
pub(super) fn in_dir(dir: &Path) -> Vec<Arc<LocalCopy>> {
    let copies = copies();
    let here = copies.iter().filter(|(path, _)| path.parent() == Some(dir));
    here.filter_map(|(_, copy)| copy.upgrade()).collect()
}

/// Runs a step on a copy that is not open, and is not opened meanwhile; `None` if it is open.
pub(super) fn unless_open<R>(path: &Path, step: impl FnOnce() -> R) -> Option<R> {
    let copies = copies();
    (!copies.contains_key(path)).then(step)
}

fn copies() -> MutexGuard<'static, BTreeMap<PathBuf, Weak<LocalCopy>>> {
    OPEN.lock().unwrap_or_else(PoisonError::into_inner)
}

//! Clean folios, of all of an engine's files, in the order in which they were last used.

use lru::LruCache;

use crate::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A folio: its file's number and its own.
type Key = (u64, u64);

/// The clean folios of all files.
#[derive(Clone)]
pub(crate) struct CleanFolios(Arc<Mutex<LruCache<Key, ()>>>);

impl CleanFolios {
    pub(crate) fn new() -> CleanFolios {
        CleanFolios(Arc::new(Mutex::new(LruCache::unbounded())))
    }

    /// The list as one of the files sees it.
    pub(crate) fn of_file(&self, file: u64) -> CleanFoliosOf {
        CleanFoliosOf { all: self.clone(), file }
    }

    /// Takes out the folio that was used least recently: its file's number and its own.
    pub(crate) fn pop(&self) -> Option<Key> {
        self.list().pop_lru().map(|(key, ())| key)
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.list().len()
    }

    fn list(&self) -> MutexGuard<'_, LruCache<Key, ()>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for CleanFolios {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("CleanFolios").field(&self.list().len()).finish()
    }
}

/// One file's clean folios.
#[derive(Debug)]
pub(crate) struct CleanFoliosOf {
    all: CleanFolios,
    file: u64,
}

impl CleanFoliosOf {
    /// A folio has become clean just now.
    pub(super) fn push(&self, folio: u64) {
        self.all.list().put((self.file, folio), ());
    }

    /// These folios have been used, if they are clean.
    pub(super) fn used(&self, folios: impl Iterator<Item = u64>) {
        let mut list = self.all.list();
        for folio in folios {
            list.promote(&(self.file, folio));
        }
    }

    /// These folios are dirty, or have no memory any more.
    pub(super) fn remove(&self, folios: impl Iterator<Item = u64>) {
        let mut list = self.all.list();
        for folio in folios {
            list.pop(&(self.file, folio));
        }
    }
}

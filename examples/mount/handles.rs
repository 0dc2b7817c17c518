//! What the kernel has open: a number for each.

use std::{
    collections::HashMap,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use fuser::FileHandle;
use rustix::{fs::OFlags, io::Errno};

use crate::{errors::Result, inodes::Inode};

/// Open files, or open directories.
pub(crate) struct Handles<T> {
    next: AtomicU64,
    open: RwLock<HashMap<u64, Arc<T>>>,
}

/// An open file.
pub(crate) struct OpenFile {
    pub(crate) inode: Arc<Inode>,
    pub(crate) file: sealback::File,
    /// It was opened to append.
    appends: bool,
    /// How many writes of the kernel's page cache had been refused when this was last synced.
    n_refused: AtomicU64,
}

impl OpenFile {
    pub(crate) fn new(inode: Arc<Inode>, file: sealback::File, flags: OFlags) -> OpenFile {
        let n_refused = AtomicU64::new(inode.content.n_refused());
        OpenFile { inode, file, appends: flags.contains(OFlags::APPEND), n_refused }
    }

    /// Whether what is written with these flags is appended.
    pub(crate) fn appends(&self, flags: OFlags) -> bool {
        self.appends && flags.contains(OFlags::APPEND)
    }

    /// The kernel wants it synced. What it had written and was refused since the last time it has told of by then,
    /// and is not to hear of once more.
    pub(crate) fn drop_what_is_told(&self) {
        let n_refused = self.inode.content.n_refused();
        if self.n_refused.swap(n_refused, Ordering::Relaxed) != n_refused {
            self.file.told_of_failure();
        }
    }
}

impl<T> Handles<T> {
    pub(crate) fn new() -> Handles<T> {
        Handles { next: AtomicU64::new(1), open: RwLock::default() }
    }

    /// Opens one.
    pub(crate) fn insert(&self, handle: T) -> FileHandle {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        open.insert(number, Arc::new(handle));
        FileHandle(number)
    }

    /// What has a number.
    pub(crate) fn get(&self, handle: FileHandle) -> Result<Arc<T>> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        open.get(&handle.0).cloned().ok_or(Errno::BADF)
    }

    /// Closes one.
    pub(crate) fn remove(&self, handle: FileHandle) -> Option<Arc<T>> {
        self.open.write().unwrap_or_else(PoisonError::into_inner).remove(&handle.0)
    }

    /// How many are open.
    pub(crate) fn len(&self) -> usize {
        self.open.read().unwrap_or_else(PoisonError::into_inner).len()
    }
}

//! The mounted tree: what all rooms share.

use std::{
    fmt,
    fs::File,
    sync::{Mutex, OnceLock, PoisonError, atomic::AtomicU64},
    time::{Duration, Instant},
};

use fuser::{InitFlags, Notifier};
use sealback::{
    Engine, Place,
    crypto::RootKey,
    stream::{Cache, LocalCache, LocalServer},
};

use crate::{
    appending::Appending,
    directory::OpenDirectory,
    handles::{Handles, OpenFile},
    inodes::{Inode, Inodes},
};

/// A directory of sealed files, and what the kernel knows and has open of it.
pub(crate) struct Tree {
    pub(crate) options: Options,
    pub(crate) engine: Engine,
    pub(crate) server: LocalServer,
    pub(crate) cache: Option<LocalCache>,
    /// With several mounts, who may append.
    pub(crate) appending: Option<Appending>,
    pub(crate) root_key: RootKey,
    pub(crate) inodes: Inodes,
    pub(crate) files: Handles<OpenFile>,
    pub(crate) directories: Handles<OpenDirectory>,
    /// `.sealback/` of the tree.
    pub(crate) beside: File,
    /// The identity of that: it is not seen.
    pub(crate) hidden: (u64, u64),
    /// Who runs this.
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) n_requests: AtomicU64,
    /// What the kernel has agreed to, once it is mounted.
    pub(crate) granted: OnceLock<InitFlags>,
    /// Tells the kernel what it does not know by itself, once it is mounted.
    pub(crate) notifier: OnceLock<Notifier>,
    pub(crate) log: Log,
}

/// What was told last, and when.
#[derive(Debug, Default)]
pub(crate) struct Log(Mutex<Option<(String, Instant)>>);

impl Log {
    /// Whether something is to be told: not the same again and again, as of a full disk or a damaged block that
    /// somebody goes on reading.
    fn is_new(&self, what: &str) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = !last.as_ref().is_some_and(|(said, at)| said == what && at.elapsed() < AGAIN);
        if is_new {
            *last = Some((what.to_owned(), Instant::now()));
        }
        is_new
    }
}

/// After that the same is told once more.
const AGAIN: Duration = Duration::from_secs(60);

/// What the user has chosen.
#[derive(Clone, Copy)]
pub(crate) struct Options {
    /// Of new files.
    pub(crate) block_bytes: u64,
    /// Several mounts of one tree.
    pub(crate) shared: bool,
    /// An fsync waits until the disk has it.
    pub(crate) waits_for_disk: bool,
}

impl Tree {
    pub(crate) fn place(&self) -> Place<'_> {
        let cache = self.cache.as_ref().map(|cache| cache as &dyn Cache);
        Place { server: &self.server, cache, root: &self.root_key }
    }

    /// Tells whoever runs this, on standard error.
    pub(crate) fn log(&self, what: impl fmt::Display) {
        let what = what.to_string();
        if self.log.is_new(&what) {
            eprintln!("mount: {what}");
        }
    }
}

impl Inode {
    /// Where it is below the server's directory, for people: it may be renamed at any time.
    pub(crate) fn path(&self) -> String {
        let path = std::fs::read_link(crate::lower::path_of(&self.reference));
        let path = path.unwrap_or_else(|_| "a file".into());
        path.display().to_string().escape_debug().to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_not_told_again_and_again() {
        let log = Log::default();
        let told = ["one", "one", "two", "two", "one"].map(|what| log.is_new(what));
        assert_eq!(told, [true, false, true, false, true]);
    }
}

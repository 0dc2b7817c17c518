//! The mounted tree: what all rooms share.

use std::{
    fmt,
    fs::File,
    sync::{OnceLock, atomic::AtomicU64},
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
}

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
        eprintln!("mount: {what}");
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

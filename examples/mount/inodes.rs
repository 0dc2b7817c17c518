//! What the kernel knows of: a number for each, which is the lower file's, and how often it was looked up.

use std::{
    collections::HashMap,
    fs::{File, Metadata},
    os::unix::fs::MetadataExt,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    thread::Thread,
};

use fuser::INodeNo;
use rustix::{fs::FileType, io::Errno};

use crate::{
    content::Content,
    errors::{Result, of_io},
    lower,
};

/// A file, a directory, or whatever else there is in the tree.
pub(crate) struct Inode {
    pub(crate) number: INodeNo,
    /// An `O_PATH` descriptor: see [`lower`].
    pub(crate) reference: File,
    pub(crate) kind: FileType,
    /// What regular files have.
    pub(crate) content: Content,
}

impl Inode {
    pub(crate) fn stat(&self) -> Result<Metadata> {
        self.reference.metadata().map_err(|error| of_io(&error))
    }

    pub(crate) fn is_root(&self) -> bool {
        self.number == INodeNo::ROOT
    }
}

/// All of them.
pub(crate) struct Inodes {
    device: u64,
    /// More than so many are many.
    most: usize,
    /// Wakes who sees to it that they are not.
    forgetter: OnceLock<Thread>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    by_number: HashMap<u64, Entry>,
    by_identity: HashMap<(u64, u64), u64>,
    n_foreign: u64,
    n_meetings: u64,
}

struct Entry {
    inode: Arc<Inode>,
    identity: (u64, u64),
    /// How often the kernel has been told of it and has not forgotten it.
    n_lookups: u64,
    /// Which meeting the last one was.
    last_met: u64,
}

impl Inodes {
    /// Knows the root, for good. A file that is open takes up to four of
    /// `n_descriptors`.
    pub(crate) fn new(root: File, n_descriptors: usize) -> Result<Inodes> {
        let stat = root.metadata().map_err(|error| of_io(&error))?;
        let (device, most, known) = (stat.dev(), n_descriptors / 4, Mutex::default());
        let inodes = Inodes { device, most, forgetter: OnceLock::new(), known };
        let number = INodeNo::ROOT;
        let content = Content::default();
        let kind = FileType::Directory;
        let inode = Arc::new(Inode { number, reference: root, kind, content });
        let mut known = inodes.known();
        let identity = lower::identity(&stat);
        known.by_number.insert(number.0, Entry { inode, identity, n_lookups: 1, last_met: 0 });
        known.by_identity.insert(identity, number.0);
        drop(known);
        Ok(inodes)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What has a number.
    pub(crate) fn get(&self, number: INodeNo) -> Result<Arc<Inode>> {
        let known = self.known();
        known.by_number.get(&number.0).map(|entry| entry.inode.clone()).ok_or(Errno::STALE)
    }

    /// The kernel is told of what a reference stands for: to be forgotten once more.
    pub(crate) fn meet(&self, reference: File) -> Result<Arc<Inode>> {
        let stat = reference.metadata().map_err(|error| of_io(&error))?;
        let identity = lower::identity(&stat);
        let mut known = self.known();
        let Known { by_number, by_identity, n_foreign, n_meetings } = &mut *known;
        *n_meetings += 1;
        if let Some(entry) = by_identity.get(&identity).and_then(|n| by_number.get_mut(n)) {
            (entry.n_lookups, entry.last_met) = (entry.n_lookups + 1, *n_meetings);
            return Ok(entry.inode.clone());
        }
        let mut number = stat.ino();
        // Another file system that is mounted below has numbers of its own.
        if stat.dev() != self.device || number == INodeNo::ROOT.0 {
            *n_foreign += 1;
            number = FOREIGN | *n_foreign;
        }
        let (number, kind) = (INodeNo(number), lower::kind_of(stat.mode()));
        let content = Content::default();
        let inode = Arc::new(Inode { number, reference, kind, content });
        by_identity.insert(identity, number.0);
        let entry = Entry { inode: inode.clone(), identity, n_lookups: 1, last_met: *n_meetings };
        by_number.insert(number.0, entry);
        if by_number.len() > self.most {
            self.forgetter.get().inspect(|forgetter| forgetter.unpark());
        }
        Ok(inode)
    }

    /// The kernel has forgotten so many lookups.
    pub(crate) fn forget(&self, number: INodeNo, n_lookups: u64) {
        let mut known = self.known();
        if let Some(entry) = known.by_number.get_mut(&number.0) {
            entry.n_lookups = entry.n_lookups.saturating_sub(n_lookups);
        }
        let let_go = known.retire(number);
        drop(known);
        drop(let_go);
    }

    /// Nobody uses a file's content any more: if the kernel has forgotten it, it goes.
    pub(crate) fn retire(&self, number: INodeNo) {
        let let_go = self.known().retire(number);
        drop(let_go);
    }

    /// Wakes a thread when they are many.
    pub(crate) fn wake_when_many(&self, forgetter: Thread) {
        // There is one.
        let _ = self.forgetter.set(forgetter);
    }

    /// Whether more are known than there should be.
    pub(crate) fn are_many(&self) -> bool {
        self.known().by_number.len() > self.most
    }

    /// Whether there is hardly room for more.
    pub(crate) fn are_too_many(&self) -> bool {
        self.known().by_number.len() > self.most / 4 * 5
    }

    /// The half that was met longest ago.
    pub(crate) fn oldest(&self) -> Vec<Arc<Inode>> {
        let known = self.known();
        let met = |entry: &Entry| (entry.last_met, entry.inode.clone());
        let mut all: Vec<_> = known.by_number.values().map(met).collect();
        drop(known);
        all.sort_unstable_by_key(|(last_met, _)| *last_met);
        all.truncate(all.len() / 2);
        all.into_iter().map(|(_, inode)| inode).collect()
    }

    /// The number of what is known by its identity.
    pub(crate) fn number_of(&self, identity: (u64, u64)) -> Option<INodeNo> {
        self.known().by_identity.get(&identity).copied().map(INodeNo)
    }

    /// Everything that is known.
    pub(crate) fn all(&self) -> Vec<Arc<Inode>> {
        self.known().by_number.values().map(|entry| entry.inode.clone()).collect()
    }
}

impl Known {
    fn retire(&mut self, number: INodeNo) -> Option<Entry> {
        let entry = self.by_number.get(&number.0)?;
        if entry.n_lookups > 0 || entry.inode.content.is_in_use() || entry.inode.is_root() {
            return None;
        }
        let entry = self.by_number.remove(&number.0)?;
        self.by_identity.remove(&entry.identity);
        Some(entry)
    }
}

/// Numbers of what is on other file systems have this bit.
const FOREIGN: u64 = 1 << 63;

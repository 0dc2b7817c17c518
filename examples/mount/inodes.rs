//! What the kernel knows of: a number for each, which is the lower file's, and how often it was looked up.

use std::{
    collections::HashMap,
    fs::{File, Metadata},
    os::unix::fs::MetadataExt,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    thread::{self, Thread},
    time::Duration,
};

use fuser::INodeNo;
use rustix::{fs::FileType, io::Errno};

use crate::{content::Content, errors::Result, lower};

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
        lower::stat(&self.reference)
    }

    pub(crate) fn is_root(&self) -> bool {
        self.number == INodeNo::ROOT
    }

    /// Whether no name leads to it any more.
    pub(crate) fn is_gone(&self) -> bool {
        self.stat().is_ok_and(|stat| stat.nlink() == 0)
    }
}

/// All of them.
pub(crate) struct Inodes {
    device: u64,
    n_descriptors: usize,
    /// Wakes who sees to it that they are not.
    forgetter: OnceLock<Thread>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    by_number: HashMap<u64, Entry>,
    by_identity: HashMap<(u64, u64), u64>,
    /// Of those, so many are directories, which stay.
    n_directories: usize,
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
    /// Knows the root, for good. What is known takes one of `n_descriptors`, and a file that is open up to
    /// four.
    pub(crate) fn new((root, stat): (File, Metadata), n_descriptors: usize) -> Inodes {
        let (device, known) = (stat.dev(), Mutex::default());
        let inodes = Inodes { device, n_descriptors, forgetter: OnceLock::new(), known };
        let number = INodeNo::ROOT;
        let content = Content::default();
        let kind = FileType::Directory;
        let inode = Arc::new(Inode { number, reference: root, kind, content });
        let mut known = inodes.known();
        let identity = lower::identity(&stat);
        known.insert(Entry { inode, identity, n_lookups: 1, last_met: 0 });
        drop(known);
        inodes
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What has a number.
    pub(crate) fn get(&self, number: INodeNo) -> Result<Arc<Inode>> {
        let known = self.known();
        known.by_number.get(&number.0).map(|entry| entry.inode.clone()).ok_or(Errno::STALE)
    }

    /// The kernel is told of what a reference stands for, which is `stat`: to be forgotten once more. Waits a
    /// moment if it learns faster than it forgets.
    pub(crate) fn meet(&self, reference: File, stat: &Metadata) -> Arc<Inode> {
        let identity = lower::identity(stat);
        let mut known = self.known();
        known.n_meetings += 1;
        let last_met = known.n_meetings;
        let Known { by_number, by_identity, .. } = &mut *known;
        if let Some(entry) = by_identity.get(&identity).and_then(|n| by_number.get_mut(n)) {
            (entry.n_lookups, entry.last_met) = (entry.n_lookups + 1, last_met);
            return entry.inode.clone();
        }
        let mut number = stat.ino();
        // Another file system that is mounted below has numbers of its own; and some are not for files here.
        if stat.dev() != self.device || number <= INodeNo::ROOT.0 || number & FOREIGN != 0 {
            known.n_foreign += 1;
            number = FOREIGN | known.n_foreign;
        }
        let (number, kind) = (INodeNo(number), lower::kind_of(stat.mode()));
        let content = Content::default();
        let inode = Arc::new(Inode { number, reference, kind, content });
        known.insert(Entry { inode: inode.clone(), identity, n_lookups: 1, last_met });
        let (n_files, many) = (known.n_files(), known.many(self.n_descriptors));
        drop(known);
        if n_files > many {
            self.forgetter.get().inspect(|forgetter| forgetter.unpark());
        }
        if n_files > many + many / 4 {
            thread::sleep(PAUSE);
        }
        inode
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

    /// Whether more files are known than there should be.
    pub(crate) fn are_many(&self) -> bool {
        let known = self.known();
        known.n_files() > known.many(self.n_descriptors)
    }

    /// How many are known.
    pub(crate) fn len(&self) -> usize {
        self.known().by_number.len()
    }

    /// The half of the files that was met longest ago.
    pub(crate) fn oldest(&self) -> Vec<Arc<Inode>> {
        let known = self.known();
        let files = known.by_number.values().filter(|entry| !entry.inode.kind.is_dir());
        let mut all: Vec<_> = files.map(|entry| (entry.last_met, entry.inode.clone())).collect();
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
    fn insert(&mut self, entry: Entry) {
        let number = entry.inode.number.0;
        self.n_directories += usize::from(entry.inode.kind.is_dir());
        self.by_identity.insert(entry.identity, number);
        self.by_number.insert(number, entry);
    }

    /// How many files are known, or whatever else is not a directory.
    fn n_files(&self) -> usize {
        self.by_number.len() - self.n_directories
    }

    /// More files than that are many: a quarter of the descriptors that directories leave. However many those
    /// are, some files are known.
    fn many(&self, n_descriptors: usize) -> usize {
        n_descriptors.saturating_sub(self.n_directories).max(n_descriptors / 4) / 4
    }

    fn retire(&mut self, number: INodeNo) -> Option<Entry> {
        let entry = self.by_number.get(&number.0)?;
        if entry.n_lookups > 0 || entry.inode.content.is_in_use() || entry.inode.is_root() {
            return None;
        }
        let entry = self.by_number.remove(&number.0)?;
        self.n_directories -= usize::from(entry.inode.kind.is_dir());
        self.by_identity.remove(&entry.identity);
        Some(entry)
    }
}

/// Numbers of what is on other file systems have this bit.
const FOREIGN: u64 = 1 << 63;
/// In which the kernel may forget something.
pub(crate) const PAUSE: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use rustix::fs::CWD;

    use super::*;

    #[test]
    fn directories_which_stay_are_no_reason_to_forget() {
        let dir = tempfile::tempdir().unwrap();
        let open = |name: String| {
            lower::reference(CWD, dir.path().join(name).as_os_str()).expect("it was made")
        };
        let inodes = Inodes::new(open(String::new()), 80);
        let meet = |name: String| {
            let (reference, stat) = open(name);
            inodes.meet(reference, &stat)
        };
        let meet_directory = |n: u32| {
            std::fs::create_dir(dir.path().join(format!("directory-{n}"))).unwrap();
            meet(format!("directory-{n}"));
        };
        let meet_file = |n: u32| {
            std::fs::write(dir.path().join(format!("file-{n}")), []).unwrap();
            meet(format!("file-{n}"))
        };
        (0..39).for_each(meet_directory);
        let files: Vec<_> = (0..10).map(meet_file).collect();
        assert!(!inodes.are_many(), "a quarter of the 40 that the directories leave");
        let one_more = meet_file(10);
        assert!(inodes.are_many());
        let numbers =
            |inodes: &[Arc<Inode>]| inodes.iter().map(|inode| inode.number).collect::<Vec<_>>();
        assert_eq!(numbers(&inodes.oldest()), numbers(&files[..5]));
        inodes.forget(one_more.number, 1);
        assert!(!inodes.are_many());
        (39..100).for_each(meet_directory);
        assert_eq!(inodes.len(), 1 + 100 + 10);
        (0..5).for_each(|n| inodes.forget(files[n].number, 1));
        assert!(!inodes.are_many(), "some may be known, however many directories there are");
    }
}

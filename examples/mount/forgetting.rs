//! Forgetting. Whatever the kernel remembers takes a descriptor here, and it would remember as much as it has memory
//! for: when that is many, it is asked to forget the files that it has not looked up for longest. Directories stay,
//! since they may be somebody's working directory.

use std::{ffi::OsString, fs, thread, time::Duration};

use fuser::INodeNo;
use rustix::io::Errno;

use crate::{
    errors::Result,
    inodes::{Inode, PAUSE},
    lower,
    tree::Tree,
};

impl Tree {
    /// Asks the kernel to forget whenever it remembers many. Runs on a thread of its own, which answers no
    /// requests: the kernel may wait for the answer to one while it is being asked.
    pub(crate) fn keep_few(&self) -> ! {
        self.inodes.wake_when_many(thread::current());
        loop {
            while !self.inodes.are_many() {
                thread::park();
            }
            let n_known = self.inodes.len();
            for inode in self.inodes.oldest() {
                self.ask_to_forget(&inode);
            }
            // What it has forgotten is told as any request is.
            thread::sleep(PAUSE);
            if self.inodes.len() >= n_known {
                // What is in use it keeps: it is asked again when it has learnt more, or much later.
                thread::park_timeout(LONG_PAUSE);
            }
        }
    }

    /// Opens something, and waits for a descriptor, if there is none.
    ///
    /// Not for ever: the kernel may have locked, for this very request, the directory that it is to forget
    /// something in.
    pub(crate) fn with_room<R>(&self, open: impl Fn() -> Result<R>) -> Result<R> {
        for _ in 0..N_TRIES {
            match open() {
                Err(Errno::MFILE) => thread::sleep(PAUSE),
                opened => return opened,
            }
        }
        open()
    }

    /// What is in use stays.
    fn ask_to_forget(&self, inode: &Inode) {
        let place = if inode.content.is_in_use() { None } else { self.place_of(inode) };
        if let (Some(kernel), Some((parent, name))) = (self.notifier.get(), place) {
            // What it has forgotten by itself it does not know.
            let _ = kernel.inval_entry(parent, &name);
        }
    }

    /// The directory that something is in, and its name there; of several names, one.
    fn place_of(&self, inode: &Inode) -> Option<(INodeNo, OsString)> {
        let path = fs::read_link(lower::path_of(&inode.reference)).ok()?;
        let parent = fs::symlink_metadata(path.parent()?).ok()?;
        Some((self.inodes.number_of(lower::identity(&parent))?, path.file_name()?.to_owned()))
    }
}

const LONG_PAUSE: Duration = Duration::from_secs(1);
const N_TRIES: u32 = 1000;

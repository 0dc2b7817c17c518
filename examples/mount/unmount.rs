//! The end: everything is written back, with progress, and nothing is dropped silently.

use std::{
    io::{self, IsTerminal, Write},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::Duration,
};

use sealback_examples::Size;

use crate::{inodes::Inode, tree::Tree};

/// How often the user has asked for the end.
pub(crate) type Asked = Arc<AtomicU32>;

impl Tree {
    /// Writes everything back. What the server refuses is tried again until it takes it, or until the user
    /// asks for the end once more: then it is listed, and gone. Returns whether all went well.
    pub(crate) fn write_everything_back(&self, asked: &Asked) -> bool {
        let known = asked.load(Ordering::Relaxed);
        let mut told = false;
        // Those, too, that are just being closed, and have not got their times yet.
        let mut left = self.inodes.all();
        left.retain(|inode| inode.content.is_in_use());
        loop {
            self.write_back_with_progress(&left);
            let refused = self.unwritten();
            if refused.is_empty() {
                return true;
            }
            if !told {
                told = true;
                self.name_all("could not be written back", &refused);
                self.log("trying again every few seconds; a SIGINT or SIGTERM gives them up");
            }
            for _ in 0..RETRY_TICKS {
                if asked.load(Ordering::Relaxed) > known {
                    self.name_all("are lost", &refused);
                    refused.iter().for_each(|inode| {
                        if let Some(file) = inode.content.open_file() {
                            file.discard();
                        }
                    });
                    return false;
                }
                thread::sleep(TICK);
            }
            left = refused;
        }
    }

    /// Writes back what nobody uses and what could not be written back before.
    pub(crate) fn try_again(&self) {
        for inode in self.unwritten() {
            self.try_to_close(&inode);
        }
    }

    fn unwritten(&self) -> Vec<Arc<Inode>> {
        let is_unwritten =
            |inode: &Arc<Inode>| inode.content.open_file().is_some_and(|file| file.is_unwritten());
        self.inodes.all().into_iter().filter(is_unwritten).collect()
    }

    fn name_all(&self, what: &str, inodes: &[Arc<Inode>]) {
        for inode in inodes {
            let bytes = inode.content.open_file().map_or(0, |file| file.dirty_bytes());
            self.log(format_args!("{} of {} {what}", Size(bytes), inode.path()));
        }
    }

    /// Syncs files, several at once, and shows how much is left.
    fn write_back_with_progress(&self, inodes: &[Arc<Inode>]) {
        let dirty = move || -> u64 {
            let files = inodes.iter().filter_map(|inode| inode.content.open_file());
            files.map(|file| file.dirty_bytes()).sum()
        };
        let (done, ended) = mpsc::channel::<()>();
        thread::scope(|scope| {
            scope.spawn(move || {
                let mut shown = false;
                while ended.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                    shown = true;
                    show(dirty());
                }
                if shown && io::stderr().is_terminal() {
                    eprintln!();
                }
            });
            let next = AtomicU32::new(0);
            let work = || {
                while let Some(inode) = inodes.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                    self.sync_last(inode);
                }
            };
            thread::scope(|workers| (0..N_AT_ONCE).for_each(|_| drop(workers.spawn(work))));
            drop(done);
        });
    }

    fn sync_last(&self, inode: &Inode) {
        let Some(file) = inode.content.open_file() else { return };
        if inode.is_gone() {
            return file.discard();
        }
        // Why it was refused has been told.
        let _ = self.sync_content(inode, &file);
    }
}

fn show(bytes: u64) {
    let mut to = io::stderr();
    let _ = match to.is_terminal() {
        true => write!(to, "\rmount: {} to be written back   ", Size(bytes)),
        false => writeln!(to, "mount: {} to be written back", Size(bytes)),
    };
}

const TICK: Duration = Duration::from_millis(500);
const RETRY_TICKS: u32 = 6;
const N_AT_ONCE: usize = 8;

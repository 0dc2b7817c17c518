//! Who has a tree mounted: one mount for itself, or several that share it.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Seek, Write},
    path::Path,
    thread,
    time::{Duration, Instant},
};

/// Held as long as the tree is mounted, and until everything is written back.
#[derive(Debug)]
pub(crate) struct Owner(File);

impl Owner {
    /// Takes a tree. One that is being written back by its last mount is waited for; one that is mounted, for
    /// `patience`, in which a mount that was unmounted just now comes to know of that.
    pub(crate) fn take(beside: &Path, shared: bool, patience: Duration) -> io::Result<Owner> {
        fs::create_dir_all(beside)?;
        let path = beside.join("mount.lock");
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let mut owner = Owner(file);
        let began = Instant::now();
        while !owner.try_lock(shared)? {
            let holder = owner.said()?;
            if holder.contains(ENDING) {
                eprintln!("mount: the last mount is still writing back ({holder})");
                if shared {
                    owner.0.lock_shared()?
                } else {
                    owner.0.lock()?
                }
                break;
            }
            if began.elapsed() >= patience {
                let refused = format!("it is mounted already ({holder})");
                return Err(io::Error::new(io::ErrorKind::ResourceBusy, refused));
            }
            thread::sleep(PAUSE);
        }
        owner.say("mounted")?;
        Ok(owner)
    }

    fn try_lock(&self, shared: bool) -> io::Result<bool> {
        match if shared { self.0.try_lock_shared() } else { self.0.try_lock() } {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// The tree is not mounted any more, but something may not be written back.
    pub(crate) fn is_ending(&mut self) {
        // Who cannot be told is refused, and tries again.
        let _ = self.say(ENDING);
    }

    /// What whoever has the tree has said.
    fn said(&mut self) -> io::Result<String> {
        let mut said = String::new();
        self.0.rewind()?;
        self.0.read_to_string(&mut said)?;
        Ok(said.trim().to_owned())
    }

    fn say(&mut self, what: &str) -> io::Result<()> {
        self.0.set_len(0)?;
        self.0.rewind()?;
        writeln!(self.0, "process {}: {what}", std::process::id())
    }
}

const ENDING: &str = "writing back";
/// For one who mounts.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);
pub(crate) const PAUSE: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_mounted_once_or_shared() {
        let dir = tempfile::tempdir().unwrap();
        let take = |shared| Owner::take(dir.path(), shared, Duration::ZERO);
        let alone = take(false).unwrap();
        for shared in [false, true] {
            assert_eq!(take(shared).unwrap_err().kind(), io::ErrorKind::ResourceBusy);
        }
        drop(alone);
        let together = [take(true).unwrap(), take(true).unwrap()];
        take(false).unwrap_err();
        drop(together);
        take(false).unwrap();
    }

    #[test]
    fn one_that_comes_to_know_that_it_is_unmounted_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        for goes_at_once in [true, false] {
            let mut last = Owner::take(dir.path(), false, Duration::ZERO).unwrap();
            thread::scope(|scope| {
                let next = scope.spawn(|| Owner::take(dir.path(), false, Duration::from_secs(60)));
                thread::sleep(10 * PAUSE);
                if !goes_at_once {
                    last.is_ending();
                    thread::sleep(10 * PAUSE);
                }
                drop(last);
                next.join().unwrap().unwrap();
            });
        }
    }
}

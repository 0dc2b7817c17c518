//! Who has a tree mounted: one mount for itself, or several that share it.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Seek, Write},
    os::unix::fs::FileExt,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use crate::lower;

/// Held as long as the tree is mounted, and until everything is written back.
#[derive(Debug)]
pub(crate) struct Owner(File);

impl Owner {
    /// Takes a tree. One that is being written back by its last mount is waited for; one that is mounted, for
    /// `patience`, in which a mount that was unmounted just now comes to know of that.
    pub(crate) fn take(beside: &Path, shared: bool, patience: Duration) -> io::Result<Owner> {
        make_directory(beside)?;
        let mut options = OpenOptions::new();
        let file = lower::own_file(&beside.join("mount.lock"), options.read(true).write(true))?;
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
    fn said(&self) -> io::Result<String> {
        let mut said = [0; 100];
        let n_bytes = self.0.read_at(&mut said, 0)?;
        Ok(String::from_utf8_lossy(&said[..n_bytes]).trim().escape_debug().to_string())
    }

    fn say(&mut self, what: &str) -> io::Result<()> {
        self.0.set_len(0)?;
        self.0.rewind()?;
        writeln!(self.0, "process {}: {what}", std::process::id())
    }
}

/// Makes the directory in which a mount keeps its own. Not one that a link leads to: that is elsewhere.
fn make_directory(beside: &Path) -> io::Result<()> {
    match fs::create_dir(beside) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let is_there = fs::symlink_metadata(beside)?.is_dir();
            let refused =
                || io::Error::new(io::ErrorKind::NotADirectory, beside.display().to_string());
            if is_there { Ok(()) } else { Err(refused()) }
        }
        made => made,
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

//! Who has a tree mounted: one mount for itself, or several that share it.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Seek, Write},
    path::Path,
};

/// Held as long as the tree is mounted, and until everything is written back.
#[derive(Debug)]
pub(crate) struct Owner(File);

impl Owner {
    /// Takes a tree. One that is being written back by its last mount is waited for.
    pub(crate) fn take(beside: &Path, shared: bool) -> io::Result<Owner> {
        fs::create_dir_all(beside)?;
        let path = beside.join("mount.lock");
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let try_lock = |file: &File| if shared { file.try_lock_shared() } else { file.try_lock() };
        match try_lock(&file) {
            Ok(()) => {}
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                file.read_to_string(&mut holder)?;
                if !holder.contains(ENDING) {
                    return Err(io::Error::new(
                        io::ErrorKind::ResourceBusy,
                        format!("it is mounted already ({})", holder.trim()),
                    ));
                }
                eprintln!("mount: the last mount is still writing back ({})", holder.trim());
                if shared { file.lock_shared()? } else { file.lock()? }
            }
        }
        let mut owner = Owner(file);
        owner.say("mounted")?;
        Ok(owner)
    }

    /// The tree is not mounted any more, but something may not be written back.
    pub(crate) fn is_ending(&mut self) {
        // Who cannot be told is refused, and tries again.
        let _ = self.say(ENDING);
    }

    fn say(&mut self, what: &str) -> io::Result<()> {
        self.0.set_len(0)?;
        self.0.rewind()?;
        writeln!(self.0, "process {}: {what}", std::process::id())
    }
}

const ENDING: &str = "writing back";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_mounted_once_or_shared() {
        let dir = tempfile::tempdir().unwrap();
        let alone = Owner::take(dir.path(), false).unwrap();
        for shared in [false, true] {
            let refused = Owner::take(dir.path(), shared).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::ResourceBusy);
        }
        drop(alone);
        let together =
            [Owner::take(dir.path(), true).unwrap(), Owner::take(dir.path(), true).unwrap()];
        Owner::take(dir.path(), false).unwrap_err();
        drop(together);
        Owner::take(dir.path(), false).unwrap();
    }
}

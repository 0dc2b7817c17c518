//! How far ahead the kernel reads in a folder that is mounted through FUSE.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use rustix::fs::{major, minor};

/// A directory that something is about to be mounted on.
#[derive(Debug)]
pub struct Mountpoint {
    path: PathBuf,
    device: Option<u64>,
}

impl Mountpoint {
    /// To be called before it is mounted.
    #[must_use]
    pub fn new(path: &Path) -> Mountpoint {
        Mountpoint { path: path.to_owned(), device: device_of(path) }
    }

    /// Has the kernel read further ahead than it does by itself, where it lets us: only root may say so.
    /// To be called while it is mounted, by a thread that answers none of the kernel's requests: this waits
    /// for an answer.
    pub fn read_far_ahead(&self) {
        let mounted = device_of(&self.path).filter(|device| Some(*device) != self.device);
        if let Some(device) = mounted {
            let (major, minor) = (major(device), minor(device));
            let path = format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb");
            // Without, it is only slower.
            let _ = fs::write(path, READ_AHEAD_KIB.to_string());
        }
    }
}

fn device_of(path: &Path) -> Option<u64> {
    fs::metadata(path).ok().map(|stat| stat.dev())
}

/// Four times as much as by itself. With more, what was read has left the processor's caches when it is copied.
const READ_AHEAD_KIB: u32 = 512;

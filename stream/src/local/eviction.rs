//! Keeps a cache's directory within a size: drops first what was not opened for longest.
//!
//! Looked at when a copy is opened, and each time a sixteenth of the limit has been confirmed. Copies
//! that nobody has open go first, whole, under the lock on their record; then the copies that this
//! process has open lose groups of blocks, in file order, each going on where it was left. What
//! another process has open stays.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use super::{cache::LocalCopy, lock};

/// How large a directory may be.
#[derive(Debug)]
pub(super) struct Limit {
    max_bytes: u64,
    /// Stored bytes confirmed since it was last looked at.
    confirmed: AtomicU64,
}

impl Limit {
    pub(super) fn new(max_bytes: u64) -> Limit {
        Limit { max_bytes, confirmed: AtomicU64::new(0) }
    }

    /// Whether it is time to look, with so many bytes more.
    pub(super) fn is_due(&self, bytes: u64) -> bool {
        let confirmed = self.confirmed.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let due = confirmed > self.max_bytes / 16;
        if due {
            self.confirmed.store(0, Ordering::Relaxed);
        }
        due
    }

    /// Drops copies, or parts of those in `open`, until the directory is within the limit. What
    /// cannot be dropped stays: it costs room, no more.
    pub(super) fn keep(&self, dir: &Path, open: &[Arc<LocalCopy>]) {
        let Ok(mut copies) = copies(dir) else { return };
        let mut bytes: u64 = copies.iter().map(|copy| copy.bytes).sum();
        copies.sort_by_key(|copy| copy.opened);
        for copy in copies {
            if bytes > self.max_bytes && copy.remove().unwrap_or(false) {
                bytes -= copy.bytes;
            }
        }
        let mut shed = true;
        while bytes > self.max_bytes && shed {
            shed = false;
            for copy in open {
                let freed = copy.shed().unwrap_or(0);
                bytes = bytes.saturating_sub(freed);
                shed |= freed > 0;
            }
        }
    }
}

/// What the copies in a directory take on the disk, in bytes.
pub(super) fn disk_bytes(dir: &Path) -> io::Result<u64> {
    Ok(copies(dir)?.iter().map(|copy| copy.bytes).sum())
}

/// One copy with its record, open or not.
struct Copy {
    record: PathBuf,
    sealed: PathBuf,
    bytes: u64,
    opened: SystemTime,
}

impl Copy {
    /// Removes it, unless somebody has it open.
    fn remove(&self) -> io::Result<bool> {
        let record = File::options().read(true).write(true).open(&self.record)?;
        if !lock::try_lock(&record)? {
            return Ok(false);
        }
        fs::remove_file(&self.sealed)?;
        fs::remove_file(&self.record)?;
        Ok(true)
    }
}

fn copies(dir: &Path) -> io::Result<Vec<Copy>> {
    let mut copies = Vec::new();
    for entry in fs::read_dir(dir)? {
        let record = entry?.path();
        if !is_record(&record) {
            continue;
        }
        let sealed = record.with_extension("sealed");
        let (Ok(of_record), Ok(of_sealed)) = (fs::metadata(&record), fs::metadata(&sealed)) else {
            continue;
        };
        let bytes = (of_record.blocks() + of_sealed.blocks()) * 512;
        let opened = of_record.modified()?;
        copies.push(Copy { record, sealed, bytes, opened });
    }
    Ok(copies)
}

/// Whether a file is called as a record is: others are not ours.
fn is_record(path: &Path) -> bool {
    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    let hex = stem.len() == 64 && stem.bytes().all(|byte| byte.is_ascii_hexdigit());
    hex && path.extension().is_some_and(|extension| extension == "record")
}

//! Keeps a cache's directory within a size.
//!
//! Whoever is about to write to a copy reserves room. Only when the last measurement's room is used
//! up is the directory measured again, each time for a sixteenth of the limit; then first copies
//! go that nobody has open, longest unopened first; then blocks of the copies that this process has
//! open, the largest copy first. Nothing here fails: what cannot be dropped stays, and costs room.
//!
//! **Invariants:**
//! 1. A file that is not called as a copy or a record is neither counted nor touched.
//! 2. A copy is removed whole only under its record's lock, and the record last: as long as it is
//!    there, nobody else can make one.
//!
//! Locks are taken in this order: a limit's room, the list of open copies, a copy's record, its
//! `writing`.

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

use super::{open_copies, record};

/// How large a directory may be.
#[derive(Debug)]
pub(super) struct Limit {
    max_bytes: u64,
    /// Bytes that may still be written before the directory is measured again.
    room: Mutex<u64>,
}

impl Limit {
    pub(super) fn new(max_bytes: u64) -> Limit {
        Limit { max_bytes, room: Mutex::new(0) }
    }

    /// Brings a directory below the limit.
    pub(super) fn keep(&self, dir: &Path) {
        *self.room.lock().unwrap_or_else(PoisonError::into_inner) = self.make_room(dir, 0);
    }

    /// Sees to it that there is room for so many bytes more.
    pub(super) fn reserve(&self, dir: &Path, bytes: u64) {
        // Held while others go: whoever wants to write meanwhile waits for the same room.
        let mut room = self.room.lock().unwrap_or_else(PoisonError::into_inner);
        if *room < bytes {
            *room = self.make_room(dir, bytes);
        }
        *room -= bytes;
    }

    /// Drops what must go; returns the room that there is now, at least `bytes`.
    fn make_room(&self, dir: &Path, bytes: u64) -> u64 {
        let room = bytes.max(self.max_bytes / SHARES);
        let goal = self.max_bytes.saturating_sub(room);
        let Ok(mut copies) = copies(dir) else { return room };
        let mut used: u64 = copies.iter().map(|copy| copy.bytes).sum();
        copies.sort_by_key(|copy| copy.opened);
        for copy in copies {
            if used > goal && copy.remove().unwrap_or(false) {
                used -= copy.bytes;
            }
        }
        if used <= goal {
            return room;
        }
        let mut open = open_copies::in_dir(dir);
        open.retain(|copy| copy.is_limited());
        open.sort_by_cached_key(|copy| Reverse(copy.disk_bytes()));
        for copy in open {
            if used > goal {
                used = used.saturating_sub(copy.evict(used - goal, room));
            }
        }
        room
    }
}

/// What the copies in a directory take on the disk, in bytes.
pub(super) fn disk_bytes(dir: &Path) -> io::Result<u64> {
    Ok(copies(dir)?.iter().map(|copy| copy.bytes).sum())
}

/// One copy with its record, open or not; either may be missing.
struct Copy {
    sealed: PathBuf,
    /// What both take on the disk.
    bytes: u64,
    /// When it was opened or closed last, which is what its record's time says.
    opened: Option<SystemTime>,
}

impl Copy {
    /// Removes it, unless somebody has it open.
    fn remove(&self) -> io::Result<bool> {
        let remove = || {
            let path = self.sealed.with_extension("record");
            let Some(_record) = record::claim(&path)? else { return Ok(false) };
            // A crash after this leaves a record that claims nothing, since its copy is not there.
            match fs::remove_file(&self.sealed) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            fs::remove_file(&path)?;
            Ok(true)
        };
        open_copies::unless_open(&self.sealed, remove).unwrap_or(Ok(false))
    }
}

fn copies(dir: &Path) -> io::Result<Vec<Copy>> {
    let mut copies = BTreeMap::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let path = entry.path();
        // One that was removed meanwhile takes nothing; a link is not ours.
        let Ok(metadata) = entry.metadata() else { continue };
        if !is_ours(&path) || !metadata.is_file() {
            continue;
        }
        let sealed = path.with_extension("sealed");
        let copy =
            copies.entry(sealed.clone()).or_insert_with(|| Copy { sealed, bytes: 0, opened: None });
        copy.bytes += metadata.blocks() * 512;
        if path != copy.sealed {
            copy.opened = metadata.modified().ok();
        }
    }
    Ok(copies.into_values().collect())
}

/// Whether a file is called as a copy or a record is.
fn is_ours(path: &Path) -> bool {
    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    let hex =
        stem.len() == 64 && stem.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    hex && path.extension().is_some_and(|extension| extension == "record" || extension == "sealed")
}

/// The directory is measured each time such a part of the limit has been written.
const SHARES: u64 = 16;

//! What `stat` shows, and what may be changed of it. All of it is the lower file's, but for the size and, as
//! long as something is not written back, the times.

use std::{
    fs::Metadata,
    os::unix::fs::MetadataExt,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use fuser::{FileAttr, FileType as Kind, INodeNo, TimeOrNow};
use rustix::{
    fs::{
        self, AtFlags, CWD, FileType, Gid, Mode, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, Uid,
    },
    io::Errno,
};

use crate::{content::Seen, errors::Result, inodes::Inode, lower, tree::Tree};

/// What a caller wants changed.
pub(crate) struct Changes {
    pub(crate) mode: Option<u32>,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
    pub(crate) size: Option<u64>,
    pub(crate) accessed: Option<TimeOrNow>,
    pub(crate) modified: Option<TimeOrNow>,
}

impl Tree {
    /// What a caller sees of anything in the tree.
    pub(crate) fn attributes(&self, inode: &Inode) -> Result<FileAttr> {
        Ok(self.attributes_below(inode, &inode.stat()?))
    }

    /// The same, of something that is `stat` below.
    pub(crate) fn attributes_below(&self, inode: &Inode, stat: &Metadata) -> FileAttr {
        let content = inode.kind.is_file().then(|| self.look(inode, stat));
        attributes_of(inode.number, stat, content.as_ref())
    }

    /// Takes away what lets a file run as somebody else, and has the kernel ask anew for the attributes if it did
    /// not do so itself.
    pub(crate) fn drop_privileges(&self, inode: &Inode) -> Result<()> {
        if inode.drop_privileges()?
            && let Some(kernel) = self.notifier.get()
        {
            // A negative offset leaves what is in the page cache. One that has forgotten it needs no telling.
            let _ = kernel.inval_inode(inode.number, -1, 0);
        }
        Ok(())
    }

    /// Changes attributes, and tells how they are then.
    pub(crate) fn change(
        self: &Arc<Tree>,
        inode: &Arc<Inode>,
        changes: &Changes,
    ) -> Result<FileAttr> {
        if let Some(size) = changes.size {
            self.resize(inode, size)?;
        }
        if changes.uid.is_some() || changes.gid.is_some() {
            let owner = (changes.uid.map(Uid::from_raw), changes.gid.map(Gid::from_raw));
            fs::chownat(&inode.reference, "", owner.0, owner.1, AtFlags::EMPTY_PATH)?;
        }
        if let Some(mode) = changes.mode {
            if inode.kind.is_symlink() {
                return Err(Errno::OPNOTSUPP);
            }
            inode.set_mode(mode & 0o7777)?;
        }
        if changes.accessed.is_some() || changes.modified.is_some() {
            let times = Timestamps {
                last_access: wanted(changes.accessed),
                last_modification: wanted(changes.modified),
            };
            fs::utimensat(&inode.reference, "", &times, AtFlags::EMPTY_PATH)?;
        }
        match changes.modified {
            Some(TimeOrNow::SpecificTime(time)) => inode.content.modified(Some(timespec(time))),
            Some(TimeOrNow::Now) => inode.content.modified(None),
            None => {}
        }
        self.attributes(inode)
    }
}

impl Inode {
    /// Gives it these permissions.
    pub(crate) fn set_mode(&self, mode: u32) -> Result<()> {
        let mode = Mode::from_raw_mode(mode);
        match self.content.lower() {
            Some(lower) => fs::fchmod(&*lower, mode),
            None => fs::chmodat(CWD, lower::path_of(&self.reference), mode, AtFlags::empty()),
        }
    }

    /// Takes away what lets a file run as its owner, as its group, or with capabilities: the kernel leaves that
    /// to the file system, but for changes of the owner, where the lower one does it. Returns whether the mode
    /// has changed.
    pub(crate) fn drop_privileges(&self) -> Result<bool> {
        let mode = self.stat()?.mode() & 0o7777;
        let group = if mode & S_IXGRP == 0 { 0 } else { S_ISGID };
        let changes = mode & (S_ISUID | group) != 0;
        if changes {
            self.set_mode(mode & !(S_ISUID | group))?;
        }
        match fs::removexattr(lower::path_of(&self.reference), "security.capability") {
            Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(changes),
            Err(error) => Err(error),
        }
    }
}

const S_ISUID: u32 = 0o4000;
/// Of a directory it says whose group the files are that are made in it.
pub(crate) const S_ISGID: u32 = 0o2000;
const S_IXGRP: u32 = 0o10;

fn wanted(time: Option<TimeOrNow>) -> Timespec {
    match time {
        Some(TimeOrNow::SpecificTime(time)) => timespec(time),
        Some(TimeOrNow::Now) => Timespec { tv_sec: 0, tv_nsec: UTIME_NOW },
        None => Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
    }
}

fn attributes_of(number: INodeNo, stat: &Metadata, content: Option<&Seen>) -> FileAttr {
    let modified = content.and_then(|content| content.modified);
    let changed = content.and_then(|content| content.changed);
    let below = time_of(stat.mtime(), stat.mtime_nsec());
    let below_changed = time_of(stat.ctime(), stat.ctime_nsec());
    FileAttr {
        ino: number,
        size: content.map_or(stat.size(), |content| content.size),
        blocks: stat.blocks(),
        atime: system_time(time_of(stat.atime(), stat.atime_nsec())),
        mtime: system_time(modified.unwrap_or(below)),
        ctime: system_time(changed.unwrap_or(below_changed)),
        crtime: UNIX_EPOCH,
        kind: kind_of(lower::kind_of(stat.mode())),
        perm: (stat.mode() & 0o7777) as u16,
        nlink: u32::try_from(stat.nlink()).unwrap_or(u32::MAX),
        uid: stat.uid(),
        gid: stat.gid(),
        rdev: device(stat.rdev()),
        blksize: 4096,
        flags: 0,
    }
}

/// A kind as FUSE has it.
pub(crate) fn kind_of(kind: FileType) -> Kind {
    match kind {
        FileType::Directory => Kind::Directory,
        FileType::Symlink => Kind::Symlink,
        FileType::Fifo => Kind::NamedPipe,
        FileType::Socket => Kind::Socket,
        FileType::CharacterDevice => Kind::CharDevice,
        FileType::BlockDevice => Kind::BlockDevice,
        _ => Kind::RegularFile,
    }
}

/// A device's number in the 32 bits that FUSE has for it, as the kernel's `new_encode_dev`.
fn device(number: u64) -> u32 {
    let (major, minor) = (fs::major(number), fs::minor(number));
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

/// A device's number from the 32 bits that FUSE has for it.
pub(crate) fn device_from(number: u32) -> u64 {
    let (major, minor) = ((number & 0xf_ff00) >> 8, (number & 0xff) | ((number >> 12) & 0xf_ff00));
    fs::makedev(major, minor)
}

/// The time now.
pub(crate) fn now() -> Timespec {
    timespec(SystemTime::now())
}

/// A time as the system tells it.
pub(crate) fn time_of(tv_sec: i64, nanoseconds: i64) -> Timespec {
    Timespec { tv_sec, tv_nsec: nanoseconds }
}

fn timespec(time: SystemTime) -> Timespec {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => Timespec {
            tv_sec: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: since.subsec_nanos().into(),
        },
        Err(before) => {
            let before = before.duration();
            let (seconds, nanoseconds) = (before.as_secs(), before.subsec_nanos());
            let tv_sec = -i64::try_from(seconds).unwrap_or(i64::MAX) - i64::from(nanoseconds > 0);
            let tv_nsec = if nanoseconds > 0 { 1_000_000_000 - nanoseconds } else { 0 };
            Timespec { tv_sec, tv_nsec: tv_nsec.into() }
        }
    }
}

fn system_time(time: Timespec) -> SystemTime {
    let nanoseconds = Duration::from_nanos(time.tv_nsec.unsigned_abs());
    let seconds = Duration::from_secs(time.tv_sec.unsigned_abs());
    let whole = match time.tv_sec < 0 {
        true => UNIX_EPOCH.checked_sub(seconds),
        false => UNIX_EPOCH.checked_add(seconds),
    };
    whole.unwrap_or(UNIX_EPOCH) + nanoseconds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_come_back_as_they_were() {
        for (tv_sec, tv_nsec) in [(0, 0), (1, 5), (-1, 0), (-1, 999_999_999), (-7, 1), (7, 0)] {
            let time = Timespec { tv_sec, tv_nsec };
            assert_eq!(timespec(system_time(time)), time);
        }
    }

    #[test]
    fn device_numbers_come_back_as_they_were() {
        for (major, minor) in [(0, 0), (1, 3), (8, 17), (0xfff, 0xf_ffff), (253, 256)] {
            let number = fs::makedev(major, minor);
            assert_eq!(device_from(device(number)), number);
        }
    }
}

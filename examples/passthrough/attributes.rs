//! What `stat` shows, and what may be changed of it.

use std::{
    fs::Metadata,
    os::unix::fs::MetadataExt,
    time::{Duration, UNIX_EPOCH},
};

use fuser::{FileAttr, FileType as Kind, INodeNo, TimeOrNow};
use rustix::fs::{FileType, Timespec, UTIME_NOW, UTIME_OMIT};

/// What is to be changed.
pub(crate) struct Changes {
    pub(crate) mode: Option<u32>,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
    pub(crate) size: Option<u64>,
    pub(crate) accessed: Option<TimeOrNow>,
    pub(crate) modified: Option<TimeOrNow>,
}

/// A time as it is to be set, or left.
pub(crate) fn wanted(time: Option<TimeOrNow>) -> Timespec {
    match time {
        Some(TimeOrNow::SpecificTime(time)) => {
            let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
            let tv_sec = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
            Timespec { tv_sec, tv_nsec: since.subsec_nanos().into() }
        }
        Some(TimeOrNow::Now) => Timespec { tv_sec: 0, tv_nsec: UTIME_NOW },
        None => Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
    }
}

/// What is below, as the kernel is told of it.
pub(crate) fn attributes(stat: &Metadata, number: INodeNo) -> FileAttr {
    let kind = match FileType::from_raw_mode(stat.mode()) {
        FileType::Directory => Kind::Directory,
        FileType::Symlink => Kind::Symlink,
        _ => Kind::RegularFile,
    };
    FileAttr {
        ino: number,
        size: stat.size(),
        blocks: stat.blocks(),
        atime: stat.accessed().unwrap_or(UNIX_EPOCH),
        mtime: stat.modified().unwrap_or(UNIX_EPOCH),
        ctime: UNIX_EPOCH + Duration::from_secs(stat.ctime().unsigned_abs()),
        crtime: UNIX_EPOCH,
        kind,
        perm: (stat.mode() & 0o7777) as u16,
        nlink: u32::try_from(stat.nlink()).unwrap_or(u32::MAX),
        uid: stat.uid(),
        gid: stat.gid(),
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

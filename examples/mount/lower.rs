//! The lower tree: system calls relative to open directories and files, so that no path is looked up
//! twice, and none leads elsewhere when somebody renames what it goes through.
//!
//! What the kernel knows is held by a *reference*: a descriptor that was opened with `O_PATH`. It needs no
//! permission, follows the file through renames, and keeps its number from being given to another
//! file. What is to be read or written is opened from there, through `/proc/self/fd`.

use std::{
    ffi::{OsStr, OsString},
    fs::{File, Metadata, OpenOptions},
    io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::{
            ffi::OsStrExt,
            fs::{MetadataExt, OpenOptionsExt},
        },
    },
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use rustix::{
    fs::{self, AtFlags, CWD, Dir, FileType, Mode, OFlags, RenameFlags},
    io::{Errno, Result},
};

use crate::errors::of_io;

/// A reference to the entry of a directory, whatever it is, and what that is; a symbolic link is not followed.
pub(crate) fn reference(dir: impl AsFd, name: &OsStr) -> Result<(File, Metadata)> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let found = File::from(fs::openat(dir, name, flags, Mode::empty())?);
    let stat = stat(&found)?;
    Ok((found, stat))
}

/// A reference to a file that was given a name just now: by that, so that the system can tell where it is,
/// unless the name stands for something else already.
pub(crate) fn reference_to(file: &File, dir: impl AsFd, name: &OsStr) -> Result<(File, Metadata)> {
    let file_stat = stat(file)?;
    match reference(dir, name) {
        Ok((found, stat)) if identity(&stat) == identity(&file_stat) => Ok((found, stat)),
        Err(Errno::MFILE) => Err(Errno::MFILE),
        _ => Ok((open(file, OFlags::PATH)?, file_stat)),
    }
}

/// What an open file, or what a reference stands for, is.
pub(crate) fn stat(file: &File) -> Result<Metadata> {
    file.metadata().map_err(|error| of_io(&error))
}

/// Where the kernel lets a reference be opened, or used as a path.
pub(crate) fn path_of(reference: impl AsFd) -> String {
    format!("/proc/self/fd/{}", reference.as_fd().as_raw_fd())
}

/// Opens what a reference stands for.
pub(crate) fn open(reference: impl AsFd, flags: OFlags) -> Result<File> {
    fs::open(path_of(reference), flags | OFlags::CLOEXEC, Mode::empty()).map(File::from)
}

/// Opens a regular file for reading and writing, or else for reading.
pub(crate) fn open_file(reference: impl AsFd) -> Result<File> {
    match open(&reference, OFlags::RDWR) {
        Err(Errno::ACCESS | Errno::ROFS | Errno::PERM) => open(&reference, OFlags::RDONLY),
        opened => opened,
    }
}

/// Opens a file that the mount keeps for itself, or makes it. Who may write to the tree could have put a link in its
/// place, through which something else would be emptied or written, or a pipe, which would be waited for.
pub(crate) fn own_file(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    let just_there = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let options = options.create(true).custom_flags(just_there.bits().cast_signed());
    let open = || {
        let file = options.open(path)?;
        if file.metadata()?.is_file() { Ok(file) } else { Err(io::ErrorKind::Unsupported.into()) }
    };
    open().map_err(|error: io::Error| {
        io::Error::new(error.kind(), format!("{}: {error}", path.display()))
    })
}

/// What a file is.
pub(crate) fn kind_of(mode: u32) -> FileType {
    FileType::from_raw_mode(mode)
}

/// What a new file has before it has its own.
pub(crate) const NEW_MODE: Mode = Mode::RUSR.union(Mode::WUSR);

/// A new regular file without a name, on the file system of a directory; `beside` is where it has one
/// until [`name`] gives it its own, where the file system cannot do without.
pub(crate) fn new_file(dir: impl AsFd, beside: impl AsFd) -> Result<NewFile> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    match fs::openat(dir, ".", flags | OFlags::TMPFILE, NEW_MODE) {
        Ok(file) => return Ok(NewFile { file: Arc::new(file.into()), temporary: None }),
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT | Errno::INVAL) => {}
        Err(error) => return Err(error),
    }
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let temporary = OsString::from(format!("{}-{number}.new", std::process::id()));
    let flags = flags | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
    let file = fs::openat(&beside, &temporary, flags, NEW_MODE)?;
    let beside = beside.as_fd().try_clone_to_owned().map_err(|_| Errno::MFILE)?;
    Ok(NewFile { file: Arc::new(file.into()), temporary: Some((beside, temporary)) })
}

/// A regular file that nobody can find yet, with [`NEW_MODE`].
pub(crate) struct NewFile {
    pub(crate) file: Arc<File>,
    temporary: Option<(OwnedFd, OsString)>,
}

impl NewFile {
    /// Gives it a name, unless something has that.
    pub(crate) fn name(self, dir: impl AsFd, name: &OsStr) -> Result<Arc<File>> {
        let mut named = fs::linkat(&*self.file, "", &dir, name, AtFlags::EMPTY_PATH);
        if named == Err(Errno::NOENT) {
            // Of old, only the superuser may.
            let path = path_of(&*self.file);
            named = fs::linkat(CWD, path, &dir, name, AtFlags::SYMLINK_FOLLOW);
        }
        match (named, &self.temporary) {
            // Where a file has one name only, it is given another.
            (Err(Errno::PERM | Errno::NOSYS | Errno::OPNOTSUPP), Some((beside, temporary))) => {
                rename((beside, temporary), (&dir, name), RenameFlags::NOREPLACE)?;
            }
            (named, _) => named?,
        }
        Ok(self.file.clone())
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if let Some((beside, temporary)) = &self.temporary {
            let _ = fs::unlinkat(beside, temporary, AtFlags::empty());
        }
    }
}

/// One more name for what a reference stands for.
pub(crate) fn link(reference: &File, dir: impl AsFd, name: &OsStr) -> Result<()> {
    let is_link = reference.metadata().is_ok_and(|stat| stat.is_symlink());
    if is_link {
        // Through /proc it would be followed.
        return fs::linkat(reference, "", dir, name, AtFlags::EMPTY_PATH);
    }
    fs::linkat(CWD, path_of(reference), dir, name, AtFlags::SYMLINK_FOLLOW)
}

/// Opens the regular file of a name that is about to go, so that what is kept beside it can be
/// forgotten; `None` if it has other names, or is none.
pub(crate) fn last_name_of(dir: impl AsFd, name: &OsStr) -> Option<File> {
    let stat = fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
    if stat.st_nlink > 1 || !kind_of(stat.st_mode).is_file() {
        return None;
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    fs::openat(dir, name, flags, Mode::empty()).ok().map(File::from)
}

/// Renames, as `renameat2` does.
pub(crate) fn rename(
    from: (impl AsFd, &OsStr),
    to: (impl AsFd, &OsStr),
    flags: RenameFlags,
) -> Result<()> {
    fs::renameat_with(from.0, from.1, to.0, to.1, flags)
}

/// An entry of a directory, as it was when that was read.
pub(crate) struct Entry {
    pub(crate) name: OsString,
    pub(crate) number: u64,
    pub(crate) kind: FileType,
}

/// All entries of a directory, without `.` and `..`.
pub(crate) fn entries(reference: impl AsFd) -> Result<Vec<Entry>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = Dir::new(fs::openat(reference, ".", flags, Mode::empty())?)?;
    let mut entries = Vec::new();
    for entry in dir {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name != "." && name != ".." {
            let (number, kind) = (entry.ino(), entry.file_type());
            entries.push(Entry { name: name.to_owned(), number, kind });
        }
    }
    Ok(entries)
}

/// Device and number: what tells a file from all others.
pub(crate) fn identity(stat: &Metadata) -> (u64, u64) {
    (stat.dev(), stat.ino())
}

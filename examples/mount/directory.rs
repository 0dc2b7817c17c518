//! Directories: finding, making, renaming and removing what is in them, and listing them.

use std::{
    ffi::{OsStr, OsString},
    fs::Metadata,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::Path,
    sync::{Arc, Mutex},
};

use fuser::{FileAttr, FileHandle, INodeNo};
use rustix::{
    fs::{self, AtFlags, FileType, Gid, Mode, OFlags, RenameFlags, Uid},
    io::Errno,
};

use crate::{
    attributes::{S_ISGID, device_from, kind_of},
    errors::{Result, of_io},
    handles::OpenFile,
    inodes::Inode,
    lower::{self, Entry},
    tree::Tree,
};

/// Whoever makes something, which is then his.
#[derive(Clone, Copy)]
pub(crate) struct Maker {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// An open directory: its entries as they were when it was last read from the start.
pub(crate) struct OpenDirectory {
    pub(crate) inode: Arc<Inode>,
    entries: Mutex<Arc<Vec<Entry>>>,
}

/// A regular file that was made just now, and what it is below.
struct Made {
    inode: Arc<Inode>,
    stat: Metadata,
    file: sealback::File,
    lower: Arc<std::fs::File>,
}

impl Tree {
    /// A directory and a name in it that callers may use.
    fn entry(&self, parent: INodeNo, name: &OsStr) -> Result<Arc<Inode>> {
        let dir = self.inodes.get(parent)?;
        if is_hidden(&dir, name) { Err(Errno::NOENT) } else { Ok(dir) }
    }

    /// The same, for a name that is to be given.
    fn new_entry(&self, parent: INodeNo, name: &OsStr) -> Result<Arc<Inode>> {
        let dir = self.inodes.get(parent)?;
        if is_hidden(&dir, name) { Err(Errno::PERM) } else { Ok(dir) }
    }

    /// Looks a name up.
    pub(crate) fn look_up(&self, parent: INodeNo, name: &OsStr) -> Result<FileAttr> {
        let dir = self.entry(parent, name)?;
        let (inode, stat) = self.meet(&dir, name)?;
        self.ask_others(&inode);
        Ok(self.attributes_below(&inode, &stat))
    }

    fn meet(&self, dir: &Inode, name: &OsStr) -> Result<(Arc<Inode>, Metadata)> {
        let (reference, stat) = self.with_room(|| lower::reference(&dir.reference, name))?;
        // Where letters are taken for one another, it has many names.
        if lower::identity(&stat) == self.hidden {
            return Err(Errno::NOENT);
        }
        Ok((self.inodes.meet(reference, &stat), stat))
    }

    /// Makes a regular file.
    fn make_file(&self, dir: &Inode, name: &OsStr, mode: u32, maker: Maker) -> Result<Made> {
        let new = self.with_room(|| lower::new_file(&dir.reference, &self.beside))?;
        let file = self.seal_new(&new.file, name)?;
        let mode = Mode::from_raw_mode(mode & 0o7777);
        let (uid, gid) = self.owner(dir, maker)?;
        if uid.is_some() || gid.is_some() {
            fs::fchown(&*new.file, uid, gid)?;
        }
        if mode != lower::NEW_MODE {
            fs::fchmod(&*new.file, mode)?;
        }
        let lower = new.name(&dir.reference, name)?;
        let found = || lower::reference_to(&lower, &dir.reference, name);
        let (reference, stat) = self.with_room(found)?;
        Ok(Made { inode: self.inodes.meet(reference, &stat), stat, file, lower })
    }

    /// Whom something new in a directory is to be given to, if not to who runs this.
    fn owner(&self, dir: &Inode, maker: Maker) -> Result<(Option<Uid>, Option<Gid>)> {
        let stat = dir.stat()?;
        let gid = if stat.mode() & S_ISGID == 0 { maker.gid } else { stat.gid() };
        let uid = Some(maker.uid).filter(|uid| *uid != self.uid);
        let gid = Some(gid).filter(|gid| *gid != self.gid || stat.mode() & S_ISGID != 0);
        Ok((uid.map(Uid::from_raw), gid.map(Gid::from_raw)))
    }

    /// Makes a regular file and opens it; one that another mount has made meanwhile is opened, unless it had to be
    /// new.
    pub(crate) fn create(
        self: &Arc<Tree>,
        (parent, name): (INodeNo, &OsStr),
        mode: u32,
        flags: OFlags,
        maker: Maker,
    ) -> Result<(FileAttr, FileHandle)> {
        match self.create_new((parent, name), mode, flags, maker) {
            Err(Errno::EXIST) if !flags.contains(OFlags::EXCL) => {
                let attributes = self.look_up(parent, name)?;
                let inode = self.inodes.get(attributes.ino)?;
                let handle = self.open(inode, flags).inspect_err(|_| {
                    self.inodes.forget(attributes.ino, 1);
                })?;
                Ok((attributes, handle))
            }
            made => made,
        }
    }

    fn create_new(
        self: &Arc<Tree>,
        (parent, name): (INodeNo, &OsStr),
        mode: u32,
        flags: OFlags,
        maker: Maker,
    ) -> Result<(FileAttr, FileHandle)> {
        let dir = self.new_entry(parent, name)?;
        let Made { inode, stat, file, lower } = self.make_file(&dir, name, mode, maker)?;
        let file = self.use_new_content(&inode, (file, lower)).inspect_err(|_| {
            self.inodes.forget(inode.number, 1);
        })?;
        let attributes = self.attributes_below(&inode, &stat);
        Ok((attributes, self.files.insert(OpenFile::new(inode, file, flags))))
    }

    /// Makes anything that is no directory.
    pub(crate) fn make_node(
        &self,
        (parent, name): (INodeNo, &OsStr),
        mode: u32,
        device: u32,
        maker: Maker,
    ) -> Result<FileAttr> {
        let dir = self.new_entry(parent, name)?;
        let kind = FileType::from_raw_mode(mode);
        if kind.is_file() {
            let Made { inode, stat, .. } = self.make_file(&dir, name, mode, maker)?;
            return Ok(self.attributes_below(&inode, &stat));
        }
        let (permissions, device) = (Mode::from_raw_mode(mode & 0o7777), device_from(device));
        fs::mknodat(&dir.reference, name, kind, permissions, device)?;
        self.made(&dir, name, Some(mode), maker)
    }

    /// Makes a directory.
    pub(crate) fn make_directory(
        &self,
        (parent, name): (INodeNo, &OsStr),
        mode: u32,
        maker: Maker,
    ) -> Result<FileAttr> {
        let dir = self.new_entry(parent, name)?;
        fs::mkdirat(&dir.reference, name, Mode::from_raw_mode(mode & 0o7777))?;
        self.made(&dir, name, Some(mode), maker)
    }

    /// Makes a symbolic link.
    pub(crate) fn make_link_to(
        &self,
        (parent, name): (INodeNo, &OsStr),
        target: &Path,
        maker: Maker,
    ) -> Result<FileAttr> {
        let dir = self.new_entry(parent, name)?;
        fs::symlinkat(target, &dir.reference, name)?;
        self.made(&dir, name, None, maker)
    }

    /// Gives what was made to its maker.
    fn made(&self, dir: &Inode, name: &OsStr, mode: Option<u32>, maker: Maker) -> Result<FileAttr> {
        let (inode, stat) = self.meet(dir, name)?;
        let own = || -> Result<()> {
            let (uid, gid) = self.owner(dir, maker)?;
            if uid.is_some() || gid.is_some() {
                fs::chownat(&inode.reference, "", uid, gid, AtFlags::EMPTY_PATH)?;
            }
            if let Some(mode) = mode {
                // A change of owner takes the bits away that run it as another. A directory has its
                // group's bit from the one that it is in.
                let inherited = if inode.kind.is_dir() { stat.mode() & S_ISGID } else { 0 };
                inode.set_mode(mode & 0o7777 | inherited)?;
            }
            Ok(())
        };
        // What the kernel does not hear of it forgets.
        own().and_then(|()| self.attributes(&inode)).inspect_err(|_| {
            self.inodes.forget(inode.number, 1);
        })
    }

    /// One more name for a file.
    pub(crate) fn link(&self, number: INodeNo, parent: INodeNo, name: &OsStr) -> Result<FileAttr> {
        let (inode, dir) = (self.inodes.get(number)?, self.new_entry(parent, name)?);
        lower::link(&inode.reference, &dir.reference, name)?;
        let (inode, stat) = self.meet(&dir, name)?;
        Ok(self.attributes_below(&inode, &stat))
    }

    /// What a symbolic link says.
    pub(crate) fn read_link(&self, number: INodeNo) -> Result<Vec<u8>> {
        let inode = self.inodes.get(number)?;
        Ok(fs::readlinkat(&inode.reference, "", Vec::new())?.into_bytes())
    }

    /// Removes a name of what is no directory. Who has it open goes on.
    pub(crate) fn unlink(&self, parent: INodeNo, name: &OsStr) -> Result<()> {
        let dir = self.entry(parent, name)?;
        let last = lower::last_name_of(&dir.reference, name);
        fs::unlinkat(&dir.reference, name, AtFlags::empty())?;
        self.forget_below(last.as_ref());
        Ok(())
    }

    /// Removes a directory.
    pub(crate) fn remove_directory(&self, parent: INodeNo, name: &OsStr) -> Result<()> {
        let dir = self.entry(parent, name)?;
        fs::unlinkat(&dir.reference, name, AtFlags::REMOVEDIR)
    }

    /// Renames, over what is there or not, or exchanges two names.
    pub(crate) fn rename(
        &self,
        (parent, name): (INodeNo, &OsStr),
        (new_parent, new_name): (INodeNo, &OsStr),
        flags: RenameFlags,
    ) -> Result<()> {
        let (from, to) = (self.entry(parent, name)?, self.new_entry(new_parent, new_name)?);
        let replaces = !flags.intersects(RenameFlags::EXCHANGE | RenameFlags::NOREPLACE);
        let last = replaces.then(|| lower::last_name_of(&to.reference, new_name)).flatten();
        lower::rename((&from.reference, name), (&to.reference, new_name), flags)?;
        self.forget_below(last.as_ref());
        Ok(())
    }

    /// What is kept beside a file that is gone goes, too.
    fn forget_below(&self, file: Option<&std::fs::File>) {
        if let Some(file) = file {
            self.server.forget(file);
        }
    }

    /// Opens a directory.
    pub(crate) fn open_directory(&self, number: INodeNo) -> Result<FileHandle> {
        let inode = self.inodes.get(number)?;
        Ok(self.directories.insert(OpenDirectory { inode, entries: Mutex::default() }))
    }

    /// Lists a directory from an offset on, until `add` says that there is no more room: `add` is given
    /// the offset behind each entry, its number, its kind and its name.
    pub(crate) fn list(
        &self,
        handle: FileHandle,
        offset: u64,
        mut add: impl FnMut(u64, INodeNo, fuser::FileType, &OsStr) -> bool,
    ) -> Result<()> {
        let open = self.directories.get(handle)?;
        let (entries, start) =
            (open.entries(offset)?, usize::try_from(offset).unwrap_or(usize::MAX));
        for (index, entry) in entries.iter().enumerate().skip(start) {
            let (number, kind) = (INodeNo(entry.number), kind_of(entry.kind));
            if add(index as u64 + 1, number, kind, &entry.name) {
                break;
            }
        }
        Ok(())
    }

    /// Lists a directory with the attributes of what is in it, as [`list`](Tree::list) does. What `add`
    /// takes, the kernel knows from then on; when that is many, it is given one at a time, so that it
    /// forgets as fast as it learns.
    pub(crate) fn list_with_attributes(
        &self,
        handle: FileHandle,
        offset: u64,
        mut add: impl FnMut(u64, &FileAttr, &OsStr) -> bool,
    ) -> Result<()> {
        let dir = self.directories.get(handle)?.inode.clone();
        self.list(handle, offset, |next, number, kind, name| {
            if name == "." || name == ".." {
                return add(next, &nameless(number, kind), name);
            }
            // Somebody may have removed it meanwhile.
            let Ok((inode, stat)) = self.meet(&dir, name) else { return false };
            let is_full = add(next, &self.attributes_below(&inode, &stat), name);
            if is_full {
                self.inodes.forget(inode.number, 1);
            }
            is_full || self.inodes.are_many()
        })
    }

    /// Waits until the disk has a directory, where that is waited for.
    pub(crate) fn sync_directory(&self, number: INodeNo) -> Result<()> {
        if !self.options.waits_for_disk {
            return Ok(());
        }
        let inode = self.inodes.get(number)?;
        let dir = lower::open(&inode.reference, OFlags::RDONLY | OFlags::DIRECTORY)?;
        dir.sync_all().map_err(|error| of_io(&error))
    }
}

impl OpenDirectory {
    /// The entries, as they are now if they are read from the start.
    fn entries(&self, offset: u64) -> Result<Arc<Vec<Entry>>> {
        let mut known = self.entries.lock().map_err(|_| Errno::IO)?;
        if offset == 0 {
            let dot = |name: &str| Entry {
                name: OsString::from(name),
                number: self.inode.number.0,
                kind: FileType::Directory,
            };
            let below = lower::entries(&self.inode.reference)?;
            let below = below.into_iter().filter(|entry| !is_hidden(&self.inode, &entry.name));
            *known = Arc::new([dot("."), dot("..")].into_iter().chain(below).collect());
        }
        Ok(known.clone())
    }
}

/// Whether a name is the library's own: what it keeps beside the files is nobody's business.
fn is_hidden(dir: &Inode, name: &OsStr) -> bool {
    dir.is_root() && name.as_bytes().starts_with(b".sealback")
}

/// What the kernel is told of `.` and `..`, which it does not remember.
fn nameless(ino: INodeNo, kind: fuser::FileType) -> FileAttr {
    let epoch = std::time::UNIX_EPOCH;
    FileAttr {
        ino,
        size: 0,
        blocks: 0,
        atime: epoch,
        mtime: epoch,
        ctime: epoch,
        crtime: epoch,
        kind,
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 0,
        flags: 0,
    }
}

//! The kernel's requests, each handed on to the room that it is about.

use std::{ffi::OsStr, io, path::Path, time::SystemTime};

use fuser::{
    BsdFileFlags, Errno, FileHandle, Filesystem, FopenFlags, INodeNo, KernelConfig, LockOwner,
    OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus,
    ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request,
    TimeOrNow, WriteFlags,
};
use rustix::fs::{FallocateFlags, fstatvfs};

use crate::{
    attributes::Changes,
    data::{How, Whence},
    kernel::{
        GENERATION, Kernel, MAX_BYTES, done, flags_of, maker, may_keep_privileges, told, xattr,
    },
};

impl Filesystem for Kernel {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        self.agree(config);
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.entry(reply, self.tree().look_up(parent, name));
    }

    fn forget(&self, _: &Request, number: INodeNo, n_lookups: u64) {
        self.0.inodes.forget(number, n_lookups);
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let tree = self.tree();
        let found = tree.inodes.get(number).and_then(|inode| tree.attributes(&inode));
        self.attributes(reply, found);
    }

    fn setattr(
        &self,
        request: &Request,
        number: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        accessed: Option<TimeOrNow>,
        modified: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let tree = self.tree();
        let changes = Changes { mode, uid, gid, size, accessed, modified };
        let changed = tree.inodes.get(number).and_then(|inode| {
            if size.is_some() && !may_keep_privileges(request) {
                inode.drop_privileges()?;
            }
            tree.change(&inode, &changes)
        });
        self.attributes(reply, changed);
    }

    fn readlink(&self, _: &Request, number: INodeNo, reply: ReplyData) {
        match self.tree().read_link(number) {
            Ok(target) => reply.data(&target),
            Err(error) => reply.error(told(error)),
        }
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        device: u32,
        reply: ReplyEntry,
    ) {
        let made = self.tree().make_node((parent, name), mode, device, maker(request));
        self.entry(reply, made);
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        reply: ReplyEntry,
    ) {
        self.entry(reply, self.tree().make_directory((parent, name), mode, maker(request)));
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        done(reply, self.tree().unlink(parent, name));
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        done(reply, self.tree().remove_directory(parent, name));
    }

    fn symlink(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        self.entry(reply, self.tree().make_link_to((parent, name), target, maker(request)));
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let flags = rustix::fs::RenameFlags::from_bits_retain(flags.bits());
        done(reply, self.tree().rename((parent, name), (new_parent, new_name), flags));
    }

    fn link(&self, _: &Request, number: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.entry(reply, self.tree().link(number, parent, name));
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let flags = flags_of(flags);
        match self.tree().create((parent, name), mode, flags, maker(request)) {
            Ok((attributes, handle)) => {
                let (ttl, flags) = (self.believed_for(), self.opened(flags));
                reply.created(&ttl, &attributes, GENERATION, handle, flags);
            }
            Err(error) => reply.error(told(error)),
        }
    }

    fn open(&self, _: &Request, number: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let (tree, flags) = (self.tree(), flags_of(flags.0));
        match tree.inodes.get(number).and_then(|inode| tree.open(inode, flags)) {
            Ok(handle) => reply.opened(handle, self.opened(flags)),
            Err(error) => reply.error(told(error)),
        }
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        position: u64,
        n_bytes: u32,
        flags: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let n_bytes = n_bytes.min(MAX_BYTES);
        self.tree().read(handle, position, n_bytes, flags_of(flags.0), |read| match read {
            Ok(bytes) => reply.data(bytes),
            Err(error) => reply.error(told(error)),
        });
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        position: u64,
        data: &[u8],
        kind: WriteFlags,
        flags: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let how = How {
            flags: flags_of(flags.0),
            from_page_cache: kind.contains(WriteFlags::FUSE_WRITE_CACHE),
            drops_privileges: kind.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID),
        };
        match self.tree().write(handle, position, data, how) {
            Ok(n_bytes) => reply.written(n_bytes),
            Err(error) => reply.error(told(error)),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, handle: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        match self.0.options.shared {
            true => done(reply, self.tree().flush(handle)),
            // There is nothing to be done, and the kernel does not ask again.
            false => reply.error(Errno::ENOSYS),
        }
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.tree().release(handle);
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, handle: FileHandle, _: bool, reply: ReplyEmpty) {
        done(reply, self.tree().sync(handle));
    }

    fn opendir(&self, _: &Request, number: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.tree().open_directory(number) {
            Ok(handle) => reply.opened(handle, FopenFlags::empty()),
            Err(error) => reply.error(told(error)),
        }
    }

    fn readdir(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let add = |next, number, kind, name: &OsStr| reply.add(number, next, kind, name);
        match self.tree().list(handle, offset, add) {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(told(error)),
        }
    }

    fn readdirplus(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let ttl = self.believed_for();
        let add = |next, attributes: &fuser::FileAttr, name: &OsStr| {
            reply.add(attributes.ino, next, name, &ttl, attributes, GENERATION)
        };
        match self.tree().list_with_attributes(handle, offset, add) {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(told(error)),
        }
    }

    fn releasedir(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.tree().directories.remove(handle);
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, number: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        done(reply, self.tree().sync_directory(number));
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        match fstatvfs(&self.tree().beside) {
            Ok(of) => {
                let small = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
                let (block, fragment) = (small(of.f_bsize), small(of.f_frsize));
                let (blocks, free, available) = (of.f_blocks, of.f_bfree, of.f_bavail);
                let (files, files_free, longest) = (of.f_files, of.f_ffree, small(of.f_namemax));
                reply.statfs(blocks, free, available, files, files_free, block, longest, fragment);
            }
            Err(error) => reply.error(told(error)),
        }
    }

    fn setxattr(
        &self,
        _: &Request,
        number: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _: u32,
        reply: ReplyEmpty,
    ) {
        done(reply, self.tree().set_xattr(number, name, value, flags));
    }

    fn getxattr(&self, _: &Request, number: INodeNo, name: &OsStr, room: u32, reply: ReplyXattr) {
        xattr(reply, room, self.tree().read_xattr(number, name));
    }

    fn listxattr(&self, _: &Request, number: INodeNo, room: u32, reply: ReplyXattr) {
        xattr(reply, room, self.tree().list_xattrs(number));
    }

    fn removexattr(&self, _: &Request, number: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        done(reply, self.tree().remove_xattr(number, name));
    }

    fn fallocate(
        &self,
        request: &Request,
        _: INodeNo,
        handle: FileHandle,
        position: u64,
        n_bytes: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let mode = FallocateFlags::from_bits_retain(mode.cast_unsigned());
        let range = (position, n_bytes);
        done(reply, self.tree().allocate(handle, range, mode, may_keep_privileges(request)));
    }

    fn lseek(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        position: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let found = match (whence, u64::try_from(position)) {
            (SEEK_DATA, Ok(position)) => self.tree().seek(handle, position, Whence::Data),
            (SEEK_HOLE, Ok(position)) => self.tree().seek(handle, position, Whence::Hole),
            _ => Err(rustix::io::Errno::INVAL),
        };
        match found {
            Ok(position) => reply.offset(position.cast_signed()),
            Err(error) => reply.error(told(error)),
        }
    }
}

/// As `lseek` has them; the kernel asks for no others.
const SEEK_DATA: i32 = 3;
const SEEK_HOLE: i32 = 4;

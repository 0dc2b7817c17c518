//! A folder that shows a directory as it is, through FUSE: what `mount` could reach if nothing were sealed.
//! For `tests/mount/speed`, and as a lower file system that has no links and no files without a name: it has what
//! that needs and no more.
//!
//! Usage: `passthrough DIRECTORY MOUNTPOINT`; `fusermount3 -u MOUNTPOINT` ends it.
#![forbid(unsafe_code)]

#[path = "passthrough/attributes.rs"]
mod attributes;

use std::{
    collections::HashMap,
    env,
    ffi::OsStr,
    fs::File,
    io,
    os::{
        fd::AsRawFd,
        unix::fs::{FileExt, MetadataExt},
    },
    path::Path,
    process::ExitCode,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, SystemTime},
};

use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, Filesystem, FopenFlags, Generation, INodeNo,
    InitFlags, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, Request, Session, TimeOrNow, WriteFlags,
};
use rustix::fs::{self, AtFlags, Gid, Mode, OFlags, Timestamps, Uid};
use sealback_examples::read_ahead::Mountpoint;

use crate::attributes::{Changes, attributes, wanted};

fn main() -> ExitCode {
    let args: Vec<_> = env::args_os().skip(1).collect();
    let [directory, mountpoint] = &args[..] else {
        eprintln!("passthrough DIRECTORY MOUNTPOINT");
        return ExitCode::FAILURE;
    };
    match run(directory, Path::new(mountpoint)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("passthrough: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(directory: &OsStr, mountpoint: &Path) -> io::Result<()> {
    let root = reference(fs::CWD, directory)?;
    rustix::process::umask(Mode::empty());
    let known = HashMap::from([(INodeNo::ROOT.0, Known { reference: root.into(), n_lookups: 1 })]);
    let below = Below { known: Mutex::new(known), open: Mutex::default(), next: AtomicU64::new(1) };
    let mut config = fuser::Config::default();
    config.mount_options = vec![fuser::MountOption::DefaultPermissions];
    config.n_threads = Some(4);
    config.clone_fd = true;
    let mounted_on = Mountpoint::new(mountpoint);
    let session = Session::new(below, mountpoint, &config)?;
    thread::spawn(move || mounted_on.read_far_ahead());
    session.run()
}

/// The directory below, and what the kernel knows and has open of it.
struct Below {
    known: Mutex<HashMap<u64, Known>>,
    open: Mutex<HashMap<u64, Arc<File>>>,
    next: AtomicU64,
}

struct Known {
    /// An `O_PATH` descriptor.
    reference: Arc<File>,
    n_lookups: u64,
}

type Result<T> = std::result::Result<T, Errno>;

fn told(error: impl Into<io::Error>) -> Errno {
    Errno::from(error.into())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn reference(dir: impl std::os::fd::AsFd, name: &OsStr) -> rustix::io::Result<File> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    fs::openat(dir, name, flags, Mode::empty()).map(File::from)
}

fn path_of(reference: &File) -> String {
    format!("/proc/self/fd/{}", reference.as_raw_fd())
}

impl Below {
    fn get(&self, number: INodeNo) -> Result<Arc<File>> {
        let known = lock(&self.known);
        known.get(&number.0).map(|known| known.reference.clone()).ok_or(Errno::ESTALE)
    }

    fn file(&self, handle: FileHandle) -> Result<Arc<File>> {
        lock(&self.open).get(&handle.0).cloned().ok_or(Errno::EBADF)
    }

    fn insert(&self, file: File) -> FileHandle {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        lock(&self.open).insert(number, Arc::new(file));
        FileHandle(number)
    }

    fn meet(&self, parent: INodeNo, name: &OsStr) -> Result<FileAttr> {
        let reference = reference(&*self.get(parent)?, name).map_err(told)?;
        let stat = reference.metadata().map_err(told)?;
        let mut known = lock(&self.known);
        let new = || Known { reference: reference.into(), n_lookups: 0 };
        known.entry(stat.ino()).or_insert_with(new).n_lookups += 1;
        Ok(attributes(&stat, INodeNo(stat.ino())))
    }

    fn look(&self, number: INodeNo) -> Result<FileAttr> {
        Ok(attributes(&self.get(number)?.metadata().map_err(told)?, number))
    }

    fn make(&self, parent: INodeNo, name: &OsStr, mode: u32) -> Result<(FileAttr, FileHandle)> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(mode & 0o7777);
        let file = fs::openat(&*self.get(parent)?, name, flags, mode).map_err(told)?;
        Ok((self.meet(parent, name)?, self.insert(file.into())))
    }

    fn change(&self, number: INodeNo, changes: &Changes) -> Result<FileAttr> {
        let reference = self.get(number)?;
        let path = path_of(&reference);
        if let Some(size) = changes.size {
            let file = fs::open(&path, OFlags::WRONLY, Mode::empty()).map_err(told)?;
            fs::ftruncate(file, size).map_err(told)?;
        }
        if changes.uid.is_some() || changes.gid.is_some() {
            let (uid, gid) = (changes.uid.map(Uid::from_raw), changes.gid.map(Gid::from_raw));
            fs::chownat(&reference, "", uid, gid, AtFlags::EMPTY_PATH).map_err(told)?;
        }
        if let Some(mode) = changes.mode {
            let mode = Mode::from_raw_mode(mode & 0o7777);
            fs::chmodat(fs::CWD, path, mode, AtFlags::empty()).map_err(told)?;
        }
        let times = Timestamps {
            last_access: wanted(changes.accessed),
            last_modification: wanted(changes.modified),
        };
        fs::utimensat(&reference, "", &times, AtFlags::EMPTY_PATH).map_err(told)?;
        self.look(number)
    }
}

fn entry(reply: ReplyEntry, found: Result<FileAttr>) {
    match found {
        Ok(attributes) => reply.entry(&BELIEVED_FOR, &attributes, GENERATION),
        Err(error) => reply.error(error),
    }
}

fn done(reply: ReplyEmpty, done: Result<()>) {
    match done {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}

impl Filesystem for Below {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let wanted = InitFlags::FUSE_ASYNC_DIO
            | InitFlags::FUSE_PARALLEL_DIROPS
            | InitFlags::FUSE_WRITEBACK_CACHE;
        let _ = config.add_capabilities(wanted & config.capabilities());
        let _ = config.set_max_write(MAX_BYTES);
        let _ = config.set_max_background(64);
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        entry(reply, self.meet(parent, name));
    }

    fn forget(&self, _: &Request, number: INodeNo, n_lookups: u64) {
        let mut known = lock(&self.known);
        if let Some(of) = known.get_mut(&number.0) {
            of.n_lookups = of.n_lookups.saturating_sub(n_lookups);
            if of.n_lookups == 0 {
                known.remove(&number.0);
            }
        }
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.look(number) {
            Ok(attributes) => reply.attr(&BELIEVED_FOR, &attributes),
            Err(error) => reply.error(error),
        }
    }

    fn setattr(
        &self,
        _: &Request,
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
        match self.change(number, &Changes { mode, uid, gid, size, accessed, modified }) {
            Ok(attributes) => reply.attr(&BELIEVED_FOR, &attributes),
            Err(error) => reply.error(error),
        }
    }

    fn mkdir(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        reply: ReplyEntry,
    ) {
        let make = || {
            let mode = Mode::from_raw_mode(mode & 0o7777);
            fs::mkdirat(&*self.get(parent)?, name, mode).map_err(told)?;
            self.meet(parent, name)
        };
        entry(reply, make());
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let unlink = |dir: Arc<File>| fs::unlinkat(&*dir, name, AtFlags::empty()).map_err(told);
        done(reply, self.get(parent).and_then(unlink));
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
        let rename = || {
            let (from, to) = (self.get(parent)?, self.get(new_parent)?);
            let flags = fs::RenameFlags::from_bits_retain(flags.bits());
            fs::renameat_with(&*from, name, &*to, new_name, flags).map_err(told)
        };
        done(reply, rename());
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        _: i32,
        reply: ReplyCreate,
    ) {
        match self.make(parent, name, mode) {
            Ok((attributes, handle)) => {
                reply.created(&BELIEVED_FOR, &attributes, GENERATION, handle, KEPT);
            }
            Err(error) => reply.error(error),
        }
    }

    fn open(&self, _: &Request, number: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let open = |reference: Arc<File>| {
            fs::open(path_of(&reference), OFlags::RDWR, Mode::empty()).map_err(told)
        };
        match self.get(number).and_then(open) {
            Ok(file) => reply.opened(self.insert(file.into()), KEPT),
            Err(error) => reply.error(error),
        }
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        position: u64,
        n_bytes: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        thread_local! {
            static BUFFER: std::cell::RefCell<Vec<u8>> = vec![0; MAX_BYTES as usize].into();
        }
        BUFFER.with_borrow_mut(|buffer| {
            let to = &mut buffer[..n_bytes.min(MAX_BYTES) as usize];
            let read = self.file(handle).and_then(|file| file.read_at(to, position).map_err(told));
            match read {
                Ok(n_bytes) => reply.data(&to[..n_bytes]),
                Err(error) => reply.error(error),
            }
        });
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        position: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let written = self.file(handle).and_then(|file| {
            file.write_all_at(data, position).map_err(told)?;
            Ok(u32::try_from(data.len()).unwrap_or(u32::MAX))
        });
        match written {
            Ok(n_bytes) => reply.written(n_bytes),
            Err(error) => reply.error(error),
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
        lock(&self.open).remove(&handle.0);
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, handle: FileHandle, _: bool, reply: ReplyEmpty) {
        done(reply, self.file(handle).and_then(|file| file.sync_data().map_err(told)));
    }
}

const BELIEVED_FOR: Duration = Duration::from_secs(60);
const GENERATION: Generation = Generation(0);
const KEPT: FopenFlags = FopenFlags::FOPEN_KEEP_CACHE;
const MAX_BYTES: u32 = 1 << 20;

//! What is in a regular file: the sealed file below it, open as long as somebody uses it or something of
//! it is not written back.
//!
//! All handles and names of a file share one open [`File`]: it belongs to the inode. When the last user has
//! gone it is written back in the background and then closed. What cannot be written back stays
//! open, is tried again now and then, and is told of when the folder is unmounted.

use std::{
    ffi::OsStr,
    fs::Metadata,
    os::unix::fs::{FileExt, MetadataExt},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use rustix::{
    fs::{AtFlags, Timespec, Timestamps, UTIME_OMIT, utimensat},
    io::Errno,
};
use sealback::{
    CreateOptions, Error, File,
    crypto::{FileId, HEADER_BYTES, Header, OpenOptions},
    stream::TargetError,
};

use crate::{
    attributes::{now, time_of},
    errors::{Result, errno},
    inodes::Inode,
    lower,
    tree::Tree,
};

/// What a regular file has.
#[derive(Default)]
pub(crate) struct Content {
    state: Mutex<State>,
    /// Whether it is open. Changed with the state's lock held.
    in_use: AtomicBool,
    /// How many writes of the kernel's page cache were refused: it tells whoever has the file open.
    n_refused: AtomicU64,
}

#[derive(Default)]
struct State {
    open: Option<Open>,
    /// Which sealed file it was when it was last looked at: it stays that.
    file_id: Option<FileId>,
    size: Option<KnownSize>,
}

/// The sealed file is open.
struct Open {
    file: Arc<File>,
    /// The lower file, open as well: by it, unlike by a reference, anything can be asked and changed without
    /// looking a path up.
    lower: Arc<std::fs::File>,
    n_users: usize,
    /// How often somebody came to use it.
    n_uses: u64,
    /// Something was written since the last sync began.
    is_written: bool,
    /// Nobody used it, and it is being written back, to be closed then.
    is_closing: bool,
    times: Times,
}

impl Open {
    /// One more uses it, by a handle of his own.
    fn use_again(&mut self) -> File {
        (self.n_users, self.n_uses) = (self.n_users + 1, self.n_uses + 1);
        self.file.reopen()
    }
}

/// Times that are the caller's to see and not the lower file's, which is written to later.
#[derive(Clone, Copy, Default)]
struct Times {
    modified: Option<Timespec>,
    changed: Option<Timespec>,
}

/// What a header said of a file that was not open.
#[derive(Clone, Copy)]
struct KnownSize {
    /// The lower file's size and time of change then: while it has these, the header is the same.
    of: (u64, i64, i64),
    size: u64,
}

/// What a caller sees of a file's content.
pub(crate) struct Seen {
    pub(crate) size: u64,
    pub(crate) modified: Option<Timespec>,
    pub(crate) changed: Option<Timespec>,
}

impl Content {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it is open, or not written back.
    pub(crate) fn is_in_use(&self) -> bool {
        self.in_use.load(Ordering::Acquire)
    }

    /// The file, if it is open.
    pub(crate) fn open_file(&self) -> Option<Arc<File>> {
        self.state().open.as_ref().map(|open| open.file.clone())
    }

    /// The lower file, if it is open.
    pub(crate) fn lower(&self) -> Option<Arc<std::fs::File>> {
        self.is_in_use()
            .then(|| self.state().open.as_ref().map(|open| open.lower.clone()))
            .flatten()
    }

    /// A write of the kernel's page cache was refused.
    pub(crate) fn has_refused(&self) {
        self.n_refused.fetch_add(1, Ordering::Relaxed);
    }

    /// How many were.
    pub(crate) fn n_refused(&self) -> u64 {
        self.n_refused.load(Ordering::Relaxed)
    }

    /// It is written to, and the kernel will say when that was.
    pub(crate) fn written(&self) {
        if let Some(open) = &mut self.state().open {
            open.is_written = true;
        }
    }

    /// It is written to now; or, if a time is given, is to look as if it had been then.
    pub(crate) fn modified(&self, at: Option<Timespec>) {
        if let Some(open) = &mut self.state().open {
            open.times.modified = Some(at.unwrap_or_else(now));
            open.times.changed = Some(now());
            open.is_written |= at.is_none();
        }
    }
}

impl Tree {
    /// Somebody uses a file, until [`let_go`](Tree::let_go): it is opened, if it isn't. The handle is
    /// the user's own.
    pub(crate) fn use_content(&self, inode: &Inode) -> Result<File> {
        let mut state = inode.content.state();
        if let Some(open) = &mut state.open {
            if self.options.shared {
                open.file.revalidate().map_err(|error| self.refused(inode, &error))?;
            }
            return Ok(open.use_again());
        }
        let lower = Arc::new(self.with_room(|| lower::open_file(&inode.reference))?);
        let target = self.server.adopt(lower.clone()).map_err(of_server);
        let file =
            target.and_then(|target| self.engine.open_target(&self.place(), &inode.path(), target));
        let file = file.map_err(|error| self.refused(inode, &error))?;
        self.begin(inode, &mut state, (file, lower))
    }

    /// With several mounts: looks for what others have done to a file that is open here, before its size is told.
    pub(crate) fn ask_others(&self, inode: &Inode) {
        let open = if self.options.shared { inode.content.open_file() } else { None };
        if let Some(file) = open {
            // Whoever opens it is told why not.
            let _ = file.revalidate();
        }
    }

    /// The first user of a file that was not open.
    fn begin(
        &self,
        inode: &Inode,
        state: &mut State,
        (file, lower): (File, Arc<std::fs::File>),
    ) -> Result<File> {
        let known = *state.file_id.get_or_insert(file.file_id());
        if known != file.file_id() {
            self.log(format_args!("{}: another sealed file was put in its place", inode.path()));
            return Err(Errno::STALE);
        }
        let handle = file.reopen();
        let (file, times) = (Arc::new(file), Times::default());
        let (n_users, n_uses, is_written, is_closing) = (1, 1, false, false);
        state.open = Some(Open { file, lower, n_users, n_uses, is_written, is_closing, times });
        inode.content.in_use.store(true, Ordering::Release);
        Ok(handle)
    }

    /// A sealed file that is empty, in a lower file that nobody can find yet.
    pub(crate) fn seal_new(&self, lower: &Arc<std::fs::File>, name: &OsStr) -> Result<File> {
        let block_bytes = self.options.block_bytes;
        let options = CreateOptions { block_bytes, ..CreateOptions::default() };
        let make = |_, header: &[u8; HEADER_BYTES]| self.server.adopt_new(lower.clone(), header);
        let made =
            self.engine.create_target(&self.place(), &name.to_string_lossy(), &options, make);
        made.map_err(|error| errno(&error))
    }

    /// Uses a file that was made just now.
    pub(crate) fn use_new_content(
        &self,
        inode: &Inode,
        (file, lower): (File, Arc<std::fs::File>),
    ) -> Result<File> {
        let mut state = inode.content.state();
        match &mut state.open {
            // Somebody has found it in the meantime.
            Some(open) => Ok(open.use_again()),
            None => self.begin(inode, &mut state, (file, lower)),
        }
    }

    /// Runs something on a file that may not be open.
    pub(crate) fn with_content<R>(
        self: &Arc<Tree>,
        inode: &Arc<Inode>,
        run: impl FnOnce(&File) -> Result<R>,
    ) -> Result<R> {
        let file = self.use_content(inode)?;
        let result = run(&file);
        drop(file);
        self.let_go(inode);
        result
    }

    /// A user has gone. The last one leaves a file that is written back and closed.
    pub(crate) fn let_go(self: &Arc<Tree>, inode: &Arc<Inode>) {
        let mut state = inode.content.state();
        let Some(open) = &mut state.open else { return };
        open.n_users -= 1;
        if open.n_users > 0 || open.is_closing {
            return;
        }
        if !open.is_written {
            return self.close(inode, state);
        }
        open.is_closing = true;
        let (tree, inode, file) = (self.clone(), inode.clone(), open.file.clone());
        drop(state);
        file.submit(move |_| tree.write_back(&inode));
    }

    /// Tries once more to write back a file that nobody uses, and to close it.
    pub(crate) fn try_to_close(&self, inode: &Inode) {
        let mut state = inode.content.state();
        let Some(open) = &mut state.open else { return };
        if open.n_users == 0 && !open.is_closing {
            open.is_closing = true;
            drop(state);
            self.write_back(inode);
        }
    }

    /// Writes back a file that is to be closed, and closes it, unless somebody uses it again.
    fn write_back(&self, inode: &Inode) {
        loop {
            let mut state = inode.content.state();
            let Some(open) = &mut state.open else { return };
            let (file, n_uses) = (open.file.clone(), open.n_uses);
            drop(state);
            let synced = if inode.is_gone() {
                // Nobody will read it again.
                file.discard();
                Ok(())
            } else {
                file.sync().map_err(|error| self.refused(inode, &error))
            };
            drop(file);
            let mut state = inode.content.state();
            let Some(open) = &mut state.open else { return };
            if open.n_users > 0 || synced.is_err() {
                open.is_closing = false;
                return;
            }
            if open.n_uses == n_uses {
                return self.close(inode, state);
            }
        }
    }

    /// Waits until what was written is on the server, and gives the lower file its times.
    pub(crate) fn sync_content(&self, inode: &Inode, file: &File) -> Result<()> {
        if let Some(open) = &mut inode.content.state().open {
            open.is_written = false;
        }
        if let Err(error) = file.sync() {
            inode.content.written();
            return Err(self.refused(inode, &error));
        }
        let times = inode.content.state().open.as_ref().map(|open| open.times);
        if let Some(times) = times {
            set_times(inode, times);
        }
        Ok(())
    }

    /// Closes a file that is written back; the kernel may have forgotten it meanwhile.
    fn close(&self, inode: &Inode, mut state: MutexGuard<'_, State>) {
        let Some(open) = state.open.take() else { return };
        let size = open.file.size();
        drop(open.file);
        set_times(inode, open.times);
        let of = inode.stat().ok().map(|stat| version(&stat));
        state.size = of.filter(|_| !self.options.shared).map(|of| KnownSize { of, size });
        inode.content.in_use.store(false, Ordering::Release);
        drop(state);
        self.inodes.retire(inode.number);
    }

    /// What a caller sees of a file.
    pub(crate) fn look(&self, inode: &Inode, stat: &Metadata) -> Seen {
        let mut state = inode.content.state();
        if let Some(Open { file, times, .. }) = &state.open {
            let Times { modified, changed } = *times;
            let later = |changed: &Timespec| (changed.tv_sec, changed.tv_nsec) > change_of(stat);
            return Seen { size: file.size(), modified, changed: changed.filter(later) };
        }
        let of = version(stat);
        let known = state.size.filter(|known| known.of == of).map(|known| known.size);
        let size = known.or_else(|| self.read_size(inode, &mut state, of));
        // One that cannot be opened is as long as it is below, so that it can be seen and removed.
        Seen { size: size.unwrap_or(stat.size()), modified: None, changed: None }
    }

    /// Reads the size from the header.
    fn read_size(&self, inode: &Inode, state: &mut State, of: (u64, i64, i64)) -> Option<u64> {
        let open = || lower::open(&inode.reference, rustix::fs::OFlags::RDONLY);
        let file = self.with_room(open).ok()?;
        let mut bytes = [0; HEADER_BYTES];
        file.read_exact_at(&mut bytes, 0).ok()?;
        let header = Header::open(&bytes, &self.root_key, &OpenOptions::default()).ok()?;
        let (file_id, size) = (header.file_id(), header.view().size);
        if *state.file_id.get_or_insert(file_id) != file_id {
            return None;
        }
        // Within one tick of the clock others may change it again.
        let settled = !self.options.shared || now().tv_sec > of.1 + 1;
        state.size = settled.then_some(KnownSize { of, size });
        Some(size)
    }

    /// Notes why something was refused, and what the caller is to hear.
    pub(crate) fn refused(&self, inode: &Inode, error: &Error) -> Errno {
        self.log(format_args!("{}: {error}", inode.path()));
        errno(error)
    }
}

fn set_times(inode: &Inode, times: Times) {
    if let Some(modified) = times.modified {
        let omit = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
        let times = Timestamps { last_access: omit, last_modification: modified };
        // One that does not take it shows the time at which it was written back.
        let _ = utimensat(&inode.reference, "", &times, AtFlags::EMPTY_PATH);
    }
}

fn version(stat: &Metadata) -> (u64, i64, i64) {
    (stat.size(), stat.ctime(), stat.ctime_nsec())
}

fn change_of(stat: &Metadata) -> (i64, i64) {
    let Timespec { tv_sec, tv_nsec } = time_of(stat.ctime(), stat.ctime_nsec());
    (tv_sec, tv_nsec)
}

fn of_server(source: TargetError) -> Error {
    Error::Server { range: None, attempts: 1, source }
}

//! Locks that hold between threads and between processes: `flock`. The lock under which a sealed file
//! changes is its journal's, in `.sealback/`; the one under which its size changes is its own, see
//! [`super::size`].
//!
//! Each holder has an open file of its own, so two handles of one process exclude each other as
//! two processes do; threads that share a handle are kept apart by its mutex.
//!
//! A lock's file may be unlinked only by whoever holds the lock, and whoever gets the lock looks
//! whether its file has been unlinked meanwhile: two holders, of the old file and of a new one of
//! the same name, would not exclude each other. So lock files stay until their sealed file is
//! removed.

use std::{
    borrow::Borrow,
    fs::{self, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rustix::fs::OFlags;

use super::{
    disk::Own,
    lazy::LazyFile,
    tenancy::{Kin, Turn},
};
use crate::{TargetError, flat::Flat};

/// The lock under which one handle's file changes.
#[derive(Debug)]
pub(super) struct Lock(Mutex<State>);

#[derive(Debug)]
enum State {
    /// Nobody but this handle knows the file: the mutex is enough.
    Private,
    /// Others may have the file open.
    Shared(Option<File>),
    /// Others of this process may, and nobody else.
    Alone(Arc<Kin>),
}

/// Free again when dropped.
#[derive(Debug)]
pub(super) struct Held<'a> {
    state: MutexGuard<'a, State>,
    hold: Hold,
}

#[derive(Debug)]
enum Hold {
    /// By the mutex only.
    Mutex,
    /// By the lock's own file, which is so long.
    File(u64),
    Turn(Turn),
}

/// The journal beside a file that is held.
#[derive(Debug)]
pub(super) enum Log<'a> {
    File(Own<&'a File>),
    Lazy(&'a mut LazyFile),
}

impl Log<'_> {
    pub(super) fn flat(&mut self) -> &mut dyn Flat {
        match self {
            Log::File(file) => file,
            Log::Lazy(file) => *file,
        }
    }
}

impl Lock {
    /// The lock of a file that others may have open: of one that only this process can change, with what
    /// the file shares with its kin; else with a file of its own, which is made when first needed.
    pub(super) fn shared(kin: Option<Arc<Kin>>) -> Lock {
        Lock(Mutex::new(State::shared(kin)))
    }

    /// The lock of a file that only this handle knows.
    pub(super) fn private() -> Lock {
        Lock(Mutex::new(State::Private))
    }

    /// Takes the lock, whose file is at a path, which is asked for when that is opened. Blocks.
    pub(super) fn hold(
        &self,
        path: impl Fn() -> Result<PathBuf, TargetError>,
    ) -> Result<Held<'_>, TargetError> {
        let mut state = self.state();
        let file = match &mut *state {
            State::Private => return Ok(Held { state, hold: Hold::Mutex }),
            State::Alone(kin) => {
                let mut turn = kin.turn();
                turn.journal().look().or_else(|error| Err(untaken(&path()?, error)))?;
                return Ok(Held { state, hold: Hold::Turn(turn) });
            }
            State::Shared(file) => file,
        };
        let kept = file.take().map(|kept| match taken(kept, wait) {
            Ok(Taken::Held(kept, bytes)) => Ok(Some((kept, bytes))),
            Ok(Taken::Elsewhere | Taken::Unlinked) => Ok(None),
            Err(error) => Err(untaken(&path()?, error)),
        });
        let (held, bytes) = match kept.transpose()?.flatten() {
            Some(held) => held,
            None => take(&path()?)?,
        };
        *file = Some(held);
        Ok(Held { state, hold: Hold::File(bytes) })
    }

    /// Takes the lock of a file that others may have open, if nobody has it now.
    pub(super) fn try_hold(&self) -> io::Result<Option<Held<'_>>> {
        let state = self.state();
        let file = match &*state {
            State::Private | State::Shared(None) => return Ok(None),
            State::Alone(kin) => {
                let turn = kin.turn();
                return Ok(Some(Held { state, hold: Hold::Turn(turn) }));
            }
            State::Shared(Some(file)) => file,
        };
        Ok(match taken(file, try_lock)? {
            Taken::Held(_, bytes) => Some(Held { state, hold: Hold::File(bytes) }),
            Taken::Elsewhere | Taken::Unlinked => None,
        })
    }

    /// Runs what makes a private file known to others, its kin if only this process can change it; if it
    /// succeeds, the lock holds against them from there on.
    pub(super) fn share_by(
        &self,
        kin: Option<Arc<Kin>>,
        publish: impl FnOnce() -> Result<(), TargetError>,
    ) -> Result<(), TargetError> {
        let mut state = self.state();
        publish()?;
        if let State::Private = *state {
            *state = State::shared(kin);
        }
        Ok(())
    }

    /// A panic under the lock leaves nothing half done that a crash would not leave, too.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn shared(kin: Option<Arc<Kin>>) -> State {
        kin.map_or(State::Shared(None), State::Alone)
    }
}

impl Held<'_> {
    /// The file's journal, if others know the file.
    pub(super) fn log(&mut self) -> Option<Log<'_>> {
        match (&mut self.hold, &*self.state) {
            (Hold::Turn(turn), _) => Some(Log::Lazy(turn.journal())),
            (Hold::File(bytes), State::Shared(Some(file))) => {
                Some(Log::File(Own::of_length(file, *bytes)))
            }
            _ => None,
        }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if let (Hold::File(_), State::Shared(file)) = (&self.hold, &mut *self.state)
            && file.as_ref().is_some_and(|file| file.unlock().is_err())
        {
            // Closing the file frees the lock in any case.
            *file = None;
        }
    }
}

/// What came of taking the lock of an open file.
enum Taken<F> {
    /// It is held; the file is so long.
    Held(F, u64),
    /// Somebody else has it.
    Elsewhere,
    /// Nobody else will find this file.
    Unlinked,
}

/// Takes the lock of an open file, and looks what file that is.
fn taken<F: Borrow<File>>(
    file: F,
    lock: impl Fn(&File) -> io::Result<bool>,
) -> io::Result<Taken<F>> {
    if !lock(file.borrow())? {
        return Ok(Taken::Elsewhere);
    }
    let metadata = file.borrow().metadata()?;
    if !metadata.is_file() {
        return Err(io::ErrorKind::Unsupported.into());
    }
    Ok(if metadata.nlink() == 0 { Taken::Unlinked } else { Taken::Held(file, metadata.len()) })
}

/// Takes the lock of a path, making its file if there is none. Returns how long that is, too. Blocks.
/// Dropped, it is free.
pub(super) fn take(path: &Path) -> Result<(File, u64), TargetError> {
    let attempt = || -> io::Result<(File, u64)> {
        // Goes round only when someone removed the sealed file in between.
        loop {
            if let Taken::Held(file, bytes) = taken(open(path)?, wait)? {
                return Ok((file, bytes));
            }
        }
    };
    attempt().map_err(|error| untaken(path, error))
}

/// Removes a lock's file if nobody holds the lock, and nobody else needs what is in it.
pub(super) fn remove(path: &Path, is_needed: impl FnOnce(&File) -> bool) {
    let Ok(file) = open_there(path, OpenOptions::new().read(true).write(true)) else { return };
    let is_held = try_lock(&file).unwrap_or(false) && !is_unlinked(&file).unwrap_or(true);
    if is_held && !is_needed(&file) {
        // What cannot be removed stays; it costs an inode, nothing else.
        drop(fs::remove_file(path));
    }
}

/// Tries to take a file's lock: `false` if someone has it.
pub(super) fn try_lock(file: &File) -> io::Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Whether no name leads to the file any more.
pub(super) fn is_unlinked(file: &File) -> io::Result<bool> {
    Ok(file.metadata()?.nlink() == 0)
}

/// Makes a directory if it is not there.
pub(super) fn make_dir(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

/// Opens the file of a lock, or makes it. What it is has to be looked at.
fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).custom_flags(JUST_THERE);
    match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            path.parent().map_or(Ok(()), make_dir)?;
            options.open(path)
        }
        opened => opened,
    }
}

/// Opens a file that is just there. Who may write to the directory could have put a link there, through
/// which something else would be written or emptied, or a pipe, which would be waited for.
pub(super) fn open_there(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    no_other(options.custom_flags(JUST_THERE).open(path)?)
}

/// The same, and makes it if it is not there, with its directory.
pub(super) fn make_there(path: &Path) -> io::Result<File> {
    no_other(open(path)?)
}

fn no_other(file: File) -> io::Result<File> {
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::ErrorKind::Unsupported.into()) }
}

const JUST_THERE: i32 = (OFlags::NOFOLLOW.bits() | OFlags::NONBLOCK.bits()).cast_signed();

pub(super) fn lock(file: &File) -> io::Result<()> {
    loop {
        match file.lock() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            locked => return locked,
        }
    }
}

/// As [`lock`]: always `true`.
fn wait(file: &File) -> io::Result<bool> {
    lock(file).map(|()| true)
}

pub(super) fn untaken(path: &Path, error: io::Error) -> TargetError {
    TargetError::from_io(format!("taking the lock {}", path.display()), error)
}

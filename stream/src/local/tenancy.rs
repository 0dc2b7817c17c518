//! Who changes files in a directory: several servers, or one that has it for itself.
//!
//! One of several holds `.sealback/directory.lock`, shared, from its first change on, and each file's lock
//! while it changes that. One that has the directory for itself holds the directory's lock alone, and needs
//! no locks of files: what has the same file id, and so the same journal, takes turns here. A journal is
//! made when the first block is written over, which most files never see.
//!
//! **Invariants:**
//! 1. Nobody has a directory for himself while another may change something in it.
//! 2. Of one journal there is one [`Kin`], and its [`Turn`] is with one at a time.

use std::{
    collections::HashMap,
    fs::{File, TryLockError},
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak},
};

use super::{lazy::LazyFile, lock};
use crate::{TargetError, TargetErrorKind, held_size::HeldSize, sync::Arc as Shared};

/// How a server has its directory.
#[derive(Debug)]
pub(super) enum Tenancy {
    /// With others. The lock is held once it has changed something.
    Together(OnceLock<File>),
    Alone(Alone),
}

impl Tenancy {
    /// Takes a directory, whose lock is at `path`, for itself.
    pub(super) fn alone(path: &Path) -> Result<Tenancy, TargetError> {
        let directory = open(path)?;
        if !lock::try_lock(&directory).map_err(|error| lock::untaken(path, error))? {
            return Err(refused("others change files in the directory"));
        }
        Ok(Tenancy::Alone(Alone { _directory: directory, known: Mutex::default() }))
    }

    /// Something is about to be changed: from here on nobody else gets the directory for himself.
    pub(super) fn enter(
        &self,
        path: impl FnOnce() -> Result<PathBuf, TargetError>,
    ) -> Result<(), TargetError> {
        let Tenancy::Together(held) = self else { return Ok(()) };
        if held.get().is_some() {
            return Ok(());
        }
        let path = path()?;
        let directory = open(&path)?;
        match directory.try_lock_shared() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(refused("another has the directory for itself, as a mount has"));
            }
            Err(TryLockError::Error(error)) => return Err(lock::untaken(&path, error)),
        }
        // Two that come at once hold it both.
        drop(held.set(directory));
        Ok(())
    }
}

/// A directory that nobody else changes anything in.
#[derive(Debug)]
pub(super) struct Alone {
    _directory: File,
    known: Mutex<Known>,
}

/// The kin of all files that are open, and perhaps of as many that were.
#[derive(Debug, Default)]
struct Known {
    by_stem: HashMap<String, Weak<Kin>>,
    /// When there are so many it is looked which are still open.
    many: usize,
}

impl Alone {
    /// What all files share that have one journal, which is at a path.
    pub(super) fn kin(&self, stem: &str, journal: impl FnOnce() -> PathBuf) -> Arc<Kin> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let Known { by_stem, many } = &mut *known;
        if let Some(kin) = by_stem.get(stem).and_then(Weak::upgrade) {
            return kin;
        }
        if by_stem.len() >= *many {
            by_stem.retain(|_, kin| kin.strong_count() > 0);
            *many = 2 * by_stem.len() + FEW;
        }
        let kin = Arc::new(Kin::new(journal()));
        by_stem.insert(stem.to_owned(), Arc::downgrade(&kin));
        kin
    }
}

/// What the files of one journal share.
#[derive(Debug)]
pub(super) struct Kin {
    /// Not there while one of them has its turn.
    journal: Mutex<Option<LazyFile>>,
    given_back: Condvar,
    pub(super) size: Shared<HeldSize>,
}

impl Kin {
    fn new(journal: PathBuf) -> Kin {
        let journal = Mutex::new(Some(LazyFile::new(journal)));
        Kin { journal, given_back: Condvar::new(), size: Shared::default() }
    }

    fn journal(&self) -> MutexGuard<'_, Option<LazyFile>> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a turn to change one of the files. Blocks.
    pub(super) fn turn(self: &Arc<Kin>) -> Turn {
        let mut journal = self.journal();
        loop {
            if let Some(journal) = journal.take() {
                return Turn { kin: self.clone(), journal: Some(journal) };
            }
            journal = self.given_back.wait(journal).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Nobody else changes any of the files.
#[derive(Debug)]
pub(super) struct Turn {
    kin: Arc<Kin>,
    journal: Option<LazyFile>,
}

impl Turn {
    /// The journal.
    pub(super) fn journal(&mut self) -> &mut LazyFile {
        self.journal.as_mut().expect("it goes back with the turn")
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *self.kin.journal() = self.journal.take();
        self.kin.given_back.notify_one();
    }
}

/// So many that were open cost nothing worth looking for.
const FEW: usize = 64;

fn open(path: &Path) -> Result<File, TargetError> {
    lock::make_there(path).map_err(|error| lock::untaken(path, error))
}

fn refused(why: &str) -> TargetError {
    TargetError::new(TargetErrorKind::NotPermitted, why)
}

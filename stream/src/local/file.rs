//! One open file of a local server: published, or a draft.

use std::{
    fs::{self, File, OpenOptions},
    io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Waker,
};

use sealback_crypto::HEADER_BYTES;

use super::{
    disk,
    headed::{Headed, Unwritten},
    lock::{self, Lock},
    root::Root,
    run::run_id,
    size::Size,
};
use crate::{
    Name, Prepared, SizeLock, SizeLockAttempt, TargetError, TargetErrorKind,
    flat::{Flat, Place, overwrite},
    journal::{self, Files, Journal, Owner},
};

/// An open file. A draft that is dropped unpublished is gone.
#[derive(Debug)]
pub(super) struct LocalFile {
    root: Arc<Root>,
    file: Arc<File>,
    /// Why it takes no writes, if it was opened for reading only.
    refusal: Option<TargetErrorKind>,
    lock: Lock,
    size: Size,
    journal: Journal,
    /// Whether it must have a name: one that a client has found by itself need not.
    is_named: bool,
    identity: u128,
    /// What its files in `.sealback/` are called.
    stem: String,
    /// As long as it is only here.
    header: Mutex<Unwritten>,
    naming: Mutex<Naming>,
}

/// How far a file has come to its name.
#[derive(Debug)]
enum Naming {
    /// Not yet published. Boxed: most files are no drafts.
    Draft(Box<Draft>),
    /// Its name leads to it, and a power cut may undo that.
    NotDurable,
    Named,
}

/// Where a draft is, and what it is to become.
#[derive(Debug)]
pub(super) struct Draft {
    /// None as long as it has no name at all: then it goes with its last descriptor.
    pub(super) path: Option<PathBuf>,
    pub(super) name: Name,
}

impl LocalFile {
    /// A file that others may have open.
    pub(super) fn published(
        root: Arc<Root>,
        file: Arc<File>,
        refusal: Option<TargetErrorKind>,
        stem: String,
    ) -> LocalFile {
        let lock = Lock::shared(root.kin(&stem));
        LocalFile::new(root, file, refusal, lock, stem, None)
    }

    /// The same, where a client sees to its names.
    pub(super) fn adopted(
        root: Arc<Root>,
        file: Arc<File>,
        refusal: Option<TargetErrorKind>,
        stem: String,
    ) -> LocalFile {
        let mut file = LocalFile::published(root, file, refusal, stem);
        file.is_named = false;
        file
    }

    /// A draft; if it has a name, `file` holds it.
    pub(super) fn draft(root: Arc<Root>, file: Arc<File>, stem: String, draft: Draft) -> LocalFile {
        LocalFile::new(root, file, None, Lock::private(), stem, Some(draft))
    }

    fn new(
        root: Arc<Root>,
        file: Arc<File>,
        refusal: Option<TargetErrorKind>,
        lock: Lock,
        stem: String,
        draft: Option<Draft>,
    ) -> LocalFile {
        let journal = Journal::new(root.options.durability);
        let identity = disk::identity(&file);
        let size = root.kin(&stem).map_or_else(Size::default, |kin| Size::of(kin.size.clone()));
        LocalFile {
            root,
            file,
            refusal,
            lock,
            size,
            journal,
            is_named: true,
            identity,
            stem,
            header: Mutex::default(),
            naming: Mutex::new(draft.map_or(Naming::Named, |draft| Naming::Draft(Box::new(draft)))),
        }
    }

    /// Where its journal is, which is its lock's file, too.
    fn journal_path(&self) -> PathBuf {
        self.root.beside(&self.stem, JOURNAL)
    }

    fn owner(&self) -> Owner<'_> {
        Owner { stem: &self.stem, inode: disk::inode_of(self.identity), run: run_id() }
    }

    /// Runs something on the file and its journal, which is locked.
    fn with_journal<R>(
        &self,
        log: &mut dyn Flat,
        run: impl FnOnce(&Journal, &mut Files<'_>) -> R,
    ) -> R {
        let (owner, around) = (self.owner(), &*self.root);
        run(&self.journal, &mut Files { owner, data: &mut &*self.file, log, around })
    }

    /// Begins it with its whole header. One that is gone with its last descriptor anyway, and is not to
    /// survive more than that, has it written when it gets its name, as it is then.
    pub(super) fn begin(&self, header: &[u8; HEADER_BYTES]) -> Result<(), TargetError> {
        let is_unnamed = matches!(&*self.naming(), Naming::Draft(draft) if draft.path.is_none());
        if is_unnamed && !self.root.options.survives_power_cut() {
            *self.header() = Some(Box::new(*header));
            return Ok(());
        }
        self.exclusively(|flat| overwrite(flat, 0, header))?
            .map_err(|error| TargetError::from_io("writing the header", error))
    }

    fn header(&self) -> MutexGuard<'_, Unwritten> {
        self.header.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn naming(&self) -> MutexGuard<'_, Naming> {
        self.naming.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nobody else knows it.
    fn is_draft(&self) -> bool {
        matches!(*self.naming(), Naming::Draft(_))
    }

    /// Whether a crash left something half done, or somebody is doing it now.
    fn is_behind(&self) -> io::Result<bool> {
        if let Some(kin) = self.root.kin(&self.stem) {
            // Nobody else is doing anything, and what a crash has left was carried out when it was found.
            return Ok(!kin.turn().journal().is_known());
        }
        match lock::open_there(&self.journal_path(), OpenOptions::new().read(true)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            log => journal::is_behind(&&log?, &self.owner()),
        }
    }

    /// Empties the journal, if nobody is using it.
    fn close_journal(&self) -> io::Result<()> {
        if self.journal.was_used()
            && let Some(mut held) = self.lock.try_hold()?
            && let Some(mut log) = held.log()
        {
            self.with_journal(log.flat(), |journal, files| journal.close(files))?;
        }
        Ok(())
    }

    /// Whether the file has a name: what is acknowledged of one that has none, nobody would find.
    fn check_is_there(&self) -> Result<(), TargetError> {
        let looking =
            |error| TargetError::from_io("looking whether the file is still there", error);
        if !self.is_named || !lock::is_unlinked(&self.file).map_err(looking)? {
            return Ok(());
        }
        let context = "the file was replaced or removed since it was opened";
        Err(TargetError::new(TargetErrorKind::NotFound, context))
    }

    /// Puts a draft in its place by `place`, which is given where it is and where it is to go, and waits
    /// until its name is as durable as is asked for. Called again, it does what failed.
    pub(super) fn place(
        &self,
        place: impl FnOnce(&mut Draft) -> Result<(), TargetError>,
    ) -> Result<(), TargetError> {
        let mut naming = self.naming();
        if let Naming::Draft(draft) = &mut *naming {
            self.lock.share_by(self.root.kin(&self.stem), || {
                let written =
                    Headed { file: &self.file, header: &mut self.header() }.write_header();
                written.map_err(|error| TargetError::from_io("writing the header", error))?;
                self.make_durable()?;
                place(draft)
            })?;
            if draft.path.is_some() {
                // Held no longer: it is no draft. Closing the file would free it, too.
                drop(self.file.unlock());
            }
            *naming = Naming::NotDurable;
        }
        if matches!(*naming, Naming::NotDurable) {
            self.root.sync_names()?;
            *naming = Naming::Named;
        }
        Ok(())
    }
}

impl Place for LocalFile {
    fn identity(&self) -> u128 {
        self.identity
    }

    fn grant(&self, _block: u64, _waker: &Waker) -> Prepared {
        self.root.options.grant()
    }

    fn exclusively<R>(&self, step: impl FnOnce(&mut dyn Flat) -> R) -> Result<R, TargetError> {
        if let Some(kind) = self.refusal {
            return Err(TargetError::new(kind, "the file could be opened for reading only"));
        }
        // Before, so that no lock is made for a file that is gone or in the place of a directory that is, and
        // under the lock.
        let path = || {
            self.check_is_there()?;
            self.root.check_there()?;
            Ok(self.journal_path())
        };
        self.root.enter()?;
        let mut held = self.lock.hold(path)?;
        let Some(mut log) = held.log() else {
            let result = step(&mut Headed { file: &self.file, header: &mut self.header() });
            self.journal.written_beside();
            return Ok(result);
        };
        self.check_is_there()?;
        self.with_journal(log.flat(), |journal, files| journal.run(files, step)).map_err(|error| {
            TargetError::from_io("carrying out what a crash left half done", error)
        })
    }

    fn look<R>(&self, step: impl FnOnce(&dyn Flat) -> R) -> R {
        let mut header = self.header();
        if header.is_some() {
            return step(&Headed { file: &self.file, header: &mut header });
        }
        drop(header);
        step(&&*self.file)
    }

    fn settle(&self) -> Result<(), TargetError> {
        // One who may not write reads what is there; so does one whose journal cannot be read, and one who
        // meets somebody else's write under way.
        if self.refusal.is_some() || !self.is_behind().unwrap_or(false) {
            return Ok(());
        }
        match self.exclusively(|_| ()) {
            Err(error) => match error.kind() {
                TargetErrorKind::NotFound | TargetErrorKind::NotPermitted => Ok(()),
                _ => Err(error),
            },
            settled => settled,
        }
    }

    fn make_durable(&self) -> Result<(), TargetError> {
        let sync = || self.root.options.sync(&self.file);
        self.journal.barrier(sync)
    }

    fn put_in_place(&self) -> Result<(), TargetError> {
        self.place(|Draft { path, name }| {
            self.root.check_there()?;
            let there = self.root.file(name);
            let unpublished = |error| TargetError::from_io(format!("publishing '{name}'"), error);
            let path = match path {
                Some(path) => path,
                None if disk::link_new(&self.file, &there).map_err(unpublished)? => return Ok(()),
                // Only a name can be put in the place of another.
                None => {
                    let named = self.root.name_draft(&self.stem, &self.file);
                    path.insert(named.map_err(unpublished)?)
                }
            };
            // Nobody is in the middle of a write to the file that is replaced: he would hear that
            // it went well.
            let _held = self.root.lock_of(&there)?;
            fs::rename(path, there).map_err(unpublished)
        })
    }

    fn hold_size(&self) -> Result<Option<SizeLock>, TargetError> {
        self.size.hold(&self.file, self.is_draft() || self.root.is_alone()).map(Some)
    }

    fn try_hold_size(&self) -> Result<SizeLockAttempt, TargetError> {
        self.size.try_hold(&self.file, self.is_draft() || self.root.is_alone())
    }
}

impl Drop for LocalFile {
    fn drop(&mut self) {
        if let Naming::Draft(draft) = self.naming.get_mut().unwrap_or_else(PoisonError::into_inner)
            && let Some(path) = &draft.path
        {
            // What cannot be removed now is removed when the server is next opened.
            drop(fs::remove_file(path));
        }
        // A journal that is not emptied takes room, and is told from one that is behind.
        drop(self.close_journal());
        if !self.is_named {
            self.root.remove_beside(&self.stem, &self.file);
        }
    }
}

pub(super) const JOURNAL: &str = "journal";

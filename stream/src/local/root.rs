//! The directory of a local server, and what lies in `.sealback/` beside the sealed files.
//!
//! ```text
//!  DIR/NAME                         a sealed file; held while its size changes
//!  DIR/.sealback/<file id>.journal  held while the file changes; what is written over blocks, first
//!  DIR/.sealback/<file id>.draft    not yet published, and has a name; held by whoever writes it
//!  DIR/.sealback/journal.reserve    room for a journal when the disk is full
//!  DIR/.sealback/directory.lock     held by whoever changes anything
//!  DIR/.sealback/identity           by which the directory is known again, if that was asked for
//! ```

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{DirEntryExt, MetadataExt},
    path::{Path, PathBuf},
    process,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::SystemTime,
};

use rustix::fs::{FallocateFlags, fallocate};
use sealback_crypto::FileId;

use super::{
    Durability, LocalOptions, disk,
    file::JOURNAL,
    lock,
    run::run_id,
    tenancy::{Kin, Tenancy, Turn},
};
use crate::{
    Name, TargetError, TargetErrorKind,
    flat::{Flat, overwrite},
    journal::{self, Owner, Surroundings},
};

/// A directory that sealed files are kept in.
#[derive(Debug)]
pub(super) struct Root {
    dir: PathBuf,
    pub(super) options: LocalOptions,
    tenancy: Tenancy,
    /// Device and inode of the directory when it was opened.
    place: (u64, u64),
    /// There is room for a journal, as far as this process knows.
    has_reserve: AtomicBool,
    /// A file that was made without a name can be given one, once that is known.
    names_unnamed: OnceLock<bool>,
    #[cfg(test)]
    fails_to_sync_names: AtomicBool,
}

impl Root {
    /// Opens a directory, which must be there.
    pub(super) fn open(dir: &Path, options: LocalOptions) -> Result<Root, TargetError> {
        let unopened = |error| TargetError::from_io(format!("opening {}", dir.display()), error);
        let canonical = dir.canonicalize().map_err(unopened)?;
        let there = canonical.metadata().map_err(unopened)?;
        if !there.is_dir() {
            let context = format!("{} is not a directory", dir.display());
            return Err(TargetError::new(TargetErrorKind::Unsupported, context));
        }
        let (has_reserve, names_unnamed) = (AtomicBool::new(false), OnceLock::new());
        Ok(Root {
            dir: canonical,
            options,
            tenancy: Tenancy::Together(OnceLock::new()),
            place: (there.dev(), there.ino()),
            has_reserve,
            names_unnamed,
            #[cfg(test)]
            fails_to_sync_names: AtomicBool::new(false),
        })
    }

    /// The same, for nobody else.
    pub(super) fn open_alone(dir: &Path, options: LocalOptions) -> Result<Root, TargetError> {
        let mut root = Root::open(dir, options)?;
        root.tenancy = Tenancy::alone(&root.directory_lock())?;
        Ok(root)
    }

    fn directory_lock(&self) -> PathBuf {
        self.dir.join(BESIDE).join("directory.lock")
    }

    /// Something is about to be changed.
    pub(super) fn enter(&self) -> Result<(), TargetError> {
        self.tenancy.enter(|| self.check_there().map(|()| self.directory_lock()))
    }

    pub(super) fn is_alone(&self) -> bool {
        matches!(self.tenancy, Tenancy::Alone(_))
    }

    /// What a file shares with those of its journal, where nobody else can change them.
    pub(super) fn kin(&self, stem: &str) -> Option<Arc<Kin>> {
        match &self.tenancy {
            Tenancy::Together(_) => None,
            Tenancy::Alone(alone) => Some(alone.kin(stem, || self.beside(stem, JOURNAL))),
        }
    }

    /// The directory, as an absolute path.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where a sealed file is.
    pub(super) fn file(&self, name: &Name) -> PathBuf {
        self.dir.join(name.as_str())
    }

    /// Where something beside the sealed files is.
    pub(super) fn beside(&self, stem: &str, suffix: &str) -> PathBuf {
        self.dir.join(BESIDE).join(format!("{stem}.{suffix}"))
    }

    /// Waits until names that were made, changed or removed are durable, where that is asked for.
    pub(super) fn sync_names(&self) -> Result<(), TargetError> {
        if !self.options.survives_power_cut() {
            return Ok(());
        }
        #[cfg(test)]
        if self.fails_to_sync_names.swap(false, Ordering::Relaxed) {
            let context = "making the directory durable";
            return Err(TargetError::from_io(context, io::Error::from_raw_os_error(5)));
        }
        File::open(&self.dir)
            .and_then(|dir| dir.sync_all())
            .map_err(|error| TargetError::from_io("making the directory durable", error))
    }

    /// Fails, as a server that does not answer, if the directory has gone: it may be on a disk that is not
    /// mounted. What is then there in its place, such as the directory that the disk was mounted over, is none.
    pub(super) fn check_there(&self) -> Result<(), TargetError> {
        let is_there = match self.dir.metadata() {
            // Mounted once more, it may be elsewhere.
            Ok(there) => (there.dev(), there.ino()) == self.place || self.dir.join(BESIDE).is_dir(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => {
                return Err(TargetError::from_io("looking for the server's directory", error));
            }
        };
        if is_there { Ok(()) } else { Err(self.away("has gone")) }
    }

    /// What an error means: that there is no such file, or that there is no server.
    pub(super) fn judge(&self, error: TargetError) -> TargetError {
        match error.kind() {
            TargetErrorKind::NotFound => self.check_there().err().unwrap_or(error),
            _ => error,
        }
    }

    fn away(&self, what: &str) -> TargetError {
        let context = format!("the server's directory {} {what}", self.dir.display());
        TargetError::new(TargetErrorKind::TimedOut, context)
    }

    /// As [`Server::identify`](crate::Server::identify). Where nothing may be written, nobody can tell.
    pub(super) fn identify(&self, known: Option<u128>) -> Result<Option<u128>, TargetError> {
        self.check_there()?;
        let path = self.dir.join(BESIDE).join("identity");
        let unread = |error| TargetError::from_io("looking which server it is", error);
        let identity = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            said => said.map_err(unread)?.try_into().ok().map(u128::from_le_bytes),
        };
        match (known, identity) {
            (None, None) => match make_identity(&path) {
                Err(error) => match error.kind() {
                    TargetErrorKind::NotPermitted | TargetErrorKind::ReadOnly => Ok(None),
                    _ => Err(error),
                },
                made => made.map(Some),
            },
            (Some(known), Some(identity)) if known != identity => Err(self.away("is another one")),
            (Some(_), None) => Err(self.away("is another one")),
            (_, Some(identity)) => Ok(Some(identity)),
        }
    }

    fn reserve(&self) -> PathBuf {
        self.dir.join(BESIDE).join("journal.reserve")
    }

    /// Makes the file of a draft: without a name, if it can be given one later.
    pub(super) fn begin_draft(&self, stem: &str) -> io::Result<(Option<PathBuf>, File)> {
        if self.names_unnamed(stem)?
            && let Some(file) = self.begin_unnamed()?
        {
            return Ok((None, file));
        }
        let (path, file) = self.begin_named(stem)?;
        Ok((Some(path), file))
    }

    /// Makes the file of a draft, and holds it.
    pub(super) fn begin_named(&self, stem: &str) -> io::Result<(PathBuf, File)> {
        self.make_ready()?;
        let path = self.beside(stem, DRAFT);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true);
        // Goes round only when someone opened the server in the moment before the file was
        // held, and takes it for abandoned: then it is gone once he lets go of it.
        lock::make_dir(&self.dir.join(BESIDE))?;
        loop {
            let file = place_draft(&path, || options.open(&path))?;
            lock::lock(&file)?;
            if !lock::is_unlinked(&file)? {
                return Ok((path, file));
            }
        }
    }

    /// Gives a draft's file, which has none, the name of one, and holds it.
    pub(super) fn name_draft(&self, stem: &str, file: &File) -> io::Result<PathBuf> {
        // Before it can be found, and taken for abandoned.
        lock::lock(file)?;
        match self.link_draft(stem, file)? {
            (path, true) => Ok(path),
            (_, false) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Links a file that has no name where a draft of that stem would be; whether that can be done here.
    fn link_draft(&self, stem: &str, file: &File) -> io::Result<(PathBuf, bool)> {
        let path = self.beside(stem, DRAFT);
        lock::make_dir(&self.dir.join(BESIDE))?;
        let linked = place_draft(&path, || disk::link(file, &path))?;
        Ok((path, linked))
    }

    /// Whether a file that was made without a name can be given one: tried once.
    fn names_unnamed(&self, stem: &str) -> io::Result<bool> {
        if let Some(known) = self.names_unnamed.get() {
            return Ok(*known);
        }
        let names = match self.begin_unnamed()? {
            Some(file) => {
                let (path, linked) = self.link_draft(stem, &file)?;
                // One that cannot be removed is removed when the server is next opened.
                drop(fs::remove_file(path));
                linked
            }
            None => false,
        };
        Ok(*self.names_unnamed.get_or_init(|| names))
    }

    /// Makes a file without a name; `None` where there are none.
    pub(super) fn begin_unnamed(&self) -> io::Result<Option<File>> {
        self.make_ready()?;
        disk::unnamed(&self.dir)
    }

    /// Fails the next time that names are to be made durable.
    #[cfg(test)]
    pub(super) fn fail_to_sync_names(&self) {
        self.fails_to_sync_names.store(true, Ordering::Relaxed);
    }

    /// As if a file that was made without a name could not be given one.
    #[cfg(test)]
    pub(super) fn have_drafts_named(&self) {
        self.names_unnamed.set(false).expect("nobody has tried yet");
    }

    /// Has room for a journal kept, before there is a file that may need it.
    fn make_ready(&self) -> io::Result<()> {
        if self.options.durability == Durability::None || self.has_reserve.load(Ordering::Relaxed) {
            return Ok(());
        }
        lock::make_dir(&self.dir.join(BESIDE))?;
        self.renew_reserve();
        Ok(())
    }

    /// Takes the lock under which the sealed file at a path changes; `None` if there is none.
    pub(super) fn lock_of(&self, path: &Path) -> Result<Option<LockOf>, TargetError> {
        let Ok(file) = File::open(path) else { return Ok(None) };
        let Ok(stem) = stem(&file) else { return Ok(None) };
        if let Some(kin) = self.kin(&stem) {
            return Ok(Some(LockOf::Turn(kin.turn())));
        }
        lock::take(&self.beside(&stem, JOURNAL)).map(|(file, _)| Some(LockOf::File(file)))
    }

    /// Removes what was kept beside a file, unless it has another name, or a copy of it needs that.
    pub(super) fn remove_beside(&self, stem: &str, file: &File) {
        if !lock::is_unlinked(file).unwrap_or(false) {
            return;
        }
        let inode = disk::inode_of(disk::identity(file));
        let owner = Owner { stem, inode, run: run_id() };
        let is_needed = |log: &dyn Flat| journal::speaks_of_another(log, &owner).unwrap_or(true);
        match self.kin(stem) {
            // What cannot be removed stays; it costs an inode, nothing else.
            Some(kin) => drop(kin.turn().journal().remove(is_needed)),
            None => lock::remove(&self.beside(stem, JOURNAL), |log| is_needed(&log)),
        }
    }

    /// Removes the drafts that nobody writes any more. Those that cannot be removed stay.
    pub(super) fn sweep(&self) {
        let Ok(entries) = fs::read_dir(self.dir.join(BESIDE)) else { return };
        for path in entries.flatten().map(|entry| entry.path()) {
            if path.extension().is_some_and(|extension| extension == DRAFT) {
                drop(remove_abandoned(&path));
            }
        }
    }
}

/// The lock of a file that is not open here. Free when dropped.
pub(super) enum LockOf {
    File(#[expect(dead_code, reason = "it is held as long as it is open")] File),
    Turn(#[expect(dead_code, reason = "it is held as long as it is there")] Turn),
}

impl Surroundings for Root {
    fn find(&self, owner: &Owner<'_>, inode: u64) -> Option<File> {
        let mut dirs = vec![self.dir.clone()];
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
                if entry.ino() == inode {
                    let mut options = OpenOptions::new();
                    let file = lock::open_there(&entry.path(), options.read(true).write(true));
                    // In a tree that was copied, numbers are those of other files.
                    return file.ok().filter(|file| stem(file).is_ok_and(|of| of == owner.stem));
                }
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    dirs.push(entry.path());
                }
            }
        }
        None
    }

    fn sync_everything(&self) -> io::Result<()> {
        Ok(rustix::fs::syncfs(File::open(&self.dir)?)?)
    }

    fn sync_journal_name(&self) -> io::Result<()> {
        File::open(self.dir.join(BESIDE))?.sync_all()?;
        File::open(&self.dir)?.sync_all()
    }

    fn free_reserve(&self) -> bool {
        self.has_reserve.store(false, Ordering::Relaxed);
        fs::remove_file(self.reserve()).is_ok()
    }

    fn renew_reserve(&self) {
        let path = self.reserve();
        let kept = match OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(file) => fallocate(&file, FallocateFlags::empty(), 0, RESERVE_BYTES).is_ok(),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.has_reserve.store(true, Ordering::Relaxed);
                return;
            }
            Err(_) => return,
        };
        self.has_reserve.store(kept, Ordering::Relaxed);
        if !kept {
            // Room that is not there is not kept.
            drop(fs::remove_file(path));
        }
    }
}

/// Puts something where a draft is to be, by `place`, which finds none in its way that nobody holds.
fn place_draft<T>(path: &Path, place: impl Fn() -> io::Result<T>) -> io::Result<T> {
    match place() {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            remove_abandoned(path)?;
            place()
        }
        placed => placed,
    }
}

/// Removes a draft if nobody holds it.
fn remove_abandoned(path: &Path) -> io::Result<()> {
    let file = match OpenOptions::new().read(true).write(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened?,
    };
    // A draft that was published meanwhile is no longer what the path leads to.
    if lock::try_lock(&file)? && leads_to(path, &file)? {
        fs::remove_file(path)?;
    }
    Ok(())
}

/// Whether the path is a name of this very file.
fn leads_to(path: &Path, file: &File) -> io::Result<bool> {
    let there = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        there => there?,
    };
    let here = file.metadata()?;
    Ok((there.dev(), there.ino()) == (here.dev(), here.ino()))
}

/// Makes an identity, unless somebody else is faster.
fn make_identity(path: &Path) -> Result<u128, TargetError> {
    let (file, bytes) = lock::take(path)?;
    let mut said = [0; 16];
    let unmade = |error| TargetError::from_io("making the server known again", error);
    if bytes == said.len() as u64 {
        Flat::read_at(&&file, 0, &mut said).map_err(unmade)?;
        return Ok(u128::from_le_bytes(said));
    }
    // Nobody is to guess it, and nobody gains by that: no two are to be the same.
    let unlike = format!("{:?} {} {:?}", run_id(), process::id(), SystemTime::now());
    said.copy_from_slice(&blake3::hash(unlike.as_bytes()).as_bytes()[..16]);
    overwrite(&mut &file, 0, &said).and_then(|()| file.sync_all()).map_err(unmade)?;
    Ok(u128::from_le_bytes(said))
}

/// Enough for a block of 64 KiB, or many small ones: what cutting and punching seal anew.
const RESERVE_BYTES: u64 = 128 << 10;
const BESIDE: &str = ".sealback";
const DRAFT: &str = "draft";

/// What a file's locks are called: its file id, or, where it is too short to have one, where the
/// system keeps it.
pub(super) fn stem(file: &File) -> io::Result<String> {
    let mut header = [0; 48];
    let flat = &file;
    if flat.read_at(0, &mut header)? < header.len() {
        let there = file.metadata()?;
        return Ok(format!("{:x}-{:x}", there.dev(), there.ino()));
    }
    Ok(stem_of(&header))
}

/// The file id in a header, whose first 48 bytes must be there, as hex digits.
pub(super) fn stem_of(header: &[u8]) -> String {
    let mut id = [0; 32];
    id.copy_from_slice(&header[16..48]);
    FileId::from_bytes(id).to_string()
}

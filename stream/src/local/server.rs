//! A directory as a server.

use std::{
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use sealback_crypto::{FileId, HEADER_BYTES};

use super::{
    LocalOptions, disk,
    file::{Draft, LocalFile},
    root::{Root, stem, stem_of},
};
use crate::{
    Name, Server, Target, TargetError, TargetErrorKind,
    flat::{Place, overwrite},
};

/// Sealed files in a directory: the file of a name is `DIR/NAME`, byte for byte.
///
/// What changes a file holds a lock of the system (`flock`), so several processes may use one
/// directory, unless one has it [for itself](LocalServer::open_alone). Locks and journals are kept in `DIR/.sealback/`, which is made when first needed; drafts, too,
/// where the file system has no files without a name, and for the moment in which one replaces a file.
/// A name that is a symbolic link is followed when it is opened; publishing a draft replaces the
/// link itself. A file that may only be read is opened for reading, and writing to it fails.
///
/// A directory that has gone while it is open, such as one on a disk that is not mounted any more, is a server
/// that does not answer ([`TargetErrorKind::TimedOut`]): what is there in its place is not taken for it.
///
/// Blocks are overwritten in place, after they were written to a journal beside the file: whatever
/// [`Durability`](crate::Durability) asks to survive leaves each block as it was or as it was to be.
/// With [`Durability::None`](crate::Durability::None) there is no journal, and a crash may tear the
/// blocks that are being written. The journal is emptied when the file is closed. What a crash left in
/// it is carried out by whoever opens the file next, or changes it; a file that may only be read
/// is read as it is.
#[derive(Clone, Debug)]
pub struct LocalServer(Arc<Root>);

impl LocalServer {
    /// Opens a directory, and removes the drafts in it that nobody writes any more.
    ///
    /// # Errors
    /// [`TargetErrorKind::NotFound`] if it is not there, [`TargetErrorKind::Unsupported`] if it is
    /// no directory, and others.
    pub fn open(root: impl AsRef<Path>, options: LocalOptions) -> Result<LocalServer, TargetError> {
        let root = Root::open(root.as_ref(), options)?;
        root.sweep();
        Ok(LocalServer(Arc::new(root)))
    }

    /// Opens a directory for this server alone, until it is dropped with all its files: no other changes
    /// anything in it meanwhile, in whatever process, and reading is all that is left to them. So no file has to be
    /// locked, and a file has a journal only once something of it is written over: what makes many small
    /// files is faster by a few system calls for each.
    ///
    /// # Errors
    /// As for [`open`](LocalServer::open); [`TargetErrorKind::NotPermitted`] if others have changed something in the
    /// directory, and are still there. Their changes, once the directory is taken, end with that kind.
    pub fn open_alone(
        root: impl AsRef<Path>,
        options: LocalOptions,
    ) -> Result<LocalServer, TargetError> {
        let root = Root::open_alone(root.as_ref(), options)?;
        root.sweep();
        Ok(LocalServer(Arc::new(root)))
    }

    /// The directory, as an absolute path.
    pub fn dir(&self) -> &Path {
        self.0.dir()
    }

    pub(super) fn root(&self) -> &Arc<Root> {
        &self.0
    }

    /// Begins a draft with its whole header, in a file that was made for it.
    fn begin(
        &self,
        name: &Name,
        header: &[u8; HEADER_BYTES],
        stem: String,
        (path, file): (Option<PathBuf>, File),
    ) -> Result<LocalFile, TargetError> {
        let draft = Draft { path, name: name.clone() };
        let draft = LocalFile::draft(self.0.clone(), file.into(), stem, draft);
        draft.begin(header)?;
        Ok(draft)
    }

    /// Creates a file that has no name before it has its whole header; `None` where the system has no
    /// such files.
    fn create_unnamed(
        &self,
        name: &Name,
        header: &[u8; HEADER_BYTES],
    ) -> Result<Option<Arc<dyn Target>>, TargetError> {
        let uncreated = |error| TargetError::from_io(format!("creating '{name}'"), error);
        let Some(file) = self.0.begin_unnamed().map_err(uncreated)? else { return Ok(None) };
        overwrite(&mut &file, 0, header).map_err(uncreated)?;
        self.0.options.sync(&file)?;
        if !disk::link(&file, &self.0.file(name)).map_err(uncreated)? {
            return Ok(None);
        }
        self.0.sync_names()?;
        let file = LocalFile::published(self.0.clone(), file.into(), None, stem_of(header));
        Ok(Some(Arc::new(file)))
    }

    /// Creates a file where the file system has no hard links: a crash may leave it without its
    /// whole header, which is then named when it is opened.
    fn create_unlinked(
        &self,
        name: &Name,
        header: &[u8; HEADER_BYTES],
    ) -> Result<Arc<dyn Target>, TargetError> {
        let path = self.0.file(name);
        let uncreated = |error| TargetError::from_io(format!("creating '{name}'"), error);
        let mut options = OpenOptions::new();
        let file =
            options.read(true).write(true).create_new(true).open(&path).map_err(uncreated)?;
        if let Err(error) = overwrite(&mut &file, 0, header) {
            drop(fs::remove_file(&path));
            return Err(uncreated(error));
        }
        let file = LocalFile::published(self.0.clone(), file.into(), None, stem_of(header));
        file.make_durable()?;
        self.0.sync_names()?;
        Ok(Arc::new(file))
    }
}

impl Server for LocalServer {
    fn create(
        &self,
        name: &Name,
        _file_id: FileId,
        header: &[u8; HEADER_BYTES],
    ) -> Result<Arc<dyn Target>, TargetError> {
        self.0.enter()?;
        // Nothing is made in the place of a directory that has gone.
        self.0.check_there()?;
        if let Some(file) = self.create_unnamed(name, header)? {
            return Ok(file);
        }
        let stem = stem_of(header);
        let (path, file) = self.0.begin_named(&stem).map_err(unbegun(name))?;
        let draft = self.begin(name, header, stem, (Some(path.clone()), file))?;
        // A link, unlike a rename, does not replace what is there.
        let linked = draft.place(|Draft { name, .. }| {
            fs::hard_link(&path, self.0.file(name))
                .map_err(|error| TargetError::from_io(format!("creating '{name}'"), error))?;
            // If this fails, the next sweep removes the second name.
            drop(fs::remove_file(&path));
            Ok(())
        });
        match linked {
            Ok(()) => Ok(Arc::new(draft)),
            Err(error) => match error.kind() {
                TargetErrorKind::NotPermitted | TargetErrorKind::Unsupported => {
                    self.create_unlinked(name, header)
                }
                _ => Err(error),
            },
        }
    }

    fn draft(
        &self,
        name: &Name,
        _file_id: FileId,
        header: &[u8; HEADER_BYTES],
    ) -> Result<Arc<dyn Target>, TargetError> {
        self.0.enter()?;
        self.0.check_there()?;
        let stem = stem_of(header);
        let made = self.0.begin_draft(&stem).map_err(unbegun(name))?;
        Ok(Arc::new(self.begin(name, header, stem, made)?))
    }

    fn open(&self, name: &Name) -> Result<Arc<dyn Target>, TargetError> {
        let unopened =
            |error| self.0.judge(TargetError::from_io(format!("opening '{name}'"), error));
        let path = self.0.file(name);
        let kind = fs::metadata(&path).map_err(unopened)?.file_type();
        if kind.is_dir() {
            return Err(unopened(io::ErrorKind::IsADirectory.into()));
        }
        // Opening a pipe would wait for its other end.
        if !kind.is_file() {
            return Err(unopened(io::ErrorKind::Unsupported.into()));
        }
        let (file, refusal) = open(&path).map_err(unopened)?;
        let stem = stem(&file).map_err(unopened)?;
        Ok(Arc::new(LocalFile::published(self.0.clone(), file.into(), refusal, stem)))
    }

    fn remove(&self, name: &Name) -> Result<(), TargetError> {
        let unremoved =
            |error| self.0.judge(TargetError::from_io(format!("removing '{name}'"), error));
        self.0.enter()?;
        let path = self.0.file(name);
        // One that cannot be read is removed all the same; what is beside it then stays.
        let file = File::open(&path).and_then(|file| Ok((stem(&file)?, file))).ok();
        fs::remove_file(&path).map_err(unremoved)?;
        if let Some((stem, file)) = &file {
            self.0.remove_beside(stem, file);
        }
        self.0.sync_names()
    }

    fn identify(&self, known: Option<u128>) -> Result<Option<u128>, TargetError> {
        self.0.identify(known)
    }
}

fn unbegun(name: &Name) -> impl Fn(io::Error) -> TargetError {
    move |error| TargetError::from_io(format!("beginning '{name}'"), error)
}

/// Opens a file for reading and writing, or else for reading, with the reason.
fn open(path: &Path) -> io::Result<(File, Option<TargetErrorKind>)> {
    let refusal = match OpenOptions::new().read(true).write(true).open(path) {
        Err(error) => match error.kind() {
            io::ErrorKind::PermissionDenied => TargetErrorKind::NotPermitted,
            io::ErrorKind::ReadOnlyFilesystem => TargetErrorKind::ReadOnly,
            _ => return Err(error),
        },
        Ok(file) => return Ok((file, None)),
    };
    Ok((File::open(path)?, Some(refusal)))
}

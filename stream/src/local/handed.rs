//! Files that a client has found and opened by itself, below the directory of a local server.

use std::{fs::File, sync::Arc};

use rustix::fs::{OFlags, fcntl_getfl};
use sealback_crypto::HEADER_BYTES;

use super::{
    file::LocalFile,
    root::{stem, stem_of},
    server::LocalServer,
};
use crate::{
    Target, TargetError, TargetErrorKind,
    flat::{Flat, overwrite},
};

impl LocalServer {
    /// A sealed file that the caller has open already, as a target: for clients that walk a tree of
    /// directories by themselves, through descriptors, and know no names that would stay. Locks and
    /// journals are where those of all files of this server are, by file id; so `file` must be a regular
    /// file on the file system of the directory, best somewhere below it, open for reading, and for
    /// writing if it is to be written to. The caller may keep the same descriptor, to look after what is no content:
    /// the file's mode, say.
    ///
    /// What becomes of its names is the caller's affair: the file may be renamed, and as long as it is open
    /// it can be written to without having any. Once it has none, what is kept beside it goes with
    /// the target, or by [`forget`](LocalServer::forget).
    ///
    /// ```
    /// use std::fs::OpenOptions;
    /// use sealback_stream::{LocalOptions, LocalServer};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// # let dir = dir.path();
    /// # std::fs::create_dir(dir.join("letters"))?;
    /// # std::fs::write(dir.join("letters/sealed"), [0; 8192])?;
    /// let server = LocalServer::open(dir, LocalOptions::default())?;
    /// let file = OpenOptions::new().read(true).write(true).open(dir.join("letters/sealed"))?;
    /// let target = server.adopt(file)?;
    /// assert_eq!(target.read_header()?.len(), 8192);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`TargetError`] if it cannot be asked what it is.
    pub fn adopt(&self, file: impl Into<Arc<File>>) -> Result<Arc<dyn Target>, TargetError> {
        let file = file.into();
        let unopened = |error| TargetError::from_io("adopting a file", error);
        let stem = stem(&file).map_err(unopened)?;
        let flags = fcntl_getfl(&*file).map_err(|error| unopened(error.into()))?;
        let refusal = match flags & OFlags::RWMODE {
            OFlags::RDONLY => Some(TargetErrorKind::NotPermitted),
            _ => None,
        };
        Ok(Arc::new(LocalFile::adopted(self.root().clone(), file, refusal, stem)))
    }

    /// As [`adopt`](LocalServer::adopt), for an empty file that becomes a sealed one by this header. Nobody
    /// else is to know it yet: a crash leaves it without its header, or with a part of it.
    ///
    /// # Errors
    /// [`TargetErrorKind::AlreadyExists`] if something is in it; others if it cannot be written to.
    pub fn adopt_new(
        &self,
        file: impl Into<Arc<File>>,
        header: &[u8; HEADER_BYTES],
    ) -> Result<Arc<dyn Target>, TargetError> {
        let file = file.into();
        let unwritten = |error| TargetError::from_io("writing the header of a new file", error);
        if Flat::len(&&*file).map_err(unwritten)? > 0 {
            let context = "the file that was to become a new one is not empty";
            return Err(TargetError::new(TargetErrorKind::AlreadyExists, context));
        }
        overwrite(&mut &*file, 0, header).map_err(unwritten)?;
        let adopted = LocalFile::adopted(self.root().clone(), file, None, stem_of(header));
        Ok(Arc::new(adopted))
    }

    /// Removes what was kept beside a file that the caller has removed, if it has no other name, no copy
    /// of it needs that, and nobody is changing it. Who has it open goes on as before. A file that cannot
    /// be read stays as it is.
    pub fn forget(&self, file: &File) {
        if let Ok(stem) = stem(file) {
            self.root().remove_beside(&stem, file);
        }
    }
}

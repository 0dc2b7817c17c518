//! Files by name: what creating, publishing, opening and removing are where names are kept in
//! memory.

use std::{collections::BTreeMap, fmt};

use sealback_crypto::{FileId, HEADER_BYTES};

use crate::{
    Name, Server, Target, TargetError, TargetErrorKind,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Whatever keeps its files on a shelf is a [`Server`].
pub(crate) trait Shelved: fmt::Debug + Send + Sync + 'static {
    /// What a name stands for.
    type File: Send + Sync + 'static;

    fn shelf(&self) -> &Arc<Shelf<Self::File>>;

    /// A file that has only a header.
    fn begin(&self, header: &[u8; HEADER_BYTES]) -> Result<Arc<Self::File>, TargetError>;

    /// An open file, or a draft.
    fn handle(
        &self,
        file: Arc<Self::File>,
        unpublished: Unpublished<Self::File>,
    ) -> Arc<dyn Target>;
}

impl<S: Shelved> Server for S {
    fn create(
        &self,
        name: &Name,
        _file_id: FileId,
        header: &[u8; HEADER_BYTES],
    ) -> Result<Arc<dyn Target>, TargetError> {
        let file = self.begin(header)?;
        self.shelf().create(name, file.clone())?;
        Ok(self.handle(file, Unpublished::none()))
    }

    fn draft(
        &self,
        name: &Name,
        _file_id: FileId,
        header: &[u8; HEADER_BYTES],
    ) -> Result<Arc<dyn Target>, TargetError> {
        let unpublished = Unpublished::draft(self.shelf().clone(), name.clone());
        Ok(self.handle(self.begin(header)?, unpublished))
    }

    fn open(&self, name: &Name) -> Result<Arc<dyn Target>, TargetError> {
        Ok(self.handle(self.shelf().open(name)?, Unpublished::none()))
    }

    fn remove(&self, name: &Name) -> Result<(), TargetError> {
        self.shelf().remove(name)
    }
}

/// Names and what they stand for.
#[derive(Debug)]
pub(crate) struct Shelf<T>(Mutex<BTreeMap<Name, Arc<T>>>);

impl<T> Shelf<T> {
    pub(crate) fn new() -> Arc<Shelf<T>> {
        Arc::new(Shelf(Mutex::default()))
    }

    /// Puts a file where nothing is.
    pub(crate) fn create(&self, name: &Name, file: Arc<T>) -> Result<(), TargetError> {
        let mut files = self.files();
        if files.contains_key(name) {
            let context = format!("there is a file '{name}' already");
            return Err(TargetError::new(TargetErrorKind::AlreadyExists, context));
        }
        files.insert(name.clone(), file);
        Ok(())
    }

    /// Puts a file in the place of whatever is there.
    pub(crate) fn replace(&self, name: Name, file: Arc<T>) {
        self.files().insert(name, file);
    }

    /// A shelf with other files under the same names.
    #[cfg(any(test, feature = "faulty"))]
    pub(crate) fn map<U>(&self, mut other: impl FnMut(&T) -> U) -> Arc<Shelf<U>> {
        let files = self.files();
        let mapped = files.iter().map(|(name, file)| (name.clone(), Arc::new(other(file))));
        Arc::new(Shelf(Mutex::new(mapped.collect())))
    }

    pub(crate) fn open(&self, name: &Name) -> Result<Arc<T>, TargetError> {
        self.files().get(name).cloned().ok_or_else(|| not_found(name))
    }

    pub(crate) fn remove(&self, name: &Name) -> Result<(), TargetError> {
        self.files().remove(name).map(drop).ok_or_else(|| not_found(name))
    }

    /// Nothing under the lock can panic half-way.
    fn files(&self) -> MutexGuard<'_, BTreeMap<Name, Arc<T>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn not_found(name: &Name) -> TargetError {
    TargetError::new(TargetErrorKind::NotFound, format!("there is no file '{name}'"))
}

/// A draft's way to its name, open until it is published.
#[derive(Debug)]
pub(crate) struct Unpublished<T>(Mutex<Option<(Arc<Shelf<T>>, Name)>>);

impl<T> Unpublished<T> {
    /// That of a draft.
    pub(crate) fn draft(shelf: Arc<Shelf<T>>, name: Name) -> Unpublished<T> {
        Unpublished(Mutex::new(Some((shelf, name))))
    }

    /// That of a file that is no draft.
    pub(crate) fn none() -> Unpublished<T> {
        Unpublished(Mutex::new(None))
    }

    /// Publishes the draft, if it is one that was not published before.
    pub(crate) fn publish(&self, file: &Arc<T>) {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((shelf, name)) = slot.take() {
            shelf.replace(name, file.clone());
        }
    }
}

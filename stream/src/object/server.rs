//! An object store as a server of sealed files.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::{ObjectStore, PutPayload, path::Path};
use sealback_crypto::{FileId, Geometry, HEADER_BYTES};
use tracing::warn;

use super::{
    alter::{First, Step},
    file::{OpenObject, Standing},
    header::{claims_of, either, header_of, object},
    keys::{Keys, decoded},
    options::{MAX_CHUNK_BYTES, ObjectOptions},
    runtime::Runtime,
    store::{Found, Store},
    target::ObjectFile,
};
use crate::{Name, Server, Target, TargetError, TargetErrorKind};

/// Requests at once that look at headers.
const HEADERS_AT_ONCE: usize = 16;

/// Sealed files as chunk objects in an object store. Clones are the same server.
///
/// Several clients, of several machines, may use one file. They exclude each other by conditional puts,
/// which the store must keep: it is [probed](ObjectServer::probe) before the first change of any file.
/// There is no lock of the size.
///
/// Of a chunk that is written in part all is held meanwhile; that is done for four chunks at once, at most.
///
/// A file that is removed, or replaced by [`Target::publish`], goes on to be readable for who has it open
/// through the same server, until the last handle is dropped; through another one it is not. A header
/// that was removed leaves an empty object behind, and so do chunks that a cut takes: no store deletes on
/// condition. Punching holes frees no room.
///
/// The server's threads end with the last of its handles. That, and the end of a draft that was not
/// published, waits for deletions under way, some seconds at most.
#[derive(Clone)]
pub struct ObjectServer(pub(super) Arc<Shared>);

/// What the handles of a server share.
pub(super) struct Shared {
    pub(super) store: Arc<Store>,
    pub(super) prefix: Path,
    pub(super) options: ObjectOptions,
    /// Files that are open, by the key of what their chunks' keys begin with.
    files: Mutex<HashMap<Path, Weak<OpenObject>>>,
    pub(super) runtime: Arc<Runtime>,
}

impl ObjectServer {
    /// Opens a store as a server, with its files below a prefix. Nothing is asked of the store: who only
    /// reads needs no right to write.
    ///
    /// # Errors
    /// [`TargetErrorKind::Io`] if the system gives it no threads.
    pub fn open(
        store: Arc<dyn ObjectStore>,
        prefix: Path,
        options: ObjectOptions,
    ) -> Result<ObjectServer, TargetError> {
        if options.single_writer {
            warn!(target: "sealback::objects", store = %store, "no conditions are put: nobody else may write");
        }
        let runtime = Runtime::start()
            .map_err(|error| TargetError::from_io("starting an object server's threads", error))?;
        let store = Arc::new(Store::new(store, prefix.clone(), options.single_writer));
        let (files, runtime) = (Mutex::default(), Arc::new(runtime));
        Ok(ObjectServer(Arc::new(Shared { store, prefix, options, files, runtime })))
    }

    /// Shows, by some objects below `.sealback`, that the store keeps the conditions that are put to it. It
    /// is asked once; a first change does so, too. Asks nothing if
    /// [`single_writer`](ObjectOptions::single_writer) is set.
    ///
    /// # Errors
    /// [`TargetErrorKind::Unsupported`] if it does not keep one, and which; others from the store.
    pub fn probe(&self) -> Result<(), TargetError> {
        let store = self.0.store.clone();
        self.0.runtime.run(async move { store.probe().await })
    }

    /// The names of all files, ascending.
    ///
    /// # Errors
    /// [`TargetError`] from the store.
    pub fn list(&self) -> Result<Vec<Name>, TargetError> {
        let shared = self.0.clone();
        self.0.runtime.run(async move { shared.list().await })
    }
}

impl Shared {
    fn files(&self) -> MutexGuard<'_, HashMap<Path, Weak<OpenObject>>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A handle to a file: all of one share what is known of it.
    fn handle(
        self: &Arc<Shared>,
        keys: Keys,
        (file_id, geometry): (FileId, Geometry),
        (standing, is_new): (Standing, bool),
    ) -> Arc<dyn Target> {
        let mut files = self.files();
        files.retain(|_, file| file.strong_count() > 0);
        let chunks = keys.chunks(file_id);
        let file = match files.get(&chunks).and_then(Weak::upgrade) {
            Some(file) if !is_new => file,
            _ => {
                let served = (self.store.clone(), self.runtime.clone());
                let of = (keys, file_id, geometry);
                let max_in_flight = self.options.max_in_flight;
                let file = OpenObject::new(served, of, (standing, is_new), max_in_flight);
                let file = Arc::new(file);
                files.insert(chunks, Arc::downgrade(&file));
                file
            }
        };
        Arc::new(ObjectFile { file, server: self.clone() })
    }

    fn open_now(&self, keys: &Keys, file_id: FileId) -> Option<Arc<OpenObject>> {
        self.files().get(&keys.chunks(file_id)).and_then(Weak::upgrade)
    }

    /// Makes a draft the file of its name.
    pub(super) async fn publish(&self, file: &OpenObject) -> Result<(), TargetError> {
        let _turn = file.header_turn.lock().await;
        let header = match &*file.standing() {
            Standing::Draft { header } => header.clone(),
            Standing::Gone { .. } | Standing::Stored { .. } => return Ok(()),
        };
        file.check_nothing_was_taken(self.options.orphan_age).await?;
        let (replaced, stored) = self.store.put_header(&file.keys, header, |_| Ok(())).await?;
        let last = match stored {
            Found::Content { bytes, version } => Some((bytes, version)),
            Found::Absent | Found::Length { .. } => None,
        };
        *file.standing() = Standing::Stored { last };
        if let Some(header) = header_of(&replaced) {
            let gone = self.lose(&file.keys, header);
            let store = self.store.clone();
            // What is left of it is nobody's business any more.
            if let Some(chunks) = gone {
                self.runtime.spawn(async move { store.clean_up(&chunks).await });
            }
        }
        Ok(())
    }

    /// A file has lost its name: who has it open here reads on. Else its chunks are to go, below the key
    /// that is returned.
    fn lose(&self, keys: &Keys, header: &Bytes) -> Option<Path> {
        let file_id = claims_of(header).file_id;
        let Some(open) = self.open_now(keys, file_id) else { return Some(keys.chunks(file_id)) };
        *open.standing() = Standing::Gone { header: header.clone() };
        None
    }

    async fn remove(&self, keys: &Keys) -> Result<(), TargetError> {
        let key = keys.header();
        let mut removed = None;
        let decide = |found: &Found| match header_of(found) {
            // An attempt went through that was answered otherwise.
            None if removed.is_some() => Step::Done,
            None => Step::Refuse(not_found(&key)),
            Some(header) => {
                removed = Some(header.clone());
                if self.store.single_writer() { Step::Done } else { Step::Put(PutPayload::new()) }
            }
        };
        self.store.alter(object(&key), First::Content, decide).await.map_err(either)?;
        if self.store.single_writer() {
            self.store.delete(vec![key]).await?;
        }
        if let Some(header) = removed
            && let Some(chunks) = self.lose(keys, &header)
        {
            self.store.clean_up(&chunks).await;
        }
        Ok(())
    }

    async fn list(&self) -> Result<Vec<Name>, TargetError> {
        let folders = self.store.list_folders(&self.prefix).await?;
        let names: Vec<Name> =
            folders.iter().filter_map(|folder| decoded(folder.filename()?)).collect();
        let is_file = |name: Name| async move {
            let header = self.store.head(&Keys::new(&self.prefix, &name).header()).await?;
            Ok((header.len() > 0).then_some(name))
        };
        let listed = stream::iter(names).map(is_file).buffered(HEADERS_AT_ONCE);
        let mut names: Vec<Name> =
            listed.try_filter_map(|name| async { Ok(name) }).try_collect().await?;
        names.sort_unstable();
        Ok(names)
    }
}

impl Server for ObjectServer {
    fn create(
        &self,
        name: &Name,
        file_id: FileId,
        header: &[u8; HEADER_BYTES],
    ) -> Result<Arc<dyn Target>, TargetError> {
        let keys = Keys::new(&self.0.prefix, name);
        let geometry = geometry_of(header)?;
        let (store, of, bytes) =
            (self.0.store.clone(), keys.clone(), Bytes::copy_from_slice(header));
        let taken = already_exists(name);
        let may_replace = move |there: Option<&Bytes>| match there {
            Some(_) => Err(taken.clone()),
            None => Ok(()),
        };
        let create = async move { store.put_header(&of, bytes, may_replace).await };
        self.0.runtime.run(create)?;
        let standing = Standing::Stored { last: None };
        Ok(self.0.handle(keys, (file_id, geometry), (standing, true)))
    }

    fn draft(
        &self,
        name: &Name,
        file_id: FileId,
        header: &[u8; HEADER_BYTES],
    ) -> Result<Arc<dyn Target>, TargetError> {
        let geometry = geometry_of(header)?;
        let standing = Standing::Draft { header: Bytes::copy_from_slice(header) };
        let keys = Keys::new(&self.0.prefix, name);
        Ok(self.0.handle(keys, (file_id, geometry), (standing, true)))
    }

    fn open(&self, name: &Name) -> Result<Arc<dyn Target>, TargetError> {
        let keys = Keys::new(&self.0.prefix, name);
        let (store, of) = (self.0.store.clone(), keys.clone());
        let header = self.0.runtime.run(async move {
            let found = store.header(&of).await?;
            header_of(&found).cloned().ok_or_else(|| not_found(&of.header()))
        })?;
        let (file_id, geometry) = (claims_of(&header).file_id, geometry_of(&header)?);
        let standing = Standing::Stored { last: None };
        Ok(self.0.handle(keys, (file_id, geometry), (standing, false)))
    }

    fn remove(&self, name: &Name) -> Result<(), TargetError> {
        let (shared, keys) = (self.0.clone(), Keys::new(&self.0.prefix, name));
        self.0.runtime.run(async move { shared.remove(&keys).await })
    }

    fn chunk_blocks(&self, block_bytes: u64) -> u32 {
        self.0.options.chunk_blocks(block_bytes)
    }
}

/// How the file of a header is cut up, if this is a server for it.
fn geometry_of(header: &[u8]) -> Result<Geometry, TargetError> {
    let unsupported = |context| TargetError::new(TargetErrorKind::Unsupported, context);
    // A header that says nothing of it is refused by who reads it.
    let Some(geometry) = claims_of(header).geometry else { return Ok(geometry_of_no_file()) };
    match u64::from(geometry.chunk_blocks()) * geometry.stride_bytes() {
        0 => Err(unsupported("the file is flat: an object server keeps files in chunks")),
        bytes if bytes > MAX_CHUNK_BYTES => {
            Err(unsupported("the file's chunks have over 1 GiB, too much for one put"))
        }
        _ => Ok(geometry),
    }
}

fn geometry_of_no_file() -> Geometry {
    Geometry::new(4096).expect("4 KiB is a block size").with_chunk_blocks(1)
}

fn already_exists(name: &Name) -> TargetError {
    let context = format!("there is a file '{name}' already");
    TargetError::new(TargetErrorKind::AlreadyExists, context)
}

fn not_found(header: &Path) -> TargetError {
    TargetError::new(
        TargetErrorKind::NotFound,
        format!("there is no file with a header '{header}'"),
    )
}

impl fmt::Debug for ObjectServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectServer")
            .field("store", &self.0.store)
            .field("prefix", &self.0.prefix.to_string())
            .field("options", &self.0.options)
            .finish_non_exhaustive()
    }
}

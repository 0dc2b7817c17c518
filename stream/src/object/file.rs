//! One file of an object server, as all handles to it share it.

use std::{
    collections::{BTreeSet, HashMap},
    fmt, mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::StreamExt;
use object_store::{UpdateVersion, path::Path};
use sealback_crypto::{FileId, Geometry};
use tracing::debug;

use super::{
    keys::{Key, Keys},
    runtime::Runtime,
    store::Store,
};
use crate::{TargetError, TargetErrorKind, credits::Credits};

/// A file that is open.
pub(super) struct OpenObject {
    pub(super) keys: Keys,
    pub(super) file_id: FileId,
    pub(super) geometry: Geometry,
    pub(super) store: Arc<Store>,
    pub(super) runtime: Arc<Runtime>,
    pub(super) credits: Arc<Credits>,
    /// Held by nobody who waits for the store.
    standing: Mutex<Standing>,
    /// Changes of the header follow one another: two would only defeat each other.
    pub(super) header_turn: tokio::sync::Mutex<()>,
    /// Writes to one chunk follow one another: two would only defeat each other.
    chunks: Mutex<Chunks>,
    opened: Instant,
    /// Whether it was made here, so that a chunk which was not written here is likely not there.
    pub(super) is_new: bool,
}

/// What a file is under its name.
#[derive(Debug)]
pub(super) enum Standing {
    /// It has no name yet: its header is only here.
    Draft { header: Bytes },
    /// It lost its name while it was open here: it can be read as long as it is, and its chunks go then.
    Gone { header: Bytes },
    /// Its header is in the store; it was this one last, if it was seen.
    Stored { last: Option<(Bytes, UpdateVersion)> },
}

type Chunks = HashMap<u64, Arc<tokio::sync::Mutex<Chunk>>>;

/// What is known of a chunk's object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Chunk {
    /// Somebody has written it.
    There,
    #[default]
    Unknown,
}

impl OpenObject {
    pub(super) fn new(
        (store, runtime): (Arc<Store>, Arc<Runtime>),
        (keys, file_id, geometry): (Keys, FileId, Geometry),
        (standing, is_new): (Standing, bool),
        max_in_flight: u32,
    ) -> OpenObject {
        OpenObject {
            keys,
            file_id,
            geometry,
            store,
            runtime,
            credits: Credits::new(max_in_flight),
            standing: Mutex::new(standing),
            header_turn: tokio::sync::Mutex::default(),
            chunks: Mutex::default(),
            opened: Instant::now(),
            is_new,
        }
    }

    pub(super) fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The key of a chunk.
    pub(super) fn chunk_key(&self, chunk: u64) -> Path {
        self.keys.chunk(self.file_id, chunk)
    }

    /// The most bytes that a chunk's object may have.
    pub(super) fn chunk_bytes(&self) -> u64 {
        u64::from(self.geometry.chunk_blocks()) * self.geometry.stride_bytes()
    }

    /// The queue of a chunk's writes.
    pub(super) fn queue(&self, chunk: u64) -> Arc<tokio::sync::Mutex<Chunk>> {
        self.chunks().entry(chunk).or_default().clone()
    }

    fn chunks(&self) -> MutexGuard<'_, Chunks> {
        self.chunks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sees to it that what was written of a draft is there, if that is so old that a scrub may have taken it for
    /// left behind. What was cut off is there, empty.
    ///
    /// # Errors
    /// [`TargetErrorKind::NotFound`] if it is not; others from the store.
    pub(super) async fn check_nothing_was_taken(
        &self,
        orphan_age: Duration,
    ) -> Result<(), TargetError> {
        if self.store.single_writer() || self.opened.elapsed() < orphan_age {
            return Ok(());
        }
        let mut written = BTreeSet::new();
        let queues: Vec<_> =
            self.chunks().iter().map(|(chunk, queue)| (*chunk, queue.clone())).collect();
        for (chunk, queue) in queues {
            if *queue.lock().await == Chunk::There {
                written.insert(chunk);
            }
        }
        let mut listed = self.store.list(&self.keys.chunks(self.file_id), None);
        while let Some(object) = listed.next().await {
            Key::chunk_of(&object?.location).map(|chunk| written.remove(&chunk));
        }
        let Some(chunk) = written.first() else { return Ok(()) };
        let key = self.chunk_key(*chunk);
        let context = format!("the object '{key}' was removed before the file had its name");
        Err(TargetError::new(TargetErrorKind::NotFound, context))
    }
}

impl Drop for OpenObject {
    /// Nobody can find the chunks of a file without a name: they go with the last who has it open.
    fn drop(&mut self) {
        let stored = Standing::Stored { last: None };
        if let Standing::Stored { .. } = mem::replace(&mut *self.standing(), stored) {
            return;
        }
        let (store, chunks) = (self.store.clone(), self.keys.chunks(self.file_id));
        self.runtime.run_a_while(async move { store.clean_up(&chunks).await });
    }
}

impl Store {
    /// Removes the chunks of a file that has no name. What stays is found by a scrub.
    pub(super) async fn clean_up(&self, chunks: &Path) {
        if let Err(error) = self.delete_all(chunks).await {
            debug!(target: "sealback::objects", %chunks, %error, "chunks were left behind");
        }
    }
}

impl fmt::Debug for OpenObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenObject")
            .field("header", &self.keys.header().to_string())
            .field("file_id", &self.file_id)
            .finish_non_exhaustive()
    }
}

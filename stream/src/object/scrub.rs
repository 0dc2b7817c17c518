//! What a crash has left behind: chunks that no header names.

use std::{collections::BTreeMap, time::SystemTime};

use futures_util::StreamExt;
use object_store::{ObjectMeta, path::Path};
use sealback_crypto::FileId;

use super::{
    header::{claims_of, header_of},
    keys::{Key, Keys},
    server::{ObjectServer, Shared},
};
use crate::{Name, TargetError};

/// An object that no file has.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Orphan {
    /// The name that it was to be a file of.
    pub name: Name,
    /// The file that it was a chunk of; `None` for what a removed file's header left behind.
    pub file_id: Option<FileId>,
    /// Its key, in the store.
    pub key: String,
    /// How long it is.
    pub bytes: u64,
}

/// What was found to be left behind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Orphans {
    /// What may be removed.
    pub objects: Vec<Orphan>,
    /// How many objects no header names that may be of a put which is under way, since one of the same
    /// file is younger than [`orphan_age`](crate::ObjectOptions::orphan_age).
    pub n_younger: u64,
}

/// Chunks of one file.
type Groups = BTreeMap<(Name, FileId), Vec<ObjectMeta>>;

impl ObjectServer {
    /// Looks for chunks of files that no header names: left by a put that ended between its chunks and its
    /// header, or by a removal that did not get to its end. With
    /// [`single_writer`](crate::ObjectOptions::single_writer), empty objects that cuts and removals have
    /// left are listed, too: who cannot know that nobody else writes must leave them.
    ///
    /// # Errors
    /// [`TargetError`] from the store.
    pub fn orphans(&self) -> Result<Orphans, TargetError> {
        let shared = self.0.clone();
        self.0.runtime.run(async move { shared.orphans().await })
    }

    /// Removes what [`orphans`](ObjectServer::orphans) has listed, but for what a header names by now.
    /// Returns how many objects were removed.
    ///
    /// # Errors
    /// [`TargetError`] from the store: some may be removed, and others not.
    pub fn remove_orphans(&self, orphans: &[Orphan]) -> Result<u64, TargetError> {
        let (shared, orphans) = (self.0.clone(), orphans.to_vec());
        self.0.runtime.run(async move { shared.remove_orphans(orphans).await })
    }
}

impl Shared {
    async fn orphans(&self) -> Result<Orphans, TargetError> {
        let mut groups = Groups::new();
        let mut orphans = Orphans::default();
        let mut listed = self.store.list(&self.prefix, None);
        while let Some(object) = listed.next().await {
            let object = object?;
            match Key::parse(&self.prefix, &object.location) {
                Key::Chunk { name, file_id, .. } => {
                    groups.entry((name, file_id)).or_default().push(object);
                }
                Key::Header { name } if object.size == 0 && self.options.single_writer => {
                    orphans.objects.push(orphan(&name, None, &object));
                }
                Key::Header { .. } | Key::Other => {}
            }
        }
        // The headers are read after the list: what was published meanwhile is named by them.
        for ((name, file_id), objects) in groups {
            match self.last_chunk(&name, file_id).await? {
                Some(last) => {
                    if self.options.single_writer {
                        let empty = objects.iter().filter(|object| {
                            let chunk = Key::chunk_of(&object.location);
                            object.size == 0 && chunk.is_some_and(|chunk| chunk > last)
                        });
                        orphans
                            .objects
                            .extend(empty.map(|object| orphan(&name, Some(file_id), object)));
                    }
                }
                None if objects.iter().any(|object| self.is_young(object)) => {
                    orphans.n_younger += objects.len() as u64;
                }
                None => {
                    let all = objects.iter().map(|object| orphan(&name, Some(file_id), object));
                    orphans.objects.extend(all);
                }
            }
        }
        Ok(orphans)
    }

    async fn remove_orphans(&self, orphans: Vec<Orphan>) -> Result<u64, TargetError> {
        let mut keys: Vec<Path> = Vec::new();
        let mut checked: Option<(Name, Option<FileId>, Option<u64>)> = None;
        for orphan in orphans {
            let Ok(key) = Path::parse(&orphan.key) else { continue };
            let (name, file_id) = (orphan.name, orphan.file_id);
            let known = checked.take().filter(|(of, id, _)| (of, id) == (&name, &file_id));
            let last = match (known, file_id) {
                (Some((_, _, last)), _) => last,
                (None, Some(file_id)) => self.last_chunk(&name, file_id).await?,
                (None, None) => None,
            };
            let is_named = match file_id {
                Some(_) => last.is_some_and(|last| Key::chunk_of(&key).is_none_or(|at| at <= last)),
                None => self.store.head(&key).await?.len() > 0,
            };
            if !is_named {
                keys.push(key);
            }
            checked = Some((name, file_id, last));
        }
        let n_removed = keys.len() as u64;
        self.store.delete(keys).await?;
        Ok(n_removed)
    }

    /// The last chunk of a file, by what its header claims; `None` if the name is not the file's.
    async fn last_chunk(&self, name: &Name, file_id: FileId) -> Result<Option<u64>, TargetError> {
        let found = self.store.header(&Keys::new(&self.prefix, name)).await?;
        let claims = header_of(&found).map(|header| claims_of(header));
        let last = claims.filter(|claims| claims.file_id == file_id).map(|claims| {
            let last = |geometry: sealback_crypto::Geometry| {
                let n_blocks = geometry.n_blocks(claims.size);
                geometry.chunk_of(n_blocks.saturating_sub(1)).map(|position| position.chunk)
            };
            // What cannot be said is not behind the end.
            claims.geometry.and_then(last).unwrap_or(u64::MAX)
        });
        Ok(last)
    }

    fn is_young(&self, object: &ObjectMeta) -> bool {
        let age = SystemTime::now().duration_since(object.last_modified.into());
        // A store whose clock is ahead makes objects seem younger.
        age.map_or(true, |age| age < self.options.orphan_age)
    }
}

fn orphan(name: &Name, file_id: Option<FileId>, object: &ObjectMeta) -> Orphan {
    let (name, key) = (name.clone(), object.location.to_string());
    Orphan { name, file_id, key, bytes: object.size }
}

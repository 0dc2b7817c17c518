//! The requests that are made of an object store, and what is found there.

use std::{fmt, ops::Range, sync::Arc};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream::BoxStream};
use object_store::{
    GetOptions, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload,
    UpdateVersion, path::Path,
};
use tokio::sync::{OnceCell, Semaphore};

use super::{
    failure::{is_place_missing, target_error},
    probe::probe,
};
use crate::{TargetError, TargetErrorKind};

/// An object that is said to end before a part of it, and not to, is asked for it so often.
const MAX_LOOKS: u32 = 4;
/// Whole chunks that are held at once to be spliced, at most.
const MAX_SPLICED: usize = 4;

/// An object store, and how it is dealt with.
pub(super) struct Store {
    objects: Arc<dyn ObjectStore>,
    /// What is here lies below that.
    prefix: Path,
    single_writer: bool,
    /// Set when the store has shown that it keeps conditions.
    probed: OnceCell<()>,
    /// Each chunk that is held whole has a permit.
    pub(super) spliced: Semaphore,
}

/// What an object is.
#[derive(Clone, Debug)]
pub(super) enum Found {
    Absent,
    Content { bytes: Bytes, version: UpdateVersion },
    Length { len: u64, version: UpdateVersion },
}

impl Found {
    pub(super) fn version(&self) -> Option<&UpdateVersion> {
        match self {
            Found::Absent => None,
            Found::Content { version, .. } | Found::Length { version, .. } => Some(version),
        }
    }

    /// How many bytes it has.
    pub(super) fn len(&self) -> u64 {
        match self {
            Found::Absent => 0,
            Found::Content { bytes, .. } => bytes.len() as u64,
            Found::Length { len, .. } => *len,
        }
    }
}

impl Store {
    pub(super) fn new(objects: Arc<dyn ObjectStore>, prefix: Path, single_writer: bool) -> Store {
        let (probed, spliced) = (OnceCell::new(), Semaphore::new(MAX_SPLICED));
        Store { objects, prefix, single_writer, probed, spliced }
    }

    /// Sees to it that the store has shown that it keeps conditions: where several may write, nothing is put
    /// before.
    pub(super) async fn probe(&self) -> Result<(), TargetError> {
        if !self.single_writer {
            self.probed.get_or_try_init(|| probe(self, &self.prefix)).await?;
        }
        Ok(())
    }

    /// Whether nobody else writes here.
    pub(super) fn single_writer(&self) -> bool {
        self.single_writer
    }

    /// Tells two stores of this process apart.
    pub(super) fn address(&self) -> usize {
        Arc::as_ptr(&self.objects).addr()
    }

    /// All of an object of at most so many bytes.
    pub(super) async fn get(&self, key: &Path, max_bytes: u64) -> Result<Found, TargetError> {
        let failed = |error| self.error(&format!("reading the object '{key}'"), &error);
        let got = match self.objects.get(key).await {
            Ok(got) => got,
            Err(error) if self.is_absent(&error) => return Ok(Found::Absent),
            Err(error) => return Err(failed(error)),
        };
        if got.meta.size > max_bytes {
            let context =
                format!("the object '{key}' has {} bytes, over {max_bytes}", got.meta.size);
            return Err(TargetError::new(TargetErrorKind::Unsupported, context));
        }
        let (version, size) = (version_of(&got.meta), got.meta.size);
        let bytes = got.bytes().await.map_err(failed)?;
        // What is put in its place would lack the rest.
        check_whole(key, &bytes, size)?;
        Ok(Found::Content { bytes, version })
    }

    /// A part of an object, as one version of it has it: fewer bytes where it ends; none if it does
    /// before, or is not there.
    pub(super) async fn get_part(
        &self,
        key: &Path,
        part: Range<u64>,
    ) -> Result<Bytes, TargetError> {
        for _attempt in 1..MAX_LOOKS {
            let error = match self.try_get_part(key, part.clone()).await? {
                Ok(bytes) => return Ok(bytes),
                Err(error) => error,
            };
            // Stores have different words for a part that begins behind the end.
            if self.head(key).await?.len() <= part.start {
                return Ok(Bytes::new());
            }
            if error.is_transient() {
                return Err(error);
            }
            // It may have become longer since.
        }
        self.try_get_part(key, part).await?
    }

    /// The same; or what the store said to it, which may be that the object ends before.
    async fn try_get_part(
        &self,
        key: &Path,
        part: Range<u64>,
    ) -> Result<Result<Bytes, TargetError>, TargetError> {
        let options = GetOptions { range: Some(part.clone().into()), ..GetOptions::default() };
        let got = async {
            let got = self.objects.get_opts(key, options).await?;
            let end = got.meta.size.min(part.end);
            Ok((got.bytes().await?, end))
        };
        match got.await {
            Ok((bytes, end)) => {
                // Who takes fewer for the object's end would read zeros behind it.
                check_whole(key, &bytes, end.saturating_sub(part.start))?;
                Ok(Ok(bytes))
            }
            Err(error) if self.is_absent(&error) => Ok(Ok(Bytes::new())),
            Err(error) => Ok(Err(self.error(&format!("reading the object '{key}'"), &error))),
        }
    }

    /// How long an object is.
    pub(super) async fn head(&self, key: &Path) -> Result<Found, TargetError> {
        match self.objects.head(key).await {
            Ok(meta) => Ok(Found::Length { len: meta.size, version: version_of(&meta) }),
            Err(error) if self.is_absent(&error) => Ok(Found::Absent),
            Err(error) => Err(self.error(&format!("asking for the object '{key}'"), &error)),
        }
    }

    /// Puts an object in the place of what was found there, if it is that still.
    ///
    /// # Errors
    /// [`TargetErrorKind::Conflict`] if it is not.
    pub(super) async fn replace(
        &self,
        key: &Path,
        payload: PutPayload,
        found: &Found,
    ) -> Result<UpdateVersion, TargetError> {
        self.probe().await?;
        let mode = match found.version() {
            _ if self.single_writer => PutMode::Overwrite,
            Some(version) => PutMode::Update(version.clone()),
            None => PutMode::Create,
        };
        self.put(key, payload, mode).await
    }

    /// Puts an object.
    ///
    /// # Errors
    /// [`TargetErrorKind::Conflict`] if the mode's condition does not hold.
    pub(super) async fn put(
        &self,
        key: &Path,
        payload: PutPayload,
        mode: PutMode,
    ) -> Result<UpdateVersion, TargetError> {
        let is_update = matches!(mode, PutMode::Update(_));
        match self.objects.put_opts(key, payload, PutOptions::from(mode)).await {
            Ok(put) => Ok(put.into()),
            // What is to be replaced is gone; whoever creates misses nothing but the bucket.
            Err(object_store::Error::NotFound { .. }) if is_update => Err(changed(key)),
            Err(
                object_store::Error::AlreadyExists { .. }
                | object_store::Error::NotModified { .. }
                | object_store::Error::Precondition { .. },
            ) => Err(changed(key)),
            Err(error) => Err(self.error(&format!("writing the object '{key}'"), &error)),
        }
    }

    /// Whether a request failed because there is no such object, where there may be some.
    fn is_absent(&self, error: &object_store::Error) -> bool {
        matches!(error, object_store::Error::NotFound { .. }) && !is_place_missing(error)
    }

    /// What a request ended with. One that found nothing names the store: it may not be there.
    fn error(&self, doing: &str, error: &object_store::Error) -> TargetError {
        match error {
            object_store::Error::NotFound { .. } => {
                target_error(&format!("{doing} in {}", self.objects), error)
            }
            _ => target_error(doing, error),
        }
    }

    /// Deletes objects; one that is not there is no error.
    pub(super) async fn delete(&self, keys: Vec<Path>) -> Result<(), TargetError> {
        let keys = futures_util::stream::iter(keys.into_iter().map(Ok)).boxed();
        let deleted = self.objects.delete_stream(keys).try_for_each(|_| async { Ok(()) }).await;
        match deleted {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.error("deleting objects", &error)),
        }
    }

    /// Deletes all objects below a prefix.
    pub(super) async fn delete_all(&self, prefix: &Path) -> Result<(), TargetError> {
        let mut listed = self.list(prefix, None).ready_chunks(DELETED_AT_ONCE);
        while let Some(some) = listed.next().await {
            let keys = some.into_iter().map(|object| object.map(|object| object.location));
            self.delete(keys.collect::<Result<_, _>>()?).await?;
        }
        Ok(())
    }

    /// The objects below a prefix, those behind a key only, ascending by key if the store lists them so.
    pub(super) fn list(
        &self,
        prefix: &Path,
        behind: Option<&Path>,
    ) -> BoxStream<'static, Result<ObjectMeta, TargetError>> {
        let listed = match behind {
            Some(behind) => self.objects.list_with_offset(Some(prefix), behind),
            None => self.objects.list(Some(prefix)),
        };
        let doing = format!("listing the objects of '{prefix}' in {}", self.objects);
        let mut listing = Listing::of(prefix.clone());
        let checked = move |listed| match listed {
            Ok(object) => listing.check(object),
            Err(error) => Err(target_error(&doing, &error)),
        };
        listed.map(checked).boxed()
    }

    /// The parts of keys that directly follow a prefix and have more behind them.
    pub(super) async fn list_folders(&self, prefix: &Path) -> Result<Vec<Path>, TargetError> {
        let listed = self.objects.list_with_delimiter(Some(prefix)).await;
        let failed = |error| self.error(&format!("listing the files of '{prefix}'"), &error);
        listed.map(|listed| listed.common_prefixes).map_err(failed)
    }
}

/// What a store has listed so far: the objects that it was asked for, and each of them once.
struct Listing {
    prefix: Path,
    n_listed: u64,
    /// One of those that were listed: the last whose number was a power of two. Whoever goes round in circles comes
    /// by it again.
    mark: Option<Path>,
}

impl Listing {
    fn of(prefix: Path) -> Listing {
        Listing { prefix, n_listed: 0, mark: None }
    }

    /// An object that is listed next.
    fn check(&mut self, object: ObjectMeta) -> Result<ObjectMeta, TargetError> {
        let key = &object.location;
        let refused = |what| {
            let context = format!("the store lists the object '{key}' {what}");
            Err(TargetError::new(TargetErrorKind::Unsupported, context))
        };
        if !key.prefix_matches(&self.prefix) {
            return refused("that it was not asked for");
        }
        if self.mark.as_ref() == Some(key) {
            return refused("again and again");
        }
        self.n_listed += 1;
        if self.n_listed.is_power_of_two() {
            self.mark = Some(key.clone());
        }
        Ok(object)
    }
}

/// Whether all of an object, or of a part of it, has come that was said to.
fn check_whole(key: &Path, bytes: &Bytes, said: u64) -> Result<(), TargetError> {
    if bytes.len() as u64 == said {
        return Ok(());
    }
    let context = format!("of the object '{key}' came {} bytes of {said}", bytes.len());
    Err(TargetError::new(TargetErrorKind::Io, context))
}

const DELETED_AT_ONCE: usize = 1000;

fn changed(key: &Path) -> TargetError {
    let context = format!("the object '{key}' is no longer what was read");
    TargetError::new(TargetErrorKind::Conflict, context)
}

fn version_of(meta: &ObjectMeta) -> UpdateVersion {
    UpdateVersion { e_tag: meta.e_tag.clone(), version: meta.version.clone() }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Its own words, which leave secrets out; its `Debug` does not promise that.
        f.debug_tuple("Store").field(&self.objects.to_string()).finish()
    }
}

//! An object store whose requests somebody sees, and has go wrong.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures_util::{StreamExt, future::BoxFuture, stream, stream::BoxStream};
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult,
    Result, UpdateVersion, path::Path,
};
use tokio::time;

/// A request to an object store.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum StoreRequest {
    /// An object is deleted.
    Delete {
        /// Which.
        key: Path,
    },
    /// An object, or a part of it, is read.
    Get {
        /// Which.
        key: Path,
    },
    /// It is asked what an object is.
    Head {
        /// Which.
        key: Path,
    },
    /// Objects are listed.
    List {
        /// Those below this; behind it, if there is none.
        prefix: Path,
    },
    /// An object is put.
    Put {
        /// Which.
        key: Path,
        /// On which condition.
        mode: PutMode,
        /// How long it is.
        bytes: usize,
    },
}

impl StoreRequest {
    /// What it is about.
    pub fn key(&self) -> &Path {
        match self {
            StoreRequest::Delete { key }
            | StoreRequest::Get { key }
            | StoreRequest::Head { key }
            | StoreRequest::List { prefix: key }
            | StoreRequest::Put { key, .. } => key,
        }
    }
}

/// What becomes of a request. Lists are only failed, or left as they are.
pub enum StoreFault {
    /// It goes to the store after so long.
    Delay(Duration),
    /// Nothing is done, and this is the answer.
    Fail(Error),
    /// It is done, and this is the answer.
    Lose(Error),
    /// It goes to the store as it is.
    Pass,
    /// A put's condition is compared, and the object written, in two steps: both may find what others
    /// then change.
    TwoSteps,
    /// A put goes to the store without its condition.
    Unconditional,
    /// It goes to the store when this has ended.
    Wait(BoxFuture<'static, ()>),
}

/// Who sees requests, and says what becomes of them.
pub trait StoreHook: fmt::Debug + Send + Sync + 'static {
    /// A request begins.
    fn begins(&self, request: &StoreRequest) -> StoreFault;

    /// It was answered, or given up.
    fn ended(&self, _request: &StoreRequest) {}
}

/// A store behind a hook. What an object server has no use for is not supported.
#[derive(Debug)]
pub struct HookedStore<H> {
    /// Sees each request.
    pub hook: Arc<H>,
    store: Arc<dyn ObjectStore>,
}

impl<H: StoreHook> HookedStore<H> {
    /// Puts `hook` before `store`.
    pub fn new(store: Arc<dyn ObjectStore>, hook: H) -> HookedStore<H> {
        HookedStore { hook: Arc::new(hook), store }
    }

    async fn meet<T>(
        &self,
        request: StoreRequest,
        carry_out: impl AsyncFnOnce(Option<TwoSteps>) -> Result<T>,
    ) -> Result<T> {
        let ended = Ended(self.hook.clone(), request);
        match self.hook.begins(&ended.1) {
            StoreFault::Pass => carry_out(None).await,
            StoreFault::Fail(error) => Err(error),
            StoreFault::Lose(error) => {
                carry_out(None).await?;
                Err(error)
            }
            StoreFault::Delay(delay) => {
                time::sleep(delay).await;
                carry_out(None).await
            }
            StoreFault::Wait(until) => {
                until.await;
                carry_out(None).await
            }
            StoreFault::TwoSteps => carry_out(Some(TwoSteps { compares: true })).await,
            StoreFault::Unconditional => carry_out(Some(TwoSteps { compares: false })).await,
        }
    }

    fn list_with<S>(
        &self,
        prefix: Option<&Path>,
        listed: S,
    ) -> BoxStream<'static, Result<ObjectMeta>>
    where
        S: FnOnce() -> BoxStream<'static, Result<ObjectMeta>>,
    {
        let request = StoreRequest::List { prefix: prefix.cloned().unwrap_or_default() };
        match self.hook.begins(&request) {
            StoreFault::Fail(error) | StoreFault::Lose(error) => {
                stream::once(async { Err(error) }).boxed()
            }
            _ => listed(),
        }
    }
}

impl<H> Clone for HookedStore<H> {
    fn clone(&self) -> HookedStore<H> {
        HookedStore { hook: self.hook.clone(), store: self.store.clone() }
    }
}

/// How a put is carried out that breaks the rules.
struct TwoSteps {
    compares: bool,
}

/// Tells of a request's end.
struct Ended<H: StoreHook>(Arc<H>, StoreRequest);

impl<H: StoreHook> Drop for Ended<H> {
    fn drop(&mut self) {
        self.0.ended(&self.1);
    }
}

#[async_trait]
impl<H: StoreHook> ObjectStore for HookedStore<H> {
    async fn put_opts(
        &self,
        key: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        let (mode, bytes) = (options.mode.clone(), payload.content_length());
        let request = StoreRequest::Put { key: key.clone(), mode, bytes };
        let put = async |two_steps: Option<TwoSteps>| {
            let Some(TwoSteps { compares }) = two_steps else {
                return self.store.put_opts(key, payload, options).await;
            };
            if compares {
                compare(&self.store, key, &options.mode).await?;
                time::sleep(Duration::from_millis(1)).await;
            }
            self.store.put_opts(key, payload, PutOptions::from(PutMode::Overwrite)).await
        };
        self.meet(request, put).await
    }

    async fn put_multipart_opts(
        &self,
        _key: &Path,
        _options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        Err(unsupported("put_multipart_opts"))
    }

    async fn get_opts(&self, key: &Path, options: GetOptions) -> Result<GetResult> {
        let key_of = key.clone();
        let request = match options.head {
            true => StoreRequest::Head { key: key_of },
            false => StoreRequest::Get { key: key_of },
        };
        self.meet(request, async |_| self.store.get_opts(key, options).await).await
    }

    fn delete_stream(
        &self,
        keys: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let this = self.clone();
        let delete = move |key: Result<Path>| {
            let this = this.clone();
            async move {
                let key = key?;
                let request = StoreRequest::Delete { key: key.clone() };
                this.meet(request, async |_| this.store.delete(&key).await).await.map(|()| key)
            }
        };
        keys.then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.list_with(prefix, || self.store.list(prefix))
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.list_with(prefix, || self.store.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let request = StoreRequest::List { prefix: prefix.cloned().unwrap_or_default() };
        self.meet(request, async |_| self.store.list_with_delimiter(prefix).await).await
    }

    async fn copy_opts(&self, _from: &Path, _to: &Path, _options: CopyOptions) -> Result<()> {
        Err(unsupported("copy_opts"))
    }
}

/// Whether an object is what a put's condition says, at this moment.
async fn compare(store: &Arc<dyn ObjectStore>, key: &Path, mode: &PutMode) -> Result<()> {
    let there = match store.head(key).await {
        Ok(meta) => Some(UpdateVersion { e_tag: meta.e_tag, version: meta.version }),
        Err(Error::NotFound { .. }) => None,
        Err(error) => return Err(error),
    };
    let holds = match mode {
        PutMode::Create => there.is_none(),
        PutMode::Overwrite => true,
        PutMode::Update(version) => there.as_ref() == Some(version),
    };
    match holds {
        true => Ok(()),
        false => Err(Error::Precondition { path: key.to_string(), source: "it differs".into() }),
    }
}

fn unsupported(operation: &str) -> Error {
    let implementer = "HookedStore".to_owned();
    Error::NotImplemented { operation: operation.to_owned(), implementer }
}

impl<H> fmt::Display for HookedStore<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HookedStore({})", self.store)
    }
}

impl fmt::Debug for StoreFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            StoreFault::Delay(_) => "Delay",
            StoreFault::Fail(_) => "Fail",
            StoreFault::Lose(_) => "Lose",
            StoreFault::Pass => "Pass",
            StoreFault::TwoSteps => "TwoSteps",
            StoreFault::Unconditional => "Unconditional",
            StoreFault::Wait(_) => "Wait",
        })
    }
}

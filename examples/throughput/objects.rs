//! An object store, wherever it is.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::{
    ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, aws::AmazonS3Builder,
    azure::MicrosoftAzureBuilder, gcp::GoogleCloudStorageBuilder, memory::InMemory, path::Path,
};
use sealback::{
    Place,
    crypto::{Geometry, HEADER_BYTES},
    stream::{Name, ObjectOptions, ObjectServer, Server},
};
use tokio::runtime::{Builder, Runtime};

use super::{
    Setup,
    local::{BLOCK_BYTES, World},
};
use crate::{
    Failure,
    measure::{Round, Side, Sides},
};

/// Puts a file, as `writeback put` does, with the memory that this has if nothing is said, against plain puts of as
/// many objects, as large, on the same condition, as many at once as the server may have. What a round has put goes before
/// the next.
pub(super) fn put(setup: &Setup) -> Result<Sides, Failure> {
    let url = setup.objects.as_deref().ok_or("it needs an object store: --objects URL")?;
    let prefix = format!("throughput-{:016x}", fastrand::u64(..));
    let options = ObjectOptions::default();
    let reference =
        Plain::new(open(&format!("{url}/{prefix}/plain"))?, options, setup.size)?.side();
    let server = ObjectServer::open_url(&format!("{url}/{prefix}"), options)?;
    let world = World::new(&setup.tmpfs)?;
    let (source, size, name) = (world.source(setup.size)?, setup.size, Name::new("file")?);
    let subject = move || {
        let place = Place { server: &server, cache: None, root: &world.root };
        let round = world.put_at(&place, &name, &source, size)?;
        server.remove(&name)?;
        Ok(round)
    };
    Ok(Sides { subject: Box::new(subject), reference })
}

/// An object store, and what is put there.
struct Plain {
    objects: Arc<dyn ObjectStore>,
    payloads: Vec<(Path, PutPayload)>,
    at_once: usize,
    bytes: u64,
    /// On one thread, as that of the server.
    runtime: Runtime,
}

impl Plain {
    fn new(
        (objects, prefix): (Arc<dyn ObjectStore>, Path),
        options: ObjectOptions,
        bytes: u64,
    ) -> Result<Plain, Failure> {
        let stride = Geometry::new(BLOCK_BYTES)?.stride_bytes();
        let stored = bytes.div_ceil(BLOCK_BYTES) * stride;
        let chunk = options.chunk_bytes / stride * stride;
        let content = Bytes::from(vec![7; usize::try_from(chunk.min(stored))?]);
        let mut payloads = vec![(prefix.clone().join("header"), content.slice(..HEADER_BYTES))];
        for start in (0..stored).step_by(usize::try_from(chunk)?) {
            let len = usize::try_from(chunk.min(stored - start))?;
            payloads.push((prefix.clone().join(format!("{start:016x}")), content.slice(..len)));
        }
        let payloads = payloads.into_iter().map(|(key, bytes)| (key, bytes.into())).collect();
        let runtime = Builder::new_current_thread().enable_all().build()?;
        Ok(Plain { objects, payloads, at_once: options.max_in_flight as usize, bytes, runtime })
    }

    fn side(self) -> Side {
        Box::new(move || {
            let round = Round::time(self.bytes, || {
                self.each(async |key, payload| {
                    let options = PutOptions::from(PutMode::Create);
                    self.objects.put_opts(key, payload.clone(), options).await.map(drop)
                })
            })?;
            self.each(async |key, _| self.objects.delete(key).await)?;
            Ok(round)
        })
    }

    /// Does something for each of the objects, several at once.
    fn each(
        &self,
        request: impl AsyncFn(&Path, &PutPayload) -> Result<(), object_store::Error>,
    ) -> Result<(), Failure> {
        let requests = stream::iter(&self.payloads).map(|(key, payload)| request(key, payload));
        Ok(self.runtime.block_on(requests.buffer_unordered(self.at_once).try_collect())?)
    }
}

/// The store of a URL, and where in it, as the environment says it is to be dealt with.
fn open(url: &str) -> Result<(Arc<dyn ObjectStore>, Path), Failure> {
    let (scheme, place) = url.split_once("://").ok_or("an object store has a URL")?;
    let path = place.split_once('/').map_or("", |(_, path)| path);
    let objects: Arc<dyn ObjectStore> = match scheme {
        "az" => Arc::new(MicrosoftAzureBuilder::from_env().with_url(url).build()?),
        "gs" => Arc::new(GoogleCloudStorageBuilder::from_env().with_url(url).build()?),
        "memory" => Arc::new(InMemory::new()),
        "s3" => Arc::new(AmazonS3Builder::from_env().with_url(url).build()?),
        _ => return Err("an object store is s3://, az://, gs:// or memory://".into()),
    };
    Ok((objects, Path::parse(path)?))
}

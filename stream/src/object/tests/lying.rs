//! A store that lies: what it says is not believed where that would cost data, or time without end.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, TryFutureExt, stream, stream::BoxStream};
use object_store::{
    CopyOptions, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use super::*;
use crate::{TargetErrorKind, conformance::sample::put};

/// What a store does that it should not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lie {
    /// All objects but the one that is listed last are of yesterday.
    Aged,
    /// It lists the same again and again.
    Endless,
    /// It has no versions to tell.
    NoTag,
    /// Every object has the same version, whatever is in it.
    SameTag,
    /// Of an object that is read a part is missing, and nothing is said of that.
    Short,
    /// What it gives back is what was there before.
    Stale,
    /// It lists objects of everybody.
    TooMuch,
}

#[derive(Debug)]
struct Liar {
    memory: Arc<InMemory>,
    lie: Lie,
    before: Mutex<Option<Bytes>>,
}

impl std::fmt::Display for Liar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Liar({:?})", self.lie)
    }
}

impl Liar {
    fn tag(&self, tag: Option<String>) -> Option<String> {
        match self.lie {
            Lie::NoTag => None,
            Lie::SameTag => Some("same".to_owned()),
            _ => tag,
        }
    }
}

#[async_trait]
impl ObjectStore for Liar {
    async fn put_opts(
        &self,
        key: &Path,
        payload: PutPayload,
        mut options: PutOptions,
    ) -> Result<PutResult> {
        if let (Lie::SameTag | Lie::NoTag, PutMode::Update(_)) = (self.lie, &options.mode) {
            options.mode = PutMode::Overwrite;
        }
        let there = match self.memory.get(key).await {
            Ok(there) => Some(there.bytes().await?),
            Err(_) => None,
        };
        let mut put = self.memory.put_opts(key, payload, options).await?;
        *self.before.lock().unwrap() = there;
        put.e_tag = self.tag(put.e_tag);
        Ok(put)
    }

    async fn put_multipart_opts(
        &self,
        key: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.memory.put_multipart_opts(key, options).await
    }

    async fn get_opts(&self, key: &Path, options: GetOptions) -> Result<GetResult> {
        let is_head = options.head;
        let mut got = self.memory.get_opts(key, options).await?;
        got.meta.e_tag = self.tag(got.meta.e_tag);
        if is_head {
            return Ok(got);
        }
        let before = self.before.lock().unwrap().clone();
        match (self.lie, before) {
            (Lie::Stale, Some(before)) => {
                (got.meta.size, got.range) = (before.len() as u64, 0..before.len() as u64);
                got.payload = of_bytes(before);
            }
            (Lie::Short, _) => {
                let (meta, range, attributes) =
                    (got.meta.clone(), got.range.clone(), got.attributes.clone());
                let bytes = got.bytes().await?;
                let payload = of_bytes(bytes.slice(..bytes.len() / 2));
                got =
                    GetResult { payload, meta, range, attributes, extensions: Default::default() };
            }
            _ => {}
        }
        Ok(got)
    }

    fn delete_stream(
        &self,
        keys: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.memory.delete_stream(keys)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.lie {
            Lie::Aged => {
                let age = |mut object: ObjectMeta| {
                    object.last_modified -= Duration::from_secs(24 * 3600);
                    Ok(object)
                };
                let listed = self.memory.list(prefix).try_collect::<Vec<_>>();
                let listed = listed.map_ok(move |mut listed| {
                    let last = listed.pop();
                    stream::iter(listed.into_iter().map(age).chain(last.map(Ok)))
                });
                listed.try_flatten_stream().boxed()
            }
            Lie::TooMuch => self.memory.list(None),
            Lie::Endless => {
                let (memory, prefix) = (self.memory.clone(), prefix.cloned());
                stream::repeat(()).flat_map(move |()| memory.list(prefix.as_ref())).boxed()
            }
            _ => self.memory.list(prefix),
        }
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        _offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.memory.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.memory.copy_opts(from, to, options).await
    }
}

fn of_bytes(bytes: Bytes) -> GetResultPayload {
    GetResultPayload::Stream(stream::once(async { Ok(bytes) }).boxed())
}

/// A server over what a world has, by a store that lies.
fn lying(world: &World, lie: Lie) -> ObjectServer {
    let liar = Liar { memory: world.memory.clone(), lie, before: Mutex::default() };
    ObjectServer::open(Arc::new(liar), Path::ROOT, world.options).unwrap()
}

#[test]
fn a_store_whose_versions_or_answers_say_nothing_of_what_is_there_is_refused() {
    for (lie, rule) in [
        (Lie::NoTag, "it gives its objects no version"),
        (Lie::SameTag, "it replaces an object that is no longer what was read"),
        (Lie::Stale, "what it gives back is not what was put"),
    ] {
        let world = World::of_chunks(4);
        let error = lying(&world, lie).probe().unwrap_err();
        assert_eq!(error.kind(), TargetErrorKind::Unsupported, "{lie:?}: {error}");
        assert!(error.to_string().contains(rule), "{lie:?}: {error}");
        assert_eq!(world.objects(), [], "{lie:?}");
    }
}

#[test]
fn what_comes_short_of_an_object_is_neither_read_nor_put_back() -> Verdict {
    let world = World::of_chunks(4);
    let (sample, target, _) = world.file()?;
    let sealed = sample.seal(0..4, 1)?;
    put(&*target, &sealed)?;
    let options = ObjectOptions { single_writer: true, ..world.options };
    let liar = Liar { memory: world.memory.clone(), lie: Lie::Short, before: Mutex::default() };
    let server = ObjectServer::open(Arc::new(liar), Path::ROOT, options)?;
    // The header comes short, too.
    let error = server.open(&name("a")?).map(drop).unwrap_err();
    assert!(error.is_transient(), "{error}");
    let keys = super::super::keys::Keys::new(&Path::ROOT, &name("a")?);
    let store = server.0.store.clone();
    let key = keys.chunk(sample.new.header.file_id(), 0);
    let (whole, part) = server.0.runtime.run(async move {
        Ok((store.get(&key, 1 << 20).await, store.get_part(&key, 0..2 * STRIDE).await))
    })?;
    for error in [whole.map(drop).unwrap_err(), part.map(drop).unwrap_err()] {
        assert!(error.is_transient(), "{error}");
        assert!(error.to_string().contains("bytes of"), "{error}");
    }
    sample.ensure_stored(&*target, &sealed)
}

#[test]
fn a_listing_that_comes_back_to_where_it_was_ends() -> Verdict {
    let world = World::of_chunks(4);
    let (sample, target, _) = world.file()?;
    let sealed = sample.seal(0..12, 1)?;
    (0..3).try_for_each(|chunk| put(&*target, &sealed.slice(4 * chunk..4 * chunk + 4)))?;
    let server = lying(&world, Lie::Endless);
    let commit = Sample::commit(&sample.new.header, 4096)?;
    target.write_slot(&commit.write)?;
    let there = server.open(&name("a")?)?;
    let expectation = commit.header.expectation();
    let outcomes = [
        server.orphans().map(drop).unwrap_err(),
        there.cut(sample.geometry(), 1, &expectation).unwrap_err(),
    ];
    for error in outcomes {
        assert!(error.to_string().contains("again"), "{error}");
    }
    Ok(())
}

#[test]
fn old_chunks_of_a_put_that_has_a_young_one_are_no_orphans() -> Verdict {
    let world = World::of_chunks(4);
    let sample = Sample::new(&world.server)?;
    let draft = sample.draft(&world.server, &name("a")?)?;
    let sealed = sample.seal(0..12, 1)?;
    (0..3).try_for_each(|chunk| put(&*draft, &sealed.slice(4 * chunk..4 * chunk + 4)))?;
    let server = lying(&world, Lie::Aged);
    let found = server.orphans()?;
    assert_eq!((found.objects.len(), found.n_younger), (0, 3));
    // The others by themselves are old.
    let one_less = world.chunks().len() - 1;
    let options = world.options.with_orphan_age(Duration::ZERO);
    let orphans = world.other_with(options).orphans()?.objects;
    world.server.remove_orphans(&orphans[one_less..])?;
    let memory = world.memory.clone();
    let empty = Path::from("z");
    world.server.0.runtime.run(async move {
        memory.put(&empty, PutPayload::new()).await.unwrap();
        Ok(())
    })?;
    assert_eq!(server.orphans()?.objects.len(), one_less);
    Ok(())
}

#[test]
fn what_a_store_lists_of_others_is_not_touched() -> Verdict {
    let world = World::of_chunks(4);
    let (sample, target, _) = world.file()?;
    let sealed = sample.seal(0..8, 1)?;
    (0..2).try_for_each(|chunk| put(&*target, &sealed.slice(4 * chunk..4 * chunk + 4)))?;
    let n_before = world.objects().len();
    let server = lying(&world, Lie::TooMuch);
    let other = Sample::new(&server)?;
    let file = other.create(&server, &name("b")?)?;
    put(&*file, &other.seal(0..4, 1)?)?;
    let commit = Sample::commit(&other.new.header, 4096)?;
    file.write_slot(&commit.write)?;
    let error = file.cut(other.geometry(), 0, &commit.header.expectation()).unwrap_err();
    assert!(error.to_string().contains("was not asked"), "{error}");
    drop(file);
    // Its chunks stay, too, since nobody can say which they are.
    let _ = server.remove(&name("b")?);
    assert!(world.objects().len() >= n_before);
    sample.ensure_stored(&*target, &sealed)
}

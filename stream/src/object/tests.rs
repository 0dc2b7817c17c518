//! An object server over a store in memory, and over one that makes trouble.

use std::{
    env,
    sync::{Arc, Mutex},
};

use futures_util::TryStreamExt;
use object_store::{Error, ObjectMeta, ObjectStore, memory::InMemory, path::Path};
use sealback_crypto::PREFIX_BYTES;

use crate::{
    ObjectOptions, ObjectServer, Server, Target,
    conformance::{
        self, Broken,
        sample::{Sample, name},
    },
    faulty::{HookedStore, StoreFault, StoreHook, StoreRequest},
};

mod chunks;
mod cuts;
mod errors;
mod files;
mod lost;
mod lying;
mod probing;
mod scrubbing;

type Verdict = Result<(), Broken>;
/// A file's keys, and a handle of each of two clients.
type OpenTwice = (Sample, Arc<dyn Target>, Arc<dyn Target>);

/// A block of 4 KiB, as it is stored.
const STRIDE: u64 = 4096 + PREFIX_BYTES as u64;

/// Servers over one store in memory, behind a script.
struct World {
    memory: Arc<InMemory>,
    script: Arc<Script>,
    server: ObjectServer,
    options: ObjectOptions,
}

impl World {
    /// A world whose files have chunks of so many blocks of 4 KiB.
    fn of_chunks(n_blocks: u64) -> World {
        World::with(ObjectOptions::default().with_chunk_bytes(n_blocks * STRIDE))
    }

    fn with(options: ObjectOptions) -> World {
        let memory = Arc::new(InMemory::new());
        let store = HookedStore::new(memory.clone(), Script::default());
        let script = store.hook.clone();
        let server = ObjectServer::open(Arc::new(store), Path::ROOT, options).unwrap();
        World { memory, script, server, options }
    }

    /// Another client of the same store, whom nothing hinders.
    fn other(&self) -> ObjectServer {
        self.other_with(self.options)
    }

    fn other_with(&self, options: ObjectOptions) -> ObjectServer {
        ObjectServer::open(self.memory.clone(), Path::ROOT, options).unwrap()
    }

    /// A new file 'a' here, the same for another client, and its keys.
    fn file(&self) -> Result<OpenTwice, Broken> {
        let sample = Sample::new(&self.server)?;
        let here = sample.create(&self.server, &name("a")?)?;
        Ok((sample, here, self.other().open(&name("a")?)?))
    }

    /// What the store has, by key.
    fn objects(&self) -> Vec<ObjectMeta> {
        let (memory, runtime) = (self.memory.clone(), &self.server.0.runtime);
        let listed = runtime
            .run(async move { Ok(memory.list(None).try_collect::<Vec<_>>().await.unwrap()) });
        let mut objects = listed.unwrap();
        objects.sort_by(|one, other| one.location.cmp(&other.location));
        objects
    }

    /// How long each chunk of the store is, by its number.
    fn chunks(&self) -> Vec<(u64, u64)> {
        let chunks = self.objects().into_iter().filter(|object| is_chunk(&object.location));
        chunks
            .map(|object| (super::keys::Key::chunk_of(&object.location).unwrap(), object.size))
            .collect()
    }
}

/// What becomes of requests, as a test says, and what was asked since it did.
#[derive(Default)]
struct Script {
    decide: Mutex<Option<Decide>>,
    requests: Mutex<Vec<StoreRequest>>,
}

type Decide = Box<dyn FnMut(&StoreRequest) -> StoreFault + Send>;

impl Script {
    fn set(&self, decide: impl FnMut(&StoreRequest) -> StoreFault + Send + 'static) {
        *self.decide.lock().unwrap() = Some(Box::new(decide));
        self.requests.lock().unwrap().clear();
    }

    /// The first of those requests meets a fault.
    fn once(
        &self,
        of: impl Fn(&StoreRequest) -> bool + Send + 'static,
        fault: impl FnOnce() -> StoreFault + Send + 'static,
    ) {
        let mut fault = Some(fault);
        self.set(move |request| match fault.take_if(|_| of(request)) {
            Some(fault) => fault(),
            None => StoreFault::Pass,
        });
    }

    fn count(&self, of: impl Fn(&StoreRequest) -> bool) -> usize {
        self.requests.lock().unwrap().iter().filter(|request| of(request)).count()
    }
}

impl StoreHook for Script {
    fn begins(&self, request: &StoreRequest) -> StoreFault {
        self.requests.lock().unwrap().push(request.clone());
        self.decide.lock().unwrap().as_mut().map_or(StoreFault::Pass, |decide| decide(request))
    }
}

impl std::fmt::Debug for Script {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Script")
    }
}

fn is_chunk(key: &Path) -> bool {
    key.as_ref().contains("/blocks/")
}

fn is_put(request: &StoreRequest) -> bool {
    matches!(request, StoreRequest::Put { .. })
}

fn puts_chunk(request: &StoreRequest) -> bool {
    is_put(request) && is_chunk(request.key())
}

fn puts_header(request: &StoreRequest) -> bool {
    is_put(request) && request.key().as_ref().ends_with("/header")
}

/// What a store has said that knows no better.
fn generic(words: &str) -> Error {
    Error::Generic { store: "fake", source: words.to_owned().into() }
}

fn lost() -> StoreFault {
    StoreFault::Lose(generic("the connection was reset"))
}

fn precondition() -> Error {
    Error::Precondition { path: "a".to_owned(), source: "it differs".into() }
}

fn busy() -> Error {
    generic("non-2xx status code: 503 Service Unavailable: <Code>SlowDown</Code>")
}

#[test]
fn an_object_server_keeps_the_contract() {
    for check in conformance::server_checks() {
        let server =
            ObjectServer::open(Arc::new(InMemory::new()), Path::ROOT, ObjectOptions::default())
                .unwrap();
        check.run(&server);
    }
}

#[test]
#[ignore = "needs a server: tests/objects/run starts some"]
fn an_object_server_over_the_store_that_the_environment_names_keeps_the_contract() {
    let url =
        env::var("SEALBACK_OBJECTS").expect("SEALBACK_OBJECTS is the URL of a place of its own");
    for (at, check) in conformance::server_checks().enumerate() {
        let url = format!("{url}/{at}");
        check.run(&ObjectServer::open_url(&url, ObjectOptions::default()).unwrap());
    }
}

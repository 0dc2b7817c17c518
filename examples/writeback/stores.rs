//! The server, the cache and the root key that a command names.

use std::{fs, path::Path};

use sealback::{
    Config, Engine, Error, Place,
    crypto::RootKey,
    stream::{Cache, LocalCache, LocalOptions, Name, TargetErrorKind},
};
use sealback_examples::key_file;

use crate::{
    args::{At, PutArgs, With},
    failure::Failure,
    server::{OpenServer, Wishes},
};

/// Where sealed files are, and what opens them.
pub(crate) struct Stores {
    pub(crate) server: OpenServer,
    pub(crate) cache: Option<LocalCache>,
    root: RootKey,
}

impl Stores {
    /// Opens what the command names. The cache's directory is made if it is missing.
    pub(crate) fn open(at: &At, cache: Option<&Path>) -> Result<Stores, Failure> {
        Stores::open_as(at, cache, Wishes::default())
    }

    fn open_as(at: &At, cache: Option<&Path>, wishes: Wishes) -> Result<Stores, Failure> {
        let root = read_key(&at.key)?;
        let server = OpenServer::open(&at.on, wishes)?;
        let options = LocalOptions::default().with_durability(wishes.durability);
        let open_cache = |dir: &Path| {
            fs::create_dir_all(dir)
                .map_err(|error| Failure::of(format_args!("the cache {}", dir.display()), error))?;
            if dir.canonicalize().is_ok_and(|dir| Some(&*dir) == server.directory()) {
                return Err(Failure::of("the cache", "it cannot be the server's directory"));
            }
            LocalCache::open(dir, options).map_err(|error| Failure::of("the cache", error))
        };
        let cache = cache.map(open_cache).transpose()?;
        Ok(Stores { server, cache, root })
    }

    /// Opens what the command names, with what it says of the cache and of durability.
    pub(crate) fn open_with(at: &At, with: &With) -> Result<Stores, Failure> {
        Stores::open_in_chunks(at, with, None)
    }

    /// The same for a file that is to be changed.
    pub(crate) fn open_to_change(at: &At, with: &With) -> Result<Stores, Failure> {
        let stores = Stores::open_with(at, with)?;
        stores.server.probe()?;
        Ok(stores)
    }

    /// The same for a file that is to be put.
    pub(crate) fn open_for_put(args: &PutArgs) -> Result<Stores, Failure> {
        let stores = Stores::open_in_chunks(&args.at, &args.with, args.chunk_size)?;
        stores.server.probe()?;
        Ok(stores)
    }

    fn open_in_chunks(at: &At, with: &With, chunk_bytes: Option<u64>) -> Result<Stores, Failure> {
        let wishes = Wishes { durability: with.durability, chunk_bytes, ..Wishes::default() };
        let mut stores = Stores::open_as(at, with.cache.as_deref(), wishes)?;
        if let Some(max_bytes) = with.cache_size {
            stores.cache = stores.cache.map(|cache| cache.with_limit(max_bytes));
        }
        Ok(stores)
    }

    pub(crate) fn place(&self) -> Place<'_> {
        let cache = self.cache.as_ref().map(|cache| cache as &dyn Cache);
        Place { server: self.server.as_server(), cache, root: &self.root }
    }

    /// Opens a file.
    pub(crate) fn open_file(
        &self,
        engine: &Engine,
        name: &Name,
    ) -> Result<sealback::File, Failure> {
        engine.open(&self.place(), name).map_err(|error| match error.target_kind() {
            Some(TargetErrorKind::NotFound) => {
                Failure::of(name, "there is no such file on the server")
            }
            Some(TargetErrorKind::IsADirectory) => Failure::of(name, "is a directory"),
            _ => Failure::of_file(name, &error),
        })
    }
}

/// An engine for a command's wishes.
pub(crate) fn engine(with: &With) -> Result<Engine, Failure> {
    let mut config = Config { cipher: with.engine, memory_bytes: with.memory, ..Config::default() };
    config.threads = with.threads.unwrap_or(config.threads);
    started(config)
}

/// An engine with everything left as it comes.
pub(crate) fn plain_engine() -> Result<Engine, Failure> {
    started(Config::default())
}

fn started(config: Config) -> Result<Engine, Failure> {
    Engine::new(config).map_err(|error: Error| Failure::new(error))
}

/// Reads a key file.
pub(crate) fn read_key(path: &Path) -> Result<RootKey, Failure> {
    key_file::read(path)
        .map_err(|error| Failure::of(format_args!("the key file {}", path.display()), error))
}

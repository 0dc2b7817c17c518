//! The server, the cache and the root key that a command names.

use std::{fs, path::Path};

use sealback::{
    Config, Engine, Error, File, Place,
    crypto::RootKey,
    stream::{Cache, LocalCache, LocalOptions, Name, Server, TargetErrorKind},
};
use sealback_examples::key_file;

use crate::{
    args::{At, PutArgs, With},
    behind::{self, Behind, Sent},
    failure::Failure,
    server::{Location, OpenServer, Wishes},
};

/// Where sealed files are, and what opens them.
pub(crate) struct Stores {
    pub(crate) location: Location,
    pub(crate) cache: Option<LocalCache>,
    server: Way,
    root: RootKey,
}

/// How the server is written to.
enum Way {
    Behind(Behind),
    Through(OpenServer),
}

impl Stores {
    /// Opens what the command names. The cache's directory is made if it is missing. Fails if something of
    /// the file waits there to be uploaded.
    pub(crate) fn open(at: &At, cache: Option<&Path>, name: &Name) -> Result<Stores, Failure> {
        Stores::open_through(at, cache, Wishes::default(), name)
    }

    /// Opens what the command names, with what it says of the cache and of durability.
    pub(crate) fn open_with(at: &At, with: &With, name: &Name) -> Result<Stores, Failure> {
        Stores::open_in_chunks(at, with, None, name)
    }

    /// The same for a file that is to be changed.
    pub(crate) fn open_to_change(at: &At, with: &With, name: &Name) -> Result<Stores, Failure> {
        let stores = Stores::open_with(at, with, name)?;
        stores.probe()?;
        Ok(stores)
    }

    /// The same for a file that is to be put.
    pub(crate) fn open_for_put(args: &PutArgs, name: &Name) -> Result<Stores, Failure> {
        let stores = Stores::open_in_chunks(&args.at, &args.with, args.chunk_size, name)?;
        stores.probe()?;
        Ok(stores)
    }

    /// Opens what waits in a cache's directory.
    pub(crate) fn open_behind(at: &At, cache: &Path) -> Result<(Stores, Behind), Failure> {
        let root = read_key(&at.key)?;
        let wishes = Wishes::default();
        let copies = open_cache(cache, &at.on.server, wishes)?;
        let behind = Behind::open(&at.on, cache, wishes)?;
        let (location, server) = (at.on.server.clone(), Way::Behind(behind.clone()));
        Ok((Stores { location, cache: Some(copies), server, root }, behind))
    }

    fn open_in_chunks(
        at: &At,
        with: &With,
        chunk_bytes: Option<u64>,
        name: &Name,
    ) -> Result<Stores, Failure> {
        let wishes = Wishes { durability: with.durability, chunk_bytes, ..Wishes::default() };
        let cache = with.cache.as_deref();
        let mut stores = match cache.filter(|_| with.write_behind) {
            Some(dir) => {
                let root = read_key(&at.key)?;
                let cache = Some(open_cache(dir, &at.on.server, wishes)?);
                let server = Way::Behind(Behind::open(&at.on, dir, wishes)?);
                Stores { location: at.on.server.clone(), cache, server, root }
            }
            None => Stores::open_through(at, cache, wishes, name)?,
        };
        if let Some(max_bytes) = with.cache_size {
            stores.cache = stores.cache.map(|cache| cache.with_limit(max_bytes));
        }
        Ok(stores)
    }

    fn open_through(
        at: &At,
        cache: Option<&Path>,
        wishes: Wishes,
        name: &Name,
    ) -> Result<Stores, Failure> {
        let root = read_key(&at.key)?;
        let location = at.on.server.clone();
        if let Some(dir) = cache {
            behind::check_nothing_waits(&at.on, dir, name)?;
        }
        let server = Way::Through(OpenServer::open(&at.on, wishes)?);
        let cache = cache.map(|dir| open_cache(dir, &location, wishes)).transpose()?;
        Ok(Stores { location, cache, server, root })
    }

    /// Sees to it, before anything is changed, that an object store keeps apart who writes at once. One that is
    /// written behind is asked when it is there.
    pub(crate) fn probe(&self) -> Result<(), Failure> {
        match &self.server {
            Way::Behind(_) => Ok(()),
            Way::Through(server) => server.probe(),
        }
    }

    /// What the server is written behind, if it is.
    fn behind(&self) -> Option<&Behind> {
        match &self.server {
            Way::Behind(behind) => Some(behind),
            Way::Through(_) => None,
        }
    }

    /// Takes to the server what was written behind and synced of a file, if anything is.
    pub(crate) fn upload(&self, file: &File) -> Option<Sent> {
        self.behind().map(|behind| behind.upload(file, file.size()))
    }

    pub(crate) fn as_server(&self) -> &dyn Server {
        match &self.server {
            Way::Behind(behind) => &behind.server,
            Way::Through(server) => server.as_server(),
        }
    }

    pub(crate) fn place(&self) -> Place<'_> {
        let cache = self.cache.as_ref().map(|cache| cache as &dyn Cache);
        Place { server: self.as_server(), cache, root: &self.root }
    }

    /// Opens a file.
    pub(crate) fn open_file(&self, engine: &Engine, name: &Name) -> Result<File, Failure> {
        engine.open(&self.place(), name).map_err(|error| match error.target_kind() {
            Some(TargetErrorKind::NotFound) => {
                Failure::of(name, "there is no such file on the server")
            }
            Some(TargetErrorKind::IsADirectory) => Failure::of(name, "is a directory"),
            _ => Failure::of_file(name, &error),
        })
    }
}

fn open_cache(dir: &Path, server: &Location, wishes: Wishes) -> Result<LocalCache, Failure> {
    fs::create_dir_all(dir)
        .map_err(|error| Failure::of(format_args!("the cache {}", dir.display()), error))?;
    if Location::Directory(dir.to_owned()).is(server) {
        return Err(Failure::of("the cache", "it cannot be the server's directory"));
    }
    let options = LocalOptions::default().with_durability(wishes.durability);
    LocalCache::open(dir, options).map_err(|error| Failure::of("the cache", error))
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

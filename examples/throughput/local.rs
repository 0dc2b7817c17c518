//! Files on the machine: in memory and on its disk.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    thread,
};

use sealback::{
    Config, CreateOptions, Engine, Place,
    crypto::RootKey,
    stream::{Cache, LocalCache, LocalOptions, LocalServer, Name},
};
use tempfile::TempDir;

use super::Setup;
use crate::{
    Failure,
    measure::{Round, Side, Sides},
    raw,
};

pub(super) const BLOCK_BYTES: u64 = 16 << 10;

/// A directory of this run, with a source file in it.
pub(super) struct World {
    dir: TempDir,
    pub(super) root: RootKey,
    engine: Engine,
}

impl World {
    pub(super) fn new(dir: &Path) -> Result<World, Failure> {
        let dir = tempfile::tempdir_in(dir)?;
        let engine = Engine::new(Config::default())?;
        Ok(World { dir, root: RootKey::from_bytes(&[1; 32]), engine })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A file of bytes that do not compress.
    pub(super) fn source(&self, size: u64) -> Result<PathBuf, Failure> {
        let path = self.path("source");
        let mut file = File::create(&path)?;
        let mut rng = fastrand::Rng::with_seed(size);
        let mut bytes = vec![0; 1 << 20];
        let mut left = size;
        while left > 0 {
            rng.fill(&mut bytes);
            let len = usize::try_from(left.min(bytes.len() as u64))?;
            file.write_all(&bytes[..len])?;
            left -= len as u64;
        }
        Ok(path)
    }

    /// Puts a file, as `writeback put` does. The last round's goes before that.
    fn put(&self, source: &Path, cache: bool, size: u64) -> Result<Round, Failure> {
        for store in ["server", "cache"] {
            make_empty(&self.path(store))?;
        }
        let server = LocalServer::open(self.path("server"), LocalOptions::default())?;
        let cache = match cache {
            true => Some(LocalCache::open(self.path("cache"), LocalOptions::default())?),
            false => None,
        };
        let lent = cache.as_ref().map(|cache| cache as &dyn Cache);
        let place = Place { server: &server, cache: lent, root: &self.root };
        self.put_at(&place, &Name::new("file")?, source, size)
    }

    /// The same, wherever it goes.
    pub(super) fn put_at(
        &self,
        place: &Place<'_>,
        name: &Name,
        source: &Path,
        size: u64,
    ) -> Result<Round, Failure> {
        Round::time(size, || {
            let options = CreateOptions { block_bytes: BLOCK_BYTES, replace: true };
            let file = self.engine.create(place, name, &options)?;
            file.write_from(0, &mut File::open(source)?, |_| ())?.1?;
            file.sync()?;
            file.publish()?;
            Ok(())
        })
    }
}

/// An empty directory, whatever was there.
fn make_empty(dir: &Path) -> Result<(), Failure> {
    if dir.exists() {
        fs::remove_dir_all(dir)?;
    }
    Ok(fs::create_dir(dir)?)
}

/// Puts a file in a server and a cache, in a tmpfs, against two copies at once.
pub(super) fn put_with_cache(setup: &Setup) -> Result<Sides, Failure> {
    let world = World::new(&setup.tmpfs)?;
    let (source, size) = (world.source(setup.size)?, setup.size);
    let (from, to) = (source.clone(), ["copy", "other"].map(|name| world.path(name)));
    let reference = move || {
        to.iter().for_each(|to| drop(fs::remove_file(to)));
        Round::time(size, || {
            let copy = |to: &PathBuf| raw::copy_file(&from, to).map_err(|error| error.to_string());
            let copied = thread::scope(|scope| {
                let copies = [0, 1].map(|index| {
                    scope.spawn({
                        let to = &to[index];
                        move || copy(to)
                    })
                });
                copies.map(|copy| copy.join().expect("a copy does not panic"))
            });
            copied.into_iter().collect::<Result<(), String>>()?;
            Ok(())
        })
    };
    let subject = move || world.put(&source, true, size);
    Ok(Sides { subject: Box::new(subject), reference: Box::new(reference) })
}

/// Puts a file in a server in a tmpfs, against a copy.
pub(super) fn put(setup: &Setup) -> Result<Sides, Failure> {
    put_in(&setup.tmpfs, setup.size)
}

/// The same on the disk, not synced.
pub(super) fn put_disk(setup: &Setup) -> Result<Sides, Failure> {
    put_in(&setup.disk, setup.size)
}

fn put_in(dir: &Path, size: u64) -> Result<Sides, Failure> {
    let world = World::new(dir)?;
    let source = world.source(size)?;
    let reference = copy(&source, world.path("copy"), size);
    let subject = move || world.put(&source, false, size);
    Ok(Sides { subject: Box::new(subject), reference })
}

fn copy(from: &Path, to: PathBuf, size: u64) -> Side {
    let from = from.to_owned();
    Box::new(move || {
        drop(fs::remove_file(&to));
        Round::time(size, || raw::copy_file(&from, &to))
    })
}

/// Gets a file, in a tmpfs, against a copy.
pub(super) fn get(setup: &Setup) -> Result<Sides, Failure> {
    let world = World::new(&setup.tmpfs)?;
    let (source, size) = (world.source(setup.size)?, setup.size);
    world.put(&source, false, size)?;
    let reference = copy(&source, world.path("copy"), size);
    let subject = move || {
        let server = LocalServer::open(world.path("server"), LocalOptions::default())?;
        let place = Place { server: &server, cache: None, root: &world.root };
        let to = world.path("got");
        drop(fs::remove_file(&to));
        Round::time(size, || {
            let file = world.engine.open(&place, &Name::new("file")?)?;
            let mut to = File::create(&to)?;
            let mut bytes = vec![0; 1 << 20];
            let mut at = 0;
            while at < size {
                let len = file.read_at(at, &mut bytes)?;
                to.write_all(&bytes[..len])?;
                at += len as u64;
            }
            Ok(())
        })
    };
    Ok(Sides { subject: Box::new(subject), reference })
}

const N_SMALL: usize = 100_000;
const SMALL: usize = 4 << 10;

/// Many small files through one engine, each as `writeback put` does it, in a tmpfs, against as many plain
/// files.
pub(super) fn small_files(setup: &Setup) -> Result<Sides, Failure> {
    let world = World::new(&setup.tmpfs)?;
    let plain = world.path("plain");
    let n_files = N_SMALL.min(usize::try_from(setup.size)? / SMALL);
    let bytes = (n_files * SMALL) as u64;
    let data = vec![7; SMALL];
    let copied = data.clone();
    let reference = move || {
        make_empty(&plain)?;
        Round::time(bytes, || {
            (0..n_files)
                .try_for_each(|number| fs::write(plain.join(number.to_string()), &copied))?;
            Ok(())
        })
    };
    let subject = move || {
        let sealed = world.path("server");
        make_empty(&sealed)?;
        let server = LocalServer::open(&sealed, LocalOptions::default())?;
        let place = Place { server: &server, cache: None, root: &world.root };
        let options = CreateOptions { block_bytes: SMALL as u64, replace: true };
        Round::time(bytes, || {
            for number in 0..n_files {
                let name = Name::new(&number.to_string())?;
                let file = world.engine.create(&place, &name, &options)?;
                file.write_from(0, &mut &data[..], |_| ())?.1?;
                file.sync()?;
                file.publish()?;
            }
            Ok(())
        })
    };
    Ok(Sides { subject: Box::new(subject), reference: Box::new(reference) })
}

//! Shows what the library does, on generated data in a temporary directory.
//!
//! First the speed: a file through both streams and back, from each of the two places alone. Then
//! the picture: how one writeback cut a file's dirty folios into two streams of subrequests, drawn
//! from what it told while it ran.

#[path = "demo/cut_off.rs"]
mod cut_off;
#[path = "demo/data.rs"]
mod data;
#[path = "demo/picture.rs"]
mod picture;
#[path = "demo/recorder.rs"]
mod recorder;
#[path = "demo/scene.rs"]
mod scene;
#[path = "demo/speed.rs"]
mod speed;
#[path = "demo/timeline.rs"]
mod timeline;

use std::{
    io::{self, Write},
    path::Path,
};

use sealback::{
    Error,
    crypto::RootKey,
    stream::{BadName, LocalCache, LocalOptions, LocalServer, Name, TargetError},
};

use self::{cut_off::CutOff, picture::Picture, timeline::Timeline};
use crate::failure::Failure;

pub(crate) fn run() -> Result<(), Failure> {
    let directory =
        tempfile::tempdir().map_err(|error| Failure::of("a temporary directory", error))?;
    let mut out = io::stdout().lock();
    let shown = show(directory.path(), &mut out);
    let removed = directory.close();
    shown.map_err(|trouble| match trouble {
        Trouble::Differs(what) => Failure::new(what),
        Trouble::Library(error) => Failure::new(error),
        Trouble::Local(error) => Failure::of("the demonstration's directory", error),
        Trouble::Stdout(error) => Failure::of_stdout(error),
    })?;
    removed.map_err(|error| Failure::of("removing the demonstration's directory", error))
}

fn show(directory: &Path, out: &mut impl Write) -> Result<(), Trouble> {
    let stores = Stores::new(directory)?;
    writeln!(out, "Sealing {} in {}", speed::SIZE, directory.display())?;
    writeln!(out)?;
    speed::measure(&stores, out)?;
    writeln!(out)?;
    let recording = scene::play(&stores)?;
    Picture::new(&recording, &scene::SCALE).print(out)?;
    writeln!(out)?;
    Timeline::new(&recording).print(out)?;
    writeln!(out)?;
    scene::check(&stores, out)?;
    out.flush()?;
    Ok(())
}

/// The demonstration's own server, cache and key. Their grants differ on purpose.
pub(crate) struct Stores {
    server: LocalServer,
    cut_off: CutOff,
    cache: LocalCache,
    root: RootKey,
}

impl Stores {
    fn new(directory: &Path) -> Result<Stores, Trouble> {
        let make = |name: &str| {
            let path = directory.join(name);
            std::fs::create_dir(&path).map(|()| path).map_err(Trouble::Local)
        };
        let grant = |bytes| LocalOptions::default().with_max_write_bytes(bytes);
        let server = LocalServer::open(make("server")?, grant(UPLOAD_GRANT_BYTES))?;
        let cache = LocalCache::open(make("cache")?, grant(CACHE_GRANT_BYTES))?;
        let root = RootKey::generate()
            .map_err(|_| Trouble::Differs("the system gave no random bytes".to_owned()))?;
        let cut_off = CutOff::new(server.clone());
        Ok(Stores { server, cut_off, cache, root })
    }
}

/// Stored bytes in a subrequest to the server, at most.
const UPLOAD_GRANT_BYTES: u64 = 1 << 20;
/// Stored bytes in a subrequest to the cache, at most.
const CACHE_GRANT_BYTES: u64 = 384 << 10;

/// What can go wrong.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// What was read is not what was written.
    Differs(String),
    Library(Error),
    Local(io::Error),
    Stdout(io::Error),
}

/// The only I/O whose errors come here without a name of their own is printing.
impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Trouble {
        Trouble::Stdout(error)
    }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Trouble {
        Trouble::Library(error)
    }
}

impl From<BadName> for Trouble {
    fn from(error: BadName) -> Trouble {
        Trouble::Library(error.into())
    }
}

impl From<TargetError> for Trouble {
    fn from(error: TargetError) -> Trouble {
        Trouble::Differs(error.to_string())
    }
}

/// A name that is known to be one.
fn name(name: &str) -> Result<Name, Trouble> {
    Ok(Name::new(name)?)
}

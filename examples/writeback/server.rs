//! The server that a command names: a directory, or an object store.

use std::{
    ffi::OsString,
    fmt, fs,
    os::unix::ffi::OsStringExt,
    path::{self, Path, PathBuf},
    time::Duration,
};
#[cfg(feature = "object-store")]
use std::{
    io::{self, Write},
    sync::Once,
};

use clap::error::ErrorKind;
#[cfg(feature = "object-store")]
use sealback::stream::{ObjectOptions, ObjectServer, Orphan, Orphans};
use sealback::{
    crypto::FileId,
    stream::{Durability, LateServer, LocalOptions, LocalServer, Name, Server, TargetError},
};

#[cfg(feature = "object-store")]
use crate::scrub::Object;
use crate::{args::On, failure::Failure, scrub::Orphaned};

/// What `--server` says.
#[derive(Clone, Debug)]
pub(crate) enum Location {
    Directory(PathBuf),
    Url(String),
}

impl Location {
    /// The stored file of a name, if it is a file.
    pub(crate) fn path_of(&self, name: &Name) -> Option<PathBuf> {
        Some(self.directory()?.join(name.as_str()))
    }

    /// Where a draft is as long as it is there, if that is a file.
    pub(crate) fn draft_path(&self, file_id: FileId) -> Option<PathBuf> {
        Some(self.directory()?.join(format!(".sealback/{file_id}.draft")))
    }

    fn directory(&self) -> Option<&Path> {
        match self {
            Location::Directory(directory) => Some(directory),
            Location::Url(_) => None,
        }
    }

    /// How it is told so that it is found again from anywhere.
    pub(crate) fn told(&self) -> Vec<u8> {
        match self {
            Location::Directory(directory) => {
                let absolute = path::absolute(directory).unwrap_or_else(|_| directory.clone());
                absolute.into_os_string().into_vec()
            }
            Location::Url(url) => url.trim_end_matches('/').as_bytes().to_vec(),
        }
    }

    /// Whether it is the same server, as far as that can be seen.
    pub(crate) fn is(&self, other: &Location) -> bool {
        let canonical = |at: &Location| at.directory().and_then(|dir| dir.canonicalize().ok());
        self.told() == other.told()
            || canonical(self).is_some_and(|here| Some(here) == canonical(other))
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Location::Directory(directory) => directory.display().fmt(f),
            Location::Url(url) => f.write_str(url),
        }
    }
}

/// Whatever has a scheme is a URL; a directory that looks so has a `./` before it.
impl From<OsString> for Location {
    fn from(text: OsString) -> Location {
        let url = text
            .to_str()
            .filter(|text| text.split_once("://").is_some_and(|(scheme, _)| !scheme.contains('/')));
        match url {
            Some(url) => Location::Url(url.to_owned()),
            None => Location::Directory(PathBuf::from(text)),
        }
    }
}

/// How a server is opened.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wishes {
    /// What the end of a write to a directory survives.
    pub(crate) durability: Durability,
    /// Stored bytes in an object of a new file, about.
    pub(crate) chunk_bytes: Option<u64>,
    #[cfg_attr(
        not(feature = "object-store"),
        expect(dead_code, reason = "only an object store has such objects")
    )]
    /// How old an object of no file is before it counts as left behind.
    pub(crate) orphan_age: Option<Duration>,
}

/// A server that is open.
pub(crate) enum OpenServer {
    Directory(LocalServer),
    #[cfg(feature = "object-store")]
    Objects(ObjectServer),
}

impl OpenServer {
    /// Opens what the command names.
    pub(crate) fn open(on: &On, wishes: Wishes) -> Result<OpenServer, Failure> {
        match &on.server {
            Location::Directory(directory) => {
                check_for_directory(on, wishes)?;
                open_directory(directory, wishes).map(OpenServer::Directory).map_err(failure)
            }
            Location::Url(url) => open_objects(url, on.single_writer, wishes),
        }
    }

    pub(crate) fn as_server(&self) -> &dyn Server {
        match self {
            OpenServer::Directory(server) => server,
            #[cfg(feature = "object-store")]
            OpenServer::Objects(server) => server,
        }
    }

    /// Sees to it, before anything is changed, that an object store keeps apart who writes at once.
    pub(crate) fn probe(&self) -> Result<(), Failure> {
        match self {
            OpenServer::Directory(_) => Ok(()),
            #[cfg(feature = "object-store")]
            OpenServer::Objects(server) => server.probe().map_err(|error| {
                let option = "--single-writer";
                failure(error.to_string().replace("ObjectOptions::single_writer", option))
            }),
        }
    }

    /// The names of the files there, ascending.
    pub(crate) fn list(&self) -> Result<Vec<Name>, Failure> {
        let mut names = match self {
            OpenServer::Directory(server) => list_directory(server.dir())?,
            #[cfg(feature = "object-store")]
            OpenServer::Objects(server) => server.list().map_err(failure)?,
        };
        names.sort();
        Ok(names)
    }

    /// Objects that are of no file; with `remove` they are gone afterwards.
    #[cfg_attr(
        not(feature = "object-store"),
        expect(unused_variables, reason = "only an object store has such objects")
    )]
    pub(crate) fn scrub(&self, remove: bool) -> Result<Orphaned, Failure> {
        match self {
            OpenServer::Directory(_) => Err(Failure::usage(
                ErrorKind::InvalidValue,
                "a directory needs no scrub: whoever opens it removes what a crash has left",
            )),
            #[cfg(feature = "object-store")]
            OpenServer::Objects(server) => scrub_objects(server, remove).map_err(failure),
        }
    }
}

#[cfg(feature = "object-store")]
fn scrub_objects(server: &ObjectServer, remove: bool) -> Result<Orphaned, TargetError> {
    let Orphans { objects, n_younger, .. } = server.orphans()?;
    let n_removed = if remove { server.remove_orphans(&objects)? } else { 0 };
    let objects = objects.into_iter().map(|Orphan { key, bytes, .. }| Object { key, bytes });
    Ok(Orphaned { objects: objects.collect(), n_younger, n_removed })
}

fn open_directory(directory: &Path, wishes: Wishes) -> Result<LocalServer, TargetError> {
    LocalServer::open(directory, LocalOptions::default().with_durability(wishes.durability))
}

/// Refuses what a directory knows nothing of.
fn check_for_directory(on: &On, wishes: Wishes) -> Result<(), Failure> {
    let for_objects =
        [(on.single_writer, "--single-writer"), (wishes.chunk_bytes.is_some(), "--chunk-size")];
    match for_objects.iter().find(|(is_there, _)| *is_there) {
        None => Ok(()),
        Some((_, option)) => {
            let what =
                format_args!("{option} is for an object store, and the server is a directory");
            Err(Failure::usage(ErrorKind::ArgumentConflict, what))
        }
    }
}

/// What the command names, which need not be there.
pub(crate) fn late(on: &On, wishes: Wishes) -> Result<LateServer, Failure> {
    match &on.server {
        Location::Directory(directory) => {
            check_for_directory(on, wishes)?;
            let directory = directory.clone();
            Ok(LateServer::new(move || open_directory(&directory, wishes), |_| 0))
        }
        Location::Url(url) => late_objects(url, on.single_writer, wishes),
    }
}

#[cfg(feature = "object-store")]
fn open_objects(url: &str, single_writer: bool, wishes: Wishes) -> Result<OpenServer, Failure> {
    if single_writer {
        say_single_writer(url);
    }
    let server = ObjectServer::open_url(url, object_options(single_writer, wishes));
    server.map(OpenServer::Objects).map_err(failure)
}

#[cfg(feature = "object-store")]
fn late_objects(url: &str, single_writer: bool, wishes: Wishes) -> Result<LateServer, Failure> {
    if single_writer {
        say_single_writer(url);
    }
    let (url, options) = (url.to_owned(), object_options(single_writer, wishes));
    let open = move || ObjectServer::open_url(&url, options);
    Ok(LateServer::new(open, move |block_bytes| options.chunk_blocks(block_bytes)))
}

/// Says once what is taken on the user's word. A URL that will be refused may hold a secret.
#[cfg(feature = "object-store")]
fn say_single_writer(url: &str) {
    static SAID: Once = Once::new();
    let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme);
    SAID.call_once(|| {
        // There is nobody else to tell, if nobody listens.
        let _ = writeln!(
            io::stderr(),
            "writeback: --single-writer: no conditions are put to the {scheme} store; what anybody else \
             writes there is lost"
        );
    });
}

#[cfg(feature = "object-store")]
fn object_options(single_writer: bool, wishes: Wishes) -> ObjectOptions {
    let mut options = ObjectOptions::default();
    options.single_writer = single_writer;
    options.chunk_bytes = wishes.chunk_bytes.unwrap_or(options.chunk_bytes);
    options.orphan_age = wishes.orphan_age.unwrap_or(options.orphan_age);
    options
}

#[cfg(not(feature = "object-store"))]
fn open_objects(_url: &str, _single_writer: bool, _wishes: Wishes) -> Result<OpenServer, Failure> {
    Err(no_objects())
}

#[cfg(not(feature = "object-store"))]
fn late_objects(_url: &str, _single_writer: bool, _wishes: Wishes) -> Result<LateServer, Failure> {
    Err(no_objects())
}

#[cfg(not(feature = "object-store"))]
fn no_objects() -> Failure {
    failure("no object store was built in: --features object-store")
}

fn list_directory(directory: &Path) -> Result<Vec<Name>, Failure> {
    let failure = |error| Failure::of(format_args!("the server {}", directory.display()), error);
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).map_err(failure)? {
        let entry = entry.map_err(failure)?;
        let is_file = entry.file_type().map_err(failure)?.is_file();
        // What has no name that a command takes is not the server's.
        let name = entry.file_name().to_str().and_then(|name| Name::new(name).ok());
        names.extend(name.filter(|_| is_file));
    }
    Ok(names)
}

fn failure(error: impl fmt::Display) -> Failure {
    Failure::of("the server", error)
}

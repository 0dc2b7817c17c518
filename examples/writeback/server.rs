//! The server that a command names: a directory, or an object store.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::error::ErrorKind;
#[cfg(feature = "object-store")]
use sealback::stream::{ObjectOptions, ObjectServer, Orphan, Orphans, TargetError};
use sealback::{
    crypto::FileId,
    stream::{Durability, LocalOptions, LocalServer, Name, Server},
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
                let for_objects = [
                    (on.single_writer, "--single-writer"),
                    (wishes.chunk_bytes.is_some(), "--chunk-size"),
                ];
                if let Some((_, option)) = for_objects.iter().find(|(is_there, _)| *is_there) {
                    let what = format_args!(
                        "{option} is for an object store, and the server is a directory"
                    );
                    return Err(Failure::usage(ErrorKind::ArgumentConflict, what));
                }
                open_directory(directory, wishes)
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

    /// The stored file of a name, if it is a file.
    pub(crate) fn path_of(&self, name: &Name) -> Option<PathBuf> {
        Some(self.directory()?.join(name.as_str()))
    }

    /// Where a draft is as long as it is there, if that is a file.
    pub(crate) fn draft_path(&self, file_id: FileId) -> Option<PathBuf> {
        Some(self.directory()?.join(format!(".sealback/{file_id}.draft")))
    }

    /// The directory that the server is, if it is one.
    pub(crate) fn directory(&self) -> Option<&Path> {
        match self {
            OpenServer::Directory(server) => Some(server.dir()),
            #[cfg(feature = "object-store")]
            OpenServer::Objects(_) => None,
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

fn open_directory(directory: &Path, wishes: Wishes) -> Result<OpenServer, Failure> {
    let options = LocalOptions::default().with_durability(wishes.durability);
    LocalServer::open(directory, options).map(OpenServer::Directory).map_err(failure)
}

#[cfg(feature = "object-store")]
fn open_objects(url: &str, single_writer: bool, wishes: Wishes) -> Result<OpenServer, Failure> {
    let mut options = ObjectOptions::default();
    options.single_writer = single_writer;
    options.chunk_bytes = wishes.chunk_bytes.unwrap_or(options.chunk_bytes);
    options.orphan_age = wishes.orphan_age.unwrap_or(options.orphan_age);
    ObjectServer::open_url(url, options).map(OpenServer::Objects).map_err(failure)
}

#[cfg(not(feature = "object-store"))]
fn open_objects(_url: &str, _single_writer: bool, _wishes: Wishes) -> Result<OpenServer, Failure> {
    Err(failure("no object store was built in: --features object-store"))
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

fn failure(error: impl std::fmt::Display) -> Failure {
    Failure::of("the server", error)
}

//! What is written behind: it is durable in the cache's directory, and goes to the server from there.

use std::{
    ffi::OsStr,
    fmt, fs, io,
    io::Write,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use sealback::{
    Error, File, Uploaded,
    stream::{Name, Pending, Server, TargetErrorKind, WhenFull, WriteBehind, WriteBehindOptions},
};
use sealback_examples::Size;
use serde::Serialize;
use tempfile::NamedTempFile;

use crate::{
    args::On,
    failure::Failure,
    progress::Progress,
    server::{self, Location, Wishes},
};

/// A server that is written behind. Clones are the same.
#[derive(Clone)]
pub(crate) struct Behind {
    pub(crate) server: WriteBehind,
    /// The cache in whose directory it waits.
    cache: PathBuf,
}

impl Behind {
    /// Opens a cache's directory, which is made if it is missing, before a server, which need not be there.
    pub(crate) fn open(on: &On, cache: &Path, wishes: Wishes) -> Result<Behind, Failure> {
        let dir = dir_of(cache);
        // A command ends, whatever happens.
        let options = WriteBehindOptions {
            durability: wishes.durability,
            when_full: WhenFull::Fail,
            ..WriteBehindOptions::default()
        };
        let before: Arc<dyn Server> = Arc::new(server::late(on, wishes)?);
        let server = WriteBehind::open(before, &dir, options)
            .map_err(|error| Failure::of("the cache", error))?;
        let behind = Behind { server, cache: cache.to_owned() };
        behind.is_for(&on.server, &dir.join(SERVER))?;
        Ok(behind)
    }

    /// What waits for one server is not for another.
    fn is_for(&self, server: &Location, noted: &Path) -> Result<(), Failure> {
        match known(noted) {
            Some(known) if known.is(server) => return Ok(()),
            Some(known) if !self.pending()?.is_empty() => {
                let what = format_args!("holds what waits for the server {known}");
                return Err(self.failure(what));
            }
            _ => {}
        }
        note(noted, &server.told()).map_err(|error| self.failure(error))
    }

    /// The files of which something waits.
    pub(crate) fn pending(&self) -> Result<Vec<Pending>, Failure> {
        self.server.pending().map_err(|error| self.failure(error))
    }

    /// What waits of a file.
    pub(crate) fn pending_of(&self, name: &Name) -> Result<Pending, Failure> {
        let pending = self.pending()?.into_iter().find(|pending| pending.name == *name);
        pending.ok_or_else(|| self.failure(format_args!("nothing of {name} waits there")))
    }

    /// Why the cache is of no use.
    pub(crate) fn failure(&self, why: impl fmt::Display) -> Failure {
        of_cache(&self.cache, why)
    }

    /// Takes what was synced of a file to the server, if that is there. Nothing is lost if not.
    pub(crate) fn upload(&self, file: &File, bytes: u64) -> Sent {
        let progress = Progress::of_uploading(file, bytes);
        let uploaded = file.upload();
        drop(progress);
        Sent::new(file.uploaded(), uploaded.err().as_ref())
    }
}

/// Fails if something of a file waits in a cache's directory to be uploaded: what the server has is older.
pub(crate) fn check_nothing_waits(on: &On, cache: &Path, name: &Name) -> Result<(), Failure> {
    let dir = dir_of(cache);
    if known(&dir.join(SERVER)).is_none_or(|known| !known.is(&on.server)) {
        return Ok(());
    }
    let waiting = WriteBehind::waiting(&dir).map_err(|error| of_cache(cache, error))?;
    match waiting.contains(name) {
        true => Err(Failure::of(
            name,
            format_args!(
                "what was written behind waits in {} and is newer than what the server has: \
                 'writeback resume' uploads it, --write-behind goes on with it",
                cache.display()
            ),
        )),
        false => Ok(()),
    }
}

fn of_cache(cache: &Path, why: impl fmt::Display) -> Failure {
    Failure::of(format_args!("the cache {}", cache.display()), why)
}

/// The server that was noted in a file.
fn known(noted: &Path) -> Option<Location> {
    fs::read(noted).ok().map(|told| Location::from(OsStr::from_bytes(&told).to_owned()))
}

/// Notes which server it is, for good or not at all: what waits belongs to no other.
fn note(noted: &Path, told: &[u8]) -> io::Result<()> {
    let mut beside = NamedTempFile::new_in(noted.parent().unwrap_or(noted))?;
    beside.write_all(told)?;
    beside.as_file().sync_all()?;
    beside.persist(noted).map(drop).map_err(|error| error.error)
}

/// Where in a cache's directory it waits.
fn dir_of(cache: &Path) -> PathBuf {
    cache.join("behind")
}

/// What is told of a file after it was written behind.
#[derive(Debug, Serialize)]
pub(crate) struct Sent {
    /// Something of it is not on the server, and why.
    waits: Option<String>,
    /// It waits for ever, if nobody decides otherwise.
    #[serde(skip)]
    is_lost: bool,
    uploaded_blocks: u64,
    uploaded_bytes: u64,
    merged_blocks: u64,
    server_was_put_back: bool,
}

impl Sent {
    pub(crate) fn new(uploaded: Uploaded, error: Option<&Error>) -> Sent {
        Sent {
            waits: error.map(ToString::to_string),
            is_lost: error.is_some_and(is_lost),
            uploaded_blocks: uploaded.blocks,
            uploaded_bytes: uploaded.bytes,
            merged_blocks: uploaded.merged,
            server_was_put_back: uploaded.was_put_back,
        }
    }

    /// Why it is not on the server, if it is not.
    pub(crate) fn waits(&self) -> Option<&str> {
        self.waits.as_deref()
    }

    /// One line of a summary, of what was written behind.
    pub(crate) fn print(sent: Option<&Sent>, out: &mut impl Write) -> io::Result<()> {
        sent.map_or(Ok(()), |sent| writeln!(out, "  behind  {sent}"))
    }
}

impl fmt::Display for Sent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Sent { waits, is_lost, uploaded_blocks: n, uploaded_bytes, .. } = self;
        match waits {
            Some(why) if *is_lost => {
                return write!(f, "waits in the cache, until 'writeback forget' drops it: {why}");
            }
            Some(why) => return write!(f, "waits in the cache for 'writeback resume': {why}"),
            None => {}
        }
        let size = Size(*uploaded_bytes);
        write!(f, "{n} block{} uploaded, {size}", if *n == 1 { "" } else { "s" })?;
        if self.merged_blocks > 0 {
            write!(f, ", {} merged with what others have changed", self.merged_blocks)?;
        }
        match self.server_was_put_back {
            true => f.write_str("; the server was put back to an earlier state of it"),
            false => Ok(()),
        }
    }
}

/// Whether trying again is of no use: the file is gone on the server, or damaged here.
fn is_lost(error: &Error) -> bool {
    match error.target_kind() {
        Some(kind) => matches!(kind, TargetErrorKind::Damaged | TargetErrorKind::NotFound),
        None => matches!(error, Error::Damaged(_)),
    }
}

/// In this file stands which server it waits for.
const SERVER: &str = "server";

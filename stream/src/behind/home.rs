//! What all files of one directory share: the directory itself, and the server that stands behind it.

use std::{
    fs::File,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use sealback_crypto::{FileId, Geometry, HEADER_BYTES, HeaderClaims};

use super::{WriteBehindOptions, files::Files, room::Room};
use crate::{Server, TargetError, TargetErrorKind};

/// What all files of one directory share.
#[derive(Debug)]
pub(super) struct Home {
    files: Files,
    server: Arc<dyn Server>,
    reach: Mutex<Reach>,
    room: Room,
    /// Held until the end.
    _lock: File,
}

/// Whether the server answers.
#[derive(Debug)]
enum Reach {
    /// It is asked again at this time.
    Away(Instant),
    There,
}

impl Home {
    pub(super) fn open(
        dir: &Path,
        server: Arc<dyn Server>,
        options: WriteBehindOptions,
    ) -> Result<Home, TargetError> {
        let files = Files::new(dir, options.durability);
        let lock = files.take()?;
        let room = Room::new(options.max_log_bytes, options.when_full);
        Ok(Home { files, server, reach: Mutex::new(Reach::There), room, _lock: lock })
    }

    /// What the logs may take.
    pub(super) fn room(&self) -> &Room {
        &self.room
    }

    /// What is in the directory.
    pub(super) fn files(&self) -> &Files {
        &self.files
    }

    /// The server behind, if it is the one that it was.
    pub(super) fn server(&self) -> Result<&dyn Server, TargetError> {
        let known = self.files.identity()?;
        let identity = self.server.identify(known)?;
        if let (None, Some(identity)) = (known, identity) {
            self.files.keep_identity(identity)?;
        }
        Ok(&*self.server)
    }

    /// As [`Server::chunk_blocks`], whether the server is there or not.
    pub(super) fn chunk_blocks(&self, block_bytes: u64) -> u32 {
        self.server.chunk_blocks(block_bytes)
    }

    /// Asks the server, also if it did not answer a moment ago.
    pub(super) fn at_once<T>(
        &self,
        ask: impl FnOnce(&dyn Server) -> Result<T, TargetError>,
    ) -> Result<T, TargetError> {
        self.heard(self.server().and_then(ask))
    }

    /// Asks the server, unless it did not answer a moment ago.
    pub(super) fn ask<T>(
        &self,
        ask: impl FnOnce() -> Result<T, TargetError>,
    ) -> Result<T, TargetError> {
        if let Reach::Away(ask_again) = *self.reach.lock().unwrap_or_else(PoisonError::into_inner)
            && Instant::now() < ask_again
        {
            let context = "the server does not answer, and this is not in what was written here";
            return Err(TargetError::new(TargetErrorKind::TimedOut, context));
        }
        self.heard(ask())
    }

    /// Notes whether the server has answered.
    pub(super) fn heard<T>(&self, answer: Result<T, TargetError>) -> Result<T, TargetError> {
        let away = answer.as_ref().is_err_and(is_away);
        *self.reach.lock().unwrap_or_else(PoisonError::into_inner) =
            if away { Reach::Away(Instant::now() + ASK_AGAIN) } else { Reach::There };
        answer
    }
}

/// Whether an error means that nobody answers.
pub(super) fn is_away(error: &TargetError) -> bool {
    // One that has too much to do has answered.
    error.is_transient() && error.kind() != TargetErrorKind::Throttled
}

/// Which file a header claims to be of, and how that is cut into blocks; `None` for no header.
pub(super) fn claims(header: &[u8; HEADER_BYTES]) -> Option<(FileId, Geometry)> {
    let HeaderClaims { file_id, geometry, .. } = HeaderClaims::of(header);
    Some((file_id, geometry.filter(|_| header.starts_with(b"SEALBACK"))?))
}

/// A server that does not answer is left alone for so long by who can do without it.
const ASK_AGAIN: Duration = Duration::from_secs(1);

//! What all files of one directory share: the directory itself, and the server that stands behind it.

use std::{
    fs::File,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use sealback_crypto::{FileId, Geometry, HEADER_BYTES, HeaderClaims};

use super::{WriteBehindOptions, files::Files};
use crate::{Server, TargetError, TargetErrorKind};

/// What all files of one directory share.
#[derive(Debug)]
pub(super) struct Home {
    files: Files,
    server: Arc<dyn Server>,
    options: WriteBehindOptions,
    reach: Mutex<Reach>,
    /// What all logs take.
    logged_bytes: AtomicU64,
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
        let reach = Mutex::new(Reach::There);
        Ok(Home { files, server, options, reach, logged_bytes: AtomicU64::new(0), _lock: lock })
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

    /// Fails if the logs would take too much.
    pub(super) fn check_room(&self, bytes: u64) -> Result<(), TargetError> {
        let taken = self.logged_bytes.load(Ordering::Relaxed);
        if taken.saturating_add(bytes) <= self.options.max_log_bytes {
            return Ok(());
        }
        let context = format!("{taken} bytes wait to be uploaded, and no more may");
        Err(TargetError::new(TargetErrorKind::NoSpace, context))
    }

    pub(super) fn add_bytes(&self, bytes: u64) {
        self.logged_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn sub_bytes(&self, bytes: u64) {
        self.logged_bytes.fetch_sub(bytes, Ordering::Relaxed);
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

//! The directory of what is written behind, and the server that stands behind it.
//!
//! ```text
//!  DIR/lock            held by the process that uses the directory
//!  DIR/new/NAME        a file that was published and is not on the server: sealed, whole
//!  DIR/STEM.head       a file's name and its header, as the server had it last
//!  DIR/STEM.N.log      what was written to that file; the greater numbers are the newer
//! ```
//! A stem is a hash of a file's name and its id.

use std::{
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use sealback_crypto::{FileId, Geometry, HEADER_BYTES, HeaderClaims};

use super::{WriteBehindOptions, segment::Segment};
use crate::{Durability, Name, Server, TargetError, TargetErrorKind};

/// What all files of one directory share.
#[derive(Debug)]
pub(super) struct Home {
    dir: PathBuf,
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
        let unopened = |error| TargetError::from_io(format!("opening {}", dir.display()), error);
        fs::create_dir_all(dir.join(NEW)).map_err(unopened)?;
        let mut opening = OpenOptions::new();
        let lock = opening.write(true).create(true).truncate(false).open(dir.join("lock"));
        let lock = lock.map_err(unopened)?;
        lock.try_lock().map_err(|_| {
            let context = format!("{} is used by another process", dir.display());
            TargetError::new(TargetErrorKind::NotPermitted, context)
        })?;
        let (dir, reach) = (dir.to_owned(), Mutex::new(Reach::There));
        Ok(Home { dir, server, options, reach, logged_bytes: AtomicU64::new(0), _lock: lock })
    }

    /// The server behind.
    pub(super) fn server(&self) -> &Arc<dyn Server> {
        &self.server
    }

    /// Where new files are.
    pub(super) fn new_files(&self) -> PathBuf {
        self.dir.join(NEW)
    }

    pub(super) fn waits_for_disk(&self) -> bool {
        self.options.durability == Durability::PowerCut
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

    /// What a file's things are called.
    pub(super) fn stem(name: &Name, file_id: FileId) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(file_id.as_bytes()).update(name.as_str().as_bytes());
        hasher.finalize().to_hex()[..32].to_owned()
    }

    fn segment_path(&self, stem: &str, number: u64) -> PathBuf {
        self.dir.join(format!("{stem}.{number}.log"))
    }

    fn head_path(&self, stem: &str) -> PathBuf {
        self.dir.join(format!("{stem}.head"))
    }

    /// Begins a segment.
    pub(super) fn begin(&self, stem: &str, number: u64) -> Result<Segment, TargetError> {
        let unbegun = |error| TargetError::from_io("beginning a log", error);
        let mut opening = OpenOptions::new();
        let opened = opening.read(true).write(true).create(true).truncate(true);
        let file = opened.open(self.segment_path(stem, number)).map_err(unbegun)?;
        self.sync_names()?;
        Segment::recover(file, segment_name(stem, number)).map_err(unbegun)
    }

    /// A file's segments that are there, with their numbers, ascending.
    pub(super) fn segments(&self, stem: &str) -> Result<Vec<(u64, Segment)>, TargetError> {
        let unread = |error| TargetError::from_io("reading a log", error);
        let mut found = Vec::new();
        for number in self.segment_numbers(stem).map_err(unread)? {
            let mut opening = OpenOptions::new();
            let path = self.segment_path(stem, number);
            let file = opening.read(true).write(true).open(path).map_err(unread)?;
            let name = segment_name(stem, number);
            let segment = Segment::recover(file, name).map_err(unread)?;
            found.push((number, segment));
        }
        Ok(found)
    }

    fn segment_numbers(&self, stem: &str) -> io::Result<Vec<u64>> {
        let number = |name: &str| {
            name.strip_prefix(stem)?.strip_prefix('.')?.strip_suffix(".log")?.parse().ok()
        };
        let mut numbers: Vec<u64> = self.names()?.iter().filter_map(|name| number(name)).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let names = fs::read_dir(&self.dir)?.map(|entry| Ok(entry?.file_name().into_string().ok()));
        Ok(names.collect::<io::Result<Vec<_>>>()?.into_iter().flatten().collect())
    }

    /// Removes a segment, for good.
    pub(super) fn remove(&self, stem: &str, number: u64) -> Result<(), TargetError> {
        match fs::remove_file(self.segment_path(stem, number)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(TargetError::from_io("removing a log", error))
            }
            _ => self.sync_names(),
        }
    }

    /// Removes all that is kept of a file.
    pub(super) fn discard(&self, stem: &str) -> Result<(), TargetError> {
        let unread = |error| TargetError::from_io("removing a log", error);
        for number in self.segment_numbers(stem).map_err(unread)? {
            self.remove(stem, number)?;
        }
        match fs::remove_file(self.head_path(stem)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(unread(error)),
            _ => Ok(()),
        }
    }

    /// Keeps a file's header for when the server does not answer.
    pub(super) fn keep_header(
        &self,
        stem: &str,
        name: &Name,
        header: &[u8; HEADER_BYTES],
    ) -> Result<(), TargetError> {
        let path = self.head_path(stem);
        let mut said = [HEAD_MAGIC, &header[..], name.as_str().as_bytes()].concat();
        let hash = blake3::hash(&said);
        said.extend_from_slice(hash.as_bytes());
        if fs::read(&path).is_ok_and(|kept| kept == said) {
            return Ok(());
        }
        let beside = path.with_extension("new");
        let kept = fs::write(&beside, &said)
            .and_then(
                |()| if self.waits_for_disk() { File::open(&beside)?.sync_all() } else { Ok(()) },
            )
            .and_then(|()| fs::rename(&beside, &path));
        kept.map_err(|error| TargetError::from_io("keeping a header", error))?;
        self.sync_names()
    }

    /// The files of which a header is kept, with their stems; those that were written to first.
    pub(super) fn heads(&self) -> Result<Vec<Head>, TargetError> {
        let unread = |error| TargetError::from_io("reading what was written", error);
        let mut heads = Vec::new();
        for name in self.names().map_err(unread)? {
            if let Some(stem) = name.strip_suffix(".head") {
                let said = fs::read(self.head_path(stem)).map_err(unread)?;
                let is_logged = !self.segment_numbers(stem).map_err(unread)?.is_empty();
                heads.extend(Head::parse(stem, &said, is_logged));
            }
        }
        heads.sort_by_key(|head| !head.is_logged);
        Ok(heads)
    }

    fn sync_names(&self) -> Result<(), TargetError> {
        if !self.waits_for_disk() {
            return Ok(());
        }
        File::open(&self.dir)
            .and_then(|dir| dir.sync_all())
            .map_err(|error| TargetError::from_io("making a directory durable", error))
    }
}

/// What is kept of one file.
pub(super) struct Head {
    pub(super) stem: String,
    pub(super) name: Name,
    pub(super) header: Box<[u8; HEADER_BYTES]>,
    /// Something of it waits to be uploaded.
    pub(super) is_logged: bool,
}

impl Head {
    /// `None` for what is not whole.
    fn parse(stem: &str, said: &[u8], is_logged: bool) -> Option<Head> {
        let (said, hash) = said.split_last_chunk::<32>()?;
        if blake3::hash(said) != *hash {
            return None;
        }
        let (header, name) = said.strip_prefix(HEAD_MAGIC)?.split_first_chunk()?;
        let name = Name::new(std::str::from_utf8(name).ok()?).ok()?;
        Some(Head { stem: stem.to_owned(), name, header: Box::new(*header), is_logged })
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

fn segment_name(stem: &str, number: u64) -> String {
    format!("{stem}.{number}")
}

const NEW: &str = "new";
const HEAD_MAGIC: &[u8] = b"SBHEADER";
/// A server that does not answer is left alone for so long by who can do without it.
const ASK_AGAIN: Duration = Duration::from_secs(1);

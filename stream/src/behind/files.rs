//! What lies in the directory of what is written behind.
//!
//! ```text
//!  DIR/lock            held by the process that uses the directory
//!  DIR/identity        of the server, by which it is known again
//!  DIR/new/NAME        a file that was published and is not on the server: sealed, whole
//!  DIR/STEM.head       a file's name and its header, as the server had it last
//!  DIR/STEM.N.log      what was written to that file; the greater numbers are the newer
//!  DIR/STEM.N.sent     what of that is on the server already
//! ```
//! A stem is a hash of a file's name and its id.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, IoSlice},
    ops::Range,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use sealback_crypto::{FileId, HEADER_BYTES, HeaderClaims};

use super::{log::unless_full, progress::Progress, segment::Segment};
use crate::{
    Durability, Name, TargetError, TargetErrorKind,
    flat::{Flat, Through},
};

/// The files of one directory.
#[derive(Debug)]
pub(super) struct Files {
    dir: PathBuf,
    durability: Durability,
}

impl Files {
    pub(super) fn new(dir: &Path, durability: Durability) -> Files {
        Files { dir: dir.to_owned(), durability }
    }

    /// Makes the directory if it is missing, and takes its lock, which is free when what is returned is
    /// dropped. Waits a moment for it: whoever had it may be about to end, and a thread of his be in an upload.
    pub(super) fn take(&self) -> Result<File, TargetError> {
        let shown = self.dir.display();
        let unopened = |error| TargetError::from_io(format!("opening {shown}"), error);
        fs::create_dir_all(self.new_files()).map_err(unopened)?;
        let mut opening = OpenOptions::new();
        let lock = opening.write(true).create(true).truncate(false).open(self.dir.join("lock"));
        let lock = lock.map_err(unopened)?;
        let since = Instant::now();
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(lock),
                Err(TryLockError::Error(error)) => return Err(unopened(error)),
                Err(TryLockError::WouldBlock) if since.elapsed() < PATIENCE => thread::sleep(PAUSE),
                Err(TryLockError::WouldBlock) => {
                    let context = format!("{shown} is used by another process");
                    return Err(TargetError::new(TargetErrorKind::NotPermitted, context));
                }
            }
        }
    }

    /// Where new files are.
    pub(super) fn new_files(&self) -> PathBuf {
        self.dir.join(NEW)
    }

    /// The names of the new files, with the bytes that they take.
    pub(super) fn new_names(&self) -> Result<Vec<(Name, u64)>, TargetError> {
        let unread = |error| TargetError::from_io("reading the directory of new files", error);
        let entries = match fs::read_dir(self.new_files()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(unread)?,
        };
        let names = entries.map(|entry| {
            let entry = entry?;
            let name = entry.file_name().into_string().ok().and_then(|name| Name::new(&name).ok());
            let metadata = entry.metadata()?;
            Ok(name.filter(|_| metadata.is_file()).map(|name| (name, metadata.len())))
        });
        let names = names.collect::<io::Result<Vec<_>>>().map_err(unread)?;
        Ok(names.into_iter().flatten().collect())
    }

    pub(super) fn waits_for_disk(&self) -> bool {
        self.durability == Durability::PowerCut
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

    fn progress_path(&self, stem: &str, number: u64) -> PathBuf {
        self.dir.join(format!("{stem}.{number}.sent"))
    }

    /// What was noted of a segment's upload.
    pub(super) fn progress(
        &self,
        stem: &str,
        number: u64,
        segment: &Segment,
    ) -> Result<(Progress, Vec<Range<u64>>), TargetError> {
        let unread = |error| TargetError::from_io("looking what was uploaded", error);
        let mut opening = OpenOptions::new();
        let opened = opening.read(true).write(true).create(true).truncate(false);
        let file = opened.open(self.progress_path(stem, number)).map_err(unread)?;
        self.sync_names()?;
        Progress::recover(Box::new(LogFile(file)), segment.hash()).map_err(unread)
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
        Segment::recover(Box::new(LogFile(file)), &segment_name(stem, number)).map_err(unbegun)
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
            let segment = Segment::recover(Box::new(LogFile(file)), &name).map_err(unread)?;
            match segment.bytes() {
                // Nobody was promised anything of it.
                0 => self.remove(stem, number)?,
                _ => found.push((number, segment)),
            }
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
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let names = entries.map(|entry| Ok(entry?.file_name().into_string().ok()));
        Ok(names.collect::<io::Result<Vec<_>>>()?.into_iter().flatten().collect())
    }

    /// Removes a segment, for good.
    pub(super) fn remove(&self, stem: &str, number: u64) -> Result<(), TargetError> {
        // What is noted of a segment that is no more speaks of no other.
        for path in [self.segment_path(stem, number), self.progress_path(stem, number)] {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(TargetError::from_io("removing a log", error));
                }
                _ => {}
            }
        }
        self.sync_names()
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

    /// The header that is kept of a file, or this one, if that is a newer one: then it is kept.
    pub(super) fn newest_header(
        &self,
        stem: &str,
        name: &Name,
        header: &[u8; HEADER_BYTES],
    ) -> Result<Box<[u8; HEADER_BYTES]>, TargetError> {
        let said = fs::read(self.head_path(stem)).ok();
        let kept = said.and_then(|said| Head::parse(stem, &said, false));
        let generation = |header| HeaderClaims::of(header).generation;
        match kept {
            Some(kept) if generation(&kept.header) >= generation(header) => return Ok(kept.header),
            Some(_) => unless_full(self.keep_header(stem, name, header))?,
            None => self.keep_header(stem, name, header)?,
        }
        Ok(Box::new(*header))
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
        self.replace(&path, &said)
            .map_err(|error| TargetError::from_io("keeping a header", error))?;
        self.sync_names()
    }

    /// Writes a file, or leaves it as it is.
    fn replace(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let beside = path.with_extension("new");
        let replaced = fs::write(&beside, content)
            .and_then(
                |()| if self.waits_for_disk() { File::open(&beside)?.sync_all() } else { Ok(()) },
            )
            .and_then(|()| fs::rename(&beside, path));
        // On a full disk a part of it would take what room there is.
        replaced.inspect_err(|_| drop(fs::remove_file(&beside)))
    }

    /// By what the server is known again, if it has said so.
    pub(super) fn identity(&self) -> Result<Option<u128>, TargetError> {
        let unread = |error| TargetError::from_io("reading which server it is", error);
        match fs::read(self.identity_path()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(unread(error)),
            Ok(said) => match said.try_into() {
                Ok(said) => Ok(Some(u128::from_le_bytes(said))),
                Err(_) => Err(unread(io::ErrorKind::InvalidData.into())),
            },
        }
    }

    pub(super) fn keep_identity(&self, identity: u128) -> Result<(), TargetError> {
        self.replace(&self.identity_path(), &identity.to_le_bytes())
            .map_err(|error| TargetError::from_io("keeping which server it is", error))?;
        self.sync_names()
    }

    fn identity_path(&self) -> PathBuf {
        self.dir.join("identity")
    }

    /// The files of which a header is kept, with their stems; those that were written to first.
    pub(super) fn heads(&self) -> Result<Vec<Head>, TargetError> {
        let unread = |error| TargetError::from_io("reading what was written", error);
        let mut heads = Vec::new();
        for name in self.names().map_err(unread)? {
            if let Some(stem) = name.strip_suffix(".head") {
                let said = match fs::read(self.head_path(stem)) {
                    // Whoever uses the directory has removed it meanwhile.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    said => said.map_err(unread)?,
                };
                let is_logged = !self.segment_numbers(stem).map_err(unread)?.is_empty();
                heads.extend(Head::parse(stem, &said, is_logged));
            }
        }
        heads.sort_by_key(|head| !head.is_logged);
        Ok(heads)
    }

    /// What logs are called of which no header can be read.
    pub(super) fn nameless(&self) -> Result<Vec<Name>, TargetError> {
        let heads = self.heads()?;
        let names = self.names();
        let names =
            names.map_err(|error| TargetError::from_io("reading what was written", error))?;
        let logs = names.iter().filter_map(|name| name.strip_suffix(".log")?.split('.').next());
        let mut nameless: Vec<&str> =
            logs.filter(|stem| heads.iter().all(|head| head.stem != **stem)).collect();
        nameless.sort_unstable();
        nameless.dedup();
        Ok(nameless.into_iter().filter_map(|stem| Name::new(stem).ok()).collect())
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
    /// `None` for what is not whole, or another file's.
    fn parse(stem: &str, said: &[u8], is_logged: bool) -> Option<Head> {
        let (said, hash) = said.split_last_chunk::<32>()?;
        if blake3::hash(said) != *hash {
            return None;
        }
        let (header, name) = said.strip_prefix(HEAD_MAGIC)?.split_first_chunk()?;
        let name = Name::new(std::str::from_utf8(name).ok()?).ok()?;
        let its = Files::stem(&name, HeaderClaims::of(header).file_id);
        (its == stem).then_some(())?;
        Some(Head { stem: stem.to_owned(), name, header: Box::new(*header), is_logged })
    }
}

/// A file of records.
struct LogFile(File);

impl Flat for LogFile {
    fn len(&self) -> io::Result<u64> {
        Flat::len(&&self.0)
    }

    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<usize> {
        Flat::read_at(&&self.0, at, into)
    }

    fn write_at(&mut self, at: u64, pieces: &mut [IoSlice<'_>]) -> Through {
        Flat::write_at(&mut &self.0, at, pieces)
    }

    fn punch(&mut self, stored: Range<u64>) -> io::Result<bool> {
        Flat::punch(&mut &self.0, stored)
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        Flat::set_len(&mut &self.0, len)
    }

    fn sync(&mut self) -> io::Result<()> {
        Flat::sync(&mut &self.0)
    }
}

fn segment_name(stem: &str, number: u64) -> String {
    format!("{stem}.{number}")
}

/// Who is about to end has ended by then.
const PATIENCE: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(10);
const NEW: &str = "new";
const HEAD_MAGIC: &[u8] = b"SBHEADER";

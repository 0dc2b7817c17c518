//! Written behind: what was written is durable here, and goes to the server later.
//!
//! [`WriteBehind`] stands before a server and keeps in a directory what is not there yet. A file of the
//! server's that is written to has a log: the sealed blocks, what is expected of the server's, and which
//! bytes of them were changed. A new file is here as a whole, under its name, until it is uploaded. What is
//! read is what was written, over what the server has.
//!
//! ```text
//!  write ──► log ──► acknowledged ... barrier ──► durable here ... uploaded ──► the server
//!                                                                    ▲ the same sealed bytes
//!  read  ◄── log, else the server                       who has the keys: merges, commits a header
//! ```
//!
//! Uploading takes the keys: only who opens a block can make something of it that a target takes, and a
//! header has to be committed. So it is done by who uses this, [`WriteLog::upload`] and
//! [`BehindFile::upload_new`] in hand. Nothing here has a thread.
//!
//! What is neither a write of blocks nor a new file, such as a cut or a removal, goes to the server at once.

use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use sealback_crypto::{FileId, HEADER_BYTES};

use crate::{
    Durability, LocalOptions, LocalServer, Name, Server, Target, TargetError, TargetErrorKind,
};

mod chain;
mod changed;
mod file;
mod files;
mod header;
mod home;
mod log;
mod pending;
mod progress;
mod reading;
mod record;
mod room;
mod segment;
mod state;
#[cfg(test)]
mod tests;
mod upload;

pub use file::BehindFile;
pub use log::WriteLog;
pub use pending::Pending;
pub use segment::{LoggedBlock, Promise};
pub use upload::Upload;

use file::Stage;
use files::Files;
use home::{Home, is_away};

/// What [`WriteBehind`] can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteBehindOptions {
    /// What is written survives so much once a barrier has returned.
    pub durability: Durability,
    /// What all logs may take on the disk, in bytes: as long as there is room, what is dirty in memory is
    /// written there while the server is away, and memory is free for more. New files do not count.
    pub max_log_bytes: u64,
    /// What becomes of a write that the logs have no room for. (One that the disk has no room for fails at
    /// once, with [`TargetErrorKind::NoSpace`], and stays dirty. What waits on a full disk is uploaded all the same.)
    pub when_full: WhenFull,
}

/// What becomes of a write that the logs have no room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WhenFull {
    /// It is refused as one that may be tried again: who syncs waits as long as for any server that fails,
    /// then is told, and what was written stays dirty. So are writers, when the memory is full, too.
    Fail,
    /// It waits until something has been uploaded, however long the server is away: what is dirty stays in
    /// memory, and when that is full, writers wait, and so does the end of an engine. A file that its server refuses waits for nothing. The
    /// logs may take more than they are to by what was on its way when they were full, and by what one
    /// writeback adds behind a file's end, of which nothing can be uploaded before it has ended.
    Wait,
}

impl Default for WriteBehindOptions {
    /// Survives the end of the process; 4 GiB, and writers wait when they are full.
    fn default() -> WriteBehindOptions {
        WriteBehindOptions {
            durability: Durability::Process,
            max_log_bytes: 4 << 30,
            when_full: WhenFull::Wait,
        }
    }
}

/// A server before which what is written is kept, durably, until it is uploaded. Clones are the same.
///
/// One process at a time uses a directory; who comes while another has it waits for a moment, then is told. While the
/// server does not answer, files that were open here before can be opened, as they were then; of their blocks those
/// can be read that were written, and a cache may have others.
///
/// In memory a log takes some 130 bytes for each block that waits, and where it was changed in part 30 more, or an
/// eighth of the block at most: what bounds the disk ([`WriteBehindOptions::max_log_bytes`]) bounds that. 4 GiB of
/// blocks of 16 KiB take 34 MB, of 4 KiB 137 MB; who has less sets a lower bound.
///
/// What is in the directory is sealed, and vouched for with each file's key: who can write there and has no key can
/// drop what waits, as he could delete it, and put back a log that was there before; he can have nothing uploaded that
/// was not written with the key. What was acknowledged and is damaged is an error of its file, and stays as it is.
///
/// Who is killed while he uploads uploads again, and does not lay what the server had taken over what others have
/// made of it since: it was noted. Not noted yet is the write under way at that moment, and what lies behind the
/// file's end until a header that says so is committed; of that a block that somebody else has changed is merged, as
/// if it had not been sent.
#[derive(Clone, Debug)]
pub struct WriteBehind {
    home: Arc<Home>,
    /// Files that were published and are not on the server.
    new: LocalServer,
    open: Arc<Mutex<Open>>,
}

/// What is open.
#[derive(Debug, Default)]
struct Open {
    files: HashMap<Name, Weak<BehindFile>>,
    /// Those of open files, and those that something is in, by their stems.
    logs: HashMap<String, Arc<WriteLog>>,
}

impl Open {
    /// The file of a name, if it is open.
    fn file(&self, name: &Name) -> Option<Arc<BehindFile>> {
        self.files.get(name).and_then(Weak::upgrade)
    }

    fn keep(&mut self, file: &Arc<BehindFile>) {
        self.files.retain(|_, file| file.strong_count() > 0);
        self.files.insert(file.name().clone(), Arc::downgrade(file));
    }
}

impl WriteBehind {
    /// Opens a directory, which is made if it is missing, before a server.
    ///
    /// # Errors
    /// [`TargetErrorKind::NotPermitted`] if another process uses it; others if it cannot be used.
    pub fn open(
        server: Arc<dyn Server>,
        dir: impl AsRef<Path>,
        options: WriteBehindOptions,
    ) -> Result<WriteBehind, TargetError> {
        let home = Arc::new(Home::open(dir.as_ref(), server, options)?);
        let local = LocalOptions::default().with_durability(options.durability);
        let new = LocalServer::open(home.files().new_files(), local)?;
        Ok(WriteBehind { home, new, open: Arc::default() })
    }

    /// Opens a file that was published here.
    fn open_new(&self, name: &Name) -> Result<Arc<BehindFile>, TargetError> {
        let mut open = self.open_now();
        if let Some(file) = open.file(name).filter(|file| file.is_new()) {
            return Ok(file);
        }
        let stage = Stage::New(self.new.open(name)?);
        let file = BehindFile::new(self.clone(), name.clone(), stage);
        open.keep(&file);
        Ok(file)
    }

    /// Opens a file of the server's; `None` if it is no sealed one.
    fn open_logged(
        &self,
        name: &Name,
        header: &[u8],
        server: Option<Arc<dyn Target>>,
    ) -> Result<Option<Arc<BehindFile>>, TargetError> {
        let Some(log) = self.log_of(name, header, server)? else { return Ok(None) };
        let mut open = self.open_now();
        let is_its = |file: &Arc<BehindFile>| file.log().is_some_and(|its| Arc::ptr_eq(&its, &log));
        if let Some(file) = open.file(name).filter(is_its) {
            return Ok(Some(file));
        }
        let file = BehindFile::new(self.clone(), name.clone(), Stage::Logged(log));
        open.keep(&file);
        Ok(Some(file))
    }

    /// The log of a file of the server's, with the header that it has now; `None` if that is none.
    fn log_of(
        &self,
        name: &Name,
        header: &[u8],
        server: Option<Arc<dyn Target>>,
    ) -> Result<Option<Arc<WriteLog>>, TargetError> {
        let Some(header) = header.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let Some((file_id, geometry)) = home::claims(header) else { return Ok(None) };
        let stem = Files::stem(name, file_id);
        let mut open = self.open_now();
        if let Some(log) = open.logs.get(&stem) {
            return Ok(Some(log.clone()));
        }
        let header = self.home.files().newest_header(&stem, name, header)?;
        let known = (name.clone(), file_id, geometry);
        let log = WriteLog::open(self.home.clone(), known, header, server)?;
        let log = Arc::new(log);
        open.logs.retain(|_, log| Arc::strong_count(log) > 1 || !log.is_empty());
        open.logs.insert(stem, log.clone());
        Ok(Some(log))
    }

    /// A new file has its name from now on; what was written to the one that had it goes with that.
    fn published(&self, file: &BehindFile) -> Result<(), TargetError> {
        self.open_now().files.insert(file.name().clone(), file.me());
        self.discard(file.name())
    }

    /// Drops what was written to the files that have had a name.
    fn discard(&self, name: &Name) -> Result<(), TargetError> {
        let mut open = self.open_now();
        for head in self.home.files().heads()?.iter().filter(|head| head.name == *name) {
            match open.logs.remove(&head.stem) {
                Some(log) => log.discard()?,
                None => self.home.files().discard(&head.stem)?,
            }
        }
        Ok(())
    }

    fn open_now(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Server for WriteBehind {
    /// Goes to the server at once: only there it is seen whether something has the name.
    fn create(
        &self,
        name: &Name,
        file_id: FileId,
        header: &[u8; HEADER_BYTES],
    ) -> Result<Arc<dyn Target>, TargetError> {
        if self.new.open(name).is_ok() {
            let context = format!("there is a file '{name}' already, which waits to be uploaded");
            return Err(TargetError::new(TargetErrorKind::AlreadyExists, context));
        }
        let created = self.home.at_once(|server| server.create(name, file_id, header))?;
        match self.open_logged(name, header, Some(created.clone()))? {
            Some(file) => Ok(file),
            None => Ok(created),
        }
    }

    /// Begins it here. Published, it is here as a whole, and takes the place of whatever has its name on
    /// the server when it is uploaded.
    fn draft(
        &self,
        name: &Name,
        file_id: FileId,
        header: &[u8; HEADER_BYTES],
    ) -> Result<Arc<dyn Target>, TargetError> {
        let draft = self.new.draft(name, file_id, header)?;
        Ok(BehindFile::new(self.clone(), name.clone(), Stage::Draft(draft)))
    }

    /// As it is here, or on the server; while that does not answer, as it was when it was last open.
    fn open(&self, name: &Name) -> Result<Arc<dyn Target>, TargetError> {
        match self.open_new(name) {
            Err(error) if error.kind() == TargetErrorKind::NotFound => {}
            opened => return opened.map(|file| file as Arc<dyn Target>),
        }
        let there = self.home.ask(|| {
            let there = self.home.server()?.open(name)?;
            let header = there.read_header()?;
            Ok((there, header))
        });
        match there {
            Ok((there, header)) => match self.open_logged(name, &header, Some(there.clone()))? {
                Some(file) => Ok(file),
                None => Ok(there),
            },
            Err(error) => self.open_without(name, error),
        }
    }

    /// Goes to the server at once; what waits to be uploaded goes with it.
    fn remove(&self, name: &Name) -> Result<(), TargetError> {
        let removed = self.home.at_once(|server| server.remove(name));
        let was_new = match (&removed, self.new.open(name)) {
            (Err(error), Err(_)) => return Err(error.clone()),
            (Err(error), Ok(_)) if error.kind() != TargetErrorKind::NotFound => {
                return Err(error.clone());
            }
            (_, new) => new.is_ok(),
        };
        if was_new {
            self.new.remove(name)?;
        }
        self.open_now().files.remove(name);
        self.discard(name)
    }

    fn chunk_blocks(&self, block_bytes: u64) -> u32 {
        self.home.chunk_blocks(block_bytes)
    }

    fn identify(&self, known: Option<u128>) -> Result<Option<u128>, TargetError> {
        self.home.server()?.identify(known)
    }
}

impl WriteBehind {
    /// Opens a file that the server would not open, if it is known here and the server does not answer, or has
    /// lost what something waits for.
    fn open_without(
        &self,
        name: &Name,
        error: TargetError,
    ) -> Result<Arc<dyn Target>, TargetError> {
        let mut heads = self.home.files().heads()?.into_iter().filter(|head| head.name == *name);
        let head = match is_away(&error) {
            true => heads.next(),
            false => heads.find(|head| error.kind() == TargetErrorKind::NotFound && head.is_logged),
        };
        let file = head.map(|head| self.open_logged(name, &head.header[..], None)).transpose()?;
        file.flatten().map_or(Err(error), |file| Ok(file as Arc<dyn Target>))
    }
}

//! The names: creating, drafting, publishing, opening and removing.
//!
//! A name leads to a number, under which a file's rows are. A file to which no name leads is kept as
//! long as somebody has it open, and then removed; what a crash leaves of that kind is removed when
//! the database is opened.

use std::{
    collections::BTreeMap,
    fmt,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
};

use redb::{Database, Durability, ReadableTable, WriteTransaction};
use sealback::{
    crypto::{FileId, HEADER_BYTES},
    stream::{Name, Server, Target, TargetError, TargetErrorKind},
};

use crate::{
    tables::{BLOCKS, HEADERS, NAMES, failed, look, rows, transact},
    target::RedbFile,
};

/// Sealed files in a database.
pub(crate) struct RedbServer {
    database: Arc<Database>,
    open_files: Arc<OpenFiles>,
    n_writes: Arc<AtomicU64>,
}

/// The files that are open, by number. Names change with this locked, so that a file is either found
/// open here, or nobody has it.
#[derive(Default)]
struct OpenFiles(Mutex<BTreeMap<u64, Weak<RedbFile>>>);

impl OpenFiles {
    fn locked(&self) -> MutexGuard<'_, BTreeMap<u64, Weak<RedbFile>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RedbServer {
    /// Opens a database, or makes one.
    pub(crate) fn open(path: &Path) -> Result<RedbServer, TargetError> {
        let database = Database::create(path).map_err(failed("opening the database"))?;
        transact(&database, Durability::Immediate, |transaction| {
            sweep(transaction).map_err(failed("removing what a crash has left"))
        })?;
        let (database, open_files) = (Arc::new(database), Arc::default());
        Ok(RedbServer { database, open_files, n_writes: Arc::default() })
    }

    /// How many transactions have written blocks since this was last asked.
    pub(crate) fn take_n_writes(&self) -> u64 {
        self.n_writes.swap(0, Ordering::Relaxed)
    }

    /// How many files there are, and blocks in all of them.
    #[cfg(test)]
    pub(crate) fn n_rows(&self) -> Result<(u64, u64), TargetError> {
        use redb::ReadableTableMetadata as _;
        look(&self.database, |transaction| {
            let (headers, blocks) =
                (transaction.open_table(HEADERS)?, transaction.open_table(BLOCKS)?);
            Ok((headers.len()?, blocks.len()?))
        })
    }

    /// A file with its header and a number of its own. A name leads to it in the same transaction, or
    /// not at all.
    fn begin(
        &self,
        header: &[u8; HEADER_BYTES],
        name: Option<&Name>,
        link: Link,
    ) -> Result<Arc<dyn Target>, TargetError> {
        let mut open_files = self.open_files.locked();
        let number = transact(&self.database, Durability::None, |transaction| {
            let mut headers = transaction.open_table(HEADERS).map_err(failed("the headers"))?;
            let last = headers.last().map_err(failed("looking for a number"))?;
            let number = last.map_or(0, |(last, _)| last.value() + 1);
            headers.insert(number, &header[..]).map_err(failed("writing a header"))?;
            if let Some(name) = name {
                let mut names = transaction.open_table(NAMES).map_err(failed("the names"))?;
                let taken = names.insert(name.as_str(), number).map_err(failed("naming"))?;
                if taken.is_some() {
                    // Not committed: the earlier one is as it was.
                    let context = format!("there is a file '{name}' already");
                    return Err(TargetError::new(TargetErrorKind::AlreadyExists, context));
                }
            }
            Ok(number)
        })?;
        Ok(self.handle(&mut open_files, number, link))
    }

    fn handle(
        &self,
        open_files: &mut BTreeMap<u64, Weak<RedbFile>>,
        number: u64,
        link: Link,
    ) -> Arc<RedbFile> {
        let file = Arc::new(RedbFile {
            database: self.database.clone(),
            number,
            link,
            size_held: Arc::default(),
            n_writes: self.n_writes.clone(),
        });
        open_files.retain(|_, file| file.strong_count() > 0);
        open_files.insert(number, Arc::downgrade(&file));
        file
    }
}

impl Server for RedbServer {
    fn create(
        &self,
        name: &Name,
        _file_id: FileId,
        header: &[u8; HEADER_BYTES],
    ) -> Result<Arc<dyn Target>, TargetError> {
        self.begin(header, Some(name), Link::new(&self.open_files, None))
    }

    fn draft(
        &self,
        name: &Name,
        _file_id: FileId,
        header: &[u8; HEADER_BYTES],
    ) -> Result<Arc<dyn Target>, TargetError> {
        self.begin(header, None, Link::new(&self.open_files, Some(name)))
    }

    fn open(&self, name: &Name) -> Result<Arc<dyn Target>, TargetError> {
        let mut open_files = self.open_files.locked();
        let number = look(&self.database, |transaction| {
            Ok(transaction.open_table(NAMES)?.get(name.as_str())?.map(|number| number.value()))
        })?;
        let number = number.ok_or_else(|| not_found(name))?;
        if let Some(file) = open_files.get(&number).and_then(Weak::upgrade) {
            return Ok(file);
        }
        Ok(self.handle(&mut open_files, number, Link::new(&self.open_files, None)))
    }

    fn remove(&self, name: &Name) -> Result<(), TargetError> {
        let open_files = self.open_files.locked();
        let removed = transact(&self.database, Durability::None, |transaction| {
            let mut names = transaction.open_table(NAMES).map_err(failed("opening the names"))?;
            let removed = names.remove(name.as_str()).map_err(failed("removing a name"))?;
            let number = removed.map(|number| number.value()).ok_or_else(|| not_found(name))?;
            unlink(transaction, &open_files, number)
        })?;
        if let Some(file) = removed {
            file.link.set_gone();
        }
        Ok(())
    }
}

impl fmt::Debug for RedbServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedbServer").finish_non_exhaustive()
    }
}

/// How names lead to a file that is open.
pub(crate) struct Link {
    open_files: Arc<OpenFiles>,
    /// The name that a draft is to have.
    draft: Option<Name>,
    state: AtomicU8,
}

const LINKED: u8 = 0;
const DRAFT: u8 = 1;
const GONE: u8 = 2;

impl Link {
    fn new(open_files: &Arc<OpenFiles>, draft: Option<&Name>) -> Link {
        let state = AtomicU8::new(if draft.is_some() { DRAFT } else { LINKED });
        Link { open_files: open_files.clone(), draft: draft.cloned(), state }
    }

    fn set_gone(&self) {
        self.state.store(GONE, Ordering::Release);
    }

    /// Whether no name leads to the file, nor ever will.
    pub(crate) fn is_gone(&self) -> bool {
        self.state.load(Ordering::Acquire) == GONE
    }

    /// Has the name of a draft lead to it, instead of to whatever it has led to. What was written to it
    /// is durable when the name is.
    pub(crate) fn publish(&self, database: &Database, number: u64) -> Result<(), TargetError> {
        let open_files = self.open_files.locked();
        let Some(name) =
            self.draft.as_ref().filter(|_| self.state.load(Ordering::Acquire) == DRAFT)
        else {
            return Ok(());
        };
        let replaced = transact(database, Durability::Immediate, |transaction| {
            let mut names = transaction.open_table(NAMES).map_err(failed("opening the names"))?;
            let replaced = names.insert(name.as_str(), number).map_err(failed("naming"))?;
            match replaced.map(|number| number.value()) {
                Some(replaced) => unlink(transaction, &open_files, replaced),
                None => Ok(None),
            }
        })?;
        if let Some(file) = replaced {
            file.link.set_gone();
        }
        self.state.store(LINKED, Ordering::Release);
        Ok(())
    }
}

/// A file that nobody has open any more goes with its last handle, unless a name leads to it.
impl Drop for RedbFile {
    fn drop(&mut self) {
        if self.link.state.load(Ordering::Acquire) != LINKED {
            // What cannot be removed now is removed when the database is next opened.
            let _ = transact(&self.database, Durability::None, |transaction| {
                remove_rows(transaction, self.number).map_err(failed("removing a file"))
            });
        }
    }
}

/// No name leads to a file any more. Its rows go, or, if somebody has it open, with its last handle:
/// then it is returned, to be told when this is committed.
fn unlink(
    transaction: &WriteTransaction,
    open_files: &BTreeMap<u64, Weak<RedbFile>>,
    number: u64,
) -> Result<Option<Arc<RedbFile>>, TargetError> {
    let open = open_files.get(&number).and_then(Weak::upgrade);
    if open.is_none() {
        remove_rows(transaction, number).map_err(failed("removing a file"))?;
    }
    Ok(open)
}

fn remove_rows(transaction: &WriteTransaction, number: u64) -> Result<(), redb::Error> {
    transaction.open_table(HEADERS)?.remove(number)?;
    transaction.open_table(BLOCKS)?.retain_in(rows(number, 0..u64::MAX), |_, _| false)?;
    Ok(())
}

/// Makes the tables, and removes files to which no name leads.
fn sweep(transaction: &WriteTransaction) -> Result<(), redb::Error> {
    transaction.open_table(BLOCKS)?;
    let names = transaction.open_table(NAMES)?;
    let named: Vec<u64> =
        names.iter()?.map(|row| row.map(|(_, number)| number.value())).collect::<Result<_, _>>()?;
    let headers = transaction.open_table(HEADERS)?;
    let all: Vec<u64> = headers
        .iter()?
        .map(|row| row.map(|(number, _)| number.value()))
        .collect::<Result<_, _>>()?;
    drop(headers);
    let left = all.into_iter().filter(|number| !named.contains(number));
    left.into_iter().try_for_each(|number| remove_rows(transaction, number))
}

fn not_found(name: &Name) -> TargetError {
    TargetError::new(TargetErrorKind::NotFound, format!("there is no file '{name}'"))
}

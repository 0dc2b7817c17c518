//! What is stored: three tables, and what a database's errors mean to a stream.

use std::{io, ops::Range};

use redb::{
    Database, Durability, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition,
    WriteTransaction,
};
use sealback::{
    crypto::PREFIX_BYTES,
    stream::{TargetError, TargetErrorKind},
};

/// Which file a name stands for. A file is a number, so that one that was replaced or removed is
/// still there for whoever has it open.
pub(crate) const NAMES: TableDefinition<'_, &str, u64> = TableDefinition::new("names");
/// The header of a file: 8192 bytes.
pub(crate) const HEADERS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("headers");
/// The stored bytes of a block of a file: prefix and ciphertext. A hole is a block without a row; one
/// that is the last of its file is a row of 48 zeros, since the file reaches to there.
pub(crate) const BLOCKS: TableDefinition<'_, (u64, u64), &[u8]> = TableDefinition::new("blocks");

/// The prefix of a hole that a file ends with.
pub(crate) const HOLE: [u8; PREFIX_BYTES] = [0; PREFIX_BYTES];

/// The rows of some blocks of a file.
pub(crate) fn rows(file: u64, blocks: Range<u64>) -> Range<(u64, u64)> {
    (file, blocks.start)..(file, blocks.end)
}

/// Changes the database in one transaction: all of it, if `change` goes well, or nothing. There is
/// one such transaction at a time, of all threads; and a database is open in one process at a time.
///
/// It is atomic at once and durable after the next [`Durability::Immediate`] one: a barrier.
pub(crate) fn transact<T, E: From<TargetError>>(
    database: &Database,
    durability: Durability,
    change: impl FnOnce(&WriteTransaction) -> Result<T, E>,
) -> Result<T, E> {
    let begin = || -> Result<WriteTransaction, redb::Error> {
        let mut transaction = database.begin_write()?;
        transaction.set_durability(durability)?;
        Ok(transaction)
    };
    let transaction = begin().map_err(failed("beginning a transaction"))?;
    // Dropped, it is undone.
    let changed = change(&transaction)?;
    transaction.commit().map_err(failed("committing a transaction"))?;
    Ok(changed)
}

/// Looks at the database as it is now, whatever is written meanwhile.
pub(crate) fn look<T>(
    database: &Database,
    look: impl FnOnce(&ReadTransaction) -> Result<T, redb::Error>,
) -> Result<T, TargetError> {
    let looked = || look(&database.begin_read()?);
    looked().map_err(failed("reading the database"))
}

/// The last block of a file that has a row, and how long that is.
pub(crate) fn last_block(
    blocks: &impl ReadableTable<(u64, u64), &'static [u8]>,
    file: u64,
) -> Result<Option<(u64, usize)>, redb::StorageError> {
    let last = blocks.range((file, 0)..=(file, u64::MAX))?.next_back().transpose()?;
    Ok(last.map(|(key, bytes)| (key.value().1, bytes.value().len())))
}

/// An error of the database as a stream understands it: whether the disk is full, above all.
pub(crate) fn failed<E: Into<redb::Error>>(doing: &str) -> impl FnOnce(E) -> TargetError {
    move |error| match error.into() {
        redb::Error::Io(error) => TargetError::from_io(doing, error),
        error @ redb::Error::DatabaseAlreadyOpen => {
            TargetError::new(TargetErrorKind::Unsupported, format!("{doing}: {error}"))
        }
        error => TargetError::from_io(doing, io::Error::other(error)),
    }
}

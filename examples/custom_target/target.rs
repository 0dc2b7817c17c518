//! One file in the database: the contract of [`Target`], clause by clause.

use std::{
    fmt,
    ops::Range,
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::Waker,
};

use redb::{Database, Durability, ReadableTable, Table, WriteTransaction};
use sealback::{
    crypto::{Geometry, Nonce, SlotExpectation, SlotWrite},
    stream::{
        BlockConflict, Completion, Failure, Grant, Prepared, Read, ReadCompletion, Segment,
        SizeLock, Target, TargetError, TargetErrorKind, Write,
    },
};

use crate::{
    server::Link,
    tables::{BLOCKS, HEADERS, HOLE, failed, last_block, look, rows, transact},
};

type Blocks<'t> = Table<'t, (u64, u64), &'static [u8]>;

/// A file that is open. All who have it open share one.
pub(crate) struct RedbFile {
    pub(crate) database: Arc<Database>,
    pub(crate) number: u64,
    /// How names lead to it; the server's business.
    pub(crate) link: Link,
    pub(crate) size_held: Arc<SizeHeld>,
    /// Transactions that wrote blocks, for those who count them.
    pub(crate) n_writes: Arc<AtomicU64>,
}

/// Clause 1: nothing here is bound to a thread. A transaction that writes waits for the one that is
/// running, which is short; `prepare` waits for nothing.
impl Target for RedbFile {
    /// The database's place in memory and the file's number: no other file that is open in this
    /// process has both.
    fn identity(&self) -> u128 {
        (Arc::as_ptr(&self.database).addr() as u128) << 64 | u128::from(self.number)
    }

    /// A transaction may be large, and has a cost of its own: blocks may lie apart, so that all that
    /// has changed in a file goes in few. There are no credits (clause 9), so the answer is never
    /// "later", and the waker is not kept.
    fn prepare(&self, _block: u64, _waker: &Waker) -> Prepared {
        Prepared::Granted(Grant::unlimited().with_max_bytes(MAX_WRITE_BYTES).with_gaps())
    }

    /// Clauses 2, 3 and 4.
    fn write(&self, write: Write, done: Completion) {
        self.n_writes.fetch_add(1, Ordering::Relaxed);
        let outcome = self.change(|transaction| {
            let mut blocks =
                transaction.open_table(BLOCKS).map_err(failed("opening the blocks"))?;
            // Clause 4: everything is compared before anything is written, in the transaction that
            // writes. What is not committed is undone when the transaction is dropped.
            let conflicts = self.conflicts(&blocks, &write)?;
            if !conflicts.is_empty() {
                return Err(Failure::Conflict(conflicts));
            }
            for segment in &write.segments {
                self.put(&mut blocks, segment).map_err(failed("writing blocks"))?;
            }
            Ok(write.bytes())
        });
        // The sealed buffers go home before anyone hears of the end.
        drop(write);
        // Clause 2: the completion is used up, once. Clause 3: a transaction goes through as a whole, so
        // there are no short writes here; a target that writes piece by piece tells how far it got.
        match outcome {
            Ok(bytes) => done.written(bytes),
            Err(failure) => done.failed(failure),
        }
    }

    /// Clause 6: a read is a snapshot, begun after what was written before it.
    fn read(&self, read: Read, done: ReadCompletion) {
        let Read { blocks, geometry, mut buffer } = read;
        // The buffer comes back, and is left as it is behind what was read.
        match self.read_rows(&blocks, geometry, &mut buffer) {
            Ok(bytes) => done.read(buffer, bytes),
            Err(error) => done.failed(error),
        }
    }

    fn read_header(&self) -> Result<Vec<u8>, TargetError> {
        look(&self.database, |transaction| {
            let headers = transaction.open_table(HEADERS)?;
            let header = headers.get(self.number)?.map(|header| header.value().to_vec());
            Ok(header.unwrap_or_default())
        })
    }

    /// Clause 5: comparing and writing are one transaction.
    fn write_slot(&self, write: &SlotWrite) -> Result<(), TargetError> {
        self.change(|transaction| {
            let mut header = self.checked_header(transaction, &write.expect)?;
            let at = place(write.offset);
            header[at..at + write.bytes.len()].copy_from_slice(&write.bytes[..]);
            let mut headers = transaction.open_table(HEADERS).map_err(failed("a header"))?;
            headers.insert(self.number, &header[..]).map_err(failed("writing a header"))?;
            Ok(())
        })
    }

    /// Clause 5, and: the last block that stays is a row of its own, which has as many bytes as its
    /// prefix says. A file that now ends with a hole gets the row that says so.
    fn cut(
        &self,
        _geometry: Geometry,
        n_blocks: u64,
        expect: &SlotExpectation,
    ) -> Result<(), TargetError> {
        self.change(|transaction| {
            self.checked_header(transaction, expect)?;
            let mut blocks =
                transaction.open_table(BLOCKS).map_err(failed("opening the blocks"))?;
            let mut cut = || -> Result<(), redb::StorageError> {
                let last = last_block(&blocks, self.number)?;
                if last.is_none_or(|(last, _)| last < n_blocks) {
                    return Ok(());
                }
                blocks.retain_in(rows(self.number, n_blocks..u64::MAX), |_, _| false)?;
                match n_blocks.checked_sub(1) {
                    Some(last) => self.reach(&mut blocks, last),
                    None => Ok(()),
                }
            };
            cut().map_err(failed("cutting the file"))
        })
    }

    /// Clause 7: a transaction that is durable makes durable what was committed before it.
    fn barrier(&self) -> Result<(), TargetError> {
        transact(&self.database, Durability::Immediate, |_| Ok(()))
    }

    fn publish(&self) -> Result<(), TargetError> {
        self.link.publish(&self.database, self.number)
    }

    /// One lock for all who have the file open. A server without one answers `None`: clients that grow
    /// a file at the same time then find it out when they commit.
    fn lock_size(&self) -> Result<Option<SizeLock>, TargetError> {
        Ok(Some(SizeHeld::hold(self.size_held.clone())))
    }
}

impl RedbFile {
    /// Changes the file in one transaction, if a name leads to it, or will: what is acknowledged of a
    /// file that was removed, nobody would find.
    fn change<T, E: From<TargetError>>(
        &self,
        change: impl FnOnce(&WriteTransaction) -> Result<T, E>,
    ) -> Result<T, E> {
        transact(&self.database, Durability::None, |transaction| {
            if self.link.is_gone() {
                let context = "the file was replaced or removed since it was opened";
                return Err(TargetError::new(TargetErrorKind::NotFound, context).into());
            }
            change(transaction)
        })
    }

    /// Every expectation that does not hold. [`Expectation::holds`] knows that what is being written
    /// counts as expected: a resend after an unknown outcome is done, not in conflict.
    ///
    /// [`Expectation::holds`]: sealback::stream::Expectation::holds
    fn conflicts(
        &self,
        blocks: &Blocks<'_>,
        write: &Write,
    ) -> Result<Vec<BlockConflict>, TargetError> {
        let mut conflicts = Vec::new();
        for expectation in &write.expectations {
            let block = expectation.block;
            let row = blocks.get((self.number, block)).map_err(failed("comparing a block"))?;
            let stored = row.and_then(|row| nonce(row.value()));
            if !expectation.holds(stored, write.nonce(block)) {
                conflicts.push(BlockConflict { block, stored });
            }
        }
        Ok(conflicts)
    }

    fn put(&self, blocks: &mut Blocks<'_>, segment: &Segment) -> Result<(), redb::StorageError> {
        match segment {
            Segment::Sealed(sealed) => {
                for block in sealed.blocks() {
                    blocks.insert((self.number, block), sealed.block_bytes_of(block))?;
                }
                Ok(())
            }
            Segment::Hole { blocks: hole, .. } => {
                blocks.retain_in(rows(self.number, hole.clone()), |_, _| false)?;
                match hole.clone().next_back() {
                    Some(last) => self.reach(blocks, last),
                    None => Ok(()),
                }
            }
        }
    }

    /// Has the file reach at least to the end of a block's prefix.
    fn reach(&self, blocks: &mut Blocks<'_>, block: u64) -> Result<(), redb::StorageError> {
        if last_block(blocks, self.number)?.is_none_or(|(last, _)| last < block) {
            blocks.insert((self.number, block), &HOLE[..])?;
        }
        Ok(())
    }

    /// Clause 6: a gap reads as zeros, what is behind the end of the last row is not there.
    fn read_rows(
        &self,
        wanted: &Range<u64>,
        geometry: Geometry,
        into: &mut [u8],
    ) -> Result<usize, TargetError> {
        let stride = place(geometry.stride_bytes());
        look(&self.database, |transaction| {
            let blocks = transaction.open_table(BLOCKS)?;
            let bytes = match last_block(&blocks, self.number)? {
                Some((last, len)) if wanted.contains(&last) => {
                    place(last - wanted.start) * stride + len
                }
                Some((last, _)) if last >= wanted.end => place(wanted.end - wanted.start) * stride,
                _ => return Ok(0),
            };
            into[..bytes].fill(0);
            for row in blocks.range(rows(self.number, wanted.clone()))? {
                let (key, row) = row?;
                let at = place(key.value().1 - wanted.start) * stride;
                into[at..at + row.value().len()].copy_from_slice(row.value());
            }
            Ok(bytes)
        })
    }

    /// The header, if it is still what was read: the prologue at 0, and one slot's MAC.
    fn checked_header(
        &self,
        transaction: &WriteTransaction,
        expect: &SlotExpectation,
    ) -> Result<Vec<u8>, TargetError> {
        let headers = transaction.open_table(HEADERS).map_err(failed("opening the headers"))?;
        let stored = headers.get(self.number).map_err(failed("reading a header"))?;
        let header = stored.map(|header| header.value().to_vec()).unwrap_or_default();
        let mac = place(expect.mac_offset);
        let same = header.starts_with(&expect.prologue)
            && header.get(mac..mac + expect.mac.len()) == Some(&expect.mac[..]);
        if same {
            return Ok(header);
        }
        let context = "the header is no longer what was read";
        Err(TargetError::new(TargetErrorKind::Conflict, context))
    }
}

impl fmt::Debug for RedbFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedbFile").field("number", &self.number).finish_non_exhaustive()
    }
}

/// The nonce of a stored block; `None` for a hole.
fn nonce(stored: &[u8]) -> Option<Nonce> {
    let prefix = stored.first_chunk::<{ HOLE.len() }>().filter(|prefix| **prefix != HOLE)?;
    let nonce = prefix.first_chunk().expect("a prefix begins with the nonce");
    Some(Nonce::from_bytes(*nonce))
}

fn place(at: u64) -> usize {
    usize::try_from(at).expect("what is in memory is as large as memory at most")
}

/// Who holds the size of a file; a guard that any thread may drop.
#[derive(Debug, Default)]
pub(crate) struct SizeHeld {
    held: Mutex<bool>,
    freed: Condvar,
}

impl SizeHeld {
    fn hold(this: Arc<SizeHeld>) -> SizeLock {
        struct Guard(Arc<SizeHeld>);
        impl Drop for Guard {
            fn drop(&mut self) {
                *self.0.held.lock().unwrap_or_else(PoisonError::into_inner) = false;
                self.0.freed.notify_one();
            }
        }
        let held = this.held.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = this.freed.wait_while(held, |held| *held);
        *waited.unwrap_or_else(PoisonError::into_inner) = true;
        SizeLock::new(Guard(this))
    }
}

/// Stored bytes of one transaction, at most.
const MAX_WRITE_BYTES: u64 = 4 << 20;

//! The redo journal: what makes overwriting sealed blocks in place atomic.
//!
//! Before blocks that a file has are written over, the new ones are written, whole, to a log beside
//! the file; then they are written in place. Whoever next takes the file's lock and finds in the log
//! what was not carried out does so first. So a process that is killed, or a machine that loses power,
//! leaves each block as it was or as it was to be. The bytes are in `crypto/FORMAT.md`, "Beside the
//! sealed file".
//!
//! ```text
//!  write ──► record: old prefixes, new bytes, a hash ──► [disk has it] ──► in place ──► head: carried out
//!                              │ killed, or power lost, from here on
//!                              └──► whoever comes next: redo ──► [disk has the file] ──► a new log
//! ```
//!
//! Who need not survive a power cut waits for no disk, and begins the log anew with each write. Who
//! must waits once for each write, for the log; the file itself has to be on the disk only before the
//! log begins anew, which a barrier sees to in passing. What goes behind the committed size is not
//! overwriting, and costs nothing.
//!
//! Called under the file's lock, but for [`is_behind`]. Knows nothing of files: what it reads
//! and writes are [`Flat`]s.
//!
//! **Invariants:**
//! 1. No byte of a block that the file has is written before a whole record of it is in the log, and on
//!    the disk, if that is waited for.
//! 2. A log begins anew only when all of it was carried out, and, where that is waited for, the disk
//!    has what was written.
//! 3. What stood in place when a durable record was written was durable, or in the log, or nothing;
//!    and the header was durable, without whose generation it would not count.
//! 4. The disk has no durable record of a log whose head does not say that there are such.

use std::{
    fs::File,
    io,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tracing::info;

use crate::{Durability, flat::Flat};

mod head;
mod journaled;
mod record;
mod redo;
#[cfg(test)]
mod tests;

use head::Head;
use journaled::Journaled;
use record::Record;
use redo::redo;

/// What is hashed in one go, at least, if there is as much.
const GATHERED_BYTES: usize = 64 << 10;

/// Whose journal it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner<'a> {
    /// What the file's things beside it are called.
    pub(crate) stem: &'a str,
    /// Which stored file it is: a copy of a sealed file has its id, and so its journal.
    pub(crate) inode: u64,
    /// What tells this run of the machine from others.
    pub(crate) run: [u8; 16],
}

impl Owner<'_> {
    fn hasher(&self, parts: &[&[u8]]) -> blake3::Hasher {
        let mut hasher = blake3::Hasher::new();
        // BLAKE3 takes many KiB at once, side by side; blocks here and there come in small pieces.
        let mut gathered = self.stem.as_bytes().to_vec();
        for part in parts {
            if gathered.len() + part.len() > GATHERED_BYTES {
                hasher.update(&gathered);
                gathered.clear();
            }
            if part.len() > GATHERED_BYTES {
                hasher.update(part);
            } else {
                gathered.extend_from_slice(part);
            }
        }
        hasher.update(&gathered);
        hasher
    }

    fn hash(&self, parts: &[&[u8]]) -> [u8; 32] {
        *self.hasher(parts).finalize().as_bytes()
    }
}

/// What there is around a file.
pub(crate) trait Surroundings {
    /// The stored file of that number, if it is still there, and has the same file id.
    fn find(&self, owner: &Owner<'_>, inode: u64) -> Option<File>;

    /// Waits until the disk has what was written to any file.
    fn sync_everything(&self) -> io::Result<()>;

    /// Waits until the disk has the journal's name.
    fn sync_journal_name(&self) -> io::Result<()>;

    /// Gives up the room that is kept for journals on a full disk; whether there was any.
    fn free_reserve(&self) -> bool;

    /// Keeps that room again, if there is as much.
    fn renew_reserve(&self);
}

/// A file, its journal, and what is around them.
pub(crate) struct Files<'a> {
    pub(crate) owner: Owner<'a>,
    pub(crate) data: &'a mut dyn Flat,
    pub(crate) log: &'a mut dyn Flat,
    pub(crate) around: &'a dyn Surroundings,
}

/// What one handle knows of a file's journal.
#[derive(Debug)]
pub(crate) struct Journal {
    durability: Durability,
    known: Mutex<Known>,
}

#[derive(Clone, Debug)]
struct Known {
    /// The head as this handle left it: nobody has changed anything since if it is still that.
    left: Option<Box<Head>>,
    /// The disk has what the log speaks of, as far as `left` goes.
    synced: bool,
    /// How far the file has come, as far as this handle had to do with it.
    seen: Seen,
    /// How much of that the disk has for certain, without the log.
    on_disk: Seen,
    /// The log was written to.
    used: bool,
    /// The disk has the journal's name.
    named: bool,
}

/// A moment in a file's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    /// So often something was written that neither the disk nor the log need have.
    changes: u64,
    /// The generation that the header claims.
    generation: u64,
}

impl Journal {
    pub(crate) fn new(durability: Durability) -> Journal {
        // What was written before this handle came need not be on the disk.
        let [on_disk, seen] = [0, 1].map(|changes| Seen { changes, generation: 0 });
        let known = Known { left: None, synced: false, seen, on_disk, used: false, named: false };
        Journal { durability, known: Mutex::new(known) }
    }

    /// Runs a step that may change the file, after what was left half done.
    pub(crate) fn run<R>(
        &self,
        files: &mut Files<'_>,
        step: impl FnOnce(&mut dyn Flat) -> R,
    ) -> io::Result<R> {
        let head = self.settle(files)?;
        let mut journaled = Journaled::new(self, head, files);
        let result = step(&mut journaled);
        journaled.finish();
        Ok(result)
    }

    /// Carries out what was left half done, and returns the head. Of records of this run nobody was
    /// told yet that they went through.
    fn settle(&self, files: &mut Files<'_>) -> io::Result<Head> {
        let Files { owner, data, log, around } = files;
        let Pending { head, records } = Pending::find(*log, owner)?;
        let Some(last) = records.last() else { return Ok(head) };
        info!(target: "sealback::journal", file_id = owner.stem, n_groups = records.len(), "redoing");
        // One log speaks of one file: of this one, or of one that this is a copy of.
        let elsewhere =
            if last.inode == owner.inode { None } else { around.find(owner, last.inode) };
        match elsewhere {
            Some(file) => {
                redo(&records, *log, &mut &file, owner)?;
                file.sync_data()?;
            }
            None => redo(&records, *log, *data, owner)?,
        }
        data.sync()?;
        let head = head.next_log(owner);
        head.write(*log, owner)?;
        if records.iter().any(|record| record.durable) {
            // They must not be found again once the file has gone on.
            log.sync()?;
        }
        let mut known = self.known();
        (known.left, known.synced) = (Some(Box::new(head)), true);
        Ok(head)
    }

    /// Something was written that did not go through here.
    pub(crate) fn written_beside(&self) {
        self.known().seen.changes += 1;
    }

    /// Whether the disk is waited for.
    fn waits_for_disk(&self) -> bool {
        self.durability == Durability::PowerCut
    }

    /// Waits until the disk has what this handle wrote, if that is waited for and it has to be asked.
    pub(crate) fn barrier<E>(&self, sync: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
        let before = self.known().clone();
        if !self.waits_for_disk() || before.on_disk.changes >= before.seen.changes {
            return Ok(());
        }
        sync()?;
        let mut known = self.known();
        known.has_on_disk(before.seen);
        known.synced |= known.left == before.left;
        Ok(())
    }

    /// Empties the log of a file that this handle will not write to any more.
    pub(crate) fn close(&self, files: &mut Files<'_>) -> io::Result<()> {
        let head = self.settle(files)?;
        let Files { owner, data, log, .. } = files;
        if head.durable {
            if head.inode != owner.inode {
                return Ok(());
            }
            let known = self.known().clone();
            if !(known.synced && known.is_left_as(&head)) {
                data.sync()?;
            }
        }
        log.set_len(0)?;
        if head.durable { log.sync() } else { Ok(()) }
    }

    /// Whether this handle wrote to the log.
    pub(crate) fn was_used(&self) -> bool {
        self.known().used
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// Whether nobody has changed anything since this handle did.
    fn is_left_as(&self, head: &Head) -> bool {
        self.left.as_deref() == Some(head)
    }

    /// The disk has what was there at a moment. Others may wait for later ones meanwhile.
    fn has_on_disk(&mut self, moment: Seen) {
        let Seen { changes, generation } = moment;
        self.on_disk.changes = self.on_disk.changes.max(changes);
        self.on_disk.generation = self.on_disk.generation.max(generation);
    }
}

/// Whether a log has something that was not carried out. May be called without the lock: a write that is
/// under way looks like one that was killed.
pub(crate) fn is_behind(log: &dyn Flat, owner: &Owner<'_>) -> io::Result<bool> {
    Ok(!Pending::find(log, owner)?.records.is_empty())
}

/// Whether a log speaks of another file than its owner.
pub(crate) fn speaks_of_another(log: &dyn Flat, owner: &Owner<'_>) -> io::Result<bool> {
    let Pending { head, records } = Pending::find(log, owner)?;
    let last = records.last().map_or(head.inode, |record| record.inode);
    Ok(last != owner.inode)
}

/// What a log has that was not carried out.
struct Pending {
    head: Head,
    records: Vec<Record>,
}

impl Pending {
    fn find(log: &dyn Flat, owner: &Owner<'_>) -> io::Result<Pending> {
        let mut pending = Pending { head: Head::none(owner), records: Vec::new() };
        if log.len()? == 0 {
            return Ok(pending);
        }
        let head = Head::read(log, owner)?;
        pending.head = head.unwrap_or(pending.head);
        if head.is_some_and(|head| head.run == owner.run) {
            pending.scan(log, owner, pending.head.applied)?;
            return Ok(pending);
        }
        // The machine was started since, or a crash left no head: what the head says was carried out
        // need not be on the disk.
        pending.scan(log, owner, LOG_START)?;
        pending.head = pending.head.next_log(owner);
        Ok(pending)
    }

    /// Finds the records from a place on that follow one another in one log, this head's or a later one.
    fn scan(&mut self, log: &dyn Flat, owner: &Owner<'_>, from: u64) -> io::Result<()> {
        let mut at = from;
        let is_first = from == LOG_START;
        let mut epoch = if is_first { None } else { Some(self.head.epoch) };
        let least = self.head.epoch;
        while at <= LOG_BYTES {
            let follows = |of: u64| epoch.map_or(of >= least, |epoch| of == epoch);
            let Some(record) = Record::read(log, at, owner, follows)? else { break };
            epoch = Some(record.epoch);
            self.head.epoch = record.epoch;
            at = record.end;
            self.records.push(record);
        }
        Ok(())
    }
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&bytes[at..at + N]);
    field
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(field(bytes, at))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(field(bytes, at))
}

/// Where the first record of a log stands.
const LOG_START: u64 = 512;
/// Records share no sector.
const RECORD_ALIGN: u64 = 512;
/// A log that would be longer than that begins anew, once it may.
const LOG_BYTES: u64 = 8 << 20;
/// What a record takes at most, so that none that somebody has made up takes all memory.
const RECORD_BYTES: u64 = 64 << 20;

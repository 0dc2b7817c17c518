//! A file whose overwritten blocks go to the journal first.

use std::{
    io::{self, IoSlice},
    ops::Range,
};

use sealback_crypto::{HEADER_BYTES, MAX_FILE_BYTES};
use tracing::trace;

use super::{
    Files, Journal, LOG_BYTES, RECORD_BYTES,
    head::Head,
    record::{NewRecord, Overwritten, Record},
    redo::claims,
};
use crate::{
    Durability, Segment, Write,
    flat::{Flat, Through},
};

/// The file, for one step under its lock.
pub(super) struct Journaled<'a, 'f> {
    journal: &'a Journal,
    head: Head,
    files: &'a mut Files<'f>,
    /// Where the record ends that speaks of what is being written.
    record_end: Option<u64>,
    /// Whether that record speaks of all of it.
    covered: bool,
    changed: bool,
    failed: bool,
    /// The disk is full: the log stands where room was kept for it.
    borrowed: bool,
}

impl<'a, 'f> Journaled<'a, 'f> {
    pub(super) fn new(journal: &'a Journal, head: Head, files: &'a mut Files<'f>) -> Self {
        let (record_end, covered, changed) = (None, false, false);
        let (failed, borrowed) = (false, false);
        Journaled { journal, head, files, record_end, covered, changed, failed, borrowed }
    }

    /// Writes the record of what a write goes over.
    fn record(&mut self, write: &Write) -> io::Result<()> {
        let Some(geometry) = write.segments.first().map(Segment::geometry) else {
            return Ok(());
        };
        let claims = claims(self.files.data)?;
        let n_blocks = geometry.n_blocks(claims.size.min(MAX_FILE_BYTES));
        let Overwritten { entries, payload, all } =
            Overwritten::by(write, n_blocks, self.files.data)?;
        self.covered = all;
        if entries.is_empty() {
            return Ok(());
        }
        self.journal.known().seen.generation = claims.generation;
        let (durable, generation) = (self.journal.waits_for_disk(), claims.generation);
        let record = NewRecord { geometry, durable, generation, entries, payload };
        if record.log_bytes() > RECORD_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "more than a record takes"));
        }
        self.make_room(record.log_bytes())?;
        self.journal.known().used = true;
        let mut written = self.write_record(&record);
        if written.as_ref().is_err_and(is_full) && self.files.around.free_reserve() {
            self.borrowed = true;
            written = self.write_record(&record);
        }
        if let Err(error) = written {
            // Whoever hears that it failed must not find it carried out.
            drop(Record::void(self.files.log, self.head.applied));
            self.journal.known().left = None;
            return Err(error);
        }
        let bytes = record.log_bytes();
        trace!(target: "sealback::journal", file_id = self.files.owner.stem, bytes, durable, "begun");
        self.record_end = Some(self.head.applied + bytes);
        Ok(())
    }

    fn write_record(&mut self, record: &NewRecord<'_>) -> io::Result<()> {
        record.write(self.files.log, &self.head, &self.files.owner)?;
        self.wait_for_log()
    }

    /// Begins the log anew where that can be done, or must be.
    fn make_room(&mut self, bytes: u64) -> io::Result<()> {
        let known = self.journal.known().clone();
        let is_known = known.is_left_as(&self.head);
        let starts_anew = if self.journal.waits_for_disk() {
            let fits = self.head.applied.saturating_add(bytes) <= LOG_BYTES;
            let has_header = known.seen.generation <= known.on_disk.generation;
            let must_wait = !is_known || !has_header || !(known.synced || fits);
            if must_wait {
                self.sync_all_of_it()?;
            }
            must_wait || known.synced
        } else {
            self.retire()?;
            true
        };
        if starts_anew {
            self.head = self.head.next_log(&self.files.owner);
            self.head.durable = self.journal.waits_for_disk();
        }
        Ok(())
    }

    /// Waits until the disk has all that the log speaks of, and what stands in this file now.
    fn sync_all_of_it(&mut self) -> io::Result<()> {
        if self.head.durable && self.head.inode != self.files.owner.inode {
            self.files.around.sync_everything()?;
        }
        self.files.data.sync()?;
        // Who holds the lock knows that nobody writes meanwhile.
        let mut known = self.journal.known();
        let seen = known.seen;
        known.has_on_disk(seen);
        Ok(())
    }

    fn wait_for_log(&mut self) -> io::Result<()> {
        if !self.journal.waits_for_disk() {
            return Ok(());
        }
        self.files.log.sync()?;
        if !self.journal.known().named {
            self.files.around.sync_journal_name()?;
            self.journal.known().named = true;
        }
        Ok(())
    }

    /// Notes that the file was changed. After it was: a barrier that begins in between has not waited
    /// for it.
    fn note(&mut self, failed: bool) {
        self.changed = true;
        self.failed |= failed;
        if !self.covered {
            self.journal.known().seen.changes += 1;
        }
    }

    /// Ends the log, for good, if it has durable records: what is cut away must not come back, nor what
    /// somebody goes over who does not wait for the disk.
    fn retire(&mut self) -> io::Result<()> {
        if !self.head.durable {
            return Ok(());
        }
        self.sync_all_of_it()?;
        self.head = self.head.next_log(&self.files.owner);
        self.head.write(self.files.log, &self.files.owner)?;
        self.files.log.sync()?;
        let mut known = self.journal.known();
        (known.left, known.synced) = (Some(Box::new(self.head)), true);
        Ok(())
    }

    /// Says in the head what has been carried out.
    pub(super) fn finish(mut self) {
        self.say_what_was_done();
        if self.borrowed {
            // Room that cannot be had now is kept by whoever begins a file next.
            drop(self.journal.close(self.files));
            self.files.around.renew_reserve();
        }
    }

    fn say_what_was_done(&mut self) {
        if self.failed && self.record_end.is_some() {
            let mut known = self.journal.known();
            known.left = None;
            known.seen.changes += 1;
            drop(known);
            // If it fails again, it is the next one's to do.
            drop(self.journal.settle(self.files));
            return;
        }
        // Who does not wait for the disk says that he was here, if there is somebody to tell.
        let tells = self.changed
            && !self.journal.waits_for_disk()
            && self.files.log.len().is_ok_and(|bytes| bytes > 0);
        if self.record_end.is_none() && !tells {
            return;
        }
        if let Some(end) = self.record_end {
            self.head.applied = end;
        }
        self.head.changes = self.head.changes.wrapping_add(1);
        let written = self.head.write(self.files.log, &self.files.owner);
        let mut known = self.journal.known();
        known.left =
            (written.is_ok() && self.journal.waits_for_disk()).then(|| Box::new(self.head));
        known.synced = false;
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::QuotaExceeded | io::ErrorKind::StorageFull)
}

impl Flat for Journaled<'_, '_> {
    fn begin(&mut self, write: &Write) -> io::Result<()> {
        if self.journal.durability == Durability::None { Ok(()) } else { self.record(write) }
    }

    fn len(&self) -> io::Result<u64> {
        self.files.data.len()
    }

    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<usize> {
        self.files.data.read_at(at, into)
    }

    fn write_at(&mut self, at: u64, pieces: &mut [IoSlice<'_>]) -> Through {
        let through = self.files.data.write_at(at, pieces);
        self.note(through.error.is_some());
        if at < HEADER_BYTES as u64
            && self.journal.waits_for_disk()
            && let Ok(claims) = claims(self.files.data)
        {
            self.journal.known().seen.generation = claims.generation;
        }
        through
    }

    fn punch(&mut self, stored: Range<u64>) -> io::Result<bool> {
        let punched = self.files.data.punch(stored);
        self.note(punched.is_err());
        punched
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        if len < self.files.data.len()? {
            self.retire()?;
        }
        let set = self.files.data.set_len(len);
        self.note(set.is_err());
        set
    }

    fn sync(&mut self) -> io::Result<()> {
        self.files.data.sync()
    }
}

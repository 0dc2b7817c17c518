//! What is uploaded of one file's log: a segment that does not change until that is done.

use std::{
    fmt, io,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use sealback_crypto::{Buffer, Stored};

use super::{
    log::{WriteLog, index, stride_len, unless_full, unread},
    progress::Progress,
    segment::{self, LoggedBlock, Promise, Segment},
};
use crate::TargetError;

/// What is being uploaded; dropped unfinished, it is uploaded another time.
pub struct Upload<'a> {
    log: &'a WriteLog,
    number: u64,
    segment: Arc<Segment>,
    progress: Mutex<Progress>,
    /// What was noted before: ascending, and neither overlapping nor touching.
    sent: Vec<Range<u64>>,
    _alone: MutexGuard<'a, ()>,
}

impl<'a> Upload<'a> {
    pub(super) fn new(
        log: &'a WriteLog,
        (number, segment): (u64, Arc<Segment>),
        (progress, noted): (Progress, Vec<Range<u64>>),
        alone: MutexGuard<'a, ()>,
    ) -> Upload<'a> {
        let mut sent = Vec::new();
        noted.into_iter().for_each(|blocks| segment::add(&mut sent, blocks));
        Upload { log, number, segment, progress: Mutex::new(progress), sent, _alone: alone }
    }

    /// Each block that was written and is not noted to be on the server, ascending: one that is must not be
    /// sent again, whoever has changed it since. What is noted from now on does not count.
    pub fn blocks(&self) -> impl Iterator<Item = (u64, &LoggedBlock)> {
        let blocks = self.segment.blocks().iter().map(|(block, logged)| (*block, &**logged));
        blocks.filter(|(block, _)| !self.was_sent(*block))
    }

    fn was_sent(&self, block: u64) -> bool {
        let at = self.sent.partition_point(|sent| sent.end <= block);
        self.sent.get(at).is_some_and(|sent| sent.contains(&block))
    }

    /// Whether it is noted that all of it is on the server, and a header that speaks for it: it is to be
    /// [finished](Upload::finish).
    pub fn is_committed(&self) -> bool {
        self.sent == [EVERYTHING]
    }

    /// Notes that a header speaks for all of it.
    ///
    /// # Errors
    /// As for [`note_sent`](Upload::note_sent).
    pub fn note_committed(&self) -> Result<(), TargetError> {
        self.note_sent(EVERYTHING)
    }

    /// What was noted does not count: the server has gone back to an earlier state.
    pub fn forget_sent(&mut self) {
        self.sent.clear();
    }

    /// Notes that the server has taken blocks, all of which a header on the server speaks for: what lies behind
    /// the file's end there may still become somebody else's.
    ///
    /// # Errors
    /// [`TargetError`] if it cannot be written.
    pub fn note_sent(&self, blocks: Range<u64>) -> Result<(), TargetError> {
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        let noted = progress
            .note(blocks)
            .and_then(|()| if self.log.waits_for_disk() { progress.sync() } else { Ok(()) });
        unless_full(noted.map_err(|error| TargetError::from_io("noting what was uploaded", error)))
    }

    /// What was promised of the file.
    pub fn promised(&self) -> Promise {
        self.segment.promised().cloned().unwrap_or_default()
    }

    /// The stored bytes of consecutive blocks, all of which were written.
    ///
    /// # Errors
    /// [`TargetError`] if one was not, or the log cannot be read.
    pub fn read(&self, blocks: Range<u64>) -> Result<Stored, TargetError> {
        let stride = stride_len(self.log.geometry());
        let mut buffer = Buffer::unpooled(index(blocks.end - blocks.start) * stride);
        let mut len = 0;
        for block in blocks.clone() {
            let at = index(block - blocks.start) * stride;
            let logged = self.segment.blocks().get(&block);
            let logged = logged.ok_or_else(|| unread(io::ErrorKind::NotFound.into()))?;
            len = at + self.segment.read(logged, &mut buffer[at..at + stride]).map_err(unread)?;
        }
        Ok(Stored { buffer, len })
    }

    /// All of it is on the server, durably, with a header that speaks for it: the log lets go of it.
    ///
    /// # Errors
    /// [`TargetError`] if the log's file cannot be removed: it is uploaded once more.
    pub fn finish(self) -> Result<(), TargetError> {
        self.log.let_go(self.number, &self.segment)
    }
}

/// More blocks than any file has.
const EVERYTHING: Range<u64> = 0..u64::MAX;

impl fmt::Debug for Upload<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Upload").field(self.log.name()).finish()
    }
}

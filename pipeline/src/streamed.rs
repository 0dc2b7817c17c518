//! Writing what a reader yields, as fast as it comes: in memory that stays in the processor's cache.
//!
//! Whoever streams into a new file is not likely to read it soon. Left to themselves, its folios would be
//! written back when a share of the memory is dirty, which the cache has long lost by then, and stay
//! until others need the room. Here they are written back after a few MiB, and their memory goes to those
//! that follow, as it is: what overwrites it wipes it. So a stream does not drive out what other files
//! have in the memory.
//!
//! Where the server keeps the file in chunks, whole chunks are written back, if the memory has room for one:
//! part of a chunk costs as much, and then what it takes to read it and put it anew.

use std::io;

use sealback_crypto::{MAX_FILE_BYTES, Plaintext};

use crate::{
    Error, WriteKind,
    folio::FolioBytes,
    following::{Following, Step, Unit},
    open_file::OpenFile,
    origin::Subject,
    pass::PassKind,
    ranges::index_of,
    sync::Arc,
};

/// Plaintext after which a stream has what it wrote written back.
const STEP_BYTES: u64 = 1 << 20;
/// Plaintext by which it is ahead of what is being written back, at most, when it has taken a step: where
/// the server takes whatever it gets.
const LEAD_BYTES: u64 = 3 << 20;

impl OpenFile {
    /// As [`File::write_from`](crate::File::write_from).
    pub(crate) fn write_from(
        self: &Arc<Self>,
        position: u64,
        source: &mut dyn io::Read,
        mut each: impl FnMut(u64),
    ) -> Result<(u64, io::Result<()>), Error> {
        self.core.check_open()?;
        if position > MAX_FILE_BYTES {
            return Err(Error::TooLarge);
        }
        let (start, at, pace) = (position, position, Pace::of(self));
        let mut writing = StreamedWrite { file: self, start, at, pace, following: None };
        // Folios before this position have left the memory again.
        let mut kept_from = position;
        loop {
            self.throttle()?;
            let memory = match self.oldest_memory(&mut kept_from, writing.at) {
                Some(memory) => memory,
                None => self.folio_memory()?,
            };
            let (len, ended) = self.write_folio_from(writing.at, source, memory)?;
            let steps = writing.at / STEP_BYTES;
            writing.at += len as u64;
            each(writing.at - position);
            if let Some(ended) = ended {
                return Ok((writing.at - position, ended));
            }
            if writing.at / STEP_BYTES > steps {
                writing.keep_near()?;
            }
        }
    }

    /// The memory of the first folio that the stream wrote and that still has some, if that is on the
    /// server by now: with what it holds.
    fn oldest_memory(&self, kept_from: &mut u64, end: u64) -> Option<FolioBytes> {
        let mut folios = self.folios();
        while *kept_from < end {
            let (folio, positions) = folios.folio_at(*kept_from);
            let memory = folios.take_memory(folio);
            if memory.is_none() && folios.has(folio) {
                return None;
            }
            *kept_from = positions.end;
            if memory.is_some() {
                return memory;
            }
        }
        None
    }

    /// Fills the rest of a folio, in `memory`, whatever that holds. Returns how many bytes it wrote, and
    /// how reading ended, if it has.
    fn write_folio_from(
        self: &Arc<Self>,
        at: u64,
        source: &mut dyn io::Read,
        mut memory: FolioBytes,
    ) -> Result<(usize, Option<io::Result<()>>), Error> {
        let (_, positions) = self.folios().folio_at(at);
        let room = index_of(positions.end - at);
        let read = read_full(source, &mut memory.as_mut_slice()[..room]);
        let (len, ended) = match read {
            Ok(len) => (len, (len < room).then_some(Ok(()))),
            Err((len, error)) => (len, Some(Err(error))),
        };
        memory.wipe_from(len);
        if at + len as u64 > MAX_FILE_BYTES {
            return Err(Error::TooLarge);
        }
        let mut memory = Some(memory);
        self.following_cuts(|| self.replace_folio(at, &mut memory, len))?;
        if let Some(unused) = memory {
            let data = Plaintext::from(&unused.as_ref()[..len]);
            // Who waits for memory holds none that others wait for.
            drop(unused);
            self.following_cuts(|| self.write(at, &data))?;
        }
        Ok((len, ended))
    }
}

/// How a stream is written back.
#[derive(Clone, Copy, Debug)]
struct Pace {
    /// What goes together.
    unit: Unit,
    /// Plaintext by which it is ahead of what is being written back, at most, when it has taken a step.
    lead_bytes: u64,
}

impl Pace {
    fn of(file: &OpenFile) -> Pace {
        let geometry = file.geometry();
        let chunk_bytes = u64::from(geometry.chunk_blocks()) * geometry.block_bytes();
        // One is filled while others are with the server: whoever waits has filled one.
        let lead_bytes = chunk_bytes + 2 * STEP_BYTES;
        if chunk_bytes > 0 && lead_bytes < file.core.room_beside(chunk_bytes, geometry) {
            return Pace { unit: Unit::of_bytes(file, chunk_bytes), lead_bytes };
        }
        Pace { unit: Unit::of(file), lead_bytes: LEAD_BYTES }
    }
}

/// A stream into a file, and the pass that follows it.
struct StreamedWrite<'a> {
    file: &'a Arc<OpenFile>,
    start: u64,
    /// The position before which all is written to the folios.
    at: u64,
    pace: Pace,
    following: Option<Following>,
}

impl StreamedWrite<'_> {
    /// Has what is there by now written back, and waits for what is too far behind.
    fn keep_near(&mut self) -> Result<(), Error> {
        let file = self.file;
        // Only of a draft a pass takes no lock and commits nothing.
        if !file.is_draft() {
            return Ok(());
        }
        if !self.following.as_ref().is_some_and(|following| following.takes(file, self.at)) {
            self.begin_pass();
        }
        let lead = || file.folios().dirty_bytes();
        let lead_bytes = self.pace.lead_bytes;
        if lead() <= lead_bytes {
            return Ok(());
        }
        // It goes on when it can take a step, not with every folio.
        let folio_bytes = file.core.folios.folio_bytes() as u64;
        let is_near = || match lead().saturating_sub(lead_bytes - STEP_BYTES) {
            0 => Ok(()),
            too_far => Err(too_far.div_ceil(folio_bytes)),
        };
        file.wait_for_writeback(is_near, || ())
    }

    /// Has a pass follow, if none runs and nothing else goes first: one that came to the stream's end
    /// would have to be waited for, with nothing to seal, before the next.
    fn begin_pass(&mut self) {
        self.leave();
        let subject = Subject { kind: WriteKind::Background, range: self.start..self.at };
        let idle = (self.file.n_older_groups() == 0).then(|| self.file.idle_in_background());
        match idle.flatten() {
            Some(idle) => {
                let following = self.file.follow(idle, subject, (self.pace.unit, Step::Open));
                self.following = Some(following);
            }
            None => self.file.kick(PassKind::Background, || true),
        }
    }

    fn leave(&mut self) {
        if let Some(following) = self.following.take() {
            following.give_way();
        }
    }
}

impl Drop for StreamedWrite<'_> {
    fn drop(&mut self) {
        self.leave();
    }
}

fn read_full(source: &mut dyn io::Read, to: &mut [u8]) -> Result<usize, (usize, io::Error)> {
    let mut len = 0;
    while len < to.len() {
        match source.read(&mut to[len..]) {
            Ok(0) => break,
            Ok(n) => len += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err((len, error)),
        }
    }
    Ok(len)
}

//! Writing what a reader yields, as fast as it comes: in memory that stays in the processor's cache.
//!
//! Whoever streams into a new file is not likely to read it soon. Left to themselves, its folios would be
//! written back when a share of the memory is dirty, which the cache has long lost by then, and stay
//! until others need the room. Here they are written back after a few MiB, and their memory goes to those
//! that follow, as it is: what overwrites it wipes it. So a stream does not drive out what other files
//! have in the memory.

use std::io;

use sealback_crypto::MAX_FILE_BYTES;
use zeroize::{Zeroize, Zeroizing};

use crate::{
    Error, folio::FolioBytes, open_file::OpenFile, pass::PassKind, ranges::index_of, sync::Arc,
};

/// Plaintext after which a stream has what it wrote written back.
const STEP_BYTES: u64 = 4 << 20;
/// Plaintext by which a stream is ahead of the server, at most, when it has taken a step.
const LEAD_BYTES: u64 = 16 << 20;

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
        let mut at = position;
        // Folios before this position have left the memory again.
        let mut kept_from = position;
        loop {
            self.throttle()?;
            let memory = match self.oldest_memory(&mut kept_from, at) {
                Some(memory) => memory,
                None => self.folio_memory()?,
            };
            let (len, ended) = self.write_folio_from(at, source, memory)?;
            let steps = at / STEP_BYTES;
            at += len as u64;
            each(at - position);
            if let Some(ended) = ended {
                return Ok((at - position, ended));
            }
            if at / STEP_BYTES > steps {
                self.keep_near()?;
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
        memory.as_mut_slice()[len..].zeroize();
        if at + len as u64 > MAX_FILE_BYTES {
            return Err(Error::TooLarge);
        }
        let mut memory = Some(memory);
        self.following_cuts(|| self.replace_folio(at, &mut memory, len))?;
        if let Some(unused) = memory {
            let data = Zeroizing::new(unused.as_ref()[..len].to_vec());
            // Who waits for memory holds none that others wait for.
            drop(unused);
            self.following_cuts(|| self.write(at, &data))?;
        }
        Ok((len, ended))
    }

    /// Has what is there by now written back, and waits for what is too far behind.
    fn keep_near(self: &Arc<Self>) -> Result<(), Error> {
        // Only of a draft a pass takes no lock and commits nothing.
        if !self.is_draft() {
            return Ok(());
        }
        self.kick(PassKind::Background);
        let is_near = || (self.folios().dirty_bytes() <= LEAD_BYTES).then_some(());
        self.wait_for_writeback(is_near, || ())
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

//! Reading what waits, without the server: for who decides that it is not to be uploaded.

use sealback_crypto::{Header, OpenOptions, PREFIX_BYTES, Plaintext};
use sealback_stream::{Pending, Target, WriteLog, read_stored};

use super::{prove, taking::open_logged};
use crate::{Engine, Error, File, Place, ranges::index_of};

impl Engine {
    /// Hands what waits of a file to `take`, piece by piece in ascending order: the position, and the bytes that
    /// were written there. Of a new file that is all of it. The server is not asked for anything, and nothing
    /// changes.
    ///
    /// # Errors
    /// What `take` returns; [`Error::Server`] if the file is damaged here, [`Error::Header`] or
    /// [`Error::Damaged`] if it is another key's, or was altered.
    pub fn read_waiting<E: From<Error>>(
        &self,
        place: &Place<'_>,
        pending: &Pending,
        take: impl FnMut(u64, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let target = pending.file.clone().map_err(Error::server)?;
        match target.behind().and_then(|behind| behind.log()) {
            Some(log) => self.read_logged(place, (&log, &*target), take),
            None => read_all(&self.open_pending(place, pending)?, take),
        }
    }

    fn read_logged<E: From<Error>>(
        &self,
        place: &Place<'_>,
        (log, target): (&WriteLog, &dyn Target),
        mut take: impl FnMut(u64, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let options = OpenOptions { engine: self.core().config.cipher, ..OpenOptions::default() };
        let header = Header::open(&log.header()[..], place.root, &options).map_err(Error::from)?;
        prove(target, &header)?;
        for (block, changed) in log.written() {
            let start = header.geometry().block_start(block);
            let plain = open_block(&header, target, block)?;
            let whole = start..start + plain.len() as u64;
            for at in if changed.is_empty() { vec![whole] } else { changed } {
                let within = index_of(at.start - start)..index_of(at.end - start);
                take(at.start, &plain[within])?;
            }
        }
        Ok(())
    }
}

/// The plaintext of one block that is in the log.
fn open_block(header: &Header, target: &dyn Target, block: u64) -> Result<Plaintext, Error> {
    let geometry = header.geometry();
    let mut stored = read_stored(target, geometry, block..block + 1).map_err(Error::server)?;
    // Of one that was the file's last there is more, if others follow.
    stored.len = stored.block_bytes(geometry, 0).map_or(stored.len, <[u8]>::len);
    let plain_len = stored.len.saturating_sub(PREFIX_BYTES) as u64;
    open_logged(header, (block, plain_len), stored).map(|(_, plain)| plain)
}

fn read_all<E: From<Error>>(
    file: &File,
    mut take: impl FnMut(u64, &[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let (mut bytes, mut at) = (Plaintext::zeros(READ_BYTES), 0);
    loop {
        let len = file.read_at(at, &mut bytes)?;
        if len == 0 {
            return Ok(());
        }
        take(at, &bytes[..len])?;
        at += len as u64;
    }
}

const READ_BYTES: usize = 1 << 20;

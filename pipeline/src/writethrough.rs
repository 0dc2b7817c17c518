//! Writethrough: a write whose folios go to the server one after the other, while it is still being
//! copied in.
//!
//! A pass [follows](crate::following) the writer. What is written lies in the page cache like anything
//! else, and the pass is one of the page cache's: there is no second way from plaintext to a server.
//! When it gives way, the next folio that is filled begins another. So no way out of a writethrough
//! keeps others from writing the file back.

use std::{fmt, ops::Range};

use sealback_crypto::MAX_FILE_BYTES;

use crate::{
    Error, File, WriteKind, WritebackHandle,
    driver::Driver,
    following::{Following, Step, Unit},
    origin::Subject,
    ranges::index_of,
    sync::Arc,
};

/// A write that goes to the server while it is being made: begun by
/// [`File::writethrough`], advanced piece by piece, and ended.
///
/// Each folio (or block, if that is larger) leaves as soon as it is filled, sealed beside the copying
/// of the next. Until then, and if it cannot be stored, it is dirty in the page cache like anything
/// that is written.
///
/// However a writethrough is left, no writeback of the file waits for it. Dropped, it is as if it
/// had been [ended later](Writethrough::end_later), with nobody told of how that ended but, once, each
/// handle's next sync.
///
/// As long as one is open that makes the file longer, it may keep other clients from making it longer,
/// too: it is to be ended soon.
#[must_use = "a writethrough is to be ended"]
pub struct Writethrough {
    file: File,
    range: Range<u64>,
    /// Where what the passes before have not taken begins.
    from: u64,
    pass: Option<Following>,
}

impl File {
    /// Begins a writethrough at `position`: what `O_SYNC` asks for, without its waiting after each
    /// piece.
    ///
    /// ```
    /// # use sealback::{Config, CreateOptions, Engine, Place, crypto::RootKey};
    /// # use sealback::stream::{MemoryOptions, MemoryServer, Name};
    /// # let engine = Engine::new(Config::default())?;
    /// # let (server, root) = (MemoryServer::new(MemoryOptions::default()), RootKey::from_bytes(&[7; 32]));
    /// # let place = Place { server: &server, cache: None, root: &root };
    /// # let name = Name::new("letter").expect("a plain name");
    /// # let file = engine.create(&place, &name, &CreateOptions::default())?;
    /// let mut writing = file.writethrough(0)?;
    /// for piece in vec![7; 1 << 20].chunks(100_000) {
    ///     writing.advance(piece)?; // folios that are filled are on their way
    /// }
    /// writing.end()?; // all of it is on the server, and in the file
    /// assert_eq!((file.size(), file.dirty_bytes()), (1 << 20, 0));
    /// # Ok::<(), sealback::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::TooLarge`] beyond 2^60; [`Error::Closed`].
    pub fn writethrough(&self, position: u64) -> Result<Writethrough, Error> {
        self.file.core.check_open()?;
        if position > MAX_FILE_BYTES {
            return Err(Error::TooLarge);
        }
        let file = self.another();
        Ok(Writethrough { file, range: position..position, from: position, pass: None })
    }
}

impl Writethrough {
    /// Where the next piece goes.
    pub fn position(&self) -> u64 {
        self.range.end
    }

    /// Writes all of `data` behind what was written last. Waits while the memory for folios is full of
    /// dirty ones, and while another writeback of the file runs; not for the server.
    ///
    /// # Errors
    /// As for [`File::write_at`]; and what kept the server from taking what was written before, as for
    /// [`File::sync`]. [`position`](Writethrough::position) says how far it has come; all before is
    /// in the page cache, and is sent again by what follows: more pieces, the end, or a sync.
    pub fn advance(&mut self, data: &[u8]) -> Result<(), Error> {
        let end = self.range.end.checked_add(data.len() as u64);
        end.filter(|end| *end <= MAX_FILE_BYTES).ok_or(Error::TooLarge)?;
        let mut rest = data;
        while !rest.is_empty() {
            let (_, folio) = self.file.file.folios().folio_at(self.range.end);
            let len = rest.len().min(index_of(folio.end - self.range.end));
            let (piece, behind) = rest.split_at(len);
            self.file.write_at(self.range.end, piece)?;
            self.range.end += len as u64;
            rest = behind;
            self.following_cuts(Writethrough::follow)?;
        }
        Ok(())
    }

    /// Ends it: when this returns, all that was written is on the server, and a header speaks for it.
    ///
    /// # Errors
    /// As for [`File::sync_range`]: what could not be stored is dirty, and the next sync tries again.
    pub fn end(mut self) -> Result<(), Error> {
        self.following_cuts(Writethrough::finish)?;
        if self.range.is_empty() { Ok(()) } else { self.file.sync_range(self.range.clone()) }
    }

    /// Ends it, and does not wait: the rest is on its way to the server. [`sync`](File::sync) commits a
    /// header that speaks for it.
    ///
    /// # Errors
    /// As for [`advance`](Writethrough::advance).
    pub fn end_later(mut self) -> Result<WritebackHandle, Error> {
        self.following_cuts(|this| {
            if let Some(driver) = this.complete() {
                return Ok(WritebackHandle { driver });
            }
            this.leave()?;
            Ok(WritebackHandle { driver: this.begin(Step::Complete)?.driver })
        })
    }

    fn following_cuts<T>(
        &mut self,
        mut step: impl FnMut(&mut Self) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.file.file.clone().following_cuts(|| step(self))
    }

    /// Sees to it that a pass takes what is filled.
    fn follow(&mut self) -> Result<(), Error> {
        let to = self.range.end;
        if let Some(following) = &self.pass {
            if following.takes(&self.file.file, to) {
                return Ok(());
            }
            self.leave()?;
        }
        if Unit::of(&self.file.file).filled(to) > self.from {
            self.pass = Some(self.begin(Step::Open)?);
        }
        Ok(())
    }

    fn begin(&self, step: Step) -> Result<Following, Error> {
        let file = &self.file.file;
        let _sizes = file.hold_sizes_for_change()?;
        let idle = file.wait_for_older_groups()?;
        let range = self.from..self.range.end.max(self.from);
        let subject = Subject { kind: WriteKind::Writethrough, range };
        Ok(file.follow(idle, subject, (Unit::of(file), step)))
    }

    /// The pass that follows ends with what is filled.
    fn leave(&mut self) -> Result<(), Error> {
        let Some(following) = self.pass.take() else { return Ok(()) };
        let to = following.give_way();
        self.ended(&following.driver)?;
        self.from = self.from.max(to);
        Ok(())
    }

    /// The pass that follows ends with all there is.
    fn finish(&mut self) -> Result<(), Error> {
        self.complete().map_or(Ok(()), |driver| self.ended(&driver))
    }

    /// Lets the pass that follows, if it still does, take all there is.
    fn complete(&mut self) -> Option<Arc<Driver>> {
        Some(self.pass.take()?.complete(self.range.end))
    }

    fn ended(&self, driver: &Driver) -> Result<(), Error> {
        let result = driver.wait().result;
        // A cut is followed, and not told of.
        if result.as_ref().is_err_and(|error| !matches!(error, Error::Cut { .. })) {
            self.file.told_of_failure();
        }
        result
    }
}

impl Drop for Writethrough {
    fn drop(&mut self) {
        self.complete();
    }
}

impl fmt::Debug for Writethrough {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writethrough").field("range", &self.range).finish_non_exhaustive()
    }
}

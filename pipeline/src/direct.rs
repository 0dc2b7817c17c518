//! Direct writes and reads, past the page cache.
//!
//! A direct write is a pass over the caller's buffer. What the page cache has dirty of the same blocks
//! goes first; a block that is written in part is read, and goes with both, over exactly what was
//! read. What the page cache has clean of the blocks is forgotten when they are stored.

use std::{
    fmt,
    future::Future,
    ops::Range,
    pin::Pin,
    task::{Context, Poll},
};

use sealback_crypto::MAX_FILE_BYTES;

use crate::{
    Error, File, WriteKind,
    driver::Driver,
    open_file::OpenFile,
    operation::Operation,
    origin::Subject,
    pass::PassKind,
    ranges::index_of,
    request::Event,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

mod buffered;

/// A write that grows the file is made again so often, if others keep dirtying what lies before it.
const MAX_ATTEMPTS: u32 = 16;

use buffered::Bytes;

/// What came of a direct write.
#[derive(Debug)]
pub struct Written<B> {
    /// The caller's.
    pub buffer: B,
    /// How many bytes of it, from its start, are on the server, and in the file: all, if the result is
    /// good.
    pub bytes: u64,
    /// What kept the others from getting there. Each of them may be there, or not.
    pub result: Result<(), Error>,
}

/// A direct write that is under way.
///
/// [`wait`](DirectWrite::wait) for it, `.await` it, or have it [call back](DirectWrite::on_done).
/// Dropped, it goes on.
pub struct DirectWrite<B> {
    operation: Operation<Written<B>>,
    cancel: Arc<Cancel>,
}

impl<B> DirectWrite<B> {
    /// Stops it: nothing more of it is sent. What is with the server goes on, and the write ends with
    /// [`Error::Cancelled`] when that has been answered, unless all had been sent.
    pub fn cancel(&self) {
        self.cancel.cancel();
    }

    /// Whether it has ended.
    pub fn is_done(&self) -> bool {
        self.operation.is_done()
    }

    /// Waits for its end.
    pub fn wait(self) -> Written<B> {
        self.operation.wait()
    }

    /// Has `callback` called with what came of it: on the thread that ends it, which must not be held
    /// up, or on this one, now, if it has ended.
    pub fn on_done(self, callback: impl FnOnce(Written<B>) + Send + 'static) {
        self.operation.on_done(callback);
    }
}

impl<B> Future for DirectWrite<B> {
    type Output = Written<B>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Written<B>> {
        Pin::new(&mut self.operation).poll(context)
    }
}

impl<B> fmt::Debug for DirectWrite<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DirectWrite").field("is_done", &self.is_done()).finish()
    }
}

/// Whether a write is to go on.
#[derive(Debug, Default)]
struct Cancel(Mutex<CancelState>);

#[derive(Debug, Default)]
enum CancelState {
    #[default]
    NotBegun,
    UnderWay(Arc<Driver>),
    Cancelled,
}

impl Cancel {
    fn state(&self) -> MutexGuard<'_, CancelState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cancel(&self) {
        let before = std::mem::replace(&mut *self.state(), CancelState::Cancelled);
        if let CancelState::UnderWay(driver) = before {
            driver.post(Event::Cancel);
        }
    }

    fn check(&self) -> Result<(), Error> {
        let cancelled = matches!(*self.state(), CancelState::Cancelled);
        if cancelled { Err(Error::Cancelled) } else { Ok(()) }
    }

    /// From here on it stops what `driver` does.
    fn begun(&self, driver: &Arc<Driver>) {
        let mut state = self.state();
        if matches!(*state, CancelState::Cancelled) {
            drop(state);
            driver.post(Event::Cancel);
        } else {
            *state = CancelState::UnderWay(driver.clone());
        }
    }
}

impl OpenFile {
    /// Writes a buffer at `position`, past the page cache.
    fn write_direct<B: AsRef<[u8]> + Send + Sync + 'static>(
        self: &Arc<Self>,
        position: u64,
        buffer: B,
        cancel: &Cancel,
    ) -> Written<B> {
        let buffer = Arc::new(buffer);
        let mut bytes = 0;
        let result = self.following_cuts(|| {
            // What was there before a cut counts no more.
            bytes = 0;
            let lent = Bytes(buffer.clone());
            let (stored, result) = self.write_lent(position, lent, cancel)?;
            bytes = stored;
            result
        });
        let buffer = Arc::into_inner(buffer).expect("a request that has ended lets go of it");
        Written { buffer, bytes, result }
    }

    fn write_lent(
        self: &Arc<Self>,
        position: u64,
        bytes: Bytes,
        cancel: &Cancel,
    ) -> Result<(u64, Result<(), Error>), Error> {
        let len = (*bytes.0).as_ref().len() as u64;
        let end = position.checked_add(len).filter(|end| *end <= MAX_FILE_BYTES);
        let range = position..end.ok_or(Error::TooLarge)?;
        self.core.check_open()?;
        cancel.check()?;
        if range.is_empty() {
            return Ok((0, Ok(())));
        }
        let sizes = self.hold_sizes_for_change()?;
        // Who appends meanwhile does so behind it.
        let grows = range.end > self.folios().size();
        let _growing = grows.then(|| self.hold_growth(&sizes));
        for _attempt in 0..MAX_ATTEMPTS {
            let (stored_to, result) = self.write_once(&range, bytes.clone(), cancel)?;
            if result.is_err() || self.is_committed(range.end) {
                let counts = stored_to.min(self.committed_to(stored_to)).max(range.start);
                return Ok((counts - range.start, result));
            }
        }
        Err(Error::Conflict { blocks: Vec::new() })
    }

    /// Writes once; returns the position before which everything is stored, and how it ended.
    fn write_once(
        self: &Arc<Self>,
        range: &Range<u64>,
        bytes: Bytes,
        cancel: &Cancel,
    ) -> Result<(u64, Result<(), Error>), Error> {
        self.flush_for_direct(range)?;
        let (known, header) = (self.folios().size(), self.header());
        let buffered = Arc::new(self.buffered(range.clone(), bytes, known)?);
        cancel.check()?;
        let subject = Subject { kind: WriteKind::Direct, range: range.clone() };
        let driver = self.begin_outside(buffered.clone(), (known, range.end), subject)?;
        cancel.begun(&driver);
        let ending = driver.wait();
        if ending.result.is_ok() {
            // What was written behind a cut that somebody else had made is in no file.
            self.look_for_cut(&header)?;
        }
        Ok((buffered.stored_to(), ending.result))
    }

    /// Whether a header speaks for the block that holds what lies before a position. Behind the
    /// committed size others may make holes of what is stored.
    fn is_committed(&self, position: u64) -> bool {
        let geometry = self.geometry();
        let end = geometry.block_start(geometry.blocks_covering(0..position).end);
        let size = self.folios().size();
        self.committed_to(end.min(size)) >= end.min(size)
    }

    /// As far as a header speaks for what is stored before a position. A draft is nobody else's.
    fn committed_to(&self, position: u64) -> u64 {
        if self.is_draft() { position } else { position.min(self.header().size()) }
    }

    /// What is dirty of the same blocks goes before; behind the committed size all that is, since
    /// nothing can be committed before that is.
    fn flush_for_direct(self: &Arc<Self>, range: &Range<u64>) -> Result<(), Error> {
        let geometry = self.geometry();
        if range.end > self.header().size() && !self.is_draft() {
            return self.flush(PassKind::Sync, None).map(drop);
        }
        let blocks = geometry.blocks_covering(range.clone());
        let positions = geometry.block_start(blocks.start)..geometry.block_start(blocks.end);
        if !self.folios().is_dirty_within(&positions) {
            return Ok(());
        }
        self.flush(PassKind::Range { start: blocks.start, end: blocks.end }, None).map(drop)
    }

    /// Reads at `position` into `to`, from the server or the cache's copy, past the page cache; what is
    /// dirty there is written back before.
    fn read_direct(self: &Arc<Self>, position: u64, to: &mut [u8]) -> Result<usize, Error> {
        let _sizes = self.hold_sizes_for_change()?;
        let size = self.folios().size();
        let end = size.min(position.saturating_add(to.len() as u64)).max(position);
        let range = position..end;
        if range.is_empty() {
            return Ok(0);
        }
        self.flush_for_direct(&range)?;
        let len = index_of(range.end - range.start);
        self.read_stored(&range, &mut to[..len], size)?;
        Ok(len)
    }
}

impl File {
    /// Writes a buffer at `position`, past the page cache, and waits until it is on the server. The
    /// buffer comes back. Beyond the end the file grows as the bytes arrive: what was not written leaves
    /// no hole below what was.
    ///
    /// Whole blocks are sealed straight from the buffer, part after part beside the writing of the last;
    /// one that is written in part is read before. What others write to the same bytes at the same time
    /// comes before or after, block by block. Direct writes, and writebacks, of one file follow one
    /// another; so do direct writes beyond the end and other writes there.
    ///
    /// The header is committed if the file grows; [`sync`](File::sync) does so, too.
    ///
    /// # Errors
    /// In [`Written::result`]: as for [`sync`](File::sync), but told to this call alone, with nothing
    /// kept: to be written again by the caller.
    pub fn write_direct<B>(&self, position: u64, buffer: B) -> Written<B>
    where
        B: AsRef<[u8]> + Send + Sync + 'static,
    {
        self.file.write_direct(position, buffer, &Cancel::default())
    }

    /// As [`write_direct`](File::write_direct), and does not wait.
    ///
    /// ```
    /// # use sealback::{Config, CreateOptions, Engine, Place, crypto::RootKey};
    /// # use sealback::stream::{MemoryOptions, MemoryServer, Name};
    /// # let engine = Engine::new(Config::default())?;
    /// # let (server, root) = (MemoryServer::new(MemoryOptions::default()), RootKey::from_bytes(&[7; 32]));
    /// # let place = Place { server: &server, cache: None, root: &root };
    /// # let name = Name::new("letter").expect("a plain name");
    /// # let file = engine.create(&place, &name, &CreateOptions::default())?;
    /// let writing = file.start_write_direct(0, vec![7; 1 << 20]);
    /// let done = writing.wait(); // or writing.await, or writing.on_done(|done| …)
    /// done.result?;
    /// assert_eq!((done.bytes, done.buffer.len()), (1 << 20, 1 << 20));
    /// # Ok::<(), sealback::Error>(())
    /// ```
    pub fn start_write_direct<B>(&self, position: u64, buffer: B) -> DirectWrite<B>
    where
        B: AsRef<[u8]> + Send + Sync + 'static,
    {
        let cancel = Arc::new(Cancel::default());
        let cancelled = cancel.clone();
        let write = move |file: &File| file.file.write_direct(position, buffer, &cancelled);
        DirectWrite { operation: self.submit(write), cancel }
    }

    /// Reads at `position` into `to`, past the page cache: from the cache's copy or the server. What is
    /// dirty there is written back before. Returns how many bytes there were, fewer than asked only at
    /// the file's end.
    ///
    /// # Errors
    /// As for [`read_at`](File::read_at), and for a writeback.
    pub fn read_direct(&self, position: u64, to: &mut [u8]) -> Result<usize, Error> {
        self.file.following_cuts(|| self.file.read_direct(position, to))
    }
}

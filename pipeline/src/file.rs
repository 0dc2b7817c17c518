//! A file as its client sees it: plaintext positions, and calls like those of any file.

use std::{fmt, io, ops::Range};

use sealback_crypto::{FileId, MAX_FILE_BYTES, RootKey};
use sealback_stream::BlockConflict;

use crate::{
    Error, WritebackHandle,
    error_seq::Told,
    open_file::OpenFile,
    operation::Operation,
    pass::PassKind,
    passes::Started,
    readahead::Readahead,
    resolve::Resolution,
    shutdown::Presence,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    trace::Observer,
};

/// An open file. Handles of one file share its folios.
///
/// A handle that is dropped with something unwritten has it written back by the engine, and nobody is
/// told how that ends: call [`close`](File::close), or [`sync`](File::sync) before.
pub struct File {
    pub(crate) file: Arc<OpenFile>,
    handle: Arc<Handle>,
}

/// What one handle knows.
struct Handle {
    file: Arc<OpenFile>,
    readahead: Mutex<Readahead>,
    /// The number of the last writeback error this handle has reported.
    reported: Mutex<u64>,
    presence: Arc<Presence>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.file.handle_dropped();
    }
}

impl File {
    pub(crate) fn new(file: Arc<OpenFile>, presence: Arc<Presence>) -> File {
        file.handle_made();
        let reported = Mutex::new(file.passes.n_errors());
        let (readahead, of) = (Mutex::default(), file.clone());
        let handle = Arc::new(Handle { file: of, readahead, reported, presence });
        File { file, handle }
    }

    /// Runs a call on one of the engine's threads, to be waited for, awaited, or called back from.
    /// Dropping the [`Operation`] does not end the call. A buffer goes in and comes back with the
    /// result:
    ///
    /// ```
    /// # use sealback::{Config, CreateOptions, Engine, Place, crypto::RootKey};
    /// # use sealback::stream::{MemoryOptions, MemoryServer, Name};
    /// # let engine = Engine::new(Config::default())?;
    /// # let (server, root) = (MemoryServer::new(MemoryOptions::default()), RootKey::from_bytes(&[7; 32]));
    /// # let place = Place { server: &server, cache: None, root: &root };
    /// # let name = Name::new("letter").expect("a plain name");
    /// # let file = engine.create(&place, &name, &CreateOptions::default())?;
    /// file.write_at(0, b"for your eyes only")?;
    /// let syncing = file.submit(|file| file.sync());
    /// let mut buffer = vec![0; 100];
    /// let reading = file.submit(move |file| {
    ///     let read = file.read_at(4, &mut buffer);
    ///     (buffer, read)
    /// });
    /// let (buffer, read) = reading.wait(); // or reading.await
    /// assert_eq!(&buffer[..read?], b"your eyes only");
    /// syncing.on_done(|synced| assert!(synced.is_ok()));
    /// # Ok::<(), sealback::Error>(())
    /// ```
    ///
    /// A bounded number of calls run at once; others wait for their turn. So a call must not wait for
    /// one that it has submitted itself: it calls what it wants to wait for.
    pub fn submit<T: Send + 'static>(
        &self,
        call: impl FnOnce(&File) -> T + Send + 'static,
    ) -> Operation<T> {
        let file = self.another();
        self.file.core.calls.run(move || call(&file))
    }

    /// Another handle of the file, as if it were opened once more, without asking the server: it is told
    /// of errors, and reads ahead, by itself.
    ///
    /// ```
    /// # use sealback::{Config, CreateOptions, Engine, Place, crypto::RootKey};
    /// # use sealback::stream::{MemoryOptions, MemoryServer, Name};
    /// # let engine = Engine::new(Config::default())?;
    /// # let (server, root) = (MemoryServer::new(MemoryOptions::default()), RootKey::from_bytes(&[7; 32]));
    /// # let place = Place { server: &server, cache: None, root: &root };
    /// # let name = Name::new("letter").expect("a plain name");
    /// # let file = engine.create(&place, &name, &CreateOptions::default())?;
    /// let reader = file.reopen();
    /// file.write_at(0, b"for your eyes only")?;
    /// drop(file);
    /// assert_eq!(reader.size(), 18);
    /// # Ok::<(), sealback::Error>(())
    /// ```
    #[must_use]
    pub fn reopen(&self) -> File {
        File::new(self.file.clone(), self.handle.presence.clone())
    }

    /// The same handle once more.
    pub(crate) fn another(&self) -> File {
        File { file: self.file.clone(), handle: self.handle.clone() }
    }

    /// The size in bytes, with what is not written back yet.
    pub fn size(&self) -> u64 {
        self.file.folios().size()
    }

    /// The block size in bytes.
    pub fn block_bytes(&self) -> u64 {
        self.file.header().geometry().block_bytes()
    }

    /// The file's id: drawn at random when it was created.
    pub fn file_id(&self) -> FileId {
        self.file.header().file_id()
    }

    /// Bytes that were written and are not on the server yet.
    pub fn dirty_bytes(&self) -> u64 {
        self.file.folios().dirty_bytes()
    }

    /// Whether something was written, here or by another handle, that is not on the server, or that no
    /// header speaks for: what a [`sync`](File::sync) would see to.
    pub fn is_unwritten(&self) -> bool {
        self.file.folios().is_unwritten()
    }

    /// Writes all of `data` at `position`, into folios; a writeback takes it to the server.
    /// Beyond the end the file grows, over a hole if there is a gap. Nothing is read for it: what a
    /// block lacks that is written in part is fetched when it is written back. Waits while the
    /// memory for folios is full of dirty ones.
    ///
    /// # Errors
    /// [`Error::TooLarge`] beyond 2^60; and, if the memory is full, the error that keeps writeback
    /// from making room.
    pub fn write_at(&self, position: u64, data: &[u8]) -> Result<(), Error> {
        self.file.following_cuts(|| self.file.write(position, data))
    }

    /// Writes all of `data` behind the end, and returns where that was. No other handle of this
    /// engine's writes there in between.
    ///
    /// # Errors
    /// As for [`write_at`](File::write_at).
    pub fn append(&self, data: &[u8]) -> Result<u64, Error> {
        self.file.following_cuts(|| self.file.append(data))
    }

    /// Reads from `source` straight into folios, from `position` on, until it ends; for whole
    /// new folios this saves a copy. What has been written back is the first to leave the memory, since
    /// who streams does not come back: the next bytes go where it was, which the processor's cache
    /// still has. Returns how many bytes it wrote, and whether reading ended well.
    ///
    /// # Errors
    /// As for [`write_at`](File::write_at); of a new file also the error that keeps writeback from
    /// following, when more than some MiB wait for it. An error of `source` is returned beside the
    /// count.
    pub fn write_from(
        &self,
        position: u64,
        source: &mut dyn io::Read,
        each: impl FnMut(u64),
    ) -> Result<(u64, io::Result<()>), Error> {
        self.file.write_from(position, source, each)
    }

    /// Makes the file `size` bytes long. Longer: by zeros, with holes for whole blocks, which are on
    /// the server after the next [`sync`](File::sync). Shorter: at once, on the server too; what
    /// was cut off is gone when this returns, and a crash half-way leaves a file of the old size or
    /// of the new one.
    ///
    /// # Errors
    /// [`Error::TooLarge`] over 2^60; errors of reading and writing the block that the file ends in.
    /// After an error the file has the old size, or the new one with the stored file not cut yet:
    /// whoever changes the file next does that first.
    pub fn set_len(&self, size: u64) -> Result<(), Error> {
        self.file.following_cuts(|| self.file.set_len(size))
    }

    /// Makes zeros of the positions `range` (exclusive end) that are in the file; its size stays.
    /// Whole blocks become holes, which take no room on a server that can do so. Syncs the file on
    /// the way.
    ///
    /// # Errors
    /// As for [`sync`](File::sync); [`Error::Conflict`] if others keep writing to these blocks. After
    /// an error some blocks are holes and others are as they were.
    pub fn punch(&self, range: Range<u64>) -> Result<(), Error> {
        self.file.following_cuts(|| self.file.punch(&range))
    }

    /// Wraps the file's key anew, for `new_root`: from now on the file opens with that, and not with
    /// the root key that it had. No block is touched. This revokes nothing: who had the old key may
    /// have kept the file's.
    ///
    /// # Errors
    /// [`Error::Server`] if a header could not be written: the file opens with the old key, or with
    /// the new one; to be done again.
    pub fn rekey(&self, new_root: &RootKey) -> Result<(), Error> {
        self.file.core.check_open()?;
        self.file.following_cuts(|| {
            if self.file.log().is_some() {
                let rekey = |server: &Arc<OpenFile>| {
                    server.rekey(&server.hold_sizes_for_change()?, new_root)
                };
                return self.file.on_server(rekey);
            }
            let sizes = self.file.hold_sizes_for_change()?;
            self.file.rekey(&sizes, new_root)
        })
    }

    /// Reads at `position` into `to`; returns how many bytes there were, fewer than asked only at
    /// the file's end. What this client had sent, nobody committed, and somebody else has made something
    /// else of is read as what is there now; the next sync tells of it.
    ///
    /// # Errors
    /// [`Error::Damaged`] names a block that is not what was written, and no byte of it is in
    /// `to`; [`Error::Server`] if the server does not answer.
    pub fn read_at(&self, position: u64, to: &mut [u8]) -> Result<usize, Error> {
        let size = self.size();
        let end = position.saturating_add(to.len() as u64).min(size);
        if position < end {
            let most = self.file.core.config.readahead_bytes as u64;
            let mut readahead =
                self.handle.readahead.lock().unwrap_or_else(PoisonError::into_inner);
            let ahead = readahead.note(&(position..end), most, size);
            drop(readahead);
            self.file.read_ahead(ahead);
        }
        self.file.following_cuts(|| self.file.read(position, to, OpenFile::read_missing))
    }

    /// As [`read_at`](File::read_at), for who keeps what he reads, as the kernel's page cache does, or does not come
    /// back: what is not in memory is opened straight into `to`, and not kept. Nothing is read ahead.
    ///
    /// # Errors
    /// As for [`read_at`](File::read_at).
    pub fn read_once(&self, position: u64, to: &mut [u8]) -> Result<usize, Error> {
        self.file.following_cuts(|| self.file.read(position, to, OpenFile::read_stored))
    }

    /// Whether a sync tells, with [`Error::Conflict`], of whole blocks that were overwritten here and
    /// that somebody else has changed since they were last seen here: it leaves them as they are, and
    /// goes on telling until [`resolve`](File::resolve) says what is to become of them. Else, and
    /// from the start, whoever writes a whole block last has written it. Blocks that are changed in
    /// part are merged either way, byte by byte.
    ///
    /// For all handles of the file, and for what is written from now on. A block was last seen here
    /// when it was read or written, as long as it is in memory; else it is read before it is
    /// overwritten, which is what this costs.
    pub fn tell_lost_updates(&self, tells: bool) {
        self.file.folios().tell_lost_updates(tells);
    }

    /// Says what is to become of blocks that a sync has told to be in conflict: the next one does it.
    /// What changes once more before that is told of again.
    ///
    /// # Errors
    /// Errors of reading a block that is to become theirs.
    pub fn resolve(
        &self,
        conflicts: &[BlockConflict],
        resolution: Resolution,
    ) -> Result<(), Error> {
        self.file.following_cuts(|| self.file.resolve(conflicts, resolution))
    }

    /// Keeps positions that are written from now on out of the cache.
    pub fn bypass_cache(&self, positions: Range<u64>) {
        self.file.folios().set_uncached(positions);
    }

    /// Starts to write back what is dirty, and does not wait. Joins a writeback that is running. Where
    /// there are [write groups](File::close_group), it is of the oldest.
    pub fn writeback(&self) -> WritebackHandle {
        self.writeback_observed(None)
    }

    /// As [`writeback`](File::writeback); a writeback that this starts tells `observer` of what
    /// happens.
    pub fn writeback_observed(&self, observer: Option<Arc<dyn Observer>>) -> WritebackHandle {
        let _sizes = self.file.hold_sizes();
        match self.file.start_pass(PassKind::Sync, observer) {
            Started::New(driver) | Started::Other(driver) => WritebackHandle { driver },
            Started::HeldBack => unreachable!("who holds passes back has the sizes alone"),
        }
    }

    /// Writes back what was dirty when it was called and commits a header that speaks for it;
    /// when it returns, all that is on the server.
    ///
    /// # Errors
    /// What kept the data from getting there, now or in a writeback since this handle's last
    /// `sync`; each error is told once to each handle. The data is still dirty, and the next
    /// `sync` tries again.
    pub fn sync(&self) -> Result<(), Error> {
        self.sync_part(PassKind::Sync)
    }

    /// As [`sync`](File::sync), for the positions `range` (exclusive end) and whatever shares blocks
    /// with them; what shares granules with them, if the cache has any
    /// ([`CacheFile::granule`](sealback_stream::CacheFile::granule)). Where the file has grown, all that is new
    /// before the range's end goes with it.
    ///
    /// # Errors
    /// As for [`sync`](File::sync).
    pub fn sync_range(&self, range: Range<u64>) -> Result<(), Error> {
        let geometry = self.file.geometry();
        let committed = self.file.header().size();
        let range = range.start.min(MAX_FILE_BYTES)..range.end.min(MAX_FILE_BYTES);
        let blocks = geometry.blocks_covering(range.clone());
        self.sync_part(match range.end <= committed {
            true => PassKind::Range { start: blocks.start, end: blocks.end },
            false => PassKind::Sync,
        })
    }

    fn sync_part(&self, kind: PassKind) -> Result<(), Error> {
        let synced = self.file.sync_now(kind);
        self.telling(synced)
    }

    /// What a call answers that tells of errors, its own or of writebacks before: first what is gone.
    pub(crate) fn telling<T>(&self, result: Result<T, Error>) -> Result<T, Error> {
        match (result, self.take_told()) {
            (_, Some(Told::Gone(error))) | (Ok(_), Some(Told::Failed(error))) => Err(error),
            (result, _) => result,
        }
    }

    /// The last failure of a writeback has been told by other means: no [`sync`](File::sync) of this handle
    /// tells of it. What is gone for good ([`Error::Conflict`], [`Error::Cut`]) still is to be told.
    pub fn told_of_failure(&self) {
        let mut reported = self.reported();
        let mut heard = *reported;
        if let Some(Told::Failed(_)) = self.file.passes.errors_since(&mut heard) {
            *reported = heard;
        }
    }

    fn take_told(&self) -> Option<Told> {
        self.file.passes.errors_since(&mut self.reported())
    }

    fn reported(&self) -> MutexGuard<'_, u64> {
        self.handle.reported.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An error of a writeback that this handle has not told of yet: no [`sync`](File::sync) of it will.
    /// For who tells of it by himself. What is gone for good ([`Error::Conflict`], [`Error::Cut`])
    /// comes first, each in its turn; of failures the last. `None` when nothing is left to be told.
    pub fn take_error(&self) -> Option<Error> {
        self.take_told().map(Told::error)
    }

    /// Puts a file that was created to replace another in its place. To be called after
    /// [`sync`](File::sync); whoever opens the name from now on gets this file. Waits for calls that are
    /// under way, but not for the source of a [`write_from`](File::write_from).
    ///
    /// # Errors
    /// [`Error::Server`]: the earlier file is still there, whole; or this one is in its place, and it is
    /// not known whether that survives a power cut. To be called again.
    pub fn publish(&self) -> Result<(), Error> {
        self.file.publish()
    }

    /// Drops what was written and is not on the server, in all handles of the file; what was cut off
    /// or punched stays so. A writeback that is running is cancelled.
    pub fn discard(&self) {
        self.file.discard();
    }

    /// Syncs and lets go.
    ///
    /// # Errors
    /// As for [`sync`](File::sync), with the handle, so that nothing is lost.
    pub fn close(self) -> Result<(), Box<Unclosed>> {
        self.sync().map_err(|error| Box::new(Unclosed { file: self, error }))
    }
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("File").field("target", &self.file.target).finish_non_exhaustive()
    }
}

/// A file that could not be closed, because what was written to it is not on the server.
#[derive(Debug)]
pub struct Unclosed {
    /// The file, with what is still dirty.
    pub file: File,
    /// Why.
    pub error: Error,
}

impl fmt::Display for Unclosed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl std::error::Error for Unclosed {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

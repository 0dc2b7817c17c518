//! What the engine's parts ask of it: the time, its requests, its files, its memory.

use std::{collections::HashMap, time::Duration};

use sealback_crypto::{BufferPool, Geometry};
use sealback_stream::Role;

use super::{CACHE, Core, Files, UPLOAD};
use crate::{
    Error, RequestStats,
    buffers::SealedBuffers,
    driver::{Driver, Parts},
    error_seq::ErrorSeq,
    open_file::OpenFile,
    origin::Origin,
    request::{Event, Request, RequestLimits, StreamSetup},
    stats::Totals,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak, atomic::Ordering},
    trace::Observer,
};

impl Core {
    /// Time since the engine's start.
    pub(crate) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// What is counted as it goes. Held for nothing else.
    pub(crate) fn totals(&self) -> MutexGuard<'_, Totals> {
        self.totals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The requests under way, to be looked at by who does not block.
    pub(crate) fn active_mutex(&self) -> &Mutex<Vec<Arc<Driver>>> {
        &self.active
    }

    /// The files that are open, in the same way.
    pub(crate) fn files_mutex(&self) -> &Mutex<Files> {
        &self.files
    }

    /// Who hears all requests.
    pub(crate) fn observer(&self) -> Option<Arc<dyn Observer>> {
        self.observer.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn pools(&self) -> impl Iterator<Item = &BufferPool> {
        [&self.buffers, &self.large_buffers].into_iter().map(SealedBuffers::pool)
    }

    /// How many sealed buffers are home, and how many there are.
    pub(crate) fn count_buffers(&self) -> (usize, usize) {
        (self.pools().map(BufferPool::n_free).sum(), self.pools().map(BufferPool::n_buffers).sum())
    }

    pub(super) fn active(&self) -> MutexGuard<'_, Vec<Arc<Driver>>> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The buffers that hold a span of such blocks.
    pub(crate) fn buffers_for(&self, geometry: Geometry) -> &SealedBuffers {
        let fits = geometry.block_bytes() <= self.config.span_bytes as u64;
        if fits { &self.buffers } else { &self.large_buffers }
    }

    /// Sets a request up; it begins with its first event.
    pub(crate) fn start(self: &Arc<Self>, origin: Origin, parts: Parts) -> Arc<Driver> {
        let (config, geometry) = (&self.config, parts.content_key.geometry());
        let span_blocks = (config.span_bytes as u64 / geometry.block_bytes()).max(1);
        let limits = RequestLimits {
            span_blocks,
            // Each has something to seal, while what it sealed before waits.
            max_stalled: config.threads.max(2),
            retry: config.retry,
            cache_patience: config.cache_patience,
        };
        let active = |stream: usize| parts.targets.get(stream).is_some_and(Option::is_some);
        let setup = [
            StreamSetup { role: Role::Must, window: config.upload_window, active: active(UPLOAD) },
            StreamSetup { role: Role::May, window: config.cache_window, active: active(CACHE) },
        ];
        let request = Request::new(geometry, &limits, &setup);
        let driver = Driver::new(self.clone(), origin, request, parts);
        self.active().push(driver.clone());
        driver
    }

    /// Begins a request that was set up.
    pub(crate) fn begin(&self, driver: &Arc<Driver>) {
        driver.post(Event::Wake);
    }

    /// A request has ended.
    pub(crate) fn ended(&self, driver: &Arc<Driver>, stats: &RequestStats) {
        let mut active = self.active();
        // Those that began first end first, as a rule.
        if let Some(at) = active.iter().position(|active| Arc::ptr_eq(active, driver)) {
            active.remove(at);
        }
        drop(active);
        self.totals().requests.add(stats);
    }

    /// The file of a number, if it is open.
    pub(crate) fn file(&self, number: u64) -> Option<Arc<OpenFile>> {
        self.files().by_number.get(&number).and_then(Weak::upgrade)
    }

    /// Gives up the memory of the clean folio of any file that was used least recently. Returns
    /// whether there was one.
    pub(crate) fn evict(&self) -> bool {
        while let Some((number, folio)) = self.clean.pop() {
            if self.file(number).is_some_and(|file| file.folios().evict(folio)) {
                return true;
            }
        }
        false
    }

    /// Files without handles that are not written back yet, by number.
    pub(crate) fn kept(&self) -> MutexGuard<'_, HashMap<u64, Arc<OpenFile>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fails if it has been shut down.
    pub(crate) fn check_open(&self) -> Result<(), Error> {
        if self.closed.load(Ordering::SeqCst) { Err(Error::Closed) } else { Ok(()) }
    }

    /// A number that no request of this engine has had.
    pub(crate) fn next_request_number(&self) -> u64 {
        self.n_requests.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// A number that no file of this engine has had.
    pub(crate) fn next_file_number(&self) -> u64 {
        self.n_files.fetch_add(1, Ordering::Relaxed)
    }

    /// The last handle of a file has been dropped.
    pub(crate) fn closed(&self, file: &OpenFile) {
        let key = Files::key(file.header().file_id(), &*file.target);
        let mut files = self.files();
        files.by_number.remove(&file.number());
        // Somebody may have opened it again.
        if files.by_key.get(&key).is_some_and(|file| file.strong_count() == 0) {
            files.by_key.remove(&key);
        }
        drop(files);
        if file.queued.load(Ordering::SeqCst) {
            self.flusher.drop_closed();
        }
    }

    pub(super) fn files(&self) -> MutexGuard<'_, Files> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The errors of all files' writebacks.
    pub(crate) fn errors(&self) -> MutexGuard<'_, ErrorSeq> {
        self.errors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many requests are under way.
    pub(crate) fn n_active(&self) -> usize {
        self.active().len()
    }

    /// Whether no request is under way.
    pub(crate) fn is_idle(&self) -> bool {
        self.active().is_empty()
    }

    pub(crate) fn open_files(&self) -> Vec<Arc<OpenFile>> {
        self.files().by_number.values().filter_map(Weak::upgrade).collect()
    }
}

//! The engine: the only file that knows all roles, and that starts threads.
//!
//! Threads: the crypto pool (rayon) seals and opens; one thread for each stream talks to its
//! targets; a few read ahead, a few read what is to be changed in part, one waits for other clients'
//! locks, one keeps time; and calls that nobody wants to wait for have some, as long as there are any.
//! A request has no thread: see [`crate::driver`].
//!
//! Locks, in the order in which they may be taken: a file's sizes, its growth, the server's lock on
//! its size, its commits, the claims on its cache; its passes, a request's state, what has come for it,
//! the files that have no handles, who waits for the end of a group, a file's folios, the pools. Those up
//! to the claims may be held over calls to a target, which is what they are there for; the others never
//! are.

use std::{collections::HashMap, fmt};

use sealback_crypto::{BufferPool, FileId, Geometry, HEADER_BYTES, Header, OpenOptions};
use sealback_stream::{Name, Target, TargetError, TargetErrorKind};
use tracing::debug;

use crate::{
    Config, CreateOptions, EngineStats, Error, File, Place, Unclosed,
    behind::{Uploads, keeping, promised_of, prove},
    buffers::SealedBuffers,
    calls::Calls,
    config::{READ_UNIT_BYTES, Shares},
    driver::Driver,
    error_seq::ErrorSeq,
    flusher::Flusher,
    folio::FolioPool,
    following::Fillings,
    io::IoThreads,
    open_file::OpenFile,
    page_cache::{CleanFolios, CopyBudget},
    shutdown::Presence,
    stats::Totals,
    sync::{
        Arc, Instant, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    trace::{Observer, tell},
    waits::Waits,
    workers::Workers,
};

mod core;

/// The upload stream's index in a request.
pub(crate) const UPLOAD: usize = 0;
/// The cache stream's index in a request.
pub(crate) const CACHE: usize = 1;
const N_STREAMS: usize = 2;
const N_READAHEAD_THREADS: usize = 2;
/// They read what is to be changed in part, and most of the time they wait for a server.
pub(crate) const N_CONTROL_THREADS: usize = 4;
/// How often a header is read before what is wrong with it is reported.
const MAX_HEADER_READS: usize = 3;

/// Writes files back, sealed, to servers and caches, within one budget of memory and threads.
///
/// Cheap to clone; all clones are the same engine.
#[derive(Clone)]
pub struct Engine {
    presence: Arc<Presence>,
}

/// What the engine's parts share.
pub(crate) struct Core {
    pub(crate) config: Config,
    pub(crate) workers: Workers,
    buffers: SealedBuffers,
    large_buffers: SealedBuffers,
    pub(crate) read_buffers: BufferPool,
    pub(crate) folios: FolioPool,
    /// Clean folios of all files, least recently used first.
    pub(crate) clean: CleanFolios,
    /// What all files' copies for caches may hold on to.
    pub(crate) copies: Arc<CopyBudget>,
    pub(crate) io: IoThreads,
    started: Instant,
    active: Mutex<Vec<Arc<Driver>>>,
    /// Requests that were set up so far.
    n_requests: AtomicU64,
    pub(crate) waits: Arc<Waits>,
    /// Hears all requests.
    observer: Mutex<Option<Arc<dyn Observer>>>,
    files: Mutex<Files>,
    /// Files that were opened so far.
    n_files: AtomicU64,
    pub(crate) flusher: Flusher,
    pub(crate) fillings: Fillings,
    pub(crate) calls: Calls,
    pub(crate) uploads: Uploads,
    /// Files without handles that are not written back yet, by number.
    kept: Mutex<HashMap<u64, Arc<OpenFile>>>,
    /// It has been shut down.
    closed: AtomicBool,
    /// What only caches would get was waited for too long, and nobody has been answered since. A hint:
    /// it publishes nothing.
    pub(crate) neighbours_stuck: AtomicBool,
    totals: Mutex<Totals>,
    errors: Mutex<ErrorSeq>,
}

/// Files that are open.
#[derive(Default)]
pub(crate) struct Files {
    /// By id, and by which stored file it is, since files can be copied.
    by_key: HashMap<u128, Weak<OpenFile>>,
    pub(crate) by_number: HashMap<u64, Weak<OpenFile>>,
}

impl Files {
    /// One number of both, which is half as large: ids are random, so that no two files have the same by
    /// chance.
    fn key(id: FileId, target: &dyn Target) -> u128 {
        let (half, _) = id.as_bytes().split_first_chunk().expect("an id has 32 bytes");
        u128::from_le_bytes(*half) ^ target.identity()
    }
}

impl Engine {
    /// Starts an engine.
    ///
    /// # Errors
    /// [`Error::Config`] if the configuration does not fit, [`Error::Server`] if no thread can be
    /// started.
    pub fn new(config: Config) -> Result<Engine, Error> {
        config.check()?;
        let Shares { n_folios, buffers, large_buffers, n_read_buffers } = config.shares();
        let thread = |error| {
            Error::server(TargetError::new(
                TargetErrorKind::Io,
                format!("a thread cannot be started: {error}"),
            ))
        };
        let workers = Workers::start(config.threads).map_err(|error| thread(error.to_string()))?;
        let io = IoThreads::start(N_STREAMS, N_READAHEAD_THREADS, N_CONTROL_THREADS)
            .map_err(|error| thread(error.to_string()))?;
        // Room for a unit of the smallest blocks, whose prefixes are the most.
        let unit_bytes = READ_UNIT_BYTES + READ_UNIT_BYTES / 4096 * sealback_crypto::PREFIX_BYTES;
        let core = Arc::new(Core {
            workers,
            buffers: SealedBuffers::new(buffers),
            large_buffers: SealedBuffers::new(large_buffers),
            read_buffers: BufferPool::new(n_read_buffers, unit_bytes),
            folios: FolioPool::new(n_folios, config.folio_bytes),
            clean: CleanFolios::new(),
            copies: CopyBudget::new((n_read_buffers * unit_bytes) as u64),
            n_files: AtomicU64::new(0),
            flusher: Flusher::default(),
            fillings: Fillings::default(),
            calls: Calls::default(),
            uploads: Uploads::default(),
            kept: Mutex::default(),
            closed: AtomicBool::new(false),
            io,
            started: Instant::now(),
            active: Mutex::default(),
            n_requests: AtomicU64::new(0),
            waits: Arc::default(),
            observer: Mutex::default(),
            files: Mutex::default(),
            neighbours_stuck: AtomicBool::new(false),
            totals: Mutex::default(),
            errors: Mutex::default(),
            config,
        });
        tell(|| debug!(target: "sealback::engine", config = ?core.config, "started"));
        Ok(Engine { presence: Presence::new(core) })
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        self.presence.core()
    }

    /// Syncs every file that is open, several at once.
    ///
    /// # Errors
    /// Those that could not be written back, each with what kept it from being; what was written to
    /// them is still dirty.
    pub fn sync_all(&self) -> Result<(), Vec<Unclosed>> {
        let unclosed = self.presence.sync_all();
        if unclosed.is_empty() { Ok(()) } else { Err(unclosed) }
    }

    /// Lets nothing more be written, cut, created or opened, and writes back everything that was. What
    /// fails can be synced again, or discarded, through the handles that come with the errors.
    ///
    /// An engine that is dropped, with all of its files, without a shutdown writes back, too, and
    /// waits for it; what fails then is told on standard error.
    ///
    /// # Errors
    /// As for [`sync_all`](Engine::sync_all).
    pub fn shutdown(&self) -> Result<(), Vec<Unclosed>> {
        self.core().closed.store(true, Ordering::SeqCst);
        let ended = self.sync_all();
        let n_unclosed = ended.as_ref().map_or_else(Vec::len, |()| 0);
        tell(|| debug!(target: "sealback::engine", n_unclosed, "shut down"));
        ended
    }

    /// Creates a file.
    ///
    /// # Errors
    /// [`Error::Server`] with [`TargetErrorKind::AlreadyExists`] if there is one of that name and
    /// it is not to be replaced; [`Error::Config`] for a block size that is none; others from the
    /// server.
    pub fn create(
        &self,
        place: &Place<'_>,
        name: &Name,
        options: &CreateOptions,
    ) -> Result<File, Error> {
        self.create_target(place, name.as_str(), options, |file_id, header| match options.replace {
            true => place.server.draft(name, file_id, header),
            false => place.server.create(name, file_id, header),
        })
    }

    /// As [`create`](Engine::create), where a file comes to be in another way than by a name of the
    /// server's: `make` is given the file's id and its whole header, and returns the target that has
    /// that. `called` is for people: what the engine calls it where it tells of its files.
    ///
    /// # Errors
    /// As for [`create`](Engine::create).
    pub fn create_target(
        &self,
        place: &Place<'_>,
        called: &str,
        options: &CreateOptions,
        make: impl FnOnce(FileId, &[u8; HEADER_BYTES]) -> Result<Arc<dyn Target>, TargetError>,
    ) -> Result<File, Error> {
        self.core().check_open()?;
        let geometry = Geometry::new(options.block_bytes)
            .map_err(|_| Error::Config("a block is a power of two from 4 KiB to 1 MiB"))?
            .with_chunk_blocks(place.server.chunk_blocks(options.block_bytes));
        let new = Header::create(place.root, geometry, self.core().config.cipher)
            .map_err(|source| Error::Seal(Arc::new(source)))?;
        let target = make(new.header.file_id(), &new.bytes).map_err(Error::server)?;
        let file = self.open_file(place, called, (target, new.header))?;
        file.set_draft(options.replace);
        Ok(File::new(file, self.presence.clone()))
    }

    /// Opens a file.
    ///
    /// # Errors
    /// [`Error::Header`] if it is no sealed file, is damaged, or is another key's;
    /// [`Error::Server`] if the server does not have it, or will not say.
    pub fn open(&self, place: &Place<'_>, name: &Name) -> Result<File, Error> {
        self.core().check_open()?;
        self.open_target(place, name.as_str(), place.server.open(name).map_err(Error::server)?)
    }

    /// As [`open`](Engine::open), where a file is found in another way than by a name of the server's:
    /// see [`LocalServer::adopt`](sealback_stream::LocalServer::adopt). `called` is for people, as for
    /// [`create_target`](Engine::create_target).
    ///
    /// # Errors
    /// As for [`open`](Engine::open).
    pub fn open_target(
        &self,
        place: &Place<'_>,
        called: &str,
        target: Arc<dyn Target>,
    ) -> Result<File, Error> {
        self.core().check_open()?;
        let options = OpenOptions { engine: self.core().config.cipher, ..OpenOptions::default() };
        // Before the header: what is promised and no longer waits, that speaks for.
        let promised = promised_of(&*target);
        let read = || {
            let bytes = self.core().persist(None, || Ok(target.read_header()?))?;
            Header::open(&bytes, place.root, &options).map_err(Error::from)
        };
        // Somebody may be writing a slot: an error counts when it has been read a few times.
        let again = |header: Result<Header, Error>| header.or_else(|_| read());
        let header = (1..MAX_HEADER_READS).fold(read(), |header, _| again(header))?;
        prove(&*target, &header)?;
        let header = keeping(header, promised);
        let file = self.open_file(place, called, (target, header))?;
        self.core().upload_soon(&file);
        Ok(File::new(file, self.presence.clone()))
    }

    fn open_file(
        &self,
        place: &Place<'_>,
        called: &str,
        (target, header): (Arc<dyn Target>, Header),
    ) -> Result<Arc<OpenFile>, Error> {
        let key = Files::key(header.file_id(), &*target);
        let mut files = self.core().files();
        let open = files.by_key.get(&key).and_then(Weak::upgrade);
        // A server may answer with whatever identity it likes.
        let open = open.filter(|file| file.header().file_id() == header.file_id());
        let file = if let Some(file) = open {
            drop(files);
            file.met(header)?;
            file
        } else {
            let file = OpenFile::new(self.core().clone(), called, target, header);
            files.by_key.insert(key, Arc::downgrade(&file));
            files.by_number.insert(file.number(), Arc::downgrade(&file));
            drop(files);
            file
        };
        if let Some(cache) = place.cache {
            file.attach(cache);
        }
        Ok(file)
    }

    /// What has been done so far, by all requests that have ended.
    pub fn stats(&self) -> EngineStats {
        let core = self.core();
        let totals = core.totals().clone();
        let (buffers_free, buffers) = core.count_buffers();
        EngineStats {
            requests: totals.requests,
            request_latency: totals.request_latency,
            sync_latency: totals.sync_latency,
            barrier_latency: totals.barrier_latency,
            control_retries: totals.control_retries,
            memory_waits: totals.memory_waits,
            memory_wait_time: totals.memory_wait_time,
            buffers_free,
            buffers,
            buffers_high_water: core.pools().map(BufferPool::high_water).sum(),
            copied_bytes: core.copies.bytes(),
            folios_out: core.folios.n_out(),
            folios_high_water: core.folios.high_water(),
            active_requests: core.n_active(),
        }
    }

    /// Has `observer`, or nobody, hear every request that begins from now on, whatever it writes: beside
    /// one that a request is [given](File::writeback_observed), and [`tracing`](crate::trace).
    pub fn observe(&self, observer: Option<Arc<dyn Observer>>) {
        *self.core().observer.lock().unwrap_or_else(PoisonError::into_inner) = observer;
    }

    /// What the engine was started with.
    pub fn config(&self) -> &Config {
        &self.core().config
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("config", &self.core().config).finish_non_exhaustive()
    }
}

#[cfg(shuttle)]
#[cfg(test)]
pub(crate) mod models;

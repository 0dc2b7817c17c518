//! A server on a disk that can crash.

use std::{
    fmt,
    fs::File,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Waker,
};

use fastrand::Rng;
use sealback_crypto::HEADER_BYTES;

use super::disk::{Crash, Disk, DiskBytes};
use crate::{
    Durability, Grant, Prepared, SizeLock, SizeLockAttempt, Target, TargetError,
    flat::{Flat, Place, overwrite},
    held_size::HeldSize,
    journal::{Files, Journal, Owner, Surroundings},
    memory::{Shelf, Shelved, Unpublished},
};

/// Sealed files on a simulated disk with a volatile cache, with the journal and the syncs that
/// [`LocalServer`](crate::LocalServer) has: for crash tests in two passes. Count a workload's changes
/// with [`n_changes`](DiskServer::n_changes); then, for each of them, run it on a new server that
/// [stops there](DiskServer::stop_after), and look at what is left [after the crash](DiskServer::crash).
///
/// Names are durable as soon as they are given. Clones are the same server.
#[derive(Clone)]
pub struct DiskServer {
    disk: Disk,
    shelf: Arc<Shelf<Inode>>,
    durability: Durability,
    /// So often the machine was started anew.
    n_starts: u8,
}

impl DiskServer {
    /// A server without files.
    pub fn new(durability: Durability) -> DiskServer {
        DiskServer { disk: Disk::default(), shelf: Shelf::new(), durability, n_starts: 0 }
    }

    /// The same server and files, with another durability for what is opened through it.
    #[must_use]
    pub fn with_durability(mut self, durability: Durability) -> DiskServer {
        self.durability = durability;
        self
    }

    /// Changes and syncs of any file so far, of journals, too.
    pub fn n_changes(&self) -> u64 {
        self.disk.n_changes()
    }

    /// Syncs of any file so far.
    pub fn n_syncs(&self) -> u64 {
        self.disk.n_syncs()
    }

    /// Lets so many changes and syncs go through, counted from the first, and the next one in part;
    /// all others fail. Where a write is cut follows from the seed.
    pub fn stop_after(&self, n_changes: u64, seed: u64) {
        self.disk.stop_after(n_changes, Rng::with_seed(seed));
    }

    /// What is there after a crash, which comes now if it has not come yet. What a power cut leaves
    /// follows from the seed. Whoever has files of this server open can do nothing with them any more.
    #[must_use]
    pub fn crash(&self, crash: Crash, seed: u64) -> DiskServer {
        let disk = self.disk.crash(crash, &mut Rng::with_seed(seed));
        let n_starts = self.n_starts + u8::from(crash != Crash::Kill);
        let shelf = self.shelf.map(|inode| inode.on(&disk));
        DiskServer { disk, shelf, durability: self.durability, n_starts }
    }
}

impl Shelved for DiskServer {
    type File = Inode;

    fn shelf(&self) -> &Arc<Shelf<Inode>> {
        &self.shelf
    }

    fn begin(&self, header: &[u8; HEADER_BYTES]) -> Result<Arc<Inode>, TargetError> {
        let mut data = self.disk.make();
        let written = overwrite(&mut data, 0, header).and_then(|()| data.sync());
        written.map_err(|error| TargetError::from_io("creating a file", error))?;
        let bytes = Mutex::new((data, self.disk.make()));
        Ok(Arc::new(Inode { bytes, size: Arc::default() }))
    }

    fn handle(&self, inode: Arc<Inode>, unpublished: Unpublished<Inode>) -> Arc<dyn Target> {
        let journal = Journal::new(self.durability);
        Arc::new(DiskFile { inode, journal, n_starts: self.n_starts, unpublished })
    }
}

impl fmt::Debug for DiskServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskServer").field("durability", &self.durability).finish_non_exhaustive()
    }
}

/// What a name stands for: a file and its journal.
#[derive(Debug)]
pub(crate) struct Inode {
    bytes: Mutex<(DiskBytes, DiskBytes)>,
    size: Arc<HeldSize>,
}

impl Inode {
    fn bytes(&self) -> MutexGuard<'_, (DiskBytes, DiskBytes)> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same on another disk.
    fn on(&self, disk: &Disk) -> Inode {
        let (data, log) = &*self.bytes();
        let bytes = Mutex::new((data.on(disk), log.on(disk)));
        Inode { bytes, size: Arc::default() }
    }
}

/// An open file.
#[derive(Debug)]
struct DiskFile {
    inode: Arc<Inode>,
    journal: Journal,
    n_starts: u8,
    unpublished: Unpublished<Inode>,
}

impl DiskFile {
    /// Runs something on the file and its journal, which is locked.
    fn with_journal<R>(&self, run: impl FnOnce(&Journal, &mut Files<'_>) -> R) -> R {
        let (data, log) = &mut *self.inode.bytes();
        let owner = Owner { stem: "file", inode: data.number(), run: [self.n_starts; 16] };
        run(&self.journal, &mut Files { owner, data, log, around: &Alone })
    }
}

impl Place for DiskFile {
    fn identity(&self) -> u128 {
        Arc::as_ptr(&self.inode).addr() as u128
    }

    fn grant(&self, _block: u64, _waker: &Waker) -> Prepared {
        Prepared::Granted(Grant::unlimited().with_max_bytes(1 << 20).with_gaps())
    }

    fn exclusively<R>(&self, step: impl FnOnce(&mut dyn Flat) -> R) -> Result<R, TargetError> {
        let run = self.with_journal(|journal, files| journal.run(files, step));
        run.map_err(|error| TargetError::from_io("carrying out what a crash left", error))
    }

    fn look<R>(&self, step: impl FnOnce(&dyn Flat) -> R) -> R {
        let data = self.inode.bytes().0.clone();
        step(&data)
    }

    fn settle(&self) -> Result<(), TargetError> {
        self.exclusively(|_| ())
    }

    fn make_durable(&self) -> Result<(), TargetError> {
        let mut data = self.inode.bytes().0.clone();
        let synced = self.journal.barrier(|| data.sync());
        synced.map_err(|error| TargetError::from_io("syncing a file", error))
    }

    fn put_in_place(&self) -> Result<(), TargetError> {
        self.make_durable()?;
        self.unpublished.publish(&self.inode);
        Ok(())
    }

    fn hold_size(&self) -> Result<Option<SizeLock>, TargetError> {
        Ok(Some(self.inode.size.clone().hold()))
    }

    fn try_hold_size(&self) -> Result<SizeLockAttempt, TargetError> {
        Ok(self.inode.size.clone().try_hold())
    }
}

impl Drop for DiskFile {
    fn drop(&mut self) {
        if self.journal.was_used() {
            drop(self.with_journal(|journal, files| journal.close(files)));
        }
    }
}

/// Nothing is around a file here, and its journal has its name from the start.
pub(crate) struct Alone;

impl Surroundings for Alone {
    fn find(&self, _owner: &Owner<'_>, _inode: u64) -> Option<File> {
        None
    }

    fn sync_everything(&self) -> io::Result<()> {
        Ok(())
    }

    fn sync_journal_name(&self) -> io::Result<()> {
        Ok(())
    }

    fn free_reserve(&self) -> bool {
        false
    }

    fn renew_reserve(&self) {}
}

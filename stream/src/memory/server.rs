//! A server in memory.

use std::{fmt, sync::Arc};

use sealback_crypto::HEADER_BYTES;

use super::{
    MemoryOptions,
    file::{Inode, MemoryFile},
    meter::Meter,
    shelf::{Shelf, Shelved, Unpublished},
};
use crate::{Name, Target, TargetError, flat::Operation};

/// Sealed files in memory. Clones are the same server.
#[derive(Clone)]
pub struct MemoryServer {
    shelf: Arc<Shelf<Inode>>,
    meter: Arc<Meter>,
}

impl MemoryServer {
    /// A server without files.
    pub fn new(options: MemoryOptions) -> MemoryServer {
        MemoryServer { shelf: Shelf::new(), meter: Meter::new(options) }
    }

    /// The whole of a stored file: header and blocks.
    pub fn stored(&self, name: &Name) -> Option<Vec<u8>> {
        Some(self.shelf.open(name).ok()?.bytes().clone())
    }

    /// Tampers: changes the bytes of a stored file under whoever has it open, or makes one.
    pub fn set_stored(&self, name: &Name, bytes: Vec<u8>) {
        match self.shelf.open(name) {
            Ok(inode) => *inode.bytes() = bytes,
            Err(_) => self.shelf.replace(name.clone(), Arc::new(Inode::new(bytes))),
        }
    }

    /// Credits that are held by grants now.
    pub fn credits_out(&self) -> u32 {
        self.meter.credits_out()
    }

    /// Barriers so far, on all files.
    pub fn n_barriers(&self) -> u64 {
        self.meter.count(Operation::Barrier)
    }

    /// Reads of blocks so far, on all files.
    pub fn n_reads(&self) -> u64 {
        self.meter.count(Operation::Read)
    }

    /// Writes of blocks so far, on all files, successful or not.
    pub fn n_writes(&self) -> u64 {
        self.meter.count(Operation::Write)
    }
}

impl Shelved for MemoryServer {
    type File = Inode;

    fn shelf(&self) -> &Arc<Shelf<Inode>> {
        &self.shelf
    }

    fn begin(&self, header: &[u8; HEADER_BYTES]) -> Result<Arc<Inode>, TargetError> {
        Ok(Arc::new(Inode::new(header.to_vec())))
    }

    fn handle(&self, inode: Arc<Inode>, unpublished: Unpublished<Inode>) -> Arc<dyn Target> {
        Arc::new(MemoryFile { inode, meter: self.meter.clone(), more: unpublished })
    }
}

impl fmt::Debug for MemoryServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryServer").field("meter", &self.meter).finish_non_exhaustive()
    }
}

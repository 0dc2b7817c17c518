//! What suites run over that are for every kind of server: one in memory, of flat files.

use sealback_stream::{MemoryOptions, MemoryServer, Name};

pub(crate) type Served = MemoryServer;

/// One with a lock of the size, or without.
pub(crate) fn served_locked(locked: bool) -> Served {
    let options = MemoryOptions::default();
    MemoryServer::new(if locked { options } else { options.without_size_lock() })
}

/// One that takes so many blocks of 4 KiB in a write, which do not go over a multiple of that, and so
/// many writes at once.
pub(crate) fn served_by(boundary_blocks: u64, credits: u32) -> Served {
    let options = MemoryOptions::default().with_credits(credits);
    MemoryServer::new(options.with_boundary_blocks(boundary_blocks))
}

/// The stored file, flat.
pub(crate) fn stored(server: &Served, name: &Name) -> Vec<u8> {
    server.stored(name).unwrap()
}

/// Credits that are held by grants now.
pub(crate) fn credits_out(server: &Served) -> u32 {
    server.credits_out()
}

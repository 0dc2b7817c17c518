//! What suites run over that are for every kind of server: an object store, in memory, or the one that the
//! environment names.

use std::{env, sync::Arc};

use object_store::{memory::InMemory, path::Path};
use sealback_crypto::PREFIX_BYTES;
use sealback_stream::{Name, ObjectOptions, ObjectServer};
use sealback_tests::flat::flat;

pub(crate) type Served = ObjectServer;

pub(crate) fn served() -> Served {
    served_by(16, ObjectOptions::default().max_in_flight)
}

/// One with chunks of so many blocks of 4 KiB, and so many writes at once.
pub(crate) fn served_by(chunk_blocks: u64, credits: u32) -> Served {
    let chunk_bytes = chunk_blocks * (4096 + PREFIX_BYTES as u64);
    let options = ObjectOptions::default().with_chunk_bytes(chunk_bytes);
    let options = options.with_max_in_flight(credits);
    match env::var("SEALBACK_OBJECTS") {
        // A place of its own below that.
        Ok(url) => ObjectServer::open_url(&format!("{url}/{:016x}", fastrand::u64(..)), options),
        Err(_) => ObjectServer::open(Arc::new(InMemory::new()), Path::ROOT, options),
    }
    .unwrap()
}

/// The stored file, flat.
pub(crate) fn stored(server: &Served, name: &Name) -> Vec<u8> {
    flat(server, name)
}

/// What its grants hold goes with the file.
pub(crate) fn credits_out(_server: &Served) -> u32 {
    0
}

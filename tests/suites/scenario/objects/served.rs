//! What suites run over that are for every kind of server: an object store, in memory, or the one that the
//! environment names.

use std::{cell::RefCell, env, sync::Arc};

use object_store::{memory::InMemory, path::Path};
use sealback_crypto::PREFIX_BYTES;
use sealback_stream::{Name, ObjectOptions, ObjectServer, Server, TargetErrorKind};
use sealback_tests::flat::flat;

use crate::support::name;

pub(crate) type Served = ObjectServer;

/// No object store has a lock of the size.
pub(crate) fn served_locked(_locked: bool) -> Served {
    served_by(16, ObjectOptions::default().max_in_flight)
}

/// One with chunks of so many blocks of 4 KiB, and so many writes at once.
pub(crate) fn served_by(chunk_blocks: u64, credits: u32) -> Served {
    let chunk_bytes = chunk_blocks * (4096 + PREFIX_BYTES as u64);
    let options = ObjectOptions::default().with_chunk_bytes(chunk_bytes);
    let options = options.with_max_in_flight(credits);
    match env::var("SEALBACK_OBJECTS") {
        Ok(url) => emptied(&url, options),
        Err(_) => ObjectServer::open(Arc::new(InMemory::new()), Path::ROOT, options).unwrap(),
    }
}

/// A place below a URL, which is the test's own: without the file that the case before has left. A server for
/// each case would be probed each time.
fn emptied(url: &str, options: ObjectOptions) -> ObjectServer {
    thread_local!(static PLACE: RefCell<Option<ObjectServer>> = const { RefCell::new(None) });
    PLACE.with_borrow_mut(|place| {
        let url = format!("{url}/{:016x}", fastrand::u64(..));
        let server =
            place.get_or_insert_with(|| ObjectServer::open_url(&url, options).unwrap()).clone();
        if let Err(error) = server.remove(&name()) {
            assert_eq!(error.kind(), TargetErrorKind::NotFound, "{error}");
        }
        server
    })
}

/// The stored file, flat.
pub(crate) fn stored(server: &Served, name: &Name) -> Vec<u8> {
    flat(server, name)
}

/// What its grants hold goes with the file.
pub(crate) fn credits_out(_server: &Served) -> u32 {
    0
}

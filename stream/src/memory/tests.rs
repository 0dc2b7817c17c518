//! Memory servers and caches: the conformance suite, and what their counters and tampering say.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    task::{Wake, Waker},
};

use sealback_crypto::FileId;

use crate::{
    Cache, Grant, MemoryCache, MemoryOptions, MemoryServer, Name, Prepared, Server, conformance,
};

#[test]
fn a_memory_server_keeps_the_contract_however_difficult_it_is() {
    let options = MemoryOptions::default();
    for options in [
        options,
        options.with_credits(1),
        options.with_credits(3).with_boundary_blocks(5).with_max_segments(1),
        options.with_max_write_bytes(0).with_boundary_blocks(0),
        options.without_size_lock(),
    ] {
        for check in conformance::server_checks() {
            let server = MemoryServer::new(options);
            check.run(&server);
            assert_eq!(server.credits_out(), 0, "{}", check.sentence);
        }
    }
}

#[test]
fn a_memory_cache_keeps_the_contract() {
    for options in [MemoryOptions::default(), MemoryOptions::default().with_credits(1)] {
        conformance::cache(&|| Arc::new(MemoryCache::new(options)));
        let cache = MemoryCache::new(options);
        conformance::persistent_cache(&|| Arc::new(cache.clone()));
        assert_eq!(cache.credits_out(), 0);
        assert!(cache.n_writes() > 0 && cache.n_reads() > 0);
    }
}

#[derive(Default)]
struct Wakes(AtomicU32);

impl Wake for Wakes {
    fn wake(self: Arc<Wakes>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn whoever_waits_for_credits_is_woken_once() {
    let server = MemoryServer::new(MemoryOptions::default().with_credits(2));
    let name = Name::new("a").unwrap();
    let target = server.create(&name, FileId::from_bytes([0; 32]), &[0; 8192]).unwrap();
    let (first, second) = (Arc::new(Wakes::default()), Arc::new(Wakes::default()));
    let wakers = [Waker::from(first.clone()), Waker::from(second.clone())];
    let take = |waker| -> Option<Grant> {
        match target.prepare(0, waker) {
            Prepared::Granted(grant) => Some(grant),
            Prepared::Later => None,
        }
    };
    let held = [take(&wakers[0]).unwrap(), take(&wakers[0]).unwrap()];
    assert_eq!(server.credits_out(), 2);
    for waker in [&wakers[0], &wakers[0], &wakers[1], &wakers[0]] {
        assert!(take(waker).is_none());
    }
    drop(held);
    assert_eq!(server.credits_out(), 0);
    assert_eq!([first, second].map(|wakes| wakes.0.load(Ordering::Relaxed)), [1, 1]);
}

#[test]
fn what_is_stored_can_be_seen_and_tampered_with() {
    let server = MemoryServer::new(MemoryOptions::default());
    let name = Name::new("a").unwrap();
    assert_eq!(server.stored(&name), None);
    let target = server.create(&name, FileId::from_bytes([0; 32]), &[3; 8192]).unwrap();
    assert_eq!(server.stored(&name), Some(vec![3; 8192]));
    server.set_stored(&name, vec![4; 7]);
    assert_eq!(target.read_header().unwrap(), [4; 7]);
    target.barrier().unwrap();
    assert_eq!((server.n_writes(), server.n_reads(), server.n_barriers()), (0, 0, 1));
    let new = Name::new("b").unwrap();
    server.set_stored(&new, vec![5; 9]);
    assert_eq!(server.open(&new).unwrap().read_header().unwrap(), [5; 9]);
    let cache = MemoryCache::new(MemoryOptions::default());
    let geometry = sealback_crypto::Geometry::new(4096).unwrap();
    let file_id = FileId::from_bytes([1; 32]);
    assert_eq!(cache.stored(file_id), None);
    let copy = cache.open(file_id, geometry).unwrap();
    cache.set_stored(file_id, vec![6; 8]);
    assert_eq!(copy.read_header().unwrap(), [6; 8]);
    assert_eq!(cache.stored(file_id), Some(vec![6; 8]));
}

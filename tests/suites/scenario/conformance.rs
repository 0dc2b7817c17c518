//! Every target that we ship keeps the contract.

use std::sync::Arc;

use sealback_stream::{
    LocalCache, LocalOptions, LocalServer, MemoryCache, MemoryOptions, MemoryServer, conformance,
};

#[test]
fn a_local_server_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    let made = std::cell::Cell::new(0);
    conformance::server(&|| {
        made.set(made.get() + 1);
        let root = dir.path().join(made.get().to_string());
        std::fs::create_dir(&root).unwrap();
        Arc::new(LocalServer::open(root, LocalOptions::default()).unwrap())
    });
}

#[test]
fn a_local_cache_keeps_the_contract_and_outlives_its_process() {
    let dir = tempfile::tempdir().unwrap();
    let open = || LocalCache::open(dir.path(), LocalOptions::default()).unwrap();
    conformance::cache(&|| Arc::new(open()));
    conformance::persistent_cache(&|| Arc::new(open()));
}

#[test]
fn a_memory_server_keeps_the_contract_with_and_without_credits() {
    conformance::server(&|| Arc::new(MemoryServer::new(MemoryOptions::default())));
    let credits = MemoryOptions::default().with_credits(8);
    conformance::server(&|| Arc::new(MemoryServer::new(credits)));
}

#[test]
fn a_memory_cache_keeps_the_contract() {
    conformance::cache(&|| Arc::new(MemoryCache::new(MemoryOptions::default())));
}

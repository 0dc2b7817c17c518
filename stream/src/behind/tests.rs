//! The decorator keeps the contract; its log survives what a crash leaves of it.

use std::sync::Arc;

use super::*;
use crate::{MemoryOptions, MemoryServer, conformance};

fn open(server: &MemoryServer, dir: &Path) -> WriteBehind {
    WriteBehind::open(Arc::new(server.clone()), dir, WriteBehindOptions::default()).unwrap()
}

#[test]
fn a_server_that_is_written_behind_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    let made = std::cell::Cell::new(0);
    conformance::server(&|| {
        made.set(made.get() + 1);
        let dir = dir.path().join(made.get().to_string());
        Arc::new(open(&MemoryServer::new(MemoryOptions::default()), &dir))
    });
}

//! An object server over a store in memory.

use std::sync::Arc;

use object_store::{memory::InMemory, path::Path};

use crate::{ObjectOptions, ObjectServer, conformance};

#[test]
fn an_object_server_keeps_the_contract() {
    for check in conformance::server_checks() {
        let server =
            ObjectServer::open(Arc::new(InMemory::new()), Path::ROOT, ObjectOptions::default())
                .unwrap();
        check.run(&server);
    }
}

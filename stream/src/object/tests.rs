//! An object server over a store in memory.

use std::{env, sync::Arc};

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

#[test]
#[ignore = "needs a server: tests/objects/run starts some"]
fn an_object_server_over_the_store_that_the_environment_names_keeps_the_contract() {
    let url =
        env::var("SEALBACK_OBJECTS").expect("SEALBACK_OBJECTS is the URL of a place of its own");
    for (at, check) in conformance::server_checks().enumerate() {
        let url = format!("{url}/{at}");
        check.run(&ObjectServer::open_url(&url, ObjectOptions::default()).unwrap());
    }
}

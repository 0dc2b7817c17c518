//! A server that has its directory for itself, and others that would change something there.

use std::fs;

use sealback_crypto::HeaderChange;
use tempfile::TempDir;

use super::{
    beside,
    journal::{create, nonce_in, seal},
    name, open,
    processes::write,
    sample,
};
use crate::{
    Durability, Expected, LocalOptions, LocalServer, Server, TargetErrorKind, conformance,
};

fn open_alone(dir: &TempDir) -> LocalServer {
    LocalServer::open_alone(dir, LocalOptions::default()).unwrap()
}

#[test]
fn a_server_that_has_its_directory_for_itself_keeps_the_contract() {
    for durability in [Durability::None, Durability::Process, Durability::PowerCut] {
        let options = LocalOptions::default().with_durability(durability);
        for check in conformance::server_checks() {
            check.run(&LocalServer::open_alone(TempDir::new().unwrap().keep(), options).unwrap());
        }
    }
}

#[test]
fn nobody_has_a_directory_for_himself_while_another_may_change_something() {
    let (dir, new) = (TempDir::new().unwrap(), sample());
    let (first, second) = (open(dir.path()), open(dir.path()));
    drop(open_alone(&dir));
    let target = create(&first, &new);
    let read = second.open(&name("a")).unwrap();
    let taken = || LocalServer::open_alone(&dir, LocalOptions::default());
    assert_eq!(taken().unwrap_err().kind(), TargetErrorKind::NotPermitted);
    drop((first, target));

    let alone = open_alone(&dir);
    assert_eq!(taken().unwrap_err().kind(), TargetErrorKind::NotPermitted);
    let header = new.header.reopen(&read.read_header().unwrap()).unwrap();
    let change = HeaderChange { size: 1, holes: 0..0, cuts: 1, cut_pending: false };
    let commit = header.commit(&change).unwrap();
    let refused = |result: Result<(), crate::TargetError>| {
        assert_eq!(result.unwrap_err().kind(), TargetErrorKind::NotPermitted);
    };
    refused(read.write_slot(&commit.write));
    refused(second.remove(&name("a")));
    refused(second.draft(&name("a"), new.header.file_id(), &new.bytes).map(drop));
    assert_eq!(read.read_header().unwrap(), fs::read(dir.path().join("a")).unwrap()[..8192]);
    alone.open(&name("a")).unwrap().write_slot(&commit.write).unwrap();
    drop(alone);
    refused(read.write_slot(&commit.write).or(Err(crate::TargetError::new(
        TargetErrorKind::NotPermitted,
        "the header is another by now",
    ))));
    second.remove(&name("a")).unwrap();
}

#[test]
fn who_is_alone_has_a_journal_once_a_block_is_written_over() {
    let (dir, new) = (TempDir::new().unwrap(), sample());
    let server = open_alone(&dir);
    let target = create(&server, &new);
    assert_eq!(beside(dir.path()), [""; 0]);
    let stored = fs::read(dir.path().join("a")).unwrap();
    let sealed = seal(&new, 1, 3, 9);
    write(&*target, &sealed, Expected::Nonce(nonce_in(&stored, 1))).unwrap();
    assert_eq!(beside(dir.path()), ["journal"]);
    // Another handle of the same file has the same one.
    let again = server.open(&name("a")).unwrap();
    let nonce = sealed.nonces().next().unwrap().1;
    let sealed = seal(&new, 1, 3, 10);
    write(&*again, &sealed, Expected::Nonce(nonce)).unwrap();
    drop((target, again));
    let journal = dir.path().join(".sealback").join(format!("{}.journal", new.header.file_id()));
    assert!(fs::read(journal).unwrap().is_empty(), "it is emptied when the file is closed");
    server.remove(&name("a")).unwrap();
    assert_eq!(beside(dir.path()), [""; 0]);
}

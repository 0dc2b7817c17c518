//! Local servers and caches: the conformance suite, and what only a file system can go through.

use std::{fs, path::Path, sync::Arc};

use sealback_crypto::{Engine, Geometry, Header, NewHeader, RootKey};
use tempfile::TempDir;

use crate::{
    Durability, LocalCache, LocalOptions, LocalServer, Name, Server, TargetErrorKind, conformance,
};

mod away;
mod copies;
mod damage;
mod disk_full;
mod handed;
mod journal;
mod limit;
mod model;
mod processes;
mod records;
mod tenancy;

/// Servers in directories that are removed in the end.
fn servers(options: LocalOptions) -> (TempDir, impl Fn() -> Arc<dyn Server>) {
    let dir = TempDir::new().unwrap();
    let parent = dir.path().to_owned();
    let make = move || -> Arc<dyn Server> {
        let dir = tempfile::tempdir_in(&parent).unwrap().keep();
        Arc::new(LocalServer::open(dir, options).unwrap())
    };
    (dir, make)
}

#[test]
fn a_local_server_keeps_the_contract() {
    for durability in [Durability::None, Durability::Process, Durability::PowerCut] {
        let (_dir, make) = servers(LocalOptions::default().with_durability(durability));
        conformance::server(&make);
    }
}

#[test]
fn a_local_server_whose_drafts_have_names_keeps_the_contract() {
    let dir = TempDir::new().unwrap();
    let make = || -> Arc<dyn Server> {
        Arc::new(open_with_named_drafts(&tempfile::tempdir_in(dir.path()).unwrap().keep()))
    };
    conformance::server(&make);
}

#[test]
fn a_local_cache_keeps_the_contract() {
    for durability in [Durability::Process, Durability::PowerCut] {
        let options = LocalOptions::default().with_durability(durability);
        let dir = TempDir::new().unwrap();
        let open = || LocalCache::open(dir.path(), options).unwrap();
        conformance::cache(&|| Arc::new(open()));
        conformance::persistent_cache(&|| Arc::new(open()));
    }
}

fn sample() -> NewHeader {
    sample_of(Geometry::new(4096).unwrap())
}

fn sample_of(geometry: Geometry) -> NewHeader {
    Header::create(&RootKey::generate().unwrap(), geometry, Engine::fastest()).unwrap()
}

fn name(name: &str) -> Name {
    Name::new(name).unwrap()
}

fn open(dir: &Path) -> LocalServer {
    LocalServer::open(dir, LocalOptions::default()).unwrap()
}

/// One whose file system could not give a file a name that was made without.
fn open_with_named_drafts(dir: &Path) -> LocalServer {
    let server = open(dir);
    server.root().have_drafts_named();
    server
}

/// What is in `.sealback`, by its endings, but for the room that is kept, and for the directory's lock.
fn beside(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir.join(".sealback")) else { return Vec::new() };
    let ending = |path: std::path::PathBuf| path.extension().unwrap().to_str().unwrap().to_owned();
    let mut endings: Vec<String> = entries.map(|entry| ending(entry.unwrap().path())).collect();
    endings.retain(|ending| ending != "reserve" && ending != "lock");
    endings.sort();
    endings
}

#[test]
fn a_server_needs_a_directory() {
    let dir = TempDir::new().unwrap();
    let kind = |path: &Path| {
        let server = LocalServer::open(path, LocalOptions::default()).map(drop);
        let cache = LocalCache::open(path, LocalOptions::default()).map(drop);
        let kind = server.unwrap_err().kind();
        assert_eq!(cache.unwrap_err().kind(), kind);
        kind
    };
    assert_eq!(kind(&dir.path().join("no")), TargetErrorKind::NotFound);
    fs::write(dir.path().join("file"), "").unwrap();
    assert_eq!(kind(&dir.path().join("file")), TargetErrorKind::Unsupported);
    drop(open(dir.path()));
    assert!(!dir.path().join(".sealback").exists(), "it is made when first needed");
}

#[test]
fn a_directory_is_not_opened_replaced_or_removed() {
    let dir = TempDir::new().unwrap();
    let (server, new, name) = (open(dir.path()), sample(), name("d"));
    fs::create_dir(dir.path().join("d")).unwrap();
    let file_id = new.header.file_id();
    assert_eq!(server.open(&name).unwrap_err().kind(), TargetErrorKind::IsADirectory);
    assert_eq!(server.remove(&name).unwrap_err().kind(), TargetErrorKind::IsADirectory);
    let created = server.create(&name, file_id, &new.bytes);
    assert_eq!(created.unwrap_err().kind(), TargetErrorKind::AlreadyExists);
    let draft = server.draft(&name, file_id, &new.bytes).unwrap();
    assert_eq!(draft.publish().unwrap_err().kind(), TargetErrorKind::IsADirectory);
    drop(draft);
    assert_eq!(beside(dir.path()), [""; 0]);
}

#[test]
fn what_is_not_sealed_can_be_opened_for_its_header_to_be_named() {
    let dir = TempDir::new().unwrap();
    let server = open(dir.path());
    for content in [&b""[..], b"no", &[b'x'; 9000]] {
        fs::write(dir.path().join("x"), content).unwrap();
        let header = server.open(&name("x")).unwrap().read_header().unwrap();
        assert_eq!(header, content[..content.len().min(8192)]);
    }
}

#[test]
fn a_link_is_followed_and_replaced() {
    let (dir, elsewhere) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (server, far, name) = (open(dir.path()), open(elsewhere.path()), name("a"));
    let (first, second) = (sample(), sample());
    far.create(&name, first.header.file_id(), &first.bytes).unwrap();
    std::os::unix::fs::symlink(elsewhere.path().join("a"), dir.path().join("a")).unwrap();
    assert_eq!(server.open(&name).unwrap().read_header().unwrap(), first.bytes[..]);
    let draft = server.draft(&name, second.header.file_id(), &second.bytes).unwrap();
    draft.publish().unwrap();
    assert_eq!(far.open(&name).unwrap().read_header().unwrap(), first.bytes[..]);
    assert_eq!(fs::read(dir.path().join("a")).unwrap(), second.bytes[..]);
    assert!(dir.path().join("a").symlink_metadata().unwrap().is_file());
}

#[test]
fn only_abandoned_drafts_are_removed_when_a_server_is_opened() {
    let dir = TempDir::new().unwrap();
    let (server, new, other) = (open_with_named_drafts(dir.path()), sample(), sample());
    let live = server.draft(&name("a"), new.header.file_id(), &new.bytes).unwrap();
    let left = dir.path().join(".sealback").join(format!("{}.draft", other.header.file_id()));
    fs::write(&left, "left by a crash").unwrap();
    drop(open(dir.path()));
    assert!(!left.exists());
    // One that is left by a crash while the server is open is in nobody's way.
    fs::write(&left, "left by a crash").unwrap();
    drop(server.draft(&name("b"), other.header.file_id(), &other.bytes).unwrap());
    let taken = server.draft(&name("b"), new.header.file_id(), &new.bytes);
    assert_eq!(taken.unwrap_err().kind(), TargetErrorKind::AlreadyExists);
    live.publish().unwrap();
    drop(open(dir.path()));
    assert_eq!(server.open(&name("a")).unwrap().read_header().unwrap(), new.bytes[..]);
    assert_eq!(beside(dir.path()), [""; 0]);
}

#[test]
fn a_draft_leaves_nothing_beside_the_files_whether_or_not_it_replaces_one() {
    let dir = TempDir::new().unwrap();
    let server = open(dir.path());
    for new in [sample(), sample()] {
        let draft = server.draft(&name("a"), new.header.file_id(), &new.bytes).unwrap();
        assert_eq!(beside(dir.path()), [""; 0], "it has no name");
        drop(open(dir.path()));
        draft.publish().unwrap();
        // The lock of the file that is replaced stays, for those who have it open.
        assert!(!beside(dir.path()).contains(&"draft".to_owned()));
        assert_eq!(fs::read(dir.path().join("a")).unwrap(), new.bytes[..]);
        drop(draft);
        assert_eq!(server.open(&name("a")).unwrap().read_header().unwrap(), new.bytes[..]);
    }
}

#[test]
fn a_draft_that_was_named_and_not_published_can_be_published_later_or_goes() {
    for is_published in [false, true] {
        let dir = TempDir::new().unwrap();
        let (server, new) = (open(dir.path()), sample());
        fs::create_dir(dir.path().join("a")).unwrap();
        let draft = server.draft(&name("a"), new.header.file_id(), &new.bytes).unwrap();
        assert_eq!(draft.publish().unwrap_err().kind(), TargetErrorKind::IsADirectory);
        drop(open(dir.path()));
        if is_published {
            fs::remove_dir(dir.path().join("a")).unwrap();
            draft.publish().unwrap();
            assert_eq!(fs::read(dir.path().join("a")).unwrap(), new.bytes[..]);
        } else {
            assert_eq!(beside(dir.path()), ["draft"], "nobody takes it for abandoned");
        }
        drop(draft);
        assert_eq!(beside(dir.path()), [""; 0]);
    }
}

#[test]
fn a_name_that_could_not_be_made_durable_is_so_when_publishing_again_says_so() {
    let dir = TempDir::new().unwrap();
    let options = LocalOptions::default().with_durability(Durability::PowerCut);
    let (server, new) = (LocalServer::open(dir.path(), options).unwrap(), sample());
    let draft = server.draft(&name("a"), new.header.file_id(), &new.bytes).unwrap();
    for _ in 0..2 {
        server.root().fail_to_sync_names();
        draft.publish().expect_err("the directory is not durable");
        assert_eq!(fs::read(dir.path().join("a")).unwrap(), new.bytes[..], "it has its name");
    }
    draft.publish().unwrap();
    server.root().fail_to_sync_names();
    draft.publish().expect("nothing is left to do");
    drop(draft);
    assert_eq!(fs::read(dir.path().join("a")).unwrap(), new.bytes[..]);
}

#[test]
fn removing_a_file_removes_its_lock_unless_that_is_held() {
    for is_held in [false, true] {
        let dir = TempDir::new().unwrap();
        let (server, new) = (open(dir.path()), sample());
        let file = server.create(&name("a"), new.header.file_id(), &new.bytes).unwrap();
        let change =
            sealback_crypto::HeaderChange { size: 1, holes: 0..0, cuts: 0, cut_pending: false };
        let commit = new.header.commit(&change).unwrap();
        file.write_slot(&commit.write).unwrap();
        let _size = file.lock_size().unwrap();
        assert_eq!(beside(dir.path()), ["journal"]);
        let lock = format!("{}.journal", new.header.file_id());
        let lock = fs::File::open(dir.path().join(".sealback").join(lock)).unwrap();
        if is_held {
            lock.lock().unwrap();
        }
        server.remove(&name("a")).unwrap();
        let left = if is_held { vec!["journal"] } else { vec![] };
        assert_eq!(beside(dir.path()), left);
        drop(lock);
        // A handle that is still open changes nothing any more.
        let change = sealback_crypto::HeaderChange { size: 2, ..change };
        let refused = file.write_slot(&commit.header.commit(&change).unwrap().write).unwrap_err();
        assert_eq!(refused.kind(), TargetErrorKind::NotFound);
        assert_eq!(beside(dir.path()), left);
    }
}

//! Files that a client finds and opens by itself.

use std::{
    fs::{self, File, OpenOptions},
    path::{Path, PathBuf},
    sync::Arc,
};

use sealback_crypto::{FileId, HEADER_BYTES, Header, HeaderChange, HeaderCommit};

use super::{name, sample};
use crate::{
    Durability, LocalOptions, LocalServer, Name, Server, Target, TargetError, TargetErrorKind,
    conformance,
};

/// A client that finds files by itself, in a directory below the server's.
#[derive(Debug)]
struct Finder {
    server: LocalServer,
    below: PathBuf,
}

impl Finder {
    fn new(options: LocalOptions) -> Finder {
        Finder::with(|dir| LocalServer::open(dir, options))
    }

    fn alone(options: LocalOptions) -> Finder {
        Finder::with(|dir| LocalServer::open_alone(dir, options))
    }

    fn with(open: impl FnOnce(&Path) -> Result<LocalServer, TargetError>) -> Finder {
        let dir = tempfile::tempdir().unwrap().keep();
        let below = dir.join("below");
        fs::create_dir(&below).unwrap();
        Finder { server: open(&dir).unwrap(), below }
    }

    fn at(&self, name: &Name) -> PathBuf {
        self.below.join(name.as_str())
    }

    fn begin(&self, path: PathBuf, header: &[u8; HEADER_BYTES]) -> Result<File, TargetError> {
        let unmade = |error| TargetError::from_io("creating", error);
        let mut open = OpenOptions::new();
        let file = open.read(true).write(true).create_new(true).open(path).map_err(unmade)?;
        self.server.adopt_new(file.try_clone().unwrap(), header)?;
        Ok(file)
    }
}

impl Drop for Finder {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(self.server.dir()));
    }
}

impl Server for Finder {
    fn create(
        &self,
        name: &Name,
        _: FileId,
        header: &[u8; HEADER_BYTES],
    ) -> Result<Arc<dyn Target>, TargetError> {
        self.server.adopt(self.begin(self.at(name), header)?)
    }

    fn draft(
        &self,
        name: &Name,
        file_id: FileId,
        header: &[u8; HEADER_BYTES],
    ) -> Result<Arc<dyn Target>, TargetError> {
        self.server.draft(name, file_id, header)
    }

    fn open(&self, name: &Name) -> Result<Arc<dyn Target>, TargetError> {
        let open = OpenOptions::new().read(true).write(true).open(self.at(name));
        self.server.adopt(open.map_err(|error| TargetError::from_io("opening", error))?)
    }

    fn remove(&self, name: &Name) -> Result<(), TargetError> {
        let unremoved = |error| TargetError::from_io("removing", error);
        let file = File::open(self.at(name)).map_err(unremoved)?;
        fs::remove_file(self.at(name)).map_err(unremoved)?;
        self.server.forget(&file);
        Ok(())
    }
}

#[test]
fn files_that_a_client_has_found_by_itself_keep_the_contract() {
    for durability in [Durability::None, Durability::Process, Durability::PowerCut] {
        let options = LocalOptions::default().with_durability(durability);
        let ours = |check: &conformance::ServerCheck| !check.sentence.contains("draft");
        for check in conformance::server_checks().filter(ours) {
            check.run(&Finder::new(options));
            check.run(&Finder::alone(options));
        }
    }
}

#[test]
fn a_file_that_is_renamed_or_has_no_name_any_more_goes_on_and_leaves_nothing_beside_it() {
    for make in [Finder::new, Finder::alone] {
        goes_on_and_leaves_nothing(&make(LocalOptions::default()));
    }
}

fn goes_on_and_leaves_nothing(finder: &Finder) {
    let (old, new) = (name("old"), name("new"));
    let header = sample();
    let target = finder.create(&old, header.header.file_id(), &header.bytes).unwrap();
    let again = finder.open(&old).unwrap();
    fs::rename(finder.at(&old), finder.at(&new)).unwrap();
    assert_eq!(target.identity(), finder.open(&new).unwrap().identity());
    let slot = change(&header.header);
    target.write_slot(&slot.write).unwrap();
    drop(target.lock_size().unwrap());

    finder.remove(&new).unwrap();
    let header = slot.header;
    let slot = change(&header);
    again.write_slot(&slot.write).unwrap();
    drop(again.lock_size().unwrap());
    drop((target, again));
    let beside = fs::read_dir(finder.server.dir().join(".sealback")).unwrap();
    let left = beside.map(|entry| entry.unwrap().file_name());
    let left: Vec<_> = left.filter(|name| name != "directory.lock").collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_file_that_is_open_for_reading_only_refuses_to_be_written_to() {
    let finder = Finder::new(LocalOptions::default());
    let name = name("a");
    let header = sample();
    finder.create(&name, header.header.file_id(), &header.bytes).unwrap();
    let target = finder.server.adopt(File::open(finder.at(&name)).unwrap()).unwrap();
    assert_eq!(target.read_header().unwrap(), header.bytes[..]);
    let slot = change(&header.header);
    let refused = target.write_slot(&slot.write).unwrap_err();
    assert_eq!(refused.kind(), TargetErrorKind::NotPermitted);
}

#[test]
fn a_file_that_is_not_empty_does_not_become_a_new_one() {
    let finder = Finder::new(LocalOptions::default());
    let path = finder.below.join("text");
    fs::write(&path, "text").unwrap();
    let open = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let header = sample();
    let refused = finder.server.adopt_new(open, &header.bytes).unwrap_err();
    assert_eq!(refused.kind(), TargetErrorKind::AlreadyExists);
    assert_eq!(fs::read(&path).unwrap(), b"text");
}

/// The next header, in which nothing has changed.
fn change(header: &Header) -> HeaderCommit {
    header.commit(&HeaderChange { size: 0, holes: 0..0, cuts: 0, cut_pending: false }).unwrap()
}

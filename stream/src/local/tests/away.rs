//! A directory that goes away, as one on a disk that is unmounted: what is there in its place is no server.

use std::fs;

use tempfile::TempDir;

use super::{name, sample};
use crate::{LocalOptions, LocalServer, Server, TargetError, TargetErrorKind};

/// How the place looks where the directory was.
const PLACES: [fn(&TempDir); 2] =
    [|_| (), |parent| fs::create_dir(parent.path().join("server")).unwrap()];

struct World {
    parent: TempDir,
    server: LocalServer,
}

impl World {
    fn new() -> World {
        let parent = TempDir::new().unwrap();
        let dir = parent.path().join("server");
        fs::create_dir(&dir).unwrap();
        let server = LocalServer::open(dir, LocalOptions::default()).unwrap();
        World { parent, server }
    }

    fn go(&self, leave: fn(&TempDir)) {
        let at = |name| self.parent.path().join(name);
        fs::rename(at("server"), at("elsewhere")).unwrap();
        leave(&self.parent);
    }

    /// Nothing may have been made where it was.
    fn come_back(&self) {
        let at = |name| self.parent.path().join(name);
        if at("server").exists() {
            fs::remove_dir(at("server")).unwrap();
        }
        fs::rename(at("elsewhere"), at("server")).unwrap();
    }
}

fn is_away<T: std::fmt::Debug>(answer: Result<T, TargetError>) {
    assert_eq!(answer.unwrap_err().kind(), TargetErrorKind::TimedOut);
}

#[test]
fn a_directory_that_has_gone_is_a_server_that_does_not_answer_and_nothing_is_made_in_its_place() {
    for leave in PLACES {
        let world = World::new();
        let new = sample();
        let (id, header) = (new.header.file_id(), &new.bytes);
        let draft = world.server.draft(&name("file"), id, header).unwrap();
        let other = name("other");
        let open = world.server.create(&other, id, header).unwrap();
        world.go(leave);
        is_away(world.server.open(&name("file")));
        is_away(world.server.remove(&name("file")));
        is_away(world.server.draft(&name("file"), id, header));
        is_away(world.server.create(&name("file"), id, header));
        is_away(world.server.identify(None));
        is_away(draft.publish());
        open.read_header().unwrap();
        world.come_back();
        assert_eq!(world.server.open(&name("file")).unwrap_err().kind(), TargetErrorKind::NotFound);
        draft.publish().unwrap();
        world.server.open(&name("file")).unwrap();
    }
}

#[test]
fn a_directory_is_known_again_and_another_one_is_not_taken_for_it() {
    let world = World::new();
    let identity = world.server.identify(None).unwrap();
    assert!(identity.is_some());
    assert_eq!(world.server.identify(None).unwrap(), identity);
    assert_eq!(world.server.identify(identity).unwrap(), identity);
    world.go(PLACES[1]);
    let dir = world.parent.path().join("server");
    let another = LocalServer::open(dir, LocalOptions::default()).unwrap();
    is_away(another.identify(identity));
    drop(another);
    world.come_back();
    assert_eq!(world.server.identify(identity).unwrap(), identity);
}

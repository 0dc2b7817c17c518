//! What a full disk does.

use std::{path::Path, process::Command};

use sealback_crypto::Buffer;
use tempfile::TempDir;

use super::{name, open, processes::write, sample};
use crate::{Expected, Failure, Server, TargetErrorKind};

/// A small file system of its own; unmounted when dropped.
pub(super) struct Small(TempDir);

impl Small {
    /// `None` where mounting is not allowed, which is said on the standard error.
    pub(super) fn mount() -> Option<Small> {
        let dir = TempDir::new().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=256k", "sealback-test"]).arg(dir.path());
        let mounted = mount.output().is_ok_and(|output| output.status.success());
        if !mounted {
            eprintln!("skipped: mounting is not allowed here");
        }
        mounted.then(|| Small(dir))
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(self.0.path()).output());
    }
}

#[test]
fn a_full_disk_takes_whole_blocks_as_long_as_there_is_room_and_then_says_so() {
    let Some(small) = Small::mount() else { return };
    let (server, new) = (open(small.path()), sample());
    let target = server.create(&name("a"), new.header.file_id(), &new.bytes).unwrap();
    let plain = vec![1; 100 * 4096];
    let buffer = Buffer::unpooled(100 * 4144);
    let sealed = new.header.content_key().seal(0, 2, &[&plain], buffer).unwrap();
    let written = write(&*target, &sealed, Expected::Absent).unwrap();
    let n_blocks = written / 4144;
    assert!((1..100).contains(&n_blocks), "{n_blocks} blocks went through");
    let rest = sealed.slice(n_blocks..100);
    // Our own first bytes may be there from the attempt before.
    let Failure::Fatal(error) = write(&*target, &rest, Expected::Absent).unwrap_err() else {
        panic!("a full disk is no transient error");
    };
    assert_eq!(error.kind(), TargetErrorKind::NoSpace);
    let draft = server.draft(&name("b"), new.header.file_id(), &new.bytes);
    let published = draft.and_then(|draft| draft.publish());
    assert_eq!(published.unwrap_err().kind(), TargetErrorKind::NoSpace);
    assert!(!small.path().join("b").exists());
}

//! Written behind onto a disk that is full: who writes is told, what was acknowledged is uploaded.
//!
//! The disk is a small one in memory, which is mounted; where that is not allowed, the tests say so and end.

use std::{
    fs::{self, File},
    path::Path,
    process::Command,
};

use sealback::Error;
use sealback_stream::{TargetErrorKind, WhenFull, WriteBehindOptions};
use tempfile::TempDir;

use crate::{
    behind::{BLOCK, Client, World, read_all_from},
    support::{all_of, assert_same, engine, sample},
};

/// A disk of 2 MiB, which is gone when this is dropped.
struct SmallDisk(TempDir);

impl SmallDisk {
    /// `None` where nothing may be mounted.
    fn mount() -> Option<SmallDisk> {
        let dir = TempDir::new().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"]).arg(dir.path());
        if !mount.output().is_ok_and(|output| output.status.success()) {
            println!("skipped: nothing can be mounted here");
            return None;
        }
        Some(SmallDisk(dir))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Takes all the room that is left.
    fn fill(&self) {
        let mut file = File::create(self.path().join("fill")).unwrap();
        std::io::copy(&mut std::io::repeat(1), &mut file).unwrap_err();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: somebody may have a file of it open for a moment longer.
        drop(Command::new("umount").arg("-l").arg(self.path()).status());
    }
}

/// Goal: what is acknowledged before the disk is full, and nothing that was not, counts; who writes is told why.
#[test]
fn on_a_full_disk_a_sync_is_told_and_what_was_acknowledged_before_is_uploaded() {
    for when_full in [WhenFull::Fail, WhenFull::Wait] {
        let Some(disk) = SmallDisk::mount() else { return };
        let mut content = sample(4 << 20);
        let world = World::with_on(&content, disk.path());
        let options = WriteBehindOptions { when_full, ..WriteBehindOptions::default() };
        let client = world.client_of(engine(), options);
        let file = client.open();
        world.server.hook.set_away(true);
        const PIECE: usize = 16 * BLOCK;
        let mut synced = 0;
        let error = loop {
            let at = synced * PIECE;
            file.write_at(at as u64, &[7; PIECE]).unwrap();
            match file.sync() {
                Ok(()) => synced += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(error.target_kind(), Some(TargetErrorKind::NoSpace), "{error}");
        assert!(error.to_string().contains("what waits to be uploaded"), "{error}");
        assert!(synced > 10 && file.dirty_bytes() >= PIECE as u64, "{synced}");
        content[..(synced + 1) * PIECE].fill(7);
        let written = (synced + 1) * PIECE;
        assert_same(&read_all_from(&file, 0, written), &content[..written], "who writes");
        file.discard();
        client.die(file);
        world.resume();
        let found = all_of(&world.memory);
        assert_same(&found[..synced * PIECE], &content[..synced * PIECE], "what was acknowledged");
        assert_same(&found[(synced + 1) * PIECE..], &content[(synced + 1) * PIECE..], "the rest");
    }
}

/// A file of which 64 blocks wait on a disk, with the server away; and what it holds.
fn with_waiting(disk: &SmallDisk) -> (World, Client, sealback::File, Vec<u8>) {
    let mut content = sample(1 << 20);
    let world = World::with_on(&content, disk.path());
    let (client, file) = world.client_alone();
    file.write_at(0, &[3; 64 * BLOCK]).unwrap();
    content[..64 * BLOCK].fill(3);
    file.sync().unwrap();
    (world, client, file, content)
}

#[test]
fn a_full_disk_is_no_longer_full_when_the_server_is_back() {
    let Some(disk) = SmallDisk::mount() else { return };
    let (world, client, file, mut content) = with_waiting(&disk);
    disk.fill();
    file.write_at(64 * BLOCK as u64, &[4; 64 * BLOCK]).unwrap();
    content[64 * BLOCK..128 * BLOCK].fill(4);
    let error: Error = file.sync().unwrap_err();
    assert_eq!(error.target_kind(), Some(TargetErrorKind::NoSpace), "{error}");
    world.server.hook.set_away(false);
    // What waits goes up, and makes room, though not a byte more can be noted.
    file.upload().unwrap();
    file.sync().unwrap();
    file.upload().unwrap();
    assert_same(&all_of(&world.memory), &content, "somebody else");
    client.die(file);
}

#[test]
fn what_waits_on_a_full_disk_is_uploaded_by_a_later_process() {
    let Some(disk) = SmallDisk::mount() else { return };
    let (world, client, file, content) = with_waiting(&disk);
    client.die(file);
    disk.fill();
    world.resume();
    assert_same(&all_of(&world.memory), &content, "somebody else");
    fs::remove_file(disk.path().join("fill")).unwrap();
}

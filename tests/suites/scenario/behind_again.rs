//! Uploaded again: a client that is killed between the commit and the moment at which its log lets go of what
//! was uploaded must not lay that over what somebody else has made of it since.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use sealback::Place;
use sealback_stream::{MemoryOptions, MemoryServer, TargetError, WriteBehind, WriteBehindOptions};
use sealback_tests::interpose::{Hook, InterposedServer};
use tempfile::TempDir;

use crate::{
    behind::{BLOCK, PATIENCE},
    support::{all_of, assert_same, create, engine, open, root, sample},
};

/// Keeps what a kill would leave of a directory right after the next commit on the server.
#[derive(Debug)]
struct Keeping {
    dir: PathBuf,
    kept: PathBuf,
    is_kept: AtomicBool,
}

impl Hook for Keeping {
    fn control(
        &self,
        change: &mut dyn FnMut() -> Result<(), TargetError>,
    ) -> Result<(), TargetError> {
        change()?;
        if !self.is_kept.swap(true, Ordering::SeqCst) {
            copy(&self.dir, &self.kept);
        }
        Ok(())
    }
}

/// Copies a directory and all in it.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

#[test]
fn what_others_have_written_over_what_was_uploaded_is_not_overwritten_by_uploading_it_again() {
    let memory = MemoryServer::new(MemoryOptions::default());
    let mut content = sample(8 * BLOCK);
    let file = create(&engine(), &memory, None, BLOCK as u64);
    file.write_at(0, &content).unwrap();
    file.sync().unwrap();
    drop(file);
    let parent = TempDir::new().unwrap();
    let [dir, kept] = ["behind", "kept"].map(|name| parent.path().join(name));
    let is_kept = AtomicBool::new(false);
    let keeping = Keeping { dir: dir.clone(), kept: kept.clone(), is_kept };
    let server = Arc::new(InterposedServer::new(memory.clone(), keeping));
    let behind = WriteBehind::open(server, &dir, WriteBehindOptions::default()).unwrap();
    let file = open(&engine(), &behind, None);
    // A part of a block, a whole one, and a part of one that nobody else touches.
    for at in [BLOCK + 100..BLOCK + 200, 3 * BLOCK..4 * BLOCK, 5 * BLOCK + 7..5 * BLOCK + 9] {
        content[at.clone()].fill(1);
        file.write_at(at.start as u64, &content[at]).unwrap();
    }
    file.sync().unwrap();
    file.upload().unwrap();
    assert_same(&all_of(&memory), &content, "somebody else");
    // Somebody else goes on from there.
    let other = open(&engine(), &memory, None);
    for at in [BLOCK + 150..BLOCK + 160, 3 * BLOCK + 5..3 * BLOCK + 10] {
        content[at.clone()].fill(2);
        other.write_at(at.start as u64, &content[at]).unwrap();
    }
    other.sync().unwrap();
    // The client was killed, and is there again.
    assert!(kept.exists());
    let again = WriteBehind::open(Arc::new(memory.clone()), &kept, WriteBehindOptions::default());
    let again = again.unwrap();
    assert_eq!(again.pending().unwrap().len(), 1, "it waits once more");
    let root = root();
    let place = Place { server: &again, cache: None, root: &root };
    let since = Instant::now();
    for resumed in engine().resume(&place, &again).unwrap() {
        resumed.uploaded.unwrap();
    }
    while !again.pending().unwrap().is_empty() {
        assert!(since.elapsed() < PATIENCE, "it is never let go of");
        thread::sleep(Duration::from_millis(1));
    }
    assert_same(&all_of(&memory), &content, "somebody else");
}

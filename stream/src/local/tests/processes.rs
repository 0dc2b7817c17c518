//! Two processes on one file.

use std::{collections::BTreeMap, env, fs, path::Path, process::Command};

use sealback_crypto::{Buffer, Engine, Geometry, Header, OpenOptions, RootKey, Sealed};
use tempfile::TempDir;

use super::{name, open};
use crate::{
    Completion, CompletionSink, Expectation, Expected, Failure, Segment, Server, Target, Ticket,
    Write,
};

const DIR: &str = "SEALBACK_TEST_RACE_DIR";
const N_PROCESSES: usize = 3;
const N_WINS: usize = 60;

/// Goal: compare-and-write holds between processes. Method: each replaces block 0 whenever it has
/// seen what is there, and logs what it replaced; the replacements of all must be one chain.
#[test]
fn processes_that_race_to_replace_a_block_replace_each_version_once() {
    let dir = TempDir::new().unwrap();
    let root = RootKey::from_bytes(&[5; 32]);
    let geometry = Geometry::new(4096).unwrap();
    let new = Header::create(&root, geometry, Engine::fastest()).unwrap();
    open(dir.path()).create(&name("a"), new.header.file_id(), &new.bytes).unwrap();
    let children: Vec<_> = (0..N_PROCESSES)
        .map(|child| {
            Command::new(env::current_exe().unwrap())
                .args(["--exact", "local::tests::processes::one_of_those_that_race"])
                .env(DIR, dir.path())
                .env("SEALBACK_TEST_RACE_CHILD", child.to_string())
                .stdout(std::process::Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let mut next = BTreeMap::new();
    for child in 0..N_PROCESSES {
        let log = fs::read_to_string(dir.path().join(format!("log{child}"))).unwrap();
        for line in log.lines() {
            let (before, after) = line.split_once(' ').unwrap();
            let twice = next.insert(before.to_owned(), after.to_owned());
            assert!(twice.is_none(), "{before} was replaced twice");
        }
    }
    assert_eq!(next.len(), N_PROCESSES * N_WINS);
    let mut at = "None".to_owned();
    let mut n_links = 0;
    while let Some(after) = next.get(&at) {
        at.clone_from(after);
        n_links += 1;
    }
    assert_eq!(n_links, N_PROCESSES * N_WINS, "the replacements are no single chain");
}

/// What the test above runs in other processes; nothing in this one.
#[test]
fn one_of_those_that_race() {
    let Ok(dir) = env::var(DIR) else { return };
    let child = env::var("SEALBACK_TEST_RACE_CHILD").unwrap();
    let target = open(Path::new(&dir)).open(&name("a")).unwrap();
    let root = RootKey::from_bytes(&[5; 32]);
    let header = target.read_header().unwrap();
    let header = Header::open(&header, &root, &OpenOptions::default()).unwrap();
    let mut seen = None;
    let mut log = String::new();
    let mut n_wins = 0;
    while n_wins < N_WINS {
        let buffer = Buffer::unpooled(4144);
        let sealed = header.content_key().seal(0, 2, &[&[1; 4096]], buffer).unwrap();
        let expected = Expected::of(seen);
        match write(&*target, &sealed, expected) {
            Ok(_) => {
                let now = Some(sealed.nonce(0));
                log += &format!("{seen:?} {now:?}\n");
                seen = now;
                n_wins += 1;
            }
            Err(Failure::Conflict(blocks)) => seen = blocks[0].stored,
            Err(failure) => panic!("{failure}"),
        }
    }
    fs::write(Path::new(&dir).join(format!("log{child}")), log).unwrap();
}

pub(super) fn write(
    target: &dyn Target,
    sealed: &Sealed,
    expected: Expected,
) -> Result<u64, Failure> {
    struct Sink(std::sync::mpsc::Sender<Result<u64, Failure>>);
    impl CompletionSink for Sink {
        fn terminated(&self, _: Ticket, outcome: Result<u64, Failure>) {
            self.0.send(outcome).unwrap();
        }
    }
    let (sender, outcomes) = std::sync::mpsc::channel();
    let expectations = vec![Expectation { block: sealed.blocks().start, expected }];
    let write =
        Write { segments: vec![Segment::Sealed(sealed.clone())], expectations, dirty: Vec::new() };
    let ticket = Ticket { stream: 0, id: 0 };
    target.write(write, Completion::new(std::sync::Arc::new(Sink(sender)), ticket));
    outcomes.recv().unwrap()
}

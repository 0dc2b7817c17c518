//! The corpus of damaged files: committed in `crypto/vectors/damaged/`, made here, and judged.
//!
//! `forge.rs` makes the files from the specification, `cases.rs` says what is done to them and
//! what must be found, `corpus.rs` writes it all down for readers that are not ours. After a change
//! of the cases: `SEALBACK_WRITE_VECTORS=1 cargo test -p sealback-crypto --test damaged`.

#![expect(clippy::unwrap_used, reason = "a panic in a test's helper is how the test fails")]
#![expect(clippy::cast_possible_truncation, reason = "the files of the corpus are small")]

mod cases;
mod corpus;
mod forge;

use std::collections::BTreeSet;
use std::fs;

use sealback_crypto::{
    Buffer, Engine, FileId, Header, HeaderError, OpenOptions, RootKey, Stored, Verdict,
};

use cases::{Case, Finding};
use forge::{B, HEADER};

/// What the corpus promises to stay under, in bytes.
const MAX_CORPUS_BYTES: u64 = 700 << 10;

#[test]
fn the_committed_corpus_is_what_its_cases_say() {
    let dir = corpus::dir();
    let files = corpus::files();
    let mut committed = BTreeSet::new();
    let mut bytes = 0;
    for entry in fs::read_dir(&dir).unwrap() {
        let entry = entry.unwrap();
        committed.insert(entry.file_name().into_string().unwrap());
        bytes += entry.metadata().unwrap().len();
    }
    let named: BTreeSet<_> = files.iter().map(|(name, _)| name.clone()).collect();
    assert_eq!(committed, named);
    for (name, content) in files {
        let same = fs::read(dir.join(&name)).unwrap() == content;
        assert!(same, "{name} is not what the cases say: see SEALBACK_WRITE_VECTORS");
    }
    assert!(bytes < MAX_CORPUS_BYTES, "{bytes} bytes");
}

#[test]
fn every_committed_file_is_judged_as_its_case_says() {
    for (case, file) in corpus::cases() {
        let stored = fs::read(corpus::dir().join(file)).unwrap();
        for engine in Engine::all() {
            judge(&case, &stored, *engine);
        }
    }
}

fn judge(case: &Case, stored: &[u8], engine: Engine) {
    let what = format!("{} by {engine}", case.name);
    match (open(case, stored, engine), &case.finding) {
        (Err(error), Finding::Refused(expected)) => assert_eq!(error, *expected, "{what}"),
        (Ok(header), Finding::Opened { generation, plaintext, blocks }) => {
            assert_eq!(header.generation(), *generation, "{what}");
            assert_eq!(header.size(), plaintext.len() as u64, "{what}");
            let (verdicts, read) = read(&header, &stored[HEADER..]);
            assert_eq!(verdicts, *blocks, "{what}");
            assert!(read == *plaintext, "{what}: plaintext");
        }
        (Err(error), Finding::Opened { .. }) => panic!("{what}: {error}"),
        (Ok(_), Finding::Refused(error)) => panic!("{what}: opened, instead of {error}"),
    }
}

fn open(case: &Case, stored: &[u8], engine: Engine) -> Result<Header, HeaderError> {
    let options = OpenOptions {
        engine,
        expected_file_id: case.expected_file_id.map(FileId::from_bytes),
        least: case.least,
        recover_torn: case.recover_torn,
    };
    Header::open(stored, &RootKey::from_bytes(&case.key), &options)
}

/// Each block's verdict, and the plaintext, where 0xee was before.
fn read(header: &Header, blocks: &[u8]) -> (Vec<String>, Vec<u8>) {
    let asked = header.size().div_ceil(B as u64) as usize * forge::STRIDE;
    let len = blocks.len().min(asked);
    let mut buffer = Buffer::unpooled(len);
    buffer.copy_from_slice(&blocks[..len]);
    let mut plain = vec![0xee; header.size() as usize];
    let opened = header.content_key().open(&header.view(), 0, Stored { buffer, len }, &mut plain);
    let verdicts = opened.verdicts().iter().map(|verdict| match verdict {
        Verdict::Damaged(damage) => corpus::name_of(&damage.kind),
        Verdict::Opened { .. } | Verdict::Hole => corpus::name_of(verdict),
        verdict => panic!("{verdict:?} is a verdict that the corpus does not know"),
    });
    (verdicts.collect(), plain)
}

//! A local cache's record and copy: arbitrary bytes where they are expected, then any sequence of
//! calls. Never a panic; `present` tells of exactly those blocks whose entries check.
#![no_main]

#[path = "../../../crypto/tests/damaged/forge.rs"]
#[expect(dead_code, reason = "damaged files are other targets'")]
mod forge;

use std::collections::BTreeMap;
use std::env;
use std::fs::{self, File};
use std::ops::Range;
use std::path::PathBuf;
use std::process;
use std::sync::{Arc, OnceLock};

use arbitrary::Arbitrary;
use forge::{B, Forge, ROOT, STRIDE, Slot, text};
use libfuzzer_sys::fuzz_target;
use sealback_crypto::{
    Buffer, FileId, HEADER_BYTES, Header, Nonce, OpenOptions, PREFIX_BYTES, RootKey, Sealed,
};
use sealback_stream::{Cache, CacheFile, LocalCache, LocalOptions};

#[derive(Arbitrary, Debug)]
struct Input {
    /// The record's first bytes; `None`: as they should be.
    start: Option<Vec<u8>>,
    entries: Vec<Entry>,
    edits: Vec<(u16, u8)>,
    record_len: Option<u16>,
    copy_len: u16,
    steps: Vec<Step>,
}

#[derive(Arbitrary, Debug)]
enum Entry {
    /// Of another block.
    Moved(u8),
    Right(u8),
    Wrong([u8; 32]),
    Zero,
}

#[derive(Arbitrary, Debug)]
enum Step {
    Confirm { a: u8, b: u8 },
    Forget { a: u64, b: u64 },
    ForgetSome { a: u8, b: u8 },
    Invalidate,
    Present { from: u64, n_blocks: u8 },
    Reopen,
    ResizeCopy(u16),
    SetHeader { stored_bytes: u16 },
}

/// Blocks that can be confirmed.
const N_BLOCKS: usize = 8;
const RECORD_HEADER: usize = 128;
/// More blocks than any file has.
const BEYOND: u64 = 1 << 48;

/// What stays the same from input to input.
struct World {
    cache: LocalCache,
    header: Header,
    sealed: Sealed,
    /// The first bytes of a right record.
    record_start: Vec<u8>,
    record: PathBuf,
    copy: PathBuf,
}

impl World {
    fn start() -> World {
        let dir = env::temp_dir().join(format!("sealback-fuzz-{}", process::id()));
        fs::create_dir_all(&dir).unwrap();
        let bytes = Forge::new().header(&[Slot::new(1, 0)]);
        let root = RootKey::from_bytes(&ROOT);
        let header = Header::open(&bytes, &root, &OpenOptions::default()).unwrap();
        let buffer = Buffer::unpooled(N_BLOCKS * STRIDE);
        let sealed = header.content_key().seal(0, 2, &[&text(0..N_BLOCKS * B)], buffer).unwrap();
        let cache = LocalCache::open(dir, LocalOptions::default()).unwrap();
        let copy = cache.path_of(header.file_id());
        let record = copy.with_extension("record");
        drop(cache.open(header.file_id(), header.geometry()).unwrap());
        let record_start = fs::read(&record).unwrap();
        assert_eq!(record_start.len(), RECORD_HEADER);
        World { cache, header, sealed, record_start, record, copy }
    }

    fn open(&self) -> Arc<dyn CacheFile> {
        self.cache.open(self.header.file_id(), self.header.geometry()).unwrap()
    }

    /// What a record says of blocks that the copy lacks does not count, nor of a last one that is
    /// shorter than its prefix says.
    fn drop_what_is_not_there(&self, model: &mut BTreeMap<u64, Nonce>) {
        let copy = fs::read(&self.copy).unwrap();
        let last = copy.len().saturating_sub(HEADER_BYTES) / STRIDE;
        let start = HEADER_BYTES + last * STRIDE;
        let mut prefix = [0; PREFIX_BYTES];
        let stored = copy.get(start..).unwrap_or_default();
        let stored = &stored[..stored.len().min(PREFIX_BYTES)];
        prefix[..stored.len()].copy_from_slice(stored);
        let sealed = u32::from_le_bytes(forge::field(&prefix, 40)) as usize;
        let is_whole = start + PREFIX_BYTES + sealed <= copy.len();
        drop(model.split_off(&(last as u64 + u64::from(is_whole))));
    }

    /// What the record on disk says, read anew.
    fn recorded(&self) -> BTreeMap<u64, Nonce> {
        let record = fs::read(&self.record).unwrap();
        let Some((start, entries)) = record.split_at_checked(RECORD_HEADER) else {
            return BTreeMap::new();
        };
        if start != self.record_start {
            return BTreeMap::new();
        }
        let checked = (0..).zip(entries.chunks(32)).filter_map(|(block, stored)| {
            let mut entry = [0; 32];
            entry[..stored.len()].copy_from_slice(stored);
            let nonce = Nonce::from_bytes(forge::field(&entry, 0));
            (entry == entry_of(self.header.file_id(), block, &nonce)).then_some((block, nonce))
        });
        checked.collect()
    }
}

fn entry_of(file_id: FileId, block: u64, nonce: &Nonce) -> [u8; 32] {
    let message = [&nonce.as_bytes()[..], &block.to_le_bytes(), file_id.as_bytes()].concat();
    let sum = blake3::hash(&message);
    forge::field(&[nonce.as_bytes(), &sum.as_bytes()[..8]].concat(), 0)
}

fuzz_target!(|input: Input| {
    static WORLD: OnceLock<World> = OnceLock::new();
    let world = WORLD.get_or_init(World::start);
    fs::write(&world.record, record(world, &input)).unwrap();
    fs::write(&world.copy, vec![0x5a; usize::from(input.copy_len)]).unwrap();
    let mut model = world.recorded();
    world.drop_what_is_not_there(&mut model);
    let mut copy = world.open();
    let mut was_cut = false;
    check(&*copy, &model, 0..40);
    for step in &input.steps {
        if matches!(step, Step::Reopen) {
            drop(copy);
            assert!(world.recorded() == model, "the record is what is known of it");
            world.drop_what_is_not_there(&mut model);
            copy = world.open();
            was_cut = false;
        } else {
            run(world, step, &*copy, &mut model, &mut was_cut);
        }
        check(&*copy, &model, 0..40);
    }
});

/// The record that is found.
fn record(world: &World, input: &Input) -> Vec<u8> {
    let mut record = input.start.clone().unwrap_or_else(|| world.record_start.clone());
    for (block, entry) in (0..).zip(&input.entries) {
        let right = |of: u64, nonce: u8| {
            let nonce = Nonce::from_bytes([nonce; 24]);
            entry_of(world.header.file_id(), of, &nonce)
        };
        record.extend(match entry {
            Entry::Moved(nonce) => right(block + 1, *nonce),
            Entry::Right(nonce) => right(block, *nonce),
            Entry::Wrong(bytes) => *bytes,
            Entry::Zero => [0; 32],
        });
    }
    for (at, bits) in &input.edits {
        let len = record.len().max(1);
        if let Some(byte) = record.get_mut(usize::from(*at) % len) {
            *byte ^= bits;
        }
    }
    record.truncate(input.record_len.map_or(usize::MAX, usize::from));
    record
}

fn run(
    world: &World,
    step: &Step,
    copy: &dyn CacheFile,
    model: &mut BTreeMap<u64, Nonce>,
    was_cut: &mut bool,
) {
    let blocks = |a: u8, b: u8| {
        let (a, b) = (u64::from(a) % 9, u64::from(b) % 9);
        a.min(b)..a.max(b)
    };
    match *step {
        Step::Confirm { a, b } => {
            let blocks = blocks(a, b);
            if blocks.is_empty() {
                return;
            }
            let sealed = world.sealed.slice(blocks);
            // Their nonces are looked at only when the copy has been cut, since nothing else takes
            // blocks away; and here none was ever written.
            let end = sealed.stored_start() + sealed.bytes().len() as u64;
            let there = !*was_cut && fs::metadata(&world.copy).unwrap().len() >= end;
            assert_eq!(copy.confirm(&sealed).is_ok(), there);
            if there {
                model.extend(sealed.nonces());
            }
        }
        Step::Forget { a, b } => forget(copy, a.min(b)..a.max(b), model),
        Step::ForgetSome { a, b } => forget(copy, blocks(a, b), model),
        Step::Invalidate => {
            copy.invalidate().unwrap();
            model.clear();
        }
        Step::Present { from, n_blocks } => {
            let from = from % BEYOND;
            check(copy, model, from..from + u64::from(n_blocks));
        }
        Step::Reopen => {}
        Step::ResizeCopy(len) => {
            File::options().write(true).open(&world.copy).unwrap().set_len(len.into()).unwrap();
        }
        Step::SetHeader { stored_bytes } => {
            let stored_bytes = stored_bytes.max(HEADER_BYTES as u16).into();
            if fs::metadata(&world.copy).unwrap().len() > stored_bytes {
                let first = (stored_bytes - HEADER_BYTES as u64) / STRIDE as u64;
                drop(model.split_off(&first));
                *was_cut = true;
            }
            copy.set_header(&world.header.to_bytes(), stored_bytes).unwrap();
            assert!(fs::metadata(&world.copy).unwrap().len() <= stored_bytes);
        }
    }
}

fn forget(copy: &dyn CacheFile, blocks: Range<u64>, model: &mut BTreeMap<u64, Nonce>) {
    copy.forget(blocks.clone()).unwrap();
    model.retain(|block, _| !blocks.contains(block));
}

fn check(copy: &dyn CacheFile, model: &BTreeMap<u64, Nonce>, blocks: Range<u64>) {
    let expected: Vec<_> = blocks.clone().map(|block| model.get(&block).copied()).collect();
    let found = copy.present(blocks.clone());
    let differs = blocks.zip(found.iter().zip(&expected)).find(|(_, (a, b))| a != b);
    assert!(found == expected, "{differs:?}");
}

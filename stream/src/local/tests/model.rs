//! A copy and its record against a model, with damage, crashes and evictions at any point.

use std::{
    collections::BTreeMap,
    fs,
    ops::Range,
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
};

use proptest::prelude::*;
use sealback_crypto::{Buffer, Geometry, NewHeader, Nonce, Sealed};
use tempfile::TempDir;

use super::sample;
use crate::{
    Cache, CacheFile, Completion, CompletionSink, Durability, Failure, LocalCache, LocalOptions,
    Read, ReadCompletion, Segment, Target, Ticket, Write,
};

/// What can happen to a copy.
#[derive(Clone, Debug)]
enum Op {
    /// One of the runs that were written last is confirmed.
    Confirm(prop::sample::Index),
    /// The process is gone; another one goes on with the directory as it is.
    Crash,
    /// While nobody has it open.
    DamageCopy(prop::sample::Index, u8),
    DamageRecord(prop::sample::Index, u8),
    Evict(u64),
    Forget(Range<u64>),
    Invalidate,
    Reopen,
    SetHeader(u64),
    TruncateCopy(prop::sample::Index),
    TruncateRecord(prop::sample::Index),
    /// So many bytes from a block on.
    Write(u64, u64),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let index = any::<prop::sample::Index>;
    let block = 0..1040_u64;
    // Near the start and where a group of the record ends.
    let first = prop_oneof![0..8_u64, 1018..1026_u64];
    let op = prop_oneof![
        6 => (first, 1..4 * 4096_u64).prop_map(|(first, bytes)| Op::Write(first, bytes)),
        6 => index().prop_map(Op::Confirm),
        2 => (block.clone(), block).prop_map(|(a, b)| Op::Forget(a.min(b)..a.max(b) + 1)),
        1 => Just(Op::Invalidate),
        1 => (0..1030 * 4096_u64).prop_map(Op::SetHeader),
        1 => (0..10 * 4096_u64).prop_map(Op::SetHeader),
        2 => (0..100_000_u64).prop_map(Op::Evict),
        2 => Just(Op::Reopen),
        2 => Just(Op::Crash),
        1 => (index(), 1..=255_u8).prop_map(|(at, bits)| Op::DamageCopy(at, bits)),
        1 => (index(), 1..=255_u8).prop_map(|(at, bits)| Op::DamageRecord(at, bits)),
        1 => index().prop_map(Op::TruncateCopy),
        1 => index().prop_map(Op::TruncateRecord),
    ];
    prop::collection::vec(op, 1..40)
}

struct World {
    dir: TempDir,
    options: LocalOptions,
    new: NewHeader,
    copy: Option<Arc<dyn CacheFile>>,
    /// What was written last to each block, and may still be confirmed.
    written: BTreeMap<u64, Sealed>,
    runs: Vec<Sealed>,
    /// What must be present.
    present: BTreeMap<u64, Nonce>,
    /// Blocks whose stored bytes were damaged since they were written.
    damaged: Vec<u64>,
}

impl World {
    fn new(durability: Durability) -> World {
        let options = LocalOptions::default().with_durability(durability);
        let mut world = World {
            dir: TempDir::new().unwrap(),
            options,
            new: sample(),
            copy: None,
            written: BTreeMap::new(),
            runs: Vec::new(),
            present: BTreeMap::new(),
            damaged: Vec::new(),
        };
        world.copy = Some(world.open());
        world
    }

    fn cache(&self, limit: u64) -> LocalCache {
        LocalCache::open(self.dir.path(), self.options).unwrap().with_limit(limit)
    }

    fn open(&self) -> Arc<dyn CacheFile> {
        let header = &self.new.header;
        self.cache(u64::MAX).open(header.file_id(), header.geometry()).unwrap()
    }

    fn copy(&self) -> &dyn CacheFile {
        &**self.copy.as_ref().unwrap()
    }

    fn geometry(&self) -> Geometry {
        self.new.header.geometry()
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join(format!("{}.sealed", self.new.header.file_id()))
    }

    fn run(&mut self, op: &Op) {
        match op {
            Op::Confirm(index) if !self.runs.is_empty() => {
                let sealed = self.runs.remove(index.index(self.runs.len()));
                self.confirm(&sealed);
            }
            Op::Confirm(_) => {}
            Op::Crash => self.crash(),
            Op::DamageCopy(at, bits) => self.damage(&self.path(), *at, *bits),
            Op::DamageRecord(at, bits) => {
                self.damage(&self.path().with_extension("record"), *at, *bits);
            }
            Op::Evict(limit) => {
                drop(self.cache(*limit));
                self.adopt();
            }
            Op::Forget(blocks) => {
                self.copy().forget(blocks.clone()).unwrap();
                self.present.retain(|block, _| !blocks.contains(block));
            }
            Op::Invalidate => {
                self.copy().invalidate().unwrap();
                self.present.clear();
            }
            Op::Reopen => self.reopen(),
            Op::SetHeader(size) => {
                let stored_bytes = self.geometry().stored_bytes(*size);
                if fs::metadata(self.path()).unwrap().len() > stored_bytes {
                    let first = (stored_bytes - 8192) / 4144;
                    drop(self.present.split_off(&first));
                }
                self.copy().set_header(&self.new.bytes, stored_bytes).unwrap();
                assert!(fs::metadata(self.path()).unwrap().len() <= stored_bytes);
            }
            Op::TruncateCopy(at) => self.truncate(&self.path(), *at),
            Op::TruncateRecord(at) => self.truncate(&self.path().with_extension("record"), *at),
            Op::Write(first, bytes) => self.write(*first, *bytes),
        }
    }

    fn write(&mut self, first: u64, bytes: u64) {
        let plain = vec![9; usize::try_from(bytes).unwrap()];
        let room = usize::try_from(self.geometry().span_bytes(bytes)).unwrap();
        let key = self.new.header.content_key();
        let sealed = key.seal(first, 2, &[&plain], Buffer::unpooled(room)).unwrap();
        let blocks = sealed.blocks();
        self.copy().forget(blocks.clone()).unwrap();
        write_over(self.copy(), &sealed);
        let overlaps =
            |run: &Sealed| run.blocks().start < blocks.end && blocks.start < run.blocks().end;
        self.runs.retain(|run| !overlaps(run));
        for block in blocks.clone() {
            self.present.remove(&block);
            self.written.insert(block, sealed.slice(block..block + 1));
        }
        self.damaged.retain(|block| !blocks.contains(block));
        self.runs.push(sealed);
    }

    fn confirm(&mut self, sealed: &Sealed) {
        let stored = fs::read(self.path()).unwrap();
        let end = sealed.stored_start() + sealed.bytes().len() as u64;
        let geometry = self.geometry();
        let is_stored = |block: u64, nonce: &Nonce| {
            let at = usize::try_from(geometry.stored_start(block)).unwrap();
            stored.get(at..).unwrap_or_default().starts_with(nonce.as_bytes())
        };
        let mut all = stored.len() as u64 >= end;
        if all {
            for (block, nonce) in sealed.nonces() {
                if is_stored(block, &nonce) {
                    self.present.insert(block, nonce);
                } else {
                    all = false;
                }
            }
        }
        assert_eq!(self.copy().confirm(sealed).is_ok(), all);
    }

    /// Opens the copy anew: what is there stays.
    fn reopen(&mut self) {
        self.copy = None;
        // What was written and not confirmed may be there, or not.
        self.runs.clear();
        self.copy = Some(self.open());
        if self.present.is_empty() {
            self.adopt();
        }
    }

    /// What a process finds that comes after this one.
    fn crash(&self) {
        let after = TempDir::new().unwrap();
        for entry in fs::read_dir(self.dir.path()).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), after.path().join(entry.file_name())).unwrap();
        }
        let cache = LocalCache::open(after.path(), self.options).unwrap();
        let copy = cache.open(self.new.header.file_id(), self.geometry()).unwrap();
        self.check_truth(&*copy);
    }

    fn damage(&mut self, path: &Path, at: prop::sample::Index, bits: u8) {
        self.copy = None;
        let mut bytes = fs::read(path).unwrap();
        if !bytes.is_empty() {
            let at = at.index(bytes.len());
            bytes[at] ^= bits;
            if path == self.path() && at >= 8192 {
                self.damaged.push((at as u64 - 8192) / 4144);
            }
        }
        fs::write(path, bytes).unwrap();
        self.reopen();
        self.adopt();
    }

    fn truncate(&mut self, path: &Path, at: prop::sample::Index) {
        self.copy = None;
        let len = fs::metadata(path).unwrap().len();
        let file = fs::File::options().write(true).open(path).unwrap();
        file.set_len(at.index(usize::try_from(len).unwrap() + 1) as u64).unwrap();
        self.reopen();
        self.adopt();
    }

    /// Takes over that some of what was present no longer is.
    fn adopt(&mut self) {
        self.check_truth(self.copy());
        let found = (0..).zip(self.copy().present(0..1100));
        self.present = found.filter_map(|(block, nonce)| Some((block, nonce?))).collect();
    }

    /// That nothing is claimed but what was confirmed and is stored.
    fn check_truth(&self, copy: &dyn CacheFile) {
        for (block, nonce) in (0..).zip(copy.present(0..1100)) {
            let Some(nonce) = nonce else { continue };
            assert_eq!(self.present.get(&block), Some(&nonce), "block {block} was not confirmed");
            if self.damaged.contains(&block) {
                continue;
            }
            let right = self.written[&block].bytes();
            let found = read(copy, self.geometry(), block..block + 1);
            assert!(found.starts_with(right), "block {block} is not what was written");
        }
    }

    /// That exactly what must be present is.
    fn check(&self) {
        self.check_truth(self.copy());
        let right: Vec<_> = (0..1100).map(|block| self.present.get(&block).copied()).collect();
        assert_eq!(self.copy().present(0..1100), right);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..Default::default() })]

    #[test]
    fn what_a_copy_claims_was_confirmed_and_is_stored_whatever_happens(
        ops in ops(),
        durable in prop::bool::weighted(0.2),
    ) {
        let durability = if durable { Durability::PowerCut } else { Durability::Process };
        let mut world = World::new(durability);
        for op in &ops {
            world.run(op);
            world.check();
        }
    }
}

/// Writes a run, whatever is there, all of it.
pub(super) fn write_over(target: &dyn Target, sealed: &Sealed) {
    struct Sink(mpsc::Sender<Result<u64, Failure>>);
    impl CompletionSink for Sink {
        fn terminated(&self, _: Ticket, outcome: Result<u64, Failure>) {
            self.0.send(outcome).unwrap();
        }
    }
    let (sender, outcomes) = mpsc::channel();
    let write = Write {
        segments: vec![Segment::Sealed(sealed.clone())],
        expectations: Vec::new(),
        dirty: Vec::new(),
    };
    target.write(write, Completion::new(Arc::new(Sink(sender)), Ticket { stream: 0, id: 0 }));
    assert_eq!(outcomes.recv().unwrap().unwrap(), sealed.bytes().len() as u64);
}

/// The stored bytes of blocks, fewer where the copy ends.
pub(super) fn read(target: &dyn Target, geometry: Geometry, blocks: Range<u64>) -> Vec<u8> {
    let n_bytes = (blocks.end - blocks.start) * geometry.stride_bytes();
    let buffer = Buffer::unpooled(usize::try_from(n_bytes).unwrap());
    let (sender, outcomes) = mpsc::channel();
    let done = ReadCompletion::new(move |outcome| sender.send(outcome).unwrap());
    target.read(Read { blocks, geometry, buffer }, done);
    let (buffer, n_read) = outcomes.recv().unwrap().unwrap();
    buffer[..n_read].to_vec()
}

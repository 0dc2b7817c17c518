//! Files against a vector of bytes: random operations, read from everywhere, and crashes anywhere.

use std::{ops::Range, time::Duration};

use proptest::prelude::*;
use sealback::{CacheReport, Config, Engine, Error, File, RetryLimits};
use sealback_crypto::{Engine as Cipher, FileId};
use sealback_stream::{
    Cache, MemoryCache, MemoryOptions, MemoryServer, Server,
    faulty::{Faults, FaultyServer, Rates},
};
use sealback_tests::{
    auditor::Auditor,
    crash::{Crash, CrashServer},
    interpose::InterposedServer,
    reader::{read_sealed, repeated_nonces},
};

use crate::support::{ROOT, config, create, memory, name, open, read_all, sample};

/// How many cases each property runs; `SEALBACK_CASES` says otherwise.
fn cases(default: u32) -> ProptestConfig {
    let cases = std::env::var("SEALBACK_CASES").ok().and_then(|cases| cases.parse().ok());
    ProptestConfig { cases: cases.unwrap_or(default), ..ProptestConfig::default() }
}

/// Files stay about this small, so that everything meets everything.
const LARGEST: usize = 150_000;

#[derive(Clone, Debug)]
enum Op {
    Append {
        len: usize,
    },
    /// The file is closed, and the cache's copy is lost, or damaged in one byte.
    CacheHurt {
        lost: bool,
        at: usize,
    },
    /// The file is closed, changed without the cache, closed, and opened with it again.
    ChangedElsewhere {
        at: usize,
        len: usize,
    },
    Punch {
        at: usize,
        len: usize,
    },
    Read {
        at: usize,
        len: usize,
    },
    ReadDirect {
        at: usize,
        len: usize,
    },
    Reopen,
    Revalidate,
    RevalidateDeep,
    SetLen {
        size: usize,
    },
    Sync,
    SyncRange {
        at: usize,
        len: usize,
    },
    Write {
        at: usize,
        len: usize,
    },
    WriteDirect {
        at: usize,
        len: usize,
    },
    Writeback,
}

/// A size or position: any, or one about the edge of a block.
fn position() -> impl Strategy<Value = usize> {
    let edge =
        (0usize..=36, 0usize..3).prop_map(|(block, by)| (block * 4096 + by).saturating_sub(1));
    prop_oneof![2 => 0..LARGEST, 1 => edge]
}

fn op() -> impl Strategy<Value = Op> {
    let extent = || (position(), 0usize..40_000);
    prop_oneof![
        6 => extent().prop_map(|(at, len)| Op::Write { at, len }),
        2 => extent().prop_map(|(at, len)| Op::WriteDirect { at, len }),
        1 => (0usize..20_000).prop_map(|len| Op::Append { len }),
        4 => extent().prop_map(|(at, len)| Op::Read { at, len }),
        1 => extent().prop_map(|(at, len)| Op::ReadDirect { at, len }),
        1 => extent().prop_map(|(at, len)| Op::SyncRange { at, len }),
        1 => Just(Op::Revalidate),
        1 => Just(Op::RevalidateDeep),
        2 => position().prop_map(|size| Op::SetLen { size }),
        2 => extent().prop_map(|(at, len)| Op::Punch { at, len }),
        1 => Just(Op::Sync),
        1 => Just(Op::Writeback),
        1 => Just(Op::Reopen),
        1 => (any::<bool>(), 8192..LARGEST).prop_map(|(lost, at)| Op::CacheHurt { lost, at }),
        1 => extent().prop_map(|(at, len)| Op::ChangedElsewhere { at, len }),
    ]
}

/// A file, and what it should hold.
struct Subject<S> {
    engine: Engine,
    server: S,
    cache: Option<MemoryCache>,
    file: Option<File>,
    model: Vec<u8>,
    n_changes: usize,
}

type Memory = InterposedServer<MemoryServer, Auditor>;

impl<S: Server> Subject<S> {
    fn new(server: S, folio_shift: u32, block_shift: u32, cached: bool) -> Subject<S> {
        let first_delay = Duration::from_micros(10);
        let retry = RetryLimits { max_attempts: 40, first_delay, ..RetryLimits::default() };
        let config =
            Config { folio_bytes: 1 << folio_shift, cipher: Cipher::AesGcm, retry, ..config() };
        let engine = Engine::new(config).unwrap();
        let cache = cached.then(|| MemoryCache::new(MemoryOptions::default()));
        let lent = cache.as_ref().map(|cache| cache as &dyn Cache);
        let file = create(&engine, &server, lent, 1 << block_shift);
        Subject { engine, server, cache, file: Some(file), model: Vec::new(), n_changes: 0 }
    }

    /// Nothing fails any more, and everything is on the server.
    fn settle(&self, faults: &Faults) {
        faults.stop();
        drop(self.file().sync());
        self.file().sync().unwrap();
    }

    fn file(&self) -> &File {
        self.file.as_ref().unwrap()
    }

    fn close(&mut self) -> FileId {
        let file = self.file.take().unwrap();
        let file_id = file.file_id();
        file.close().map_err(|unclosed| unclosed.error).unwrap();
        file_id
    }

    fn open(&mut self) {
        let cache = self.cache.as_ref().map(|cache| cache as &dyn Cache);
        self.file = Some(open(&self.engine, &self.server, cache));
    }

    /// Carries an operation out on the file and on the model.
    fn run(&mut self, op: &Op) -> Result<(), Error> {
        self.n_changes += 1;
        match *op {
            Op::Append { len } => {
                let at = self.model.len();
                let data = self.data(at, len);
                assert_eq!(self.file().append(&data)?, at as u64);
            }
            Op::CacheHurt { lost, at } => {
                let file_id = self.close();
                self.hurt_cache(file_id, lost, at);
                self.open();
            }
            Op::ChangedElsewhere { at, len } => {
                self.close();
                let cache = self.cache.take();
                self.open();
                self.write(at, len)?;
                self.close();
                self.cache = cache;
                self.open();
            }
            Op::Punch { at, len } => {
                let within = at.min(self.model.len())..(at + len).min(self.model.len());
                self.model[within].fill(0);
                self.file().punch(at as u64..(at + len) as u64)?;
            }
            Op::Read { at, len } => self.read(at, len, File::read_at)?,
            Op::ReadDirect { at, len } => self.read(at, len, File::read_direct)?,
            Op::Revalidate => self.file().revalidate()?,
            Op::RevalidateDeep => self.file().revalidate_deep().map(drop)?,
            Op::Reopen => {
                self.close();
                self.open();
            }
            Op::SetLen { size } => {
                self.model.resize(size, 0);
                self.file().set_len(size as u64)?;
            }
            Op::Sync => self.file().sync()?,
            Op::SyncRange { at, len } => self.file().sync_range(at as u64..(at + len) as u64)?,
            Op::Write { at, len } => self.write(at, len)?,
            Op::WriteDirect { at, len } => {
                let data = self.data(at, len);
                let written = self.file().write_direct(at as u64, data);
                written.result?;
                assert_eq!(written.bytes, written.buffer.len() as u64);
            }
            Op::Writeback => drop(self.file().writeback()),
        }
        Ok(())
    }

    /// What is written now, and is in the model from here on.
    fn data(&mut self, at: usize, len: usize) -> Vec<u8> {
        let data = sample(if len == 0 { 0 } else { len + self.n_changes });
        let end = if data.is_empty() { 0 } else { at + data.len() };
        self.model.resize(self.model.len().max(end), 0);
        if let Some(part) = self.model.get_mut(at..end) {
            part.copy_from_slice(&data);
        }
        data
    }

    fn write(&mut self, at: usize, len: usize) -> Result<(), Error> {
        let data = self.data(at, len);
        self.file().write_at(at as u64, &data)
    }

    fn read(
        &self,
        at: usize,
        len: usize,
        read: impl FnOnce(&File, u64, &mut [u8]) -> Result<usize, Error>,
    ) -> Result<(), Error> {
        let mut to = vec![0xAA; len];
        let n = read(self.file(), at as u64, &mut to)?;
        let end = (at + len).min(self.model.len()).max(at);
        assert_eq!(&to[..n], self.model.get(at..end).unwrap_or(&[]));
        Ok(())
    }

    fn hurt_cache(&mut self, file_id: FileId, lost: bool, at: usize) {
        let Some(cache) = &self.cache else { return };
        if lost {
            self.cache = Some(MemoryCache::new(MemoryOptions::default()));
        } else if let Some(mut stored) = cache.stored(file_id)
            && let Some(byte) = stored.get_mut(at)
        {
            *byte ^= 0x10;
            cache.set_stored(file_id, stored);
        }
    }
}

impl Subject<Memory> {
    /// What an independent reader finds on the server is the model, and the cache claims nothing
    /// but the server's own bytes.
    fn check_stored(&self, hurt: bool) {
        let stored = self.server.stored(&name()).unwrap();
        let read = read_sealed(&stored, &ROOT).unwrap();
        assert!(read.plaintext == self.model, "the independent reader reads something else");
        assert!(repeated_nonces(&read.blocks).is_empty());
        let mut differing = 0;
        self.file()
            .verify_cache(|_, report| differing += u32::from(report == CacheReport::Differs))
            .unwrap();
        assert!(differing == 0 || hurt, "{differing} blocks of the cache are not the server's");
    }
}

proptest! {
    #![proptest_config(cases(150))]

    #[test]
    fn a_file_is_a_vector_of_bytes(
        ops in prop::collection::vec(op(), 1..40),
        folio_shift in 12u32..17,
        block_shift in 12u32..17,
        cached in any::<bool>(),
    ) {
        let mut subject = Subject::new(memory(), folio_shift, block_shift, cached);
        for op in &ops {
            subject.run(op).unwrap();
            prop_assert_eq!(subject.file().size(), subject.model.len() as u64);
        }
        subject.close();
        subject.open();
        prop_assert!(read_all(subject.file()) == subject.model, "read through the cache");
        subject.close();
        subject.cache = None;
        subject.open();
        prop_assert!(read_all(subject.file()) == subject.model, "read from the server alone");
    }

    #[test]
    fn a_file_is_a_vector_of_bytes_whatever_fails_and_is_tried_again(
        ops in prop::collection::vec(op(), 1..30),
        folio_shift in 12u32..17,
        block_shift in 12u32..17,
        seed in any::<u64>(),
    ) {
        let rates = Rates { retry: 60, short: 80, unknown: 40, dropped: 20, ..Rates::default() };
        let faults = Faults::seeded(seed, rates);
        let server = FaultyServer::new(memory(), &faults);
        faults.stop();
        let mut subject = Subject::new(server, folio_shift, block_shift, true);
        for op in &ops {
            match op {
                Op::Append { .. }
                | Op::Punch { .. }
                | Op::Read { .. }
                | Op::ReadDirect { .. }
                | Op::Revalidate
                | Op::SetLen { .. }
                | Op::Sync
                | Op::SyncRange { .. }
                | Op::Write { .. }
                | Op::WriteDirect { .. }
                | Op::Writeback => faults.resume(),
                // What has failed is told here once, and goes to the server.
                _ => subject.settle(&faults),
            }
            // What makes things durable is not tried again by the library.
            if subject.run(op).is_err() {
                subject.settle(&faults);
                subject.run(op).unwrap();
            }
        }
        subject.settle(&faults);
        subject.close();
        subject.cache = None;
        subject.open();
        prop_assert!(read_all(subject.file()) == subject.model, "read from the server alone");
    }

    #[test]
    fn an_independent_reader_sees_the_model_after_every_operation(
        ops in prop::collection::vec(op(), 1..20),
        folio_shift in 12u32..17,
        block_shift in 12u32..15,
        cached in any::<bool>(),
    ) {
        let mut subject = Subject::new(memory(), folio_shift, block_shift, cached);
        let mut hurt = false;
        for op in &ops {
            hurt |= matches!(op, Op::CacheHurt { .. });
            subject.run(op).unwrap();
            subject.file().sync().unwrap();
            subject.check_stored(hurt);
        }
    }

    #[test]
    fn a_crash_at_any_change_leaves_what_was_or_what_was_to_be(
        ops in prop::collection::vec(op(), 1..8),
        last in op(),
        block_shift in 12u32..15,
        n_changes in 0u32..12,
        unheard in any::<bool>(),
    ) {
        crash_during(&ops, &last, block_shift, n_changes, unheard);
    }
}

/// Runs `ops` and syncs, then has the server go away `n_changes` changes into `last` and its sync.
fn crash_during(ops: &[Op], last: &Op, block_shift: u32, n_changes: u32, unheard: bool) {
    let server = memory();
    let mut subject = Subject::new(server.clone(), 14, block_shift, false);
    for op in ops {
        subject.run(op).unwrap();
    }
    subject.close();
    let before = subject.model.clone();

    let crashing = CrashServer::new(server.clone(), Crash::after(n_changes, unheard));
    let crash = crashing.hook.clone();
    let file = open(&subject.engine, &crashing, None);
    let mut crashed = Subject {
        engine: subject.engine.clone(),
        server: crashing,
        cache: None,
        file: Some(file),
        model: before.clone(),
        n_changes: 1000,
    };
    if matches!(
        last,
        Op::Reopen
            | Op::Revalidate
            | Op::RevalidateDeep
            | Op::CacheHurt { .. }
            | Op::ChangedElsewhere { .. }
    ) {
        return;
    }
    let ended = crashed.run(last).and_then(|()| crashed.file().sync());
    assert!(ended.is_ok() != crash.is_gone() || unheard, "{ended:?}");
    drop(crashed.file.take());

    // Somebody else looks at it, with nothing but what is stored.
    let stored = server.stored(&name()).unwrap();
    let read = read_sealed(&stored, &ROOT).unwrap();
    assert_each_byte_is_of(&read.plaintext, &before, &crashed.model, ended.is_ok());

    // And it can be gone on with.
    let mut after = Subject {
        engine: Engine::new(config()).unwrap(),
        server: server.clone(),
        cache: None,
        file: None,
        model: read.plaintext,
        n_changes: 2000,
    };
    after.open();
    assert!(read_all(after.file()) == after.model);
    after.run(&Op::Write { at: 100_000, len: 50_000 }).unwrap();
    after.run(&Op::Sync).unwrap();
    let stored = server.stored(&name()).unwrap();
    assert!(read_sealed(&stored, &ROOT).unwrap().plaintext == after.model, "gone on with");
    assert!(!after.file().info().cut_pending);
}

fn assert_each_byte_is_of(read: &[u8], before: &[u8], after: &[u8], done: bool) {
    if done {
        assert!(read == after, "what was synced is there");
        return;
    }
    let sizes: Range<usize> = before.len().min(after.len())..before.len().max(after.len());
    assert!(read.len() == sizes.start || read.len() == sizes.end, "{} of {sizes:?}", read.len());
    for (at, byte) in read.iter().enumerate() {
        let either = [before, after].map(|bytes| bytes.get(at).copied().unwrap_or(0));
        assert!(either.contains(byte), "byte {at} is {byte}, of {either:?}");
    }
}

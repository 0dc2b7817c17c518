//! Files by the engine, against a vector of bytes: any operations, a cache that is lost, stale or
//! damaged, bytes changed on the server, crashes. What is read is what was written, or, once the
//! server's bytes were changed, an error; what is stored opens by the independent reader.
#![no_main]

#[path = "../../src/reader.rs"]
#[expect(dead_code, reason = "files on disk are the suites'")]
mod reader;

use std::sync::OnceLock;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use sealback::crypto::RootKey;
use sealback::stream::{Cache, MemoryCache, MemoryOptions, MemoryServer, Name};
use sealback::{Config, CreateOptions, Engine, Error, File, Place, WritebackHandle};

#[derive(Arbitrary, Debug)]
struct Input {
    block_shift: u8,
    cached: bool,
    server: Difficulty,
    cache: Difficulty,
    ops: Vec<Op>,
}

/// What a server or a cache is told to be difficult with.
#[derive(Arbitrary, Clone, Copy, Debug)]
struct Difficulty {
    boundary_blocks: u8,
    max_write_bytes: u16,
    credits: u8,
}

#[derive(Arbitrary, Debug)]
enum Op {
    CacheLost,
    Crash { cached: bool },
    FlipInCache { at: u32, bit: u8 },
    FlipOnServer { at: u32, bit: u8 },
    Punch { at: Position, len: u32 },
    Read { at: Position, len: u32 },
    Rekey(u8),
    Reopen { cached: bool },
    SetLen(Position),
    Sync,
    Verify,
    Write { at: Position, len: u16, seed: u8 },
    WriteBlocks { block: u8, n_blocks: u8, seed: u8 },
    Writeback,
}

/// Anywhere, or about a block's border.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Position {
    Any(u32),
    Border { block: u8, off: i8 },
}

/// Files stay shorter than this.
const MAX_BYTES: u64 = 100_000;

fn engine() -> &'static Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    ENGINE.get_or_init(|| {
        let config = Config {
            memory_bytes: 8 << 20,
            threads: 2,
            folio_bytes: 16 << 10,
            span_bytes: 32 << 10,
            upload_window: 2,
            cache_window: 2,
            readahead_bytes: 64 << 10,
            ..Config::default()
        };
        Engine::new(config).unwrap()
    })
}

fn options(difficulty: Difficulty) -> MemoryOptions {
    let mut options = MemoryOptions::default();
    if let blocks @ 1.. = difficulty.boundary_blocks % 4 {
        options = options.with_boundary_blocks(blocks.into());
    }
    if let credits @ 1.. = difficulty.credits % 4 {
        options = options.with_credits(credits.into());
    }
    match difficulty.max_write_bytes {
        0 => options,
        bytes => options.with_max_write_bytes(bytes.into()),
    }
}

fuzz_target!(|input: Input| {
    let mut world = World::create(&input);
    for op in &input.ops {
        match world.run(op) {
            Ok(()) => {}
            Err(error) if world.tampered => return drop(error),
            Err(error) => panic!("{op:?}: {error}"),
        }
        assert_eq!(world.file().size(), world.model.len() as u64, "{op:?}");
    }
    world.finish();
});

struct World {
    server: MemoryServer,
    cache: MemoryCache,
    cache_options: MemoryOptions,
    root: [u8; 32],
    block_bytes: u64,
    /// `None` only while it is closed.
    file: Option<File>,
    running: Option<WritebackHandle>,
    model: Vec<u8>,
    /// What the server may have after a crash: the last that was synced, and all since.
    versions: Vec<Vec<u8>>,
    /// Somebody changed bytes on the server: errors are right from now on, wrong bytes are not.
    tampered: bool,
}

impl World {
    fn create(input: &Input) -> World {
        let cache_options = options(input.cache);
        let block_bytes = 4096 << (input.block_shift % 3);
        let mut world = World {
            server: MemoryServer::new(options(input.server)),
            cache: MemoryCache::new(cache_options),
            cache_options,
            root: [7; 32],
            block_bytes,
            file: None,
            running: None,
            model: Vec::new(),
            versions: vec![Vec::new()],
            tampered: false,
        };
        let root = RootKey::from_bytes(&world.root);
        let create = CreateOptions { block_bytes, replace: false };
        let created = engine().create(&world.place(&root, input.cached), &name(), &create);
        world.file = Some(created.unwrap());
        world
    }

    fn place<'a>(&'a self, root: &'a RootKey, cached: bool) -> Place<'a> {
        let cache = cached.then_some(&self.cache as &dyn Cache);
        Place { server: &self.server, cache, root }
    }

    fn file(&self) -> &File {
        self.file.as_ref().expect("it is open between operations")
    }

    fn position(&self, position: Position) -> u64 {
        match position {
            Position::Any(at) => u64::from(at) % MAX_BYTES,
            Position::Border { block, off } => {
                let border = u64::from(block % 16) * self.block_bytes;
                border.saturating_add_signed(off.into()).min(MAX_BYTES)
            }
        }
    }

    fn run(&mut self, op: &Op) -> Result<(), Error> {
        match *op {
            Op::CacheLost => self.cache = MemoryCache::new(self.cache_options),
            Op::Crash { cached } => self.crash(cached)?,
            Op::FlipInCache { at, bit } => self.flip_in_cache(at, bit),
            Op::FlipOnServer { at, bit } => self.flip_on_server(at, bit),
            Op::Punch { at, len } => self.punch(self.position(at), len)?,
            Op::Read { at, len } => self.read(self.position(at), u64::from(len) % MAX_BYTES)?,
            Op::Rekey(byte) => {
                self.file().rekey(&RootKey::from_bytes(&[byte; 32]))?;
                self.root = [byte; 32];
            }
            Op::Reopen { cached } => {
                self.sync()?;
                self.file = None;
                self.open(cached)?;
            }
            Op::SetLen(size) => self.set_len(self.position(size))?,
            Op::Sync => self.sync()?,
            Op::Verify => self.file().verify(|_, _| {})?,
            Op::Write { at, len, seed } => {
                self.write(self.position(at), usize::from(len), seed)?;
            }
            Op::WriteBlocks { block, n_blocks, seed } => {
                let n_bytes = self.block_bytes * u64::from(n_blocks % 6);
                self.write(self.block_bytes * u64::from(block % 8), n_bytes as usize, seed)?;
            }
            Op::Writeback => self.running = Some(self.file().writeback()),
        }
        Ok(())
    }

    fn write(&mut self, at: u64, len: usize, seed: u8) -> Result<(), Error> {
        let data = &pattern()[seed.into()..][..len];
        self.file().write_at(at, data)?;
        let at = at as usize;
        if len > 0 {
            self.model.resize(self.model.len().max(at + len), 0);
            self.model[at..at + len].copy_from_slice(data);
        }
        self.changed();
        Ok(())
    }

    fn set_len(&mut self, size: u64) -> Result<(), Error> {
        self.file().set_len(size)?;
        let size = size as usize;
        if size < self.model.len() {
            // What was cut off is gone.
            self.versions.iter_mut().for_each(|version| version.truncate(size));
        }
        self.model.resize(size, 0);
        self.changed();
        Ok(())
    }

    fn punch(&mut self, at: u64, len: u32) -> Result<(), Error> {
        let end = at + u64::from(len) % MAX_BYTES;
        self.file().punch(at..end)?;
        let size = self.model.len();
        self.model[size.min(at as usize)..size.min(end as usize)].fill(0);
        self.changed();
        Ok(())
    }

    fn changed(&mut self) {
        self.versions.push(self.model.clone());
    }

    fn read(&self, at: u64, len: u64) -> Result<(), Error> {
        let mut read = vec![0xee; len as usize];
        let n = self.file().read_at(at, &mut read)?;
        let rest = self.model.get(at as usize..).unwrap_or_default();
        let expected = &rest[..rest.len().min(read.len())];
        assert_eq!(n, expected.len());
        assert!(read[..n] == *expected, "bytes {at} to {} are not what was written", at + len);
        Ok(())
    }

    fn sync(&mut self) -> Result<(), Error> {
        self.file().sync()?;
        self.versions = vec![self.model.clone()];
        Ok(())
    }

    fn open(&mut self, cached: bool) -> Result<(), Error> {
        let root = RootKey::from_bytes(&self.root);
        self.file = Some(engine().open(&self.place(&root, cached), &name())?);
        Ok(())
    }

    /// The file is let go without a sync: each byte is that of one of the versions since.
    fn crash(&mut self, cached: bool) -> Result<(), Error> {
        self.settle();
        self.file = None;
        self.open(cached)?;
        let size = self.file().size() as usize;
        let mut read = vec![0; size];
        assert_eq!(self.file().read_at(0, &mut read)?, size);
        // A writeback that grows the file commits what is there: all of it, or whole blocks.
        let mut lens = self.versions.iter().map(Vec::len);
        let is_part = size as u64 % self.file().block_bytes() == 0;
        assert!(lens.any(|len| len == size || (is_part && len > size)), "size {size}");
        let mixed = !self.versions.contains(&read);
        for (at, byte) in read.iter().enumerate().filter(|_| mixed) {
            let known = self.versions.iter().any(|version| version.get(at) == Some(byte));
            assert!(known, "byte {at} after a crash is of no version");
        }
        // A writeback that has just ended may have kept the file open until now, so that nothing
        // was lost yet: what was possible before still is.
        self.model = read;
        self.changed();
        Ok(())
    }

    /// Waits for the writeback that was started; its error is the next sync's.
    fn settle(&mut self) {
        if let Some(running) = self.running.take() {
            let _ = running.wait();
        }
    }

    fn flip_in_cache(&mut self, at: u32, bit: u8) {
        self.settle();
        let file_id = self.file().file_id();
        if let Some(mut stored) = self.cache.stored(file_id) {
            flip(&mut stored, at, bit);
            self.cache.set_stored(file_id, stored);
        }
    }

    fn flip_on_server(&mut self, at: u32, bit: u8) {
        self.settle();
        let mut stored = self.server.stored(&name()).expect("it was created");
        flip(&mut stored, at, bit);
        self.server.set_stored(&name(), stored);
        self.tampered = true;
    }

    /// All of it once more: as the client sees it, from the server alone, by another reader.
    fn finish(mut self) {
        let all = self.model.len() as u64 + 1;
        match self.read(0, all).and_then(|()| self.sync()) {
            Err(_) if self.tampered => return,
            outcome => outcome.unwrap(),
        }
        self.file = None;
        match self.open(false).and_then(|()| self.read(0, all)) {
            Err(_) if self.tampered => return,
            outcome => outcome.unwrap(),
        }
        if self.tampered {
            return;
        }
        let stored = self.server.stored(&name()).expect("it was created");
        let read = reader::read_sealed(&stored, &self.root).unwrap();
        assert!(read.plaintext == self.model, "another reader reads something else");
        assert!(reader::repeated_nonces(&read.blocks).is_empty());
        assert_eq!(engine().stats().active_requests, 0);
    }
}

/// Bytes to write; from different places on, they differ everywhere.
fn pattern() -> &'static [u8] {
    static PATTERN: OnceLock<Vec<u8>> = OnceLock::new();
    PATTERN.get_or_init(|| (0..u32::from(u16::MAX) * 2).map(|index| (index % 257) as u8).collect())
}

fn name() -> Name {
    Name::new("file").expect("a plain name")
}

fn flip(stored: &mut [u8], at: u32, bit: u8) {
    let len = stored.len();
    if let Some(byte) = stored.get_mut(at as usize % len.max(1)) {
        *byte ^= 1 << (bit % 8);
    }
}

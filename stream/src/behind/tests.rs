//! The decorator keeps the contract; its log survives what a crash leaves of it.

use std::{
    io::{self, IoSlice},
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use fastrand::Rng;
use sealback_crypto::{Buffer, ContentKey, Engine, Geometry, Header, RootKey};

use super::{
    progress::Progress,
    segment::{Found, Segment},
    *,
};
use crate::{
    Expectation, Expected, MemoryOptions, MemoryServer, Segment as Segments, Write, conformance,
    faulty::{Crash, Disk, DiskBytes},
    flat::{Flat, Through},
};

fn open(server: &MemoryServer, dir: &Path) -> WriteBehind {
    WriteBehind::open(Arc::new(server.clone()), dir, WriteBehindOptions::default()).unwrap()
}

#[test]
fn a_server_that_is_written_behind_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    let made = std::cell::Cell::new(0);
    conformance::server(&|| {
        made.set(made.get() + 1);
        let dir = dir.path().join(made.get().to_string());
        Arc::new(open(&MemoryServer::new(MemoryOptions::default()), &dir))
    });
}

#[test]
fn who_comes_while_another_is_about_to_go_waits_for_him() {
    let (dir, server) = (tempfile::tempdir().unwrap(), MemoryServer::new(MemoryOptions::default()));
    let first = open(&server, dir.path());
    std::thread::scope(|scope| {
        let second = scope.spawn(|| drop(open(&server, dir.path())));
        drop(first);
        second.join().unwrap();
    });
}

/// A log on a simulated disk, and what it came to after each record.
struct Life {
    key: ContentKey,
    segment: Segment,
    states: Vec<State>,
    /// The last of the states that was promised, and the last of those that is durable for certain.
    n_promised: usize,
    n_synced: usize,
}

/// What a log says: its blocks with their bytes, its holes, and what is promised.
type State = (Vec<(LoggedBlock, Vec<u8>)>, Vec<u64>, Option<Promise>);

fn state(segment: &Segment) -> State {
    let bytes_of = |logged: &LoggedBlock| {
        let mut bytes = vec![0; STRIDE];
        let n = segment.read(logged, &mut bytes).unwrap();
        bytes.truncate(n);
        (logged.clone(), bytes)
    };
    let blocks = segment.blocks().values().map(|logged| bytes_of(logged)).collect();
    let holes = (0..2 * N_BLOCKS).filter(|block| segment.find(*block) == Found::Hole);
    (blocks, holes.collect(), segment.promised().cloned())
}

impl Life {
    fn new(key: &ContentKey, bytes: DiskBytes) -> Life {
        let segment = Segment::recover(Box::new(bytes), "log").unwrap();
        let states = vec![state(&segment)];
        Life { key: key.clone(), segment, states, n_promised: 0, n_synced: 0 }
    }

    /// Does something, until the disk stops.
    fn step(&mut self, rng: &mut Rng) -> io::Result<()> {
        let first = rng.u64(..N_BLOCKS);
        match rng.u8(..8) {
            0 => self.segment.keep(true).map(|()| self.n_synced = self.n_promised)?,
            1 => self.segment.cut(first)?,
            2 => self.promise(first * 4096)?,
            _ => self.segment.append(&self.write(first, rng))?,
        }
        self.states.push(state(&self.segment));
        Ok(())
    }

    fn promise(&mut self, size: u64) -> io::Result<()> {
        self.segment.promise(&Promise { size, ..Promise::default() }, &|said| vouch(said))?;
        self.n_promised = self.states.len();
        Ok(())
    }

    fn write(&self, first: u64, rng: &mut Rng) -> Write {
        let n = rng.usize(1..4);
        let plain = vec![rng.u8(..); n * 4096];
        let sealed = self.key.seal(first, 3, &[&plain], Buffer::unpooled(n * STRIDE)).unwrap();
        let hole = first + n as u64..first + n as u64 + rng.u64(..3);
        let geometry = self.key.geometry();
        let mut segments = vec![Segments::Sealed(sealed)];
        if !hole.is_empty() {
            segments.push(Segments::Hole { blocks: hole, geometry });
        }
        let expectations = match rng.bool() {
            true => vec![Expectation { block: first, expected: Expected::Absent }],
            false => Vec::new(),
        };
        let start = geometry.block_start(first) + rng.u64(..100);
        let dirty = start..start + rng.u64(1..100);
        Write { segments, expectations, dirty: std::iter::once(dirty).collect() }
    }
}

fn vouch(said: &[u8]) -> [u8; 32] {
    *blake3::keyed_hash(&[9; 32], said).as_bytes()
}

fn key() -> ContentKey {
    let geometry = Geometry::new(4096).unwrap();
    let root = RootKey::from_bytes(&[3; 32]);
    Header::create(&root, geometry, Engine::Fake).unwrap().header.content_key().clone()
}

/// Goal: after a crash at any write everything that was synced is there, and no record that is torn, or was
/// cut off once, is believed. Method: some lives of a log behind one another, each on the disk that the crash
/// of the one before has left.
#[test]
fn a_log_is_after_a_crash_what_it_was_after_some_record_and_not_before_the_last_sync() {
    let n_seeds = std::env::var("SEALBACK_CRASHES").map_or(300, |n| n.parse().unwrap());
    let key = key();
    for seed in 0..n_seeds {
        let mut rng = Rng::with_seed(seed);
        let mut disk = Disk::default();
        let bytes = disk.make();
        let mut life = Life::new(&key, bytes.on(&disk));
        for crashes in 1..=3 {
            disk.stop_after(disk.n_changes() + rng.u64(..20), rng.fork());
            while life.step(&mut rng).is_ok() {}
            let crash = *rng.choice(&[Crash::Kill, Crash::PowerCut, Crash::Restart]).unwrap();
            disk = disk.crash(crash, &mut rng);
            let mut after = Life::new(&key, bytes.on(&disk));
            let least = match crash {
                Crash::PowerCut => life.n_synced,
                Crash::Kill | Crash::Restart => life.n_promised,
            };
            let found = life.states.iter().rposition(|state| *state == after.states[0]);
            let found = found.filter(|found| *found >= least);
            let found = found.unwrap_or_else(|| panic!("{crash:?} number {crashes}, seed {seed}"));
            if crash == Crash::Kill {
                // What was not synced before can still be lost.
                life.states.truncate(found + 1);
                (after.states, after.n_synced) = (life.states, life.n_synced);
                after.n_promised = found;
            }
            life = after;
        }
    }
}

#[test]
fn what_was_noted_of_another_segment_of_the_same_name_does_not_count() {
    let disk = Disk::default();
    let bytes = disk.make();
    let noted = |of| Progress::recover(Box::new(bytes.on(&disk)), of).unwrap();
    let [one, other] = [1, 2].map(|byte| blake3::hash(&[byte]));
    let (mut progress, before) = noted(one);
    assert_eq!(before, []);
    progress.note(3..5).unwrap();
    progress.note(7..8).unwrap();
    assert_eq!(noted(one).1, [3..5, 7..8]);
    assert_eq!(noted(other).1, []);
}

/// Goal: who is killed between the commit and the moment at which the log lets go sends nothing again.
#[test]
fn what_a_header_speaks_for_is_not_sent_again() {
    let (dir, server) = (tempfile::tempdir().unwrap(), MemoryServer::new(MemoryOptions::default()));
    let (name, geometry) = (Name::new("file").unwrap(), Geometry::new(4096).unwrap());
    let new = Header::create(&RootKey::from_bytes(&[3; 32]), geometry, Engine::Fake).unwrap();
    server.create(&name, new.header.file_id(), &new.bytes).unwrap();
    let logged = |behind: &WriteBehind| {
        let file = behind.open(&name).unwrap();
        let log = file.behind().unwrap().log().unwrap();
        log.prove(|said, mac| vouch(said) == *mac).unwrap();
        log
    };
    let behind = open(&server, dir.path());
    let log = logged(&behind);
    let buffer = Buffer::unpooled(2 * STRIDE);
    let sealed = new.header.content_key().seal(4, 3, &[&[1; 8192]], buffer).unwrap();
    let segments = vec![Segments::Sealed(sealed)];
    log.write(&Write { segments, expectations: Vec::new(), dirty: Vec::new() }).unwrap();
    log.promise(&Promise { size: 6 * 4096, ..Promise::default() }, &|said| vouch(said)).unwrap();
    let upload = |log: &WriteLog| {
        let upload = log.upload(&|said| vouch(said)).unwrap().unwrap();
        (upload.blocks().map(|(block, _)| block).collect::<Vec<_>>(), upload.is_committed())
    };
    assert_eq!(upload(&log), (vec![4, 5], false));
    log.upload(&|said| vouch(said)).unwrap().unwrap().note_sent(4..5).unwrap();
    drop((log, behind));
    let behind = open(&server, dir.path());
    let log = logged(&behind);
    assert_eq!(upload(&log), (vec![5], false));
    log.upload(&|said| vouch(said)).unwrap().unwrap().note_committed().unwrap();
    drop((log, behind));
    let behind = open(&server, dir.path());
    let log = logged(&behind);
    assert_eq!(upload(&log), (vec![], true));
    log.upload(&|said| vouch(said)).unwrap().unwrap().finish().unwrap();
    assert!(log.is_empty());
}

/// A file on a disk that has so much room.
struct Full {
    bytes: DiskBytes,
    room: Arc<AtomicU64>,
}

impl Flat for Full {
    fn len(&self) -> io::Result<u64> {
        Flat::len(&self.bytes)
    }

    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<usize> {
        self.bytes.read_at(at, into)
    }

    fn write_at(&mut self, at: u64, pieces: &mut [IoSlice<'_>]) -> Through {
        let all: Vec<u8> = pieces.iter().flat_map(|piece| piece.to_vec()).collect();
        let fits = self.room.load(Ordering::Relaxed).saturating_sub(at);
        let fits = usize::try_from(fits).unwrap().min(all.len());
        let mut through = self.bytes.write_at(at, &mut [IoSlice::new(&all[..fits])]);
        if fits < all.len() {
            through.error = Some(io::ErrorKind::StorageFull.into());
        }
        through
    }

    fn punch(&mut self, stored: Range<u64>) -> io::Result<bool> {
        self.bytes.punch(stored)
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        Flat::set_len(&mut self.bytes, len)
    }

    fn sync(&mut self) -> io::Result<()> {
        Flat::sync(&mut self.bytes)
    }
}

#[test]
fn a_record_that_the_disk_has_no_room_for_is_an_error_and_the_next_one_stands_in_its_place() {
    let (key, mut rng) = (key(), Rng::with_seed(1));
    let disk = Disk::default();
    let (bytes, room) = (disk.make(), Arc::new(AtomicU64::new(20_000)));
    let full = Full { bytes: bytes.on(&disk), room: room.clone() };
    let segment = Segment::recover(Box::new(full), "log").unwrap();
    let mut before = state(&segment);
    let states = Vec::new();
    let mut life = Life { key: key.clone(), segment, states, n_promised: 0, n_synced: 0 };
    let error = loop {
        let write = life.write(rng.u64(..N_BLOCKS), &mut rng);
        match life.segment.append(&write).and_then(|()| life.promise(0)) {
            Ok(()) => before = state(&life.segment),
            Err(error) => break error,
        }
    };
    assert_eq!(TargetError::from_io("", error).kind(), TargetErrorKind::NoSpace);
    assert_eq!(Life::new(&key, bytes.on(&disk)).states[0], before);
    room.store(u64::MAX, Ordering::Relaxed);
    let write = life.write(0, &mut rng);
    life.segment.append(&write).unwrap();
    life.promise(0).unwrap();
    assert_eq!(Life::new(&key, bytes.on(&disk)).states[0], state(&life.segment));
}

/// Goal: of what was acknowledged nothing is dropped because something before it has changed on the disk.
#[test]
fn a_log_that_is_damaged_before_the_end_of_what_was_acknowledged_is_an_error_and_stays_as_it_is() {
    let (key, mut rng, disk) = (key(), Rng::with_seed(2), Disk::default());
    let bytes = disk.make();
    let mut life = Life::new(&key, bytes.on(&disk));
    let mut write = |life: &mut Life| life.segment.append(&life.write(0, &mut rng)).unwrap();
    (0..3).for_each(|_| write(&mut life));
    life.promise(0).unwrap();
    life.segment.keep(false).unwrap();
    let acknowledged = life.segment.bytes();
    write(&mut life);
    life.promise(0).unwrap();
    let (all, kept) = (life.segment.bytes(), state(&life.segment));
    let flip = |at: u64| {
        let mut byte = [0];
        bytes.on(&disk).read_at(at, &mut byte).unwrap();
        byte[0] ^= 4;
        bytes.on(&disk).write_at(at, &mut [IoSlice::new(&byte)]).whole().unwrap();
    };
    for at in [0, 70, 5000, acknowledged - 62] {
        flip(at);
        let error = Segment::recover(Box::new(bytes.on(&disk)), "log").err().unwrap();
        assert_eq!(TargetError::from_io("", error).kind(), TargetErrorKind::Damaged, "{at}");
        assert_eq!(Flat::len(&bytes.on(&disk)).unwrap(), all);
        flip(at);
    }
    assert_eq!(Life::new(&key, bytes.on(&disk)).states[0], kept);
    // What nobody was promised may be torn.
    flip(all - 1);
    let mut torn = Life::new(&key, bytes.on(&disk));
    assert_eq!(torn.segment.bytes(), acknowledged);
    write(&mut torn);
}

const N_BLOCKS: u64 = 6;
const STRIDE: usize = 4096 + 48;

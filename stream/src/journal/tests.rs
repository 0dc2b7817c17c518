//! Handles of every durability on one file, crashed anywhere.

use std::{
    cell::Cell,
    io::{self, IoSlice},
    ops::Range,
    sync::Arc,
};

use fastrand::Rng;
use sealback_crypto::{Buffer, Engine, Geometry, Header, HeaderChange, NewHeader, RootKey, Sealed};

use super::{Files, Journal, Owner, head::Head};
use crate::{
    Completion, CompletionSink, Durability, Failure, Name, Read, ReadCompletion, Segment, Server,
    Target, Ticket, Write,
    faulty::{Alone, Crash, DiskServer},
    flat::{Flat, Through},
};

const N_BLOCKS: u64 = 5;
const STRIDE: usize = 4096 + 48;

/// What was written to one block.
struct Version {
    bytes: Vec<u8>,
    by: Durability,
    /// Whether its end was heard of.
    acknowledged: bool,
}

struct World {
    server: DiskServer,
    new: NewHeader,
    handles: Vec<(Durability, Arc<dyn Target>)>,
    /// Of each block, in the order in which they were written.
    versions: Vec<Vec<Version>>,
    /// Of each block, how many of the versions are there for certain: the last of these at least.
    durable: Vec<usize>,
}

const KINDS: [Durability; 4] =
    [Durability::PowerCut, Durability::PowerCut, Durability::Process, Durability::None];

impl World {
    fn new() -> World {
        let server = DiskServer::new(Durability::PowerCut);
        let geometry = Geometry::new(4096).unwrap();
        let mut new =
            Header::create(&RootKey::from_bytes(&[3; 32]), geometry, Engine::Fake).unwrap();
        let target = server.create(&name(), new.header.file_id(), &new.bytes).unwrap();
        let change =
            HeaderChange { size: N_BLOCKS * 4096, holes: 0..0, cuts: 0, cut_pending: false };
        let commit = new.header.commit(&change).unwrap();
        target.write_slot(&commit.write).unwrap();
        new.header = commit.header;
        let handles = KINDS.map(|kind| (kind, open(&server, kind))).to_vec();
        let versions = (0..N_BLOCKS).map(|_| Vec::new()).collect();
        let mut world = World { server, new, handles, versions, durable: vec![0; index(N_BLOCKS)] };
        for block in 0..N_BLOCKS {
            world.write(0, block..block + 1);
        }
        world.barrier(0);
        drop(target);
        world
    }

    /// Has one handle write over blocks.
    fn write(&mut self, handle: usize, blocks: Range<u64>) {
        let (by, target) = self.handles[handle].clone();
        let sealed = self.seal(blocks.clone(), u8::try_from(self.versions[0].len()).unwrap());
        for block in blocks.clone() {
            let bytes = sealed.block_bytes_of(block).to_vec();
            self.versions[index(block)].push(Version { bytes, by, acknowledged: false });
        }
        let went = write(&*target, sealed).is_ok();
        for block in blocks {
            self.versions[index(block)].last_mut().unwrap().acknowledged = went;
        }
    }

    fn seal(&self, blocks: Range<u64>, byte: u8) -> Sealed {
        let n_blocks = index(blocks.end - blocks.start);
        let plain = vec![byte; n_blocks * 4096];
        let buffer = Buffer::unpooled(n_blocks * STRIDE);
        self.new.header.content_key().seal(blocks.start, 3, &[&plain], buffer).unwrap()
    }

    /// What one handle has written is durable, if that is what it is for.
    fn barrier(&mut self, handle: usize) {
        let (by, target) = &self.handles[handle];
        if target.barrier().is_ok() && *by == Durability::PowerCut {
            // All handles that survive a power cut write through the journal: theirs is durable, too.
            for (versions, durable) in self.versions.iter().zip(&mut self.durable) {
                let is_durable =
                    |version: &Version| version.acknowledged && version.by == Durability::PowerCut;
                let last = versions.iter().rposition(is_durable).unwrap_or(0);
                *durable = (*durable).max(last);
            }
        }
    }

    /// Has one handle commit a header of that size.
    fn commit(&mut self, handle: usize, n_blocks: u64) {
        let change =
            HeaderChange { size: n_blocks * 4096, holes: 0..0, cuts: 0, cut_pending: false };
        let commit = self.new.header.commit(&change).unwrap();
        if self.handles[handle].1.write_slot(&commit.write).is_ok() {
            self.new.header = commit.header;
        }
    }

    /// Has one handle cut off the last block, and make it a hole, as a pipeline does.
    fn cut_and_grow(&mut self, handle: usize) {
        let geometry = self.new.header.geometry();
        let (_, target) = self.handles[handle].clone();
        // The other slot knows the size, too, until the next commit.
        for _slot in 0..2 {
            self.commit(handle, N_BLOCKS - 1);
            target.barrier().unwrap();
        }
        target.cut(geometry, N_BLOCKS - 1, &self.new.header.expectation()).unwrap();
        target.barrier().unwrap();
        let last = N_BLOCKS - 1..N_BLOCKS;
        let segments = vec![Segment::Hole { blocks: last, geometry }];
        send(&*target, Write { segments, expectations: Vec::new(), dirty: Vec::new() }).unwrap();
        target.barrier().unwrap();
        self.commit(handle, N_BLOCKS);
        target.barrier().unwrap();
    }

    fn run(&mut self, rng: &mut Rng) {
        for _op in 0..rng.usize(5..25) {
            let handle = rng.usize(..KINDS.len());
            match rng.u8(..12) {
                0..6 => {
                    let first = rng.u64(..N_BLOCKS);
                    self.write(handle, first..rng.u64(first..N_BLOCKS) + 1);
                }
                6..9 => self.barrier(handle),
                9..11 => self.commit(handle, N_BLOCKS),
                _ => self.handles[handle].1 = open(&self.server, KINDS[handle]),
            }
        }
    }

    /// Looks at what a crash has left.
    fn check(&self, crash: Crash, server: &DiskServer) -> Result<(), String> {
        let target = open(server, Durability::PowerCut);
        target.read_header().map_err(|error| error.to_string())?;
        for (block, versions) in (0..).zip(&self.versions) {
            let acknowledged = versions.iter().rposition(|version| version.acknowledged);
            let least = match crash {
                Crash::Kill | Crash::Restart => acknowledged.unwrap_or(0),
                Crash::PowerCut => self.durable[index(block)],
            };
            let later = &versions[least..];
            let found = read(&*target, block);
            // What is written without a journal may be torn: by a kill, what was being written.
            let torn = later.iter().any(|version| match crash {
                Crash::Kill | Crash::Restart => {
                    version.by == Durability::None && !version.acknowledged
                }
                Crash::PowerCut => version.by != Durability::PowerCut,
            });
            if !torn && !later.iter().any(|version| version.bytes == found) {
                let known = versions.iter().position(|version| version.bytes == found);
                return Err(format!(
                    "block {block} is version {known:?} of {}, at least {least}",
                    versions.len()
                ));
            }
        }
        Ok(())
    }
}

fn name() -> Name {
    Name::new("file").unwrap()
}

fn index(block: u64) -> usize {
    usize::try_from(block).unwrap()
}

fn open(server: &DiskServer, durability: Durability) -> Arc<dyn Target> {
    server.clone().with_durability(durability).open(&name()).unwrap()
}

fn write(target: &dyn Target, sealed: Sealed) -> Result<u64, Failure> {
    send(
        target,
        Write {
            segments: vec![Segment::Sealed(sealed)],
            expectations: Vec::new(),
            dirty: Vec::new(),
        },
    )
}

fn send(target: &dyn Target, write: Write) -> Result<u64, Failure> {
    #[derive(Debug)]
    struct Sink(std::sync::mpsc::Sender<Result<u64, Failure>>);
    impl CompletionSink for Sink {
        fn terminated(&self, _: Ticket, outcome: Result<u64, Failure>) {
            self.0.send(outcome).unwrap();
        }
    }
    let (sender, outcomes) = std::sync::mpsc::channel();
    target.write(write, Completion::new(Arc::new(Sink(sender)), Ticket { stream: 0, id: 0 }));
    outcomes.recv().unwrap()
}

fn read(target: &dyn Target, block: u64) -> Vec<u8> {
    let (sender, outcomes) = std::sync::mpsc::channel();
    let done = ReadCompletion::new(move |outcome| sender.send(outcome).unwrap());
    let geometry = Geometry::new(4096).unwrap();
    let buffer = Buffer::unpooled(STRIDE);
    target.read(Read { blocks: block..block + 1, geometry, buffer }, done);
    let (buffer, n_read) = outcomes.recv().unwrap().unwrap();
    buffer[..n_read].to_vec()
}

#[test]
fn whoever_writes_with_whomever_and_whenever_it_crashes_what_is_promised_is_there() {
    let n_seeds = std::env::var("SEALBACK_CRASHES").map_or(300, |n| n.parse().unwrap());
    for seed in 0..n_seeds {
        let mut rng = Rng::with_seed(seed);
        let mut world = World::new();
        let stop = world.server.n_changes() + rng.u64(..60);
        world.server.stop_after(stop, rng.u64(..));
        world.run(&mut rng);
        let crash = *rng.choice(&[Crash::Kill, Crash::PowerCut, Crash::Restart]).unwrap();
        let mut server = world.server.crash(crash, rng.u64(..));
        if rng.bool() {
            // Whoever looks at it crashes as well.
            server.stop_after(rng.u64(..5), rng.u64(..));
            drop(open(&server, Durability::PowerCut).read_header());
            server = server.crash(crash, rng.u64(..));
        }
        let checked = world.check(crash, &server);
        assert!(checked.is_ok(), "{}: {crash:?}, seed {seed}", checked.unwrap_err());
    }
}

#[test]
fn a_barrier_waits_for_the_disk_while_another_one_does() {
    let journal = Journal::new(Durability::PowerCut);
    let n_waited = Cell::new(0);
    let wait = || {
        n_waited.set(n_waited.get() + 1);
        Ok::<(), ()>(())
    };
    journal.barrier(|| journal.barrier(wait).and_then(|()| wait())).unwrap();
    assert_eq!(n_waited.get(), 2);
    journal.barrier(wait).unwrap();
    assert_eq!(n_waited.get(), 2, "there was nothing more to wait for");
}

/// Goal: no record speaks of a header that the disk need not have. Method: one handle commits, another
/// one writes over a block, the power is cut before anybody waits for the header.
#[test]
fn a_block_written_after_the_commit_of_another_handle_is_not_torn() {
    for seed in 0..200 {
        let mut world = World::new();
        world.write(1, 0..1);
        world.commit(1, N_BLOCKS);
        world.barrier(1);
        world.commit(0, N_BLOCKS);
        world.write(1, 1..N_BLOCKS);
        let after = world.server.crash(Crash::PowerCut, seed);
        world.check(Crash::PowerCut, &after).unwrap_or_else(|error| panic!("{error}, seed {seed}"));
    }
}

/// Goal: what was cut off does not come back. Method: a durable record of the last block; then a log
/// that the disk need not have takes its place, in two ways; then the block is cut off and made a hole.
#[test]
fn what_a_log_spoke_of_that_is_no_more_does_not_come_back_behind_a_cut() {
    for seed in 0..200 {
        for is_killed in [false, true] {
            let mut world = World::new();
            world.write(0, N_BLOCKS - 1..N_BLOCKS);
            if is_killed {
                let stop = world.server.n_changes() + 2 + u64::from(seed % 2 == 0);
                world.server.stop_after(stop, seed);
                world.write(0, N_BLOCKS - 1..N_BLOCKS);
                world.server = world.server.crash(Crash::Kill, seed);
                world.handles = KINDS.map(|kind| (kind, open(&world.server, kind))).to_vec();
            } else {
                world.write(2, 0..1);
            }
            world.cut_and_grow(0);
            let after = world.server.crash(Crash::PowerCut, seed);
            let target = open(&after, Durability::PowerCut);
            target.read_header().unwrap();
            let found = read(&*target, N_BLOCKS - 1);
            assert!(found.iter().all(|byte| *byte == 0), "seed {seed}, killed: {is_killed}");
        }
    }
}

/// Goal: a handle knows a log that others began since. Method: the log is emptied, and another one is
/// begun that has as much in it.
#[test]
fn a_log_that_looks_like_the_one_a_handle_left_is_another() {
    for seed in 0..200 {
        let mut world = World::new();
        // All handles are closed before the first is opened anew: the log is empty.
        world.handles.clear();
        for _handle in 0..3 {
            world.handles.push((KINDS[0], open(&world.server, KINDS[0])));
        }
        world.write(0, 0..1);
        world.commit(0, N_BLOCKS);
        world.barrier(0);
        world.write(1, 1..2);
        world.handles[1].1 = open(&world.server, KINDS[0]);
        world.write(2, 2..3);
        world.barrier(2);
        world.write(0, 3..4);
        let after = world.server.crash(Crash::PowerCut, seed);
        world.check(Crash::PowerCut, &after).unwrap_or_else(|error| panic!("{error}, seed {seed}"));
    }
}

/// Goal: a barrier waits for what went behind the blocks that a record speaks of. Method: one write goes
/// over the last committed block and on behind it; after a barrier the power is cut.
#[test]
fn what_a_write_adds_behind_what_it_goes_over_is_waited_for() {
    for seed in 0..50 {
        let mut world = World::new();
        for _slot in 0..2 {
            world.commit(0, N_BLOCKS - 1);
            world.barrier(0);
        }
        world.write(0, N_BLOCKS - 2..N_BLOCKS);
        world.barrier(0);
        let after = world.server.crash(Crash::PowerCut, seed);
        world.check(Crash::PowerCut, &after).unwrap_or_else(|error| panic!("{error}, seed {seed}"));
    }
}

/// A log on a disk that writes and does not sync.
struct Unsynced(Vec<u8>);

impl Flat for Unsynced {
    fn len(&self) -> io::Result<u64> {
        Flat::len(&self.0)
    }

    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<usize> {
        Flat::read_at(&self.0, at, into)
    }

    fn write_at(&mut self, at: u64, pieces: &mut [IoSlice<'_>]) -> Through {
        Flat::write_at(&mut self.0, at, pieces)
    }

    fn punch(&mut self, stored: Range<u64>) -> io::Result<bool> {
        Flat::punch(&mut self.0, stored)
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        Flat::set_len(&mut self.0, len)
    }

    fn sync(&mut self) -> io::Result<()> {
        Err(io::Error::other("injected"))
    }
}

const OWNER: Owner<'static> = Owner { stem: "stem", inode: 1, run: [1; 16] };

/// A stored file of five blocks, and one that is to be written over.
fn stored() -> (Vec<u8>, Write) {
    let world = World::new();
    let mut data = vec![0; 8192 + index(N_BLOCKS) * STRIDE];
    data[..8192].copy_from_slice(&world.handles[0].1.read_header().unwrap());
    for block in 0..N_BLOCKS {
        let at = 8192 + index(block) * STRIDE;
        data[at..at + STRIDE].copy_from_slice(&read(&*world.handles[0].1, block));
    }
    let segments = vec![Segment::Sealed(world.seal(1..2, 9))];
    (data, Write { segments, expectations: Vec::new(), dirty: Vec::new() })
}

#[test]
fn a_write_whose_record_did_not_reach_the_disk_failed_and_is_never_carried_out() {
    let (mut data, write) = stored();
    let before = data.clone();
    let mut log = Unsynced(Vec::new());
    let mut run = |journal: &Journal, step: &dyn Fn(&mut dyn Flat) -> io::Result<()>| {
        let mut files = Files { owner: OWNER, data: &mut data, log: &mut log, around: &Alone };
        journal.run(&mut files, |flat| step(flat)).unwrap()
    };
    let journal = Journal::new(Durability::PowerCut);
    run(&journal, &|flat| flat.begin(&write)).unwrap_err();
    // Somebody else comes, who would carry out what he finds.
    run(&Journal::new(Durability::Process), &|_| Ok(())).unwrap();
    assert!(data == before, "nobody was told that it went through");
}

#[test]
fn a_journal_of_a_later_version_is_refused_and_left_as_it_is() {
    let (mut data, write) = stored();
    let mut log = Vec::new();
    let head = Head::none(&OWNER).to_bytes_of_version(&OWNER, 2);
    log.extend(head);
    let (data_before, log_before) = (data.clone(), log.clone());
    let mut files = Files { owner: OWNER, data: &mut data, log: &mut log, around: &Alone };
    let journal = Journal::new(Durability::Process);
    let refused = journal.run(&mut files, |flat| flat.begin(&write)).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::Unsupported);
    assert!(refused.to_string().contains("version 2"), "{refused}");
    assert_eq!(journal.close(&mut files).unwrap_err().kind(), io::ErrorKind::Unsupported);
    assert!(data == data_before && log == log_before);
}

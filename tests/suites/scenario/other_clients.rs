//! What another client has written is noticed, and nothing else goes on its account.

use std::{ops::Range, sync::Arc};

use sealback::{CacheReport, Engine, File};
use sealback_stream::{
    MemoryCache, MemoryOptions, MemoryServer,
    faulty::{Fault, Faults, FaultyServer, Operation, Rule, When},
};
use sealback_tests::{
    counter::{CountedServer, Counter},
    gate::{Gate, GateServer},
    reader::read_sealed,
};

use crate::support::{ROOT, config, create, name, open, read_all, sample};

const BLOCK: usize = 4096;
const N_BLOCKS: usize = 32;

/// Two clients of one server. Ours has a cache.
struct World {
    server: CountedServer<FaultyServer<MemoryServer>>,
    cache: MemoryCache,
    engine: Engine,
    theirs: File,
    _other: Engine,
    data: Vec<u8>,
}

fn world(faults: &Faults) -> (World, File) {
    let server = FaultyServer::new(MemoryServer::new(MemoryOptions::default()), faults);
    let server = CountedServer::new(server, Counter::default());
    let cache = MemoryCache::new(MemoryOptions::default());
    let data = sample(N_BLOCKS * BLOCK);
    let (engine, other) = (Engine::new(config()).unwrap(), Engine::new(config()).unwrap());
    let file = create(&engine, &server, Some(&cache), BLOCK as u64);
    file.write_at(0, &data).unwrap();
    file.sync().unwrap();
    let theirs = open(&other, &server, None);
    assert!(read_all(&theirs) == data);
    server.hook.take_read();
    (World { server, cache, engine, theirs, _other: other, data }, file)
}

impl World {
    /// The other client writes, and commits nothing.
    fn they_write(&mut self, at: usize, bytes: &[u8]) {
        self.theirs.write_at(at as u64, bytes).unwrap();
        self.theirs.writeback().wait().unwrap();
        self.data[at..at + bytes.len()].copy_from_slice(bytes);
        self.server.hook.take_read();
    }

    fn stored(&self) -> Vec<u8> {
        read_sealed(&self.server.stored(&name()).unwrap(), &ROOT).unwrap().plaintext
    }
}

fn positions(blocks: Range<usize>) -> Range<u64> {
    (blocks.start * BLOCK) as u64..(blocks.end * BLOCK) as u64
}

/// The blocks of the cache's copy that are not the server's.
fn differing(file: &File) -> Vec<u64> {
    let mut differing = Vec::new();
    let each = |block, report| {
        differing.extend((report == CacheReport::Differs).then_some(block));
    };
    assert!(file.verify_cache(each).unwrap());
    differing
}

#[test]
fn a_deep_look_finds_exactly_the_blocks_that_others_have_overwritten_and_not_committed() {
    let (mut world, file) = world(&Faults::none());
    assert_eq!(file.revalidate_deep().unwrap(), []);
    world.they_write(5 * BLOCK, &sample(2 * BLOCK));
    world.they_write(20 * BLOCK + 7, b"a part of it");
    assert!(read_all(&file) != world.data, "nothing tells of it");
    assert_eq!(differing(&file), [5, 6, 20], "nor the cache");
    let generation = file.info().generation;
    assert_eq!(file.revalidate_deep().unwrap(), [positions(5..7), positions(20..21)]);
    assert!(differing(&file).is_empty());
    world.server.hook.take_read();
    assert!(read_all(&file) == world.data);
    let mut read = world.server.hook.take_read();
    read.sort_by_key(|blocks| blocks.start);
    assert_eq!(read, [5..7, 20..21], "all others are still in memory");
    assert_eq!(file.info().generation, generation, "nobody has committed");
    assert_eq!(file.revalidate_deep().unwrap(), []);
}

#[test]
fn what_is_only_in_the_cache_is_compared_and_a_commit_takes_along_no_more_than_it_changed() {
    let (mut world, file) = world(&Faults::none());
    file.close().unwrap();
    let file = open(&world.engine, &world.server, Some(&world.cache));
    world.they_write(9 * BLOCK, &sample(BLOCK));
    world.theirs.sync().unwrap();
    assert_eq!(file.revalidate_deep().unwrap(), [positions(9..10)]);
    world.server.hook.take_read();
    assert!(read_all(&file) == world.data);
    let read: Vec<u64> = world.server.hook.take_read().into_iter().flatten().collect();
    // Units are read from one place: the one with the block that the cache lacks now.
    assert!(read.contains(&9), "{read:?}");
    assert!(differing(&file).is_empty());
    file.close().unwrap();
    // The header that the copy was given is the server's: it is not emptied.
    let file = open(&world.engine, &world.server, Some(&world.cache));
    let mut same = 0;
    file.verify_cache(|_, report| same += u32::from(report == CacheReport::Same)).unwrap();
    assert!(same >= 31, "{same} blocks are still in the cache");
}

#[test]
fn what_is_dirty_stays_and_is_laid_over_what_others_have_written() {
    let (mut world, file) = world(&Faults::none());
    file.write_at(5 * BLOCK as u64 + 100, b"ours").unwrap();
    let whole = sample(BLOCK);
    file.write_at(8 * BLOCK as u64, &whole).unwrap();
    world.they_write(5 * BLOCK, b"theirs");
    world.they_write(8 * BLOCK, b"lost");
    world.data[5 * BLOCK + 100..][..4].copy_from_slice(b"ours");
    world.data[8 * BLOCK..][..BLOCK].copy_from_slice(&whole);
    assert_eq!(file.revalidate_deep().unwrap(), [positions(5..6), positions(8..9)]);
    assert_eq!(file.dirty_bytes(), 4 + BLOCK as u64);
    assert!(read_all(&file) == world.data, "both are seen before they are written back");
    file.sync().unwrap();
    assert!(world.stored() == world.data && read_all(&file) == world.data);
    assert_eq!(file.revalidate_deep().unwrap(), []);
    assert!(differing(&file).is_empty());
}

#[test]
fn a_cut_and_a_growth_by_others_are_followed_by_a_deep_look() {
    let (world, file) = world(&Faults::none());
    world.theirs.set_len(10 * BLOCK as u64 + 5).unwrap();
    world.theirs.write_at(12 * BLOCK as u64, b"behind a hole").unwrap();
    world.theirs.sync().unwrap();
    file.revalidate_deep().unwrap();
    assert!(read_all(&file) == world.stored());
    assert_eq!(file.size(), 12 * BLOCK as u64 + 13);
    assert!(differing(&file).is_empty());
}

#[test]
fn a_deep_look_beside_a_writeback_takes_nothing_of_ours_for_anothers() {
    let gate = Gate::default();
    let server = GateServer::new(MemoryServer::new(MemoryOptions::default()), gate.clone());
    let cache = MemoryCache::new(MemoryOptions::default());
    let engine = Engine::new(config()).unwrap();
    let file = create(&engine, &server, Some(&cache), BLOCK as u64);
    let mut data = sample(N_BLOCKS * BLOCK);
    file.write_at(0, &data).unwrap();
    let first = file.writeback();
    gate.wait_for(1);
    assert_eq!(file.revalidate_deep().unwrap(), [], "nothing is on the server yet");
    let file = Arc::new(file);
    let looks = |file: Arc<File>| {
        std::thread::spawn(move || {
            (0..50).map(|_| file.revalidate_deep().unwrap()).find(|changed| !changed.is_empty())
        })
    };
    gate.open();
    first.wait().unwrap();
    file.sync().unwrap();
    let looking = looks(file.clone());
    for round in 0..50 {
        let at = round * 2731 % (data.len() - 5000);
        file.write_at(at as u64, &sample(5000)).unwrap();
        data[at..at + 5000].copy_from_slice(&sample(5000));
        file.writeback().wait().unwrap();
    }
    assert_eq!(looking.join().unwrap(), None);
    file.sync().unwrap();
    assert!(read_all(&file) == data);
    assert!(differing(&file).is_empty());
    assert!(read_sealed(&server.stored(&name()).unwrap(), &ROOT).unwrap().plaintext == data);
}

#[test]
fn a_deep_look_that_cannot_read_has_changed_nothing_and_is_made_again() {
    let refused = sealback_stream::TargetError::new(
        sealback_stream::TargetErrorKind::NotPermitted,
        "injected",
    );
    let fails = |when| Rule {
        operation: Operation::Read,
        when,
        fault: Fault::Fail(sealback_stream::Failure::Fatal(refused.clone())),
    };
    let faults = Faults::scripted([fails(When::Every(1))]);
    faults.stop();
    let (mut world, file) = world(&faults);
    world.they_write(3 * BLOCK, &sample(BLOCK));
    faults.resume();
    file.revalidate_deep().unwrap_err();
    faults.stop();
    assert_eq!(file.revalidate_deep().unwrap(), [positions(3..4)]);
    assert!(read_all(&file) == world.data);
}

//! Copy-to-cache: what reads fetch from the server goes to the cache, as the bytes that came, and never
//! as a block that is no longer stored.

use std::{
    sync::{Arc, Condvar, Mutex},
    time::Duration,
};

use sealback::{CacheReport, Config, Engine, File};
use sealback_stream::{
    Completion, Failure, MemoryCache, MemoryOptions, MemoryServer, Runs, Target, TargetError,
    TargetErrorKind, Write,
    faulty::{Fault, Faults, FaultyCache, FaultyServer, Operation, Rule, When},
};
use sealback_tests::{
    counter::{CountedServer, Counter},
    gate::{Gate, GateServer},
    interpose::{Hook, InterposedCache},
};

use crate::support::{config, create, ends, engine, open, read_all, sample};

const BLOCK: usize = 4096;

type Server = CountedServer<MemoryServer>;

/// A server with a file that was closed.
fn stored(n_blocks: usize) -> (Server, Vec<u8>) {
    let server =
        CountedServer::new(MemoryServer::new(MemoryOptions::default()), Counter::default());
    let data = sample(n_blocks * BLOCK);
    let file = create(&engine(), &server, None, BLOCK as u64);
    file.write_at(0, &data).unwrap();
    file.close().unwrap();
    server.hook.take_written();
    server.hook.take_read();
    (server, data)
}

/// How many blocks the cache has, and which of them are not the server's.
fn compared(file: &File) -> (usize, Vec<u64>) {
    let (mut same, mut differing) = (0, Vec::new());
    let each = |block, report| match report {
        CacheReport::Same => same += 1,
        CacheReport::Differs => differing.push(block),
        _ => {}
    };
    assert!(file.verify_cache(each).unwrap());
    (same, differing)
}

#[test]
fn what_a_read_fetched_goes_to_the_cache_alone_as_the_bytes_that_came() {
    let (server, data) = stored(100);
    let cache = MemoryCache::new(MemoryOptions::default());
    let engine = engine();
    let file = open(&engine, &server, Some(&cache));
    assert!(read_all(&file) == data);
    file.writeback().wait().unwrap();
    assert_eq!(compared(&file), (100, vec![]));
    assert_eq!(engine.stats().copied_bytes, 0);
    assert!(server.hook.take_written().is_empty(), "the server has it");
    file.close().unwrap();
    server.hook.take_read();
    let file = open(&engine, &server, Some(&cache));
    assert!(read_all(&file) == data && server.hook.take_read().is_empty(), "from the cache");
    file.writeback().wait().unwrap();
    let writes = cache.n_writes();
    assert!(read_all(&file) == data);
    file.writeback().wait().unwrap();
    assert_eq!(cache.n_writes(), writes, "what it has is not copied again");
}

#[test]
fn a_client_that_only_reads_has_it_copied_unasked_within_bounds() {
    let (server, data) = stored(2048);
    let cache = MemoryCache::new(MemoryOptions::default());
    let engine = Arc::new(Engine::new(Config { readahead_bytes: 0, ..config() }).unwrap());
    // An eighth of the memory, with the blocks' prefixes.
    let most = engine.config().memory_bytes as u64 / 8 / 4096 * (4096 + 48);
    let file = open(&engine, &server, Some(&cache));
    let mut bytes = vec![0; 256 << 10];
    for (number, expected) in data.chunks(bytes.len()).enumerate() {
        let at = (number * bytes.len()) as u64;
        assert_eq!(file.read_at(at, &mut bytes).unwrap(), bytes.len());
        assert!(bytes == expected);
        assert!(engine.stats().copied_bytes <= most);
        let engine = engine.clone();
        let copied = ends(move || {
            while engine.stats().copied_bytes > most / 2 {
                std::thread::yield_now();
            }
        });
        copied.expect("a pass takes it to the cache");
    }
    let (same, differing) = compared(&file);
    assert!(same >= 1900 && differing.is_empty(), "{same} of 2048 blocks, {differing:?}");
    assert!(server.hook.take_written().is_empty());
    assert_eq!(file.dirty_bytes(), 0);
}

#[test]
fn a_pass_for_the_cache_leaves_what_is_dirty_where_it_is() {
    let (server, data) = stored(512);
    let cache = MemoryCache::new(MemoryOptions::default());
    let engine = Engine::new(Config { readahead_bytes: 0, ..config() }).unwrap();
    let file = open(&engine, &server, Some(&cache));
    file.write_at(5 * BLOCK as u64, b"dirty").unwrap();
    let mut bytes = vec![0; 2 << 20];
    assert_eq!(file.read_at(0, &mut bytes).unwrap(), bytes.len());
    assert!(bytes[6 * BLOCK..] == data[6 * BLOCK..]);
    ends(move || {
        while cache.n_writes() == 0 {
            std::thread::yield_now();
        }
    })
    .expect("a pass takes it to the cache");
    assert_eq!(file.dirty_bytes(), 5);
    assert!(server.hook.take_written().is_empty());
    file.sync().unwrap();
    assert_eq!(compared(&file).1, [0; 0]);
}

#[test]
fn holes_and_their_neighbours_are_read_and_the_neighbours_copied() {
    let (server, mut data) = stored(20);
    let file = open(&engine(), &server, None);
    file.punch(4 * BLOCK as u64..9 * BLOCK as u64).unwrap();
    file.close().unwrap();
    data[4 * BLOCK..9 * BLOCK].fill(0);
    let cache = MemoryCache::new(MemoryOptions::default());
    let engine = engine();
    let file = open(&engine, &server, Some(&cache));
    assert!(read_all(&file) == data);
    file.writeback().wait().unwrap();
    assert_eq!(compared(&file), (15, vec![]));
}

/// A file of 32 blocks, read here, with all of it on its way to a cache at a gate; and the other client.
struct OnTheWay {
    server: Server,
    gate: Gate,
    cache: InterposedCache<MemoryCache, Gate>,
    engine: Engine,
    theirs: (Engine, File),
    data: Vec<u8>,
}

fn on_the_way() -> (OnTheWay, File, sealback::WritebackHandle) {
    let (server, data) = stored(32);
    let gate = Gate::default();
    let cache = InterposedCache::new(MemoryCache::new(MemoryOptions::default()), gate.clone());
    let (engine, others) = (engine(), engine());
    let file = open(&engine, &server, Some(&cache));
    assert!(read_all(&file) == data);
    let theirs = open(&others, &server, None);
    let writeback = file.writeback();
    gate.wait_for(1);
    (OnTheWay { server, gate, cache, engine, theirs: (others, theirs), data }, file, writeback)
}

impl OnTheWay {
    fn they_write(&mut self, block: usize) {
        let bytes = sample(BLOCK + block);
        let bytes = &bytes[block..];
        self.theirs.1.write_at((block * BLOCK) as u64, bytes).unwrap();
        self.theirs.1.writeback().wait().unwrap();
        self.data[block * BLOCK..][..BLOCK].copy_from_slice(bytes);
    }

    /// Lets the copies through; what is read from then on must be what is stored.
    fn ends_well(self, file: &File, writeback: &sealback::WritebackHandle) {
        self.gate.open();
        writeback.wait().unwrap();
        assert_eq!(compared(file).1, [0; 0], "the cache claims what is no longer stored");
        file.sync().unwrap();
        assert!(read_all(file) == self.data);
        assert_eq!(compared(file).1, [0; 0]);
        let again = open(&self.engine, &self.server, Some(&self.cache));
        assert!(read_all(&again) == self.data);
    }
}

#[test]
fn a_copy_on_its_way_is_not_confirmed_when_others_have_committed_and_that_was_noticed() {
    let (mut world, file, writeback) = on_the_way();
    world.they_write(3);
    world.theirs.1.sync().unwrap();
    file.revalidate().unwrap();
    world.ends_well(&file, &writeback);
}

#[test]
fn a_copy_on_its_way_is_not_confirmed_when_a_deep_look_has_found_another_block() {
    let (mut world, file, writeback) = on_the_way();
    world.they_write(3);
    let changed = file.revalidate_deep().unwrap();
    assert!(changed.len() == 1 && changed[0].start == 3 * BLOCK as u64, "{changed:?}");
    world.ends_well(&file, &writeback);
}

#[test]
fn a_copy_on_its_way_is_not_confirmed_when_another_block_was_read_since() {
    let (mut world, file, writeback) = on_the_way();
    world.they_write(3);
    let mut block = vec![0; BLOCK];
    file.read_direct(3 * BLOCK as u64, &mut block).unwrap();
    assert!(block == world.data[3 * BLOCK..][..BLOCK], "the cache does not have it yet");
    world.gate.open();
    writeback.wait().unwrap();
    file.read_direct(3 * BLOCK as u64, &mut block).unwrap();
    assert!(block == world.data[3 * BLOCK..][..BLOCK], "what was seen once stays seen");
    assert_eq!(compared(&file).1, [0; 0]);
}

#[test]
fn a_block_that_is_dirtied_while_its_copy_is_on_its_way_is_in_the_cache_as_it_is_written() {
    let (mut world, file, writeback) = on_the_way();
    file.write_at(3 * BLOCK as u64 + 9, b"ours").unwrap();
    world.data[3 * BLOCK + 9..][..4].copy_from_slice(b"ours");
    file.write_at(7 * BLOCK as u64, &sample(BLOCK)).unwrap();
    world.data[7 * BLOCK..][..BLOCK].copy_from_slice(&sample(BLOCK));
    world.ends_well(&file, &writeback);
}

#[test]
fn of_two_reads_that_found_different_blocks_neither_is_copied() {
    let (server, data) = stored(32);
    let cache = MemoryCache::new(MemoryOptions::default());
    let (engine, others) = (engine(), engine());
    let file = open(&engine, &server, Some(&cache));
    let mut bytes = vec![0; data.len()];
    file.read_direct(0, &mut bytes).unwrap();
    assert!(bytes == data);
    let theirs = open(&others, &server, None);
    theirs.write_at(3 * BLOCK as u64, &sample(BLOCK)).unwrap();
    theirs.writeback().wait().unwrap();
    file.read_direct(2 * BLOCK as u64, &mut bytes[..2 * BLOCK]).unwrap();
    assert!(bytes[BLOCK..2 * BLOCK] == sample(BLOCK));
    file.writeback().wait().unwrap();
    assert_eq!(compared(&file).1, [0; 0]);
}

/// Holds up the cache's thread in a write of more than one block.
#[derive(Debug, Default)]
struct Hang(Mutex<(bool, bool)>, Condvar);

impl Hook for Hang {
    fn write(&self, target: &Arc<dyn Target>, write: Write, done: Completion) {
        if write.runs().n_blocks() > 1 {
            let mut state = self.0.lock().unwrap();
            state.0 = true;
            self.1.notify_all();
            drop(self.1.wait_while(state, |(_, let_go)| !*let_go).unwrap());
        }
        target.write(write, done);
    }
}

#[test]
fn a_record_that_a_hung_cache_held_up_is_not_set_behind_the_next_write() {
    let gate = Gate::default();
    let server = GateServer::new(MemoryServer::new(MemoryOptions::default()), gate.clone());
    let cache = InterposedCache::new(MemoryCache::new(MemoryOptions::default()), Hang::default());
    let patience = Config { cache_patience: Duration::from_millis(50), ..config() };
    let engine = Engine::new(patience).unwrap();
    let file = create(&engine, &server, Some(&cache), BLOCK as u64);
    // Its block is in the cache, and on its way to the server.
    file.write_at(0, &sample(BLOCK)).unwrap();
    let first = file.writeback();
    gate.wait_for(1);
    // The cache's thread hangs in a write of another file.
    let other_server = MemoryServer::new(MemoryOptions::default());
    let other = create(&engine, &other_server, Some(&cache), BLOCK as u64);
    other.write_at(0, &sample(3 * BLOCK)).unwrap();
    other.writeback().wait().unwrap();
    // Now the server has the block: the record waits behind the hung write.
    gate.open();
    first.wait().unwrap();
    let anew: Vec<u8> = sample(BLOCK).into_iter().rev().collect();
    file.write_at(0, &anew).unwrap();
    file.writeback().wait().unwrap();
    let mut state = cache.hook.0.lock().unwrap();
    assert!(state.0, "it hung");
    state.1 = true;
    drop(state);
    cache.hook.1.notify_all();
    // When the cache has something newer, it has had all that waited.
    let other = ends(move || {
        while compared(&other).0 == 0 {
            other.write_at(0, &sample(BLOCK)).unwrap();
            other.sync().unwrap();
        }
    });
    other.expect("the cache is used again");
    assert_eq!(compared(&file).1, [0; 0], "the cache claims what is no longer stored");
    assert!(read_all(&file) == anew);
}

#[test]
fn what_a_failed_barrier_makes_dirty_is_sent_again_and_not_its_copy() {
    let (server, mut data) = stored(4);
    let failing = |operation, when| {
        let error = TargetError::new(TargetErrorKind::Io, "injected");
        Faults::scripted([Rule { operation, when, fault: Fault::Fail(Failure::Fatal(error)) }])
    };
    let barriers = failing(Operation::Barrier, When::From(1));
    let faulty = FaultyServer::new(server.clone(), &barriers);
    // It does not know that it has the block.
    let records = failing(Operation::Confirm, When::Once(1));
    let cache = FaultyCache::new(MemoryCache::new(MemoryOptions::default()), &records);
    let file = open(&engine(), &faulty, Some(&cache));
    file.write_at(5000, &[7; 100]).unwrap();
    file.writeback().wait().unwrap();
    file.revalidate().unwrap();
    data[5000..5100].fill(7);
    assert!(read_all(&file) == data);
    // Of another block: the copy of this one still waits.
    file.sync_range(12_288..12_300).unwrap_err();
    assert_eq!(file.dirty_bytes(), 100, "what was not made durable is sent again");
    barriers.stop();
    server.hook.take_written();
    file.sync().unwrap();
    assert_eq!(file.dirty_bytes(), 0);
    let written: Vec<u64> = server.hook.take_written().iter().flat_map(Runs::blocks).collect();
    assert_eq!(written, [1]);
    assert!(compared(&file).1.is_empty());
}

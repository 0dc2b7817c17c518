//! Every change of a stored file that is small enough to try is found, and the block named.
//!
//! Thousands of files are opened here, so the library is asked, not the program; what the program
//! says of such files is checked beside this.

use std::{
    fs::{self, File, OpenOptions},
    os::unix::fs::FileExt,
    thread,
};

use sealback::{
    BlockReport, Config, Engine, Error, Place,
    crypto::RootKey,
    stream::{LocalOptions, LocalServer, Name},
};

use crate::world::{HEADER, PREFIX, World, bytes};

const BLOCK: usize = 4096;
const STRIDE: usize = PREFIX + BLOCK;
const N_BLOCKS: usize = 5;
const LAST: usize = 1000;

/// A stored file of 5 blocks, and an engine that opens it.
struct Stored {
    world: World,
    engine: Engine,
    server: LocalServer,
    root: RootKey,
    sound: Vec<u8>,
    plain: Vec<u8>,
}

impl Stored {
    fn new() -> Stored {
        let world = World::new();
        let plain = bytes(51, (N_BLOCKS - 1) * BLOCK + LAST);
        world.put_bytes(&plain, "file", &["--block-size", "4KiB"]);
        let sound = world.read("server/file");
        let server = LocalServer::open(world.path("server"), LocalOptions::default()).unwrap();
        let root = RootKey::parse(&world.read("key")).unwrap();
        let engine = Engine::new(Config { memory_bytes: 8 << 20, ..Config::default() }).unwrap();
        Stored { world, engine, server, root, sound, plain }
    }

    fn open(&self, name: &str) -> Result<sealback::File, Error> {
        let place = Place { server: &self.server, cache: None, root: &self.root };
        self.engine.open(&place, &Name::new(name).unwrap())
    }

    /// The blocks that are damaged; none at all if the file cannot be opened.
    fn damaged(&self, name: &str) -> Option<Vec<u64>> {
        let file = match self.open(name) {
            Ok(file) => file,
            Err(Error::Header(_)) => return None,
            Err(error) => panic!("{error}"),
        };
        let mut damaged = Vec::new();
        file.verify(|block, report| {
            if let BlockReport::Damaged(damage) = report {
                assert_eq!(damage.block, block);
                damaged.push(block);
            }
        })
        .unwrap();
        Some(damaged)
    }

    /// Reads the file; asserts that a block that is damaged is named, and that nothing of it, and
    /// all of the blocks before it, is handed out.
    fn reads_up_to(&self, name: &str, damaged: &[u64]) {
        let file = self.open(name).unwrap();
        for block in 0..N_BLOCKS {
            let mut got = [0; BLOCK];
            let plain = self.plain.chunks(BLOCK).nth(block).unwrap();
            match file.read_at((block * BLOCK) as u64, &mut got[..plain.len()]) {
                Ok(len) => {
                    assert!(!damaged.contains(&(block as u64)), "block {block} was read");
                    assert!(got[..len] == *plain);
                }
                Err(Error::Damaged(damage)) => {
                    assert_eq!(damage.block, block as u64);
                    assert!(damaged.contains(&damage.block), "{damage}");
                    assert!(got == [0; BLOCK], "something of block {block} was handed out");
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// A copy of the stored file under another name.
    fn copy(&self, name: &str) -> File {
        fs::write(self.world.stored(name), &self.sound).unwrap();
        OpenOptions::new().read(true).write(true).open(self.world.stored(name)).unwrap()
    }
}

/// Where a block stands; for the one behind the last, where the file ends.
fn place(block: usize) -> usize {
    (HEADER + block * STRIDE).min(HEADER + N_BLOCKS * STRIDE - BLOCK + LAST)
}

#[test]
fn every_byte_of_a_stored_file_is_guarded() {
    let stored = Stored::new();
    assert_eq!(stored.sound.len(), place(N_BLOCKS));
    const N_THREADS: usize = 4;
    let guard_one_in = |first: usize| {
        let name = format!("copy-{first}");
        let copy = stored.copy(&name);
        for at in (first..stored.sound.len()).step_by(N_THREADS) {
            let sound = stored.sound[at];
            copy.write_all_at(&[sound ^ (1 << (at % 8))], at as u64).unwrap();
            let found = stored.damaged(&name);
            match at.checked_sub(HEADER) {
                None => assert_eq!(found, None, "byte {at} of the header"),
                Some(offset) => {
                    let block = (offset / STRIDE) as u64;
                    assert_eq!(found, Some(vec![block]), "byte {at}");
                    if at % 97 == 0 {
                        stored.reads_up_to(&name, &[block]);
                    }
                }
            }
            copy.write_all_at(&[sound], at as u64).unwrap();
        }
        assert_eq!(stored.damaged(&name), Some(Vec::new()));
        stored.reads_up_to(&name, &[]);
    };
    thread::scope(|scope| {
        (0..N_THREADS).for_each(|first| drop(scope.spawn(move || guard_one_in(first))));
    });
}

#[test]
fn a_file_cut_at_every_length_is_found() {
    let stored = Stored::new();
    let copy = stored.copy("copy");
    for len in (0..stored.sound.len()).rev() {
        copy.set_len(len as u64).unwrap();
        let found = stored.damaged("copy");
        match len.checked_sub(HEADER) {
            None => assert_eq!(found, None, "cut to {len}"),
            Some(rest) => {
                let whole = rest / STRIDE;
                let gone: Vec<_> = (whole as u64..N_BLOCKS as u64).collect();
                assert_eq!(found, Some(gone), "cut to {len}");
            }
        }
    }
}

#[test]
fn any_two_blocks_exchanged_are_both_named() {
    let stored = Stored::new();
    for (one, other) in (0..N_BLOCKS - 1).flat_map(|one| (one + 1..N_BLOCKS).map(move |i| (one, i)))
    {
        let copy = stored.copy("copy");
        let len = place(other + 1) - place(other);
        let block = |block| &stored.sound[place(block)..place(block) + len];
        copy.write_all_at(block(one), place(other) as u64).unwrap();
        copy.write_all_at(block(other), place(one) as u64).unwrap();
        let both = [one as u64, other as u64];
        assert_eq!(stored.damaged("copy"), Some(both.to_vec()), "{one} and {other}");
        stored.reads_up_to("copy", &both);
    }
}

#[test]
fn a_block_copied_from_another_file_is_named() {
    let stored = Stored::new();
    // The same plaintext, the same key, the same place.
    stored.world.put_bytes(&stored.plain, "other", &["--block-size", "4KiB"]);
    let other = stored.world.read("server/other");
    for block in 0..N_BLOCKS {
        let copy = stored.copy("copy");
        let place = place(block)..place(block + 1);
        copy.write_all_at(&other[place.clone()], place.start as u64).unwrap();
        assert_eq!(stored.damaged("copy"), Some(vec![block as u64]));
        stored.reads_up_to("copy", &[block as u64]);
        for (from, to) in [(PREFIX, place.len()), (0, PREFIX), (0, 24), (24, 40)] {
            let copy = stored.copy("copy");
            let part = place.start + from..place.start + to;
            copy.write_all_at(&other[part.clone()], part.start as u64).unwrap();
            assert_eq!(stored.damaged("copy"), Some(vec![block as u64]), "{from}..{to}");
        }
    }
}

#[test]
fn a_block_erased_is_named() {
    let stored = Stored::new();
    for block in 0..N_BLOCKS {
        let copy = stored.copy("copy");
        copy.write_all_at(&[0; PREFIX], place(block) as u64).unwrap();
        assert_eq!(stored.damaged("copy"), Some(vec![block as u64]));
        stored.reads_up_to("copy", &[block as u64]);
    }
}

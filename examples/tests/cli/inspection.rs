//! What verify says of a cache's copy, and inspect of holes, short blocks and half-done cuts.

use std::fs;

use sealback::{
    crypto::{Header, HeaderChange, OpenOptions, RootKey},
    stream::{LocalOptions, LocalServer, Name, Server},
};

use crate::world::{HEADER, Outcome, PREFIX, World, bytes};

const BLOCK: usize = 4096;
const STRIDE: usize = PREFIX + BLOCK;
const VERIFY: [&str; 4] = ["verify", "file", "--cache", "cache"];

/// A file of `n_blocks` blocks on the server and in the cache, and where its copy is.
fn with_copy(n_blocks: usize) -> (World, String) {
    let world = World::new();
    world.write("source", &bytes(61, n_blocks * BLOCK));
    let with = ["--block-size", "4KiB", "--cache", "cache", "--json"];
    let json = world.put("source", "file", &with).succeeds().json();
    (world, json["cache_file"].as_str().unwrap().to_owned())
}

#[test]
fn verify_names_the_blocks_of_the_cache_that_differ() {
    let (world, copy) = with_copy(9);
    let said = world.on(&VERIFY).succeeds().stdout();
    let expected = "file: 9 blocks: 9 opened, 0 holes, 0 damaged\n\
                    file: the cache: 9 same, 0 absent, 0 differing\n";
    assert_eq!(said, expected);
    let mut damaged = world.read(&copy);
    for (block, offset) in [(2, PREFIX), (5, 0), (8, STRIDE - 1)] {
        damaged[HEADER + block * STRIDE + offset] ^= 1;
    }
    world.write(&copy, &damaged);
    let meaning = "file: the cache's copy differs in 3 of 9 blocks";
    let said = world.on(&VERIFY).fails(&[meaning]).stdout();
    let expected = "block 2: the cache's copy differs\n\
                    block 5: the cache's copy differs\n\
                    block 8: the cache's copy differs\n\
                    file: 9 blocks: 9 opened, 0 holes, 0 damaged\n\
                    file: the cache: 6 same, 0 absent, 3 differing\n";
    assert_eq!(said, expected);
    // It heals nothing and looks at nothing without being asked to.
    assert!(world.read(&copy) == damaged);
    world.verify("file").succeeds();
    // What the cache has is no damage on the server, and the other way round.
    let mut sound = world.read("server/file");
    sound[HEADER + STRIDE + 100] ^= 1;
    world.write("server/file", &sound);
    let meaning = "file: damaged: 1 of 9 blocks; the cache's copy differs in 4 of 9 blocks";
    let json = world.on(&[&VERIFY[..], &["--json"]].concat()).fails(&[meaning]).json();
    assert_eq!(json["damaged"][0]["block"], 1);
    let counts = ["n_blocks", "n_opened", "n_holes", "n_damaged"].map(|field| &json[field]);
    assert_eq!(counts, [9, 8, 0, 1]);
    assert_eq!(json["cache"]["differing"], serde_json::json!([1, 2, 5, 8]));
    let counts = ["n_same", "n_absent", "n_differing"].map(|field| &json["cache"][field]);
    assert_eq!(counts, [5, 0, 4]);
    assert_eq!(json["cache"]["in_use"], true);
}

#[test]
fn verify_says_that_a_cache_has_nothing_of_a_file() {
    let (world, _) = with_copy(3);
    let absent = "file: the cache: 0 same, 3 absent, 0 differing\n";
    let cache = |dir| world.on(&["verify", "file", "--cache", dir]).succeeds().stdout();
    assert!(cache("elsewhere").ends_with(absent));
    // A change that the cache was not told of leaves nothing of its copy.
    world.patch_bytes("file", b"x", 5, &[]);
    assert!(cache("cache").ends_with(absent));
    world.get("file", &["--cache", "cache"]).succeeds();
    assert!(cache("cache").ends_with("file: the cache: 3 same, 0 absent, 0 differing\n"));
    let json = world.on(&["verify", "file", "--json"]).succeeds().json();
    assert!(json["cache"].is_null(), "{json}");
}

#[test]
fn a_copy_that_cannot_be_used_is_said_not_to_be() {
    let (world, copy) = with_copy(3);
    fs::remove_file(world.path(&copy)).unwrap();
    fs::create_dir(world.path(&copy)).unwrap();
    let said = world.on(&VERIFY).succeeds().stdout();
    assert!(said.ends_with("file: the cache has no copy of this file in use\n"), "{said}");
    let json = world.on(&[&VERIFY[..], &["--json"]].concat()).succeeds().json();
    assert_eq!(json["cache"]["in_use"], false);
}

/// Commits a header beside the library, as a client that was cut off would have left it.
fn commit(world: &World, change: impl FnOnce(&Header) -> HeaderChange) {
    let server = LocalServer::open(world.path("server"), LocalOptions::default()).unwrap();
    let target = server.open(&Name::new("file").unwrap()).unwrap();
    let root = RootKey::parse(&world.read("key")).unwrap();
    let bytes = target.read_header().unwrap();
    let header = Header::open(&bytes, &root, &OpenOptions::default()).unwrap();
    let commit = header.commit(&change(&header)).unwrap();
    target.write_slot(&commit.write).unwrap();
}

fn inspect_text(world: &World) -> Outcome {
    world.on(&["inspect", "file"]).succeeds()
}

#[test]
fn inspect_lists_blocks_that_are_short() {
    let world = World::new();
    world.put_bytes(&bytes(62, BLOCK + 100), "file", &["--block-size", "4KiB"]);
    assert_eq!(world.inspect("file").succeeds().json()["short"], serde_json::json!([]));
    commit(&world, |header| HeaderChange {
        size: (3 * BLOCK) as u64,
        holes: 1..3,
        cuts: header.cuts(),
        cut_pending: false,
    });
    // The stored file reaches the end of the last block's prefix.
    let stored = fs::File::options().write(true).open(world.stored("file")).unwrap();
    stored.set_len((HEADER + 2 * STRIDE + PREFIX) as u64).unwrap();
    let json = world.inspect("file").succeeds().json();
    assert_eq!(json["short"], serde_json::json!([{ "block": 1, "len": 100 }]));
    assert_eq!((&json["n_holes"], &json["n_blocks"]), (&1.into(), &3.into()));
    let said = inspect_text(&world).stdout();
    for line in
        ["1 within blocks 1..3", "3, 0 damaged, 1 short", "block 1: 100 bytes stored, the rest of"]
    {
        assert!(said.contains(line), "{line:?} is missing in {said}");
    }
    let mut plain = bytes(62, BLOCK + 100);
    plain.resize(3 * BLOCK, 0);
    assert!(world.get_bytes("file", &[]) == plain);
}

#[test]
fn inspect_tells_of_a_cut_that_the_next_change_finishes() {
    for change in [
        &["truncate", "file", "9000"][..],
        &["punch", "file", "--offset", "0", "--length", "0"],
        &["patch", "file", "source", "--offset", "0"],
        &["rekey", "file", "--new-key", "key"],
    ] {
        let world = World::new();
        let plain = bytes(63, 5 * BLOCK);
        world.put_bytes(&plain, "file", &["--block-size", "4KiB"]);
        commit(&world, |header| HeaderChange {
            size: 9000,
            holes: header.holes(),
            cuts: header.cuts() + 1,
            cut_pending: true,
        });
        let json = world.inspect("file").succeeds().json();
        assert_eq!((&json["cut_pending"], &json["bytes"]), (&true.into(), &9000.into()));
        let said = inspect_text(&world).stdout();
        assert!(said.contains("1, the last not finished"), "{said}");
        assert!(world.get_bytes("file", &[]) == plain[..9000]);
        world.write("source", &plain[..5]);
        world.on(change).succeeds();
        let json = world.inspect("file").succeeds().json();
        assert_eq!((&json["cut_pending"], &json["cuts"]), (&false.into(), &1.into()), "{change:?}");
        assert_eq!(world.read("server/file").len(), HEADER + 3 * PREFIX + 9000, "{change:?}");
        assert!(world.get_bytes("file", &[]) == plain[..9000], "{change:?}");
    }
}

#[test]
fn the_json_of_a_change_tells_what_the_file_is_now() {
    let (world, _) = with_copy(5);
    let json = world.on(&["truncate", "file", "9000", "--json"]).succeeds().json();
    let fields = ["bytes_before", "bytes", "cuts"].map(|field| &json[field]);
    assert_eq!(fields, [5 * BLOCK, 9000, 1]);
    assert_eq!((&json["name"], json["file_id"].as_str().unwrap().len()), (&"file".into(), 64));
    let punch = ["punch", "file", "--offset", "1", "--length", "8192", "--json"];
    let json = world.on(&punch).succeeds().json();
    assert_eq!(json["hole_range"], serde_json::json!({ "from": 1, "to": 2 }));
    assert_eq!(json["generation"], world.inspect("file").json()["generation"]);
    world.write("source", &bytes(1, 10_000));
    let patch = ["patch", "file", "source", "--offset", "10000", "--cache", "cache", "--json"];
    let json = world.on(&patch).succeeds().json();
    let fields = ["bytes", "offset", "file_bytes", "block_bytes"].map(|field| &json[field]);
    assert_eq!(fields, [10_000, 10_000, 20_000, BLOCK]);
    assert!(json["cache_file"].is_string() && json["streams"]["cache"]["bytes"].is_u64(), "{json}");
}

#[test]
fn changes_are_told_in_plain_words() {
    let (world, _) = with_copy(5);
    let says = |args: &[&str], expected: &str| {
        let said = world.on(args).succeeds().stdout();
        assert!(said.contains(expected), "{args:?}: {said}");
    };
    says(&["truncate", "file", "9000"], "file: 9000 bytes, 20480 before\n");
    says(&["punch", "file", "--offset", "8KiB", "--length", "1MiB"], "zeros from 8192 to 9000\n");
    let behind = ["punch", "file", "--offset", "16KiB", "--length", "1MiB"];
    says(&behind, "file: nothing to punch, 9000 bytes\n");
    world.write("source", b"12345");
    let patch = ["patch", "file", "source", "--offset", "9KiB"];
    says(&patch, "  at 9216; the file has 9221 bytes (9.0 KiB)\n");
    says(&patch, "file: 5 bytes (5 B) in ");
}

//! A file that got another root key opens with that, and with no other.

use std::fs;

use crate::world::{HEADER, World, bytes};

fn with_two_keys(size: usize) -> (World, Vec<u8>) {
    let world = World::new();
    let plain = bytes(41, size);
    world.put_bytes(&plain, "file", &["--cache", "cache"]);
    world.run(&["keygen", "other"]).succeeds();
    (world, plain)
}

#[test]
fn a_file_with_another_key_opens_with_that_alone() {
    for size in [0, 1, 100_000] {
        let (world, plain) = with_two_keys(size);
        let before = world.read("server/file");
        let said = world.on(&["rekey", "file", "--new-key", "other"]).succeeds().stdout();
        assert_eq!(said, "file: opens with other\n");
        world.get("file", &[]).fails(&["another root key"]);
        world.get("file", &["--cache", "cache"]).fails(&["another root key"]);
        let after = world.read("server/file");
        assert!(after[HEADER..] == before[HEADER..], "a block was touched");
        // Neither slot keeps a wrap under the old key.
        for slot in [512, 4608] {
            assert_ne!(after[slot + 24..slot + 112], before[slot + 24..slot + 112]);
        }
        fs::rename(world.path("other"), world.path("key")).unwrap();
        assert!(world.get_bytes("file", &[]) == plain);
        assert!(world.get_bytes("file", &["--cache", "cache"]) == plain);
        world.patch_bytes("file", b"still written to", 7, &[]);
        world.verify("file").succeeds();
    }
}

#[test]
fn the_caches_copy_stays_when_it_is_told_and_is_emptied_when_not() {
    let (world, plain) = with_two_keys(100_000);
    let to_other = ["rekey", "file", "--new-key", "other", "--cache", "cache"];
    world.on(&to_other).succeeds();
    fs::copy(world.path("key"), world.path("first")).unwrap();
    fs::copy(world.path("other"), world.path("key")).unwrap();
    let verify = ["verify", "file", "--cache", "cache"];
    let said = world.on(&verify).succeeds().stdout();
    assert!(said.ends_with("file: the cache: 7 same, 0 absent, 0 differing\n"), "{said}");
    world.on(&["rekey", "file", "--new-key", "first"]).succeeds();
    fs::copy(world.path("first"), world.path("key")).unwrap();
    let said = world.on(&verify).succeeds().stdout();
    assert!(said.ends_with("file: the cache: 0 same, 7 absent, 0 differing\n"), "{said}");
    assert!(world.get_bytes("file", &["--cache", "cache"]) == plain);
}

#[test]
fn the_same_key_is_wrapped_anew() {
    let (world, plain) = with_two_keys(5000);
    let before = world.read("server/file");
    for _ in 0..3 {
        world.on(&["rekey", "file", "--new-key", "key"]).succeeds();
    }
    assert_ne!(world.read("server/file")[..HEADER], before[..HEADER]);
    assert!(world.get_bytes("file", &[]) == plain);
}

#[test]
fn a_new_key_that_is_none_leaves_the_file() {
    let (world, plain) = with_two_keys(5000);
    let before = world.read("server/file");
    world.write("other", b"no key");
    world.on(&["rekey", "file", "--new-key", "other"]).fails(&["the key file other: "]);
    world.on(&["rekey", "file", "--new-key", "nothing"]).fails(&["the key file nothing: "]);
    assert!(world.read("server/file") == before);
    assert!(world.get_bytes("file", &[]) == plain);
}

//! What is put comes back.

use std::fs;

use crate::world::{HEADER, PREFIX, World, bytes};

const MIB: usize = 1 << 20;

#[test]
fn every_size_around_a_block_comes_back_for_every_block_size() {
    let world = World::new();
    for block_size in ["4KiB", "16KiB", "65536", "256KiB", "1MiB"] {
        let block = usize::try_from(sealback_examples::parse_size(block_size).unwrap()).unwrap();
        for size in [0, 1, block - 1, block, block + 1, 2 * block + 7] {
            let plain = bytes(size as u64, size);
            world.put_bytes(&plain, "file", &["--block-size", block_size]);
            assert!(world.get_bytes("file", &[]) == plain, "{size} in {block_size}");
            let stored = fs::read(world.stored("file")).unwrap();
            let n_blocks = size.div_ceil(block);
            assert_eq!(stored.len(), HEADER + n_blocks * PREFIX + size, "{size} in {block_size}");
            world.holds_only(&["file"]);
        }
    }
}

#[test]
fn several_mib_come_back_with_little_memory_any_engine_and_one_thread() {
    let world = World::new();
    let plain = bytes(1, 19 * MIB + 12345);
    let aws = if cfg!(feature = "aws-lc") { "aws-lc" } else { "auto" };
    for engine in ["aes-gcm", aws] {
        let with = ["--engine", engine, "--memory", "8MiB", "--threads", "1"];
        world.put_bytes(&plain, "file", &with);
        assert!(world.get_bytes("file", &with) == plain, "{engine}");
        assert!(world.get_bytes("file", &[]) == plain, "{engine}, opened by the fastest");
    }
}

#[test]
fn the_caches_copy_is_the_servers_file() {
    let world = World::new();
    for (size, block_size) in [(0, "16KiB"), (1, "4KiB"), (5 * MIB + 3, "16KiB"), (3 * MIB, "1MiB")]
    {
        world.write("source", &bytes(7, size));
        let args = ["--cache", "new/cache", "--block-size", block_size, "--json"];
        let json = world.put("source", "file", &args).succeeds().json();
        let copy = fs::read(world.path(json["cache_file"].as_str().unwrap())).unwrap();
        assert!(copy == fs::read(world.stored("file")).unwrap(), "{size} in {block_size}");
    }
}

#[test]
fn what_the_cache_has_is_read_from_the_cache() {
    let world = World::new();
    let plain = bytes(8, 3 * MIB);
    world.put_bytes(&plain, "file", &["--cache", "cache"]);
    let mut stored = fs::read(world.stored("file")).unwrap();
    stored[HEADER..].fill(0x55);
    fs::write(world.stored("file"), &stored).unwrap();
    assert!(world.get_bytes("file", &["--cache", "cache"]) == plain);
    fs::remove_file(world.path("out")).unwrap();
    world.get("file", &[]).fails(&["block 0"]);
}

#[test]
fn a_damaged_cache_costs_nothing_but_speed() {
    let world = World::new();
    let plain = bytes(9, 2 * MIB + 1);
    world.write("source", &plain);
    let json = world.put("source", "file", &["--cache", "cache", "--json"]).succeeds().json();
    let copy = world.path(json["cache_file"].as_str().unwrap());
    let mut damaged = fs::read(&copy).unwrap();
    for at in (HEADER..damaged.len()).step_by(300_000) {
        damaged[at] ^= 1;
    }
    fs::write(&copy, &damaged).unwrap();
    assert!(world.get_bytes("file", &["--cache", "cache"]) == plain);
    fs::write(&copy, b"").unwrap();
    assert!(world.get_bytes("file", &["--cache", "cache"]) == plain);
}

#[test]
fn standard_input_is_a_source_of_any_length() {
    let world = World::new();
    let args = ["put", "-", "--server", "server", "--key", "key", "--name", "piped"];
    for size in [0, 1, 16384, 100_000, 5 * MIB + 11] {
        let plain = bytes(3, size);
        world.run_with(&args, &plain).succeeds();
        assert!(world.get_bytes("piped", &[]) == plain, "{size}");
    }
}

#[test]
fn a_file_is_called_what_its_source_is_called() {
    let world = World::new();
    fs::create_dir(world.path("some")).unwrap();
    world.write("some/letter.txt", b"dear reader");
    let args = ["put", "some/letter.txt", "--server", "server", "--key", "key"];
    let said = world.run(&args).succeeds().stdout();
    assert!(said.contains("letter.txt") && said.contains("11 bytes"), "{said}");
    assert_eq!(world.get_bytes("letter.txt", &[]), b"dear reader");
}

#[test]
fn standard_output_gets_the_data_and_nothing_else() {
    let world = World::new();
    let plain = bytes(4, 5 * MIB);
    world.put_bytes(&plain, "file", &[]);
    let args = ["get", "file", "--server", "server", "--key", "key", "--out", "-"];
    assert!(world.run(&args).succeeds().stdout == plain);
}

#[test]
fn a_file_is_replaced_by_the_next_of_its_name() {
    let world = World::new();
    for (seed, size) in [(1, 3 * MIB), (2, 100), (3, 5 * MIB), (4, 0)] {
        let plain = bytes(seed, size);
        world.put_bytes(&plain, "file", &["--cache", "cache"]);
        assert!(world.get_bytes("file", &[]) == plain);
        assert!(world.get_bytes("file", &["--cache", "cache"]) == plain);
        world.holds_only(&["file"]);
    }
}

#[test]
fn an_existing_output_is_replaced_through_a_link_and_by_a_whole_file_only() {
    let world = World::new();
    let plain = bytes(5, 70_000);
    world.put_bytes(&plain, "file", &[]);
    world.write("target", b"earlier, and longer than nothing");
    std::os::unix::fs::symlink("target", world.path("out")).unwrap();
    world.get("file", &[]).succeeds();
    assert!(world.path("out").is_symlink());
    assert_eq!(world.read("target"), plain);
}

#[test]
fn an_output_that_is_no_regular_file_is_written_to_and_stays() {
    let world = World::new();
    world.put_bytes(b"to be thrown away", "file", &[]);
    let args = ["get", "file", "--server", "server", "--key", "key", "--out", "/dev/null"];
    world.run(&args).succeeds();
    assert!(!fs::metadata("/dev/null").unwrap().is_file());
}

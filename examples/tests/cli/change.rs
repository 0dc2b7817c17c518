//! Patching, truncating and punching do to a file what they would do to a vector of bytes.

use std::{fs, ops::Range};

use crate::world::{World, bytes};

const BLOCK: usize = 4096;
/// Positions and lengths at every edge of a block.
const EDGES: [usize; 5] = [0, 1, BLOCK - 1, BLOCK, BLOCK + 1];

/// A file on the server and in the cache, and what it should hold.
struct Modelled {
    world: World,
    model: Vec<u8>,
}

impl Modelled {
    fn new(size: usize) -> Modelled {
        let world = World::new();
        let model = bytes(size as u64, size);
        world.put_bytes(&model, "file", &["--block-size", "4KiB", "--cache", "cache"]);
        Modelled { world, model }
    }

    fn patch(&mut self, offset: usize, data: &[u8]) {
        if !data.is_empty() {
            let end = offset + data.len();
            self.model.resize(self.model.len().max(end), 0);
            self.model[offset..end].copy_from_slice(data);
        }
        self.world.patch_bytes("file", data, offset, &["--cache", "cache"]);
    }

    fn truncate(&mut self, size: usize) {
        self.model.resize(size, 0);
        let text = size.to_string();
        self.world.on(&["truncate", "file", &text, "--cache", "cache"]).succeeds();
    }

    fn punch(&mut self, positions: Range<usize>) {
        let len = self.model.len();
        self.model[positions.start.min(len)..positions.end.min(len)].fill(0);
        let offset = positions.start.to_string();
        let length = positions.len().to_string();
        let args = ["punch", "file", "--offset", &offset, "--length", &length];
        self.world.on(&[&args[..], &["--cache", "cache"]].concat()).succeeds();
    }

    /// Asserts that the server, and the server with the cache, hand out what the model holds.
    fn check(&self, what: &str) {
        assert!(self.world.get_bytes("file", &[]) == self.model, "{what}");
        let said = self.world.on(&["verify", "file", "--cache", "cache"]).succeeds().stdout();
        assert!(said.contains(", 0 damaged\n") && said.contains(", 0 differing\n"), "{said}");
        assert!(self.world.get_bytes("file", &["--cache", "cache"]) == self.model, "{what}");
    }
}

/// Runs `change` on a fresh copy of a file of each size at the edges of a block.
fn on_every_size(change: impl Fn(&mut Modelled, usize)) {
    for size in EDGES {
        let mut file = Modelled::new(size);
        let (stored, model) = (fs::read(file.world.stored("file")).unwrap(), file.model.clone());
        for at in EDGES.into_iter().chain([2 * BLOCK, 3 * BLOCK + 1]) {
            change(&mut file, at);
            fs::write(file.world.stored("file"), &stored).unwrap();
            file.model.clone_from(&model);
        }
    }
}

#[test]
fn a_patch_at_every_edge_is_what_it_is_on_bytes() {
    on_every_size(|file, offset| {
        let size = file.model.len();
        for (seed, len) in EDGES.into_iter().enumerate() {
            file.patch(offset, &bytes(100 + seed as u64, len));
            let got = file.world.get_bytes("file", &[]);
            assert!(got == file.model, "{len} bytes at {offset} of at first {size}");
        }
        file.check(&format!("patches at {offset} of at first {size}"));
    });
}

#[test]
fn truncating_to_every_edge_is_what_it_is_on_bytes() {
    on_every_size(|file, to| {
        let size = file.model.len();
        file.truncate(to);
        file.check(&format!("{size} truncated to {to}"));
        // What was cut off does not come back.
        file.truncate(2 * BLOCK + 5);
        file.check(&format!("{size} truncated to {to} and grown"));
    });
}

#[test]
fn a_punch_at_every_edge_is_what_it_is_on_bytes() {
    on_every_size(|file, offset| {
        let size = file.model.len();
        for len in EDGES {
            file.punch(offset..offset + len);
            let got = file.world.get_bytes("file", &[]);
            assert!(got == file.model, "{len} bytes at {offset} of {size}");
        }
        file.check(&format!("punches at {offset} of {size}"));
    });
}

#[test]
fn one_change_after_another_is_what_it_is_on_bytes() {
    let mut file = Modelled::new(3 * BLOCK + 100);
    let seed = 0x5ea1_bac4;
    let numbers: Vec<_> = bytes(seed, 2 * 120)
        .chunks_exact(2)
        .map(|chunk| usize::from(u16::from_le_bytes(chunk.try_into().unwrap())))
        .collect();
    for (step, numbers) in numbers.chunks_exact(3).enumerate() {
        let edge = |number: usize| {
            (number % 8 * BLOCK + [0, 1, BLOCK - 1, number / 8 % BLOCK][number / 64 % 4])
                .min(7 * BLOCK)
        };
        let (at, len) = (edge(numbers[1]), edge(numbers[2]) / 2);
        match numbers[0] % 4 {
            0 => file.truncate(at),
            1 => file.punch(at..at + len),
            _ => file.patch(at, &bytes(step as u64, len)),
        }
        file.check(&format!("seed {seed}, step {step}: {} at {at} for {len}", numbers[0] % 4));
    }
    file.world.holds_only(&["file"]);
}

#[test]
fn what_changes_nothing_leaves_every_stored_byte() {
    for size in [0, 1, BLOCK, 2 * BLOCK + 7] {
        let mut file = Modelled::new(size);
        let stored = fs::read(file.world.stored("file")).unwrap();
        file.patch(0, b"");
        file.patch(size, b"");
        file.patch(size + 3 * BLOCK, b"");
        file.truncate(size);
        file.punch(0..0);
        file.punch(size..size + 1);
        file.punch(size + BLOCK..size + 100 * BLOCK);
        let all = 1 << 60;
        file.punch(all..2 * all);
        assert!(fs::read(file.world.stored("file")).unwrap() == stored, "{size}");
        file.check(&format!("{size}"));
    }
}

#[test]
fn a_patch_of_many_mib_with_little_memory_goes_through() {
    let world = World::new();
    let mut model = bytes(1, 3 << 20);
    world.put_bytes(&model, "file", &[]);
    let (data, at) = (bytes(2, 20 << 20), (1 << 20) + 5);
    model.resize(at + data.len(), 0);
    model[at..].copy_from_slice(&data);
    let little = ["--memory", "8MiB", "--threads", "1", "--engine", "aes-gcm"];
    world.patch_bytes("file", &data, at, &little);
    assert!(world.get_bytes("file", &[]) == model);
}

#[test]
fn a_gap_takes_no_room_and_reads_as_zeros() {
    let world = World::new();
    world.put_bytes(b"begin", "file", &["--cache", "cache"]);
    let at = 48 << 20;
    world.patch_bytes("file", b"end", at, &["--cache", "cache"]);
    let mut model = vec![0; at + 3];
    model[..5].copy_from_slice(b"begin");
    model[at..].copy_from_slice(b"end");
    assert!(world.get_bytes("file", &["--cache", "cache"]) == model);
    let json = world.inspect("file").succeeds().json();
    assert_eq!(json["bytes"], at + 3);
    // The new last block is sealed, the old one stays as short as it was, all between are holes.
    assert_eq!(json["n_holes"], at / 16384 - 1);
    assert_eq!(json["hole_range"]["from"], 0);
    assert_eq!(json["hole_range"]["to"], at / 16384);
    use std::os::unix::fs::MetadataExt;
    let blocks = fs::metadata(world.stored("file")).unwrap().blocks();
    assert!(blocks * 512 < 1 << 20, "{blocks} blocks of 512 bytes");
}

#[test]
fn standard_input_is_a_patch_of_any_length() {
    let world = World::new();
    let mut model = bytes(1, 50_000);
    world.put_bytes(&model, "file", &[]);
    for (at, len) in [(100, 0), (100, 1), (16384, 16384), (40_000, 3 << 20)] {
        let data = bytes(at as u64, len);
        let offset = at.to_string();
        world.on_with(&["patch", "file", "-", "--offset", &offset], &data).succeeds();
        model.resize(model.len().max(at + len), 0);
        model[at..at + len].copy_from_slice(&data);
        assert!(world.get_bytes("file", &[]) == model, "{len} at {at}");
    }
}

#[test]
fn patches_by_two_programs_at_once_both_go_through() {
    let world = World::new();
    let half = 4 << 20;
    world.put_bytes(&vec![0; 2 * half], "file", &[]);
    world.write("left", &bytes(1, half));
    world.write("right", &bytes(2, half));
    let start = |source: &str, offset: &str| {
        let args = ["patch", "file", source, "--offset", offset];
        let mut command = world.command(&[&args[..], &crate::world::AT].concat());
        command.stdout(std::process::Stdio::null()).spawn().unwrap()
    };
    let both = [start("left", "0"), start("right", &half.to_string())];
    for mut child in both {
        assert!(child.wait().unwrap().success());
    }
    assert!(world.get_bytes("file", &[]) == [bytes(1, half), bytes(2, half)].concat());
}

#[test]
fn a_cache_stays_within_the_size_that_is_given() {
    let world = World::new();
    let limit = ["--cache", "cache", "--cache-size", "1MiB"];
    for name in ["first", "second", "third"] {
        world.put_bytes(&bytes(50, 600_000), name, &limit);
    }
    let copies = fs::read_dir(world.path("cache")).unwrap();
    let kept: u64 = copies.map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
    assert!(kept < 1 << 20, "{kept} bytes");
    for name in ["first", "second", "third"] {
        assert!(world.get_bytes(name, &limit) == bytes(50, 600_000));
    }
    world.on(&["get", "first", "--cache-size", "1MiB", "--out", "x"]).misuses("--cache <DIR>");
}

//! Whatever somebody does to the stored bytes is an error that names the place, and never data.

use std::fs;

use crate::world::{HEADER, Outcome, PREFIX, World, bytes};

const BLOCK: usize = 4096;
const STRIDE: usize = PREFIX + BLOCK;

/// A stored file of blocks of 4 KiB, and the world that it is in.
struct Stored {
    world: World,
    sound: Vec<u8>,
}

impl Stored {
    fn new(size: usize) -> Stored {
        let world = World::new();
        world.put_bytes(&bytes(11, size), "file", &["--block-size", "4KiB"]);
        let sound = fs::read(world.stored("file")).unwrap();
        Stored { world, sound }
    }

    /// Puts these bytes in the stored file's place and asserts that nothing is got.
    fn refuses(&self, stored: &[u8], meanings: &[&str]) -> Outcome {
        fs::write(self.world.stored("file"), stored).unwrap();
        let outcome = self.world.get("file", &[]).fails(meanings);
        assert!(!self.world.path("out").exists());
        self.world.holds_only(&["file"]);
        outcome
    }

    /// As `refuses`, for every byte at `places` changed, one at a time.
    fn refuses_changes(&self, places: impl IntoIterator<Item = usize>, meanings: &[&str]) {
        for at in places {
            let mut changed = self.sound.clone();
            changed[at] ^= 0x40;
            self.refuses(&changed, meanings);
        }
    }
}

/// Where block `block` stands.
fn place(block: usize) -> usize {
    HEADER + block * STRIDE
}

#[test]
fn any_byte_of_a_block_changed_is_found_and_the_block_named() {
    let stored = Stored::new(5 * BLOCK + 100);
    for block in [0, 2, 5] {
        let end = stored.sound.len().min(place(block + 1));
        let prefix = (0..PREFIX).map(|offset| place(block) + offset);
        let places =
            prefix.step_by(7).chain([place(block) + PREFIX, (place(block) + end) / 2, end - 1]);
        stored.refuses_changes(places, &[&format!("block {block}:")]);
    }
}

#[test]
fn verify_names_every_damaged_block_and_inspect_lists_it() {
    let Stored { world, mut sound } = Stored::new(9 * BLOCK);
    for block in [1, 2, 7] {
        sound[place(block) + PREFIX + 5] ^= 1;
    }
    fs::write(world.stored("file"), &sound).unwrap();
    let said = world.verify("file").fails(&["damaged: 3 of 9 blocks"]).stdout();
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines.len(), 4, "{said}");
    for (line, block) in lines.iter().zip([1, 2, 7]) {
        assert!(line.starts_with(&format!("block {block}: altered or torn")), "{line}");
    }
    assert_eq!(lines[3], "file: 9 blocks: 6 opened, 0 holes, 3 damaged");
    let json = world.inspect("file").fails(&["damaged: 3 of 9 blocks"]).json();
    let damaged = json["damaged"].as_array().unwrap();
    assert_eq!(damaged.iter().map(|one| &one["block"]).collect::<Vec<_>>(), [1, 2, 7]);
}

#[test]
fn blocks_that_were_exchanged_are_found() {
    let stored = Stored::new(6 * BLOCK);
    let mut exchanged = stored.sound.clone();
    let (first, second) = exchanged.split_at_mut(place(4));
    first[place(1)..place(2)].swap_with_slice(&mut second[..STRIDE]);
    stored.refuses(&exchanged, &["block 1:"]);
    let said = stored.world.verify("file").fails(&["2 of 6 blocks"]).stdout();
    assert!(said.contains("block 1:") && said.contains("block 4:"), "{said}");
}

#[test]
fn a_block_of_another_file_is_found() {
    let stored = Stored::new(6 * BLOCK);
    stored.world.put_bytes(&bytes(11, 6 * BLOCK), "other", &["--block-size", "4KiB"]);
    let other = fs::read(stored.world.stored("other")).unwrap();
    fs::remove_file(stored.world.stored("other")).unwrap();
    let mut mixed = stored.sound.clone();
    mixed[place(3)..place(4)].copy_from_slice(&other[place(3)..place(4)]);
    stored.refuses(&mixed, &["block 3:"]);
    // All blocks of the other file behind this one's header, and the other way round.
    let grafted = [&stored.sound[..HEADER], &other[HEADER..]].concat();
    stored.refuses(&grafted, &["block 0:"]);
    let grafted = [&other[..HEADER], &stored.sound[HEADER..]].concat();
    stored.refuses(&grafted, &["block 0:"]);
}

#[test]
fn a_block_that_is_gone_is_found() {
    let stored = Stored::new(6 * BLOCK);
    for block in [0, 3, 5] {
        let mut gone = stored.sound.clone();
        gone[place(block)..place(block + 1)].fill(0);
        stored.refuses(&gone, &[&format!("block {block}:")]);
    }
}

#[test]
fn a_file_cut_at_any_length_is_found() {
    let stored = Stored::new(3 * BLOCK + 77);
    let len = stored.sound.len();
    for at in [0, 1, 47, 63, 64, 511, 512, 1023, 4096, 5119, HEADER - 1] {
        stored.refuses(&stored.sound[..at], &["cut short"]);
    }
    let inside = [1, PREFIX - 1, PREFIX, PREFIX + 1, BLOCK, STRIDE - 1, STRIDE];
    let lengths = (0..3).flat_map(|block| inside.map(|offset| place(block) + offset));
    for at in lengths.chain([HEADER, place(3) + 1, len - 77, len - 1]) {
        stored.refuses(&stored.sound[..at], &["cut short", "missing"]);
        stored.world.verify("file").fails(&["damaged"]);
    }
}

#[test]
fn every_region_of_the_header_is_guarded() {
    let stored = Stored::new(2 * BLOCK);
    let all = &["header"];
    // The prologue and its copy: magic, version, suite, shift, zeros, file id, chunks, zeros.
    for at in [0, 7, 8, 10, 12, 13, 16, 47, 48, 52, 63] {
        stored.refuses_changes([at, 4096 + at], all);
    }
    // Padding behind each.
    stored.refuses_changes([64, 300, 511, 1024, 4095, 4160, 4607, 5120, 8191], all);
    // Each slot: generation, size, flags, key id, wrap, tag, cuts, holes, zeros, MAC.
    for at in [0, 7, 8, 15, 16, 24, 39, 40, 64, 95, 96, 112, 120, 128, 136, 479, 480, 511] {
        stored.refuses_changes([512 + at, 4608 + at], all);
    }
}

#[test]
fn a_header_with_both_slots_damaged_or_erased_is_refused() {
    let stored = Stored::new(2 * BLOCK);
    let mut damaged = stored.sound.clone();
    damaged[600] ^= 1;
    damaged[4700] ^= 1;
    stored.refuses(&damaged, &["header"]);
    let both = [512..1024, 4608..5120];
    for erased in [&both[1..], &both] {
        let mut damaged = stored.sound.clone();
        erased.iter().for_each(|slot| damaged[slot.clone()].fill(0));
        stored.refuses(&damaged, &["header"]);
    }
    let mut damaged = stored.sound.clone();
    damaged[..HEADER].fill(0);
    stored.refuses(&damaged, &["no sealed file"]);
}

#[test]
fn a_slot_erased_from_a_file_that_was_put_is_refused() {
    let stored = Stored::new(2 * BLOCK);
    for slot in [512..1024, 4608..5120] {
        let mut damaged = stored.sound.clone();
        damaged[slot].fill(0);
        stored.refuses(&damaged, &["header"]);
    }
}

#[test]
fn what_was_never_sealed_is_called_no_sealed_file() {
    let stored = Stored::new(10);
    stored.refuses(&bytes(5, 100_000), &["no sealed file"]);
    stored.refuses("just text\n".repeat(1000).as_bytes(), &["no sealed file"]);
    stored.refuses(b"", &["cut short: 0 of 8192 bytes"]);
    stored.refuses(b"short", &["cut short: 5 of 8192 bytes"]);
}

#[test]
fn a_failed_get_leaves_an_earlier_output_alone() {
    let stored = Stored::new(20 << 20);
    stored.world.write("out", b"earlier");
    let mut changed = stored.sound.clone();
    *changed.last_mut().unwrap() ^= 1;
    fs::write(stored.world.stored("file"), &changed).unwrap();
    stored.world.get("file", &[]).fails(&["block 5119: altered"]);
    assert_eq!(stored.world.read("out"), b"earlier");
    let names = crate::world::names_in(&stored.world.path(""));
    assert_eq!(names, ["cache", "key", "out", "server", "source"]);
}

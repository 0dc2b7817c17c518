//! Two processes change one file at once.

use std::{fs, thread};

use crate::world::World;

fn patch(world: &World, bytes: &[u8], offset: usize, with: &[&str]) {
    let offset = offset.to_string();
    let args = [&["patch", "file", "-", "--offset", &offset], with].concat();
    world.on_with(&args, bytes).succeeds();
}

#[test]
fn two_processes_that_patch_different_bytes_of_the_same_blocks_lose_nothing_of_each_other() {
    let places = [0, 4096, 19_998];
    for caches in [["", ""], ["cache", "other"], ["cache", "cache"]] {
        let world = World::new();
        fs::create_dir(world.path("other")).unwrap();
        world.put_bytes(&[0; 20_000], "file", &["--block-size", "4KiB"]);
        thread::scope(|scope| {
            for (client, cache) in caches.into_iter().enumerate() {
                let world = &world;
                scope.spawn(move || {
                    let with: &[&str] = if cache.is_empty() { &[] } else { &["--cache", cache] };
                    for round in 1..=25 {
                        for place in places {
                            patch(world, &[round], place + client, with);
                        }
                    }
                });
            }
        });
        world.verify("file").succeeds();
        let got = world.get_bytes("file", &[]);
        for place in places {
            assert_eq!(got[place..place + 2], [25, 25], "{caches:?}, at {place}");
        }
        assert_eq!(got.iter().filter(|byte| **byte != 0).count(), 6);
    }
}

#[test]
fn a_patch_behind_the_end_and_a_truncation_at_once_leave_both() {
    for round in 0..15 {
        let world = World::new();
        world.put_bytes(&[1; 300_000], "file", &["--block-size", "4KiB"]);
        let data = vec![2; 70_001];
        thread::scope(|scope| {
            scope.spawn(|| patch(&world, &data, 350_000, &[]));
            scope.spawn(|| world.on(&["truncate", "file", "500000"]).succeeds());
        });
        let got = world.get_bytes("file", &[]);
        assert_eq!(got.len(), 500_000, "round {round}");
        assert!(got[..300_000].iter().all(|byte| *byte == 1));
        assert!(got[300_000..350_000].iter().all(|byte| *byte == 0));
        assert!(got[350_000..420_001].iter().all(|byte| *byte == 2), "round {round}");
        assert!(got[420_001..].iter().all(|byte| *byte == 0));
    }
}

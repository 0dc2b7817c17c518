//! Two processes change one file at once.

use std::{env, fs, thread};

use crate::world::World;

fn patch(world: &World, bytes: &[u8], offset: usize, with: &[&str]) {
    let offset = offset.to_string();
    let args = [&["patch", "file", "-", "--offset", &offset], with].concat();
    world.on_with(&args, bytes).succeeds();
}

/// How often each process patches each place: `SEALBACK_ROUNDS`, if it is set.
fn rounds() -> usize {
    env::var("SEALBACK_ROUNDS").map_or(25, |value| value.parse().expect("a number"))
}

#[test]
fn two_processes_that_patch_different_bytes_of_the_same_blocks_lose_nothing_of_each_other() {
    const LEN: usize = 20_000;
    let n_rounds = rounds();
    // What the two write is interleaved: at the start, across a border of blocks, and up to the end.
    let places = [0, 12_288 - n_rounds, LEN - 2 * n_rounds];
    for caches in [["", ""], ["cache", "other"], ["cache", "cache"]] {
        let world = World::new();
        fs::create_dir(world.path("other")).unwrap();
        world.put_bytes(&[0; LEN], "file", &["--block-size", "4KiB"]);
        thread::scope(|scope| {
            for (client, cache) in [1, 2].into_iter().zip(caches) {
                let world = &world;
                scope.spawn(move || {
                    let with: &[&str] = if cache.is_empty() { &[] } else { &["--cache", cache] };
                    for round in 0..n_rounds {
                        for place in places {
                            let offset = place + 2 * round + usize::from(client) - 1;
                            patch(world, &[client], offset, with);
                        }
                    }
                });
            }
        });
        world.verify("file").succeeds();
        let got = world.get_bytes("file", &[]);
        let mut expected = vec![0; LEN];
        for place in places {
            expected[place..place + 2 * n_rounds].copy_from_slice(&[1, 2].repeat(n_rounds));
        }
        let lost = (0..LEN).find(|at| got[*at] != expected[*at]);
        assert!(lost.is_none() && got.len() == LEN, "{caches:?}, at {lost:?}");
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

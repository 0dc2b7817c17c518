//! Directories with a limit: who goes, who stays, and that nothing is claimed that is gone.

use std::{
    collections::BTreeMap,
    env, fs,
    ops::Range,
    os::unix::fs::symlink,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, SystemTime},
};

use sealback_crypto::{Buffer, Geometry, NewHeader, Sealed};
use tempfile::TempDir;

use super::{processes::write, sample};
use crate::{
    Cache, CacheFile, Durability, Expected, LocalCache, LocalOptions, MemoryCache, MemoryOptions,
    conformance,
};

pub(super) fn seal(new: &NewHeader, blocks: Range<u64>) -> Sealed {
    let geometry = new.header.geometry();
    let n_bytes = geometry.block_start(blocks.end - blocks.start);
    let plain = vec![7; usize::try_from(n_bytes).unwrap()];
    let buffer = Buffer::unpooled(usize::try_from(geometry.span_bytes(n_bytes)).unwrap());
    new.header.content_key().seal(blocks.start, 2, &[&plain], buffer).unwrap()
}

fn keep(copy: &dyn CacheFile, sealed: &Sealed) {
    copy.forget(sealed.blocks()).unwrap();
    write(copy, sealed, Expected::Absent).unwrap();
    copy.confirm(sealed).unwrap();
}

fn open(cache: &dyn Cache, new: &NewHeader) -> Arc<dyn CacheFile> {
    cache.open(new.header.file_id(), new.header.geometry()).unwrap()
}

fn unlimited(dir: &TempDir) -> LocalCache {
    LocalCache::open(dir.path(), LocalOptions::default()).unwrap()
}

fn n_present(copy: &dyn CacheFile, blocks: Range<u64>) -> usize {
    copy.present(blocks).iter().flatten().count()
}

/// Blocks of several sizes, as a file's copy has them that is written through a small cache.
#[test]
fn a_directory_is_within_its_limit_after_every_write_whatever_the_block_size() {
    for (block_bytes, limit, durability) in [
        (4096, 1 << 20, Durability::Process),
        (4096, 100_000, Durability::PowerCut),
        (1 << 14, 1 << 20, Durability::Process),
        (1 << 20, 8 << 20, Durability::Process),
        (1 << 16, 0, Durability::Process),
    ] {
        let dir = TempDir::new().unwrap();
        let options = LocalOptions::default().with_durability(durability);
        let cache = LocalCache::open(dir.path(), options).unwrap().with_limit(limit);
        let new = super::sample_of(Geometry::new(block_bytes).unwrap());
        let copy = open(&cache, &new);
        let in_flight = 2 * (block_bytes + 48) + 10 * 4096;
        let mut expected = BTreeMap::new();
        for round in 0..3 {
            // Not only one after the other: each takes pages that it shares with its neighbours.
            for step in 0..60_u64 {
                let first = (step * 7 + round) % 60 * 3;
                let sealed = seal(&new, first..first + 2);
                copy.forget(sealed.blocks()).unwrap();
                super::model::write_over(&*copy, &sealed);
                // Evicted since, perhaps.
                drop(copy.confirm(&sealed));
                expected.extend(sealed.nonces());
                let used = cache.disk_bytes().unwrap();
                assert!(used <= limit + in_flight, "{used} of {limit}, blocks of {block_bytes}");
            }
        }
        let stored = fs::read(cache.path_of(new.header.file_id())).unwrap();
        for (block, nonce) in (0..).zip(copy.present(0..200)) {
            let Some(nonce) = nonce else { continue };
            assert_eq!(Some(&nonce), expected.get(&block), "block {block}");
            let at = usize::try_from(new.header.geometry().stored_start(block)).unwrap();
            assert!(stored[at..].starts_with(nonce.as_bytes()), "block {block} is gone");
        }
        if limit > 0 {
            let fits = limit / (block_bytes + 48);
            let n_present = n_present(&*copy, 0..200) as u64;
            assert!(n_present >= fits / 4, "of {fits} blocks that fit, {n_present} are there");
        }
    }
}

#[test]
fn a_cache_with_a_limit_keeps_the_contract() {
    for limit in [1 << 20, u64::MAX] {
        let dir = TempDir::new().unwrap();
        let open = || Arc::new(unlimited(&dir).with_limit(limit));
        conformance::cache(&|| open());
        let memory = || MemoryCache::new(MemoryOptions::default()).with_limit(64 << 20);
        conformance::cache(&|| Arc::new(memory()));
    }
}

#[test]
fn bytes_that_were_never_confirmed_or_no_longer_count_go_too() {
    let dir = TempDir::new().unwrap();
    let cache = unlimited(&dir).with_limit(1 << 20);
    let new = sample();
    let copy = open(&cache, &new);
    for first in (0..1000).step_by(100) {
        write(&*copy, &seal(&new, first..first + 100), Expected::Absent).unwrap();
        assert!(cache.disk_bytes().unwrap() <= (1 << 20) + 500_000);
    }
    keep(&*copy, &seal(&new, 0..200));
    copy.invalidate().unwrap();
    drop(unlimited(&dir).with_limit(100_000));
    assert!(cache.disk_bytes().unwrap() <= 100_000);
}

#[test]
fn a_record_gives_its_room_back_with_the_blocks() {
    let dir = TempDir::new().unwrap();
    let new = sample();
    let cache = unlimited(&dir).with_limit(u64::MAX);
    let copy = open(&cache, &new);
    // One block in each page of the record.
    for first in (0..1 << 16).step_by(128) {
        keep(&*copy, &seal(&new, first..first + 1));
    }
    drop(unlimited(&dir).with_limit(0));
    assert_eq!(n_present(&*copy, 0..1 << 16), 0);
    let left = cache.disk_bytes().unwrap();
    assert!(left <= 4 * 4096, "{left} bytes are left of 512 pages of record");
}

#[test]
fn copies_that_nobody_has_open_go_first_the_longest_unopened_before_others() {
    let dir = TempDir::new().unwrap();
    let cache = unlimited(&dir).with_limit(u64::MAX);
    let files = [sample(), sample(), sample(), sample()];
    let held = open(&cache, &files[0]);
    for new in &files {
        keep(&*open(&cache, new), &seal(new, 0..50));
    }
    // Not in the order in which they were made.
    for (age, index) in [(30, 2), (20, 1), (10, 3)] {
        let record = cache.path_of(files[index].header.file_id()).with_extension("record");
        let time = SystemTime::now() - Duration::from_secs(age);
        fs::File::options().write(true).open(record).unwrap().set_modified(time).unwrap();
    }
    let there = || files.each_ref().map(|new| cache.path_of(new.header.file_id()).exists());
    let used = cache.disk_bytes().unwrap();
    for (limit, right) in [
        (used * 15 / 16, [true, true, false, true]),
        (used * 11 / 16, [true, false, false, true]),
        (used * 7 / 16, [true, false, false, false]),
    ] {
        drop(unlimited(&dir).with_limit(limit));
        assert_eq!(there(), right, "{limit} of {used}");
        assert_eq!(n_present(&*held, 0..50), 50);
    }
    drop(unlimited(&dir).with_limit(used / 8));
    let n_left = n_present(&*held, 0..50);
    assert!((1..50).contains(&n_left), "{n_left} blocks are left of the copy that is open");
    // Opening and closing count as being used.
    let (first, second) = (sample(), sample());
    let opened = [&first, &second].map(|new| open(&cache, new));
    let [first_copy, second_copy] = opened;
    drop(second_copy);
    drop(first_copy);
    drop(held);
    let record = |new: &NewHeader| cache.path_of(new.header.file_id()).with_extension("record");
    let time = |new: &NewHeader| fs::metadata(record(new)).unwrap().modified().unwrap();
    assert!(time(&first) > time(&second), "what was closed last was used last");
}

#[test]
fn what_is_not_the_caches_is_neither_counted_nor_touched() {
    let dir = TempDir::new().unwrap();
    let id = "0123456789abcdef".repeat(4);
    let ours = [format!("{id}.sealed"), format!("{}.record", id.replace('0', "9"))];
    let others = [
        id.clone(),
        format!("{id}.sealed2"),
        format!("x{id}.record"),
        format!("{}.sealed", id.to_uppercase()),
        format!("{}.sealed", &id[1..]),
        "file.sealed".to_owned(),
        ".record".to_owned(),
    ];
    for name in ours.iter().chain(&others) {
        fs::write(dir.path().join(name), [1; 9000]).unwrap();
    }
    let in_our_names = ["aa".repeat(32), "bb".repeat(32)].map(|id| format!("{id}.sealed"));
    fs::create_dir(dir.path().join(&in_our_names[0])).unwrap();
    symlink("/etc/hostname", dir.path().join(&in_our_names[1])).unwrap();
    let cache = unlimited(&dir);
    assert_eq!(cache.disk_bytes().unwrap(), 2 * 12288);
    drop(cache.clone().with_limit(0));
    assert_eq!(cache.disk_bytes().unwrap(), 0);
    for name in ours {
        assert!(!dir.path().join(name).exists());
    }
    for name in others.iter().chain(&in_our_names) {
        assert!(dir.path().join(name).symlink_metadata().is_ok(), "{name} is gone");
    }
}

#[test]
fn a_block_that_was_evicted_since_it_was_written_is_not_confirmed() {
    let dir = TempDir::new().unwrap();
    let cache = unlimited(&dir).with_limit(u64::MAX);
    let new = sample();
    let copy = open(&cache, &new);
    let (early, late) = (seal(&new, 0..50), seal(&new, 50..150));
    for sealed in [&early, &late] {
        write(&*copy, sealed, Expected::Absent).unwrap();
    }
    drop(unlimited(&dir).with_limit(512 << 10));
    // A part of it went; the rest is confirmed.
    assert!(copy.confirm(&early).is_err());
    copy.confirm(&late).unwrap();
    let n_early = n_present(&*copy, 0..50);
    assert!((1..50).contains(&n_early), "{n_early} of 50");
    assert_eq!(n_present(&*copy, 50..150), 100);
    let stored = fs::read(cache.path_of(new.header.file_id())).unwrap();
    for (index, nonce) in copy.present(0..150).iter().enumerate() {
        if let Some(nonce) = nonce {
            assert!(stored[8192 + index * 4144..].starts_with(nonce.as_bytes()));
        }
    }
}

#[test]
fn a_block_that_a_cut_went_through_is_not_confirmed_after_the_copy_has_grown_again() {
    let dir = TempDir::new().unwrap();
    let local = unlimited(&dir);
    let memory = MemoryCache::new(MemoryOptions::default());
    for cache in [&local as &dyn Cache, &memory] {
        let new = sample();
        let copy = open(cache, &new);
        let sealed = seal(&new, 0..4);
        write(&*copy, &sealed, Expected::Absent).unwrap();
        copy.set_header(&new.bytes, new.header.geometry().stored_bytes(2 * 4096 + 100)).unwrap();
        write(&*copy, &seal(&new, 9..10), Expected::Absent).unwrap();
        assert!(copy.confirm(&sealed).is_err());
        let right = [0, 1].map(|block| Some(sealed.nonce(block)));
        assert_eq!(copy.present(0..4), [right[0], right[1], None, None]);
    }
}

#[test]
fn a_memory_cache_with_a_limit_drops_closed_copies_and_then_blocks() {
    let cache = MemoryCache::new(MemoryOptions::default()).with_limit(60 * 4144);
    let files = [sample(), sample(), sample()];
    for new in &files {
        keep(&*open(&cache, new), &seal(new, 0..25));
    }
    let there = files.each_ref().map(|new| cache.stored(new.header.file_id()).is_some());
    assert_eq!(there, [false, true, true]);
    let held = open(&cache, &files[1]);
    keep(&*held, &seal(&files[1], 25..40));
    assert!(cache.stored(files[2].header.file_id()).is_none());
    assert_eq!(n_present(&*held, 0..40), 40);
    keep(&*held, &seal(&files[1], 40..90));
    assert_eq!(n_present(&*held, 0..90), 0);
    keep(&*held, &seal(&files[1], 0..3));
    assert_eq!(n_present(&*held, 0..90), 3);
}

const DIR: &str = "SEALBACK_TEST_LIMIT_DIR";

/// Goal: no claim of any process is untrue. Method: each opens copies of the same files at random,
/// in one directory that has room for half of one of them, and compares what is claimed with what
/// is read.
#[test]
fn processes_that_share_a_small_directory_claim_nothing_that_is_not_there() {
    let dir = TempDir::new().unwrap();
    let children: Vec<_> = (0..3)
        .map(|seed| {
            Command::new(env::current_exe().unwrap())
                .args(["--exact", "local::tests::limit::one_of_those_that_share", "--nocapture"])
                .env(DIR, dir.path())
                .env("SEALBACK_TEST_LIMIT_SEED", seed.to_string())
                .stdout(Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
}

/// What the test above runs in other processes; nothing in this one.
#[test]
fn one_of_those_that_share() {
    let Ok(dir) = env::var(DIR) else { return };
    let mut state: u64 = env::var("SEALBACK_TEST_LIMIT_SEED").unwrap().parse().unwrap();
    let mut random = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        (state >> 33) % below
    };
    let cache = LocalCache::open(Path::new(&dir), LocalOptions::default()).unwrap();
    let cache = cache.with_limit(100_000);
    let mut n_opened = 0;
    let (mut n_claimed, sealer) = (0, sample());
    while n_opened < 100 {
        let file_id = sealback_crypto::FileId::from_bytes([u8::try_from(random(3)).unwrap(); 32]);
        let Ok(copy) = cache.open(file_id, sealer.header.geometry()) else {
            // Another process has it open.
            std::thread::yield_now();
            continue;
        };
        n_opened += 1;
        for _step in 0..5 {
            n_claimed += check(&*copy, &sealer);
            let first = random(40);
            let sealed = seal(&sealer, first..first + 1 + random(8));
            copy.forget(sealed.blocks()).unwrap();
            super::model::write_over(&*copy, &sealed);
            drop(copy.confirm(&sealed));
        }
    }
    assert!(n_claimed > 0, "what was confirmed by none of them was found by another");
}

/// That each claimed block is stored with its nonce; how many are claimed.
fn check(copy: &dyn CacheFile, sealer: &NewHeader) -> usize {
    let present = copy.present(0..50);
    let stored = super::model::read(copy, sealer.header.geometry(), 0..50);
    for (index, nonce) in present.iter().enumerate() {
        let Some(nonce) = nonce else { continue };
        // This copy is open here: nobody but this thread evicts blocks of it.
        let block = stored.get(index * 4144..).unwrap_or_default();
        assert!(block.starts_with(nonce.as_bytes()), "block {index} is claimed");
        assert!(block.len() >= 4144 && block[4100..4144] != [0; 44], "block {index} is in part");
    }
    present.iter().flatten().count()
}

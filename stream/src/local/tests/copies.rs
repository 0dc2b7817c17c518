//! Copies that are evicted, cut, or lost in part.

use std::{fs, sync::atomic::Ordering};

use sealback_crypto::{Buffer, HeaderChange, NewHeader, Sealed};
use tempfile::TempDir;

use super::{name, open, processes::write, sample};
use crate::{
    Cache, CacheFile, Expectation, Expected, LocalCache, LocalOptions, MemoryCache, MemoryOptions,
    Server, TargetErrorKind,
};

fn seal(new: &NewHeader, first: u64, n: usize) -> Sealed {
    let plain = vec![7; n * 4096];
    let buffer = Buffer::unpooled(n * 4144);
    new.header.content_key().seal(first, 2, &[&plain], buffer).unwrap()
}

fn cache(dir: &TempDir) -> LocalCache {
    LocalCache::open(dir.path(), LocalOptions::default()).unwrap()
}

/// Fills a copy with so many blocks, a hundred at a time.
fn fill(copy: &dyn CacheFile, new: &NewHeader, n_blocks: u64) {
    for first in (0..n_blocks).step_by(100) {
        let sealed = seal(new, first, 100);
        write(copy, &sealed, Expected::Absent).unwrap();
        copy.confirm(&sealed).unwrap();
    }
}

fn n_present(copy: &dyn CacheFile, n_blocks: u64) -> usize {
    copy.present(0..n_blocks).iter().filter(|nonce| nonce.is_some()).count()
}

#[test]
fn a_directory_stays_within_its_limit_and_what_was_opened_last_stays() {
    let dir = TempDir::new().unwrap();
    let stranger = dir.path().join("not-ours.record");
    fs::write(&stranger, vec![1; 100_000]).unwrap();
    let limit = 6_u64 << 20;
    let cache = cache(&dir).with_limit(limit);
    let files = [sample(), sample(), sample()];
    for new in &files {
        let copy = cache.open(new.header.file_id(), new.header.geometry()).unwrap();
        fill(&*copy, new, 600);
        assert!(cache.disk_bytes().unwrap() <= limit + limit / 8, "{:?}", cache.disk_bytes());
        drop(copy);
    }
    let present = files.each_ref().map(|new| cache.path_of(new.header.file_id()).exists());
    assert_eq!(present, [false, true, true], "the first is the oldest");
    let copy = cache.open(files[2].header.file_id(), files[2].header.geometry()).unwrap();
    assert_eq!(n_present(&*copy, 600), 600);
    assert!(stranger.exists());
}

#[test]
fn an_open_copy_that_is_too_large_loses_blocks_and_claims_none_that_are_gone() {
    let dir = TempDir::new().unwrap();
    let limit = 6_u64 << 20;
    let cache = cache(&dir).with_limit(limit);
    let new = sample();
    let copy = cache.open(new.header.file_id(), new.header.geometry()).unwrap();
    fill(&*copy, &new, 5000);
    assert!(cache.disk_bytes().unwrap() <= limit + limit / 8, "{:?}", cache.disk_bytes());
    let stored = fs::read(cache.path_of(new.header.file_id())).unwrap();
    let present = copy.present(0..5000);
    assert!(present.iter().flatten().count() > 500, "not all of it is gone");
    for (block, nonce) in present.iter().enumerate() {
        if let Some(nonce) = nonce {
            assert_eq!(&stored[8192 + block * 4144..][..24], nonce.as_bytes(), "block {block}");
        }
    }
}

#[test]
fn a_second_process_keeps_what_it_has_open() {
    let dir = TempDir::new().unwrap();
    let new = sample();
    let other = cache(&dir);
    let held = other.open(new.header.file_id(), new.header.geometry()).unwrap();
    fill(&*held, &new, 500);
    // As another process would have it: its lock, and nothing of it in this one's list.
    let limit = super::super::eviction::Limit::new(0);
    limit.keep(dir.path());
    assert_eq!(n_present(&*held, 500), 500);
    drop(held);
    limit.keep(dir.path());
    assert!(!other.path_of(new.header.file_id()).exists());
}

#[test]
fn blocks_that_were_cut_off_since_they_were_written_are_not_confirmed() {
    let dir = TempDir::new().unwrap();
    let local = cache(&dir);
    let memory = MemoryCache::new(MemoryOptions::default());
    for cache in [&local as &dyn Cache, &memory] {
        let new = sample();
        let copy = cache.open(new.header.file_id(), new.header.geometry()).unwrap();
        let five = seal(&new, 5, 1);
        write(&*copy, &five, Expected::Absent).unwrap();
        copy.set_header(&new.bytes, 8192).unwrap();
        write(&*copy, &seal(&new, 7, 1), Expected::Absent).unwrap();
        copy.confirm(&five).unwrap_err();
        assert_eq!(copy.present(5..6), [None]);
    }
}

#[test]
fn a_record_without_its_copy_or_with_less_of_it_claims_nothing_that_is_gone() {
    let dir = TempDir::new().unwrap();
    let cache = cache(&dir);
    let new = sample();
    for left in [None, Some(8192 + 3 * 4144 + 48), Some(8192 + 3 * 4144 + 47), Some(100)] {
        let copy = cache.open(new.header.file_id(), new.header.geometry()).unwrap();
        copy.set_header(&new.bytes, 8192).unwrap();
        fill(&*copy, &new, 100);
        drop(copy);
        let path = cache.path_of(new.header.file_id());
        match left {
            None => fs::remove_file(&path).unwrap(),
            Some(len) => fs::File::options().write(true).open(&path).unwrap().set_len(len).unwrap(),
        }
        let copy = cache.open(new.header.file_id(), new.header.geometry()).unwrap();
        let expected = match left {
            Some(len) if len > 8192 => (len - 8192) / 4144,
            _ => 0,
        };
        assert_eq!(n_present(&*copy, 100) as u64, expected, "{left:?}");
    }
}

#[test]
fn forgetting_far_behind_the_end_takes_no_time_and_no_memory() {
    let dir = TempDir::new().unwrap();
    let cache = cache(&dir);
    let new = sample();
    let copy = cache.open(new.header.file_id(), new.header.geometry()).unwrap();
    let far = 1 << 30;
    for first in [0, far] {
        let sealed = seal(&new, first, 1);
        write(&*copy, &sealed, Expected::Absent).unwrap();
        copy.confirm(&sealed).unwrap();
    }
    drop(copy);
    let copy = cache.open(new.header.file_id(), new.header.geometry()).unwrap();
    assert!(copy.present(far..far + 1)[0].is_some());
    copy.forget(1..u64::MAX).unwrap();
    assert_eq!((n_present(&*copy, 1), copy.present(far..far + 1)), (1, vec![None]));
}

#[test]
fn a_hole_is_no_conflict_where_a_hole_is() {
    let nonce = seal(&sample(), 0, 1).nonce(0);
    let expectation = Expectation { block: 0, expected: Expected::Nonce(nonce) };
    assert!(expectation.holds(None, None), "sent again after an unknown outcome");
    assert!(!expectation.holds(None, Some(seal(&sample(), 0, 1).nonce(0))));
}

#[test]
fn creating_beside_those_who_open_the_server_always_succeeds() {
    let dir = TempDir::new().unwrap();
    let server = open(dir.path());
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    drop(open(dir.path()));
                }
            });
        }
        for _ in 0..3000 {
            let new = sample();
            server.create(&name("x"), new.header.file_id(), &new.bytes).unwrap();
            server.remove(&name("x")).unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn nothing_is_acknowledged_by_a_file_that_was_replaced_or_removed() {
    let dir = TempDir::new().unwrap();
    let server = open(dir.path());
    let (old, new) = (sample(), sample());
    let target = server.create(&name("a"), old.header.file_id(), &old.bytes).unwrap();
    let change = HeaderChange { size: 4096, holes: 0..0, cuts: 0, cut_pending: false };
    let commit = old.header.commit(&change).unwrap();
    server.draft(&name("a"), new.header.file_id(), &new.bytes).unwrap().publish().unwrap();
    assert!(write(&*target, &seal(&old, 0, 1), Expected::Absent).is_err());
    let refused = target.write_slot(&commit.write).unwrap_err();
    assert_eq!(refused.kind(), TargetErrorKind::NotFound);
    assert_eq!(target.read_header().unwrap(), old.bytes[..], "who reads it goes on");
}

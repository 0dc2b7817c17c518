//! Copies and records that cannot be opened, or are not what they should be.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    sync::Arc,
};

use sealback_crypto::{Buffer, NewHeader};
use tempfile::TempDir;

use super::{
    disk_full::Small,
    limit::seal,
    model::{read, write_over},
    processes::write,
    sample,
};
use crate::{Cache, CacheFile, Expected, LocalCache, LocalOptions, TargetError, TargetErrorKind};

struct Kept {
    dir: TempDir,
    new: NewHeader,
}

impl Kept {
    fn new() -> Kept {
        Kept { dir: TempDir::new().unwrap(), new: sample() }
    }

    fn open(&self) -> Result<Arc<dyn CacheFile>, TargetError> {
        let cache = LocalCache::open(self.dir.path(), LocalOptions::default()).unwrap();
        cache.open(self.new.header.file_id(), self.new.header.geometry())
    }

    fn path(&self, extension: &str) -> PathBuf {
        self.dir.path().join(format!("{}.{extension}", self.new.header.file_id()))
    }

    /// The kind of error of opening.
    fn refused(&self) -> TargetErrorKind {
        self.open().unwrap_err().kind()
    }
}

/// Makes something that root may do, too, and says so where it may.
fn is_refused(attempt: bool, what: &str) -> bool {
    if attempt {
        eprintln!("skipped: whoever runs this test may {what}");
    }
    !attempt
}

#[test]
fn what_cannot_be_opened_is_an_error_that_says_why() {
    for extension in ["record", "sealed"] {
        let kept = Kept::new();
        fs::create_dir(kept.path(extension)).unwrap();
        assert_eq!(kept.refused(), TargetErrorKind::IsADirectory, "{extension}");
        fs::remove_dir(kept.path(extension)).unwrap();
        symlink(kept.path(extension), kept.path(extension)).unwrap();
        assert!(kept.open().is_err(), "{extension} leads to itself");
        fs::remove_file(kept.path(extension)).unwrap();
        symlink("/dev/full", kept.path(extension)).unwrap();
        assert!(kept.open().is_err(), "{extension} is a device");
        fs::remove_file(kept.path(extension)).unwrap();
        fs::write(kept.path(extension), "").unwrap();
        fs::set_permissions(kept.path(extension), fs::Permissions::from_mode(0o000)).unwrap();
        let readable = fs::File::open(kept.path(extension)).is_ok();
        if is_refused(readable, "open a file without permission") {
            assert_eq!(kept.refused(), TargetErrorKind::NotPermitted, "{extension}");
        }
        fs::remove_file(kept.path(extension)).unwrap();
        assert_eq!(kept.open().unwrap().present(0..3), [None; 3]);
    }
}

#[test]
fn a_directory_that_takes_no_files_gives_an_error() {
    let kept = Kept::new();
    fs::set_permissions(kept.dir.path(), fs::Permissions::from_mode(0o555)).unwrap();
    let writable = fs::write(kept.dir.path().join("x"), "").is_ok();
    if is_refused(writable, "write to a directory without permission") {
        assert_eq!(kept.refused(), TargetErrorKind::NotPermitted);
    }
    fs::set_permissions(kept.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    // Nobody can make a file here.
    let cache = LocalCache::open("/proc/self", LocalOptions::default()).unwrap().with_limit(0);
    assert!(cache.open(kept.new.header.file_id(), kept.new.header.geometry()).is_err());
}

#[test]
fn a_copy_that_ends_too_early_claims_the_blocks_that_are_whole() {
    let kept = Kept::new();
    let plain = vec![1; 2 * 4096 + 100];
    let buffer = Buffer::unpooled(2 * 4144 + 148);
    let sealed = kept.new.header.content_key().seal(0, 2, &[&plain], buffer).unwrap();
    let copy = kept.open().unwrap();
    write(&*copy, &sealed, Expected::Absent).unwrap();
    copy.confirm(&sealed).unwrap();
    drop(copy);
    let (record, whole) =
        (fs::read(kept.path("record")).unwrap(), fs::read(kept.path("sealed")).unwrap());
    let ends = [8192 + 4144, 8192 + 2 * 4144, whole.len()];
    let lens = ends.iter().flat_map(|end| end - 150..=*end).chain([0, 1, 8191, 8192, 8193]);
    for len in lens {
        fs::write(kept.path("record"), &record).unwrap();
        fs::write(kept.path("sealed"), &whole[..len]).unwrap();
        let right = |block: u64, end| (len >= end).then(|| sealed.nonce(block));
        let right: Vec<_> = (0..).zip(ends).map(|(block, end)| right(block, end)).collect();
        assert_eq!(kept.open().unwrap().present(0..3), right, "{len} bytes");
    }
}

#[test]
fn a_record_or_a_copy_of_absurd_length_claims_nothing_and_is_gone_through_at_once() {
    let kept = Kept::new();
    let copy = kept.open().unwrap();
    let sealed = seal(&kept.new, 0..2);
    write_over(&*copy, &sealed);
    copy.confirm(&sealed).unwrap();
    drop(copy);
    for extension in ["record", "sealed", "record"] {
        let file = fs::File::options().write(true).open(kept.path(extension)).unwrap();
        file.set_len(1 << 43).unwrap();
        let copy = kept.open().unwrap();
        let right = [Some(sealed.nonce(0)), Some(sealed.nonce(1)), None];
        assert_eq!(copy.present(0..3), right);
        assert_eq!(copy.present(u64::MAX - 2..u64::MAX), [None; 2]);
        copy.forget(2..u64::MAX).unwrap();
        assert_eq!(copy.present(0..3), right);
    }
    let cache = LocalCache::open(kept.dir.path(), LocalOptions::default()).unwrap().with_limit(0);
    assert_eq!(cache.disk_bytes().unwrap(), 0);
}

#[test]
fn an_evicted_copy_that_a_crash_left_in_part_claims_nothing() {
    let kept = Kept::new();
    let copy = kept.open().unwrap();
    let sealed = seal(&kept.new, 0..4);
    write_over(&*copy, &sealed);
    copy.confirm(&sealed).unwrap();
    drop(copy);
    let record = fs::read(kept.path("record")).unwrap();
    let whole = fs::read(kept.path("sealed")).unwrap();
    // What is there after each step, and, of a power cut, what never was durable.
    for (record, whole) in [
        (Some(&[][..]), Some(&whole[..])),
        (Some(&[]), None),
        (None, None),
        (None, Some(&whole)),
        (Some(&record), None),
    ] {
        for (extension, bytes) in [("record", record), ("sealed", whole)] {
            drop(fs::remove_file(kept.path(extension)));
            if let Some(bytes) = bytes {
                fs::write(kept.path(extension), bytes).unwrap();
            }
        }
        let copy = kept.open().unwrap();
        assert_eq!(copy.present(0..4), [None; 4]);
        let again = seal(&kept.new, 1..2);
        write_over(&*copy, &again);
        copy.confirm(&again).unwrap();
        assert_eq!(copy.present(0..3), [None, Some(again.nonce(1)), None]);
    }
}

#[test]
fn a_full_disk_costs_blocks_of_the_copy_and_claims_none_that_is_not_there() {
    let Some(small) = Small::mount() else { return };
    let new = sample();
    let open = |path: &Path| {
        let cache = LocalCache::open(path, LocalOptions::default()).unwrap();
        cache.open(new.header.file_id(), new.header.geometry()).unwrap()
    };
    let copy = open(small.path());
    let (mut n_confirmed, mut n_failed) = (0, 0);
    for block in 0..100 {
        let sealed = seal(&new, block..block + 1);
        let written = write(&*copy, &sealed, Expected::Absent);
        if written.is_ok_and(|bytes| bytes == 4144) && copy.confirm(&sealed).is_ok() {
            n_confirmed += 1;
        } else {
            n_failed += 1;
        }
    }
    assert!(n_confirmed > 10 && n_failed > 10, "{n_confirmed} went through, {n_failed} did not");
    let check = |copy: &dyn CacheFile| {
        let stored = read(copy, new.header.geometry(), 0..100);
        let present = copy.present(0..100);
        for (index, nonce) in present.iter().enumerate() {
            if let Some(nonce) = nonce {
                let block = &stored[index * 4144..];
                assert!(block.len() >= 4144 && block.starts_with(nonce.as_bytes()));
            }
        }
        present.iter().flatten().count()
    };
    assert_eq!(check(&*copy), n_confirmed);
    copy.forget(0..10).unwrap();
    assert_eq!(check(&*copy), n_confirmed - 10);
    drop(copy);
    let copy = open(small.path());
    assert_eq!(check(&*copy), n_confirmed - 10);
    copy.invalidate().unwrap();
    assert_eq!(check(&*copy), 0);
}

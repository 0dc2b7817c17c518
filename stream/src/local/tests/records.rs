//! Records that were damaged, exchanged or held by others.

use std::{fs, ops::Range, path::PathBuf, sync::Arc};

use sealback_crypto::{Buffer, FileId, Geometry, NewHeader, Nonce};
use tempfile::TempDir;

use super::{processes::write, sample};
use crate::{Cache, CacheFile, Durability, Expected, LocalCache, LocalOptions};

struct Kept {
    dir: TempDir,
    new: NewHeader,
    options: LocalOptions,
}

impl Kept {
    fn new(durability: Durability) -> Kept {
        let options = LocalOptions::default().with_durability(durability);
        Kept { dir: TempDir::new().unwrap(), new: sample(), options }
    }

    fn file_id(&self) -> FileId {
        self.new.header.file_id()
    }

    fn cache(&self) -> LocalCache {
        LocalCache::open(self.dir.path(), self.options).unwrap()
    }

    fn open(&self) -> Arc<dyn CacheFile> {
        self.cache().open(self.file_id(), self.new.header.geometry()).unwrap()
    }

    fn record(&self) -> PathBuf {
        self.cache().path_of(self.file_id()).with_extension("record")
    }

    /// Writes and confirms blocks, and returns what must be present.
    fn keep(&self, blocks: Range<u64>) -> Vec<Option<Nonce>> {
        let n_blocks = usize::try_from(blocks.end - blocks.start).unwrap();
        let plain = vec![1; n_blocks * 4096];
        let buffer = Buffer::unpooled(n_blocks * 4144);
        let key = self.new.header.content_key();
        let sealed = key.seal(blocks.start, 2, &[&plain], buffer).unwrap();
        let copy = self.open();
        write(&*copy, &sealed, Expected::Absent).unwrap();
        copy.confirm(&sealed).unwrap();
        sealed.nonces().map(|(_, nonce)| Some(nonce)).collect()
    }
}

#[test]
fn a_record_that_is_damaged_anywhere_never_gives_a_false_block() {
    let kept = Kept::new(Durability::Process);
    let right = kept.keep(0..4);
    let record = fs::read(kept.record()).unwrap();
    let copy = fs::read(kept.cache().path_of(kept.file_id())).unwrap();
    assert_eq!(record.len(), 128 + 4 * 32);
    for at in 0..record.len() {
        for flip in [1, 0x80, 0xff] {
            let mut damaged = record.clone();
            damaged[at] ^= flip;
            fs::write(kept.record(), &damaged).unwrap();
            fs::write(kept.cache().path_of(kept.file_id()), &copy).unwrap();
            let found = kept.open().present(0..6);
            for (block, found) in found.iter().enumerate() {
                let damaged = at < 128 || at / 32 == block + 4;
                let right = if damaged { None } else { right.get(block).copied().flatten() };
                assert_eq!(*found, right, "byte {at}, block {block}");
            }
        }
    }
    for len in 0..record.len() {
        fs::write(kept.record(), &record[..len]).unwrap();
        fs::write(kept.cache().path_of(kept.file_id()), &copy).unwrap();
        // What is missing reads as zeros: an entry that ends in a zero is whole without it.
        let mut read = record[..len].to_vec();
        read.resize(record.len(), 0);
        let is_whole = |bytes: Range<usize>| read[bytes.clone()] == record[bytes];
        let found = kept.open().present(0..4);
        for block in 0..4 {
            let counts = is_whole(0..128) && is_whole(128 + block * 32..160 + block * 32);
            assert_eq!(found[block], if counts { right[block] } else { None }, "{len}");
        }
    }
}

#[test]
fn entries_of_other_blocks_or_files_do_not_count() {
    let kept = Kept::new(Durability::Process);
    kept.keep(0..4);
    let mut record = fs::read(kept.record()).unwrap();
    let (left, right) = record.split_at_mut(128 + 32);
    left[128..].swap_with_slice(&mut right[..32]);
    fs::write(kept.record(), &record).unwrap();
    let found = kept.open().present(0..4);
    assert_eq!((found[0], found[1]), (None, None));
    assert!(found[2].is_some() && found[3].is_some());
    let other = Kept::new(Durability::Process);
    let own = other.keep(0..4);
    let mut exchanged = fs::read(other.record()).unwrap();
    exchanged[128..192].copy_from_slice(&record[192..]);
    fs::write(other.record(), &exchanged).unwrap();
    assert_eq!(other.open().present(0..4), [None, None, own[2], own[3]]);
}

#[test]
fn a_record_of_another_run_or_durability_or_block_size_counts_as_lost() {
    let mut kept = Kept::new(Durability::Process);
    kept.keep(0..4);
    kept.options = kept.options.with_durability(Durability::PowerCut);
    assert_eq!(kept.open().present(0..4), [None; 4]);
    let copy = kept.cache().path_of(kept.file_id());
    assert_eq!(fs::metadata(&copy).unwrap().len(), 0, "its room goes back");
    let right = kept.keep(0..4);
    assert_eq!(kept.open().present(0..4), right);
    let other = kept.cache().open(kept.file_id(), Geometry::new(8192).unwrap()).unwrap();
    assert_eq!(other.present(0..4), [None; 4]);
    // Two block sizes at once cannot be.
    assert!(kept.cache().open(kept.file_id(), kept.new.header.geometry()).is_err());
    // As an earlier run of the machine leaves it: without the checksum being wrong.
    let kept = Kept::new(Durability::Process);
    kept.keep(0..4);
    let mut record = fs::read(kept.record()).unwrap();
    record[48..64].fill(9);
    let sum = blake3::hash(&record[..96]);
    record[96..128].copy_from_slice(sum.as_bytes());
    fs::write(kept.record(), record).unwrap();
    assert_eq!(kept.open().present(0..4), [None; 4]);
}

#[test]
fn a_copy_that_another_process_has_open_cannot_be_opened() {
    let kept = Kept::new(Durability::Process);
    let right = kept.keep(0..2);
    // The system tells open files apart, not processes.
    let held = fs::File::open(kept.record()).unwrap();
    held.lock().unwrap();
    let opened = kept.cache().open(kept.file_id(), kept.new.header.geometry());
    let message = opened.unwrap_err().to_string();
    assert!(message.contains("another process"), "{message}");
    drop(held);
    assert_eq!(kept.open().present(0..2), right);
}

#[test]
fn opening_a_copy_while_another_thread_closes_it_succeeds() {
    let kept = Kept::new(Durability::Process);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..200).for_each(|_| drop(kept.open())));
        }
    });
}

#[test]
fn blocks_that_were_cut_away_meanwhile_are_not_confirmed() {
    let kept = Kept::new(Durability::Process);
    let copy = kept.open();
    let buffer = Buffer::unpooled(3 * 4144);
    let sealed = kept.new.header.content_key().seal(0, 2, &[&[1; 3 * 4096]], buffer).unwrap();
    write(&*copy, &sealed, Expected::Absent).unwrap();
    copy.set_header(&kept.new.bytes, 8192 + 4144).unwrap();
    assert!(copy.confirm(&sealed).is_err());
    copy.confirm(&sealed.slice(0..1)).unwrap();
    assert_eq!(copy.present(0..3), [Some(sealed.nonce(0)), None, None]);
}

//! What a crash leaves in a journal, and who carries it out.

use std::{fs, path::PathBuf, sync::Arc};

use sealback_crypto::{Buffer, HeaderChange, HeaderClaims, NewHeader, Sealed};
use tempfile::TempDir;

use super::{disk_full::Small, model::read, name, open, processes::write, sample};
use crate::{Durability, Expected, LocalOptions, LocalServer, Server, Target};

const STRIDE: usize = 4096 + 48;
const N_BLOCKS: u64 = 4;

/// A file of four blocks, of which the second is being written over when its writer is killed.
struct Killed {
    dir: TempDir,
    new: NewHeader,
    /// The whole stored file before.
    before: Vec<u8>,
    /// What was to stand in the second block.
    sealed: Sealed,
    journal: Vec<u8>,
}

impl Killed {
    fn new() -> Killed {
        let (dir, new) = (TempDir::new().unwrap(), sample());
        let target = create(&open(dir.path()), &new);
        let before = fs::read(dir.path().join("a")).unwrap();
        let sealed = seal(&new, 1, 3, 9);
        write(&*target, &sealed, Expected::Nonce(nonce_in(&before, 1))).unwrap();
        let journal =
            dir.path().join(".sealback").join(format!("{}.journal", new.header.file_id()));
        let journal = fs::read(journal).unwrap();
        drop(target);
        let killed = Killed { dir, new, before, sealed, journal };
        assert!(fs::read(killed.journal()).unwrap().is_empty(), "it is emptied when it is closed");
        killed
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("a")
    }

    fn journal(&self) -> PathBuf {
        self.dir.path().join(".sealback").join(format!("{}.journal", self.new.header.file_id()))
    }

    /// Has the writer killed when so many bytes of the block were written.
    fn kill_after(&self, n_bytes: usize) {
        let mut torn = self.before.clone();
        let at = 8192 + STRIDE;
        torn[at..at + n_bytes].copy_from_slice(&self.sealed.bytes()[..n_bytes]);
        // In place: a file that is replaced would be another one.
        fs::OpenOptions::new().write(true).open(self.file()).unwrap().set_len(0).unwrap();
        fs::write(self.file(), torn).unwrap();
        // The head of before is the one that says nothing of the record.
        let mut journal = self.journal.clone();
        journal[..128].fill(0);
        fs::write(self.journal(), journal).unwrap();
    }

    fn after(&self) -> Vec<u8> {
        let mut after = self.before.clone();
        after[8192 + STRIDE..8192 + 2 * STRIDE].copy_from_slice(self.sealed.bytes());
        after
    }

    fn open(&self) -> Arc<dyn Target> {
        open(self.dir.path()).open(&name("a")).unwrap()
    }

    fn is_mended(&self) -> bool {
        fs::read(self.file()).unwrap() == self.after()
    }
}

/// The same journal with something else in its record, at a place in it, and the hash of that.
fn forged(killed: &Killed, at: usize, field: &[u8]) -> Vec<u8> {
    let mut journal = killed.journal.clone();
    journal[..128].fill(0);
    let record = &mut journal[512..];
    record[at..at + field.len()].copy_from_slice(field);
    let mut hasher = blake3::Hasher::new();
    hasher.update(killed.new.header.file_id().to_string().as_bytes());
    hasher.update(&record[..72]).update(&record[104..104 + 64 + STRIDE]);
    let hash = *hasher.finalize().as_bytes();
    record[72..104].copy_from_slice(&hash);
    journal
}

/// A file of four blocks, committed.
pub(super) fn create(server: &LocalServer, new: &NewHeader) -> Arc<dyn Target> {
    let target = server.create(&name("a"), new.header.file_id(), &new.bytes).unwrap();
    for block in 0..N_BLOCKS {
        write(&*target, &seal(new, block, 2, 1), Expected::Absent).unwrap();
    }
    let change = HeaderChange { size: N_BLOCKS * 4096, holes: 0..0, cuts: 0, cut_pending: false };
    target.write_slot(&new.header.commit(&change).unwrap().write).unwrap();
    target
}

pub(super) fn seal(new: &NewHeader, block: u64, seal_gen: u32, byte: u8) -> Sealed {
    let buffer = Buffer::unpooled(STRIDE);
    new.header.content_key().seal(block, seal_gen, &[&[byte; 4096]], buffer).unwrap()
}

pub(super) fn nonce_in(stored: &[u8], block: usize) -> sealback_crypto::Nonce {
    sealback_crypto::Nonce::from_bytes(*stored[8192 + block * STRIDE..].first_chunk().unwrap())
}

#[test]
fn what_a_kill_left_half_done_is_carried_out_by_whoever_comes_next() {
    let killed = Killed::new();
    for n_bytes in [0, 1, 24, 48, 2000, STRIDE] {
        // By who opens it, alone or not,
        killed.kill_after(n_bytes);
        let alone = LocalServer::open_alone(&killed.dir, LocalOptions::default()).unwrap();
        alone.open(&name("a")).unwrap().read_header().unwrap();
        assert!(killed.is_mended(), "{n_bytes} bytes");
        drop(alone);
        killed.kill_after(n_bytes);
        let target = killed.open();
        target.read_header().unwrap();
        assert!(killed.is_mended(), "{n_bytes} bytes");
        // by who has it open and looks once more,
        killed.kill_after(n_bytes);
        target.read_header().unwrap();
        assert!(killed.is_mended(), "{n_bytes} bytes");
        // and by who changes something else: he finds what was to be there.
        killed.kill_after(n_bytes);
        let expected = Expected::Nonce(nonce_in(&killed.before, 2));
        write(&*target, &seal(&killed.new, 2, 3, 7), expected).unwrap();
        let stored = read(&*target, killed.new.header.geometry(), 1..2);
        assert_eq!(stored, killed.sealed.bytes(), "{n_bytes} bytes");
        let conflict = write(&*target, &seal(&killed.new, 1, 3, 8), Expected::Absent);
        assert!(conflict.is_err());
    }
}

#[test]
fn of_two_copies_of_a_file_the_one_that_was_being_written_is_mended() {
    let killed = Killed::new();
    killed.kill_after(2000);
    let copy = killed.dir.path().join("b");
    fs::write(&copy, &killed.before).unwrap();
    let server = open(killed.dir.path());
    let target = server.open(&name("b")).unwrap();
    target.read_header().unwrap();
    assert!(killed.is_mended());
    assert_eq!(fs::read(&copy).unwrap(), killed.before);
    // If that one is gone, or the tree was copied, it is what was being written.
    killed.kill_after(2000);
    fs::remove_file(killed.file()).unwrap();
    let torn = {
        let mut torn = killed.before.clone();
        torn[8192 + STRIDE..8192 + STRIDE + 2000].copy_from_slice(&killed.sealed.bytes()[..2000]);
        torn
    };
    fs::write(&copy, torn).unwrap();
    server.open(&name("b")).unwrap().read_header().unwrap();
    assert!(fs::read(&copy).unwrap() == killed.after());
}

#[test]
fn a_state_of_before_that_was_put_back_is_left_as_it_is() {
    let killed = Killed::new();
    let restore = |stored: &[u8]| {
        killed.kill_after(2000);
        fs::write(killed.file(), stored).unwrap();
        killed.open().read_header().unwrap();
        assert!(fs::read(killed.file()).unwrap() == stored);
    };
    // With an older header: of that, the block would be too new.
    let mut older = killed.before.clone();
    older[..8192].copy_from_slice(&killed.new.bytes[..]);
    restore(&older);
    // With something else in the block's place.
    let mut other = killed.before.clone();
    let newer = seal(&killed.new, 1, 3, 5);
    other[8192 + STRIDE..8192 + 2 * STRIDE].copy_from_slice(newer.bytes());
    restore(&other);
}

#[test]
fn a_journal_that_is_damaged_anywhere_harms_nothing() {
    let killed = Killed::new();
    let spoil = |journal: Vec<u8>| {
        killed.kill_after(2000);
        let torn = fs::read(killed.file()).unwrap();
        fs::write(killed.journal(), journal).unwrap();
        killed.open().read_header().unwrap();
        let found = fs::read(killed.file()).unwrap();
        assert!(found == torn || found == killed.after());
        // And the file can be gone on with.
        let expected = Expected::Nonce(nonce_in(&killed.before, 3));
        write(&*killed.open(), &seal(&killed.new, 3, 3, 7), expected).unwrap();
        found == torn
    };
    let mut record = killed.journal.clone();
    record[..128].fill(0);
    let ends = (0..700).chain((700..record.len()).step_by(97));
    let n_dropped = ends.clone().filter(|len| spoil(record[..*len].to_vec())).count();
    assert_eq!(n_dropped, ends.count(), "one that is cut off is none");
    for at in (512..700).chain((700..record.len()).step_by(97)) {
        let mut damaged = record.clone();
        damaged[at] ^= 0x55;
        // Behind the record there is nothing but padding.
        assert!(spoil(damaged) || at >= 512 + 104 + 64 + STRIDE, "byte {at}");
    }
    // A head that claims anything, and one of another run, or of another file.
    for at in 0..128 {
        let mut damaged = killed.journal.clone();
        damaged[at] ^= 0x55;
        spoil(damaged);
    }
    spoil(vec![0xff; 1 << 16]);
}

#[test]
fn a_block_that_was_a_hole_and_that_there_is_no_room_for_stays_a_hole() {
    let Some(small) = Small::mount() else { return };
    for durability in [Durability::Process, Durability::PowerCut] {
        let options = LocalOptions::default().with_durability(durability);
        let (server, new) = (LocalServer::open(small.path(), options).unwrap(), sample());
        let target = server.create(&name("a"), new.header.file_id(), &new.bytes).unwrap();
        let size = 1000 * 4096;
        let change = HeaderChange { size, holes: 0..1000, cuts: 0, cut_pending: false };
        let geometry = new.header.geometry();
        let file = fs::OpenOptions::new().write(true).open(small.path().join("a")).unwrap();
        file.set_len(geometry.stored_bytes(size)).unwrap();
        target.write_slot(&new.header.commit(&change).unwrap().write).unwrap();
        let sealed: Vec<_> = (0..100).map(|block| seal(&new, block, 3, 1)).collect();
        let goes = |sealed: &&Sealed| write(&*target, sealed, Expected::Absent).is_ok();
        let n_written = sealed.iter().filter(goes).count();
        assert!((1..100).contains(&n_written), "{n_written} blocks went through");
        for (block, sealed) in (0..).zip(&sealed) {
            let stored = read(&*target, geometry, block..block + 1);
            assert!(stored == sealed.bytes() || stored[..48] == [0; 48], "block {block}");
        }
        target.read_header().unwrap();
        drop((target, file));
        server.remove(&name("a")).unwrap();
    }
}

#[test]
fn what_a_kill_left_half_done_is_carried_out_after_the_machine_was_started_anew() {
    let killed = Killed::new();
    let journal = forged(&killed, 56, &[7; 16]);
    for n_bytes in [0, 1, 24, 48, 2000, STRIDE] {
        killed.kill_after(n_bytes);
        fs::write(killed.journal(), &journal).unwrap();
        killed.open().read_header().unwrap();
        assert!(killed.is_mended(), "{n_bytes} bytes");
    }
    // A hole may be newer than a log that nobody waited for.
    killed.kill_after(0);
    let mut hole = killed.before.clone();
    hole[8192 + STRIDE..8192 + 2 * STRIDE].fill(0);
    fs::write(killed.file(), &hole).unwrap();
    fs::write(killed.journal(), &journal).unwrap();
    killed.open().read_header().unwrap();
    assert!(fs::read(killed.file()).unwrap() == hole);
}

/// Goal: whoever may write to the directory gets nothing written elsewhere. Method: a journal that is a
/// link, and others that nobody could read.
#[test]
fn a_journal_that_leads_elsewhere_is_not_followed() {
    let killed = Killed::new();
    let victim = killed.dir.path().join("victim");
    fs::write(&victim, "mine").unwrap();
    let spoil = |put: &dyn Fn()| {
        fs::remove_file(killed.journal()).unwrap();
        put();
        let target = killed.open();
        drop(target.read_header());
        let expected = Expected::Nonce(nonce_in(&killed.before, 3));
        assert!(write(&*target, &seal(&killed.new, 3, 3, 7), expected).is_err());
        drop(target);
        assert_eq!(fs::read(&victim).unwrap(), b"mine");
    };
    spoil(&|| std::os::unix::fs::symlink(&victim, killed.journal()).unwrap());
    spoil(&|| {
        let made = std::process::Command::new("mkfifo").arg(killed.journal()).status().unwrap();
        assert!(made.success());
    });
    fs::remove_file(killed.journal()).unwrap();
    fs::create_dir(killed.journal()).unwrap();
    killed.open().read_header().unwrap();
}

#[test]
fn what_is_not_that_sealed_file_is_not_mended() {
    let killed = Killed::new();
    // It seems to have a size, and zeros where the block would be.
    let other = [vec![0xff; 8192], vec![0; 4 * STRIDE]].concat();
    let path = killed.dir.path().join("other");
    fs::write(&path, &other).unwrap();
    let inode = std::os::unix::fs::MetadataExt::ino(&fs::metadata(&path).unwrap());
    killed.kill_after(2000);
    fs::write(killed.journal(), forged(&killed, 40, &inode.to_le_bytes())).unwrap();
    killed.open().read_header().unwrap();
    assert!(fs::read(&path).unwrap() == other);
    assert!(killed.is_mended(), "it was what was being written, in another tree");
}

#[test]
fn a_journal_is_there_as_long_as_it_speaks_of_a_file() {
    let killed = Killed::new();
    let server = open(killed.dir.path());
    // Of a copy's removal, and of that of one of two names.
    for (put, n_bytes) in [(0, 2000), (1, 2000)] {
        killed.kill_after(n_bytes);
        let other = killed.dir.path().join("b");
        match put {
            0 => fs::write(&other, &killed.before).unwrap(),
            _ => fs::hard_link(killed.file(), &other).unwrap(),
        }
        server.remove(&name("b")).unwrap();
        killed.open().read_header().unwrap();
        assert!(killed.is_mended());
    }
    killed.kill_after(2000);
    server.remove(&name("a")).unwrap();
    assert!(!killed.journal().exists());
}

/// Goal: no journal makes anybody wait, or takes memory. Method: one that says that it is very long.
#[test]
fn a_record_of_a_later_header_or_of_blocks_that_the_file_has_not_is_not_carried_out() {
    let killed = Killed::new();
    let generation = HeaderClaims::of(killed.before.first_chunk().unwrap()).generation;
    // Each by itself: the size is the same, or the generation.
    let later = (48, (generation + 1).to_le_bytes());
    let outside = (104, N_BLOCKS.to_le_bytes());
    for (at, field) in [later, outside] {
        killed.kill_after(2000);
        let torn = fs::read(killed.file()).unwrap();
        fs::write(killed.journal(), forged(&killed, at, &field)).unwrap();
        killed.open().read_header().unwrap();
        assert!(fs::read(killed.file()).unwrap() == torn, "the field at {at}");
    }
    killed.kill_after(2000);
    fs::write(killed.journal(), forged(&killed, 48, &generation.to_le_bytes())).unwrap();
    killed.open().read_header().unwrap();
    assert!(killed.is_mended(), "the same forged otherwise is carried out");
}

#[test]
fn a_journal_that_claims_to_be_huge_is_none() {
    let killed = Killed::new();
    for (at, field) in [(24, &[0xff; 4][..]), (32, &[0, 0, 0, 0, 0, 2, 0, 0])] {
        killed.kill_after(2000);
        let torn = fs::read(killed.file()).unwrap();
        fs::write(killed.journal(), forged(&killed, at, field)).unwrap();
        let journal = fs::OpenOptions::new().write(true).open(killed.journal()).unwrap();
        journal.set_len(1 << 42).unwrap();
        killed.open().read_header().unwrap();
        assert!(fs::read(killed.file()).unwrap() == torn);
    }
    // And a head that says that all was carried out, up to a place that no file has.
    killed.kill_after(STRIDE);
    let mut head = killed.journal[..128].to_vec();
    head[40..48].fill(0xff);
    let mut hasher = blake3::Hasher::new();
    hasher.update(killed.new.header.file_id().to_string().as_bytes()).update(&head[..96]);
    head[96..].copy_from_slice(hasher.finalize().as_bytes());
    fs::write(killed.journal(), head).unwrap();
    killed.open().read_header().unwrap();
    let expected = Expected::Nonce(nonce_in(&killed.before, 3));
    write(&*killed.open(), &seal(&killed.new, 3, 3, 7), expected).unwrap();
}

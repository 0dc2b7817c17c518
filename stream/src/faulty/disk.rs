//! A disk with a volatile cache: what a crash leaves of what was written to it.
//!
//! **The fault model.** A process sees what was written last. The disk has, of each sector, what it
//! held at the last sync, or what any write since made of it, each sector for itself: writes are
//! dropped, torn at sector borders and reordered; so are changes of a file's length. A kill takes
//! nothing back, but cuts the write that it meets at a page border. From the crash on nothing goes
//! through.

use std::{
    io::{self, IoSlice},
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use fastrand::Rng;

use crate::flat::{Flat, Through};

/// What crashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Crash {
    /// The process: what it wrote is there for the next one.
    Kill,
    /// The machine: what was not synced may be there or not.
    PowerCut,
    /// The process; then the machine is started anew in peace: the disk has what was written.
    Restart,
}

/// A disk, and whatever is stored on it. Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    n_changes: u64,
    /// That many changes are made, and the one that follows is the last, and not made whole.
    stop_after: Option<u64>,
    /// Where the last one is cut.
    rng: Option<Rng>,
    n_syncs: u64,
    files: Vec<Stored>,
}

/// A file: what is seen of it, and what it was at the last sync and after each change since.
#[derive(Clone, Debug, Default)]
struct Stored {
    seen: Vec<u8>,
    /// Never more than what is seen once it is synced.
    past: Vec<Vec<u8>>,
}

impl Disk {
    /// A new file, empty, and durably so.
    pub(crate) fn make(&self) -> DiskBytes {
        let mut state = self.state();
        state.files.push(Stored::default());
        DiskBytes { disk: self.clone(), file: state.files.len() - 1 }
    }

    pub(crate) fn stop_after(&self, n_changes: u64, rng: Rng) {
        let mut state = self.state();
        (state.stop_after, state.rng) = (Some(n_changes), Some(rng));
    }

    pub(crate) fn n_changes(&self) -> u64 {
        self.state().n_changes
    }

    pub(crate) fn n_syncs(&self) -> u64 {
        self.state().n_syncs
    }

    /// The disk after a crash. Nothing can be done with this one any more.
    pub(crate) fn crash(&self, crash: Crash, rng: &mut Rng) -> Disk {
        let mut state = self.state();
        state.stop_after = Some(0);
        let files = match crash {
            Crash::Kill => state.files.clone(),
            Crash::Restart => state.files.iter().map(Stored::synced).collect(),
            Crash::PowerCut => state.files.iter().map(|stored| stored.lose_power(rng)).collect(),
        };
        Disk(Arc::new(Mutex::new(State { files, ..State::default() })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// What becomes of the next change.
    fn next(&mut self) -> Fate {
        let fate = match self.stop_after {
            None => Fate::Made,
            Some(after) if self.n_changes < after => Fate::Made,
            Some(after) if self.n_changes == after => Fate::Last,
            Some(_) => Fate::Refused,
        };
        self.n_changes += 1;
        fate
    }

    /// Changes a file, or what is left of it when the crash comes.
    fn change(&mut self, file: usize, change: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        let fate = self.next();
        if fate != Fate::Refused {
            let stored = &mut self.files[file];
            stored.past.push(stored.seen.clone());
            change(&mut stored.seen);
        }
        if fate == Fate::Made { Ok(()) } else { Err(stopped()) }
    }
}

/// What becomes of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Made,
    /// The crash comes in the middle of it.
    Last,
    Refused,
}

fn stopped() -> io::Error {
    // Of a kind that nobody tries again.
    io::Error::new(io::ErrorKind::PermissionDenied, "the machine has crashed")
}

impl Stored {
    /// The same once the disk has all of it.
    fn synced(&self) -> Stored {
        Stored { seen: self.seen.clone(), past: Vec::new() }
    }

    /// What the disk has: of each sector, and of the length, what some moment since the last sync made
    /// of it.
    fn lose_power(&self, rng: &mut Rng) -> Stored {
        let moments: Vec<&Vec<u8>> = self.past.iter().chain([&self.seen]).collect();
        // Now and then everything, or nothing, is there.
        let style = rng.u8(..8);
        let mut any = || match style {
            0 => moments[0],
            1 => moments[moments.len() - 1],
            _ => moments[rng.usize(..moments.len())],
        };
        let mut bytes = vec![0; any().len()];
        for at in (0..bytes.len()).step_by(SECTOR_LEN) {
            let end = bytes.len().min(at + SECTOR_LEN);
            let moment = any();
            let there = at.min(moment.len())..end.min(moment.len());
            bytes[at..at + there.len()].copy_from_slice(&moment[there]);
        }
        Stored { seen: bytes, past: Vec::new() }
    }
}

/// The bytes of one file on a disk.
#[derive(Clone, Debug)]
pub(crate) struct DiskBytes {
    disk: Disk,
    file: usize,
}

impl DiskBytes {
    /// The same file on another disk.
    pub(crate) fn on(&self, disk: &Disk) -> DiskBytes {
        DiskBytes { disk: disk.clone(), file: self.file }
    }

    /// A number that no other file has.
    pub(crate) fn number(&self) -> u64 {
        self.file as u64
    }
}

impl Flat for DiskBytes {
    fn len(&self) -> io::Result<u64> {
        Flat::len(&self.disk.state().files[self.file].seen)
    }

    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<usize> {
        self.disk.state().files[self.file].seen.read_at(at, into)
    }

    fn write_at(&mut self, at: u64, pieces: &mut [IoSlice<'_>]) -> Through {
        let bytes: Vec<u8> = pieces.iter().flat_map(|piece| piece.iter().copied()).collect();
        let mut state = self.disk.state();
        let stops = state.stop_after == Some(state.n_changes);
        let written = if stops { cut_at_page(at, &bytes, state.rng.as_mut()) } else { &bytes };
        let error = state.change(self.file, |seen| drop(write(seen, at, written))).err();
        let bytes = if error.is_none() { bytes.len() as u64 } else { 0 };
        Through { bytes, error }
    }

    fn punch(&mut self, stored: Range<u64>) -> io::Result<bool> {
        self.disk.state().change(self.file, |seen| drop(seen.punch(stored))).map(|()| true)
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        self.disk.state().change(self.file, |seen| drop(Flat::set_len(seen, len)))
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut state = self.disk.state();
        if state.next() != Fate::Made {
            return Err(stopped());
        }
        state.n_syncs += 1;
        state.files[self.file].past.clear();
        Ok(())
    }
}

fn write(seen: &mut Vec<u8>, at: u64, bytes: &[u8]) -> io::Result<()> {
    seen.write_at(at, &mut [IoSlice::new(bytes)]).whole()
}

/// As much of a write as a kill lets through.
fn cut_at_page<'a>(at: u64, bytes: &'a [u8], rng: Option<&mut Rng>) -> &'a [u8] {
    let within = usize::try_from(at % PAGE_LEN as u64).unwrap_or(0);
    let borders = (PAGE_LEN - within..bytes.len()).step_by(PAGE_LEN);
    let borders: Vec<usize> = [0].into_iter().chain(borders).collect();
    let border = rng.and_then(|rng| rng.choice(&borders).copied()).unwrap_or(0);
    &bytes[..border]
}

const SECTOR_LEN: usize = 512;
const PAGE_LEN: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_power_cut_leaves_of_each_sector_what_some_moment_since_the_last_sync_made_of_it() {
        let mut rng = Rng::with_seed(1);
        let mut met = [[false; 3]; 4];
        for _cut in 0..300 {
            let disk = Disk::default();
            let mut file = disk.make();
            write_all(&mut file, 1);
            file.sync().unwrap();
            write_all(&mut file, 2);
            write_all(&mut file, 3);
            let after = file.on(&disk.crash(Crash::PowerCut, &mut rng));
            let mut bytes = [0; 2048];
            assert_eq!(after.read_at(0, &mut bytes).unwrap(), bytes.len());
            for (sector, met) in bytes.chunks_exact(SECTOR_LEN).zip(&mut met) {
                assert!(sector.iter().all(|byte| *byte == sector[0]), "a sector is torn");
                met[usize::from(sector[0]) - 1] = true;
            }
            let refused = file.write_at(0, &mut [IoSlice::new(&[9])]);
            assert!(refused.error.is_some() && refused.bytes == 0);
        }
        assert_eq!(met, [[true; 3]; 4], "each sector has been met in each state");
    }

    #[test]
    fn a_kill_cuts_the_write_that_it_meets_at_a_page_border_and_takes_nothing_back() {
        let mut lens = std::collections::BTreeSet::new();
        for seed in 0..100 {
            let disk = Disk::default();
            let mut file = disk.make();
            write_all(&mut file, 1);
            disk.stop_after(1, Rng::with_seed(seed));
            assert!(file.write_at(1000, &mut [IoSlice::new(&[2; 9000])]).error.is_some());
            let after = file.on(&disk.crash(Crash::Kill, &mut Rng::with_seed(seed)));
            lens.insert(after.len().unwrap());
        }
        assert_eq!(lens.into_iter().collect::<Vec<_>>(), [2048, 4096, 8192]);
    }

    fn write_all(file: &mut DiskBytes, byte: u8) {
        assert!(file.write_at(0, &mut [IoSlice::new(&[byte; 2048])]).error.is_none());
    }
}

//! Reads ahead of a handle that reads one byte after the other.
//!
//! What was read ahead is good as long as nothing was written to the file since it was asked for;
//! it is plaintext, and wiped when it is dropped.

use std::{collections::VecDeque, ops::Range};

use crate::{
    Error,
    config::READ_UNIT_BYTES,
    folio::FolioBytes,
    open_file::OpenFile,
    ranges::index_of,
    sync::{Arc, Condvar, Mutex, PoisonError, thread},
};

const UNIT: u64 = READ_UNIT_BYTES as u64;

/// One handle's reading ahead.
#[derive(Debug, Default)]
pub(crate) struct Readahead {
    /// Where the last read ended: one that begins there is sequential.
    next: u64,
    units: VecDeque<Unit>,
}

#[derive(Debug)]
struct Unit {
    range: Range<u64>,
    writes: u64,
    slot: Arc<Slot>,
}

#[derive(Debug, Default)]
struct Slot {
    outcome: Mutex<Option<Result<FolioBytes, Error>>>,
    ready: Condvar,
}

impl Readahead {
    /// Reads at `position` into `to`; returns how many bytes there were, as
    /// [`OpenFile::read`] does.
    pub(crate) fn read(
        &mut self,
        file: &Arc<OpenFile>,
        position: u64,
        to: &mut [u8],
    ) -> Result<usize, Error> {
        let end = position + to.len() as u64;
        if position != self.next {
            self.units.clear();
        } else {
            self.ask(file, position, end);
        }
        self.next = end;
        let mut at = position;
        while at < end {
            let offset = index_of(at - position);
            let rest = &mut to[offset..];
            at += match self.take(file, at, rest)? {
                0 => {
                    let read = file.read(at, rest)?;
                    if read < rest.len() {
                        return Ok(offset + read);
                    }
                    read as u64
                }
                taken => taken as u64,
            };
        }
        Ok(to.len())
    }

    /// Asks for the units behind `position`, as far ahead of `end` as is configured, on other
    /// threads.
    fn ask(&mut self, file: &Arc<OpenFile>, position: u64, end: u64) {
        let (size, writes) = {
            let folios = file.folios();
            (folios.size(), folios.writes())
        };
        self.units.retain(|unit| unit.range.end > position && unit.writes == writes);
        let ahead = file.core.config.readahead_bytes as u64;
        let last = end.saturating_add(ahead).min(size);
        let mut start = self.units.back().map_or(end / UNIT * UNIT, |unit| unit.range.end);
        while start < last && ahead > 0 {
            let Some(mut memory) = file.core.read_units.try_take() else { break };
            let range = start..(start + UNIT).min(size);
            let slot = Arc::new(Slot::default());
            self.units.push_back(Unit { range: range.clone(), writes, slot: slot.clone() });
            start = range.end;
            // A file that is closed meanwhile is not kept open by what nobody will read.
            let weak = Arc::downgrade(file);
            file.core.io.read_ahead(move || {
                let slot = Answering(slot);
                let outcome = weak.upgrade().ok_or(Error::Closed).and_then(|file| {
                    let to = &mut memory.as_mut_slice()[..index_of(range.end - range.start)];
                    file.read(range.start, to)
                });
                // If there was less, the file was cut, and what was read ahead is not used.
                slot.0.set(outcome.map(|_read| memory));
            });
        }
    }

    /// Copies what was read ahead at `position`, if it is still good; returns how many bytes.
    fn take(&mut self, file: &Arc<OpenFile>, position: u64, to: &mut [u8]) -> Result<usize, Error> {
        let Some(unit) = self.units.iter().find(|unit| unit.range.contains(&position)) else {
            return Ok(0);
        };
        let mut outcome = unit.slot.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        while outcome.is_none() {
            outcome = unit.slot.ready.wait(outcome).unwrap_or_else(PoisonError::into_inner);
        }
        // A failed unit, or one from before a write, is read again at the place itself.
        let Some(Ok(bytes)) = &*outcome else { return Ok(0) };
        if file.folios().writes() != unit.writes {
            return Ok(0);
        }
        let from = index_of(position - unit.range.start);
        let len = index_of(unit.range.end - position).min(to.len());
        to[..len].copy_from_slice(&bytes.as_ref()[from..from + len]);
        Ok(len)
    }
}

/// Answers even if the read panics: somebody may be waiting.
struct Answering(Arc<Slot>);

impl Drop for Answering {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.set(Err(Error::Closed));
        }
    }
}

impl Slot {
    fn set(&self, outcome: Result<FolioBytes, Error>) {
        *self.outcome.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
        self.ready.notify_all();
    }
}

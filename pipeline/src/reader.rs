//! Reading what is stored: from the cache, then from the server what the cache lacks or has damaged.
//!
//! Stored bytes are read on the caller's thread, a unit at a time, while the crypto pool opens the
//! units before. A damaged block is read again, a bounded number of times, before it is
//! reported: somebody else may be writing it.

use std::{collections::VecDeque, ops::Range, time::Duration};

use sealback_crypto::{BlockDamage, Buffer, FileView, Geometry, Opened, Plaintext, Stored};
use sealback_stream::{
    Expected, Read, ReadCompletion, Target, TargetError, TargetErrorKind, read_whole,
};
use zeroize::Zeroize;

use crate::{
    Error,
    config::READ_UNIT_BYTES,
    copying::Copying,
    io::contain,
    open_file::OpenFile,
    ranges::{hull, index_of},
    sync::{crossbeam_channel, thread},
    waits::WaitFor,
};

mod view;

pub(crate) use view::reaches_behind;
use view::{View, is_longer};

/// How often a target is asked, and a damaged block read, while nobody commits.
pub(crate) const MAX_READS: u32 = 8;
/// Commits by others that are a reason to begin anew.
const MAX_FRESH_STARTS: u32 = 64;
/// The pause before the third of these reads; it doubles from there.
const FIRST_PAUSE: Duration = Duration::from_micros(50);
/// Units read in one go: bounds the memory of a large read.
pub(crate) const UNITS_AT_ONCE: usize = 8;

/// A run of blocks that is read and opened in one go.
struct Unit<'a> {
    blocks: Range<u64>,
    /// Where it goes, one slice after the other.
    plain: Vec<&'a mut [u8]>,
    outcome: Outcome,
    /// What came from the server.
    came: Option<Opened>,
}

/// Slices that are filled one after the other.
struct Slices<'a>(VecDeque<&'a mut [u8]>);

impl<'a> Slices<'a> {
    /// The next `len` bytes.
    fn take(&mut self, mut len: usize) -> Vec<&'a mut [u8]> {
        let mut taken = Vec::new();
        while len > 0 {
            let slice = self.0.pop_front().expect("there are as many as are wanted");
            let (part, behind) = slice.split_at_mut(len.min(slice.len()));
            len -= part.len();
            taken.push(part);
            if !behind.is_empty() {
                self.0.push_front(behind);
            }
        }
        taken
    }
}

/// Where a unit was read.
enum Source {
    /// From the cache, whose record has these nonces.
    Cache { expected: Vec<Expected> },
    /// From the server.
    Server,
}

enum Outcome {
    Pending,
    Opened(Vec<Expected>),
    Damaged(BlockDamage),
    Failed(TargetError),
}

impl OpenFile {
    /// Reads a range that no folio holds, whatever its ends, of a file of `size` bytes.
    pub(crate) fn read_stored(
        &self,
        range: &Range<u64>,
        to: &mut [u8],
        size: u64,
    ) -> Result<(), Error> {
        let geometry = self.geometry();
        let whole = geometry.blocks_within(range.clone());
        let mut aligned = geometry.block_start(whole.start)..geometry.block_start(whole.end);
        if aligned.is_empty() {
            aligned = range.end..range.end;
        }
        if range.end == size && geometry.block_at(size) == geometry.block_at(aligned.end) {
            aligned.end = size;
        }
        let at = |position: u64| index_of(position - range.start);
        if !aligned.is_empty() {
            let to = &mut to[at(aligned.start)..at(aligned.end)];
            self.fetch(aligned.clone(), vec![to], size)?;
        }
        for edge in [range.start..aligned.start, aligned.end..range.end] {
            let mut start = edge.start;
            while start < edge.end {
                let block = geometry.block_start(geometry.block_at(start));
                let block = block..(block + geometry.block_bytes()).min(size);
                let end = block.end.min(edge.end);
                let mut plain = Plaintext::zeros(index_of(block.end - block.start));
                self.fetch(block.clone(), vec![&mut plain], size)?;
                let from = index_of(start - block.start)..index_of(end - block.start);
                to[at(start)..at(end)].copy_from_slice(&plain[from]);
                start = end;
            }
        }
        Ok(())
    }

    /// Reads and opens whole blocks: `range` begins with one, and ends with one or at `size`, the
    /// file's when the range was found to be missing: what is appended meanwhile is not judged.
    /// `to` are slices that are filled one after the other. Returns for each block what a change of it
    /// is to expect.
    pub(crate) fn fetch(
        &self,
        range: Range<u64>,
        to: Vec<&mut [u8]>,
        size: u64,
    ) -> Result<Vec<Expected>, Error> {
        let geometry = self.geometry();
        // What was never sent there is zeros, and no reason to call a block short.
        let size = size.min(self.folios().sent_to());
        let mut left = index_of(size.saturating_sub(range.start).min(range.end - range.start));
        let mut to = Slices(to.into());
        let unit_bytes = READ_UNIT_BYTES.max(index_of(geometry.block_bytes()));
        let mut stored = Vec::new();
        let mut first = geometry.block_at(range.start);
        while left > 0 {
            let mut units = Vec::new();
            while left > 0 && units.len() < UNITS_AT_ONCE {
                let len = left.min(unit_bytes);
                left -= len;
                let blocks = first..first + geometry.n_blocks(len as u64);
                first = blocks.end;
                let (plain, outcome) = (to.take(len), Outcome::Pending);
                units.push(Unit { blocks, plain, outcome, came: None });
            }
            self.fetch_units(&mut units, size)?;
            for unit in units {
                let Outcome::Opened(opened) = unit.outcome else {
                    unreachable!("fetch_units opens every unit, or fails")
                };
                stored.extend(opened);
            }
        }
        to.0.into_iter().for_each(|never_sent| never_sent.fill(0));
        let n_blocks = geometry.n_blocks(range.end - range.start);
        stored.resize(index_of(n_blocks), Expected::Absent);
        Ok(stored)
    }

    fn fetch_units(&self, units: &mut [Unit<'_>], size: u64) -> Result<(), Error> {
        let first = units.first().map_or(0, |unit| unit.blocks.start);
        let copying = self.begin_copying(first..units.last().map_or(first, |unit| unit.blocks.end));
        let view = self.view(size);
        let cache = self.cache();
        let mut from_cache = vec![false; units.len()];
        self.core.workers.scope(|scope| {
            let alone = units.len() == 1;
            for (unit, from_cache) in units.iter_mut().zip(&mut from_cache) {
                let present = cache.as_ref().map(|cache| cache.present(unit.blocks.clone()));
                let present = present.filter(|nonces| nonces.iter().all(Option::is_some));
                *from_cache = present.is_some();
                let target: &dyn Target = match &cache {
                    Some(cache) if *from_cache => &**cache,
                    _ => &*self.target,
                };
                let source = match present {
                    Some(nonces) => {
                        Source::Cache { expected: nonces.into_iter().map(Expected::of).collect() }
                    }
                    None => Source::Server,
                };
                let view = &view;
                match self.read_blocks(target, unit.blocks.clone()) {
                    Err(error) => unit.outcome = Outcome::Failed(error),
                    Ok(stored) if alone => self.open_unit(unit, view, stored, source),
                    Ok(stored) => {
                        scope.spawn(move |_| self.open_unit(unit, view, stored, source));
                    }
                }
            }
        });
        for (unit, from_cache) in units.iter_mut().zip(from_cache) {
            if !matches!(unit.outcome, Outcome::Opened(_)) {
                if let (Some(cache), true) = (&cache, from_cache) {
                    // Damaged or stale: it costs a read of the server, and is not read again.
                    if cache.forget(unit.blocks.clone()).is_err() {
                        self.drop_cache();
                    }
                }
                self.fetch_again(unit, size)?;
            }
        }
        let came = units.iter_mut().filter_map(|unit| unit.came.take());
        came.for_each(|opened| self.offer_to_cache(opened, copying.as_ref()));
        Ok(())
    }

    /// Reads blocks once, from the server and for the cache alone. What does not open is left out.
    pub(crate) fn fetch_copies(
        &self,
        blocks: Range<u64>,
        copying: &Copying<'_>,
    ) -> Result<(), TargetError> {
        let geometry = self.geometry();
        let size = {
            let folios = self.folios();
            folios.size().min(folios.sent_to())
        };
        let start = geometry.block_start(blocks.start);
        let len = geometry.block_start(blocks.end).min(size).saturating_sub(start);
        if len == 0 {
            return Ok(());
        }
        let blocks = blocks.start..blocks.start + geometry.n_blocks(len);
        let view = self.view(size);
        let stored = self.read_blocks(&*self.target, blocks.clone())?;
        let mut plain = Plaintext::zeros(index_of(len));
        let (plain, outcome) = (vec![&mut plain[..]], Outcome::Pending);
        let mut unit = Unit { blocks, plain, outcome, came: None };
        self.open_unit(&mut unit, &view, stored, Source::Server);
        if let Some(opened) = unit.came.take() {
            self.offer_to_cache(opened, Some(copying));
        }
        Ok(())
    }

    /// Reads a unit from the server until it opens, or has been damaged once too often: a commit by
    /// somebody else is a reason to begin anew.
    fn fetch_again(&self, unit: &mut Unit<'_>, size: u64) -> Result<(), Error> {
        let (mut attempt, mut fresh_starts) = (1, 0);
        loop {
            let before = self.header();
            match self.read_blocks(&*self.target, unit.blocks.clone()) {
                Err(error) => unit.outcome = Outcome::Failed(error),
                Ok(stored) => self.open_unit(unit, &self.view(size), stored, Source::Server),
            }
            attempt += 1;
            match &unit.outcome {
                Outcome::Opened(_) => return Ok(()),
                Outcome::Damaged(damage) if attempt > MAX_READS => {
                    return Err(Error::Damaged(*damage));
                }
                Outcome::Failed(error) if attempt > MAX_READS || !error.is_transient() => {
                    let geometry = before.geometry();
                    let start = geometry.block_start(unit.blocks.start);
                    let bytes: usize = unit.plain.iter().map(|slice| slice.len()).sum();
                    let range = start..start + bytes as u64;
                    let (attempts, source) = (attempt - 1, error.clone());
                    return Err(Error::Unread { range, attempts, source });
                }
                _ => {}
            }
            // Somebody else may have committed since: what he wrote is judged by his header, and
            // what he is about to write may be met half written once more.
            let now = self.look_for_cut(&before)?;
            if now.generation() > before.generation() {
                self.adopt_beside_ours(now)?;
                fresh_starts += 1;
                if fresh_starts <= MAX_FRESH_STARTS {
                    attempt = 1;
                }
            } else {
                pause_before(attempt);
            }
        }
    }

    /// What decides how blocks read now: the header, and what this client has written since.
    fn view(&self, size: u64) -> View {
        let generation = self.header().generation();
        let folios = self.folios();
        let holes = folios.holes();
        let mut grown = folios.grown_blocks();
        grown.retain(|(block, _)| !holes.contains(block));
        let allow = |allowed, (block, _): &(u64, u64)| hull(&allowed, &(*block..block + 1));
        let allowed = grown.iter().fold(holes.clone(), allow);
        let file = FileView { size, generation, holes: allowed };
        View { file, holes, grown }
    }

    /// Reads what is stored of blocks, in however many answers it comes.
    pub(crate) fn read_blocks(
        &self,
        target: &dyn Target,
        blocks: Range<u64>,
    ) -> Result<Stored, TargetError> {
        read_whole(self.geometry(), blocks, |blocks| self.read_once(target, blocks))
    }

    /// Reads what the server has of a block, with the patience of all control operations.
    pub(crate) fn read_block(&self, block: u64) -> Result<Stored, Error> {
        self.core.persist(None, || Ok(self.read_blocks(&*self.target, block..block + 1)?))
    }

    fn read_once(&self, target: &dyn Target, blocks: Range<u64>) -> Result<Stored, TargetError> {
        let geometry = self.geometry();
        let bytes = index_of((blocks.end - blocks.start) * geometry.stride_bytes());
        let pooled = self.core.read_buffers.try_take().filter(|buffer| buffer.len() >= bytes);
        let buffer = pooled.unwrap_or_else(|| Buffer::unpooled(bytes));
        let waiting = self.waits(WaitFor::Read);
        let (buffer, len) = read_now(target, geometry, blocks, buffer)?;
        drop(waiting);
        // The target may have claimed anything, and given back another buffer.
        let len = len.min(bytes).min(buffer.len());
        Ok(Stored { buffer, len })
    }

    fn open_unit(&self, unit: &mut Unit<'_>, view: &View, stored: Stored, source: Source) {
        let header = self.header();
        let plain = unit.plain.iter_mut().map(|slice| &mut **slice).collect();
        let opened = header.content_key().open_into(&view.file, unit.blocks.start, stored, plain);
        let damage = opened.first_damage().copied();
        if let Some(damage) = damage.or_else(|| view.first_too_short(&unit.blocks, &opened)) {
            unit.plain.iter_mut().for_each(|slice| slice.zeroize());
            unit.outcome = Outcome::Damaged(damage);
            return;
        }
        let geometry = self.geometry();
        if self.is_lockless() {
            self.note_what_is_behind(&unit.blocks, &opened, header.size());
        }
        let verdicts = unit.blocks.clone().zip(opened.verdicts());
        let stored = verdicts.map(|(block, verdict)| {
            match is_longer(verdict, geometry, block, view.file.size) {
                true => Expected::UNKNOWN,
                false => Expected::of(opened.nonce(block)),
            }
        });
        let stored: Vec<Expected> = stored.collect();
        match source {
            Source::Cache { expected } if expected != stored => {
                unit.outcome = Outcome::Failed(TargetError::new(
                    TargetErrorKind::Io,
                    "the cache's record and its blocks differ",
                ));
                return;
            }
            Source::Cache { .. } => {}
            Source::Server => unit.came = Some(opened),
        }
        unit.outcome = Outcome::Opened(stored);
    }
}

/// Waits before somebody else's block is looked at once more: he may be writing it.
pub(crate) fn pause_before(attempt: u32) {
    thread::sleep(FIRST_PAUSE.saturating_mul(1 << attempt.saturating_sub(3)));
}

/// Reads blocks and waits for them.
fn read_now(
    target: &dyn Target,
    geometry: Geometry,
    blocks: Range<u64>,
    buffer: Buffer,
) -> Result<(Buffer, usize), TargetError> {
    let (sender, receiver) = crossbeam_channel::bounded(1);
    let done = ReadCompletion::new(move |outcome| {
        // The reader waits for this; it cannot have gone away.
        let _ = sender.send(outcome);
    });
    contain(|| target.read(Read { blocks, geometry, buffer }, done));
    receiver.recv().unwrap_or_else(|_| {
        Err(TargetError::new(TargetErrorKind::Dropped, "a read ended without an answer"))
    })
}

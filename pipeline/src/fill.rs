//! Fetching into the page cache: for a reader, ahead of one, and for blocks that are to be sealed.
//!
//! What is fetched goes into the memory of new folios at once; nothing is copied. Two readers of the
//! same blocks fetch them once: the second one waits.

use std::ops::Range;

use crate::{
    Error,
    config::READ_UNIT_BYTES,
    folio::FolioBytes,
    open_file::OpenFile,
    ranges::index_of,
    reader::UNITS_AT_ONCE,
    sync::{Arc, PoisonError},
    waits::WaitFor,
};

/// Whether what was fetched is in the folios.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Filled {
    Yes,
    /// Something of it was evicted meanwhile, and may have been newer.
    Outdated,
}

impl OpenFile {
    /// Reads at `position` into `to`; returns how many bytes there were: fewer than asked only at
    /// the file's end.
    pub(crate) fn read(
        &self,
        position: u64,
        to: &mut [u8],
        read_missing: impl Fn(&OpenFile, &Range<u64>, &mut [u8], u64) -> Result<(), Error>,
    ) -> Result<usize, Error> {
        let _sizes = self.hold_sizes();
        let size = self.folios().size();
        let end = size.min(position.saturating_add(to.len() as u64)).max(position);
        let mut at = position;
        while at < end {
            let rest = &mut to[index_of(at - position)..index_of(end - position)];
            let Some(missing) = self.read_held(&(at..end), rest) else { break };
            let piece = missing.start..missing.end.min(missing.start + self.piece_bytes());
            let to = &mut rest[index_of(piece.start - at)..index_of(piece.end - at)];
            read_missing(self, &piece, to, size)?;
            at = piece.end;
        }
        Ok(index_of(end - position))
    }

    /// Copies what folios hold of a range, and returns the first stretch that they don't and that
    /// nobody is fetching.
    fn read_held(&self, range: &Range<u64>, to: &mut [u8]) -> Option<Range<u64>> {
        let mut folios = self.folios();
        loop {
            let missing = folios.read(range, to).into_iter().next()?;
            if !folios.is_fetching(&self.geometry().blocks_covering(missing.clone())) {
                return Some(missing);
            }
            let _waiting = self.waits(WaitFor::Fetched);
            folios = self.fetched.wait(folios).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// How much is fetched in one go: enough to keep the crypto pool busy, and no more than a part of
    /// what all folios may hold.
    fn piece_bytes(&self) -> u64 {
        let budget = self.core.folios.max() * self.core.folios.folio_bytes();
        (READ_UNIT_BYTES * UNITS_AT_ONCE).min(budget / 4) as u64
    }

    /// Fetches a range into the folios and copies it from there; or past them, if they have no memory
    /// to be had without waiting.
    pub(crate) fn read_missing(
        &self,
        range: &Range<u64>,
        to: &mut [u8],
        size: u64,
    ) -> Result<(), Error> {
        let n_folios = self.folios().n_without_memory(range);
        if let Some(memory) = self.spare_memory(n_folios)
            && self.fill_into(range, memory, size)? == Filled::Yes
            && self.folios().read(range, to).is_empty()
        {
            return Ok(());
        }
        self.read_stored(range, to, size)
    }

    /// Fetches what folios lack of a range, as far as there is memory; what fails is left to who reads
    /// it.
    pub(crate) fn fill_ahead(&self, range: &Range<u64>) {
        let _sizes = self.hold_sizes();
        let (missing, size) = {
            let folios = self.folios();
            let range = range.start.min(folios.size())..range.end.min(folios.size());
            (folios.missing(&range), folios.size())
        };
        for missing in missing {
            let blocks = self.geometry().blocks_covering(missing.clone());
            let (fetching, n_folios) = {
                let folios = self.folios();
                (folios.is_fetching(&blocks), folios.n_without_memory(&missing))
            };
            if !fetching && let Some(memory) = self.spare_memory(n_folios) {
                let _ = self.fill_into(&missing, memory, size);
            }
        }
    }

    /// Reads what the server has of `range`, and puts it into the folios where they have nothing
    /// newer; not at all if something of it was evicted meanwhile, since that may be newer. Waits for
    /// memory.
    pub(crate) fn fill(self: &Arc<Self>, range: &Range<u64>) -> Result<(), Error> {
        let memory = self.memory_to_fill(range)?;
        let size = self.folios().size();
        self.fill_into(range, memory, size).map(drop)
    }

    /// The same for a block that is to be written back. Waits for no memory: writeback makes it.
    pub(crate) fn fill_to_seal(&self, block: u64) -> Result<(), Error> {
        let geometry = self.geometry();
        let (range, size, n_folios) = {
            let folios = self.folios();
            let (start, size) = (geometry.block_start(block), folios.size());
            let range = start..size.min(start + geometry.block_bytes()).max(start);
            let n_folios = folios.n_without_memory(&range);
            (range, size, n_folios)
        };
        if range.is_empty() {
            return Ok(());
        }
        let memory = self.spare_memory(n_folios).unwrap_or_default();
        self.fill_into(&range, memory, size).map(drop)
    }

    /// Fetches all blocks of `range`, of a file of `size` bytes, into the folios.
    fn fill_into(
        &self,
        range: &Range<u64>,
        memory: Vec<FolioBytes>,
        size: u64,
    ) -> Result<Filled, Error> {
        let geometry = self.geometry();
        let blocks = geometry.blocks_covering(range.clone());
        let end = geometry.block_start(blocks.end).min(size);
        let range = geometry.block_start(blocks.start)..end;
        let (fetch, mut pieces) = {
            let mut folios = self.folios();
            (folios.begin_fetch(blocks.clone()), folios.pieces(&range, memory))
        };
        let to = pieces.iter_mut().map(|piece| piece.as_mut_slice()).collect();
        let fetched = self.fetch(range, to, size);
        let mut folios = self.folios();
        let current = folios.end_fetch(fetch);
        self.fetched.notify_all();
        let stored = fetched?;
        if !current {
            return Ok(Filled::Outdated);
        }
        for piece in pieces {
            folios.take_in(piece, &self.core.folios);
        }
        for (block, stored) in blocks.zip(stored) {
            folios.fetched(block, stored);
        }
        Ok(Filled::Yes)
    }

    /// Memory for the folios of `range` that have none. Waits for the first only: who waits for
    /// memory holds none that others wait for.
    fn memory_to_fill(self: &Arc<Self>, range: &Range<u64>) -> Result<Vec<FolioBytes>, Error> {
        let n_folios = self.folios().n_without_memory(range);
        let mut memory = Vec::new();
        if n_folios > 0 {
            memory.push(self.folio_memory()?);
        }
        while memory.len() < n_folios {
            let free = self.core.folios.try_take();
            memory.push(free.unwrap_or_else(|| self.core.folios.take_over_budget()));
        }
        Ok(memory)
    }
}

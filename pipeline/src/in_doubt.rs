//! What passes that failed have left behind the committed size, on a server that has no lock of it.
//!
//! Such a pass does not know of each block that it sent whether it is stored. It counts for nothing, and
//! would show when the file grows over it; others cannot tell it from what somebody is about to commit.
//! Who sent it can: by the nonce. It goes before the file grows from here, unless somebody has
//! made something else of it, or what was sent may have been made of something of others: a block in which
//! something was found behind the committed size stays. Where there is a lock nothing behind the size
//! counts.
//!
//! What was sent is known as long as the file is open. After that, and of an upload of what waited in a
//! log, it is as after a crash.

use std::{collections::BTreeMap, ops::Range};

use sealback_crypto::{Header, Nonce, Opened, Stored};
use sealback_stream::{Expectation, Expected};

use crate::{
    Error, config::read_unit_blocks, growth::MAX_TRIMS, open_file::OpenFile, ranges::index_of,
    reader::reaches_behind,
};

impl OpenFile {
    /// Takes away what is in doubt. To be called when the header is as it is on the server.
    pub(crate) fn settle_in_doubt(&self) -> Result<(), Error> {
        let in_doubt = self.folios().in_doubt();
        let unit_blocks = read_unit_blocks(self.geometry());
        for unit in runs(in_doubt.keys().copied(), unit_blocks) {
            if self.is_lockless() {
                self.settle_unit(&unit, &in_doubt)?;
            }
            self.folios().is_settled(&unit, &in_doubt);
        }
        Ok(())
    }

    fn settle_unit(
        &self,
        unit: &Range<u64>,
        sent: &BTreeMap<u64, Vec<Nonce>>,
    ) -> Result<(), Error> {
        let mut result = Ok(());
        for _attempt in 0..MAX_TRIMS {
            let stored = self.expectations_of(unit)?;
            let is_ours = |one: &Expectation| {
                let sent = sent.get(&one.block);
                sent.is_some_and(|sent| sent.iter().any(|n| one.expected == Expected::Nonce(*n)))
            };
            let ours: Vec<_> = stored.into_iter().filter(is_ours).collect();
            result = self.take_back(&ours);
            if !matches!(result, Err(Error::Conflict { .. })) {
                break;
            }
        }
        result
    }

    /// Makes holes of blocks that hold nothing which counts, and shortens the others to what does.
    fn take_back(&self, ours: &[Expectation]) -> Result<(), Error> {
        let header = self.header();
        let counts = |one: &Expectation| self.bytes_of_ours(header.size(), one.block) > 0;
        let (kept, holes): (Vec<Expectation>, Vec<Expectation>) =
            ours.iter().copied().partition(counts);
        for run in runs(holes.iter().map(|one| one.block), u64::MAX) {
            let within = holes.iter().filter(|one| run.contains(&one.block));
            self.make_holes(&run, &within.copied().collect::<Vec<_>>())?;
        }
        for Expectation { block, expected } in kept {
            let (len, stored) = (self.bytes_of_ours(header.size(), block), self.read_block(block)?);
            if Expected::of(stored.nonce(self.geometry(), 0)) != expected {
                continue;
            }
            match self.trim_block(&header, block, stored, index_of(len)) {
                Ok(Some(nonce)) => self.folios().sealed_anew(block, nonce),
                // Nothing of one that does not open shows.
                Ok(None) | Err(Error::Damaged(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// A block was found that may hold something behind the committed size. Returns whether it is from here,
    /// and holds nothing of others there.
    pub(crate) fn found_ours_alone(&self, header: &Header, block: u64, stored: &Stored) -> bool {
        let end = self.geometry().block_start(block) + self.geometry().block_bytes();
        let nonce = stored.nonce(self.geometry(), 0);
        let nonce = nonce.filter(|_| self.is_lockless() && end > header.size());
        nonce.is_some_and(|nonce| self.folios().found_behind(block, nonce))
    }

    /// Notes which of the blocks that were read hold something behind the committed size.
    pub(crate) fn note_what_is_behind(&self, blocks: &Range<u64>, opened: &Opened, committed: u64) {
        let verdicts = blocks.clone().zip(opened.verdicts());
        let behind = verdicts
            .filter(|(block, verdict)| reaches_behind(verdict, self.geometry(), *block, committed));
        for (block, _) in behind {
            if let Some(nonce) = opened.nonce(block) {
                self.folios().found_behind(block, nonce);
            }
        }
    }
}

/// Ascending blocks as runs of at most `max_blocks`.
fn runs(blocks: impl Iterator<Item = u64>, max_blocks: u64) -> Vec<Range<u64>> {
    let mut runs: Vec<Range<u64>> = Vec::new();
    for block in blocks {
        match runs.last_mut() {
            Some(run) if run.end == block && run.end - run.start < max_blocks => run.end += 1,
            _ => runs.push(block..block + 1),
        }
    }
    runs
}

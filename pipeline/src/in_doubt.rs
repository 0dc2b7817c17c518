//! What passes that failed have left behind the committed size, on a server that has no lock of it.
//!
//! Such a pass does not know of each block that it sent whether it is stored. It counts for nothing, and
//! would show when the file grows over it; others cannot tell it from what somebody is about to commit.
//! Who sent it can: by the nonce. It goes before the file grows from here, unless somebody has
//! made something else of it. Where there is a lock nothing behind the size counts.

use std::{collections::BTreeMap, ops::Range};

use sealback_crypto::Nonce;
use sealback_stream::{Expectation, Expected};

use crate::{
    Error, config::READ_UNIT_BYTES, growth::MAX_TRIMS, open_file::OpenFile, ranges::index_of,
};

impl OpenFile {
    /// Takes away what is in doubt. To be called when the header is as it is on the server.
    pub(crate) fn settle_in_doubt(&self) -> Result<(), Error> {
        let in_doubt = self.folios().in_doubt();
        let unit_blocks = (READ_UNIT_BYTES as u64 / self.geometry().block_bytes()).max(1);
        for unit in runs(in_doubt.keys().copied(), unit_blocks) {
            if self.is_lockless() {
                self.settle_unit(&unit, &in_doubt)?;
            }
            self.folios().is_settled(&unit);
        }
        Ok(())
    }

    fn settle_unit(&self, unit: &Range<u64>, sent: &BTreeMap<u64, Nonce>) -> Result<(), Error> {
        let mut result = Ok(());
        for _attempt in 0..MAX_TRIMS {
            let stored = self.expectations_of(unit)?;
            let is_ours = |one: &Expectation| {
                sent.get(&one.block).is_some_and(|nonce| one.expected == Expected::Nonce(*nonce))
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
            if Expected::of(stored.nonce(self.geometry(), 0)) == expected {
                self.trim_block(&header, block, stored, index_of(len))?;
            }
        }
        Ok(())
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

//! Blocks that are changed in part, here and by somebody else.

use std::{ops::Range, sync::Arc};

use sealback::{
    Error,
    rmw::{Merge, Merged},
    source::{Destinations, PartialBlock},
};
use sealback_crypto::{Plaintext, SealError};
use sealback_stream::{BlockConflict, Expected, Runs};

use super::{BLOCK, World, plain_block};

impl World {
    /// Those of a run's blocks that are written only over what is expected there. A few of them must not
    /// be laid over anything.
    pub(super) fn partial_blocks(
        &mut self,
        run: &Range<u64>,
        destinations: Destinations,
    ) -> Vec<PartialBlock> {
        let mut partial = Vec::new();
        if !destinations.contains(0) {
            return partial;
        }
        for block in run.clone() {
            if self.rng.u32(..1000) < self.plan.partial {
                let start = block * BLOCK + self.rng.u64(..BLOCK);
                let dirty = if self.rng.u32(..20) == 0 { None } else { Some(start..start + 1) };
                let dirty = dirty.into_iter().collect();
                partial.push(PartialBlock { block, expected: self.stored_now(block), dirty });
            }
        }
        self.oracle.on_partial(&partial);
        partial
    }

    /// Blocks of a write that somebody else has changed.
    pub(super) fn conflicts(&mut self, blocks: &Runs) -> Vec<BlockConflict> {
        self.met.conflicts += 1;
        // Targets that contradict themselves: about no block, or one that was not sent.
        match self.rng.u32(..50) {
            0 => return Vec::new(),
            1 => return vec![BlockConflict { block: blocks.end(), stored: None }],
            _ => {}
        }
        let first = self.rng.u64(..blocks.n_blocks());
        let changed =
            blocks.blocks().zip(0..).filter(|(_, n)| *n == first || self.rng.u32(..4) == 0);
        changed.map(|(block, _)| BlockConflict { block, stored: None }).collect()
    }

    /// Somebody else has changed none of the bytes: the block is as it was, and sealed anew.
    pub(super) fn merge(&mut self, merge: &Merge) -> Result<Merged, Error> {
        let block = merge.block;
        let result = match self.rng.u32(..1000) < self.plan.merge_failure {
            true => Err(Error::Seal(Arc::new(SealError::NothingToSeal))),
            false => Ok(Merged {
                sealed: self.seal_now(&(block..block + 1)),
                expected: self.stored_now(block),
                plain: Plaintext::from(&*plain_block(block)),
            }),
        };
        self.oracle.on_merged(block, &result);
        self.met.merges += u64::from(result.is_ok());
        result
    }

    fn stored_now(&mut self, block: u64) -> Expected {
        if self.rng.u32(..4) == 0 {
            return Expected::Absent;
        }
        Expected::Nonce(self.seal_now(&(block..block + 1)).nonce(block))
    }
}

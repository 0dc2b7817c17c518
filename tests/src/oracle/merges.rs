//! What must hold of blocks that are changed in part, here and by somebody else.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use sealback::{
    Error,
    rmw::{Merge, Merged},
    source::PartialBlock,
};
use sealback_stream::{BlockConflict, Expectation, Failure, Runs, Write};

use super::Oracle;
use crate::simulator::{CACHE, plain_block};

#[derive(Debug, Default)]
pub(super) struct Merges {
    /// As they were handed out; what is expected is what was merged last.
    partial: BTreeMap<u64, PartialBlock>,
    /// Are to be merged.
    waiting: BTreeSet<u64>,
    /// Is being merged.
    running: Option<u64>,
    /// Was merged, and whoever handed it out was not told yet.
    to_refresh: Option<u64>,
    /// Were merged at least once.
    merged: BTreeSet<u64>,
}

impl Merges {
    pub(super) fn merged(&self, block: u64) -> bool {
        self.merged.contains(&block)
    }
}

impl Oracle {
    pub(crate) fn on_partial(&mut self, blocks: &[PartialBlock]) {
        self.merges.partial.extend(blocks.iter().map(|partial| (partial.block, partial.clone())));
    }

    pub(super) fn is_merging(&self) -> bool {
        self.merges.running.is_some() || !self.merges.waiting.is_empty()
    }

    pub(super) fn check_expectations(&self, stream: usize, write: &Write) {
        let blocks = write.runs();
        let expected = self.merges.partial.iter();
        let expected = expected
            .filter(|(block, _)| stream == 0 && blocks.contains(**block))
            .map(|(block, partial)| Expectation { block: *block, expected: partial.expected });
        let expected: Vec<_> = expected.collect();
        assert_eq!(write.expectations, expected);
    }

    /// Notes the conflicts of an answer; returns those that cannot be merged, if that ends the request.
    pub(super) fn conflicts(
        &mut self,
        stream: usize,
        blocks: &Runs,
        outcome: &Result<u64, Failure>,
    ) -> Option<Vec<BlockConflict>> {
        let Err(Failure::Conflict(conflicts)) = outcome else { return None };
        if stream == CACHE {
            return None;
        }
        let may_be_merged = |block: &u64| {
            let partial = self.merges.partial.get(block);
            blocks.contains(*block) && partial.is_some_and(|partial| !partial.dirty.is_empty())
        };
        let (merged, lost): (Vec<_>, Vec<_>) =
            conflicts.iter().copied().partition(|conflict| may_be_merged(&conflict.block));
        if merged.is_empty() || !lost.is_empty() {
            return Some(lost);
        }
        self.merges.waiting.extend(merged.iter().map(|conflict| conflict.block));
        None
    }

    pub(crate) fn on_merge(&mut self, now: Duration, merge: &Merge) {
        let block = merge.block;
        self.log.push(format!("merge {block}"));
        // What is read is to be there still when it is written over.
        self.check_waited(now);
        assert!(self.merges.waiting.remove(&block), "block {block} is in no conflict");
        assert!(self.merges.running.replace(block).is_none(), "one after the other");
        for view in &self.streams {
            assert!(view.in_flight.is_empty(), "merging with {:?} in flight", view.in_flight);
        }
        assert_eq!(merge.ours.blocks(), block..block + 1);
        assert_eq!(merge.ours.nonce(block), self.sent[&block], "block {block} is another");
        assert_eq!(merge.dirty, self.merges.partial[&block].dirty);
    }

    pub(crate) fn on_merged(&mut self, block: u64, result: &Result<Merged, Error>) {
        self.log.push(format!("merged {block}: {}", result.is_ok()));
        assert_eq!(self.merges.running.take(), Some(block));
        let merged = match result {
            Ok(merged) => merged,
            Err(error) => return self.tally.ends_with(error.clone()),
        };
        self.tally.merged();
        self.merges.merged.insert(block);
        self.merges.to_refresh = Some(block);
        self.sent.insert(block, merged.sealed.nonce(block));
        if let Some(partial) = self.merges.partial.get_mut(&block) {
            partial.expected = merged.expected;
        }
        for view in self.streams.iter_mut().filter(|view| !view.off) {
            if view.acknowledged.remove(&block) {
                view.owed.insert(block, 0);
                view.redo.insert(block);
            }
        }
    }

    pub(crate) fn on_refresh(&mut self, block: u64, plain: &[u8]) {
        assert_eq!(self.merges.to_refresh.take(), Some(block), "it was not merged");
        assert!(plain == plain_block(block), "block {block} becomes something else");
    }
}

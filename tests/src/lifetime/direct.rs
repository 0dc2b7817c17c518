//! Direct writes: a request over the caller's bytes, past the page cache, beside buffered writes.

use std::{collections::VecDeque, ops::Range, sync::Arc};

use sealback::{
    Error,
    source::{Destinations, DirtyRun, FolioEnd, Next, PartialBlock, PlainSlice, RunContent},
};
use sealback_crypto::Sealed;
use sealback_stream::Expected;

use super::{LANE, Life, index};
use crate::simulator::BLOCK;

/// A direct write under way.
pub(super) struct Direct {
    range: Range<usize>,
    /// What was there.
    before: Vec<u8>,
    runs: VecDeque<DirtyRun>,
}

impl Life {
    /// Begins a direct write of bytes that are in the file.
    pub(super) fn write_direct(&mut self) {
        let start = self.position().min(self.model.len());
        let mut end = (start + self.rng.usize(..20_000)).min(self.model.len());
        if self.others {
            // No further than to the end of what is ours.
            end = end.min(start / LANE * LANE + LANE);
        }
        if start == end || (self.others && start / LANE % 2 == 1) {
            return;
        }
        let data: Vec<u8> = (start..end).map(|_| self.rng.u8(..)).collect();
        self.note(format!("write direct {start}+{}", data.len()));
        self.lived.direct += 1;
        self.flush();
        let before = self.model[start..end].to_vec();
        self.model[start..end].copy_from_slice(&data);
        let blocks = self.geometry.blocks_covering(start as u64..end as u64);
        let runs = blocks.map(|block| self.run_of(block, start..end, &data)).collect();
        self.direct = Some(Direct { range: start..end, before, runs });
        self.begin_pass();
    }

    /// A block with `data`, which is at `range`, in it.
    fn run_of(&mut self, block: u64, range: Range<usize>, data: &[u8]) -> DirtyRun {
        let (mut plain, nonces) = self.open(block..block + 1);
        let start = index(self.geometry.block_start(block));
        let dirty = range.start.max(start)..range.end.min(start + plain.len());
        plain[dirty.start - start..dirty.end - start]
            .copy_from_slice(&data[dirty.start - range.start..dirty.end - range.start]);
        let mut partial = Vec::new();
        if dirty.len() < index(BLOCK) {
            let expected = Expected::of(nonces[0]);
            let positions = dirty.start as u64..dirty.end as u64;
            partial.push(PartialBlock { block, expected, dirty: Vec::from([positions]) });
        }
        let len = plain.len();
        DirtyRun {
            blocks: block..block + 1,
            content: RunContent::Plain(vec![PlainSlice::new(Arc::new(plain), 0..len)]),
            destinations: Destinations::ALL,
            partial,
            folios: vec![FolioEnd { folio: block, end: block + 1 }],
        }
    }

    /// What the request asks its source, if it is a direct write.
    pub(super) fn next_direct(&mut self) -> Option<Next> {
        let direct = self.direct.as_mut()?;
        Some(direct.runs.pop_front().map_or(Next::End, Next::Run))
    }

    /// Blocks are stored. Returns whether they are a direct write's.
    pub(super) fn stored_direct(&mut self, sealed: &Sealed) -> bool {
        if self.direct.is_some() {
            self.pages.stored_past(sealed);
        }
        self.direct.is_some()
    }

    /// A pass has ended. If it was a direct write that failed, each byte is there or it is not.
    pub(super) fn end_direct(&mut self, result: &Result<(), Error>) {
        let Some(Direct { range, before, .. }) = self.direct.take() else { return };
        if result.is_ok() {
            return;
        }
        self.lived.direct_failed += 1;
        let blocks = self.geometry.blocks_covering(range.start as u64..range.end as u64);
        self.pages.forget_clean(&blocks);
        let now = self.read_now(range.clone());
        for (offset, byte) in now.into_iter().enumerate() {
            let at = range.start + offset;
            let either = [before[offset], self.model[at]];
            assert!(either.contains(&byte), "byte {at} is {byte}, of {either:?}");
            self.model[at] = byte;
        }
    }
}

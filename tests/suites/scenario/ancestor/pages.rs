//! The page cache's account of what is dirty, whatever is done to it.

use std::collections::BTreeSet;

use proptest::prelude::*;
use sealback::{source::DirtyRun, testkit::PageCache};
use sealback_crypto::Geometry;
use sealback_stream::Expected;

use crate::bench::BLOCK;

/// Positions are counted in these.
const STEP: u64 = BLOCK / 4;

#[derive(Clone, Debug)]
enum Op {
    Cut(u64),
    /// Whole blocks become holes.
    Punch(u64, u64),
    /// Takes so many runs of so many blocks; what was taken before comes back first.
    Take(usize, u64),
    Write(u64, u64),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0..60_u64, 1..20_u64).prop_map(|(at, len)| Op::Write(at, len)),
        1 => (0..60_u64).prop_map(Op::Cut),
        1 => (0..15_u64, 1..5_u64).prop_map(|(at, len)| Op::Punch(at, len)),
        2 => (1..4_usize, 1..6_u64).prop_map(|(n_runs, len)| Op::Take(n_runs, len)),
    ]
}

struct Pages {
    geometry: Geometry,
    pages: PageCache,
    dirty: BTreeSet<u64>,
    taken: Vec<(DirtyRun, BTreeSet<u64>)>,
}

impl Pages {
    fn write(&mut self, at: u64, len: u64) {
        let (start, end) = (at * STEP, (at + len) * STEP);
        self.pages.grow(start, self.geometry);
        self.pages.take_gaps();
        for part in self.pages.to_fill(&(start..end)) {
            let zeros = vec![0; usize::try_from(part.end - part.start).unwrap()];
            self.pages.put(part.start, &zeros, false);
        }
        let data = vec![1; usize::try_from(end - start).unwrap()];
        self.pages.put(start, &data, true);
        self.dirty.extend(at..at + len);
    }

    /// Fills a block that was written in part with what is stored.
    fn fill(&mut self, block: u64) {
        let start = self.geometry.block_start(block);
        let end = self.pages.size().min(start + BLOCK);
        self.pages.put(start, &vec![0; usize::try_from(end - start).unwrap()], false);
        self.pages.set_stored(block, Expected::Absent);
    }

    /// Takes the next run: all of it that is dirty, and something is.
    fn take(&mut self, from: u64, max_blocks: u64) -> Option<u64> {
        let run = loop {
            match self.pages.next_dirty(from..u64::MAX, max_blocks) {
                Ok(run) => break run?,
                Err(lacking) => self.fill(lacking),
            }
        };
        let steps = run.blocks.start * 4..run.blocks.end * 4;
        let taken: BTreeSet<_> = self.dirty.range(steps.clone()).copied().collect();
        assert!(!taken.is_empty(), "nothing is dirty in {:?}", run.blocks);
        assert!(!run.folios.is_empty(), "{:?} is no folio's", run.blocks);
        self.dirty.retain(|step| !steps.contains(step));
        for partial in &run.partial {
            let dirty = partial.dirty.iter().flat_map(|range| range.start / STEP..range.end / STEP);
            let here = taken.range(partial.block * 4..partial.block * 4 + 4);
            assert!(dirty.eq(here.copied()), "{partial:?} of {taken:?}");
        }
        let end = run.blocks.end;
        self.taken.push((run, taken));
        Some(end)
    }

    /// Every second run reaches the server; the others are dirty again.
    fn end_writeback(&mut self) {
        for (n, (run, taken)) in std::mem::take(&mut self.taken).into_iter().enumerate() {
            let clean = n % 2 == 0;
            run.folios.iter().for_each(|end| self.pages.end_writeback(end.folio, clean));
            if !clean {
                self.dirty.extend(taken);
            }
        }
    }

    fn run(&mut self, op: &Op) {
        match *op {
            Op::Write(at, len) => self.write(at, len),
            Op::Take(n_runs, max_blocks) => {
                self.end_writeback();
                let mut from = Some(0);
                for _ in 0..n_runs {
                    from = from.and_then(|from| self.take(from, max_blocks));
                }
            }
            Op::Cut(at) => {
                self.end_writeback();
                if at * STEP < self.pages.size() {
                    self.pages.cut(at * STEP);
                    self.dirty.retain(|step| *step < at);
                }
            }
            Op::Punch(at, len) => {
                self.end_writeback();
                let blocks = at..(at + len).min(self.pages.size() / BLOCK);
                if !blocks.is_empty() {
                    self.pages.punched(&blocks);
                    self.dirty.retain(|step| !blocks.contains(&(step / 4)));
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn what_is_dirty_is_counted_and_taken_exactly_whatever_is_cut_and_punched(
        ops in prop::collection::vec(op(), 1..40),
        folio_shift in 12_u32..15,
    ) {
        let geometry = Geometry::new(BLOCK).unwrap();
        let pages = PageCache::new(geometry, 1 << folio_shift);
        let mut pages = Pages { geometry, pages, dirty: BTreeSet::new(), taken: Vec::new() };
        for op in &ops {
            pages.run(op);
            prop_assert_eq!(pages.pages.dirty_bytes(), pages.dirty.len() as u64 * STEP, "{:?}", op);
        }
        pages.end_writeback();
        let mut from = 0;
        while let Some(end) = pages.take(from, 3) {
            from = end;
        }
        prop_assert_eq!(&pages.dirty, &BTreeSet::new(), "dirty, and never taken");
        prop_assert_eq!(pages.pages.dirty_bytes(), 0);
    }
}

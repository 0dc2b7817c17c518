//! Folios that lie in memory, as a client's page cache has them: nothing is copied before it is sealed.

use std::{iter, ops::Range, sync::Arc, task::Waker};

use sealback::source::{
    Destinations, DirtyRun, FolioEnd, FolioSource, Next, PlainSlice, RunContent, Writeback,
};

/// A file's plaintext in folios, all of it dirty. One that is longer than `folios` has them again and
/// again.
#[derive(Clone, Debug)]
pub(crate) struct Folios {
    folios: Arc<[Arc<Vec<u8>>]>,
    /// The file's first.
    first: usize,
    folio_bytes: u64,
    block_bytes: u64,
    n_blocks: u64,
}

/// Folios are no more than this, so that files may be larger than memory.
const MAX_RESIDENT: u64 = 1 << 30;

impl Folios {
    /// Of a file of `size` bytes, rounded up to whole blocks and folios, all touched.
    pub(crate) fn new(size: u64, folio_bytes: u64, block_bytes: u64) -> Folios {
        Folios::ring(size, MAX_RESIDENT, folio_bytes, block_bytes)
    }

    /// The same, with so many bytes of folios at most.
    pub(crate) fn ring(size: u64, max_resident: u64, folio_bytes: u64, block_bytes: u64) -> Folios {
        let unit = folio_bytes.max(block_bytes);
        let n_folios = size.min(max_resident).next_multiple_of(unit) / folio_bytes;
        let len = usize::try_from(folio_bytes).expect("a folio is small");
        let mut rng = fastrand::Rng::with_seed(size);
        let mut folio = || {
            let mut bytes = vec![0; len];
            rng.fill(&mut bytes);
            Arc::new(bytes)
        };
        let folios = (0..n_folios).map(|_| folio()).collect();
        let n_blocks = size.next_multiple_of(unit) / block_bytes;
        Folios { folios, first: 0, folio_bytes, block_bytes, n_blocks }
    }

    /// The `nth` of files of `size` bytes, that have this one's folios one file after the other.
    pub(crate) fn nth_file(&self, nth: u64, size: u64) -> Folios {
        let unit = self.folio_bytes.max(self.block_bytes);
        let size = size.next_multiple_of(unit);
        let first = nth * (size / self.folio_bytes) % self.folios.len() as u64;
        let first = usize::try_from(first).expect("less than their number");
        Folios { first, n_blocks: size / self.block_bytes, ..self.clone() }
    }

    /// The file's size in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.n_blocks * self.block_bytes
    }

    pub(crate) fn n_blocks(&self) -> u64 {
        self.n_blocks
    }

    /// The plaintext of blocks, folio by folio.
    pub(crate) fn slices(
        &self,
        blocks: Range<u64>,
    ) -> impl Iterator<Item = (&Arc<Vec<u8>>, Range<usize>)> {
        let end = blocks.end * self.block_bytes;
        let mut at = blocks.start * self.block_bytes;
        iter::from_fn(move || {
            let (folio, from) = (at / self.folio_bytes, at % self.folio_bytes);
            let len = (self.folio_bytes - from).min(end.checked_sub(at).filter(|len| *len > 0)?);
            at += len;
            let index = usize::try_from(folio % self.folios.len() as u64).ok()?;
            let range = usize::try_from(from).ok()?..usize::try_from(from + len).ok()?;
            Some((&self.folios[(self.first + index) % self.folios.len()], range))
        })
    }

    /// The folios that end in blocks.
    fn ends(&self, blocks: &Range<u64>) -> Vec<FolioEnd> {
        let first = (blocks.start * self.block_bytes) / self.folio_bytes;
        let end = (blocks.end * self.block_bytes) / self.folio_bytes;
        let end_of = |folio: u64| ((folio + 1) * self.folio_bytes).div_ceil(self.block_bytes);
        (first..end).map(|folio| FolioEnd { folio, end: end_of(folio) }).collect()
    }
}

impl FolioSource for Folios {
    fn next_dirty(&self, from: u64, max_blocks: u64, _waker: &Waker) -> Next {
        let blocks = from..self.n_blocks.min(from.saturating_add(max_blocks));
        if blocks.is_empty() {
            return Next::End;
        }
        let slices = self.slices(blocks.clone());
        let content = slices.map(|(folio, range)| PlainSlice::new(folio.clone(), range)).collect();
        Next::Run(DirtyRun {
            folios: self.ends(&blocks),
            blocks,
            content: RunContent::Plain(content),
            destinations: Destinations::ALL,
            partial: Vec::new(),
        })
    }

    fn end_writeback(&self, _folio: u64, outcome: Writeback) {
        assert!(matches!(outcome, Writeback::Clean), "{outcome:?}");
    }
}

//! A caller's buffer as a source of dirty blocks.

use std::{collections::BTreeMap, fmt, ops::Range, task::Waker};

use sealback_crypto::{Geometry, Plaintext, Sealed};
use sealback_stream::Expected;

use crate::{
    Error,
    open_file::OpenFile,
    ranges::index_of,
    source::{
        Destinations, DirtyRun, FolioEnd, FolioSource, Next, PartialBlock, PlainSlice, RunContent,
        Writeback,
    },
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// Blocks of a buffer, and those at its ends that it holds a part of.
#[derive(Debug)]
pub(super) struct Buffered {
    geometry: Geometry,
    file: Arc<OpenFile>,
    /// The positions that are written.
    range: Range<u64>,
    bytes: Bytes,
    edges: Vec<Edge>,
    /// Whole blocks that are written only over this.
    expected: BTreeMap<u64, Expected>,
    /// The position before which everything is stored.
    stored_to: AtomicU64,
}

/// The caller's bytes.
#[derive(Clone)]
pub(super) struct Bytes(pub(super) Arc<dyn AsRef<[u8]> + Send + Sync>);

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Bytes").field(&(*self.0).as_ref().len()).finish()
    }
}

/// A block that is written in part, with its other bytes.
#[derive(Debug)]
struct Edge {
    partial: PartialBlock,
    plain: PlainSlice,
}

impl Buffered {
    /// The position before which everything is stored.
    pub(super) fn stored_to(&self) -> u64 {
        self.stored_to.load(Ordering::Acquire)
    }

    /// The blocks from `first` on that go the same way: one edge, or whole blocks.
    fn alike(&self, first: u64, max_blocks: u64) -> (Range<u64>, Option<&Edge>, Destinations) {
        let edge = self.edges.iter().find(|edge| edge.partial.block == first);
        let whole = self.geometry.blocks_within(self.range.clone());
        let end = if edge.is_some() { first + 1 } else { whole.end.min(first + max_blocks) };
        let (blocks, cached) = self.file.folios().cached_alike(first..end);
        (blocks, edge, if cached { Destinations::ALL } else { Destinations::SERVERS })
    }
}

impl FolioSource for Buffered {
    fn next_dirty(&self, from: u64, max_blocks: u64, _waker: &Waker) -> Next {
        let covering = self.geometry.blocks_covering(self.range.clone());
        let first = from.max(covering.start);
        if first >= covering.end {
            return Next::End;
        }
        let (blocks, edge, destinations) = self.alike(first, max_blocks);
        let (plain, partial) = if let Some(edge) = edge {
            (edge.plain.clone(), vec![edge.partial.clone()])
        } else {
            let start = self.geometry.block_start(blocks.start) - self.range.start;
            let end = self.geometry.block_start(blocks.end) - self.range.start;
            let told = self.expected.range(blocks.clone());
            let told = told.map(|(block, expected)| PartialBlock {
                block: *block,
                expected: *expected,
                dirty: Vec::new(),
            });
            let range = index_of(start)..index_of(end);
            (PlainSlice::new(self.bytes.0.clone(), range), told.collect())
        };
        // Each run is a folio, numbered by its end.
        let folios = vec![FolioEnd { folio: blocks.end, end: blocks.end }];
        let content = RunContent::Plain(vec![plain]);
        Next::Run(DirtyRun { blocks, content, destinations, partial, folios })
    }

    fn stored(&self, sealed: &Sealed) {
        let end = self.geometry.block_start(sealed.blocks().end);
        self.stored_to.store(end.min(self.range.end), Ordering::Release);
    }

    fn end_writeback(&self, _folio: u64, _outcome: Writeback) {
        // The buffer comes back to its owner when the request has ended.
    }
}

impl OpenFile {
    /// A source of what is to be written to a file of `size` bytes: reads the other bytes of blocks that
    /// are written in part.
    pub(super) fn buffered(
        self: &Arc<Self>,
        range: Range<u64>,
        bytes: Bytes,
        size: u64,
    ) -> Result<Buffered, Error> {
        let geometry = self.geometry();
        let whole = geometry.blocks_within(range.clone());
        let blocks = geometry.blocks_covering(range.clone());
        let is_edge = |block: &u64| !whole.contains(block);
        let last = blocks.end - 1;
        let ends = [Some(blocks.start), (last > blocks.start).then_some(last)];
        let ends = ends.into_iter().flatten().filter(is_edge);
        let edge = |block| self.edge(block, &range, (*bytes.0).as_ref(), size);
        let edges = ends.map(edge).collect::<Result<_, _>>()?;
        let mut expected = BTreeMap::new();
        if self.folios().tells_lost_updates() {
            expected = self.expected_of(&whole)?;
        }
        let stored_to = AtomicU64::new(range.start);
        let file = self.clone();
        Ok(Buffered { geometry, file, range, bytes, edges, expected, stored_to })
    }

    /// A block of which `bytes`, which are at `range`, are a part: reads the others.
    fn edge(&self, block: u64, range: &Range<u64>, bytes: &[u8], size: u64) -> Result<Edge, Error> {
        let geometry = self.geometry();
        let start = geometry.block_start(block);
        let held = start..size.min(start + geometry.block_bytes()).max(start);
        let dirty = range.start.max(start)..range.end.min(start + geometry.block_bytes());
        let len = index_of(held.end.max(dirty.end) - start);
        let mut plain = Plaintext::zeros(len);
        let mut expected = Expected::Absent;
        if !held.is_empty() {
            let to = &mut plain[..index_of(held.end - start)];
            expected = self.fetch(held, vec![to], size)?[0];
        }
        let from = index_of(dirty.start - range.start)..index_of(dirty.end - range.start);
        plain[index_of(dirty.start - start)..index_of(dirty.end - start)]
            .copy_from_slice(&bytes[from]);
        let partial = PartialBlock { block, expected, dirty: vec![dirty] };
        Ok(Edge { partial, plain: PlainSlice::new(Arc::new(plain), 0..len) })
    }

    /// What was last seen here of whole blocks whose changes by others are told of.
    fn expected_of(&self, blocks: &Range<u64>) -> Result<BTreeMap<u64, Expected>, Error> {
        let mut expected = BTreeMap::new();
        for block in blocks.clone() {
            let (is_told_of, known) = self.folios().last_seen(block);
            if is_told_of {
                let known = match known {
                    Some(known) => known,
                    None => self.expectations_of(&(block..block + 1))?[0].expected,
                };
                expected.insert(block, known);
            }
        }
        Ok(expected)
    }
}

//! The spans of a request: what is being sealed, what is sealed, in file order.
//!
//! A span is the unit of sealing: one job of the crypto pool, one buffer, one derived key. It is
//! kept from the moment the issuer reserved its buffer until every stream that wants it has passed
//! it; then the buffer goes home.

use std::{collections::VecDeque, ops::Range};

use sealback_crypto::{Geometry, Sealed};
use sealback_stream::{Expectation, Expected, Runs, Segment, Write};

use crate::{
    rmw::Merge,
    source::{Destinations, PartialBlock},
};

#[derive(Debug)]
struct Span {
    blocks: Range<u64>,
    destinations: Destinations,
    partial: Vec<PartialBlock>,
    state: SpanState,
    /// Blocks before this one were told to have been passed.
    passed_to: u64,
}

/// Blocks that every stream that wants them has passed.
#[derive(Debug)]
pub(crate) struct Passed {
    /// They, and none that were told before.
    pub(crate) sealed: Sealed,
    /// Who wanted them.
    pub(crate) destinations: Destinations,
    /// The whole span, if these were its last.
    pub(crate) span: Option<Sealed>,
}

#[derive(Debug)]
enum SpanState {
    Sealing,
    Sealed(Sealed),
}

/// A request's spans, ascending.
#[derive(Debug)]
pub(crate) struct Spans {
    geometry: Geometry,
    spans: VecDeque<Span>,
    first_id: u64,
    n_sealing: usize,
}

impl Spans {
    pub(crate) fn new(geometry: Geometry) -> Spans {
        Spans { geometry, spans: VecDeque::new(), first_id: 0, n_sealing: 0 }
    }

    /// Adds a span behind the others: one that is sealed already, or one that will be.
    pub(crate) fn push(
        &mut self,
        blocks: Range<u64>,
        destinations: Destinations,
        partial: Vec<PartialBlock>,
        sealed: Option<Sealed>,
    ) -> u64 {
        debug_assert!(self.spans.back().is_none_or(|last| last.blocks.end <= blocks.start));
        let state = match sealed {
            Some(sealed) => SpanState::Sealed(sealed),
            None => {
                self.n_sealing += 1;
                SpanState::Sealing
            }
        };
        let passed_to = blocks.start;
        self.spans.push_back(Span { blocks, destinations, partial, state, passed_to });
        self.first_id + self.spans.len() as u64 - 1
    }

    /// Notes that a span's sealing has ended; with its ciphertext, if it went well.
    pub(crate) fn sealed(&mut self, id: u64, sealed: Option<Sealed>) {
        self.n_sealing -= 1;
        let index = usize::try_from(id - self.first_id).expect("spans in memory are few");
        let span = &mut self.spans[index];
        assert!(matches!(span.state, SpanState::Sealing), "span {id} sealed twice");
        if let Some(sealed) = sealed {
            assert_eq!(sealed.blocks(), span.blocks, "span {id} sealed as other blocks");
            span.state = SpanState::Sealed(sealed);
        }
    }

    /// How many spans are being sealed.
    pub(crate) fn n_sealing(&self) -> usize {
        self.n_sealing
    }

    /// Stored bytes of `blocks`, if every one of them is sealed.
    pub(crate) fn sealed_bytes(&self, blocks: &Runs) -> Option<u64> {
        let stride = self.geometry.stride_bytes();
        let mut bytes = 0;
        for (span, part) in self.parts(blocks) {
            let SpanState::Sealed(sealed) = &span.state else { return None };
            bytes += if part.end == span.blocks.end {
                sealed.bytes().len() as u64 - (part.start - span.blocks.start) * stride
            } else {
                (part.end - part.start) * stride
            };
        }
        Some(bytes)
    }

    /// What is to be laid over a block that somebody else has changed, if it may be.
    pub(crate) fn to_merge(&self, block: u64) -> Option<Merge> {
        let span = self.overlapping(&(block..block + 1)).next()?;
        let SpanState::Sealed(sealed) = &span.state else { return None };
        let partial = span.partial.iter().find(|partial| partial.block == block)?;
        if partial.dirty.is_empty() {
            return None;
        }
        let ours = sealed.slice(block..block + 1);
        Some(Merge { block, ours, dirty: partial.dirty.clone() })
    }

    /// The number of the first span that holds some of `blocks` and is being sealed.
    pub(crate) fn first_sealing(&self, blocks: &Runs) -> Option<u64> {
        let holds = |span: &Span| {
            let (start, end) = (span.blocks.start, span.blocks.end);
            blocks.iter().any(|run| run.start < end && start < run.end)
        };
        let sealing = |span: &Span| matches!(span.state, SpanState::Sealing) && holds(span);
        let index = self.spans.iter().position(sealing)?;
        Some(self.first_id + index as u64)
    }

    /// Whether a stream wants a block.
    pub(crate) fn is_for(&self, block: u64, stream: usize) -> bool {
        let blocks = block..block + 1;
        self.overlapping(&blocks).any(|span| span.destinations.contains(stream))
    }

    /// Puts a merged block in its place.
    pub(crate) fn merged(&mut self, block: u64, merged: &Sealed, expected: Expected) {
        let after = self.spans.partition_point(|span| span.blocks.end <= block);
        let span = &mut self.spans[after];
        let whole = match std::mem::replace(&mut span.state, SpanState::Sealing) {
            SpanState::Sealed(whole) => whole,
            SpanState::Sealing => unreachable!("it was sealed when its merge began"),
        };
        span.state = SpanState::Sealed(whole.replace(merged));
        for partial in span.partial.iter_mut().filter(|partial| partial.block == block) {
            partial.expected = expected;
        }
    }

    /// The end of the span that holds a block (exclusive).
    pub(crate) fn end_of(&self, block: u64) -> u64 {
        let span = self.overlapping(&(block..block + 1)).next();
        span.map_or(block + 1, |span| span.blocks.end)
    }

    /// The write that carries `blocks`, all of which are sealed.
    pub(crate) fn write(&self, blocks: &Runs) -> Write {
        let mut write = Write { segments: Vec::new(), expectations: Vec::new(), dirty: Vec::new() };
        for (span, part) in self.parts(blocks) {
            let SpanState::Sealed(sealed) = &span.state else {
                unreachable!("a subrequest leaves its queue only when it is sealed")
            };
            for partial in span.partial.iter().filter(|partial| part.contains(&partial.block)) {
                let PartialBlock { block, expected, dirty } = partial;
                write.expectations.push(Expectation { block: *block, expected: *expected });
                write.dirty.extend_from_slice(dirty);
            }
            write.segments.push(Segment::Sealed(sealed.slice(part)));
        }
        write
    }

    /// What has been passed by `collected_to` and was not told before, span by span. A span all of
    /// which is passed is let go.
    pub(crate) fn next_passed(&mut self, collected_to: u64) -> Option<Passed> {
        let front = self.spans.front_mut()?;
        let SpanState::Sealed(whole) = &front.state else { return None };
        let part = front.passed_to..collected_to.min(front.blocks.end);
        if part.is_empty() {
            return None;
        }
        let sealed = whole.slice(part.clone());
        front.passed_to = part.end;
        let (destinations, mut span) = (front.destinations, None);
        if part.end == front.blocks.end {
            span = Some(whole.clone());
            self.spans.pop_front();
            self.first_id += 1;
        }
        Some(Passed { sealed, destinations, span })
    }

    /// Drops every span. To be called with nothing being sealed.
    pub(crate) fn clear(&mut self) {
        debug_assert_eq!(self.n_sealing, 0);
        self.spans.clear();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// The spans that hold some of `blocks`, each with its part of a run.
    fn parts<'a>(&'a self, blocks: &'a Runs) -> impl Iterator<Item = (&'a Span, Range<u64>)> {
        blocks.iter().flat_map(move |run| {
            self.overlapping(run).map(move |span| {
                (span, run.start.max(span.blocks.start)..run.end.min(span.blocks.end))
            })
        })
    }

    fn overlapping(&self, blocks: &Range<u64>) -> impl Iterator<Item = &Span> {
        let first = self.spans.partition_point(|span| span.blocks.end <= blocks.start);
        let end = blocks.end;
        self.spans.range(first..).take_while(move |span| span.blocks.start < end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_found_in_its_span_and_for_the_streams_that_want_it() {
        let mut spans = Spans::new(Geometry::new(4096).expect("a block size"));
        spans.push(2..5, Destinations::UPLOAD, Vec::new(), None);
        spans.push(5..6, Destinations::ALL, Vec::new(), None);
        assert!((2..5).all(|block| spans.end_of(block) == 5));
        assert_eq!((spans.end_of(1), spans.end_of(5), spans.end_of(6)), (2, 6, 7));
        assert!(spans.is_for(2, 0) && !spans.is_for(2, 1) && spans.is_for(5, 1));
        assert!(!spans.is_for(6, 0) && !spans.is_empty());
        assert_eq!(spans.n_sealing(), 2);
        spans.sealed(0, None);
        spans.sealed(1, None);
        spans.clear();
        assert!(spans.is_empty() && spans.n_sealing() == 0);
    }
}

//! What the request asks of its surroundings, as the seed decides.

use std::sync::{Arc, atomic::Ordering};

use sealback::{
    Error,
    request::Host,
    source::{Destinations, DirtyRun, FolioEnd, Next, PlainSlice, RunContent},
    trace::TraceEvent,
};
use sealback_crypto::Buffer;
use sealback_stream::{Credit, Grant, Prepared};

use super::{BLOCK, STRIDE, UnderWay, World, plain_block};

impl Host for World {
    fn next_dirty(&mut self, from: u64, max_blocks: u64) -> Next {
        self.bound.asked();
        assert!(self.begun, "whoever waits for a request does not begin it");
        if self.rng.u32(..1000) < self.plan.later {
            self.met.waited += 1;
            self.under_way.push(UnderWay::Wake);
            return Next::Later;
        }
        let Some(first) = self.dirty.first().cloned() else {
            self.oracle.on_source_end();
            return if self.plan.lacks { Next::Failed(Error::Closed) } else { Next::End };
        };
        assert!(first.blocks.start >= from, "asked from {from}, {:?} was passed over", first);
        let mut run = first.blocks.start..first.blocks.start;
        let mut folios = Vec::new();
        while let Some(next) = self.dirty.first_mut() {
            let fits = next.blocks.start == run.end && next.destinations == first.destinations;
            let room = max_blocks - (run.end - run.start);
            if !fits || room == 0 {
                break;
            }
            let end = next.blocks.end.min(run.end + room);
            let whole = end == next.blocks.end;
            run.end = end;
            next.blocks.start = end;
            if whole {
                folios.push(FolioEnd { folio: next.folio, end });
                self.dirty.remove(0);
            }
        }
        self.oracle.on_run(&run, first.destinations, &folios);
        let content = if first.destinations == Destinations::CACHE {
            self.oracle.on_sealed(run.clone());
            RunContent::Sealed(self.seal_now(&run))
        } else {
            let plain = |block| {
                let bytes = Arc::new(plain_block(block));
                let len = bytes.len();
                PlainSlice::new(bytes, 0..len)
            };
            RunContent::Plain(run.clone().map(plain).collect())
        };
        let destinations = first.destinations;
        let partial = self.partial_blocks(&run, destinations);
        Next::Run(DirtyRun { blocks: run, content, destinations, partial, folios })
    }

    fn take_buffer(&mut self) -> Option<Buffer> {
        self.bound.asked();
        let buffer = self.pool.try_take();
        self.oracle.tally.asked_for_buffer(buffer.is_some());
        if buffer.is_none() {
            self.starved = true;
            self.met.starved += 1;
        }
        buffer
    }

    fn prepare(&mut self, stream: usize, block: u64) -> Prepared {
        self.bound.asked();
        if self.credits.0.load(Ordering::SeqCst) <= 0 {
            self.wants_credit = true;
            self.met.no_credit += 1;
            self.oracle.tally.refused(stream);
            return Prepared::Later;
        }
        self.credits.0.fetch_sub(1, Ordering::SeqCst);
        let max_blocks = self.rng.u64(1..9);
        let max_segments = self.rng.usize(1..5);
        let mut grant = Grant::unlimited()
            .with_max_bytes(max_blocks * STRIDE + self.rng.u64(..BLOCK))
            .with_max_segments(max_segments)
            .with_credit(Credit::new(self.credits.clone(), 1));
        if self.rng.u32(..1000) < self.plan.gaps {
            grant = grant.with_gaps();
        }
        if let Some(every) = self.plan.boundary {
            grant = grant.with_boundary((block / every + 1) * every);
        }
        self.oracle.on_grant(stream, block, &grant);
        Prepared::Granted(grant)
    }

    fn random(&mut self) -> u64 {
        self.rng.u64(..)
    }

    fn tracing(&self) -> bool {
        true
    }

    fn trace(&mut self, event: TraceEvent) {
        self.bound.asked();
        self.oracle.log(&format!("{:?} {event:?}", self.now));
        match event {
            TraceEvent::Issued { stream, id, attempts, .. } => {
                self.attempts.insert((stream, id), attempts);
            }
            TraceEvent::Prepared { stream, id, blocks } => {
                self.oracle.on_prepared(stream, id, &blocks);
            }
            TraceEvent::Off { stream, .. } => {
                self.oracle.tally.switched_off(stream);
                self.oracle.on_stream_off(self.now, stream);
            }
            TraceEvent::Paused { .. } => self.oracle.on_paused(),
            TraceEvent::Reissued { subrequests } => {
                self.met.reissues += 1;
                self.oracle.on_reissue(self.now, subrequests);
            }
            _ => {}
        }
    }
}

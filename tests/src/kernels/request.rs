//! The request by itself: issue and collect, with a source and targets that cost next to nothing.
//!
//! Nothing is sealed in a call: each span's ciphertext was made before.

use std::{collections::VecDeque, mem, sync::Arc, time::Duration};

use sealback::{
    RetryLimits,
    request::{Action, Event, Host, Request, RequestLimits, StreamSetup},
    source::{Destinations, DirtyRun, FolioEnd, Next, PlainSlice, RunContent},
    trace::TraceEvent,
};
use sealback_crypto::{Buffer, BufferPool, Engine as Cipher, Sealed};
use sealback_stream::{Grant, Prepared, Role};

use super::{Call, Kernel, crypto::content_key};

const BLOCK: u64 = 4096;
const N_BLOCKS: u64 = 4096;
const SPAN_BLOCKS: u64 = 128;
const WINDOW: usize = 4;
/// As many as an engine has by default.
const N_BUFFERS: usize = 22;

pub(super) fn kernels() -> Vec<Kernel> {
    vec![
        // Subrequests of 1 MiB, of which there are few.
        Kernel::of_units("request/folio", (N_BLOCKS, "folio"), || {
            call(Shape { folio_blocks: 1, granted: 252 })
        }),
        // Folios of a span, of which there are few.
        Kernel::of_units("request/subrequest", (2 * N_BLOCKS, "subrequest"), || {
            call(Shape { folio_blocks: SPAN_BLOCKS, granted: 1 })
        }),
    ]
}

/// In blocks.
#[derive(Clone, Copy)]
struct Shape {
    folio_blocks: u64,
    granted: u64,
}

/// What the request asks of.
struct Source {
    shape: Shape,
    /// Stands for every folio.
    folio: Arc<Vec<u8>>,
    pool: BufferPool,
    starved: bool,
}

impl Host for Source {
    fn next_dirty(&mut self, from: u64, max_blocks: u64) -> Next {
        let blocks = from..N_BLOCKS.min(from + max_blocks);
        if blocks.is_empty() {
            return Next::End;
        }
        let folio_blocks = self.shape.folio_blocks;
        let folios = blocks.start / folio_blocks..blocks.end / folio_blocks;
        let slice = PlainSlice::new(self.folio.clone(), 0..self.folio.len());
        Next::Run(DirtyRun {
            blocks,
            content: RunContent::Plain(folios.clone().map(|_| slice.clone()).collect()),
            destinations: Destinations::ALL,
            partial: Vec::new(),
            folios: folios
                .map(|folio| FolioEnd { folio, end: (folio + 1) * folio_blocks })
                .collect(),
        })
    }

    fn take_buffer(&mut self) -> Option<Buffer> {
        let buffer = self.pool.try_take();
        self.starved |= buffer.is_none();
        buffer
    }

    fn prepare(&mut self, _stream: usize, _block: u64) -> Prepared {
        let stride = BLOCK + 48;
        Prepared::Granted(Grant::unlimited().with_max_bytes(self.shape.granted * stride))
    }

    fn random(&mut self) -> u64 {
        0
    }

    fn tracing(&self) -> bool {
        false
    }

    fn trace(&mut self, _event: TraceEvent) {}
}

/// A pass over a file, to a server and a cache.
fn call(shape: Shape) -> Call {
    let key = content_key(Cipher::Fake, BLOCK);
    let plain = vec![7; len(SPAN_BLOCKS * BLOCK)];
    let seal = |span| {
        let buffer = Buffer::unpooled(len(key.geometry().span_bytes(SPAN_BLOCKS * BLOCK)));
        key.seal(span * SPAN_BLOCKS, 1, &[&plain], buffer).expect("the buffer is large enough")
    };
    let spans: Vec<Sealed> = (0..N_BLOCKS / SPAN_BLOCKS).map(seal).collect();
    let mut source = Source {
        shape,
        folio: Arc::new(vec![7; len(shape.folio_blocks * BLOCK)]),
        pool: BufferPool::new(N_BUFFERS, 1),
        starved: false,
    };
    let limits = RequestLimits {
        span_blocks: SPAN_BLOCKS,
        max_stalled: WINDOW,
        retry: RetryLimits::default(),
        cache_patience: Duration::MAX,
    };
    let stream = |role| StreamSetup { role, window: WINDOW, active: true };
    let streams = [stream(Role::Must), stream(Role::May)];
    let mut pass = Pass::default();
    Box::new(move || {
        let mut request = Request::new(key.geometry(), &limits, &streams);
        pass.run(&mut request, &mut source, &spans);
    })
}

fn len(bytes: u64) -> usize {
    usize::try_from(bytes).expect("a span is small")
}

/// What is under way. All of it ends in the order in which it began.
#[derive(Default)]
struct Pass {
    events: VecDeque<Event>,
    actions: Vec<Action>,
    /// The buffers of spans that not all streams have passed, and where the spans end.
    held: VecDeque<(u64, Buffer)>,
}

impl Pass {
    fn run(&mut self, request: &mut Request, source: &mut Source, spans: &[Sealed]) {
        let mut n_folios = 0;
        self.events.push_back(Event::Wake);
        while let Some(event) = self.events.pop_front() {
            request.handle(event, Duration::ZERO, source);
            request.take_actions(&mut self.actions);
            for action in self.actions.drain(..) {
                match action {
                    Action::Seal { span, first_block, buffer, .. } => {
                        let sealed = spans[len(first_block / SPAN_BLOCKS)].clone();
                        self.held.push_back((sealed.blocks().end, buffer));
                        self.events.push_back(Event::Sealed { span, result: Ok(sealed) });
                    }
                    Action::Issue { ticket, write } => {
                        let outcome = Ok(write.bytes());
                        self.events.push_back(Event::Terminated { ticket, outcome });
                    }
                    Action::Stored { sealed } => {
                        let passed_to = sealed.blocks().end;
                        while self.held.front().is_some_and(|(end, _)| *end <= passed_to) {
                            self.held.pop_front();
                        }
                        if mem::take(&mut source.starved) {
                            self.events.push_back(Event::Wake);
                        }
                    }
                    Action::Release { .. } => n_folios += 1,
                    _ => {}
                }
            }
        }
        assert!(request.is_done() && n_folios == N_BLOCKS / source.shape.folio_blocks);
    }
}

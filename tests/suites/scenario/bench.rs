//! One request on a bench: the test says which span is sealed and which write is answered next, and
//! how. Nothing happens by itself.
//!
//! Checked at every step: a folio ends once and in ascending order, the request is done once,
//! and no action follows.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use sealback::{
    Error, RetryLimits,
    request::{Action, Event, Host, Request, RequestLimits, StreamSetup},
    source::{Destinations, DirtyRun, FolioEnd, Next, PlainSlice, RunContent, Writeback},
    trace::TraceEvent,
};
use sealback_crypto::{
    Buffer, BufferPool, ContentKey, Engine as Cipher, Geometry, Header, Nonce, SealError, Sealed,
};
use sealback_stream::{
    Credit, CreditSource, Failure, Grant, Prepared, Role, TargetError, TargetErrorKind, Ticket,
    Write,
};

use crate::support::root;

pub(crate) const BLOCK: u64 = 4096;
pub(crate) const STRIDE: u64 = BLOCK + 48;

/// Stream indices.
pub(crate) const UPLOAD: usize = 0;
pub(crate) const CACHE: usize = 1;

/// What is on the bench.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    /// The dirty folios, ascending: each is a span, and in a run of its own.
    pub(crate) folios: Vec<(Range<u64>, Destinations)>,
    pub(crate) n_buffers: usize,
    /// Subrequests that wait to be issued before no more are prepared.
    pub(crate) max_stalled: usize,
    /// Blocks that a subrequest may carry.
    pub(crate) granted: [u64; 2],
    pub(crate) windows: [usize; 2],
    /// Credits of both targets together.
    pub(crate) credits: u32,
    pub(crate) cached: bool,
    pub(crate) retry: RetryLimits,
    pub(crate) cache_patience: Duration,
}

impl Setup {
    /// So many folios of so many blocks for both streams, one block in each write, and no limits.
    pub(crate) fn new(n_folios: u64, folio_blocks: u64) -> Setup {
        let folio = |n| (n * folio_blocks..(n + 1) * folio_blocks, Destinations::ALL);
        Setup {
            folios: (0..n_folios).map(folio).collect(),
            n_buffers: 64,
            max_stalled: 1000,
            granted: [1, 1],
            windows: [64, 64],
            credits: 1000,
            cached: true,
            retry: RetryLimits { max_attempts: 4, ..RetryLimits::default() },
            cache_patience: Duration::MAX,
        }
    }
}

#[derive(Debug)]
struct Credits(AtomicU32);

impl CreditSource for Credits {
    fn give_back(&self, n: u32) {
        self.0.fetch_add(n, Ordering::SeqCst);
    }
}

/// What the request asks of.
pub(crate) struct Source {
    pub(crate) setup: Setup,
    pub(crate) pool: BufferPool,
    /// The stream, and the first block, of each grant.
    pub(crate) grants: Vec<(usize, u64)>,
    pub(crate) events: Vec<TraceEvent>,
    next: usize,
    credits: Arc<Credits>,
    key: ContentKey,
    /// It was refused a buffer or a credit, and is to be woken.
    refused: bool,
}

impl Source {
    fn credits(&self) -> u32 {
        self.credits.0.load(Ordering::SeqCst)
    }

    fn seal(&self, blocks: &Range<u64>, plain: &[u8]) -> Sealed {
        let bytes = usize::try_from((blocks.end - blocks.start) * STRIDE).unwrap();
        self.key.seal(blocks.start, 1, &[plain], Buffer::unpooled(bytes)).unwrap()
    }
}

impl Host for Source {
    fn next_dirty(&mut self, _from: u64, _max_blocks: u64) -> Next {
        let Some((blocks, destinations)) = self.setup.folios.get(self.next).cloned() else {
            return Next::End;
        };
        let folio = self.next as u64;
        self.next += 1;
        let bytes = vec![
            u8::try_from(folio).unwrap();
            usize::try_from(blocks.end - blocks.start).unwrap() * 4096
        ];
        let content = if destinations == Destinations::CACHE {
            RunContent::Sealed(self.seal(&blocks, &bytes))
        } else {
            let len = bytes.len();
            RunContent::Plain(vec![PlainSlice::new(Arc::new(bytes), 0..len)])
        };
        let folios = vec![FolioEnd { folio, end: blocks.end }];
        Next::Run(DirtyRun { blocks, content, destinations, partial: Vec::new(), folios })
    }

    fn take_buffer(&mut self) -> Option<Buffer> {
        let buffer = self.pool.try_take();
        self.refused |= buffer.is_none();
        buffer
    }

    fn prepare(&mut self, stream: usize, block: u64) -> Prepared {
        if self.credits() == 0 {
            self.refused = true;
            return Prepared::Later;
        }
        self.credits.0.fetch_sub(1, Ordering::SeqCst);
        self.grants.push((stream, block));
        let credit = Credit::new(self.credits.clone(), 1);
        let max_bytes = self.setup.granted[stream] * STRIDE;
        Prepared::Granted(Grant::unlimited().with_max_bytes(max_bytes).with_credit(credit))
    }

    fn random(&mut self) -> u64 {
        0
    }

    fn tracing(&self) -> bool {
        true
    }

    fn trace(&mut self, event: TraceEvent) {
        self.events.push(event);
    }
}

/// A span to be sealed.
pub(crate) struct ToSeal {
    pub(crate) span: u64,
    first_block: u64,
    plain: Vec<PlainSlice>,
    buffer: Buffer,
}

/// A request, and all that is under way.
pub(crate) struct Bench {
    pub(crate) request: Request,
    pub(crate) source: Source,
    pub(crate) now: Duration,
    pub(crate) to_seal: Vec<ToSeal>,
    pub(crate) writes: Vec<(Ticket, Write)>,
    /// Every write there was.
    pub(crate) issued: Vec<(usize, Range<u64>)>,
    /// Each folio that has ended, and whether it is clean.
    pub(crate) released: Vec<(u64, bool)>,
    /// What each target has taken: the nonces of its blocks, each time.
    pub(crate) stored: [BTreeMap<u64, Vec<Nonce>>; 2],
    /// Blocks that the cache's record may call present.
    pub(crate) cached: Vec<u64>,
    pub(crate) streams_off: Vec<usize>,
    pub(crate) timers: Vec<Duration>,
    pub(crate) result: Option<Result<(), Error>>,
}

impl Bench {
    /// Begins.
    pub(crate) fn new(setup: Setup) -> Bench {
        let geometry = Geometry::new(BLOCK).unwrap();
        let stream = |role, window, active| StreamSetup { role, window, active };
        let streams = [
            stream(Role::Must, setup.windows[UPLOAD], true),
            stream(Role::May, setup.windows[CACHE], setup.cached),
        ];
        let lengths = setup.folios.iter().map(|(blocks, _)| blocks.end - blocks.start);
        let span_blocks = lengths.max().unwrap_or(1);
        let limits = RequestLimits {
            span_blocks,
            max_stalled: setup.max_stalled,
            retry: setup.retry,
            cache_patience: setup.cache_patience,
        };
        let header = Header::create(&root(), geometry, Cipher::Fake).unwrap().header;
        let buffer_bytes = usize::try_from(span_blocks * STRIDE).unwrap();
        let mut bench = Bench {
            request: Request::new(geometry, &limits, &streams),
            source: Source {
                pool: BufferPool::new(setup.n_buffers, buffer_bytes),
                grants: Vec::new(),
                events: Vec::new(),
                next: 0,
                credits: Arc::new(Credits(AtomicU32::new(setup.credits))),
                key: header.content_key().clone(),
                refused: false,
                setup,
            },
            now: Duration::ZERO,
            to_seal: Vec::new(),
            writes: Vec::new(),
            issued: Vec::new(),
            released: Vec::new(),
            stored: Default::default(),
            cached: Vec::new(),
            streams_off: Vec::new(),
            timers: Vec::new(),
            result: None,
        };
        bench.hand(Event::Wake);
        bench
    }

    pub(crate) fn hand(&mut self, event: Event) {
        self.request.handle(event, self.now, &mut self.source);
        let mut actions = Vec::new();
        self.request.take_actions(&mut actions);
        for action in actions {
            assert!(self.result.is_none(), "the request is done: {action:?}");
            self.act(action);
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Cached { sealed } => self.cached.extend(sealed.blocks()),
            Action::Done(result) => {
                assert_eq!(self.write_of(UPLOAD), None, "done, and a write is with the server");
                assert!(self.to_seal.is_empty(), "done, and a span is being sealed");
                self.result = Some(result);
            }
            Action::Issue { ticket, write } => {
                self.issued.push((ticket.stream, write.blocks()));
                self.writes.push((ticket, write));
            }
            Action::Release { folio, outcome } => {
                let last = self.released.last().map(|(folio, _)| *folio);
                assert!(last.is_none_or(|last| last < folio), "folio {folio} behind {last:?}");
                self.released.push((folio, matches!(outcome, Writeback::Clean)));
            }
            Action::Seal { span, first_block, plain, buffer } => {
                self.to_seal.push(ToSeal { span, first_block, plain, buffer });
            }
            Action::StreamOff { stream, .. } => self.streams_off.push(stream),
            Action::WakeAt(at) => self.timers.push(at),
            Action::InDoubt { .. } | Action::Stored { .. } => {}
            other => panic!("nothing is changed in part here: {other:?}"),
        }
    }

    /// Seals the span of that index among those to be sealed.
    pub(crate) fn seal(&mut self, index: usize) {
        let ToSeal { span, first_block, plain, buffer } = self.to_seal.remove(index);
        let slices: Vec<_> = plain.iter().map(PlainSlice::as_slice).collect();
        let result = self.source.key.seal(first_block, 2, &slices, buffer);
        self.hand(Event::Sealed { span, result });
    }

    /// Has the sealing of the span of that index fail.
    pub(crate) fn fail_sealing(&mut self, index: usize) {
        let ToSeal { span, .. } = self.to_seal.remove(index);
        self.hand(Event::Sealed { span, result: Err(SealError::NothingToSeal) });
    }

    pub(crate) fn seal_all(&mut self) {
        while !self.to_seal.is_empty() {
            self.seal(0);
        }
    }

    /// All of the write of that index goes through.
    pub(crate) fn pass(&mut self, index: usize) {
        let bytes = self.writes[index].1.bytes();
        drop(self.answer(index, Ok(bytes)));
    }

    pub(crate) fn fail(&mut self, index: usize, failure: Failure) {
        drop(self.answer(index, Err(failure)));
    }

    /// Answers the write of that index. It is returned: a target may let go of it later.
    pub(crate) fn answer(&mut self, index: usize, outcome: Result<u64, Failure>) -> Write {
        let (ticket, write) = self.writes.remove(index);
        let blocks = write.runs();
        let through = match outcome {
            Ok(bytes) if bytes < write.bytes() => bytes / STRIDE,
            Ok(_) => blocks.n_blocks(),
            Err(_) => 0,
        };
        let through = usize::try_from(through).unwrap();
        for block in blocks.blocks().take(through) {
            let nonce = write.nonce(block).unwrap();
            self.stored[ticket.stream].entry(block).or_default().push(nonce);
        }
        self.hand(Event::Terminated { ticket, outcome });
        write
    }

    /// The index of the first write of a stream.
    pub(crate) fn write_of(&self, stream: usize) -> Option<usize> {
        self.writes.iter().position(|(ticket, _)| ticket.stream == stream)
    }

    /// Whether a buffer or a credit that was refused is there now.
    pub(crate) fn is_to_be_woken(&self) -> bool {
        self.source.refused && self.source.pool.n_free() > 0 && self.source.credits() > 0
    }

    pub(crate) fn wake(&mut self) {
        self.source.refused = false;
        self.hand(Event::Wake);
    }

    /// Lets time pass until the first timer.
    pub(crate) fn pass_time(&mut self) {
        let (index, at) = self.timers.iter().enumerate().min_by_key(|(_, at)| **at).unwrap();
        self.now = self.now.max(*at);
        self.timers.swap_remove(index);
        self.hand(Event::Wake);
    }

    /// Goes on until nothing is under way: seals, answers as `outcome` says, lets time pass.
    pub(crate) fn run(&mut self, mut outcome: impl FnMut(Ticket, &Write) -> Result<u64, Failure>) {
        for _ in 0..MAX_STEPS {
            if !self.to_seal.is_empty() {
                self.seal(0);
            } else if let Some((ticket, write)) = self.writes.first() {
                let outcome = outcome(*ticket, write);
                drop(self.answer(0, outcome));
            } else if self.is_to_be_woken() {
                self.wake();
            } else if self.result.is_none() && !self.timers.is_empty() {
                self.pass_time();
            } else {
                return;
            }
        }
        panic!("no end after {MAX_STEPS} steps");
    }

    /// What must hold when nothing is under way any more; returns how it ended.
    pub(crate) fn ended(self) -> Result<(), Error> {
        let Bench { request, source, writes, released, result, .. } = self;
        let result = result.expect("nothing is under way, and the request is not done");
        let handed_out: Vec<_> = (0..source.next as u64).collect();
        let ended: Vec<_> = released.iter().map(|(folio, _)| *folio).collect();
        assert_eq!(ended, handed_out, "each folio that was handed out has ended once");
        assert!(result.is_err() || released.iter().all(|(_, clean)| *clean), "{released:?}");
        drop((request, writes));
        assert_eq!(source.pool.n_free(), source.pool.n_buffers(), "every buffer is home");
        assert_eq!(source.credits(), source.setup.credits, "every credit is back");
        result
    }
}

/// A run that takes so many steps never ends.
const MAX_STEPS: usize = 10_000;

pub(crate) fn everything(_: Ticket, write: &Write) -> Result<u64, Failure> {
    Ok(write.bytes())
}

pub(crate) fn injected(kind: TargetErrorKind) -> TargetError {
    TargetError::new(kind, "injected")
}

pub(crate) fn transient() -> Failure {
    Failure::Retry(injected(TargetErrorKind::Io))
}

pub(crate) fn fatal() -> Failure {
    Failure::Fatal(injected(TargetErrorKind::NoSpace))
}

//! The stalled queue is real: subrequests are prepared beside the crypto, and wait for it.

use std::{ops::Range, sync::Arc, time::Duration};

use sealback::{
    Config, Engine, RetryLimits,
    request::{Action, Event, Host, Request, RequestLimits, StreamSetup},
    source::{Destinations, DirtyRun, FolioEnd, PlainSlice, RunContent},
    trace::TraceEvent,
};
use sealback_crypto::{Buffer, BufferPool, ContentKey, Engine as Cipher, Geometry, Header};
use sealback_stream::{Grant, MemoryCache, MemoryOptions, Prepared, Role};
use sealback_tests::{
    gate::{Gate, GateServer},
    recorder::Recorder,
};

use crate::support::{config, create, memory, memory_with, root, sample};

const BLOCK: u64 = 4096;
const STRIDE: u64 = BLOCK + 48;

/// Sixteen folios of four blocks, each a span; the upload is granted 6 blocks, the cache 3.
struct Folios {
    next: u64,
    pool: BufferPool,
    grants: Vec<(usize, u64)>,
}

const N_FOLIOS: u64 = 16;

impl Host for Folios {
    fn next_dirty(&mut self, _from: u64, _max_blocks: u64) -> Option<DirtyRun> {
        let folio = self.next;
        if folio == N_FOLIOS {
            return None;
        }
        self.next += 1;
        let blocks = folio * 4..(folio + 1) * 4;
        let bytes = vec![u8::try_from(folio).unwrap(); 4 * 4096];
        Some(DirtyRun {
            folios: vec![FolioEnd { folio, end: blocks.end }],
            content: RunContent::Plain(vec![PlainSlice::new(Arc::new(bytes), 0..4 * 4096)]),
            destinations: Destinations::ALL,
            partial: Vec::new(),
            blocks,
        })
    }

    fn take_buffer(&mut self) -> Option<Buffer> {
        self.pool.try_take()
    }

    fn prepare(&mut self, stream: usize, block: u64) -> Prepared {
        self.grants.push((stream, block));
        let max_bytes = [6 * STRIDE, 3 * STRIDE][stream];
        Prepared::Granted(Grant::unlimited().with_max_bytes(max_bytes))
    }

    fn random(&mut self) -> u64 {
        0
    }

    fn tracing(&self) -> bool {
        false
    }

    fn trace(&mut self, _event: TraceEvent) {}
}

struct Bench {
    request: Request,
    host: Folios,
    key: ContentKey,
    to_seal: Vec<(u64, u64, Vec<PlainSlice>, Buffer)>,
    issued: Vec<(usize, u64, Range<u64>)>,
    released: Vec<u64>,
    done: bool,
}

impl Bench {
    fn new(window: usize) -> Bench {
        let geometry = Geometry::new(BLOCK).unwrap();
        let setup = [Role::Must, Role::May].map(|role| StreamSetup { role, window, active: true });
        let limits = RequestLimits {
            span_blocks: 4,
            retry: RetryLimits::default(),
            cache_patience: Duration::MAX,
        };
        let pool = BufferPool::new(32, 4 * 4144 + 64);
        let header = Header::create(&root(), geometry, Cipher::Fake).unwrap().header;
        let mut bench = Bench {
            request: Request::new(geometry, &limits, &setup),
            host: Folios { next: 0, pool, grants: Vec::new() },
            key: header.content_key().clone(),
            to_seal: Vec::new(),
            issued: Vec::new(),
            released: Vec::new(),
            done: false,
        };
        bench.hand(Event::Wake);
        bench
    }

    fn hand(&mut self, event: Event) {
        self.request.handle(event, Duration::ZERO, &mut self.host);
        let mut actions = Vec::new();
        self.request.take_actions(&mut actions);
        for action in actions {
            match action {
                Action::Seal { span, first_block, plain, buffer } => {
                    self.to_seal.push((span, first_block, plain, buffer));
                }
                Action::Issue { ticket, write } => {
                    self.issued.push((ticket.stream, ticket.id, write.blocks()));
                }
                Action::Release { folio, .. } => self.released.push(folio),
                Action::Done(result) => self.done = result.is_ok(),
                _ => {}
            }
        }
    }

    fn seal(&mut self, index: usize) {
        let (span, first_block, plain, buffer) = self.to_seal.remove(index);
        let slices: Vec<_> = plain.iter().map(PlainSlice::as_slice).collect();
        let result = self.key.seal(first_block, 2, &slices, buffer);
        self.hand(Event::Sealed { span, result });
    }

    fn terminate(&mut self, index: usize) {
        let (stream, id, blocks) = self.issued.remove(index);
        let outcome = Ok((blocks.end - blocks.start) * STRIDE);
        let ticket = sealback_stream::Ticket { stream, id };
        self.hand(Event::Terminated { ticket, outcome });
    }
}

#[test]
fn subrequests_are_granted_and_stalled_in_both_queues_before_any_block_is_sealed() {
    let bench = Bench::new(4);
    assert_eq!(bench.to_seal.len(), 16, "nothing has been sealed");
    assert!(bench.issued.is_empty(), "nothing is issued");
    let [upload, cache] = bench.request.streams() else { panic!("two streams") };
    // 64 blocks: 10 × 6 and one of 4; 21 × 3 and one of 1.
    assert_eq!((upload.stalled(), cache.stalled()), (11, 22));
    let granted = |stream| bench.host.grants.iter().filter(|(of, _)| *of == stream).count();
    assert_eq!((granted(0), granted(1)), (11, 22), "each has a grant of its own");
}

#[test]
fn sealing_completed_in_reverse_order_still_issues_in_ascending_order() {
    let mut bench = Bench::new(64);
    for index in (1..16).rev() {
        bench.seal(index);
        assert!(bench.issued.is_empty(), "the heads are not sealed yet");
    }
    bench.seal(0);
    for stream in 0..2 {
        let starts: Vec<_> = bench.issued.iter().filter(|issued| issued.0 == stream).collect();
        assert!(starts.windows(2).all(|pair| pair[0].2.end == pair[1].2.start), "{starts:?}");
        assert_eq!(starts.last().unwrap().2.end, 64);
    }
}

#[test]
fn the_head_alone_leaves_its_queue_as_soon_as_all_its_blocks_are_sealed() {
    let mut bench = Bench::new(64);
    bench.seal(0);
    assert_eq!(bench.issued, [(1, 1, 0..3)], "the upload's head ends in the second span");
    bench.seal(0);
    assert_eq!(bench.issued[1..], [(0, 1, 0..6), (1, 2, 3..6)]);
}

#[test]
fn folios_are_released_in_ascending_order_long_before_the_request_ends() {
    let mut bench = Bench::new(2);
    let mut in_flight_at_first_release = None;
    while !bench.done {
        if !bench.to_seal.is_empty() {
            bench.seal(0);
        }
        // The latest answer first, as far as the windows allow.
        while !bench.issued.is_empty() {
            bench.terminate(bench.issued.len() - 1);
        }
        if !bench.released.is_empty() && in_flight_at_first_release.is_none() {
            in_flight_at_first_release = Some(bench.to_seal.len());
        }
    }
    assert_eq!(bench.released, (0..N_FOLIOS).collect::<Vec<_>>());
    assert!(in_flight_at_first_release.unwrap() > 0, "spans were still to be sealed");
    assert_eq!(bench.host.pool.n_free(), bench.host.pool.n_buffers());
}

#[test]
fn the_next_subrequest_is_under_construction_while_earlier_ones_are_in_flight() {
    let server = GateServer::new(
        memory_with(MemoryOptions::default().with_max_write_bytes(20 * STRIDE)),
        Gate::default(),
    );
    let engine = Engine::new(config()).unwrap();
    let file = create(&engine, &server, None, BLOCK);
    let recorder = Arc::new(Recorder::default());
    file.write_at(0, &sample(1_000_000)).unwrap();
    let writeback = file.writeback_observed(Some(recorder.clone()));
    server.hook.wait_for(2);
    let in_flight = server.hook.waiting();
    let prepared = recorder.events().iter().any(|event| {
        matches!(event, TraceEvent::Prepared { blocks, .. }
            if in_flight.iter().all(|range| range.end <= blocks.start))
    });
    assert!(prepared, "a later subrequest is prepared while {in_flight:?} are in flight");
    server.hook.open();
    writeback.wait().unwrap();
}

#[test]
fn writeback_returns_before_the_first_termination() {
    let server = GateServer::new(memory(), Gate::default());
    let engine = Engine::new(config()).unwrap();
    let file = create(&engine, &server, None, BLOCK);
    file.write_at(0, &sample(1 << 20)).unwrap();
    let writeback = file.writeback();
    assert!(!writeback.is_done());
    assert_eq!(writeback.acknowledged_bytes(), 0);
    server.hook.wait_for(1);
    assert!(!writeback.is_done(), "its first write is still at the gate");
    server.hook.open();
    assert!(writeback.wait().unwrap().streams[0].bytes > 1 << 20);
}

#[test]
fn with_a_slow_cipher_both_streams_stall_and_say_so() {
    let options = MemoryOptions::default().with_max_write_bytes(100 << 10);
    let server = memory_with(options);
    let cache = MemoryCache::new(options.with_max_write_bytes(40 << 10));
    let cipher = Cipher::Slowed { times: 10 };
    let engine = Engine::new(Config { cipher, threads: 1, ..config() }).unwrap();
    let file = create(&engine, &server, Some(&cache), BLOCK);
    file.write_at(0, &sample(1 << 20)).unwrap();
    let recorder = Arc::new(Recorder::default());
    let stats = file.writeback_observed(Some(recorder.clone())).wait().unwrap();
    let first_sealed = recorder.position(|event| matches!(event, TraceEvent::Sealed { .. }));
    for stream in 0..2 {
        let prepared = recorder.position(
            |event| matches!(event, TraceEvent::Prepared { stream: of, .. } if *of == stream),
        );
        assert!(prepared < first_sealed, "stream {stream} prepares before anything is sealed");
        assert!(stats.streams[stream].stalls > 0, "{stats:?}");
        assert!(stats.streams[stream].stall_time > Duration::ZERO, "{stats:?}");
    }
    assert!(stats.streams[1].subrequests > stats.streams[0].subrequests, "{stats:?}");
}

#[test]
fn a_folio_can_be_written_again_while_its_sealed_bytes_are_in_flight() {
    let server = GateServer::new(memory(), Gate::default());
    let engine = Engine::new(config()).unwrap();
    let file = create(&engine, &server, None, BLOCK);
    file.write_at(0, &[1; 8192]).unwrap();
    let writeback = file.writeback();
    server.hook.wait_for(1);
    file.write_at(0, &[2; 4096]).unwrap();
    assert_eq!(file.dirty_bytes(), 4096, "what is dirtied meanwhile is for the next pass");
    server.hook.open();
    writeback.wait().unwrap();
    file.sync().unwrap();
    let mut read = [0; 8192];
    file.read_at(0, &mut read).unwrap();
    assert!(read[..4096].iter().all(|byte| *byte == 2) && read[4096..].iter().all(|b| *b == 1));
}

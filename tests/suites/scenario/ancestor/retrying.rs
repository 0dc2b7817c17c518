//! What is sent again: exactly what did not go through, as it was, and not for ever.

use std::{cell::Cell, collections::BTreeMap};

use sealback::{Error, trace::TraceEvent};
use sealback_stream::{Failure, Segment, TargetError, TargetErrorKind, Ticket, Write};

use crate::bench::{Bench, STRIDE, Setup, UPLOAD, everything, injected};

#[test]
fn a_write_is_tried_exactly_as_often_as_allowed_and_the_last_error_is_told() {
    type Outcome = fn(TargetError) -> Result<u64, Failure>;
    let outcomes: [(bool, Outcome); 5] = [
        (true, |error| Err(Failure::Retry(error))),
        (true, |error| Err(Failure::Renegotiate(error))),
        (false, |_| Ok(0)),
        (false, |_| Ok(1)),
        (false, |_| Ok(STRIDE - 1)),
    ];
    for (told, outcome) in outcomes {
        for max_attempts in 1..=6 {
            let mut setup = Setup::new(2, 1);
            setup.retry.max_attempts = max_attempts;
            let (mut bench, n_tries) = (Bench::new(setup), Cell::new(0));
            bench.run(|Ticket { stream, .. }, write| {
                if stream != UPLOAD || write.blocks().start != 1 {
                    return Ok(write.bytes());
                }
                n_tries.set(n_tries.get() + 1);
                let what = format!("error {}", n_tries.get());
                outcome(TargetError::new(TargetErrorKind::Io, what))
            });
            let attempts: Vec<_> = bench
                .source
                .events
                .iter()
                .filter_map(|event| match event {
                    TraceEvent::Issued { stream: UPLOAD, blocks, attempts, .. } => {
                        (blocks.start() == 1).then_some(*attempts)
                    }
                    _ => None,
                })
                .collect();
            assert_eq!(attempts, (0..max_attempts).collect::<Vec<_>>());
            assert_eq!(
                bench.request.stats().streams[UPLOAD].retries.total(),
                u64::from(max_attempts)
            );
            assert_eq!(bench.released, [(0, true), (1, false)]);
            let Err(Error::Server { range, attempts, source }) = bench.ended() else {
                panic!("the server never took it")
            };
            assert_eq!((range, attempts), (Some(4096..8192), max_attempts));
            assert!(!told || source.to_string() == format!("error {max_attempts}"), "{source}");
        }
    }
}

#[test]
fn whether_a_write_is_sent_again_is_the_targets_word_whatever_the_error() {
    use TargetErrorKind::{
        AlreadyExists, Cancelled, Conflict, Dropped, Io, IsADirectory, NoSpace, NotFound,
        NotPermitted, ReadOnly, TimedOut, Unsupported,
    };
    let kinds = [
        AlreadyExists,
        Cancelled,
        Conflict,
        Dropped,
        Io,
        IsADirectory,
        NoSpace,
        NotFound,
        NotPermitted,
        ReadOnly,
        TimedOut,
        Unsupported,
    ];
    type MakeFailure = fn(TargetError) -> Failure;
    let failures: [(bool, MakeFailure); 3] =
        [(true, Failure::Retry), (true, Failure::Renegotiate), (false, Failure::Fatal)];
    for kind in kinds {
        for (again, failure) in failures {
            let (mut bench, mut failed) = (Bench::new(Setup::new(2, 1)), false);
            bench.run(|Ticket { stream, .. }, write| match (stream, failed) {
                (UPLOAD, false) => {
                    failed = true;
                    Err(failure(injected(kind)))
                }
                _ => Ok(write.bytes()),
            });
            match bench.ended() {
                Ok(()) => assert!(again, "{kind:?} was said to be for good"),
                Err(error) => assert!(!again && error.target_kind() == Some(kind), "{error}"),
            }
        }
    }
}

#[test]
fn writes_that_each_go_one_block_and_a_bit_further_take_every_block_once() {
    for (granted, torn) in [(16, 0), (16, 1), (16, STRIDE - 1), (5, 7)] {
        let setup = Setup { granted: [granted, 3], ..Setup::new(2, 16) };
        let mut bench = Bench::new(setup);
        bench.run(|Ticket { stream, .. }, write| match stream {
            UPLOAD => Ok((STRIDE + torn).min(write.bytes())),
            _ => Ok(write.bytes()),
        });
        let blocks: Vec<_> = bench.stored[UPLOAD].keys().copied().collect();
        assert_eq!(blocks, (0..32).collect::<Vec<_>>());
        assert!(
            bench.stored[UPLOAD].values().all(|nonces| nonces.len() == 1),
            "sent once too often"
        );
        assert_eq!(bench.stored[0], bench.stored[1], "both have the same nonces");
        bench.ended().unwrap();
    }
}

/// The stored bytes of each block of a write.
fn bytes_of(write: &Write) -> Vec<(u64, Vec<u8>)> {
    let sealed = write.segments.iter().filter_map(|segment| match segment {
        Segment::Sealed(sealed) => Some(sealed),
        _ => None,
    });
    let blocks = sealed.flat_map(|sealed| sealed.blocks().map(move |block| (sealed, block)));
    blocks.map(|(sealed, block)| (block, sealed.block_bytes_of(block).to_vec())).collect()
}

#[test]
fn what_is_sent_again_is_the_same_bytes_cut_anew() {
    for fails in 1..4 {
        let setup = Setup { granted: [6, 4], ..Setup::new(3, 4) };
        let (mut bench, mut sent, mut n_failed) = (Bench::new(setup), BTreeMap::new(), 0);
        bench.run(|Ticket { stream, .. }, write| {
            for (block, bytes) in bytes_of(write) {
                let before = sent.entry(block).or_insert_with(|| bytes.clone());
                assert!(*before == bytes, "block {block} is other bytes now");
            }
            if stream == UPLOAD && n_failed < fails {
                n_failed += 1;
                let short = n_failed % 2 == 0;
                return if short { Ok(STRIDE + 9) } else { Err(crate::bench::transient()) };
            }
            Ok(write.bytes())
        });
        assert_eq!(sent.len(), 12);
        bench.ended().unwrap();
    }
}

#[test]
fn credits_and_buffers_come_home_from_writes_that_are_refused_split_and_retried() {
    for (credits, n_buffers) in [(1, 1), (1, 3), (2, 1), (2, 2), (3, 3)] {
        let mut setup = Setup { credits, n_buffers, granted: [3, 2], ..Setup::new(6, 4) };
        setup.retry.max_attempts = 10;
        let (mut bench, mut n_tries) = (Bench::new(setup), BTreeMap::<u64, u32>::new());
        bench.run(|Ticket { stream, .. }, write| {
            if stream != UPLOAD {
                return Ok(write.bytes());
            }
            let n_tries = n_tries.entry(write.blocks().start).or_default();
            *n_tries += 1;
            match n_tries {
                1 => Err(Failure::Renegotiate(injected(TargetErrorKind::Io))),
                2 => Ok(write.bytes() / 2),
                _ => Ok(write.bytes()),
            }
        });
        assert_eq!(bench.stored[UPLOAD].len(), 24, "{credits} credits, {n_buffers} buffers");
        bench.ended().unwrap();
    }
}

#[test]
fn a_target_that_claims_more_than_it_was_sent_has_taken_what_it_was_sent() {
    let mut bench = Bench::new(Setup { cached: false, ..Setup::new(2, 1) });
    bench.seal_all();
    drop(bench.answer(0, Ok(u64::MAX)));
    assert_eq!(bench.request.stats().streams[UPLOAD].bytes, STRIDE);
    bench.run(everything);
    assert_eq!(bench.request.stats().streams[UPLOAD].bytes, 2 * STRIDE);
    bench.ended().unwrap();
}

#[test]
fn bytes_of_a_torn_block_are_not_counted_twice() {
    let mut bench = Bench::new(Setup { granted: [4, 4], ..Setup::new(1, 4) });
    let mut tears = 3;
    bench.run(|Ticket { stream, .. }, write| {
        tears -= i32::from(stream == UPLOAD);
        let torn = stream == UPLOAD && tears >= 0;
        Ok(if torn { 2 * STRIDE - 1 } else { write.bytes() })
    });
    assert_eq!(bench.request.stats().streams[UPLOAD].bytes, 4 * STRIDE);
    bench.ended().unwrap();
}

//! Files against a vector of bytes: random operations, read from everywhere, and crashes anywhere.

use std::ops::Range;

use proptest::prelude::*;
use sealback::Engine;
use sealback_stream::{
    Server,
    faulty::{Faults, FaultyServer, Rates},
};
use sealback_tests::{
    crash::{Crash, CrashServer},
    reader::read_sealed,
};

use self::subject::{Audited, Op, Subject, assert_either, op};
use super::served::{served_locked, stored};
use crate::support::{ROOT, audited, config, name, open, read_all};

#[path = "model/subject.rs"]
mod subject;

/// How many cases each property runs; `SEALBACK_CASES` says otherwise.
fn cases(default: u32) -> ProptestConfig {
    let cases = std::env::var("SEALBACK_CASES").ok().and_then(|cases| cases.parse().ok());
    ProptestConfig { cases: cases.unwrap_or(default), ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases(150))]

    #[test]
    fn a_file_is_a_vector_of_bytes(
        ops in prop::collection::vec(op(), 1..40),
        folio_shift in 12u32..17,
        block_shift in 12u32..17,
        cached in any::<bool>(),
        locked in any::<bool>(),
    ) {
        let mut subject = Subject::new(audited(served_locked(locked)), folio_shift, block_shift, cached);
        for op in &ops {
            subject.run(op).unwrap();
            prop_assert_eq!(subject.file().size(), subject.model.len() as u64);
        }
        subject.close();
        subject.open();
        prop_assert!(read_all(subject.file()) == subject.model, "read through the cache");
        subject.close();
        subject.cache = None;
        subject.open();
        prop_assert!(read_all(subject.file()) == subject.model, "read from the server alone");
    }

    #[test]
    fn a_file_is_a_vector_of_bytes_whatever_fails_and_is_tried_again(
        ops in prop::collection::vec(op(), 1..30),
        folio_shift in 12u32..17,
        block_shift in 12u32..17,
        seed in any::<u64>(),
        locked in any::<bool>(),
    ) {
        let rates = Rates { retry: 60, short: 80, unknown: 40, dropped: 20, ..Rates::default() };
        let faults = Faults::seeded(seed, rates);
        let server = FaultyServer::new(audited(served_locked(locked)), &faults);
        faults.stop();
        let mut subject = Subject::new(server, folio_shift, block_shift, true);
        for op in &ops {
            match op {
                Op::Append { .. }
                | Op::Punch { .. }
                | Op::Read { .. }
                | Op::ReadDirect { .. }
                | Op::Revalidate
                | Op::SetLen { .. }
                | Op::Sync
                | Op::SyncRange { .. }
                | Op::Write { .. }
                | Op::WriteDirect { .. }
                | Op::WriteFrom { .. }
                | Op::Writeback => faults.resume(),
                // What has failed is told here once, and goes to the server.
                _ => subject.settle(&faults),
            }
            // What makes things durable is not tried again by the library.
            if subject.run(op).is_err() {
                subject.settle(&faults);
                subject.run(op).unwrap();
            }
        }
        subject.settle(&faults);
        subject.close();
        subject.cache = None;
        subject.open();
        prop_assert!(read_all(subject.file()) == subject.model, "read from the server alone");
    }

    #[test]
    fn an_independent_reader_sees_the_model_after_every_operation(
        ops in prop::collection::vec(op(), 1..20),
        folio_shift in 12u32..17,
        block_shift in 12u32..15,
        cached in any::<bool>(),
        locked in any::<bool>(),
    ) {
        let mut subject = Subject::new(audited(served_locked(locked)), folio_shift, block_shift, cached);
        let mut hurt = false;
        for op in &ops {
            hurt |= matches!(op, Op::CacheHurt { .. });
            subject.run(op).unwrap();
            subject.file().sync().unwrap();
            subject.check_stored(hurt);
        }
    }

    #[test]
    fn a_crash_at_any_change_leaves_what_was_or_what_was_to_be(
        ops in prop::collection::vec(op(), 1..8),
        last in op(),
        block_shift in 12u32..15,
        n_changes in 0u32..12,
        unheard in any::<bool>(),
        locked in any::<bool>(),
    ) {
        let server = audited(served_locked(locked));
        crash_during(server, &ops, &last, block_shift, n_changes, unheard);
    }
}

/// Runs `ops` and syncs, then has the server go away `n_changes` changes into `last` and its sync.
fn crash_during(
    server: Audited,
    ops: &[Op],
    last: &Op,
    block_shift: u32,
    n_changes: u32,
    unheard: bool,
) {
    let mut subject = Subject::new(server.clone(), 14, block_shift, false);
    for op in ops {
        subject.run(op).unwrap();
    }
    subject.close();
    let before = subject.model.clone();

    let crashing = CrashServer::new(server.clone(), Crash::after(n_changes, unheard));
    let crash = crashing.hook.clone();
    let file = open(&subject.engine, &crashing, None);
    let mut crashed = Subject {
        engine: subject.engine.clone(),
        server: crashing,
        cache: None,
        file: Some(file),
        model: before.clone(),
        n_changes: 1000,
    };
    if matches!(
        last,
        Op::Reopen
            | Op::Revalidate
            | Op::RevalidateDeep
            | Op::CacheHurt { .. }
            | Op::ChangedElsewhere { .. }
            | Op::Discard { .. }
            | Op::WriteDirectCancelled { .. }
    ) {
        return;
    }
    let ended = crashed.run(last).and_then(|()| crashed.file().sync());
    assert!(ended.is_ok() != crash.is_gone() || unheard, "{ended:?}");
    drop(crashed.file.take());

    // Somebody else looks at it, with nothing but what is stored.
    let read = read_sealed(&stored(&server, &name()), &ROOT).unwrap();
    assert_each_byte_is_of(&read.plaintext, &before, &crashed.model, ended.is_ok());

    // And it can be gone on with.
    let end = read.plaintext.len();
    let mut after = Subject {
        engine: Engine::new(config()).unwrap(),
        server: server.clone(),
        cache: None,
        file: None,
        model: read.plaintext,
        n_changes: 2000,
    };
    after.open();
    assert!(read_all(after.file()) == after.model);
    after.run(&Op::Write { at: 100_000, len: 50_000 }).unwrap();
    after.run(&Op::Sync).unwrap();
    let read = read_sealed(&stored(&server, &name()), &ROOT).unwrap().plaintext;
    let is_locked = server.open(&name()).unwrap().lock_size().unwrap().is_some();
    if !is_locked && read.len() == after.model.len() {
        // What was sent behind the end and not committed may be another's, who is about to do that: it stays.
        let came = (end..100_000).filter(|at| read[*at] != 0);
        came.for_each(|at| after.model[at] = *crashed.model.get(at).unwrap_or(&0));
    }
    assert!(read == after.model, "gone on with");
    assert!(!after.file().info().cut_pending);
}

fn assert_each_byte_is_of(read: &[u8], before: &[u8], after: &[u8], done: bool) {
    if done {
        assert!(read == after, "what was synced is there");
        return;
    }
    let sizes: Range<usize> = before.len().min(after.len())..before.len().max(after.len());
    assert!(read.len() == sizes.start || read.len() == sizes.end, "{} of {sizes:?}", read.len());
    assert_either(read, before, after);
}

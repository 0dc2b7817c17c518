//! What becomes of each folio when something fails in the middle.

use sealback::Error;
use sealback_stream::Ticket;

use crate::bench::{Bench, CACHE, Setup, UPLOAD, everything, fatal};

#[test]
fn whichever_writes_fail_each_folio_ends_once_and_is_clean_only_if_it_was_stored() {
    for n_folios in 0..5_u64 {
        for failing in 0..1_u32 << n_folios {
            for newest_first in [false, true] {
                let mut bench = Bench::new(Setup { cached: false, ..Setup::new(n_folios, 1) });
                bench.seal_all();
                while !bench.writes.is_empty() {
                    let index = if newest_first { bench.writes.len() - 1 } else { 0 };
                    let block = bench.writes[index].1.blocks().start;
                    match failing & (1 << block) {
                        0 => bench.pass(index),
                        _ => bench.fail(index, fatal()),
                    }
                }
                let what = format!("{n_folios} folios, failing {failing:b}, {newest_first}");
                let stored = bench.stored[UPLOAD].clone();
                for (folio, clean) in &bench.released {
                    assert!(!clean || stored.contains_key(folio), "{what}: {folio} is lost");
                }
                if failing == (1 << n_folios) - 1 && failing > 0 {
                    assert_eq!(bench.request.stats().streams[UPLOAD].bytes, 0, "{what}");
                    assert_eq!(bench.request.stats().folios, 0, "{what}");
                }
                assert_eq!(bench.ended().is_err(), failing != 0, "{what}");
            }
        }
    }
}

#[test]
fn after_one_failed_write_the_others_are_collected_and_the_rest_is_dropped() {
    for failing in 0..6 {
        let setup = Setup { windows: [2, 2], ..Setup::new(6, 1) };
        let mut bench = Bench::new(setup);
        bench.run(|Ticket { stream, .. }, write| match write.blocks().start {
            block if block == failing && stream == UPLOAD => Err(fatal()),
            _ => Ok(write.bytes()),
        });
        let expected: Vec<_> = (0..6).map(|folio| (folio, folio < failing)).collect();
        assert_eq!(bench.released, expected);
        let sent = bench.issued.iter().filter(|(stream, _)| *stream == UPLOAD).count() as u64;
        assert!(sent <= failing + 2, "{sent} were sent, the {failing}. has failed");
        assert!(matches!(bench.ended(), Err(Error::Server { .. })));
    }
}

#[test]
fn a_span_that_cannot_be_sealed_is_not_sent_and_its_folio_stays_dirty() {
    for failing in 0..5 {
        let mut bench = Bench::new(Setup { granted: [3, 2], ..Setup::new(5, 2) });
        for span in 0..5 {
            match span == failing {
                true => bench.fail_sealing(0),
                false => bench.seal(0),
            }
        }
        bench.run(everything);
        let unsealed = failing as u64 * 2..failing as u64 * 2 + 2;
        for stream in [UPLOAD, CACHE] {
            let sent = bench.issued.iter().filter(|(of, _)| *of == stream);
            assert!(sent.clone().all(|(_, blocks)| blocks.end <= unsealed.start), "{sent:?}");
        }
        assert!(bench.released.iter().all(|(folio, clean)| !clean || *folio < failing as u64));
        assert!(bench.cached.iter().all(|block| *block < unsealed.start));
        assert!(matches!(bench.ended(), Err(Error::Seal(_))));
    }
}

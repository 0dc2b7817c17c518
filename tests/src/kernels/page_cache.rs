//! The page cache by itself: writes, lookups, and what a pass takes of what is dirty.

use std::{hint, ops::Range};

use sealback::testkit::PageCache;
use sealback_crypto::Geometry;
use sealback_stream::Expected;

use super::{Call, Kernel};

const FOLIO: u64 = 4096;
const N_FOLIOS: u64 = 1024;
/// Apart from one another, and from the ends of their block.
const RANGES_IN_A_BLOCK: u64 = 4;
const N_SYNCS: usize = 64;

pub(super) fn kernels() -> Vec<Kernel> {
    let n_ranges = N_FOLIOS * RANGES_IN_A_BLOCK;
    vec![
        Kernel::of_units("page-cache/life", (N_FOLIOS, "folio"), life),
        Kernel::of_units("page-cache/write", (N_FOLIOS, "folio"), write),
        Kernel::of_units("page-cache/look-up", (N_FOLIOS, "folio"), look_up),
        Kernel::of_units("page-cache/one-of-many", (N_SYNCS as u64, "sync"), one_of_many),
        Kernel::of_units("page-cache/dirty-ranges", (n_ranges, "range"), dirty_ranges),
    ]
}

/// A file's folios, all of them dirty; each is a block.
fn written() -> PageCache {
    let mut cache = empty();
    (0..N_FOLIOS).for_each(|folio| cache.put(folio * FOLIO, &DATA, true));
    cache
}

fn empty() -> PageCache {
    let geometry = Geometry::new(FOLIO).expect("a block size");
    PageCache::new(geometry, DATA.len())
}

const DATA: [u8; 4096] = [7; 4096];

/// A pass takes all that is dirty, and it is clean then.
fn write_back(cache: &mut PageCache) -> u64 {
    let mut from = 0;
    while let Some(run) = cache.next_dirty(from..N_FOLIOS, 128).expect("every folio is whole") {
        from = run.blocks.end;
        let folios = run.folios.clone();
        drop(hint::black_box(run));
        folios.iter().for_each(|end| cache.end_writeback(end.folio, true));
    }
    from
}

/// A folio is written, taken by a pass, clean, and evicted.
fn life() -> Call {
    let mut cache = empty();
    Box::new(move || {
        (0..N_FOLIOS).for_each(|folio| cache.put(folio * FOLIO, &DATA, true));
        assert_eq!(write_back(&mut cache), N_FOLIOS);
        let n_evicted = (0..N_FOLIOS).filter(|_| cache.evict()).count() as u64;
        assert!(n_evicted == N_FOLIOS && !cache.evict());
    })
}

/// A folio that is dirty is written over.
fn write() -> Call {
    let mut cache = written();
    Box::new(move || in_disorder().for_each(|folio| cache.put(folio * FOLIO, &DATA, true)))
}

/// Of many folios one is written at a time, and taken by a pass.
fn one_of_many() -> Call {
    let mut cache = written();
    write_back(&mut cache);
    Box::new(move || {
        for folio in in_disorder().take(N_SYNCS) {
            cache.put(folio * FOLIO, &DATA, true);
            assert_eq!(write_back(&mut cache), folio + 1);
        }
    })
}

/// A few bytes of a folio are read.
fn look_up() -> Call {
    let cache = written();
    Box::new(move || {
        for folio in in_disorder() {
            let range = folio * FOLIO + 100..folio * FOLIO + 116;
            let mut bytes = [0; 16];
            assert!(cache.read(&range, &mut bytes).is_empty());
            hint::black_box(bytes);
        }
    })
}

/// A few bytes are written in each of several places of a block, and taken by a pass.
fn dirty_ranges() -> Call {
    let mut cache = written();
    (0..N_FOLIOS).for_each(|block| cache.set_stored(block, Expected::Absent));
    write_back(&mut cache);
    let place = |folio: u64, nth: u64| -> Range<u64> {
        let start = folio * FOLIO + 100 + nth * 1000;
        start..start + 10
    };
    Box::new(move || {
        for folio in in_disorder() {
            (0..RANGES_IN_A_BLOCK).for_each(|nth| {
                cache.put(place(folio, nth).start, &DATA[..10], true);
            });
        }
        assert_eq!(write_back(&mut cache), N_FOLIOS);
    })
}

/// Each folio once, none beside its neighbour.
fn in_disorder() -> impl Iterator<Item = u64> {
    (0..N_FOLIOS).map(|nth| nth * 389 % N_FOLIOS)
}

//! A client with a page cache of its own, linked through the seam that ours is linked through.

use std::{
    collections::BTreeMap,
    iter,
    ops::Range,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    task::Waker,
    thread,
};

use fastrand::Rng;
use sealback::{
    Error, File,
    source::{
        Destinations, DirtyRun, FolioEnd, FolioSource, Next, PartialBlock, PlainSlice, RunContent,
        Writeback,
    },
};
use sealback_crypto::Sealed;
use sealback_stream::{
    Expected, Failure, MemoryCache, MemoryOptions, MemoryServer, TargetError, TargetErrorKind,
    faulty::{Fault, Faults, FaultyServer, Operation, Rule, When},
};
use sealback_tests::reader::read_sealed;

use crate::support::{ROOT, create, ends, engine, memory, name, open, read_all};

const BLOCK: u64 = 4096;
const BLOCK_LEN: usize = 4096;

fn index(position: u64) -> usize {
    usize::try_from(position).unwrap()
}

/// A block of the client's.
#[derive(Debug)]
struct Page {
    /// All of it, with zeros behind the file's end.
    plain: Arc<Vec<u8>>,
    /// Ascending, apart from one another: exactly what was written.
    dirty: Vec<Range<u64>>,
    handed_out: Vec<Range<u64>>,
    stored: Expected,
}

impl Page {
    fn fetch(file: &File, block: u64) -> Page {
        let mut plain = vec![0; BLOCK_LEN];
        let stored = file.fetch_blocks(block..block + 1, &mut plain).unwrap()[0];
        Page { plain: Arc::new(plain), dirty: Vec::new(), handed_out: Vec::new(), stored }
    }
}

/// A page cache of whole blocks.
#[derive(Debug, Default)]
struct Pages {
    pages: Mutex<BTreeMap<u64, Page>>,
    size: Mutex<u64>,
}

impl Pages {
    /// Of a file that is as long as it is on the server.
    fn of(file: &File) -> Arc<Pages> {
        Arc::new(Pages { size: Mutex::new(file.size()), ..Pages::default() })
    }

    fn pages(&self) -> MutexGuard<'_, BTreeMap<u64, Page>> {
        self.pages.lock().unwrap()
    }

    fn size(&self) -> u64 {
        *self.size.lock().unwrap()
    }

    fn write(&self, file: &File, position: u64, data: &[u8]) {
        let mut at = position;
        while at < position + data.len() as u64 {
            let block = at / BLOCK;
            let end = ((block + 1) * BLOCK).min(position + data.len() as u64);
            let mut pages = self.pages();
            let page = pages.entry(block).or_insert_with(|| Page::fetch(file, block));
            let into = index(at % BLOCK)..index(at % BLOCK + end - at);
            let from = index(at - position)..index(end - position);
            Arc::make_mut(&mut page.plain)[into].copy_from_slice(&data[from]);
            insert(&mut page.dirty, at..end);
            at = end;
        }
        let mut size = self.size.lock().unwrap();
        *size = (*size).max(at);
    }

    fn is_clean(&self) -> bool {
        self.pages().values().all(|page| page.dirty.is_empty() && page.handed_out.is_empty())
    }
}

/// Adds a range to a set of them.
fn insert(ranges: &mut Vec<Range<u64>>, range: Range<u64>) {
    ranges.push(range);
    ranges.sort_by_key(|range| range.start);
    let mut joined: Vec<Range<u64>> = Vec::new();
    for range in ranges.drain(..) {
        match joined.last_mut() {
            Some(last) if last.end >= range.start => last.end = last.end.max(range.end),
            _ => joined.push(range),
        }
    }
    *ranges = joined;
}

impl FolioSource for Pages {
    fn next_dirty(&self, from: u64, _max_blocks: u64, _waker: &Waker) -> Next {
        let mut pages = self.pages();
        let mut behind = pages.range_mut(from..);
        let Some((block, page)) = behind.find(|(_, page)| !page.dirty.is_empty()) else {
            return Next::End;
        };
        let dirty = std::mem::take(&mut page.dirty);
        page.handed_out = dirty.clone();
        let len = index((self.size() - block * BLOCK).min(BLOCK));
        let partial = PartialBlock { block: *block, expected: page.stored, dirty };
        Next::Run(DirtyRun {
            blocks: *block..block + 1,
            content: RunContent::Plain(vec![PlainSlice::new(page.plain.clone(), 0..len)]),
            destinations: Destinations::ALL,
            partial: vec![partial],
            folios: vec![FolioEnd { folio: *block, end: block + 1 }],
        })
    }

    fn stored(&self, sealed: &Sealed) {
        let mut pages = self.pages();
        for (block, nonce) in sealed.nonces() {
            pages.get_mut(&block).unwrap().stored = Expected::Nonce(nonce);
        }
    }

    fn merged(&self, block: u64, plain: &[u8]) {
        let mut pages = self.pages();
        let page = pages.get_mut(&block).unwrap();
        let mut merged = plain.to_vec();
        merged.resize(BLOCK_LEN, 0);
        for dirty in &page.dirty {
            let dirty = index(dirty.start - block * BLOCK)..index(dirty.end - block * BLOCK);
            merged[dirty.clone()].copy_from_slice(&page.plain[dirty]);
        }
        page.plain = Arc::new(merged);
    }

    fn end_writeback(&self, folio: u64, outcome: Writeback) {
        let mut pages = self.pages();
        let page = pages.get_mut(&folio).unwrap();
        let handed_out = std::mem::take(&mut page.handed_out);
        if let Writeback::Redirty(_) = outcome {
            handed_out.into_iter().for_each(|range| insert(&mut page.dirty, range));
        }
    }
}

fn write_back(file: &File, pages: &Arc<Pages>) -> Result<(), Error> {
    file.writeback_from(pages.clone(), pages.size())?.wait().map(drop)
}

fn stored(server: &MemoryServer) -> Vec<u8> {
    read_sealed(&server.stored(&name()).unwrap(), &ROOT).unwrap().plaintext
}

#[test]
fn a_page_cache_of_the_clients_own_is_written_back_like_the_engines() {
    for seed in 0..20 {
        let mut rng = Rng::with_seed(seed);
        let server = MemoryServer::new(MemoryOptions::default().with_boundary_blocks(5));
        let cache = MemoryCache::new(MemoryOptions::default());
        let file = create(&engine(), &server, rng.bool().then_some(&cache as _), BLOCK);
        let pages = Pages::of(&file);
        let mut model: Vec<u8> = Vec::new();
        for step in 0..60 {
            let at = rng.usize(..100_000);
            let data = vec![rng.u8(..); rng.usize(1..20_000)];
            pages.write(&file, at as u64, &data);
            model.resize(model.len().max(at + data.len()), 0);
            model[at..at + data.len()].copy_from_slice(&data);
            if rng.bool() {
                write_back(&file, &pages).unwrap();
                assert!(pages.is_clean());
                assert!(read_all(&file) == model, "seed {seed} step {step}");
                file.sync().unwrap();
                assert!(stored(&server) == model, "seed {seed} step {step}");
            }
        }
    }
}

#[test]
fn a_file_is_as_long_as_the_client_says_when_its_writeback_has_ended_well() {
    let server = MemoryServer::new(MemoryOptions::default());
    let file = create(&engine(), &server, None, BLOCK);
    let pages = Pages::of(&file);
    pages.write(&file, 10 * BLOCK, b"far out");
    *pages.size.lock().unwrap() = 50 * BLOCK + 1;
    write_back(&file, &pages).unwrap();
    assert_eq!(file.size(), 50 * BLOCK + 1);
    assert_eq!(file.info().size, 50 * BLOCK + 1, "it is committed");
    let mut expected = vec![0; 50 * BLOCK_LEN + 1];
    expected[10 * BLOCK_LEN..][..7].copy_from_slice(b"far out");
    assert!(stored(&server) == expected);
    assert!(matches!(file.writeback_from(pages, 1 << 61), Err(Error::TooLarge)));
}

#[test]
fn what_a_client_with_a_page_cache_of_its_own_could_not_write_is_dirty_there_again() {
    let memory = MemoryServer::new(MemoryOptions::default());
    let fault = TargetError::new(TargetErrorKind::NoSpace, "injected");
    let fault = Fault::Fail(Failure::Fatal(fault));
    let faults =
        Faults::scripted([Rule { operation: Operation::Write, when: When::From(2), fault }]);
    let server = FaultyServer::new(memory.clone(), &faults);
    let file = create(&engine(), &server, None, BLOCK);
    let pages = Pages::of(&file);
    for block in [0, 1, 7, 8, 9, 30] {
        pages.write(&file, block * BLOCK, &[7; BLOCK_LEN]);
    }
    let error = write_back(&file, &pages).unwrap_err();
    assert_eq!(error.target_kind(), Some(TargetErrorKind::NoSpace));
    assert!(!pages.is_clean());
    faults.stop();
    write_back(&file, &pages).unwrap();
    assert!(pages.is_clean());
    file.sync().unwrap();
    let stored = stored(&memory);
    assert_eq!(stored.len() as u64, 31 * BLOCK);
    for (block, bytes) in stored.chunks(BLOCK_LEN).enumerate() {
        let byte = if [0, 1, 7, 8, 9, 30].contains(&block) { 7 } else { 0 };
        assert!(bytes.iter().all(|found| *found == byte), "block {block}");
    }
}

#[test]
fn two_clients_with_page_caches_of_their_own_keep_what_the_other_changes() {
    let server = memory();
    let file = create(&engine(), &server, None, BLOCK);
    file.write_at(0, &[0; 4 * BLOCK_LEN]).unwrap();
    file.close().unwrap();
    thread::scope(|scope| {
        for client in 0..2_u64 {
            let server = &server;
            scope.spawn(move || {
                let file = open(&engine(), server, None);
                let pages = Pages::of(&file);
                for round in 0..200 {
                    let at = (round * 2 + client) * 30;
                    pages.write(&file, at, &[u8::try_from(client + 1).unwrap(); 30]);
                    if round % 7 == 0 {
                        write_back(&file, &pages).unwrap();
                    }
                }
                write_back(&file, &pages).unwrap();
                file.close().unwrap();
            });
        }
    });
    let all = read_all(&open(&engine(), &server, None));
    for (index, stretch) in all[..400 * 30].chunks(30).enumerate() {
        let of = u8::try_from(index % 2 + 1).unwrap();
        assert!(stretch.iter().all(|byte| *byte == of), "stretch {index}: {stretch:?}");
    }
}

/// What becomes of some blocks of a client's in one writeback.
#[derive(Debug)]
struct Sieve {
    pages: Arc<Pages>,
    skipped: Range<u64>,
    /// Not handed out until they have been asked for twice.
    deferred: Mutex<Option<u64>>,
    /// From here on nothing is.
    stops_at: u64,
}

impl FolioSource for Sieve {
    fn next_dirty(&self, from: u64, max_blocks: u64, waker: &Waker) -> Next {
        let from = if self.skipped.contains(&from) { self.skipped.end } else { from };
        let is_dirty = |(_, page): &(&u64, &Page)| !page.dirty.is_empty();
        let next = self.pages.pages().range(from..).find(is_dirty).map(|(block, _)| *block);
        match next {
            Some(block) if self.skipped.contains(&block) => {
                self.next_dirty(self.skipped.end, max_blocks, waker)
            }
            Some(block) if *self.deferred.lock().unwrap() == Some(block) => {
                self.deferred.lock().unwrap().take();
                let waker = waker.clone();
                thread::spawn(move || waker.wake());
                Next::Later
            }
            Some(block) if block < self.stops_at => self.pages.next_dirty(from, max_blocks, waker),
            _ => Next::End,
        }
    }

    fn stored(&self, sealed: &Sealed) {
        self.pages.stored(sealed);
    }

    fn end_writeback(&self, folio: u64, outcome: Writeback) {
        self.pages.end_writeback(folio, outcome);
    }
}

#[test]
fn what_a_source_skips_defers_or_stops_at_is_dirty_and_written_later() {
    let server = MemoryServer::new(MemoryOptions::default());
    let file = create(&engine(), &server, None, BLOCK);
    let pages = Pages::of(&file);
    pages.write(&file, 0, &[7; 20 * BLOCK_LEN]);
    let deferred = Mutex::new(Some(8));
    let sieve = Arc::new(Sieve { pages: pages.clone(), skipped: 3..5, deferred, stops_at: 15 });
    file.writeback_from(sieve.clone(), 20 * BLOCK).unwrap().wait().unwrap();
    assert!(sieve.deferred.lock().unwrap().is_none(), "it was asked twice");
    let dirty: Vec<_> = pages.pages().values().map(|page| !page.dirty.is_empty()).collect();
    let left = |block| (3..5).contains(&block) || block >= 15;
    assert_eq!(dirty, (0..20).map(left).collect::<Vec<_>>());
    assert!(pages.pages().values().all(|page| page.handed_out.is_empty()), "none is held");
    write_back(&file, &pages).unwrap();
    file.sync().unwrap();
    assert!(pages.is_clean() && stored(&server) == vec![7; 20 * BLOCK_LEN]);
}

/// A source that hands out one run, whatever it is asked.
#[derive(Debug)]
struct One(Mutex<Option<DirtyRun>>, Mutex<Vec<u64>>);

impl FolioSource for One {
    fn next_dirty(&self, _from: u64, _max_blocks: u64, _waker: &Waker) -> Next {
        self.0.lock().unwrap().take().map_or(Next::End, Next::Run)
    }

    fn end_writeback(&self, folio: u64, _outcome: Writeback) {
        self.1.lock().unwrap().push(folio);
    }
}

#[test]
fn a_run_that_is_none_is_refused_and_its_folios_come_back() {
    let server = memory();
    let file = create(&engine(), &server, None, BLOCK);
    file.write_at(0, &[1; 8 * BLOCK_LEN]).unwrap();
    file.sync().unwrap();
    let plain = |len: u64| {
        let bytes = Arc::new(vec![2; index(len)]);
        RunContent::Plain(vec![PlainSlice::new(bytes, 0..index(len))])
    };
    let good = DirtyRun {
        blocks: 2..4,
        content: plain(2 * BLOCK),
        destinations: Destinations::ALL,
        partial: Vec::new(),
        folios: vec![FolioEnd { folio: 5, end: 4 }],
    };
    let partial = |block, dirty: &[Range<u64>]| PartialBlock {
        block,
        expected: Expected::Absent,
        dirty: dirty.to_vec(),
    };
    let twice = vec![partial(2, &[]), partial(2, &[])];
    let outside = partial(2, &[0..1, 1..2]);
    let overlapping = partial(2, &[2 * BLOCK..2 * BLOCK + 2, 2 * BLOCK + 1..2 * BLOCK + 4]);
    let bad = [
        DirtyRun { blocks: 4..4, ..good.clone() },
        DirtyRun { blocks: 2..5, ..good.clone() },
        DirtyRun { blocks: 0..4000, content: plain(4000 * BLOCK), ..good.clone() },
        DirtyRun { blocks: 7..9, folios: Vec::new(), ..good.clone() },
        DirtyRun { content: plain(2 * BLOCK - 1), ..good.clone() },
        DirtyRun { content: plain(0), ..good.clone() },
        DirtyRun { partial: vec![partial(4, &[])], ..good.clone() },
        DirtyRun { partial: twice, ..good.clone() },
        DirtyRun { partial: vec![outside], ..good.clone() },
        DirtyRun { partial: vec![overlapping], ..good.clone() },
        DirtyRun { folios: vec![FolioEnd { folio: 5, end: 5 }], ..good.clone() },
    ];
    for run in bad {
        let what = format!("{run:?}");
        let folios: Vec<_> = run.folios.iter().map(|end| end.folio).collect();
        let source = Arc::new(One(Mutex::new(Some(run)), Mutex::default()));
        let ended = file.writeback_from(source.clone(), 0).unwrap().wait();
        assert!(matches!(ended, Err(Error::Source(_))), "{what}: {ended:?}");
        assert_eq!(*source.1.lock().unwrap(), folios, "{what}");
    }
    assert!(read_all(&file) == [1; 8 * BLOCK_LEN]);
    let source = Arc::new(One(Mutex::new(Some(good)), Mutex::default()));
    file.writeback_from(source, 0).unwrap().wait().unwrap();
    assert!(read_all(&file)[2 * BLOCK_LEN..4 * BLOCK_LEN] == [2; 2 * BLOCK_LEN]);
    let mut room = vec![0; 10];
    assert!(matches!(file.fetch_blocks(0..1, &mut room), Err(Error::Config(_))));
}

/// A source of one block that panics in one of its calls.
#[derive(Debug)]
struct Panicking {
    call: &'static str,
    has_one: AtomicBool,
}

impl Panicking {
    fn called(&self, call: &str) {
        assert_ne!(self.call, call, "as it was told");
    }
}

impl FolioSource for Panicking {
    fn next_dirty(&self, _from: u64, _max_blocks: u64, _waker: &Waker) -> Next {
        self.called("next_dirty");
        if !self.has_one.swap(false, Ordering::Relaxed) {
            return Next::End;
        }
        // Another nonce than what is stored: it is merged.
        let (expected, dirty) = (Expected::Absent, iter::once(BLOCK..2 * BLOCK - 1).collect());
        let plain = PlainSlice::new(Arc::new([2; BLOCK_LEN]), 0..BLOCK_LEN);
        Next::Run(DirtyRun {
            blocks: 1..2,
            content: RunContent::Plain(vec![plain]),
            destinations: Destinations::ALL,
            partial: vec![PartialBlock { block: 1, expected, dirty }],
            folios: vec![FolioEnd { folio: 1, end: 2 }],
        })
    }

    fn stored(&self, _sealed: &Sealed) {
        self.called("stored");
    }

    fn merged(&self, _block: u64, _plain: &[u8]) {
        self.called("merged");
    }

    fn end_writeback(&self, _folio: u64, _outcome: Writeback) {
        self.called("end_writeback");
    }
}

#[test]
fn a_source_that_panics_ends_its_writeback_and_the_file_goes_on() {
    for call in ["next_dirty", "stored", "merged", "end_writeback"] {
        let ended = ends(move || {
            let server = memory();
            let file = create(&engine(), &server, None, BLOCK);
            file.write_at(0, &[1; 4 * BLOCK_LEN]).unwrap();
            file.sync().unwrap();
            let source = Arc::new(Panicking { call, has_one: AtomicBool::new(true) });
            let result = file.writeback_from(source, 0).unwrap().wait();
            assert!(matches!(result, Err(Error::Source(_))), "{result:?}");
            file.write_at(0, &[3; 10]).unwrap();
            file.sync().unwrap();
            read_all(&open(&engine(), &server, None))[..12]
                == [[3; 10].as_slice(), &[1; 2]].concat()
        });
        assert_eq!(ended, Some(true), "{call}");
    }
}

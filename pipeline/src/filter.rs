//! A writeback of what the client picks: for each folio he says whether it goes, stays, is asked for
//! again later, or whether that was all.
//!
//! The folios that are passed over are as they were: dirty, not under writeback, and part of whatever
//! pass comes next. Blocks ascend within a request, so what is to be asked for again is so in a pass of
//! its own, when all others are on the server.

use std::{collections::BTreeSet, fmt, ops::Range, task::Waker};

use sealback_crypto::Sealed;

use crate::{
    Error, File, RequestStats, WriteKind,
    growth::Growth,
    open_file::OpenFile,
    origin::Subject,
    pass::{Pass, PassKind},
    passes::Plan,
    ranges::RangeSet,
    source::{FolioSource, Next, Writeback},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

/// What is to become of a dirty folio in a [filtered](File::writeback_filtered) writeback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Not now: it is asked for once more when all others have been written.
    Defer,
    /// It stays dirty.
    Skip,
    /// It stays dirty, and so does everything behind it. Nothing more is asked.
    Stop,
    /// It is written.
    Write,
}

/// What a [filtered](File::writeback_filtered) writeback did, and what it left.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Filtered {
    /// Of all passes that it took.
    pub stats: RequestStats,
    /// Positions that were skipped: whole folios, ascending, apart from one another.
    pub skipped: Vec<Range<u64>>,
    /// Positions that were deferred until there was nothing else left to be written.
    pub deferred: Vec<Range<u64>>,
    /// Whether it was stopped.
    pub stopped: bool,
}

type Filter = Box<dyn FnMut(Range<u64>) -> Decision + Send>;

/// What was decided so far.
#[derive(Debug, Default)]
struct Decided {
    /// Units that are asked for in this pass; all, if none are named.
    asked: Option<BTreeSet<u64>>,
    skipped: BTreeSet<u64>,
    deferred: BTreeSet<u64>,
    /// What is being taken: the blocks of one unit.
    writes: Range<u64>,
    stopped: bool,
}

/// The filter, and how files are cut into what it is asked about: folios, or blocks, if they are
/// larger.
struct Sieve {
    filter: Mutex<Filter>,
    unit_blocks: u64,
    decided: Mutex<Decided>,
}

impl Sieve {
    fn decided(&self) -> MutexGuard<'_, Decided> {
        self.decided.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The blocks of the unit that a block is in.
    fn unit_of(&self, block: u64) -> Range<u64> {
        let start = block - block % self.unit_blocks;
        start..start + self.unit_blocks
    }

    /// Begins a pass over what was deferred in the last one. Returns whether there is something, and it
    /// is less than was asked for then.
    fn again(&self) -> bool {
        let mut decided = self.decided();
        let deferred = &decided.deferred;
        let is_news = decided.asked.as_ref().is_none_or(|asked| deferred.len() < asked.len());
        let again = is_news && !deferred.is_empty() && !decided.stopped;
        if again {
            decided.asked = Some(std::mem::take(&mut decided.deferred));
        }
        again
    }

    /// The positions of units.
    fn positions(&self, units: &BTreeSet<u64>, file: &OpenFile) -> Vec<Range<u64>> {
        let (geometry, size) = (file.geometry(), file.folios().size());
        let mut positions = RangeSet::default();
        for unit in units {
            let start = geometry.block_start(*unit);
            let end = geometry.block_start(unit + self.unit_blocks).min(size);
            positions.insert(start..end.max(start));
        }
        positions.iter().cloned().collect()
    }
}

impl fmt::Debug for Sieve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sieve").field("decided", &self.decided()).finish_non_exhaustive()
    }
}

/// A pass over what the filter lets through.
#[derive(Debug)]
struct Sifted {
    file: Arc<OpenFile>,
    pass: Pass,
    sieve: Arc<Sieve>,
    /// The block before which all that is dirty was passed over, or handed out.
    passed_to: AtomicU64,
}

impl Sifted {
    /// Asks for the unit that a block is in.
    fn decide(&self, block: u64) -> Decision {
        let unit = self.sieve.unit_of(block);
        let mut decided = self.sieve.decided();
        // Asked for in a pass that met a cut, and was begun again.
        let passed =
            decided.skipped.contains(&unit.start) || decided.deferred.contains(&unit.start);
        if passed || decided.asked.as_ref().is_some_and(|asked| !asked.contains(&unit.start)) {
            return Decision::Skip;
        }
        drop(decided);
        let geometry = self.file.geometry();
        let end = geometry.block_start(unit.end).min(self.file.folios().size());
        let mut filter = self.sieve.filter.lock().unwrap_or_else(PoisonError::into_inner);
        let decision = filter(geometry.block_start(unit.start)..end);
        drop(filter);
        decided = self.sieve.decided();
        match decision {
            Decision::Defer => drop(decided.deferred.insert(unit.start)),
            Decision::Skip => drop(decided.skipped.insert(unit.start)),
            Decision::Stop => decided.stopped = true,
            Decision::Write => decided.writes = unit,
        }
        decision
    }
}

impl FolioSource for Sifted {
    fn next_dirty(&self, from: u64, max_blocks: u64, waker: &Waker) -> Next {
        let mut within = self.pass.within(from.max(self.passed_to.load(Ordering::Relaxed)));
        loop {
            let (writes, stopped) = {
                let decided = self.sieve.decided();
                (decided.writes.clone(), decided.stopped)
            };
            if stopped {
                return self.pass.end();
            }
            // What is being taken, or copies for the cache that lie before what is dirty next.
            let next = self.pass.first_dirty(&within);
            let to = match next {
                Some(block) if writes.contains(&block) => writes.end.min(within.end),
                Some(block) => block,
                None => within.end,
            };
            match self.pass.next_within(within.start..to, within.end, max_blocks, waker) {
                Next::End => {}
                other => return other,
            }
            let Some(block) = next else { return self.pass.end() };
            within.start = match writes.contains(&block) {
                true => to,
                // What goes along with it may lie before it.
                false if self.decide(block) == Decision::Write => within.start,
                false => self.sieve.unit_of(block).end.min(within.end),
            };
            self.passed_to.store(within.start, Ordering::Relaxed);
        }
    }

    fn stored(&self, sealed: &Sealed) {
        self.pass.stored(sealed);
    }

    fn merged(&self, block: u64, plain: &[u8]) {
        self.pass.merged(block, plain);
    }

    fn end_writeback(&self, folio: u64, outcome: Writeback) {
        self.pass.end_writeback(folio, outcome);
    }
}

impl File {
    /// Writes back what is dirty and `filter` lets through, and waits for it. The filter is asked about
    /// each folio that has something dirty, in ascending order, by its positions (whole folios, or
    /// blocks, if they are larger, up to the file's end): see [`Decision`]. What is passed over stays dirty,
    /// can be read and written as before, and goes with the next writeback. Nothing is committed that
    /// was not on the server: [`sync`](File::sync) does so, with all the rest. Where there are
    /// [write groups](File::close_group), it is of the oldest.
    ///
    /// The filter is called by the thread that drives the writeback: it must neither block nor call
    /// into the engine.
    ///
    /// ```
    /// # use sealback::{Config, CreateOptions, Decision, Engine, Place, crypto::RootKey};
    /// # use sealback::stream::{MemoryOptions, MemoryServer, Name};
    /// # let engine = Engine::new(Config { folio_bytes: 4096, ..Config::default() })?;
    /// # let (server, root) = (MemoryServer::new(MemoryOptions::default()), RootKey::from_bytes(&[7; 32]));
    /// # let place = Place { server: &server, cache: None, root: &root };
    /// # let name = Name::new("letter").expect("a plain name");
    /// # let options = CreateOptions { block_bytes: 4096, ..CreateOptions::default() };
    /// # let file = engine.create(&place, &name, &options)?;
    /// file.write_at(0, &[7; 3 * 4096])?;
    /// let leased = 4096..8192;
    /// let in_lease = leased.clone();
    /// let done = file.writeback_filtered(move |positions| {
    ///     if positions == in_lease { Decision::Skip } else { Decision::Write }
    /// })?;
    /// assert_eq!((file.dirty_bytes(), done.skipped), (4096, vec![leased]));
    /// # Ok::<(), sealback::Error>(())
    /// ```
    ///
    /// # Errors
    /// As for [`sync`](File::sync).
    pub fn writeback_filtered(
        &self,
        filter: impl FnMut(Range<u64>) -> Decision + Send + 'static,
    ) -> Result<Filtered, Error> {
        let file = &self.file;
        let unit_bytes = (file.core.folios.folio_bytes() as u64).max(self.block_bytes());
        let sieve = Arc::new(Sieve {
            filter: Mutex::new(Box::new(filter)),
            unit_blocks: unit_bytes / self.block_bytes(),
            decided: Mutex::default(),
        });
        let mut stats = RequestStats::default();
        loop {
            let pass = file.following_cuts(|| file.run_sifted(&sieve));
            if pass.is_err() {
                self.take_error();
            }
            stats.add(&pass?);
            if !sieve.again() {
                break;
            }
        }
        let decided = sieve.decided();
        let skipped = sieve.positions(&decided.skipped, file);
        let deferred = sieve.positions(&decided.deferred, file);
        Ok(Filtered { stats, skipped, deferred, stopped: decided.stopped })
    }
}

impl OpenFile {
    fn run_sifted(self: &Arc<Self>, sieve: &Arc<Sieve>) -> Result<RequestStats, Error> {
        let _sizes = self.hold_sizes_for_change()?;
        let idle = self.passes.wait_until_none_runs();
        let grows = self.grows();
        let pass = Pass::new(self.clone(), PassKind::Sync, grows);
        let source = Arc::new(Sifted {
            file: self.clone(),
            pass,
            sieve: sieve.clone(),
            passed_to: AtomicU64::new(0),
        });
        let growth = grows.then(Growth::default);
        let subject = Subject::all_of(self, WriteKind::Filtered);
        let (is_complete, filling, is_everybodys) = (false, None, true);
        let plan = Plan { subject, source, growth, is_complete, filling, is_everybodys };
        let ending = self.carry_out(idle, plan, None);
        ending.result.map(|()| Arc::unwrap_or_clone(ending.stats))
    }
}

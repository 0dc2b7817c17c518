//! Servers, caches and their targets with faults.

use std::{
    fmt,
    ops::{Deref, Range},
    sync::{Arc, Mutex, PoisonError},
    task::Waker,
    time::Duration,
};

use sealback_crypto::{FileId, Geometry, HEADER_BYTES, Nonce, Sealed, SlotExpectation, SlotWrite};

use super::{Fault, Faults, Operation, error_of, unknown};
use crate::{
    Cache, CacheFile, Completion, CompletionSink, Failure, Granule, Name, Prepared, Read,
    ReadCompletion, Segment, Server, SizeLock, SizeLockAttempt, Target, TargetError, Ticket, Write,
};

/// A server with faults. What of the server is no operation is there as it was.
#[derive(Clone, Debug)]
pub struct FaultyServer<S> {
    server: S,
    faults: Faults,
}

impl<S> FaultyServer<S> {
    /// `server`, with what goes wrong.
    pub fn new(server: S, faults: &Faults) -> FaultyServer<S> {
        FaultyServer { server, faults: faults.clone() }
    }

    fn opened(
        &self,
        open: impl FnOnce() -> Result<Arc<dyn Target>, TargetError>,
    ) -> Result<Arc<dyn Target>, TargetError> {
        let target = self.faults.control(Operation::Open, open)?;
        Ok(Arc::new(Faulty { target, copy: (), faults: self.faults.clone() }))
    }
}

impl<S> Deref for FaultyServer<S> {
    type Target = S;

    fn deref(&self) -> &S {
        &self.server
    }
}

impl<S: Server> Server for FaultyServer<S> {
    fn create(
        &self,
        name: &Name,
        file_id: FileId,
        header: &[u8; HEADER_BYTES],
    ) -> Result<Arc<dyn Target>, TargetError> {
        self.opened(|| self.server.create(name, file_id, header))
    }

    fn draft(
        &self,
        name: &Name,
        file_id: FileId,
        header: &[u8; HEADER_BYTES],
    ) -> Result<Arc<dyn Target>, TargetError> {
        self.opened(|| self.server.draft(name, file_id, header))
    }

    fn open(&self, name: &Name) -> Result<Arc<dyn Target>, TargetError> {
        self.opened(|| self.server.open(name))
    }

    fn remove(&self, name: &Name) -> Result<(), TargetError> {
        self.server.remove(name)
    }

    fn chunk_blocks(&self, block_bytes: u64) -> u32 {
        self.server.chunk_blocks(block_bytes)
    }

    fn identify(&self, known: Option<u128>) -> Result<Option<u128>, TargetError> {
        self.server.identify(known)
    }
}

/// A cache with faults. What of the cache is no operation is there as it was.
#[derive(Clone, Debug)]
pub struct FaultyCache<C> {
    cache: C,
    faults: Faults,
}

impl<C> FaultyCache<C> {
    /// `cache`, with what goes wrong.
    pub fn new(cache: C, faults: &Faults) -> FaultyCache<C> {
        FaultyCache { cache, faults: faults.clone() }
    }
}

impl<C> Deref for FaultyCache<C> {
    type Target = C;

    fn deref(&self) -> &C {
        &self.cache
    }
}

impl<C: Cache> Cache for FaultyCache<C> {
    fn open(&self, file_id: FileId, geometry: Geometry) -> Result<Arc<dyn CacheFile>, TargetError> {
        let open = || self.cache.open(file_id, geometry);
        let copy = self.faults.control(Operation::Open, open)?;
        let target = copy.clone() as Arc<dyn Target>;
        Ok(Arc::new(Faulty { target, copy, faults: self.faults.clone() }))
    }
}

/// A target with faults; `copy` is the same as a cache's copy, or nothing.
#[derive(Debug)]
struct Faulty<C> {
    target: Arc<dyn Target>,
    copy: C,
    faults: Faults,
}

/// How an answer is given.
#[derive(Clone, Copy)]
enum Delivery {
    After(Duration),
    Held,
    Now,
    Overtaken,
}

impl Delivery {
    /// As a fault says.
    fn of(fault: Option<&Fault>) -> Delivery {
        match fault {
            Some(Fault::Delay(delay)) => Delivery::After(*delay),
            Some(Fault::Elsewhere) => Delivery::After(Duration::ZERO),
            Some(Fault::Hold) => Delivery::Held,
            Some(Fault::Reorder) => Delivery::Overtaken,
            _ => Delivery::Now,
        }
    }

    fn give(self, faults: &Faults, answer: impl FnOnce() + Send + 'static) {
        let later = &faults.0.later;
        match self {
            Delivery::After(delay) => later.after(delay, answer),
            Delivery::Held => later.hold(answer),
            Delivery::Now => later.now(answer),
            Delivery::Overtaken => later.overtaken(answer),
        }
    }
}

/// Stands between a target and whoever waits for the end of a write.
struct Relay {
    done: Mutex<Option<Completion>>,
    delivery: Delivery,
    faults: Faults,
    /// What is answered instead of a success.
    instead: Option<Failure>,
    short: Option<Short>,
}

/// A write that is answered short.
#[derive(Clone, Copy)]
struct Short {
    /// The target was given so many bytes.
    given: u64,
    /// So many are answered, if all of these went through.
    told: u64,
}

impl CompletionSink for Relay {
    fn terminated(&self, _ticket: Ticket, outcome: Result<u64, Failure>) {
        let done = self.done.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(done) = done else { return };
        let outcome = match (outcome, self.instead.clone()) {
            (Ok(_), Some(failure)) => Err(failure),
            (Ok(bytes), None) => Ok(match self.short {
                Some(Short { given, told }) if bytes >= given => told,
                Some(Short { told, .. }) => bytes.min(told),
                None => bytes,
            }),
            (Err(failure), _) => Err(failure),
        };
        self.delivery.give(&self.faults, move || match outcome {
            Ok(bytes) => done.written(bytes),
            Err(failure) => done.failed(failure),
        });
    }
}

impl<C: fmt::Debug + Send + Sync + 'static> Target for Faulty<C> {
    fn identity(&self) -> u128 {
        self.target.identity()
    }

    fn prepare(&self, block: u64, waker: &Waker) -> Prepared {
        match self.faults.next(Operation::Prepare) {
            Some(Fault::NoCredit) => {
                let waker = waker.clone();
                let soon = Duration::from_micros(200);
                self.faults.0.later.after(soon, move || waker.wake());
                Prepared::Later
            }
            Some(Fault::Panic) => panic!("injected: prepare panics"),
            fault => match (self.target.prepare(block, waker), fault) {
                (Prepared::Granted(grant), Some(Fault::Short(bytes))) => {
                    let bytes = grant.max_bytes.min(bytes);
                    Prepared::Granted(grant.with_max_bytes(bytes))
                }
                (Prepared::Granted(grant), Some(Fault::Gaps)) => {
                    Prepared::Granted(grant.with_gaps())
                }
                (prepared, _) => prepared,
            },
        }
    }

    fn write(&self, mut write: Write, done: Completion) {
        let fault = self.faults.next(Operation::Write);
        let (mut instead, mut short) = (None, None);
        match &fault {
            Some(Fault::Drop) => return drop(done),
            Some(Fault::Fail(failure)) => return done.failed(failure.clone()),
            Some(Fault::Meddle) => {
                write.runs().iter().for_each(|run| self.faults.meddle(run.clone()));
            }
            Some(Fault::Panic) => panic!("injected: write panics"),
            Some(Fault::Short(bytes)) => {
                let told = (*bytes).min(write.bytes());
                // With expectations, all of it is compared and written: what is told is what counts.
                if write.expectations.is_empty() && !shorten(&mut write, told) {
                    return done.written(told);
                }
                short = Some(Short { given: write.bytes(), told });
            }
            Some(Fault::Unknown(kind)) => instead = Some(Failure::Retry(unknown(*kind))),
            _ => {}
        }
        let ticket = done.ticket();
        let relay = Relay {
            done: Mutex::new(Some(done)),
            delivery: Delivery::of(fault.as_ref()),
            faults: self.faults.clone(),
            instead,
            short,
        };
        self.target.write(write, Completion::new(Arc::new(relay), ticket));
    }

    fn read(&self, read: Read, done: ReadCompletion) {
        let fault = self.faults.next(Operation::Read);
        let most = match &fault {
            Some(Fault::Drop) => return drop(done),
            Some(Fault::Fail(failure)) => return done.failed(error_of(failure.clone())),
            Some(Fault::Panic) => panic!("injected: read panics"),
            Some(Fault::Short(bytes)) => {
                usize::try_from(*bytes.max(&read.geometry.stride_bytes())).unwrap_or(usize::MAX)
            }
            _ => usize::MAX,
        };
        let (delivery, faults) = (Delivery::of(fault.as_ref()), self.faults.clone());
        let relayed = ReadCompletion::new(move |outcome| {
            delivery.give(&faults, move || match outcome {
                Ok((buffer, bytes)) => done.read(buffer, bytes.min(most)),
                Err(error) => done.failed(error),
            });
        });
        self.target.read(read, relayed);
    }

    fn read_header(&self) -> Result<Vec<u8>, TargetError> {
        self.target.read_header()
    }

    fn write_slot(&self, write: &SlotWrite) -> Result<(), TargetError> {
        self.faults.control(Operation::Header, || self.target.write_slot(write))
    }

    fn cut(
        &self,
        geometry: Geometry,
        n_blocks: u64,
        expect: &SlotExpectation,
    ) -> Result<(), TargetError> {
        self.faults.control(Operation::Cut, || self.target.cut(geometry, n_blocks, expect))
    }

    fn barrier(&self) -> Result<(), TargetError> {
        self.faults.control(Operation::Barrier, || self.target.barrier())
    }

    fn publish(&self) -> Result<(), TargetError> {
        self.target.publish()
    }

    fn lock_size(&self) -> Result<Option<SizeLock>, TargetError> {
        self.target.lock_size()
    }

    fn try_lock_size(&self) -> Result<SizeLockAttempt, TargetError> {
        self.target.try_lock_size()
    }
}

impl CacheFile for Faulty<Arc<dyn CacheFile>> {
    fn present(&self, blocks: Range<u64>) -> Vec<Option<Nonce>> {
        self.copy.present(blocks)
    }

    fn forget(&self, blocks: Range<u64>) -> Result<(), TargetError> {
        self.faults.control(Operation::Forget, || self.copy.forget(blocks))
    }

    fn confirm(&self, sealed: &Sealed) -> Result<(), TargetError> {
        self.faults.control(Operation::Confirm, || self.copy.confirm(sealed))
    }

    fn invalidate(&self) -> Result<(), TargetError> {
        self.faults.control(Operation::Forget, || self.copy.invalidate())
    }

    fn set_header(
        &self,
        header: &[u8; HEADER_BYTES],
        stored_bytes: u64,
    ) -> Result<(), TargetError> {
        self.faults.control(Operation::Header, || self.copy.set_header(header, stored_bytes))
    }

    fn granule(&self) -> Option<Granule> {
        self.copy.granule()
    }
}

/// Leaves of a write the blocks that are within so many bytes from its start. Returns whether there
/// is one.
fn shorten(write: &mut Write, bytes: u64) -> bool {
    let mut left = bytes;
    let mut segments = Vec::new();
    for segment in write.segments.drain(..) {
        let whole = segment.bytes();
        if whole <= left {
            left -= whole;
            segments.push(segment);
            continue;
        }
        let blocks = segment.blocks();
        let kept = |stride: u64| blocks.start..blocks.start + left / stride;
        let (part, rest) = match segment {
            Segment::Hole { geometry, .. } => {
                let blocks = kept(geometry.stride_bytes());
                (blocks.clone(), Segment::Hole { blocks, geometry })
            }
            Segment::Sealed(sealed) => {
                let blocks = kept(sealed.geometry().stride_bytes());
                let rest = sealed.slice(blocks.start..blocks.end.max(blocks.start + 1));
                (blocks, Segment::Sealed(rest))
            }
        };
        if !part.is_empty() {
            segments.push(rest);
        }
        break;
    }
    write.segments = segments;
    !write.segments.is_empty()
}

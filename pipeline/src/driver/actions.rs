//! What a request wants done, carried out: by the thread that drives, the crypto pool, an I/O thread, or
//! who waits for the end.

use sealback_crypto::{Buffer, SealError};
use sealback_stream::{Completion, Failure, TargetErrorKind, Ticket, Write};

use super::{Driver, Ending, Parts, State, source_panicked};
use crate::{
    engine::{CACHE, UPLOAD},
    io::{Job, contain},
    request::{Action, Event},
    source::PlainSlice,
    sync::Arc,
};

/// Plaintext or sealed bytes that take less time where they are than a thread takes to wake.
const SMALL_BYTES: u64 = 64 << 10;

/// Plaintext that is sealed where the request is driven: in less time than it takes to hand it over.
const TINY_BYTES: u64 = 16 << 10;

impl Driver {
    /// Carries out what the request wants done. In here the order is the request's; nothing in
    /// here blocks.
    pub(super) fn act(self: &Arc<Self>, state: &mut State) -> Option<(Parts, Ending)> {
        let State { request, actions, parts, cache_failed, caller_writes, .. } = state;
        request.take_actions(actions);
        // A source may be a client's, whose panic would leave the request to nobody.
        let (mut result, mut told) = (None, true);
        for action in actions.drain(..) {
            let parts = parts.as_ref().expect("no action follows the end");
            match action {
                Action::Cached { sealed } => {
                    if let Some(claim) = parts.cache.clone() {
                        self.core.io.run_or_send(CACHE, Job::Confirm { claim, sealed });
                    }
                }
                Action::Done(done) => result = Some(done),
                Action::InDoubt { sealed } => {
                    told &= self.tell(|| parts.source.in_doubt(&sealed));
                }
                Action::Issue { ticket, write } => {
                    let job = self.write(parts, ticket, write);
                    if ticket.stream == UPLOAD {
                        let alone = request.streams()[UPLOAD].in_flight() == 1;
                        *caller_writes = self.upload(job, *caller_writes, alone);
                    } else {
                        self.core.io.run_or_send(ticket.stream, job);
                    }
                }
                Action::Merge(merge) => {
                    let (driver, run) = (self.clone(), parts.merge.clone());
                    self.core.io.control(move || {
                        let (block, result) = (merge.block, run(&merge));
                        driver.post(Event::Merged { block, result });
                    });
                }
                Action::Refresh { block, plain } => {
                    told &= self.tell(|| parts.source.merged(block, &plain));
                }
                Action::Release { folio, outcome } => {
                    told &= self.tell(|| parts.source.end_writeback(folio, outcome));
                }
                Action::Seal { span, first_block, plain, buffer } => {
                    self.seal(parts, span, first_block, plain, buffer);
                }
                Action::Stored { sealed } => {
                    told &= self.tell(|| parts.source.stored(&sealed));
                }
                Action::StreamOff { stream, failure } => match failure {
                    Failure::Fatal(error) if error.kind() == TargetErrorKind::TimedOut => {
                        self.core.io.mark_stuck(stream);
                    }
                    _ => *cache_failed = true,
                },
                Action::WakeAt(at) => {
                    // It may end before, and its engine with it.
                    let driver = self.me.clone();
                    let wake = Box::new(move || {
                        if let Some(driver) = driver.upgrade() {
                            driver.post(Event::Wake);
                        }
                    });
                    self.core.io.wake_after(at.saturating_sub(self.core.now()), wake);
                }
            }
        }
        if !told {
            result = result.map(|result| result.and(Err(source_panicked())));
        }
        let result = result?;
        let stats = Arc::new(request.take_stats());
        let parts = parts.take().expect("a request ends once");
        Some((parts, Ending { result, cache_failed: *cache_failed, committed: false, stats }))
    }

    fn write(self: &Arc<Self>, parts: &Parts, ticket: Ticket, write: Write) -> Job {
        let target = parts.targets[ticket.stream].clone();
        let target = target.expect("only a stream with a target issues");
        let done = Completion::new(self.clone(), ticket);
        let cache = parts.cache.as_ref().map(|claim| claim.cache().clone());
        Job::Write { target, cache, write, done }
    }

    /// Tells the source of something; whether it took it. If not, the request fails before anything else
    /// comes of what it does next.
    fn tell(self: &Arc<Self>, call: impl FnOnce()) -> bool {
        let told = contain(call).is_some();
        if !told {
            self.post(Event::Fail(source_panicked()));
        }
        told
    }

    /// Has a write to the server carried out: by its thread, or by the caller, if it is small, and there
    /// is no cache, which he need not wait for. Those that are under way at once go the same way, so that
    /// none overtakes another; `alone` says that no other one is. Returns whether it is the caller's.
    fn upload(&self, job: Job, caller_writes: bool, alone: bool) -> bool {
        if !alone && caller_writes {
            self.caller.queue(move || job.run());
            return true;
        }
        let is_small = match &job {
            Job::Write { target, cache: None, write, .. } => {
                write.bytes() <= SMALL_BYTES && !target.is_immediate()
            }
            _ => false,
        };
        if !alone || !is_small {
            self.core.io.run_or_send(UPLOAD, job);
            return false;
        }
        let offered = self.caller.offer(move || job.run());
        offered.map_err(|run| self.core.io.send(UPLOAD, Job::Run(Box::new(run)))).is_ok()
    }

    fn seal(
        self: &Arc<Self>,
        parts: &Parts,
        span: u64,
        first_block: u64,
        plain: Vec<PlainSlice>,
        buffer: Buffer,
    ) {
        let (driver, key) = (self.clone(), parts.content_key.clone());
        let seal_gen = parts.seal_gen;
        let bytes = plain.iter().map(PlainSlice::said_bytes).sum::<u64>();
        let job = move || {
            let result = contain(|| {
                let slices: Vec<&[u8]> = plain.iter().map(PlainSlice::as_slice).collect();
                key.seal(first_block, seal_gen, &slices, buffer)
            });
            // From here on a writer need not copy the folios.
            drop(plain);
            if result.is_none() {
                // A client's buffer that is not as long as it said: its slices panic.
                driver.post(Event::Fail(source_panicked()));
            }
            let result = result.unwrap_or(Err(SealError::NothingToSeal));
            driver.post(Event::Sealed { span, result });
        };
        if bytes <= TINY_BYTES {
            return job();
        }
        let offered = if bytes <= SMALL_BYTES { self.caller.offer(job) } else { Err(job) };
        if let Err(job) = offered {
            self.core.workers.seal(bytes, job);
        }
    }
}

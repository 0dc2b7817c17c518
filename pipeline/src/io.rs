//! The threads that talk to targets: never those that seal, never those that drive.
//!
//! One thread for each kind of work, so that a cache that hangs holds up no upload. Jobs of one
//! thread run in the order in which they were sent.

use std::{io, iter, time::Duration};

use sealback_crypto::Sealed;
use sealback_stream::{CacheFile, Completion, Failure, Target, Write};

use crate::claims::Claim;
use crate::sync::{
    Arc, Instant,
    atomic::{AtomicBool, Ordering},
    crossbeam_channel::{self, Receiver, RecvTimeoutError, Sender},
    thread::{self, JoinHandle},
};

/// Work for an I/O thread.
pub(crate) enum Job {
    /// Sets the cache's record for blocks that were written and acknowledged.
    Confirm { claim: Claim, sealed: Sealed },
    /// Anything else that may block.
    Run(Box<dyn FnOnce() + Send>),
    /// A subrequest. The cache's record of its blocks is cleared first, whichever stream it is.
    Write {
        target: Arc<dyn Target>,
        cache: Option<Arc<dyn CacheFile>>,
        write: Write,
        done: Completion,
    },
}

impl Job {
    /// Whether it never blocks.
    fn is_immediate(&self) -> bool {
        match self {
            Job::Confirm { claim, .. } => claim.cache().is_immediate(),
            Job::Run(_) => false,
            Job::Write { target, cache, .. } => {
                target.is_immediate() && cache.as_ref().is_none_or(|cache| cache.is_immediate())
            }
        }
    }

    pub(crate) fn run(self) {
        match self {
            Job::Confirm { claim, sealed } => claim.confirm(&sealed),
            Job::Run(run) => run(),
            Job::Write { target, cache, write, done } => {
                let forgotten = match cache {
                    Some(cache) => write
                        .runs()
                        .iter()
                        .try_for_each(|run| cache.forget(run.clone()))
                        .or_else(|_| cache.invalidate()),
                    None => Ok(()),
                };
                // A record that cannot be cleared would bring back what is overwritten now.
                match forgotten {
                    Ok(()) => target.write(write, done),
                    Err(error) => done.failed(Failure::Retry(error)),
                }
            }
        }
    }
}

/// The threads, and the queues to them. The queues have no limit of their own: a write in one is
/// within its stream's window, and everything else holds a buffer of a bounded pool.
#[derive(Debug)]
pub(crate) struct IoThreads {
    /// One for each stream, then one for reading ahead, one for control, one for locks.
    queues: Vec<Sender<Job>>,
    /// Whether a stream's thread is waiting for a target that does not answer.
    stuck: Vec<Arc<AtomicBool>>,
    /// There until the end.
    timer: Option<Sender<(Duration, Wake)>>,
    threads: Vec<JoinHandle<()>>,
}

pub(crate) type Wake = Box<dyn FnOnce() + Send>;

impl IoThreads {
    /// Starts one thread for each stream, `n_readahead` for reading ahead, `n_control` for control,
    /// one for locks, and the timer.
    pub(crate) fn start(
        n_streams: usize,
        n_readahead: usize,
        n_control: usize,
    ) -> io::Result<IoThreads> {
        let mut threads = Vec::new();
        let mut queues = Vec::new();
        let stuck: Vec<_> = (0..n_streams).map(|_| Arc::new(AtomicBool::new(false))).collect();
        for (index, stuck) in stuck.iter().cloned().enumerate() {
            let (sender, receiver) = crossbeam_channel::unbounded();
            queues.push(sender);
            let run = move || {
                // Each job that ends says that the thread is not stuck, or no longer.
                work(&receiver, || stuck.store(false, Ordering::Relaxed));
            };
            threads.push(spawn(&format!("sealback-io-{index}"), run)?);
        }
        let (sender, receiver) = crossbeam_channel::unbounded();
        queues.push(sender);
        for index in 0..n_readahead {
            let receiver = receiver.clone();
            threads
                .push(spawn(&format!("sealback-ahead-{index}"), move || work(&receiver, || ()))?);
        }
        let (sender, receiver) = crossbeam_channel::unbounded();
        queues.push(sender);
        for index in 0..n_control {
            let receiver = receiver.clone();
            let name = format!("sealback-control-{index}");
            threads.push(spawn(&name, move || work(&receiver, || ()))?);
        }
        let (sender, receiver) = crossbeam_channel::unbounded();
        queues.push(sender);
        threads.push(spawn("sealback-lock", move || work(&receiver, || ()))?);
        let (timer, receiver) = crossbeam_channel::unbounded();
        threads.push(spawn("sealback-timer", move || keep_time(&receiver))?);
        Ok(IoThreads { queues, stuck, timer: Some(timer), threads })
    }

    /// Runs a job that never blocks; sends any other to a stream's thread.
    pub(crate) fn run_or_send(&self, stream: usize, job: Job) {
        if job.is_immediate() {
            contain(|| job.run());
        } else {
            self.send(stream, job);
        }
    }

    /// Sends a job to a stream's thread.
    pub(crate) fn send(&self, stream: usize, job: Job) {
        self.queues[stream].send(job).expect("the threads live as long as their queues");
    }

    /// How many jobs wait for each kind of thread. Those that are being run do not.
    pub(crate) fn queued(&self) -> Vec<(&'static str, usize)> {
        let streams =
            ["sealback-io-0", "sealback-io-1"].into_iter().chain(iter::repeat("sealback-io"));
        let names = streams.take(self.stuck.len());
        let names = names.chain(["sealback-ahead", "sealback-control", "sealback-lock"]);
        names.zip(self.queues.iter().map(Sender::len)).collect()
    }

    /// Notes that a stream's target answers nothing.
    pub(crate) fn mark_stuck(&self, stream: usize) {
        self.stuck[stream].store(true, Ordering::Relaxed);
    }

    /// Notes that it has answered.
    pub(crate) fn heard(&self, stream: usize) {
        if self.is_stuck(stream) {
            self.stuck[stream].store(false, Ordering::Relaxed);
        }
    }

    /// Whether a stream's thread waits for a target that answers nothing.
    pub(crate) fn is_stuck(&self, stream: usize) -> bool {
        self.stuck[stream].load(Ordering::Relaxed)
    }

    /// Sends work to the threads that read ahead.
    pub(crate) fn read_ahead(&self, run: impl FnOnce() + Send + 'static) {
        self.send(self.queues.len() - 3, Job::Run(Box::new(run)));
    }

    /// Sends work that a request under way waits for: it may wait for its target, and for nobody
    /// else's lock.
    pub(crate) fn control(&self, run: impl FnOnce() + Send + 'static) {
        self.send(self.queues.len() - 2, Job::Run(Box::new(run)));
    }

    /// Sends work that may wait for another client to let go of a lock, as long as nothing that
    /// this client holds waits for it.
    pub(crate) fn lock(&self, run: impl FnOnce() + Send + 'static) {
        self.send(self.queues.len() - 1, Job::Run(Box::new(run)));
    }

    /// Calls `wake` when so much time has passed.
    pub(crate) fn wake_after(&self, delay: Duration, wake: Wake) {
        let timer = self.timer.as_ref().expect("there until the end");
        timer.send((delay, wake)).expect("the threads live as long as their queues");
    }
}

/// Ends the queues and waits for the threads, but for the one that this may run on, and those whose
/// target does not answer.
impl Drop for IoThreads {
    fn drop(&mut self) {
        self.queues.clear();
        self.timer = None;
        for (index, thread) in self.threads.drain(..).enumerate() {
            let stuck = self.stuck.get(index).is_some_and(|stuck| stuck.load(Ordering::Relaxed));
            if thread.thread().id() != thread::current().id() && !stuck {
                // A panic in a target has failed its subrequest already, when its completion fell.
                let _ = thread.join();
            }
        }
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name(name.to_owned()).spawn(run)
}

fn work(jobs: &Receiver<Job>, ended: impl Fn()) {
    for job in jobs {
        // A target that panics drops its completion, which fails the subrequest; the thread goes
        // on for the others.
        contain(|| job.run());
        ended();
    }
}

/// Calls what is not ours; `None` if it panics. What it may have left half done is its own.
pub(crate) fn contain<T>(call: impl FnOnce() -> T) -> Option<T> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(call)).ok()
}

fn keep_time(requests: &Receiver<(Duration, Wake)>) {
    let started = Instant::now();
    let mut waiting: Vec<(Duration, Wake)> = Vec::new();
    loop {
        let now = started.elapsed();
        while let Some(due) = waiting.iter().position(|(at, _)| *at <= now) {
            waiting.swap_remove(due).1();
        }
        let next = waiting.iter().map(|(at, _)| *at - now).min();
        let received = match next {
            Some(delay) => requests.recv_timeout(delay),
            None => requests.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match received {
            Ok((delay, wake)) => waiting.push((started.elapsed().saturating_add(delay), wake)),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

#[cfg(shuttle)]
#[cfg(test)]
mod models;

//! The crypto pool: rayon's threads, woken only when they are needed.
//!
//! A rayon worker that runs out of work looks for more for a while, yielding its core each time,
//! before it sleeps. Where targets are slower than the cipher that costs more than the sealing: for
//! 2 GiB on two cores 120,000 yields and as many context switches. So spans wait in a queue of our
//! own: a worker that is awake takes one after the other and waits for the next one without
//! spinning, and another is woken only when they pile up: by their bytes, since one large block takes as
//! long as many small ones.
//!
//! Requests that are to be woken wait in a queue beside the spans', and a worker takes from both in turns.
//! So what a request wants sealed is sealed soon after, with what it has still in the processor's
//! cache, and not behind a span of each of those that were woken with it; and none waits until all
//! spans of others are sealed.

use std::{fmt, time::Duration};

use crate::sync::{
    Arc, Condvar, Mutex, PoisonError, SegQueue,
    atomic::{AtomicU64, AtomicUsize, Ordering},
    rayon::{Scope, ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder},
};

type Job = Box<dyn FnOnce() + Send>;

/// Plaintext that waits for each worker that is awake, before another is woken.
const PILE_BYTES: u64 = 1 << 20;
/// How long a worker waits for another job before it is rayon's again.
const LINGER: Duration = Duration::from_millis(1);

/// The threads that seal and open.
pub(crate) struct Workers {
    pool: ThreadPool,
    queue: Arc<Queue>,
}

#[derive(Default)]
struct Queue {
    spans: SegQueue<(u64, Job)>,
    wakes: SegQueue<(u64, Job)>,
    /// Plaintext that both are about, or a little more. A hint: it publishes nothing.
    bytes: AtomicU64,
    /// Workers that take jobs. Changed and read in one order with the queues (SeqCst): whoever adds a
    /// job sees a worker that will look for it, or starts one; a worker that stops looks once more.
    awake: AtomicUsize,
    /// Those of them that wait for a job. Counted before the queues are looked at, and read after a
    /// job was added: one of the two sees the other.
    lingering: AtomicUsize,
    door: Mutex<()>,
    more: Condvar,
}

impl Workers {
    /// Starts the threads.
    pub(crate) fn start(threads: usize) -> Result<Workers, ThreadPoolBuildError> {
        let pool = ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|index| format!("sealback-crypto-{index}"))
            .build()?;
        Ok(Workers { pool, queue: Arc::default() })
    }

    /// Runs a job on one of the threads, soon: one that seals so many bytes.
    pub(crate) fn seal(&self, bytes: u64, job: impl FnOnce() + Send + 'static) {
        self.add(&self.queue.spans, bytes, Box::new(job));
    }

    /// The same, with one that goes on with a request, which may want so many bytes sealed then.
    pub(crate) fn wake(&self, bytes: u64, job: impl FnOnce() + Send + 'static) {
        self.add(&self.queue.wakes, bytes, Box::new(job));
    }

    fn add(&self, jobs: &SegQueue<(u64, Job)>, bytes: u64, job: Job) {
        // Counted first: the sum is never less than nothing.
        let waiting = self.queue.bytes.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        jobs.push((bytes, job));
        self.queue.call(Condvar::notify_one);
        let awake = self.queue.awake.load(Ordering::SeqCst);
        let piled_up = awake < self.pool.current_num_threads()
            && waiting > PILE_BYTES.saturating_mul(awake as u64);
        if (awake == 0 || piled_up) && self.queue.count_one_more(awake) {
            let queue = self.queue.clone();
            self.pool.spawn(move || queue.work());
        }
    }

    /// Runs `scope` on this thread; what it spawns runs on the threads, before this returns.
    pub(crate) fn scope<'scope>(&self, scope: impl FnOnce(&Scope<'scope>)) {
        // Who waits for a span is wanted elsewhere.
        self.queue.call(Condvar::notify_all);
        self.pool.in_place_scope(scope);
    }
}

impl Queue {
    /// Counts one more worker, unless somebody else did since.
    fn count_one_more(&self, awake: usize) -> bool {
        let (seen, to) = (Ordering::SeqCst, Ordering::SeqCst);
        self.awake.compare_exchange(awake, awake + 1, seen, to).is_ok()
    }

    /// Wakes who waits for a job.
    fn call(&self, notify: impl FnOnce(&Condvar)) {
        if self.lingering.load(Ordering::SeqCst) > 0 {
            // With the lock held nobody is between looking at the queue and waiting.
            let _door = self.door.lock().unwrap_or_else(PoisonError::into_inner);
            notify(&self.more);
        }
    }

    /// Waits for a job, for a while. Returns whether there is one.
    fn linger(&self) -> bool {
        self.lingering.fetch_add(1, Ordering::SeqCst);
        let door = self.door.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_empty() {
            drop(self.more.wait_timeout(door, LINGER).unwrap_or_else(PoisonError::into_inner));
        }
        self.lingering.fetch_sub(1, Ordering::SeqCst);
        !self.is_empty()
    }

    fn is_empty(&self) -> bool {
        self.wakes.is_empty() && self.spans.is_empty()
    }

    /// Runs the next one of `jobs`; whether there was one.
    fn run_next(&self, jobs: &SegQueue<(u64, Job)>) -> bool {
        let Some((bytes, job)) = jobs.pop() else { return false };
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        job();
        true
    }

    /// Takes jobs until there are none.
    fn work(&self) {
        loop {
            // From both, whether or not the first had one.
            while self.run_next(&self.wakes) | self.run_next(&self.spans) {}
            if self.linger() {
                continue;
            }
            let awake = self.awake.fetch_sub(1, Ordering::SeqCst) - 1;
            // A job that was added before the count went down started no worker.
            if self.is_empty() || !self.count_one_more(awake) {
                return;
            }
        }
    }
}

impl fmt::Debug for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Workers")
            .field("queued_bytes", &self.queue.bytes.load(Ordering::Relaxed))
            .finish_non_exhaustive()
    }
}

#[cfg(shuttle)]
#[cfg(test)]
mod models;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_job_runs_whoever_is_about_to_stop() {
        let workers = Workers::start(2).unwrap();
        let (sender, receiver) = crossbeam_channel::bounded(0);
        for index in 0..20_000 {
            let sender = sender.clone();
            // One at a time: each finds the workers stopping, stopped, or awake.
            workers.seal(index, move || sender.send(index).unwrap());
            assert_eq!(receiver.recv().unwrap(), index);
        }
    }
}

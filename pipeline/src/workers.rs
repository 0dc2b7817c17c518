//! The crypto pool: rayon's threads, woken only when they are needed.
//!
//! A rayon worker that runs out of work looks for more for a while, yielding its core each time,
//! before it sleeps. Where targets are slower than the cipher that costs more than the sealing: for
//! 2 GiB on two cores 120,000 yields and as many context switches. So spans wait in a queue of our
//! own: a worker that is awake takes one after the other and waits for the next one without
//! spinning, and another is woken only when they pile up.

use std::{fmt, time::Duration};

use crate::sync::{
    Arc, Condvar, Mutex, PoisonError, SegQueue,
    atomic::{AtomicUsize, Ordering},
    rayon::{Scope, ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder},
};

type Job = Box<dyn FnOnce() + Send>;

/// Jobs that wait for each worker that is awake, before another is woken.
const PILE: usize = 2;
/// How long a worker waits for another job before it is rayon's again.
const LINGER: Duration = Duration::from_millis(1);

/// The threads that seal and open.
pub(crate) struct Workers {
    pool: ThreadPool,
    queue: Arc<Queue>,
}

#[derive(Default)]
struct Queue {
    jobs: SegQueue<Job>,
    /// Workers that take jobs. Changed and read in one order with the queue (SeqCst): whoever adds a
    /// job sees a worker that will look for it, or starts one; a worker that stops looks once more.
    awake: AtomicUsize,
    /// Those of them that wait for a job. Counted before the queue is looked at, and read after a
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

    /// Runs a job on one of the threads, soon.
    pub(crate) fn spawn(&self, job: impl FnOnce() + Send + 'static) {
        self.queue.jobs.push(Box::new(job));
        self.queue.call(Condvar::notify_one);
        let awake = self.queue.awake.load(Ordering::SeqCst);
        let piled_up =
            awake < self.pool.current_num_threads() && self.queue.jobs.len() > awake * PILE;
        if (awake == 0 || piled_up) && self.queue.wake(awake) {
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
    fn wake(&self, awake: usize) -> bool {
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
        if self.jobs.is_empty() {
            drop(self.more.wait_timeout(door, LINGER).unwrap_or_else(PoisonError::into_inner));
        }
        self.lingering.fetch_sub(1, Ordering::SeqCst);
        !self.jobs.is_empty()
    }

    /// Takes jobs until there are none.
    fn work(&self) {
        loop {
            while let Some(job) = self.jobs.pop() {
                job();
            }
            if self.linger() {
                continue;
            }
            let awake = self.awake.fetch_sub(1, Ordering::SeqCst) - 1;
            // A job that was added before the count went down started no worker.
            if self.jobs.is_empty() || !self.wake(awake) {
                return;
            }
        }
    }
}

impl fmt::Debug for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Workers").field("queued", &self.queue.jobs.len()).finish_non_exhaustive()
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
            workers.spawn(move || sender.send(index).unwrap());
            assert_eq!(receiver.recv().unwrap(), index);
        }
    }
}

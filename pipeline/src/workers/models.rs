use sealback_crypto::models::{Timeouts, explore};
use shuttle::thread;

use super::*;

/// Counts what has run.
#[derive(Default)]
struct Tally {
    n_run: Mutex<usize>,
    more: Condvar,
}

impl Tally {
    fn add(&self) {
        *self.n_run.lock().unwrap() += 1;
        self.more.notify_all();
    }

    fn wait_for(&self, n_jobs: usize) {
        drop(self.more.wait_while(self.n_run.lock().unwrap(), |n_run| *n_run < n_jobs).unwrap());
    }
}

/// Two threads spawn two jobs each; returns when all have run, and the workers.
fn run_four_jobs(n_threads: usize) -> Workers {
    let workers = Arc::new(Workers::start(n_threads).unwrap());
    let tally = Arc::new(Tally::default());
    let spawners = [0, 1].map(|_| {
        let (workers, tally) = (workers.clone(), tally.clone());
        thread::spawn(move || {
            for wakes in [true, false] {
                let (tally, queue) = (tally.clone(), workers.queue.clone());
                let job = move || {
                    let awake = queue.awake.load(Ordering::SeqCst);
                    assert!((1..=n_threads).contains(&awake), "{awake} of {n_threads}");
                    tally.add();
                };
                match wakes {
                    true => workers.wake(PILE_BYTES, job),
                    false => workers.seal(PILE_BYTES, job),
                }
            }
        })
    });
    spawners.into_iter().for_each(|thread| thread.join().unwrap());
    tally.wait_for(4);
    assert_eq!(*tally.n_run.lock().unwrap(), 4, "each once");
    Arc::into_inner(workers).expect("nobody else has them any more")
}

/// A wake that is lost leaves a job in the queue for ever, since nobody's time is up.
#[test]
fn every_job_runs_though_the_only_worker_never_stops_by_itself() {
    explore(Timeouts::Never, || run_four_jobs(1).retire());
}

#[test]
fn every_job_runs_though_neither_worker_stops_by_itself() {
    explore(Timeouts::Never, || run_four_jobs(2).retire());
}

/// Workers stop at any moment; all end, or the model does not.
#[test]
fn every_job_runs_whoever_is_about_to_stop() {
    explore(Timeouts::AtAnyTime, || {
        let workers = run_four_jobs(2);
        while workers.queue.awake.load(Ordering::SeqCst) > 0 {
            thread::yield_now();
        }
        assert_eq!(workers.queue.lingering.load(Ordering::SeqCst), 0);
        assert!(workers.queue.is_empty());
    });
}

impl Workers {
    /// Has every worker stop, though no time-out makes it: there must be no more jobs.
    pub(crate) fn retire(&self) {
        while self.queue.awake.load(Ordering::SeqCst) > 0 {
            self.queue.call(Condvar::notify_all);
            thread::yield_now();
        }
    }
}

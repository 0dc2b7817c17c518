//! A pool with rayon's names, that starts a thread for each job: whoever uses it must not have more
//! jobs under way than it asked for threads.

use std::{cell::RefCell, convert::Infallible};

use shuttle::thread;

/// Nothing can keep it from starting.
pub(crate) type ThreadPoolBuildError = Infallible;

#[derive(Default)]
pub(crate) struct ThreadPoolBuilder {
    n_threads: usize,
}

pub(crate) struct ThreadPool {
    n_threads: usize,
}

impl ThreadPoolBuilder {
    pub(crate) fn new() -> ThreadPoolBuilder {
        ThreadPoolBuilder::default()
    }

    pub(crate) fn num_threads(self, n_threads: usize) -> ThreadPoolBuilder {
        ThreadPoolBuilder { n_threads }
    }

    pub(crate) fn thread_name(self, _name: impl FnMut(usize) -> String) -> ThreadPoolBuilder {
        self
    }

    pub(crate) fn build(self) -> Result<ThreadPool, ThreadPoolBuildError> {
        Ok(ThreadPool { n_threads: self.n_threads })
    }
}

impl ThreadPool {
    pub(crate) fn current_num_threads(&self) -> usize {
        self.n_threads
    }

    pub(crate) fn spawn(&self, job: impl FnOnce() + Send + 'static) {
        thread::spawn(job);
    }

    pub(crate) fn in_place_scope<'scope>(&self, scope: impl FnOnce(&Scope<'scope>)) {
        let spawned = Scope::default();
        scope(&spawned);
        thread::scope(|threads| {
            for job in spawned.jobs.take() {
                threads.spawn(move || job(&Scope::default()));
            }
        });
    }
}

type ScopeJob<'scope> = Box<dyn FnOnce(&Scope<'scope>) + Send + 'scope>;

/// Keeps what is spawned until the function that spawns has returned. Jobs spawn none here.
#[derive(Default)]
pub(crate) struct Scope<'scope> {
    jobs: RefCell<Vec<ScopeJob<'scope>>>,
}

impl<'scope> Scope<'scope> {
    pub(crate) fn spawn(&self, job: impl FnOnce(&Scope<'scope>) + Send + 'scope) {
        self.jobs.borrow_mut().push(Box::new(job));
    }
}

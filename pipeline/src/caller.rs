//! Whoever waits for a request's end, and runs its small jobs meanwhile.
//!
//! A small job is done sooner where it comes up than it is handed to another thread: waking one costs
//! more than sealing a few blocks, or than a local server's write. So who has begun a request and has
//! nothing to do but wait for it lends his thread: one job at a time is his, whenever he is free, or is
//! the one that it comes up with; and what has to come after that. Everything else goes to the threads
//! that there are for it. A request that nobody waits for has no such thread.
//!
//! **Invariants:**
//! 1. A job that was taken is run before its caller returns: the request does not end without it.
//! 2. A job that is run here may wait for its target, as the caller does anyway, and for nothing else.

use std::collections::VecDeque;

use crate::{
    driver::Ending,
    io::contain,
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError,
        thread::{self, ThreadId},
    },
};

type Job = Box<dyn FnOnce() + Send>;

/// How a request ended, and who waits for that.
#[derive(Default)]
pub(crate) struct Caller {
    state: Mutex<State>,
    /// There is a job, or the end.
    called: Condvar,
}

#[derive(Default)]
struct State {
    ending: Option<Ending>,
    hands: Hands,
    jobs: VecDeque<Job>,
    n_waiting: usize,
}

/// What the thread does that runs jobs.
#[derive(Clone, Copy, Default)]
enum Hands {
    /// It runs something, which may be where the next job comes from.
    Busy(ThreadId),
    /// It waits.
    Free(ThreadId),
    #[default]
    None,
}

impl Caller {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This thread will wait for the end, and run jobs until then: before it does anything else.
    pub(crate) fn attend(&self) {
        self.state().hands = Hands::Busy(thread::current().id());
    }

    /// Whether this thread has said so.
    pub(crate) fn is_here(&self) -> bool {
        matches!(self.state().hands, Hands::Busy(id) if id == thread::current().id())
    }

    /// Has a job run by the thread that waits, if it can be soon; else it comes back.
    pub(crate) fn offer<J: FnOnce() + Send + 'static>(&self, job: J) -> Result<(), J> {
        let state = self.state();
        let comes_soon = match state.hands {
            Hands::Busy(id) => id == thread::current().id(),
            Hands::Free(_) => true,
            Hands::None => false,
        };
        if !comes_soon || !state.jobs.is_empty() {
            return Err(job);
        }
        self.take(state, Box::new(job));
        Ok(())
    }

    /// Has a job run behind those that were taken, however long that takes.
    pub(crate) fn queue(&self, job: impl FnOnce() + Send + 'static) {
        let state = self.state();
        debug_assert!(!matches!(state.hands, Hands::None), "nobody comes to run it");
        self.take(state, Box::new(job));
    }

    fn take(&self, mut state: MutexGuard<'_, State>, job: Job) {
        state.jobs.push_back(job);
        let sleeps = matches!(state.hands, Hands::Free(_));
        drop(state);
        if sleeps {
            self.called.notify_all();
        }
    }

    /// Waits for the end; if this thread attends, it runs jobs until then.
    pub(crate) fn wait(&self) -> Ending {
        let mut state = self.state();
        loop {
            if let Some(ending) = &state.ending {
                return ending.clone();
            }
            let me = thread::current().id();
            let attends = matches!(state.hands, Hands::Busy(id) | Hands::Free(id) if id == me);
            if attends && let Some(job) = state.jobs.pop_front() {
                state.hands = Hands::Busy(me);
                drop(state);
                // A target that panics drops its completion, which fails the subrequest.
                contain(job);
                state = self.state();
                continue;
            }
            if attends {
                state.hands = Hands::Free(me);
            }
            state.n_waiting += 1;
            state = self.called.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.n_waiting -= 1;
        }
    }

    /// Notes the end, and lets all go on who wait.
    pub(crate) fn end(&self, ending: Ending) {
        let mut state = self.state();
        debug_assert!(state.jobs.is_empty(), "the request did not wait for a job");
        state.ending = Some(ending);
        state.hands = Hands::None;
        let waited_for = state.n_waiting > 0;
        drop(state);
        if waited_for {
            self.called.notify_all();
        }
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&self) -> Option<Ending> {
        self.state().ending.clone()
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;
    use crate::{RequestStats, sync::Arc};

    fn ending() -> Ending {
        let stats = Arc::new(RequestStats::new(1));
        Ending { result: Ok(()), cache_failed: false, committed: false, stats }
    }

    #[test]
    fn a_caller_runs_one_job_at_a_time_and_what_comes_of_it_before_he_hears_of_the_end() {
        let caller = Arc::new(Caller::default());
        caller.attend();
        assert!(caller.is_here());
        let (of_first, me) = (caller.clone(), thread::current().id());
        let first = move || {
            let of_second = of_first.clone();
            let second = move || {
                assert_eq!(thread::current().id(), me);
                of_second.end(ending());
            };
            of_first.offer(second).ok().expect("the first has been taken");
        };
        caller.offer(first).ok().expect("it is the caller who offers it");
        assert!(caller.offer(|| unreachable!("there is one already")).is_err());
        assert!(caller.wait().result.is_ok());
        assert!(caller.offer(|| unreachable!("nobody waits any more")).is_err());
    }

    #[test]
    fn a_job_goes_elsewhere_while_nobody_waits_or_who_waits_has_his_hands_full() {
        let caller = Arc::new(Caller::default());
        assert!(caller.offer(|| unreachable!("nobody waits")).is_err());
        caller.attend();
        let of_other = caller.clone();
        let offered = thread::spawn(move || {
            assert!(!of_other.is_here());
            of_other.offer(|| unreachable!("the caller is about to begin something")).is_err()
        });
        assert!(offered.join().unwrap());
        caller.end(ending());
        assert!(caller.wait().result.is_ok());
    }
}

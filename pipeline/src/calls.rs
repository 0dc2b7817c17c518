//! Threads for calls that somebody does not want to wait for: started when they are needed, a bounded
//! number, and ended when they have had nothing to do for a while.

use std::time::Duration;

use crate::{
    io::contain,
    operation::{Operation, operation},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        crossbeam_channel::{self, Receiver, Sender},
        thread,
    },
};

/// Calls at once; others wait.
pub(crate) const MAX_CALLS: usize = 16;
/// How long a thread waits for another call.
const LINGER: Duration = Duration::from_secs(1);

type Call = Box<dyn FnOnce() + Send>;

/// The threads, and the queue to them.
#[derive(Debug)]
pub(crate) struct Calls {
    sender: Sender<Call>,
    receiver: Receiver<Call>,
    threads: Arc<Mutex<Threads>>,
}

#[derive(Debug, Default)]
struct Threads {
    n: usize,
    n_idle: usize,
}

impl Calls {
    pub(crate) fn new() -> Calls {
        let (sender, receiver) = crossbeam_channel::unbounded();
        Calls { sender, receiver, threads: Arc::default() }
    }

    /// Runs a call on one of the threads.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        call: impl FnOnce() -> T + Send + 'static,
    ) -> Operation<T> {
        let (ender, operation) = operation();
        self.send(Box::new(move || ender.end(call())));
        operation
    }

    fn send(&self, call: Call) {
        let mut threads = lock(&self.threads);
        self.sender.send(call).expect("the receiver is here");
        if threads.n_idle >= self.receiver.len() || threads.n == MAX_CALLS {
            return;
        }
        let (receiver, shared) = (self.receiver.clone(), self.threads.clone());
        let builder = thread::Builder::new().name("sealback-call".to_owned());
        let started = builder.spawn(move || work(&receiver, &shared));
        // Without another thread the call waits for one that there is.
        assert!(started.is_ok() || threads.n > 0, "no thread can be started: {started:?}");
        threads.n += usize::from(started.is_ok());
    }
}

fn lock(threads: &Mutex<Threads>) -> MutexGuard<'_, Threads> {
    threads.lock().unwrap_or_else(PoisonError::into_inner)
}

fn work(calls: &Receiver<Call>, threads: &Mutex<Threads>) {
    loop {
        lock(threads).n_idle += 1;
        let call = calls.recv_timeout(LINGER);
        let mut state = lock(threads);
        state.n_idle -= 1;
        // A call that was sent with the lock held, and counted on this thread, is taken.
        let call = call.or_else(|_| calls.try_recv());
        let Ok(call) = call else {
            state.n -= 1;
            return;
        };
        drop(state);
        contain(call);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_run_beside_one_another_and_every_one_of_them_runs() {
        let calls = Calls::new();
        let barrier = Arc::new(std::sync::Barrier::new(MAX_CALLS));
        let together: Vec<_> = (0..MAX_CALLS)
            .map(|_| {
                let barrier = barrier.clone();
                calls.run(move || {
                    barrier.wait();
                })
            })
            .collect();
        together.into_iter().for_each(Operation::wait);
        let many: Vec<_> = (0..1000).map(|number| calls.run(move || number)).collect();
        assert!(many.into_iter().map(Operation::wait).eq(0..1000));
        assert!(lock(&calls.threads).n <= MAX_CALLS);
    }
}

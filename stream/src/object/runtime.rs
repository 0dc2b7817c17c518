//! The threads of an object server: one where its runtime lives and ends, one that tells of answers.
//!
//! A client may itself run inside a runtime, and drop the server anywhere: nothing here blocks inside of
//! a runtime but on a channel, and the runtime is dropped on its own thread only. Who hears an answer may
//! drive a request on, or call the server: that is not for the thread which must move the bytes.
//!
//! **Invariant:** what was spawned ends, or is dropped, before the thread does; what is under way when the
//! last handle goes has [`PATIENCE`] to end.

use std::{
    fmt, io,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, Receiver, Sender},
    },
    thread::{self, ThreadId},
    time::Duration,
};

use tokio::{
    runtime::{self, Handle},
    sync::{Semaphore, oneshot},
    time,
};

use crate::{TargetError, TargetErrorKind};

/// How long what is under way may take when the server goes, or a file that leaves something behind.
const PATIENCE: Duration = Duration::from_secs(10);
/// More tasks than there can be.
const MAX_TASKS: u32 = 1 << 24;

type Telling = Box<dyn FnOnce() + Send>;

/// Where an object server's requests are carried out.
pub(super) struct Runtime {
    handle: Handle,
    /// Each task has one of [`MAX_TASKS`] permits.
    tasks: Arc<Semaphore>,
    tellings: Sender<Telling>,
    own_threads: [ThreadId; 2],
    /// Dropped when the runtime is to end.
    stop: Option<oneshot::Sender<()>>,
    /// Closed when it has ended.
    ended: Mutex<Receiver<()>>,
}

impl Runtime {
    pub(super) fn start() -> io::Result<Runtime> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let tasks = Arc::new(Semaphore::new(MAX_TASKS as usize));
        let (stop, stopped) = oneshot::channel::<()>();
        let (ending, ended) = mpsc::channel::<()>();
        let (tellings, told) = mpsc::channel::<Telling>();
        let tell = move || told.iter().for_each(|telling| telling());
        let teller = thread::Builder::new().name("sealback-told".to_owned()).spawn(tell)?;
        let all = tasks.clone();
        let run = move || {
            runtime.block_on(async move {
                // The sender never sends: it goes.
                drop(stopped.await);
                drop(time::timeout(PATIENCE, all.acquire_many(MAX_TASKS)).await);
            });
            drop(runtime);
            drop(ending);
        };
        let mover = thread::Builder::new().name("sealback-objects".to_owned()).spawn(run)?;
        let own_threads = [mover.thread().id(), teller.thread().id()];
        let ended = Mutex::new(ended);
        Ok(Runtime { handle, tasks, tellings, own_threads, stop: Some(stop), ended })
    }

    /// Begins something, and returns.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let permit = self.tasks.clone().try_acquire_owned();
        self.handle.spawn(async move {
            task.await;
            drop(permit);
        });
    }

    /// Carries something out, and waits for it on the caller's thread, whatever runtime that is in.
    ///
    /// # Errors
    /// What it ended with; or that the thread is one that would wait for itself.
    pub(super) fn run<T: Send + 'static>(
        &self,
        task: impl Future<Output = Result<T, TargetError>> + Send + 'static,
    ) -> Result<T, TargetError> {
        if self.is_own_thread() {
            let context = "an object server was called where it tells of an answer";
            return Err(TargetError::new(TargetErrorKind::Unsupported, context));
        }
        let (sender, receiver) = mpsc::channel();
        self.spawn(async move { drop(sender.send(task.await)) });
        receiver.recv().unwrap_or_else(|_| {
            let context = "a request was given up";
            Err(TargetError::new(TargetErrorKind::Dropped, context))
        })
    }

    /// Carries something out and waits for it a while, if this thread may wait.
    pub(super) fn run_a_while(&self, task: impl Future<Output = ()> + Send + 'static) {
        let (sender, receiver) = mpsc::channel::<()>();
        self.spawn(async move {
            task.await;
            drop(sender);
        });
        if !self.is_own_thread() {
            // Closed by then, or given up.
            let _ = receiver.recv_timeout(PATIENCE);
        }
    }

    /// Calls whoever waits for an answer, on the thread for that.
    pub(super) fn teller(&self) -> Teller {
        Teller(self.tellings.clone())
    }

    fn is_own_thread(&self) -> bool {
        self.own_threads.contains(&thread::current().id())
    }
}

/// Calls whoever waits for an answer.
#[derive(Clone)]
pub(super) struct Teller(Sender<Telling>);

impl Teller {
    /// Calls `telling` soon, on another thread.
    pub(super) fn tell(&self, telling: impl FnOnce() + Send + 'static) {
        // The thread outlives every teller.
        drop(self.0.send(Box::new(telling)));
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        drop(self.stop.take());
        if !self.is_own_thread() {
            let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
            // Closed by then, or given up.
            let _ = ended.recv_timeout(2 * PATIENCE);
        }
    }
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Runtime")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtime_works_and_ends_inside_of_a_clients_own() {
        let client = runtime::Builder::new_current_thread().build().unwrap();
        client.block_on(async {
            let ours = Runtime::start().unwrap();
            assert_eq!(ours.run(async { Ok(5) }).unwrap(), 5);
            drop(ours);
        });
    }

    #[test]
    fn what_was_begun_ends_before_the_runtime_does() {
        let ours = Runtime::start().unwrap();
        let (sender, receiver) = mpsc::channel();
        ours.spawn(async move {
            time::sleep(Duration::from_millis(20)).await;
            sender.send(7).unwrap();
        });
        drop(ours);
        assert_eq!(receiver.try_recv(), Ok(7));
    }

    #[test]
    fn who_hears_an_answer_may_not_wait_for_another() {
        let ours = Arc::new(Runtime::start().unwrap());
        let (sender, receiver) = mpsc::channel();
        let mine = ours.clone();
        ours.teller().tell(move || sender.send(mine.run(async { Ok(()) })).unwrap());
        let error = receiver.recv().unwrap().unwrap_err();
        assert_eq!(error.kind(), TargetErrorKind::Unsupported);
    }
}

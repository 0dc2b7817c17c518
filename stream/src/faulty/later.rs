//! Answers that come from another thread, later, or when they are let go.

use std::{
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread,
    time::{Duration, Instant},
};

type Answer = Box<dyn FnOnce() + Send>;

/// How long an answer that is to be overtaken waits for another one.
const OVERTAKEN: Duration = Duration::from_millis(2);

/// The thread that answers, and what is held. When the last clone is dropped, what is due later is
/// answered at once, and what is held is dropped with its completions.
#[derive(Clone, Default)]
pub(super) struct Later(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    thread: Option<Sender<(Instant, Answer)>>,
    held: Vec<Answer>,
    overtaken: Vec<Answer>,
}

impl Later {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers now, and then what was to be overtaken.
    pub(super) fn now(&self, answer: impl FnOnce()) {
        answer();
        let overtaken = mem::take(&mut self.state().overtaken);
        overtaken.into_iter().for_each(|answer| answer());
    }

    /// Answers on the thread, after a while.
    pub(super) fn after(&self, delay: Duration, answer: impl FnOnce() + Send + 'static) {
        let mut state = self.state();
        let sender = state.thread.get_or_insert_with(|| {
            let (sender, receiver) = mpsc::channel();
            thread::spawn(move || answer_in_time(&receiver));
            sender
        });
        // The thread ends only when the sender is dropped.
        drop(sender.send((Instant::now() + delay, Box::new(answer))));
    }

    /// Answers after the next answer, or after a while if there is none.
    pub(super) fn overtaken(&self, answer: impl FnOnce() + Send + 'static) {
        self.state().overtaken.push(Box::new(answer));
        // Not an owner: what waits in the thread's own queue must not keep it going.
        let state = Arc::downgrade(&self.0);
        self.after(OVERTAKEN, move || {
            if let Some(state) = state.upgrade() {
                Later(state).now(|| ());
            }
        });
    }

    /// Answers when everything that is held is let go.
    pub(super) fn hold(&self, answer: impl FnOnce() + Send + 'static) {
        self.state().held.push(Box::new(answer));
    }

    /// Lets go of what is held.
    pub(super) fn release(&self) {
        let held = mem::take(&mut self.state().held);
        held.into_iter().for_each(|answer| answer());
    }
}

fn answer_in_time(answers: &Receiver<(Instant, Answer)>) {
    let mut waiting: Vec<(Instant, Answer)> = Vec::new();
    loop {
        let next = waiting.iter().map(|(at, _)| *at).min();
        let wait = next.map_or(Duration::MAX, |at| at.saturating_duration_since(Instant::now()));
        match answers.recv_timeout(wait) {
            Ok(answer) => waiting.push(answer),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                return waiting.into_iter().for_each(|(_, answer)| answer());
            }
        }
        let now = Instant::now();
        let due: Vec<_> = waiting.extract_if(.., |(at, _)| *at <= now).collect();
        due.into_iter().for_each(|(_, answer)| answer());
    }
}

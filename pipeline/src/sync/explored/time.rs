//! Time, as a model sees it: it goes on when somebody has waited for it to, and only then.
//!
//! A wait that may time out does so at any moment, since threads may be as slow as they like, or, with
//! [`Timeouts::Never`], not at all: a wake that is lost, and made up for by the time-out, is then found.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use sealback_crypto::models::{self, Timeouts};
use shuttle::sync::{LockResult, MutexGuard, PoisonError};

/// A time in the schedule that is being run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Instant(Duration);

impl Instant {
    pub(crate) fn now() -> Instant {
        Instant(models::now())
    }

    pub(crate) fn elapsed(&self) -> Duration {
        models::now() - self.0
    }
}

/// As std's; what may time out returns whether it has.
#[derive(Debug, Default)]
pub(crate) struct Condvar(Arc<shuttle::sync::Condvar>);

impl Condvar {
    pub(crate) fn new() -> Condvar {
        Condvar::default()
    }

    pub(crate) fn notify_all(&self) {
        self.0.notify_all();
    }

    pub(crate) fn notify_one(&self) {
        self.0.notify_one();
    }

    pub(crate) fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> LockResult<MutexGuard<'a, T>> {
        self.0.wait(guard)
    }

    pub(crate) fn wait_while<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        condition: impl FnMut(&mut T) -> bool,
    ) -> LockResult<MutexGuard<'a, T>> {
        self.0.wait_while(guard, condition)
    }

    pub(crate) fn wait_timeout<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        at_most: Duration,
    ) -> LockResult<(MutexGuard<'a, T>, bool)> {
        let mut waits = true;
        self.wait_timeout_while(guard, at_most, |_| std::mem::take(&mut waits))
    }

    pub(crate) fn wait_timeout_while<'a, T>(
        &self,
        mut guard: MutexGuard<'a, T>,
        at_most: Duration,
        mut condition: impl FnMut(&mut T) -> bool,
    ) -> LockResult<(MutexGuard<'a, T>, bool)> {
        let mut alarm = None;
        while condition(&mut guard) {
            let alarm = alarm.get_or_insert_with(|| Alarm::set(&self.0, at_most));
            if alarm.rang() {
                return Ok((guard, true));
            }
            guard = self.0.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        Ok((guard, false))
    }
}

/// Wakes whoever waits, at some moment, if there are time-outs; time has gone on then.
struct Alarm(Arc<Bell>);

#[derive(Default)]
struct Bell {
    rang: AtomicBool,
    off: AtomicBool,
}

impl Alarm {
    fn set(condvar: &Arc<shuttle::sync::Condvar>, after: Duration) -> Alarm {
        let bell = Arc::new(Bell::default());
        let at = models::now().saturating_add(after);
        if models::timeouts() == Timeouts::AtAnyTime {
            let (bell, condvar) = (bell.clone(), condvar.clone());
            shuttle::thread::spawn(move || bell.ring(at, &condvar));
        }
        Alarm(bell)
    }

    fn rang(&self) -> bool {
        self.0.rang.load(Ordering::Relaxed)
    }
}

impl Bell {
    /// Rings until it is turned off: whoever is to be woken may be about to wait.
    fn ring(&self, at: Duration, condvar: &shuttle::sync::Condvar) {
        while !self.off.load(Ordering::Relaxed) {
            models::time_goes_on(at);
            self.rang.store(true, Ordering::Relaxed);
            condvar.notify_all();
            shuttle::thread::yield_now();
        }
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        self.0.off.store(true, Ordering::Relaxed);
    }
}

/// As std's, but that time goes on while a thread sleeps.
pub(crate) mod thread {
    use std::time::Duration;

    use sealback_crypto::models;

    pub(crate) use shuttle::thread::*;

    pub(crate) fn sleep(at_least: Duration) {
        models::time_goes_on(models::now().saturating_add(at_least));
        yield_now();
    }
}

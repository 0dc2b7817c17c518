//! Runs models: tests of what has locks and atomics, under schedules that shuttle chooses.
//!
//! There only under `--cfg shuttle`, for this crate and those above it. `tests/models` runs all models;
//! [`explore`] is what a model calls.
//!
//! Every lock, wait and atomic that goes through a crate's `sync` is a place where another thread may go
//! on; what goes on between two of them is one step. All atomics are as if they were `SeqCst`: what a
//! weaker ordering would let happen is not found.

use std::{cell::Cell, env, fs, path::PathBuf, thread, time::Duration};

use shuttle::{
    Config, FailurePersistence, MaxSteps, Runner,
    scheduler::{PctScheduler, RandomScheduler, ReplayScheduler, Scheduler},
};

/// Whether a wait that may time out does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timeouts {
    /// At any moment.
    AtAnyTime,
    /// Never: who was not woken waits for ever, and is found.
    Never,
}

thread_local! {
    static TIMEOUTS: Cell<Timeouts> = const { Cell::new(Timeouts::Never) };
    /// Since the schedule began. All threads of a model are one.
    static NOW: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    /// Schedules of this test that have begun.
    static N_BEGUN: Cell<usize> = const { Cell::new(0) };
}

/// What the model that is being run says of time-outs.
pub fn timeouts() -> Timeouts {
    TIMEOUTS.get()
}

/// The time since the schedule began.
pub fn now() -> Duration {
    NOW.get()
}

/// It is `at`, if it was earlier.
pub fn time_goes_on(at: Duration) {
    NOW.set(NOW.get().max(at));
}

/// Runs `model` under `SEALBACK_SCHEDULES` schedules, 1000 if that is not set: half of them random,
/// half with priorities that change in a few places (PCT). With `SEALBACK_SCHEDULE` naming a file in
/// which a failing schedule was kept, runs that one alone.
///
/// # Panics
/// The model does, all its threads wait for one another, or it does not end: with the schedule in a file
/// of the directory `SEALBACK_FAILURES` if that is set, else on standard error.
pub fn explore(timeouts: Timeouts, model: fn()) {
    let one = move || {
        TIMEOUTS.set(timeouts);
        NOW.set(Duration::ZERO);
        N_BEGUN.set(N_BEGUN.get() + 1);
        model();
    };
    if let Some(schedule) = env::var_os("SEALBACK_SCHEDULE") {
        let schedule = ReplayScheduler::new_from_file(PathBuf::from(schedule));
        return run(schedule.expect("a file with a schedule"), one);
    }
    let n_schedules = env::var("SEALBACK_SCHEDULES")
        .map_or(1000, |n| n.parse().expect("SEALBACK_SCHEDULES is a number of schedules"));
    run(RandomScheduler::new(n_schedules / 2), one);
    run(PctScheduler::new(PCT_DEPTH, n_schedules - n_schedules / 2), one);
}

/// Priorities that change, and one: most races need one or two.
const PCT_DEPTH: usize = 3;

fn run(scheduler: impl Scheduler + 'static, model: impl Fn() + Send + Sync + 'static) {
    let mut config = Config::new();
    // Ciphers have their state on the stack, which an unoptimised build makes no smaller.
    config.stack_size = 512 << 10;
    config.max_steps = MaxSteps::FailAfter(100_000);
    config.silence_warnings = true;
    if let Some(directory) = env::var_os("SEALBACK_FAILURES") {
        let directory = PathBuf::from(directory);
        fs::create_dir_all(&directory).expect("a directory for failing schedules");
        config.failure_persistence = FailurePersistence::File(Some(directory));
    }
    let count = Count;
    Runner::new(scheduler, config).run(model);
    drop(count);
}

/// Says, when a schedule has failed, which one it was.
struct Count;

impl Drop for Count {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("failed in schedule {}", N_BEGUN.get());
        }
    }
}

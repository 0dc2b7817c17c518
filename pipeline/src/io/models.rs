use sealback_crypto::models::{self, Timeouts, explore};

use super::*;
use crate::sync::Mutex;

type Log = Arc<Mutex<Vec<(usize, usize)>>>;

fn log(io: &IoThreads, log: &Log, entry: (usize, usize)) {
    let log = log.clone();
    io.send(0, Job::Run(Box::new(move || log.lock().unwrap().push(entry))));
}

/// Two threads send to the stream's thread; the threads end while some of it is under way.
#[test]
fn jobs_of_one_thread_run_in_order_and_the_drop_waits_for_all_of_them() {
    explore(Timeouts::AtAnyTime, || {
        let io = Arc::new(IoThreads::start(1, 1, 1).unwrap());
        let entries = Log::default();
        let senders = [0, 1].map(|sender| {
            let (io, entries) = (io.clone(), entries.clone());
            thread::spawn(move || (0..2).for_each(|index| log(&io, &entries, (sender, index))))
        });
        senders.into_iter().for_each(|thread| thread.join().unwrap());
        drop(Arc::into_inner(io).expect("nobody else has them any more"));
        let entries = entries.lock().unwrap();
        for sender in [0, 1] {
            let of_sender = entries.iter().filter(|entry| entry.0 == sender);
            assert_eq!(of_sender.map(|entry| entry.1).collect::<Vec<_>>(), [0, 1]);
        }
    });
}

/// A job has the last reference: the threads are dropped on one of them, or on another.
#[test]
fn whoever_drops_the_threads_may_be_one_of_them() {
    explore(Timeouts::AtAnyTime, || {
        let io = Arc::new(IoThreads::start(1, 1, 1).unwrap());
        let (held, held_too) = (io.clone(), io.clone());
        io.control(move || drop(held));
        io.read_ahead(move || drop(held_too));
        io.wake_after(Duration::from_millis(1), Box::new(|| ()));
        drop(io);
    });
}

/// Two wakes, the later one first.
#[test]
fn the_timer_calls_each_wake_once_and_not_before_its_time() {
    explore(Timeouts::AtAnyTime, || {
        let io = IoThreads::start(1, 0, 1).unwrap();
        let (sender, woken) = crossbeam_channel::unbounded();
        let sender = Arc::new(sender);
        for ms in [2, 1] {
            let sender = sender.clone();
            let (asked, delay) = (models::now(), Duration::from_millis(ms));
            let wake = move || {
                assert!(models::now() >= asked + delay, "too early");
                sender.send(ms).unwrap();
            };
            io.wake_after(delay, Box::new(wake));
        }
        drop(sender);
        let mut wakes: Vec<_> = (&woken).into_iter().collect();
        wakes.sort_unstable();
        assert_eq!(wakes, [1, 2]);
        drop(io);
    });
}

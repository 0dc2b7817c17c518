use std::sync::atomic::{AtomicBool, Ordering};

use sealback_crypto::models::{Timeouts, explore};
use shuttle::thread;

use super::*;

const FOR_EVER: Duration = Duration::MAX;

/// One folio, three threads that want it; no wait ends by itself.
#[test]
fn whoever_waits_for_memory_hears_of_the_folio_that_comes_home() {
    explore(Timeouts::Never, || {
        let pool = FolioPool::new(1, 1);
        let threads = [0, 1, 2].map(|_| {
            let pool = pool.clone();
            thread::spawn(move || {
                loop {
                    let seen = pool.seen();
                    if let Some(folio) = pool.try_take() {
                        assert!(pool.n_out() == 1 && folio.as_ref() == [0]);
                        return;
                    }
                    pool.wait(seen, 1, FOR_EVER);
                }
            })
        });
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(pool.n_out(), 0);
        assert_eq!(pool.0.state().wanted, None);
    });
}

/// Two threads wait for something that a third brings about and tells of.
#[test]
fn no_change_that_was_told_of_after_the_count_was_read_is_missed() {
    explore(Timeouts::Never, || {
        let pool = FolioPool::new(1, 1);
        let happened = Arc::new(AtomicBool::new(false));
        let waiters = [0, 1].map(|_| {
            let (pool, happened) = (pool.clone(), happened.clone());
            thread::spawn(move || {
                loop {
                    let seen = pool.seen();
                    if happened.load(Ordering::Relaxed) {
                        return;
                    }
                    pool.wait(seen, 1, FOR_EVER);
                }
            })
        });
        happened.store(true, Ordering::Relaxed);
        pool.notify();
        waiters.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

/// Two threads wait for one and for two folios to become clean, which a third one makes so.
#[test]
fn whoever_waits_for_clean_folios_hears_of_the_last_that_he_waits_for() {
    explore(Timeouts::Never, || {
        let pool = FolioPool::new(1, 1);
        let start = pool.seen();
        let waiters = [1, 2].map(|n| {
            let pool = pool.clone();
            thread::spawn(move || assert!(pool.wait(start, n, FOR_EVER), "nothing else changes"))
        });
        pool.cleaned();
        pool.cleaned();
        waiters.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

/// Memory over the budget is not kept, and does not make the budget larger.
#[test]
fn the_budget_is_the_same_after_it_was_exceeded() {
    explore(Timeouts::Never, || {
        let pool = FolioPool::new(1, 1);
        let threads = [0, 1].map(|_| {
            let pool = pool.clone();
            thread::spawn(move || {
                let over = pool.take_over_budget();
                drop((pool.try_take(), over));
            })
        });
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert!(pool.n_out() == 0 && pool.0.state().free.len() <= 1);
        let only = pool.try_take();
        assert!(only.is_some() && pool.try_take().is_none());
    });
}

use std::sync::atomic::{AtomicUsize, Ordering};

use shuttle::{
    sync::{Arc, Condvar, Mutex},
    thread,
};

use super::*;
use crate::models::{Timeouts, explore};

const N_BUFFERS: usize = 2;

/// Three threads take what they get, look how many there are, and give back.
#[test]
fn there_are_never_more_buffers_out_than_the_pool_has_and_all_come_home() {
    explore(Timeouts::Never, || {
        let pool = BufferPool::new(N_BUFFERS, 1);
        let n_out = Arc::new(AtomicUsize::new(0));
        let threads = [0, 1, 2].map(|_| {
            let (pool, n_out) = (pool.clone(), n_out.clone());
            thread::spawn(move || {
                for _ in 0..2 {
                    let Some(buffer) = pool.try_take() else { continue };
                    assert!(n_out.fetch_add(1, Ordering::Relaxed) < N_BUFFERS);
                    assert!(pool.n_free() < N_BUFFERS && pool.high_water() <= N_BUFFERS);
                    assert_eq!(buffer.len(), 1);
                    n_out.fetch_sub(1, Ordering::Relaxed);
                    drop(buffer);
                }
            })
        });
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(pool.n_free(), N_BUFFERS);
        assert!(pool.shared.lock().idle.len() <= N_BUFFERS);
    });
}

/// One buffer; whoever gets none waits for the waker, and for nothing else.
#[test]
fn whoever_got_no_buffer_hears_of_the_next_one_that_comes_home() {
    explore(Timeouts::Never, || {
        let pool = BufferPool::new(1, 1);
        let returns = Arc::new((Mutex::new(0), Condvar::new()));
        let told = returns.clone();
        pool.set_waker(Box::new(move || {
            *told.0.lock().unwrap() += 1;
            told.1.notify_all();
        }));
        let threads = [0, 1, 2].map(|_| {
            let (pool, returns) = (pool.clone(), returns.clone());
            thread::spawn(move || {
                loop {
                    let seen = *returns.0.lock().unwrap();
                    if let Some(buffer) = pool.try_take() {
                        return drop(buffer);
                    }
                    let count = returns.0.lock().unwrap();
                    drop(returns.1.wait_while(count, |count| *count == seen).unwrap());
                }
            })
        });
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!((pool.n_free(), pool.high_water()), (1, 1));
    });
}

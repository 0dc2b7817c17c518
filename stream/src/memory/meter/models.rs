use std::task::Wake;

use sealback_crypto::models::{Timeouts, explore};
use shuttle::thread::{self, Thread};

use super::*;

/// Lets a thread that is parked go on.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Unpark>) {
        self.0.unpark();
    }
}

/// One credit; whoever is told `Later` waits for its waker, and for nothing else.
#[test]
fn whoever_was_told_later_is_woken_and_every_credit_comes_back() {
    explore(Timeouts::Never, || {
        let meter = Meter::new(MemoryOptions::default().with_credits(1));
        let threads = [0, 1, 2].map(|block| {
            let meter = meter.clone();
            thread::spawn(move || {
                let waker = Waker::from(Arc::new(Unpark(thread::current())));
                for _ in 0..2 {
                    while let Prepared::Later = meter.grant(block, &waker) {
                        thread::park();
                    }
                    assert!(meter.credits_out() <= 1);
                }
            })
        });
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(meter.credits_out(), 0);
    });
}

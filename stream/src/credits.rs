//! A stock of credits: so many writes may be under way.

use std::{mem, task::Waker};

use crate::{
    Credit, CreditSource,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Credits, of which each grant takes one.
#[derive(Debug)]
pub(crate) struct Credits {
    n_credits: u32,
    stock: Mutex<Stock>,
}

#[derive(Debug, Default)]
struct Stock {
    n_out: u32,
    /// Who was told `Later` since credits last came back.
    waiters: Vec<Waker>,
}

impl Credits {
    pub(crate) fn new(n_credits: u32) -> Arc<Credits> {
        Arc::new(Credits { n_credits, stock: Mutex::default() })
    }

    /// A credit; if there is none, `waker` is woken when there is.
    pub(crate) fn take(self: &Arc<Credits>, waker: &Waker) -> Option<Credit> {
        let mut stock = self.stock();
        if stock.n_out < self.n_credits {
            stock.n_out += 1;
            return Some(Credit::new(self.clone(), 1));
        }
        if !stock.waiters.iter().any(|waiter| waiter.will_wake(waker)) {
            stock.waiters.push(waker.clone());
        }
        None
    }

    /// Credits that are held now.
    pub(crate) fn n_out(&self) -> u32 {
        self.stock().n_out
    }

    fn stock(&self) -> MutexGuard<'_, Stock> {
        self.stock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CreditSource for Credits {
    fn give_back(&self, n: u32) {
        let waiters = {
            let mut stock = self.stock();
            stock.n_out -= n;
            mem::take(&mut stock.waiters)
        };
        // All of them: one that was woken alone might not want its credit any more.
        waiters.into_iter().for_each(Waker::wake);
    }
}

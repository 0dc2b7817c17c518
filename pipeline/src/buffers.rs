//! Buffers for sealed spans, and the requests that wait for one.
//!
//! A request that finds none joins a queue. For each buffer that comes home the first in the queue is
//! told; if it has no use for it any more, it tells the next. So however many wait, a buffer wakes one.
//!
//! **Invariant:** while a buffer is home and somebody is in the queue, somebody has been told and has not
//! looked yet.

use std::fmt;

use sealback_crypto::{Buffer, BufferPool};

use crate::{
    driver::Driver,
    sync::{Arc, SegQueue, Weak, atomic::Ordering},
};

/// A pool, and a queue for what comes home to it.
pub(crate) struct SealedBuffers {
    pool: BufferPool,
    queue: Arc<Queue>,
}

#[derive(Default)]
struct Queue(SegQueue<Weak<Driver>>);

impl SealedBuffers {
    /// So many buffers, of so many bytes each.
    pub(crate) fn new((n_buffers, buffer_bytes): (usize, usize)) -> SealedBuffers {
        let (pool, queue) = (BufferPool::new(n_buffers, buffer_bytes), Arc::<Queue>::default());
        let told = queue.clone();
        pool.set_waker(Box::new(move || told.tell_next()));
        SealedBuffers { pool, queue }
    }

    pub(crate) fn pool(&self) -> &BufferPool {
        &self.pool
    }

    /// Takes a buffer; if there is none, `driver` is told when there is.
    pub(crate) fn take_or_wait(&self, driver: &Arc<Driver>) -> Option<Buffer> {
        let buffer = self.pool.try_take();
        if buffer.is_some() {
            return buffer;
        }
        if !driver.queued_for_buffer.swap(true, Ordering::SeqCst) {
            self.queue.0.push(Arc::downgrade(driver));
        }
        // One that came home before told nobody.
        self.pool.try_take()
    }

    /// Tells who is first in the queue, if there is a buffer for it.
    pub(crate) fn tell_next_of_free(&self) {
        if !self.queue.0.is_empty() && self.pool.n_free() > 0 {
            self.queue.tell_next();
        }
    }
}

impl Queue {
    fn tell_next(&self) {
        while let Some(driver) = self.0.pop() {
            if let Some(driver) = driver.upgrade() {
                driver.queued_for_buffer.store(false, Ordering::SeqCst);
                return driver.wake_elsewhere();
            }
        }
    }
}

impl fmt::Debug for SealedBuffers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealedBuffers").field("pool", &self.pool).finish_non_exhaustive()
    }
}

//! A writeback, as whoever started it sees it.

use crate::{
    Error, RequestStats,
    driver::Driver,
    operation::{Operation, operation},
    request::Event,
    sync::Arc,
};

/// A writeback that was started.
#[derive(Debug)]
pub struct WritebackHandle {
    pub(crate) driver: Arc<Driver>,
}

impl WritebackHandle {
    /// Stored bytes that the server has acknowledged so far.
    pub fn acknowledged_bytes(&self) -> u64 {
        self.driver.acknowledged()
    }

    /// Whether it has ended.
    pub fn is_done(&self) -> bool {
        self.driver.ended().is_some()
    }

    /// The same, to be awaited, or called back from.
    pub fn operation(&self) -> Operation<Result<RequestStats, Error>> {
        let (ender, operation) = operation();
        self.driver.on_end(Box::new(|ending| {
            ender.end(ending.result.map(|()| Arc::unwrap_or_clone(ending.stats)));
        }));
        operation
    }

    /// Waits for its end, and returns what it did.
    ///
    /// # Errors
    /// What kept the data from the server; it is still dirty.
    pub fn wait(&self) -> Result<RequestStats, Error> {
        let ending = self.driver.wait();
        ending.result.map(|()| Arc::unwrap_or_clone(ending.stats))
    }

    /// Stops it: nothing more is issued. What is in flight goes on; what was not sent stays
    /// dirty. [`wait`](WritebackHandle::wait) returns [`Error::Cancelled`], unless it had ended.
    pub fn cancel(&self) {
        self.driver.post(Event::Cancel);
    }
}

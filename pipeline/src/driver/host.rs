//! What a request asks for while it handles an event: of its source, its targets and the buffers.

use std::time::Duration;

use sealback_crypto::Buffer;
use sealback_stream::{BehindFile, Prepared, TargetError, TargetErrorKind};

use super::{Driver, Parts, source_panicked};
use crate::{
    Error,
    io::contain,
    request::{Event, Host},
    source::Next,
    sync::Arc,
    trace::TraceEvent,
};

/// The request's surroundings, while one of its events is handled.
pub(super) struct DriverHost<'a> {
    pub(super) driver: &'a Arc<Driver>,
    pub(super) parts: &'a Parts,
    pub(super) now: Duration,
    pub(super) random: &'a mut fastrand::Rng,
}

impl Host for DriverHost<'_> {
    fn next_dirty(&mut self, from: u64, max_blocks: u64) -> Next {
        let next = || self.parts.source.next_dirty(from, max_blocks, &self.driver.waker);
        contain(next).unwrap_or_else(|| {
            self.driver.post(Event::Fail(source_panicked()));
            Next::Later
        })
    }

    fn take_buffer(&mut self) -> Option<Buffer> {
        self.driver.buffers().take_or_wait(self.driver)
    }

    fn prepare(&mut self, stream: usize, block: u64) -> Prepared {
        let target = self.parts.targets[stream].as_ref();
        let target = target.expect("only a stream with a target prepares");
        if target.behind().is_some_and(BehindFile::is_short_of_room) {
            self.driver.core.upload_for_room();
        }
        // A panic in here would leave the request to nobody.
        contain(|| target.prepare(block, &self.driver.waker)).unwrap_or_else(|| {
            let error = TargetError::new(TargetErrorKind::Io, "a target panicked");
            self.driver.post(Event::Fail(Error::server(error)));
            Prepared::Later
        })
    }

    fn random(&mut self) -> u64 {
        self.random.u64(..)
    }

    fn tracing(&self) -> bool {
        self.parts.teller.wants_all()
    }

    fn trace(&mut self, event: TraceEvent) {
        self.parts.teller.tell(self.now, &event);
    }
}

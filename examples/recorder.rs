//! Notes what a writeback tells.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use sealback::trace::{Observer, TraceEvent};

/// Hears what a writeback tells, and keeps it.
#[derive(Default)]
pub struct Recorder(Mutex<Vec<(Duration, TraceEvent)>>);

impl Recorder {
    /// What was told so far, in order, with the time since the engine's start.
    pub fn events(self: &Arc<Self>) -> Vec<(Duration, TraceEvent)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Observer for Recorder {
    fn event(&self, at: Duration, _request: u64, event: &TraceEvent) {
        let mut events = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        events.push((at, event.clone()));
    }
}

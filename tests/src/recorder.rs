//! What a request told of itself, in order.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use sealback::trace::{Observer, TraceEvent};

/// Keeps every event.
#[derive(Debug, Default)]
pub struct Recorder(Mutex<Vec<TraceEvent>>);

impl Recorder {
    /// What was told so far.
    pub fn events(&self) -> Vec<TraceEvent> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The index of the first event that fits.
    pub fn position(&self, fits: impl Fn(&TraceEvent) -> bool) -> Option<usize> {
        self.events().iter().position(fits)
    }
}

impl Observer for Recorder {
    fn event(&self, _at: Duration, _request: u64, event: &TraceEvent) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(event.clone());
    }
}

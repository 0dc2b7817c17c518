//! Where a request's events go: to observers, and to [`tracing`], the same to both.
//!
//! Whether anybody listens is looked at when a request begins, once. If nobody does, nothing is made
//! or formatted, and an event that always comes costs a comparison.

use std::{ops::Range, time::Duration};

use tracing::{
    Dispatch, Level, Span, debug, debug_span, dispatcher, enabled, level_enabled, trace, warn,
};

use super::{Observer, TraceEvent};
use crate::{Error, io::contain, origin::Origin, sync::Arc};

/// Tells what happens in one request.
pub(crate) struct Teller {
    request: u64,
    observers: [Option<Arc<dyn Observer>>; 2],
    traced: Option<Traced>,
    /// Somebody wants what happens all the time, not only what seldom does.
    wants_all: bool,
}

/// Somebody listens by `tracing`.
struct Traced {
    /// Whoever was the caller's subscriber: what happens on the engine's threads is for him, too.
    dispatch: Dispatch,
    span: Span,
}

impl Teller {
    /// Of a request that begins in the span that its caller is in.
    pub(crate) fn new(
        origin: &Origin,
        file: &str,
        observers: [Option<Arc<dyn Observer>>; 2],
    ) -> Teller {
        let somebody = level_enabled!(Level::ERROR);
        let look = || (Traced::new(origin, file), traces_all());
        let (traced, traces_all) = somebody.then(|| contain(look)).flatten().unzip();
        let observed = observers.iter().any(Option::is_some);
        let wants_all = observed || traces_all.unwrap_or(false);
        Teller { request: origin.request, observers, traced, wants_all }
    }

    /// Whether anybody wants what happens all the time.
    pub(crate) fn wants_all(&self) -> bool {
        self.wants_all
    }

    /// Tells of an event. Whoever hears it may panic.
    pub(crate) fn tell(&self, at: Duration, event: &TraceEvent) {
        for observer in self.observers.iter().flatten() {
            contain(|| observer.event(at, self.request, event));
        }
        if let Some(Traced { dispatch, span }) = &self.traced {
            contain(|| dispatcher::with_default(dispatch, || emit(self.request, span, event)));
        }
    }

    /// Runs what belongs to the request, on whatever thread, as its caller would see it. A subscriber that
    /// panics keeps it from nothing.
    pub(crate) fn within<R>(&self, run: impl FnOnce() -> R) -> R {
        match &self.traced {
            Some(Traced { dispatch, span }) => dispatcher::with_default(dispatch, || {
                let entered = contain(|| span.enter());
                let result = run();
                contain(|| drop(entered));
                result
            }),
            None => run(),
        }
    }

    /// The request has ended, as those who wait for it see it.
    pub(crate) fn end(self, result: &Result<(), Error>) {
        let request = self.request;
        let tell = || match result {
            Ok(()) => debug!(target: "sealback::request", request, "ended"),
            // What is to be done about these is done by whoever meets them.
            Err(error @ (Error::Cancelled | Error::Cut { .. })) => {
                debug!(target: "sealback::request", request, %error, "ended");
            }
            Err(error) => warn!(target: "sealback::request", request, %error, "failed"),
        };
        if self.traced.is_some() {
            contain(|| self.within(tell));
        }
        // Its span ends.
        contain(|| drop(self));
    }
}

impl Traced {
    fn new(origin: &Origin, file: &str) -> Traced {
        let (kind, Range { start, end }) =
            (origin.subject.kind.name(), origin.subject.range.clone());
        let request = origin.request;
        Traced {
            dispatch: dispatcher::get_default(Dispatch::clone),
            span: debug_span!(target: "sealback::request", "request", request, file, kind, start, end),
        }
    }
}

/// Whether this thread's subscriber wants any of the events that come all the time.
fn traces_all() -> bool {
    enabled!(target: "sealback::subrequest", Level::DEBUG)
        || enabled!(target: "sealback::span", Level::TRACE)
        || enabled!(target: "sealback::collect", Level::TRACE)
        || enabled!(target: "sealback::folio", Level::TRACE)
}

/// Tells by `tracing` of what is of no request: a subscriber that panics ends nothing but its own call.
pub(crate) fn tell(emit: impl FnOnce()) {
    contain(emit);
}

/// The event, as `tracing` has it: its message is [`TraceEvent::name`].
fn emit(request: u64, span: &Span, event: &TraceEvent) {
    match event {
        TraceEvent::BackingOff { until } => {
            debug!(target: "sealback::retry", parent: span, request, ?until, "backing off");
        }
        TraceEvent::Begun { .. } => {
            debug!(target: "sealback::request", parent: span, request, "begun");
        }
        TraceEvent::Collected { to } => {
            trace!(target: "sealback::collect", parent: span, request, to, "collected");
        }
        TraceEvent::Conflict { stream, id, n_blocks } => {
            debug!(target: "sealback::retry", parent: span, request, stream, id, n_blocks, "conflict");
        }
        TraceEvent::Done { ok } => {
            debug!(target: "sealback::request", parent: span, request, ok, "done");
        }
        TraceEvent::Issued { stream, id, blocks, attempts } => trace!(
            target: "sealback::subrequest", parent: span, request, stream, id, ?blocks, attempts, "issued"
        ),
        TraceEvent::Merged { block } => {
            debug!(target: "sealback::retry", parent: span, request, block, "merged");
        }
        TraceEvent::Off { stream, cause } => {
            warn!(target: "sealback::cache", parent: span, request, stream, %cause, "off");
        }
        TraceEvent::Paused { stream, cause } => {
            debug!(target: "sealback::retry", parent: span, request, stream, %cause, "paused");
        }
        TraceEvent::Prepared { stream, id, blocks } => trace!(
            target: "sealback::subrequest", parent: span, request, stream, id, ?blocks, "prepared"
        ),
        TraceEvent::Reissued { subrequests } => {
            debug!(target: "sealback::retry", parent: span, request, subrequests, "reissued");
        }
        TraceEvent::Released { folio, clean } => {
            trace!(target: "sealback::folio", parent: span, request, folio, clean, "released");
        }
        TraceEvent::Sealed { span: sealed } => {
            trace!(target: "sealback::span", parent: span, request, span = sealed, "sealed");
        }
        TraceEvent::Span { span: taken, blocks, destinations, folios } => trace!(
            target: "sealback::span",
            parent: span, request, span = taken, ?blocks, ?destinations, ?folios, "span"
        ),
        TraceEvent::Terminated { stream, id, outcome: Ok(bytes) } => trace!(
            target: "sealback::subrequest", parent: span, request, stream, id, bytes, "terminated"
        ),
        TraceEvent::Terminated { stream, id, outcome: Err(error) } => debug!(
            target: "sealback::subrequest", parent: span, request, stream, id, %error, "terminated"
        ),
    }
}

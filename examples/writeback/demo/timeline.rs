//! The life of one span as a list: from its folios through both streams until they are clean.

use std::{
    io::{self, Write},
    ops::Range,
    time::Duration,
};

use sealback::trace::TraceEvent;

use super::recorder::{Recording, STREAMS, Way};

/// The first span that was sealed for both streams, and the subrequests that carry its blocks.
pub(crate) struct Timeline<'a> {
    recording: &'a Recording,
    start: Duration,
    span: u64,
    blocks: Range<u64>,
    /// Folios that end in the span and have not been released yet.
    folios: Vec<u64>,
    lines: Vec<String>,
}

impl Timeline<'_> {
    pub(crate) fn new(recording: &Recording) -> Timeline<'_> {
        let start = recording.events.first().map_or(Duration::ZERO, |(at, _)| *at);
        let first = recording.events.iter().find_map(|(_, event)| match event {
            TraceEvent::Span { span, blocks, destinations, folios }
                if Way::of(*destinations) == Way::Both =>
            {
                Some((*span, blocks.clone(), folios.clone()))
            }
            _ => None,
        });
        let (span, blocks, folios) = first.unwrap_or_default();
        let mut timeline = Timeline { recording, start, span, blocks, folios, lines: Vec::new() };
        for (number, (at, event)) in recording.events.iter().enumerate() {
            timeline.add(number, *at, event);
        }
        timeline
    }

    pub(crate) fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let Range { start, end } = self.blocks;
        let (n_lines, n_events) = (self.lines.len(), self.recording.events.len());
        writeln!(out, "The life of blocks {start}..{end} ({n_lines} of {n_events} events)")?;
        writeln!(out)?;
        self.lines.iter().try_for_each(|line| writeln!(out, "{line}"))
    }

    fn add(&mut self, number: usize, at: Duration, event: &TraceEvent) {
        let (who, what) = match event {
            TraceEvent::Span { span, folios, .. } if *span == self.span => {
                let folios: Vec<_> = folios.iter().map(u64::to_string).collect();
                let folios = folios.join(", ");
                (format!("span {span}"), format!("taken from folios {folios}; being sealed"))
            }
            TraceEvent::Sealed { span } if *span == self.span => {
                (format!("span {span}"), "sealed".to_owned())
            }
            TraceEvent::Prepared { stream, id, blocks } if self.concerns(&blocks.hull()) => {
                let stalled = match self.n_unsealed(number, &blocks.hull()) {
                    0 => String::new(),
                    1 => ", stalled: 1 span is not sealed yet".to_owned(),
                    n => format!(", stalled: {n} spans are not sealed yet"),
                };
                (named(*stream, *id), format!("prepared, blocks {blocks:?}{stalled}"))
            }
            TraceEvent::Issued { stream, id, blocks, .. } if self.concerns(&blocks.hull()) => {
                let waited = self.prepared_at(*stream, *id).map_or(Duration::ZERO, |was| at - was);
                let waited = waited.as_micros();
                (named(*stream, *id), format!("issued, {waited} us after it was prepared"))
            }
            TraceEvent::Terminated { stream, id, outcome } if self.carries(*stream, *id) => {
                let what = match outcome {
                    Ok(bytes) => format!("terminated, {bytes} bytes went through"),
                    Err(error) => format!("terminated: {error}"),
                };
                (named(*stream, *id), what)
            }
            TraceEvent::Released { folio, clean } if self.folios.contains(folio) => {
                self.folios.retain(|held| held != folio);
                let what = if *clean { "released, clean" } else { "released, dirty again" };
                (format!("folio {folio}"), what.to_owned())
            }
            _ => return,
        };
        let time = (at - self.start).as_micros();
        self.lines.push(format!("{time:>7} us  {who:<11}{what}"));
    }

    fn concerns(&self, blocks: &Range<u64>) -> bool {
        overlap(&self.blocks, blocks)
    }

    /// Whether a subrequest has blocks of the span.
    fn carries(&self, stream: usize, id: u64) -> bool {
        let mut subrequests = self.recording.subrequests(stream);
        subrequests.any(|subrequest| subrequest.id == id && self.concerns(&subrequest.blocks))
    }

    fn prepared_at(&self, of: usize, number: u64) -> Option<Duration> {
        self.recording.events.iter().find_map(|(at, event)| match event {
            TraceEvent::Prepared { stream, id, .. } if (*stream, *id) == (of, number) => Some(*at),
            _ => None,
        })
    }

    /// How many of the spans that hold these blocks were not sealed when an event was told.
    fn n_unsealed(&self, number: usize, blocks: &Range<u64>) -> usize {
        let told = &self.recording.events[..number];
        let is_sealed = |id: u64| {
            let sealed =
                |event: &TraceEvent| matches!(event, TraceEvent::Sealed { span } if *span == id);
            told.iter().any(|(_, event)| sealed(event))
        };
        let spans = self.recording.spans();
        let needed =
            spans.filter(|span| span.way != Way::CacheOnly && overlap(&span.blocks, blocks));
        needed.filter(|span| !is_sealed(span.id)).count()
    }
}

fn overlap(a: &Range<u64>, b: &Range<u64>) -> bool {
    a.start < b.end && b.start < a.end
}

fn named(stream: usize, id: u64) -> String {
    let stream = STREAMS.get(stream).copied().unwrap_or("stream");
    format!("{stream} {id}")
}

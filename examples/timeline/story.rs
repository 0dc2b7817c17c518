//! What happened, from the events: who was where from when to when.

use std::{collections::HashMap, ops::Range, time::Duration};

use sealback::trace::TraceEvent;

/// From when to when, in microseconds since the first event.
pub(crate) type Times = Range<u64>;

/// A writeback.
#[derive(Debug, Default)]
pub(crate) struct Story {
    pub(crate) ends: u64,
    pub(crate) spans: Vec<Span>,
    pub(crate) streams: [Vec<Subrequest>; 2],
    pub(crate) folios: Vec<Folio>,
    pub(crate) pauses: Vec<Times>,
}

/// Blocks that were sealed together.
#[derive(Debug)]
pub(crate) struct Span {
    pub(crate) id: u64,
    pub(crate) blocks: Range<u64>,
    /// Taken from the folios, and sealed.
    pub(crate) times: Times,
    /// The server's own bytes, which only the cache gets: they are not sealed.
    pub(crate) is_copy: bool,
}

/// One try of a subrequest.
#[derive(Debug)]
pub(crate) struct Subrequest {
    pub(crate) id: u64,
    pub(crate) attempts: u32,
    pub(crate) runs: Vec<Range<u64>>,
    pub(crate) queued: Times,
    pub(crate) sent: Times,
    pub(crate) outcome: Result<u64, String>,
}

/// A folio under writeback.
#[derive(Debug)]
pub(crate) struct Folio {
    pub(crate) number: u64,
    pub(crate) times: Times,
    pub(crate) is_clean: bool,
}

impl Story {
    pub(crate) fn of(events: &[(Duration, TraceEvent)]) -> Story {
        let start = events.first().map_or(Duration::ZERO, |(at, _)| *at);
        let mut teller = Teller::default();
        for (at, event) in events {
            teller.now = u64::try_from((*at - start).as_micros()).unwrap_or(u64::MAX);
            teller.hear(event);
        }
        teller.story.ends = teller.now.max(1);
        teller.story
    }
}

#[derive(Default)]
struct Teller {
    story: Story,
    now: u64,
    /// Indices of spans that are being sealed.
    sealing: HashMap<u64, usize>,
    /// Since when subrequests wait in their queue.
    queued: HashMap<(usize, u64), u64>,
    /// Indices of subrequests that are with their target.
    sent: HashMap<(usize, u64), usize>,
    taken: HashMap<u64, u64>,
    paused: Option<u64>,
}

impl Teller {
    fn hear(&mut self, event: &TraceEvent) {
        let now = self.now;
        match event {
            TraceEvent::Span { span, blocks, destinations, folios } => {
                let is_copy = !destinations.contains(0);
                let blocks = blocks.clone();
                self.sealing.insert(*span, self.story.spans.len());
                self.story.spans.push(Span { id: *span, blocks, times: now..now, is_copy });
                self.taken.extend(folios.iter().map(|folio| (*folio, now)));
            }
            TraceEvent::Sealed { span } => {
                if let Some(index) = self.sealing.remove(span) {
                    self.story.spans[index].times.end = now;
                }
            }
            TraceEvent::Prepared { stream, id, .. } => {
                self.queued.insert((*stream, *id), now);
            }
            TraceEvent::Issued { stream, id, blocks, attempts } => {
                let queued = self.queued.remove(&(*stream, *id)).unwrap_or(now)..now;
                let (id, attempts, runs) = (*id, *attempts, blocks.iter().cloned().collect());
                let of_stream = &mut self.story.streams[*stream];
                self.sent.insert((*stream, id), of_stream.len());
                let outcome = Err("no answer".to_owned());
                of_stream.push(Subrequest { id, attempts, runs, queued, sent: now..now, outcome });
            }
            TraceEvent::Terminated { stream, id, outcome } => {
                if let Some(index) = self.sent.remove(&(*stream, *id)) {
                    let subrequest = &mut self.story.streams[*stream][index];
                    subrequest.sent.end = now;
                    subrequest.outcome = outcome.clone();
                }
            }
            TraceEvent::Paused { .. } => self.paused = Some(now),
            TraceEvent::Reissued { .. } => {
                self.story.pauses.extend(self.paused.take().map(|since| since..now));
            }
            TraceEvent::Released { folio, clean } => {
                let since = self.taken.remove(folio).unwrap_or(now);
                let (number, is_clean) = (*folio, *clean);
                self.story.folios.push(Folio { number, times: since..now, is_clean });
            }
            _ => {}
        }
    }
}

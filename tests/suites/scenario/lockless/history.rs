//! What clients have done to a file, and when; and what it may be after that.

use std::sync::{
    Mutex,
    atomic::{AtomicU64, Ordering},
};

/// Bytes of a cell. Nothing about them fits a block.
pub(super) const CELL: usize = 1500;
/// A cell is of the client of its number modulo theirs.
pub(super) const N_CELLS: usize = 64;

/// From when to when something was done, in ticks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) begun: u64,
    pub(super) ended: u64,
}

#[derive(Clone, Copy, Debug)]
enum Event {
    /// The file was made so long.
    Cut { client: usize, len: usize, span: Span },
    /// All that a client had written was acknowledged.
    Synced { client: usize, span: Span },
    /// A cell was filled with a value; zero for a hole.
    Written { client: usize, cell: usize, value: u8, span: Span },
}

/// All that was done.
#[derive(Debug, Default)]
pub(super) struct History {
    clock: AtomicU64,
    events: Mutex<Vec<Event>>,
}

impl History {
    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    fn note(&self, event: impl FnOnce(Span) -> Event, begun: u64) {
        let span = Span { begun, ended: self.tick() };
        self.events.lock().unwrap().push(event(span));
    }

    /// Carries out a write of a cell.
    pub(super) fn write(&self, client: usize, cell: usize, value: u8, write: impl FnOnce()) {
        let begun = self.tick();
        write();
        self.note(|span| Event::Written { client, cell, value, span }, begun);
    }

    /// Carries out a cut; until it has ended, it may take place or not.
    pub(super) fn cut(&self, client: usize, len: usize, cut: impl FnOnce()) {
        let begun = self.tick();
        let noted = |ended| Event::Cut { client, len, span: Span { begun, ended } };
        self.events.lock().unwrap().push(noted(u64::MAX));
        cut();
        self.note(|Span { ended, .. }| noted(ended), begun);
    }

    /// Carries out a sync; `sync` returns whether all that was written is acknowledged.
    pub(super) fn sync(&self, client: usize, sync: impl FnOnce() -> bool) {
        let begun = self.tick();
        if sync() {
            self.note(|span| Event::Synced { client, span }, begun);
        }
    }

    /// Whether these bytes, as a part of the file from a position on, may be what a client reads now of its own:
    /// it need not know yet of what others have cut off.
    pub(super) fn check_part(&self, at: usize, bytes: &[u8]) -> Result<(), String> {
        let mut events = self.events.lock().unwrap().clone();
        let others = |event: &Event| matches!(event, Event::Synced { .. });
        events.retain(|event| !others(event));
        (at..).zip(bytes).try_for_each(|(position, byte)| check_byte(&events, position, *byte))
    }

    /// Whether that may be the file when all is done and synced.
    pub(super) fn check(&self, file: &[u8]) -> Result<(), String> {
        let events = self.events.lock().unwrap().clone();
        let byte = |position: usize| file.get(position).copied().unwrap_or(0);
        (0..CELL * N_CELLS).try_for_each(|at| check_byte(&events, at, byte(at)))
    }
}

fn check_byte(events: &[Event], position: usize, byte: u8) -> Result<(), String> {
    let last = events.iter().rev().find_map(|event| match event {
        Event::Written { client, cell, value, span } if *cell == position / CELL => {
            Some((*client, *value, *span))
        }
        _ => None,
    });
    let Some((owner, value, written)) = last else {
        return match byte {
            0 => Ok(()),
            _ => Err(format!("byte {position} is {byte}, and nobody wrote it")),
        };
    };
    let synced = events.iter().find_map(|event| match event {
        Event::Synced { client, span } if *client == owner && span.begun > written.ended => {
            Some(span.ended)
        }
        _ => None,
    });
    let cuts = || {
        events.iter().filter_map(|event| match event {
            Event::Cut { client, len, span } if *len <= position => Some((*client, *span)),
            _ => None,
        })
    };
    // Who has cut it off himself, or after it was acknowledged, has done so after it was written.
    let is_cut = cuts().filter(|(_, cut)| cut.ended < u64::MAX).any(|(client, cut)| {
        (client == owner && cut.begun > written.ended)
            || synced.is_some_and(|synced| cut.begun > synced)
    });
    let may_be_cut = cuts().any(|(_, cut)| cut.ended > written.begun);
    let is_right = match byte {
        0 => value == 0 || may_be_cut,
        _ => byte == value && !is_cut,
    };
    if is_right {
        return Ok(());
    }
    let story: String = events.iter().map(|event| format!("\n  {event:?}")).collect();
    Err(format!("byte {position} of client {owner} is {byte}, after:{story}"))
}

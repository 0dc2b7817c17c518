//! What waits for its ciphertext, and what waits for nothing.

use std::{ops::Range, time::Duration};

use super::Oracle;

impl Oracle {
    /// A span's ciphertext is ready.
    pub(crate) fn on_sealed(&mut self, blocks: Range<u64>) {
        self.sealed.extend(blocks);
    }

    pub(super) fn check_stalls(&mut self, now: Duration) {
        if self.pause.is_some() || self.tally.is_ending() {
            return;
        }
        for (view, window) in self.streams.iter_mut().zip(&self.windows) {
            let has_room = view.in_flight.len() < *window;
            let Some((id, blocks)) = view.head().filter(|_| has_room).cloned() else { continue };
            let waits = blocks.blocks().any(|block| !self.sealed.contains(&block));
            assert!(waits, "{blocks:?} is sealed, the window has room, and it is not issued");
            if view.held_up.is_none_or(|(held_up, _)| held_up != id) {
                view.held_up = Some((id, now));
            }
        }
    }
}

//! What is known of blocks that the server has: what the next change of one is to expect, what lies behind
//! the committed size, and what a pass that failed may have left there.

use std::{collections::BTreeMap, ops::Range};

use sealback_crypto::{Geometry, Nonce, Sealed};
use sealback_stream::Expected;

use super::Folios;

impl Folios {
    /// What is known to be stored for a block, for a later partial change to expect.
    pub(crate) fn set_stored(&mut self, block: u64, expected: Expected) {
        self.stored.entry(block).or_insert(expected);
    }

    /// These blocks are on the server now, with these nonces.
    pub(crate) fn note_stored(&mut self, sealed: &Sealed, draft: bool) {
        // A draft is nobody else's, and may be large.
        let committed = if draft { u64::MAX } else { self.committed };
        for (block, nonce, end) in ends_of(self.geometry, sealed) {
            let end = end.min(self.size);
            if end > committed {
                self.uncommitted.insert(block, (nonce, end));
            } else {
                self.uncommitted.remove(&block);
            }
            self.in_doubt.remove(&block);
            if self.has(self.folio_at(self.geometry.block_start(block)).0) {
                self.expect(block, Expected::Nonce(nonce));
            }
        }
    }

    /// These blocks are on the server now, with these nonces, or they are not.
    pub(crate) fn note_in_doubt(&mut self, sealed: &Sealed) {
        for (block, nonce, end) in ends_of(self.geometry, sealed) {
            if end > self.committed {
                self.doubt(block, nonce);
            }
        }
    }

    /// What was acknowledged behind the committed size is not in the file any more.
    pub(super) fn doubt_uncommitted(&mut self) {
        for (block, (nonce, _)) in std::mem::take(&mut self.uncommitted) {
            self.doubt(block, nonce);
        }
    }

    fn doubt(&mut self, block: u64, nonce: Nonce) {
        if !self.shared.contains(&block) {
            self.in_doubt.entry(block).or_default().push(nonce);
        }
    }

    /// Blocks that may be stored and are not in the file, and with which nonces.
    pub(crate) fn in_doubt(&self) -> BTreeMap<u64, Vec<Nonce>> {
        self.in_doubt.clone()
    }

    /// Those are not any more. What is noted of them meanwhile stays.
    pub(crate) fn is_settled(&mut self, blocks: &Range<u64>, settled: &BTreeMap<u64, Vec<Nonce>>) {
        self.in_doubt.retain(|block, nonces| {
            let settled = settled.get(block).filter(|_| blocks.contains(block));
            nonces.retain(|nonce| settled.is_none_or(|settled| !settled.contains(nonce)));
            !nonces.is_empty()
        });
    }

    /// Whether a block that was sent from here under a nonce holds nothing of others behind the committed
    /// size.
    fn is_ours_alone(&self, block: u64, nonce: Nonce) -> bool {
        let sent = self.uncommitted.get(&block).is_some_and(|(sent, _)| *sent == nonce);
        let doubted = self.in_doubt.get(&block).is_some_and(|sent| sent.contains(&nonce));
        (sent || doubted) && !self.shared.contains(&block)
    }

    /// A block was found that may hold something behind the committed size. Returns whether that is ours
    /// alone.
    pub(crate) fn found_behind(&mut self, block: u64, nonce: Nonce) -> bool {
        let is_ours = self.is_ours_alone(block, nonce);
        if !is_ours {
            self.shared.insert(block);
            self.in_doubt.remove(&block);
        }
        is_ours
    }

    /// An acknowledged block is stored under another nonce now, with no more than what counts.
    pub(crate) fn sealed_anew(&mut self, block: u64, now: Nonce) {
        if let Some((nonce, _)) = self.uncommitted.get_mut(&block) {
            *nonce = now;
        }
    }

    /// What is stored for a block now. Whoever seals it from here must not expect what is longer than
    /// what is here: it would be made shorter. It is merged once more.
    pub(super) fn expect(&mut self, block: u64, stored: Expected) {
        let is_longer = self.longer.remove(&block);
        self.stored.insert(block, if is_longer { Expected::UNKNOWN } else { stored });
    }

    /// Whether the server has acknowledged a block with bytes behind the committed size.
    pub(crate) fn is_uncommitted(&self, block: u64) -> bool {
        self.uncommitted.contains_key(&block)
    }

    /// How many bytes of such a block count, from its start.
    pub(crate) fn uncommitted_len(&self, block: u64) -> Option<u64> {
        self.uncommitted.get(&block).map(|(_, end)| end - self.geometry.block_start(block))
    }

    /// Blocks that the server has acknowledged with bytes behind the committed size.
    pub(crate) fn uncommitted(&self) -> Vec<(u64, Nonce)> {
        self.uncommitted.iter().map(|(block, (nonce, _))| (*block, *nonce)).collect()
    }

    /// What was sent for a block is no longer stored: has exactly what was written here sent once
    /// more, by a merge. `sent`: under which nonce. Returns whether all of it is still here. To be
    /// asked once.
    pub(crate) fn send_again(&mut self, block: u64, sent: Nonce, stored: Option<Nonce>) -> bool {
        if self.uncommitted.get(&block).is_none_or(|(nonce, _)| *nonce != sent) {
            // Another thread has met it, or it was sent anew.
            return true;
        }
        self.uncommitted.remove(&block);
        let start = self.geometry.block_start(block);
        let end = (start + self.geometry.block_bytes()).min(self.size).max(start);
        let ours = self.unsynced.take(&(start..end));
        // If nothing was: zeros that went with it; or it was committed since.
        let is_here = ours.is_empty() || self.missing(&(start..end)).is_empty();
        if is_here && !ours.is_empty() {
            ours.iter().for_each(|range| self.redirty(range));
            self.sent_again += 1;
        } else if stored.is_none() {
            self.allow_holes(&(block..block + 1));
        }
        is_here
    }

    /// How often [`send_again`](Folios::send_again) has found something to be sent.
    pub(crate) fn sent_again(&self) -> u64 {
        self.sent_again
    }
}

/// Blocks with their nonces and the positions where they end.
fn ends_of(geometry: Geometry, sealed: &Sealed) -> impl Iterator<Item = (u64, Nonce, u64)> {
    let sealed_to = geometry.block_start(sealed.blocks().start) + sealed.plaintext_len();
    let end = move |block| sealed_to.min(geometry.block_start(block) + geometry.block_bytes());
    sealed.nonces().map(move |(block, nonce)| (block, nonce, end(block)))
}

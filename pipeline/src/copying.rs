//! Copy-to-cache: what a read fetched from the server is for the cache, too.
//!
//! It is taken there as the sealed bytes that came, by the next pass, or, when much of it waits, by one
//! of its own that takes nothing else: reads go no other way into the cache than writes do, so one place
//! decides what its record says. Whatever read it sees what is stored: where the cache's record, or a
//! copy that waits or is on its way, says otherwise, that is forgotten.

use sealback_crypto::{Nonce, Opened, Sealed};

use crate::{open_file::OpenFile, page_cache::Folios, pass::PassKind, sync::Arc};

impl OpenFile {
    /// Keeps of what came from the server what the cache lacks, unless something was written since
    /// `writes` was read. Called where a target may be waited for.
    pub(crate) fn offer_to_cache(&self, opened: Opened, writes: u64) {
        let Some(cache) = self.cache() else { return };
        let mut kept = false;
        for came in opened.into_sealed_runs() {
            let present = cache.present(came.blocks());
            let stale = came
                .nonces()
                .zip(&present)
                .any(|((_, nonce), present)| present.is_some_and(|present| present != nonce));
            let mut folios = self.folios();
            if folios.writes() != writes {
                return;
            }
            if stale || folios.contradicts(&came) {
                folios.drop_copies(&came.blocks());
                drop(folios);
                let forget = || self.forget_cached(&came.blocks());
                if self.claims.revoke(forget).is_err() {
                    return self.drop_cache();
                }
                continue;
            }
            kept |= keep_lacking(&mut folios, &came, &present);
        }
        if kept && let Some(file) = self.core.file(self.number()) {
            self.core.queue(&file);
            file.copy_if_due();
        }
    }

    /// Begins a pass that takes copies to the cache, if many wait.
    pub(crate) fn copy_if_due(self: &Arc<Self>) {
        if self.core.copies.is_half_full() && self.folios().has_copies() {
            self.kick(PassKind::Copies);
        }
    }
}

/// Keeps those of the blocks that the cache lacks. Returns whether there are any.
fn keep_lacking(folios: &mut Folios, came: &Sealed, present: &[Option<Nonce>]) -> bool {
    let blocks = came.blocks().zip(present);
    let lacks: Vec<bool> =
        blocks.map(|(block, present)| present.is_none() && folios.may_copy(block)).collect();
    let (mut kept, mut at) = (false, came.blocks().start);
    for run in lacks.chunk_by(|one, next| one == next) {
        let blocks = at..at + run.len() as u64;
        at = blocks.end;
        kept |= run[0] && folios.keep_copy(came.slice(blocks));
    }
    kept
}

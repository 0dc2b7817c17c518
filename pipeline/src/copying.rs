//! Copy-to-cache: what a read fetched from the server is for the cache, too.
//!
//! It is taken there as the sealed bytes that came, by the next pass, or, when much of it waits, by one
//! of its own that takes nothing else: reads go no other way into the cache than writes do, so one place
//! decides what its record says. Whatever read it sees what is stored: where the cache's record, or a
//! copy that waits or is on its way, says otherwise, that is forgotten.

use std::ops::Range;

use sealback_crypto::{Nonce, Opened, Sealed};
use sealback_stream::CacheFile;

use crate::{open_file::OpenFile, page_cache::Folios, pass::PassKind, sync::Arc};

/// Blocks that are being fetched, which the cache may get. Knows which of them are changed from here
/// meanwhile.
pub(crate) struct Copying<'a> {
    file: &'a OpenFile,
    id: u64,
}

impl<'a> Copying<'a> {
    /// One that was begun before, with the folios at hand.
    pub(crate) fn of(file: &'a OpenFile, id: u64) -> Copying<'a> {
        Copying { file, id }
    }
}

impl Drop for Copying<'_> {
    fn drop(&mut self) {
        self.file.folios().end_fetch(self.id);
    }
}

impl OpenFile {
    /// To be called before blocks are fetched that a cache may get, if there is one.
    pub(crate) fn begin_copying(&self, blocks: Range<u64>) -> Option<Copying<'_>> {
        self.cache()?;
        let id = self.folios().begin_copying(blocks);
        Some(Copying { file: self, id })
    }

    /// Keeps of what came from the server what the cache lacks, but for what was changed from here since
    /// it was begun to be fetched. Called where a target may be waited for.
    pub(crate) fn offer_to_cache(&self, opened: Opened, copying: Option<&Copying<'_>>) {
        let (Some(cache), Some(copying)) = (self.cache(), copying) else { return };
        let mut kept = false;
        for came in opened.into_sealed_runs() {
            let unchanged = self.folios().unchanged_since(copying.id, &came.blocks());
            for blocks in unchanged {
                kept |= self.offer_run(&came.slice(blocks), &*cache, copying);
            }
        }
        if kept && let Some(file) = self.core.file(self.number()) {
            self.core.queue(&file);
            file.copy_if_due();
        }
    }

    /// Returns whether something of it was kept.
    fn offer_run(&self, came: &Sealed, cache: &dyn CacheFile, copying: &Copying<'_>) -> bool {
        let blocks = came.blocks();
        let present = cache.present(blocks.clone());
        let stale = came
            .nonces()
            .zip(&present)
            .any(|((_, nonce), present)| present.is_some_and(|present| present != nonce));
        let mut folios = self.folios();
        if folios.unchanged_since(copying.id, &blocks) != [blocks.clone()] {
            return false;
        }
        if !stale && !folios.contradicts(came) {
            return keep_lacking(&mut folios, came, &present);
        }
        folios.drop_copies(&blocks);
        drop(folios);
        if self.claims.revoke(|| self.forget_cached(&blocks)).is_err() {
            self.drop_cache();
        }
        false
    }

    /// Begins a pass that takes copies to the cache, if many wait.
    pub(crate) fn copy_if_due(self: &Arc<Self>) {
        if self.core.copies.is_half_full() && self.folios().has_copies() {
            self.kick(PassKind::Copies, || true);
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

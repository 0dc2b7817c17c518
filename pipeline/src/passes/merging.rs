//! A block that met somebody else's change: read, laid under what was dirtied here, and sealed anew.

use crate::{
    Error,
    commit::seal_gen,
    open_file::OpenFile,
    reader::{MAX_READS, pause_before},
    rmw::{Merge, MergeError, Merged, Theirs},
};

impl OpenFile {
    /// Lays what was dirtied here over a block as it is on the server now: never the cache's copy,
    /// which may be what the change was made of.
    pub(crate) fn merge(&self, merge: &Merge, grows: bool) -> Result<Merged, Error> {
        let known = self.header();
        let seal_gen = seal_gen(&known);
        let n_blocks = self.geometry().n_blocks(known.size());
        let is_behind = merge.block >= n_blocks;
        // All of a draft is from here.
        let nothing_behind_counts = grows && !self.is_lockless() && !self.is_draft();
        let mut attempt = 1;
        loop {
            let stored = self.read_block(merge.block)?;
            let is_ours = self.found_ours_alone(&known, merge.block, &stored);
            let theirs = match attempt >= MAX_READS && is_behind && self.is_lockless() {
                true => Theirs::IfItOpens,
                false if nothing_behind_counts || is_ours => {
                    Theirs::First(self.bytes_of_ours(known.size(), merge.block))
                }
                false => Theirs::First(self.geometry().block_bytes()),
            };
            match merge.run(known.content_key(), seal_gen, stored, theirs) {
                Ok(merged) => return Ok(merged),
                // Somebody may be writing it, or have cut it off.
                Err(MergeError::Damaged(_)) if attempt < MAX_READS => {
                    self.look_for_cut(&known)?;
                    pause_before(attempt);
                    attempt += 1;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// How much counts of what is stored for a block, in bytes from its start, for who has the size lock:
    /// what is committed, and what was sent from here behind that.
    pub(crate) fn bytes_of_ours(&self, committed: u64, block: u64) -> u64 {
        let geometry = self.geometry();
        let sent = self.folios().uncommitted_len(block);
        sent.unwrap_or(match block < geometry.n_blocks(committed) {
            true => geometry.block_len(block, committed),
            false => 0,
        })
    }
}

//! A block that met somebody else's change: read, laid under what was dirtied here, and sealed anew.

use sealback_crypto::Header;

use crate::{
    Error,
    commit::seal_gen,
    open_file::OpenFile,
    reader::MAX_READS,
    rmw::{Merge, MergeError, Merged},
};

impl OpenFile {
    /// Lays what was dirtied here over a block as it is on the server now: never the cache's copy,
    /// which may be what the change was made of.
    pub(crate) fn merge(&self, merge: &Merge, grows: bool) -> Result<Merged, Error> {
        let known = self.header();
        let seal_gen = seal_gen(&known);
        let their_bytes = self.their_bytes(&known, merge.block, grows);
        let blocks = merge.block..merge.block + 1;
        let mut attempt = 1;
        loop {
            let read = || Ok(self.read_blocks(&*self.target, blocks.clone())?);
            let stored = self.core.persist(None, read)?;
            match merge.run(known.content_key(), seal_gen, stored, their_bytes) {
                Ok(merged) => return Ok(merged),
                // Somebody may be writing it, or have cut it off.
                Err(MergeError::Damaged(_)) if attempt < MAX_READS => {
                    self.look_for_cut(&known)?;
                    attempt += 1;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// How much of what is stored for a block counts, in bytes from its start.
    fn their_bytes(&self, header: &Header, block: u64, grows: bool) -> u64 {
        let (geometry, size) = (self.geometry(), header.size());
        let is_committed = block < geometry.n_blocks(size);
        let committed = if is_committed { geometry.block_len(block, size) } else { 0 };
        if header.cut_pending() {
            return committed;
        }
        if !grows {
            return geometry.block_bytes();
        }
        self.folios().uncommitted_len(block).unwrap_or(committed)
    }
}

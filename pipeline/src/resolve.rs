//! Blocks that two clients have overwritten: which of the two it is to be.

use std::sync::Arc;

use sealback_crypto::{MAX_FILE_BYTES, Plaintext};
use sealback_stream::BlockConflict;
use tracing::debug;

use crate::{Error, open_file::OpenFile, ranges::index_of, trace::tell};

/// What becomes of a block that was overwritten here and changed by somebody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// What was written here, over what the conflict says is stored there.
    Ours,
    /// What is stored; what was written here is dropped.
    Theirs,
}

impl OpenFile {
    /// Resolves conflicts that were told.
    pub(crate) fn resolve(
        self: &Arc<Self>,
        conflicts: &[BlockConflict],
        resolution: Resolution,
    ) -> Result<(), Error> {
        let (file, n_blocks) = (self.name(), conflicts.len());
        tell(|| debug!(target: "sealback::conflict", file, n_blocks, ?resolution, "resolved"));
        let _alone = self.alone();
        let n_blocks = self.geometry().n_blocks(MAX_FILE_BYTES);
        for conflict in conflicts.iter().filter(|conflict| conflict.block < n_blocks) {
            match resolution {
                Resolution::Ours => self.folios().overwrite(conflict),
                Resolution::Theirs => self.take_theirs(conflict.block)?,
            }
        }
        self.core.folios.notify();
        Ok(())
    }

    fn take_theirs(self: &Arc<Self>, block: u64) -> Result<(), Error> {
        let (geometry, size) = (self.geometry(), self.header().size());
        let start = geometry.block_start(block);
        let end = size.min(start.saturating_add(geometry.block_bytes()));
        if start >= end {
            return Ok(());
        }
        // The cache may have what was there before.
        self.forget_cached(&(block..block + 1))?;
        let mut plain = Plaintext::zeros(index_of(end - start));
        let stored = self.fetch(start..end, vec![&mut plain], size)?;
        self.folios().take_over(block, &plain, stored[0], &self.core.folios);
        Ok(())
    }
}

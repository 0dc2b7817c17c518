//! Goes on after somebody else has made the file shorter.
//!
//! Whoever meets such a cut gives back what he holds and comes here. What the file lost is lost here,
//! too; what was written here behind the new end, and is in no header yet, makes the file grow again,
//! as if it had been written after the cut.

use std::sync::Arc;

use sealback_crypto::Header;

use crate::{Error, open_file::OpenFile};

/// Somebody who cuts a file again and again is followed so often in one call.
const MAX_CUTS: u32 = 16;

impl OpenFile {
    /// Runs a step that holds nothing of the file, once more after each cut that it meets.
    pub(crate) fn following_cuts<T>(
        self: &Arc<Self>,
        mut step: impl FnMut() -> Result<T, Error>,
    ) -> Result<T, Error> {
        for _ in 0..MAX_CUTS {
            match step() {
                Err(Error::Cut { .. }) => self.follow_cut()?,
                other => return other,
            }
        }
        step()
    }

    /// Fails if somebody else has cut the file since `known` was read.
    pub(crate) fn look_for_cut(&self, known: &Header) -> Result<Header, Error> {
        let now = self.reread_header(known)?;
        let cut = now.cuts() != known.cuts();
        if cut { Err(Error::Cut { size: now.size() }) } else { Ok(now) }
    }

    /// Goes on from the header that is there now, unless another thread has done so.
    pub(crate) fn follow_cut(self: &Arc<Self>) -> Result<(), Error> {
        // What waits to be uploaded is laid over the file as it is now; then that is followed.
        self.upload()?;
        let _alone = self.alone();
        let _one_at_a_time = self.commits();
        let known = self.header();
        let now = self.reread_header(&known)?;
        if now.cuts() == known.cuts() {
            return Ok(());
        }
        let size = now.size();
        let all_is_here = self.folios().cut_elsewhere(size, &self.core.folios);
        self.adopt(now);
        if !all_is_here {
            self.passes.tell(|errors| errors.cut_off(size));
        }
        self.core.folios.notify();
        Ok(())
    }
}

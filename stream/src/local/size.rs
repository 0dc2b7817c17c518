//! The lock under which a file's size changes: the sealed file's own `flock`.
//!
//! Other handles, of whatever process, are excluded by the file's lock, and threads that share a handle by
//! a flag beside it. So no file has to be made for it, and none found.

use std::{fs::File, sync::Arc};

use super::lock;
use crate::{SizeLock, SizeLockAttempt, TargetError, held_size::HeldSize, sync::Arc as Shared};

/// One handle's part in the lock; where only this process can change files, all that there is of it.
#[derive(Debug, Default)]
pub(super) struct Size(Shared<HeldSize>);

impl Size {
    pub(super) fn of(held: Shared<HeldSize>) -> Size {
        Size(held)
    }

    /// Takes it, of a file that others may have open, or of a private one. Blocks.
    pub(super) fn hold(&self, file: &Arc<File>, is_private: bool) -> Result<SizeLock, TargetError> {
        let held = self.0.clone().hold();
        if is_private {
            return Ok(held);
        }
        lock::lock(file).map_err(untaken)?;
        Ok(SizeLock::new(Guard { file: file.clone(), _held: held }))
    }

    /// Takes it, if nobody has it.
    pub(super) fn try_hold(
        &self,
        file: &Arc<File>,
        is_private: bool,
    ) -> Result<SizeLockAttempt, TargetError> {
        let held = match self.0.clone().try_hold() {
            SizeLockAttempt::Taken(held) if !is_private => held,
            other => return Ok(other),
        };
        Ok(match lock::try_lock(file).map_err(untaken)? {
            true => {
                SizeLockAttempt::Taken(SizeLock::new(Guard { file: file.clone(), _held: held }))
            }
            false => SizeLockAttempt::Unavailable,
        })
    }
}

/// Other handles first, then this one's threads.
struct Guard {
    file: Arc<File>,
    _held: SizeLock,
}

impl Drop for Guard {
    fn drop(&mut self) {
        // Closing the file frees it in any case.
        drop(self.file.unlock());
    }
}

fn untaken(error: std::io::Error) -> TargetError {
    TargetError::from_io("taking the lock of the size", error)
}

//! Random bytes, straight from the operating system each time they are needed.
//!
//! There is no generator in the process on purpose: its state would be copied by `fork` or by a
//! snapshot of a virtual machine, and both copies would then draw the same nonces.

use std::{error, fmt};

/// The operating system gave no random bytes; nothing was sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RandomError(getrandom::Error);

impl fmt::Display for RandomError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the operating system gave no random bytes")
    }
}

impl error::Error for RandomError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        Some(&self.0)
    }
}

/// Fills `out` from the operating system.
pub(crate) fn fill(out: &mut [u8]) -> Result<(), RandomError> {
    getrandom::fill(out).map_err(RandomError)
}

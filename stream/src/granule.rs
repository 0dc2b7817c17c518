//! How much of a file a cache would rather have as a whole.

use std::{error, fmt, num::NonZero};

/// A cache's granule: what it would rather have as a whole than in part, a power of two of plaintext
/// bytes, from 4 KiB to 16 MiB. The first begins where the file does, and the last ends with it.
///
/// ```
/// use sealback_stream::Granule;
///
/// assert_eq!(Granule::new(256 << 10)?.bytes(), 256 << 10);
/// assert!(Granule::new(100_000).is_err());
/// # Ok::<(), sealback_stream::InvalidGranule>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Granule {
    /// The exponent: every open copy may hold one.
    shift: NonZero<u8>,
}

const MIN_BYTES: u64 = 4 << 10;
const MAX_BYTES: u64 = 16 << 20;

impl Granule {
    /// A granule of so many bytes.
    ///
    /// # Errors
    /// [`InvalidGranule`] if it is no power of two, or not from 4 KiB to 16 MiB.
    pub fn new(bytes: u64) -> Result<Granule, InvalidGranule> {
        let invalid = InvalidGranule { bytes };
        if !bytes.is_power_of_two() || !(MIN_BYTES..=MAX_BYTES).contains(&bytes) {
            return Err(invalid);
        }
        let shift = u8::try_from(bytes.trailing_zeros()).ok().and_then(NonZero::new);
        shift.map(|shift| Granule { shift }).ok_or(invalid)
    }

    /// Its size.
    pub fn bytes(self) -> u64 {
        1 << self.shift.get()
    }
}

/// Why a size is no [`Granule`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidGranule {
    bytes: u64,
}

impl InvalidGranule {
    /// What was asked for.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl fmt::Display for InvalidGranule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.bytes;
        write!(f, "a cache's granule is a power of two from 4 KiB to 16 MiB, not {bytes} bytes")
    }
}

impl error::Error for InvalidGranule {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_granule_is_a_power_of_two_within_bounds_and_any_other_size_is_refused_by_name() {
        for shift in 12..=24 {
            assert_eq!(Granule::new(1 << shift).map(Granule::bytes), Ok(1 << shift));
        }
        for bytes in [0, 1, 2048, 4095, 4097, 3 * 4096, (16 << 20) + 1, 32 << 20, u64::MAX] {
            let error = Granule::new(bytes).expect_err("it is none");
            assert_eq!(error.bytes(), bytes);
            let told = "a cache's granule is a power of two from 4 KiB to 16 MiB, not";
            assert_eq!(error.to_string(), format!("{told} {bytes} bytes"));
        }
        assert_eq!(size_of::<Option<Granule>>(), 1);
    }
}

//! What the programs share: sizes as people write them, key files, how much memory a process took, what a
//! writeback tells of itself, and how far ahead the kernel reads.
#![forbid(unsafe_code)]

pub mod key_file;
pub mod read_ahead;
pub mod recorder;

use std::{error, fmt, fs};

/// Reads a size in bytes: a whole number, with or without one of the binary units `B`, `KiB`,
/// `MiB`, `GiB` and `TiB`.
///
/// # Errors
/// [`BadSize`] for anything else, and for what is over 2^64.
///
/// # Examples
/// ```
/// assert_eq!(sealback_examples::parse_size("16KiB"), Ok(16384));
/// assert_eq!(sealback_examples::parse_size("4096"), Ok(4096));
/// assert!(sealback_examples::parse_size("16kb").is_err());
/// ```
pub fn parse_size(text: &str) -> Result<u64, BadSize> {
    let n_digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, unit) = text.split_at(n_digits);
    let shift = match unit {
        "" | "B" => 0,
        _ => UNITS.iter().find(|(name, _)| *name == unit).ok_or(BadSize)?.1,
    };
    let count: u64 = digits.parse().map_err(|_| BadSize)?;
    count.checked_mul(1 << shift).ok_or(BadSize)
}

const UNITS: [(&str, u32); 4] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];

/// A string that is no size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadSize;

impl fmt::Display for BadSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "a size is a whole number of bytes, KiB, MiB, GiB or TiB below 2^64, such as 64MiB",
        )
    }
}

impl error::Error for BadSize {}

/// Prints bytes in the largest unit that leaves a number of at least 1.
#[derive(Clone, Copy, Debug)]
pub struct Size(
    /// Bytes.
    pub u64,
);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = UNITS.iter().find(|(_, shift)| self.0 >> shift > 0);
        let text = match unit {
            None => format!("{} B", self.0),
            Some((name, shift)) if self.0.trailing_zeros() >= *shift => {
                format!("{} {name}", self.0 >> shift)
            }
            Some((name, shift)) => {
                let tenths = (u128::from(self.0) * 10 + (1 << shift >> 1)) >> shift;
                format!("{}.{} {name}", tenths / 10, tenths % 10)
            }
        };
        f.pad(&text)
    }
}

/// The most memory that this process ever had resident, in bytes; `None` where the system does
/// not tell.
pub fn peak_rss_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_whole_numbers_with_binary_units() {
        for (text, bytes) in [
            ("0", 0),
            ("7B", 7),
            ("4096", 4096),
            ("16KiB", 16 << 10),
            ("64MiB", 64 << 20),
            ("1GiB", 1 << 30),
            ("15TiB", 15 << 40),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "KiB", "-1", "+1", "1.5MiB", "1 MiB", "1kb", "1K", "0x10", "99999999TiB"] {
            assert_eq!(parse_size(text), Err(BadSize), "{text}");
        }
    }

    #[test]
    fn sizes_are_printed_in_a_fitting_unit() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1 << 10, "1 KiB"),
            (1536, "1.5 KiB"),
            (393_216, "384 KiB"),
            (269_000_000, "256.5 MiB"),
            (u64::MAX, "16777216.0 TiB"),
        ] {
            assert_eq!(Size(bytes).to_string(), text);
        }
        assert_eq!(format!("{:>8}", Size(5)), "     5 B");
    }

    #[test]
    fn a_process_has_had_memory() {
        assert!(peak_rss_bytes().is_none_or(|bytes| bytes > 4096));
    }
}

//! Small readings of byte strings that several files share: fields, zeros, hex digits.

use std::fmt::{self, Write};

/// The `N` bytes of a field that begins at `at`; panics if they do not lie within `bytes`.
pub(crate) fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("a slice of N bytes is an array of N bytes")
}

/// The little-endian u64 that begins at `at`.
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(field(bytes, at))
}

/// The little-endian u32 that begins at `at`.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(field(bytes, at))
}

/// The little-endian u16 that begins at `at`.
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(field(bytes, at))
}

/// Index of the first byte that is not zero.
pub(crate) fn first_nonzero(bytes: &[u8]) -> Option<usize> {
    bytes.iter().position(|&byte| byte != 0)
}

/// Writes `bytes` as lower-case hex digits.
pub(crate) fn write_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    let digit = |half: u8| char::from(b"0123456789abcdef"[usize::from(half)]);
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .try_for_each(|half| f.write_char(digit(half)))
}

/// Reads `2 * out.len()` hex digits of either case; gives back the place of the first other byte.
pub(crate) fn read_hex(digits: &[u8], out: &mut [u8]) -> Result<(), usize> {
    debug_assert_eq!(digits.len(), 2 * out.len());
    for (index, (pair, byte)) in digits.chunks_exact(2).zip(out).enumerate() {
        let high = hex_digit(pair[0]).ok_or(2 * index)?;
        let low = hex_digit(pair[1]).ok_or(2 * index + 1)?;
        *byte = high << 4 | low;
    }
    Ok(())
}

fn hex_digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// The bytes that a string of hex digits names; for tests.
#[cfg(test)]
pub(crate) fn unhex(digits: &str) -> Vec<u8> {
    let mut out = vec![0; digits.len() / 2];
    read_hex(digits.as_bytes(), &mut out).unwrap();
    out
}

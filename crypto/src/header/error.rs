//! Why a header is refused: one variant per decision, each naming the field.

use std::{error, fmt};

use crate::geometry::HEADER_BYTES;
use crate::key::FileId;
use crate::random::RandomError;

/// Why a header was refused, or a commit not made. Offsets are bytes from the file's start.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HeaderError {
    /// It is authentic, but of another file than was expected.
    AnotherFile {
        /// What the caller remembers.
        expected: FileId,
        /// What the header says.
        found: FileId,
    },
    /// The file key is wrapped under another root key, or key_id was altered.
    AnotherKey,
    /// block_shift is not within 12 to 20.
    BadBlockShift(u8),
    /// hole_from and hole_to are no range of blocks.
    BadHoles {
        /// hole_from.
        start: u64,
        /// hole_to.
        end: u64,
    },
    /// A commit would lower the number of cuts.
    CutsWentBack {
        /// What the header says.
        found: u64,
        /// What the commit said.
        wanted: u64,
    },
    /// It has the least known generation, but is another commit: two histories.
    Forked {
        /// That generation.
        generation: u64,
    },
    /// There is no generation after this one.
    GenerationsSpent,
    /// It does not begin with the magic: no sealed file.
    NotSealed,
    /// No slot's MAC holds.
    NoValidSlot,
    /// A byte that must be zero is not.
    PaddingAltered {
        /// Where.
        offset: usize,
    },
    /// The two copies of the prologue differ.
    PrologueAltered {
        /// First difference, in bytes from each copy's start.
        at: usize,
    },
    /// It is older than the least known generation.
    PutBack {
        /// The header's generation.
        found: u64,
        /// What the caller remembers.
        least: u64,
    },
    /// The operating system gave no random bytes.
    Random(RandomError),
    /// The size is over [`crate::MAX_FILE_BYTES`].
    SizeTooLarge(u64),
    /// A slot is zeros although the other one's generation is over 1.
    SlotErased {
        /// Where the slot of zeros begins.
        offset: usize,
    },
    /// A valid slot stands where its generation does not belong.
    SlotParity {
        /// Where the slot begins.
        offset: usize,
        /// Its generation.
        generation: u64,
    },
    /// Two valid slots' generations do not differ by 1.
    SlotsApart {
        /// Generation of the even slot.
        even: u64,
        /// Generation of the odd slot.
        odd: u64,
    },
    /// Fewer bytes than a header has.
    TooShort {
        /// How many there were.
        len_bytes: usize,
    },
    /// One slot is valid, the other neither valid nor zeros. Read again; then, only after a crash,
    /// [`crate::OpenOptions::recover_torn`].
    TornOrAltered {
        /// Where the bad slot begins.
        offset: usize,
    },
    /// A cipher suite that is not known here.
    UnknownCipher(u16),
    /// Flags that are not known here.
    UnknownFlags(u64),
    /// An authentic slot has something where format 1 has zeros.
    UnknownSlotField {
        /// Where.
        offset: usize,
    },
    /// A format version that is not known here.
    UnknownVersion(u16),
    /// The caller's root key should unwrap the file key, but the wrap was altered.
    WrapAltered,
}

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("header: ")?;
        match self {
            HeaderError::AnotherFile { expected, found } => {
                write!(f, "another file: file id {found}, expected {expected}")
            }
            HeaderError::AnotherKey => f.write_str("key_id is of another root key"),
            HeaderError::BadBlockShift(shift) => {
                write!(f, "block_shift {shift} is not within 12 to 20")
            }
            HeaderError::BadHoles { start, end } => {
                write!(f, "hole_from {start} and hole_to {end} are no range of blocks")
            }
            HeaderError::CutsWentBack { found, wanted } => {
                write!(f, "cuts would go back from {found} to {wanted}")
            }
            HeaderError::Forked { generation } => {
                write!(f, "forked: generation {generation} is not the one that was seen before")
            }
            HeaderError::GenerationsSpent => f.write_str("no generation is left"),
            HeaderError::NotSealed => f.write_str("magic is not SEALBACK: no sealed file"),
            HeaderError::NoValidSlot => f.write_str("no slot is valid (offsets 512 and 4608)"),
            HeaderError::PaddingAltered { offset } => {
                write!(f, "padding altered: byte {offset} is not zero")
            }
            HeaderError::PrologueAltered { at } => {
                write!(f, "prologue altered: bytes {at} and {} differ", at + HEADER_BYTES / 2)
            }
            HeaderError::PutBack { found, least } => {
                write!(f, "put back: generation {found}, but {least} was seen before")
            }
            HeaderError::Random(_) => f.write_str("no nonce could be drawn for the wrap"),
            HeaderError::SizeTooLarge(size) => write!(f, "size {size} is over 2^60 bytes"),
            HeaderError::SlotErased { offset } => {
                write!(f, "the slot at {offset} is zeros beside a later generation than 1")
            }
            HeaderError::SlotParity { offset, generation } => {
                write!(f, "generation {generation} does not belong into the slot at {offset}")
            }
            HeaderError::SlotsApart { even, odd } => {
                write!(f, "generations {even} and {odd} of the slots do not differ by 1")
            }
            HeaderError::TooShort { len_bytes } => {
                write!(f, "cut short: {len_bytes} of {HEADER_BYTES} bytes")
            }
            HeaderError::TornOrAltered { offset } => {
                write!(f, "torn or altered: the slot at {offset} is not valid")
            }
            HeaderError::UnknownCipher(cipher) => write!(f, "cipher suite {cipher} is unknown"),
            HeaderError::UnknownFlags(flags) => write!(f, "flags {flags:#x} are unknown"),
            HeaderError::UnknownSlotField { offset } => {
                write!(f, "unknown field: byte {offset} of a slot is not zero")
            }
            HeaderError::UnknownVersion(version) => {
                write!(f, "format version {version} is unknown")
            }
            HeaderError::WrapAltered => {
                f.write_str("wrapped file key altered: nonce, ciphertext or tag")
            }
        }
    }
}

impl error::Error for HeaderError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            HeaderError::Random(error) => Some(error),
            _ => None,
        }
    }
}

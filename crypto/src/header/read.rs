//! Reading a header: what is looked at in which order, and which slot counts.
//!
//! First the prologue and all padding; then both slots' MACs; then what the slot that counts says,
//! and only there; last what the caller remembers of the file. Something unknown refuses the file
//! by name and is never a reason to use the other slot, or a server could choose.

use std::cmp::Ordering;
use std::ops::Range;

use super::prologue::{self, PROLOGUE_BYTES, Prologue};
use super::slot::{self, SLOT_BYTES, SLOT_OFFSETS, Slot, Wrap};
use super::{FileKeys, Header, HeaderError};
use crate::bytes;
use crate::cipher::Engine;
use crate::derive::{self, Secret};
use crate::geometry::HEADER_BYTES;
use crate::key::{FileId, RootKey};

/// How a header is to be opened, and what the caller remembers of the file.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// Seals and opens the file's blocks.
    pub engine: Engine,
    /// The file that this must be; without it a server can exchange files under their names.
    pub expected_file_id: Option<FileId>,
    /// The newest generation that the caller knows of, with its slot's MAC; without it a server
    /// can put back a header or a whole file.
    pub least: Option<(u64, [u8; 32])>,
    /// Opens by the older slot when the newer is torn. Only where a crash can tear a write, only
    /// after reading again, and never for an object store.
    pub recover_torn: bool,
}

impl Default for OpenOptions {
    /// The fastest engine; nothing is remembered, nothing recovered.
    fn default() -> OpenOptions {
        OpenOptions {
            engine: Engine::fastest(),
            expected_file_id: None,
            least: None,
            recover_torn: false,
        }
    }
}

/// What of the header is neither prologue nor slot, and zero.
const PADDING: [Range<usize>; 4] = [
    64..SLOT_OFFSETS[0],
    SLOT_OFFSETS[0] + SLOT_BYTES..prologue::OFFSETS[1],
    prologue::OFFSETS[1] + PROLOGUE_BYTES..SLOT_OFFSETS[1],
    SLOT_OFFSETS[1] + SLOT_BYTES..HEADER_BYTES,
];

/// [`Header::open`].
pub(super) fn read(
    bytes: &[u8],
    root: &RootKey,
    options: &OpenOptions,
) -> Result<Header, HeaderError> {
    let (prologue, slots) = read_layout(bytes)?;
    let file_key = unwrap_any(&slots, root, &prologue)?;
    let keys = FileKeys::new(file_key, &prologue, options.engine);
    let header = read_slots(prologue, slots, keys, options.recover_torn)?;
    if header.key_id() != derive::key_id(root, &header.file_id()) {
        return Err(HeaderError::AnotherKey);
    }
    check_remembered(&header, options.expected_file_id, options.least)?;
    Ok(header)
}

/// [`Header::reopen`].
pub(super) fn reread(known: &Header, bytes: &[u8]) -> Result<Header, HeaderError> {
    let (prologue, slots) = read_layout(bytes)?;
    let expected = known.file_id();
    if prologue.file_id() != expected {
        return Err(HeaderError::AnotherFile { expected, found: prologue.file_id() });
    }
    if prologue.as_bytes() != known.prologue.as_bytes() {
        // The keys are bound to the prologue: under another one no slot can be valid.
        return Err(HeaderError::NoValidSlot);
    }
    let header = read_slots(prologue, slots, known.keys.clone(), false)?;
    check_remembered(&header, None, Some((known.generation(), known.mac())))?;
    Ok(header)
}

type Slots = [Box<[u8; SLOT_BYTES]>; 2];

/// The prologue, checked with all padding, and the two slots as they are.
fn read_layout(bytes: &[u8]) -> Result<(Prologue, Slots), HeaderError> {
    let len_bytes = bytes.len();
    let bytes = bytes.first_chunk::<HEADER_BYTES>().ok_or(HeaderError::TooShort { len_bytes })?;
    let prologue = read_prologue(bytes)?;
    Ok((prologue, SLOT_OFFSETS.map(|offset| Box::new(bytes::field(bytes, offset)))))
}

/// The header that the slot that counts makes.
fn read_slots(
    prologue: Prologue,
    slots: Slots,
    keys: FileKeys,
    recover_torn: bool,
) -> Result<Header, HeaderError> {
    let states = [0, 1].map(|index| SlotState::of(&slots[index], &keys, &prologue));
    let index = choose(states, recover_torn)?;
    let current = Slot::parse(&slots[index], prologue.geometry())?;
    Ok(Header { prologue, keys, current, slots })
}

fn read_prologue(bytes: &[u8; HEADER_BYTES]) -> Result<Prologue, HeaderError> {
    let [first, second] = prologue::OFFSETS.map(|at| bytes::field::<PROLOGUE_BYTES>(bytes, at));
    let prologue = Prologue::parse(first)?;
    if let Some(at) = (0..PROLOGUE_BYTES).find(|&at| first[at] != second[at]) {
        return Err(HeaderError::PrologueAltered { at });
    }
    for padding in PADDING {
        if let Some(at) = bytes::first_nonzero(&bytes[padding.clone()]) {
            let offset = padding.start + at;
            return Err(HeaderError::PaddingAltered { offset });
        }
    }
    Ok(prologue)
}

/// The file key, from whichever slot the root key unwraps: all slots wrap the same one.
fn unwrap_any(slots: &Slots, root: &RootKey, prologue: &Prologue) -> Result<Secret, HeaderError> {
    let key_id = derive::key_id(root, &prologue.file_id());
    let mut error = HeaderError::NoValidSlot;
    for slot in slots {
        if bytes::first_nonzero(&slot[..]).is_none() {
            continue;
        }
        let wrap = Wrap::of_slot(slot);
        if wrap.key_id() != key_id {
            if error == HeaderError::NoValidSlot {
                error = HeaderError::AnotherKey;
            }
            continue;
        }
        if let Some(file_key) = wrap.unwrap_key(root, prologue) {
            return Ok(file_key);
        }
        // The caller's key it is, by its name, so the wrap itself was changed.
        error = HeaderError::WrapAltered;
    }
    Err(error)
}

/// What a slot is by its MAC alone.
#[derive(Clone, Copy)]
enum SlotState {
    Valid { generation: u64 },
    Zeros,
    TornOrAltered,
}

impl SlotState {
    fn of(slot: &[u8; SLOT_BYTES], keys: &FileKeys, prologue: &Prologue) -> SlotState {
        if bytes::first_nonzero(slot).is_none() {
            SlotState::Zeros
        } else if slot::mac_holds(slot, &keys.header_key, prologue) {
            let generation = bytes::u64_at(slot, 0);
            SlotState::Valid { generation }
        } else {
            SlotState::TornOrAltered
        }
    }
}

/// Which slot counts: 0 for the even one, 1 for the odd one.
fn choose(states: [SlotState; 2], recover_torn: bool) -> Result<usize, HeaderError> {
    for (index, state) in states.into_iter().enumerate() {
        if let SlotState::Valid { generation } = state
            && (generation == 0 || generation % 2 != index as u64)
        {
            let offset = SLOT_OFFSETS[index];
            return Err(HeaderError::SlotParity { offset, generation });
        }
    }
    match states {
        [SlotState::Valid { generation: even }, SlotState::Valid { generation: odd }] => {
            if even.abs_diff(odd) != 1 {
                return Err(HeaderError::SlotsApart { even, odd });
            }
            Ok(usize::from(odd > even))
        }
        [SlotState::Valid { generation }, other] => alone((0, generation), other, recover_torn),
        [other, SlotState::Valid { generation }] => alone((1, generation), other, recover_torn),
        [
            SlotState::Zeros | SlotState::TornOrAltered,
            SlotState::Zeros | SlotState::TornOrAltered,
        ] => Err(HeaderError::NoValidSlot),
    }
}

/// Whether the one valid slot may count beside `other`.
fn alone(
    (index, generation): (usize, u64),
    other: SlotState,
    recover_torn: bool,
) -> Result<usize, HeaderError> {
    let offset = SLOT_OFFSETS[1 - index];
    match other {
        SlotState::Zeros if generation != 1 => Err(HeaderError::SlotErased { offset }),
        SlotState::TornOrAltered if !recover_torn => Err(HeaderError::TornOrAltered { offset }),
        SlotState::Zeros | SlotState::TornOrAltered | SlotState::Valid { .. } => Ok(index),
    }
}

/// What only the caller can know: that this is the file, and not an older state of it.
fn check_remembered(
    header: &Header,
    expected_file_id: Option<FileId>,
    least: Option<(u64, [u8; 32])>,
) -> Result<(), HeaderError> {
    let found = header.file_id();
    if let Some(expected) = expected_file_id
        && expected != found
    {
        return Err(HeaderError::AnotherFile { expected, found });
    }
    let Some((least, mac)) = least else {
        return Ok(());
    };
    let found = header.generation();
    match found.cmp(&least) {
        Ordering::Less => Err(HeaderError::PutBack { found, least }),
        Ordering::Equal if header.mac() != mac => Err(HeaderError::Forked { generation: found }),
        Ordering::Equal | Ordering::Greater => Ok(()),
    }
}

//! Headers that are refused.

use sealback_crypto::{FileId, HeaderError};

use super::{Case, changed, sound};
use crate::forge::{Forge, HEADER, OTHER, PROLOGUES, SLOTS, Slot, field};

pub(super) fn cases() -> Vec<Case> {
    [
        no_sealed_files(),
        prologues(),
        padding(),
        keys(),
        wraps(),
        macs(),
        generations(),
        values(),
        remembered(),
    ]
    .concat()
}

/// Generations 1 and 2 of a file without blocks.
fn sample() -> Vec<u8> {
    with_slots(&[Slot::new(1, 0), Slot::new(2, 0)])
}

fn with_slots(slots: &[Slot]) -> Vec<u8> {
    Forge::new().header(slots)
}

/// The sample with some bits of one byte changed.
fn flipped(at: usize) -> Vec<u8> {
    flipped_all(&[at])
}

fn flipped_all(bytes: &[usize]) -> Vec<u8> {
    changed(sample(), |stored| bytes.iter().for_each(|&at| stored[at] ^= 0x21))
}

fn no_sealed_files() -> Vec<Case> {
    let sentence = b"No sealed file begins like this one. ";
    let too_short = |len_bytes| HeaderError::TooShort { len_bytes };
    vec![
        Case::refused("empty", "a file of no bytes", vec![], too_short(0)),
        Case::refused("text", "a short text", sentence.to_vec(), too_short(sentence.len())),
        Case::refused(
            "long-text",
            "a text that is longer than a header",
            sentence.iter().copied().cycle().take(HEADER + 100).collect(),
            HeaderError::NotSealed,
        ),
        Case::refused(
            "cut-in-header",
            "the file ends within the header",
            sample()[..5000].to_vec(),
            too_short(5000),
        ),
    ]
}

fn prologues() -> Vec<Case> {
    let with_byte = |at, byte| {
        let forge = Forge::new().with_prologue_byte(at, byte);
        forge.header(&[Slot::new(1, 0), Slot::new(2, 0)])
    };
    let altered = |at| HeaderError::PrologueAltered { at };
    vec![
        Case::refused(
            "magic",
            "another magic; all MACs hold",
            with_byte(0, b's'),
            HeaderError::NotSealed,
        ),
        Case::refused(
            "version",
            "format version 2; all MACs hold",
            with_byte(8, 2),
            HeaderError::UnknownVersion(2),
        ),
        Case::refused(
            "suite",
            "cipher suite 2; all MACs hold",
            with_byte(10, 2),
            HeaderError::UnknownCipher(2),
        ),
        Case::refused(
            "block-shift",
            "block_shift 11; all MACs hold",
            with_byte(12, 11),
            HeaderError::BadBlockShift(11),
        ),
        Case::refused("prologue-first", "a byte of the first prologue", flipped(20), altered(20)),
        Case::refused(
            "prologue-second",
            "a byte of the second prologue",
            flipped(PROLOGUES[1] + 48),
            altered(48),
        ),
        Case::refused(
            "prologue-file-id",
            "a byte of the file id, in both prologues: key_id no longer fits",
            flipped_all(&[20, PROLOGUES[1] + 20]),
            HeaderError::AnotherKey,
        ),
        Case::refused(
            "prologue-block-shift",
            "block_shift 12 made 13 in both prologues: the wrap is bound to them",
            changed(sample(), |stored| PROLOGUES.iter().for_each(|at| stored[at + 12] = 13)),
            HeaderError::WrapAltered,
        ),
        Case::refused(
            "prologue-chunk-blocks",
            "chunk_blocks, in both prologues: the wrap is bound to them",
            flipped_all(&[48, PROLOGUES[1] + 48]),
            HeaderError::WrapAltered,
        ),
    ]
}

fn padding() -> Vec<Case> {
    let within = Forge::new().with_prologue_byte(15, 1);
    let within = within.header(&[Slot::new(1, 0), Slot::new(2, 0)]);
    let altered = |offset| HeaderError::PaddingAltered { offset };
    vec![
        Case::refused(
            "padding-in-prologue",
            "byte 15 of the prologue is not zero; all MACs hold",
            within,
            altered(15),
        ),
        Case::refused(
            "padding-between",
            "the byte before the second prologue is not zero",
            flipped(4095),
            altered(4095),
        ),
        Case::refused(
            "padding-at-end",
            "the header's last byte is not zero",
            flipped(HEADER - 1),
            altered(HEADER - 1),
        ),
    ]
}

fn keys() -> Vec<Case> {
    let anew = with_slots(&[Slot { root: OTHER, ..Slot::new(1, 0) }, Slot::new(2, 0)]);
    let another = |name, done, stored| Case::refused(name, done, stored, HeaderError::AnotherKey);
    let with_other = |case| Case { key: OTHER, ..case };
    vec![
        with_other(another("another-key", "nothing, but opened with another root key", sample())),
        with_other(another(
            "another-key-since-wrapped-anew",
            "nothing, but opened with the root key of before the file key was wrapped anew",
            anew,
        )),
        another(
            "key-id-in-both",
            "a byte of key_id in both slots",
            flipped_all(&SLOTS.map(|at| at + 24)),
        ),
    ]
}

fn wraps() -> Vec<Case> {
    let in_both = |name, done, at| {
        let stored = flipped_all(&SLOTS.map(|slot| slot + at));
        Case::refused(name, done, stored, HeaderError::WrapAltered)
    };
    vec![
        in_both("wrap-key", "a byte of the wrapped file key, in both slots", 95),
        in_both("wrap-tag", "a byte of the wrap's tag, in both slots", 111),
        Case::refused(
            "wrap-in-one",
            "a byte of the wrapped file key, in the newer slot: its MAC fails",
            flipped(SLOTS[0] + 64),
            HeaderError::TornOrAltered { offset: SLOTS[0] },
        ),
    ]
}

fn macs() -> Vec<Case> {
    let torn = |slot: usize| HeaderError::TornOrAltered { offset: SLOTS[slot] };
    let half = changed(sample(), |stored| {
        let newer = with_slots(&[Slot::new(3, 0)]);
        stored[SLOTS[1]..][..256].copy_from_slice(&newer[SLOTS[1]..][..256]);
    });
    vec![
        Case::refused(
            "mac-of-newer",
            "a byte of the newer slot's MAC",
            flipped(SLOTS[0] + 480),
            torn(0),
        ),
        Case::refused(
            "mac-of-older",
            "a byte of the older slot's MAC",
            flipped(SLOTS[1] + 511),
            torn(1),
        ),
        Case::refused(
            "mac-of-both",
            "a byte of each slot's MAC",
            flipped_all(&SLOTS.map(|at| at + 490)),
            HeaderError::NoValidSlot,
        ),
        Case::refused("size", "a byte of the newer slot's size", flipped(SLOTS[0] + 8), torn(0)),
        Case::refused("slot-torn", "the next slot was written by half", half, torn(1)),
        Case::refused(
            "slots-of-zeros",
            "both slots are zeros",
            with_slots(&[]),
            HeaderError::NoValidSlot,
        ),
    ]
}

fn generations() -> Vec<Case> {
    let parity =
        |place: usize, generation| HeaderError::SlotParity { offset: SLOTS[place], generation };
    let at = |place, generation| Slot { place, ..Slot::new(generation, 0) };
    vec![
        Case::refused(
            "parity",
            "the even slot says generation 3; its MAC holds",
            with_slots(&[at(0, 3), at(1, 1)]),
            parity(0, 3),
        ),
        Case::refused(
            "generation-0",
            "the even slot says generation 0; its MAC holds",
            with_slots(&[at(0, 0), at(1, 1)]),
            parity(0, 0),
        ),
        Case::refused(
            "generations-apart",
            "one of the slots was put back: generations 2 and 5",
            with_slots(&[at(0, 2), at(1, 5)]),
            HeaderError::SlotsApart { even: 2, odd: 5 },
        ),
        Case::refused(
            "slot-erased",
            "the older slot is zeros beside generation 2",
            with_slots(&[at(0, 2)]),
            HeaderError::SlotErased { offset: SLOTS[1] },
        ),
    ]
}

/// An authentic slot that says what format 1 does not know.
fn values() -> Vec<Case> {
    let says = |name, done, slot, error| {
        Case::refused(name, done, with_slots(&[Slot::new(1, 0), slot]), error)
    };
    let size = (1 << 60) + 1;
    let holes = |name, done, start, end| {
        let slot = Slot { holes: (start, end), ..Slot::new(2, 0) };
        says(name, done, slot, HeaderError::BadHoles { start, end })
    };
    let unknown_byte = |name, done, at| {
        let slot = Slot { unknown_byte: Some(at), ..Slot::new(2, 0) };
        says(name, done, slot, HeaderError::UnknownSlotField { offset: SLOTS[0] + at })
    };
    vec![
        says(
            "flag",
            "flag bit 2 in the slot that counts; its MAC holds",
            Slot { flags: 4, ..Slot::new(2, 0) },
            HeaderError::UnknownFlags(4),
        ),
        unknown_byte("slot-byte", "byte 136 of the slot that counts; its MAC holds", 136),
        says(
            "size-too-large",
            "size 2^60 + 1; the MAC holds",
            Slot::new(2, size),
            HeaderError::SizeTooLarge(size as u64),
        ),
        holes("holes-inverted", "hole_from 5, hole_to 3; the MAC holds", 5, 3),
        holes("holes-beyond", "hole_to over 2^60 / B; the MAC holds", 0, (1 << 48) + 1),
    ]
}

/// Files that are sound, but not what the caller remembers.
fn remembered() -> Vec<Case> {
    let stored = sound(100);
    let mac = field(&stored, SLOTS[0] + 480);
    let another = Forge::another();
    let (expected, found) =
        (FileId::from_bytes(another.file_id()), FileId::from_bytes(Forge::new().file_id()));
    let exchanged = Case::refused(
        "file-exchanged",
        "another file of the same root key stands under the name",
        stored.clone(),
        HeaderError::AnotherFile { expected, found },
    );
    let put_back = Case::refused(
        "put-back",
        "an older header than the caller has seen, or an older file",
        stored.clone(),
        HeaderError::PutBack { found: 2, least: 3 },
    );
    let forked = Case::refused(
        "forked",
        "another commit than the one the caller has seen of this generation",
        stored,
        HeaderError::Forked { generation: 2 },
    );
    let other_mac = field(&sample(), SLOTS[0] + 480);
    assert_ne!(mac, other_mac);
    vec![
        Case { expected_file_id: Some(another.file_id()), ..exchanged },
        Case { least: Some((3, mac)), ..put_back },
        Case { least: Some((2, other_mac)), ..forked },
    ]
}

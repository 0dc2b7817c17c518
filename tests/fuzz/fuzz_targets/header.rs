//! Headers: arbitrary bytes, and built ones with arbitrary values under MACs that hold, then
//! edited. Never a panic; what opens is what the format allows, unaltered, and can be committed on.
#![no_main]

#[path = "../../../crypto/tests/damaged/forge.rs"]
#[expect(dead_code, reason = "blocks are another target's")]
mod forge;

use arbitrary::Arbitrary;
use forge::{Forge, HEADER, OTHER, ROOT, SLOTS};
use libfuzzer_sys::fuzz_target;
use sealback_crypto::{
    Engine, FileId, Header, HeaderChange, HeaderCommit, MAX_FILE_BYTES, OpenOptions, RootKey,
};

#[derive(Arbitrary, Debug)]
enum Input {
    Bytes(Vec<u8>),
    Built(Box<Built>),
}

#[derive(Arbitrary, Debug)]
struct Built {
    even: Option<Slot>,
    odd: Option<Slot>,
    edits: Vec<(u16, u8)>,
    ask: Ask,
    change: Change,
}

#[derive(Arbitrary, Debug)]
struct Slot {
    generation: Number,
    size: Number,
    flags: Number,
    cuts: Number,
    holes: Option<(Number, Number)>,
    other_root: bool,
    unknown_byte: Option<u16>,
}

/// What the caller asks for.
#[derive(Arbitrary, Debug)]
struct Ask {
    right_file_id: Option<bool>,
    least: Option<(Number, bool)>,
    recover_torn: bool,
}

#[derive(Arbitrary, Debug)]
struct Change {
    size: Number,
    holes: (Number, Number),
    cuts: Number,
    cut_pending: bool,
}

/// Small, near a power of two, or any.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Number {
    Any(u64),
    Near(u8, i8),
    Small(u8),
}

impl Number {
    fn value(self) -> u64 {
        match self {
            Number::Any(number) => number,
            Number::Near(shift, off) => (1_u64 << (shift % 64)).wrapping_add_signed(off.into()),
            Number::Small(number) => number.into(),
        }
    }
}

impl Slot {
    fn forged(&self, place: usize) -> forge::Slot {
        forge::Slot {
            generation: self.generation.value(),
            size: self.size.value(),
            flags: self.flags.value(),
            cuts: self.cuts.value(),
            holes: self.holes.map_or((0, 0), |(from, to)| (from.value(), to.value())),
            root: if self.other_root { OTHER } else { ROOT },
            place,
            unknown_byte: self.unknown_byte.map(|at| 136 + usize::from(at) % 344),
        }
    }
}

fuzz_target!(|input: Input| {
    match input {
        // Nobody guesses a MAC.
        Input::Bytes(bytes) => assert!(open(&bytes, &OpenOptions::default()).is_none()),
        Input::Built(built) => check(&built),
    }
});

fn open(bytes: &[u8], options: &OpenOptions) -> Option<Header> {
    let options = OpenOptions { engine: Engine::AesGcm, ..options.clone() };
    Header::open(bytes, &RootKey::from_bytes(&ROOT), &options).ok()
}

fn check(built: &Built) {
    let slots = [(0, &built.even), (1, &built.odd)];
    let slots: Vec<_> =
        slots.into_iter().filter_map(|(place, slot)| Some(slot.as_ref()?.forged(place))).collect();
    let sound = Forge::new().header(&slots);
    let counting = counting(&slots);
    let header = open(&sound, &OpenOptions::default());
    assert_eq!(header.is_some(), counting.is_some(), "{built:?}");
    if let (Some(header), Some(slot)) = (&header, counting) {
        compare(header, slot, &sound);
        commit(header, &built.change, sound.clone());
        remember(header, &built.ask, &sound);
    }

    let mut edited = sound.clone();
    for (at, bits) in &built.edits {
        edited[usize::from(*at) % HEADER] ^= bits;
    }
    if edited == sound {
        return;
    }
    assert!(open(&edited, &OpenOptions::default()).is_none(), "an edit was not noticed");
    if let Some(header) = header {
        assert!(header.reopen(&edited).is_err(), "an edit was not noticed");
    }
    let options = OpenOptions { recover_torn: true, ..OpenOptions::default() };
    if let Some(recovered) = open(&edited, &options) {
        // The torn slot is written anew first; then nothing needs to be recovered.
        commit(&recovered, &built.change, edited);
    }
}

/// The slot that counts, if the format allows what they say; their MACs all hold.
fn counting(slots: &[forge::Slot]) -> Option<&forge::Slot> {
    let placed =
        |slot: &forge::Slot| slot.generation > 0 && slot.generation % 2 == slot.place as u64;
    if !slots.iter().all(placed) {
        return None;
    }
    let slot = match slots {
        [one] if one.generation == 1 => one,
        [even, odd] if even.generation.abs_diff(odd.generation) == 1 => {
            if even.generation > odd.generation { even } else { odd }
        }
        _ => return None,
    };
    let known = slot.root == ROOT && slot.flags & !2 == 0 && slot.unknown_byte.is_none();
    (known && slot.size <= MAX_FILE_BYTES && holes_allowed(slot.holes)).then_some(slot)
}

fn holes_allowed((from, to): (u64, u64)) -> bool {
    (from, to) == (0, 0) || (from < to && to <= MAX_FILE_BYTES >> 12)
}

fn compare(header: &Header, slot: &forge::Slot, bytes: &[u8]) {
    assert_eq!(header.to_bytes()[..], *bytes);
    assert_eq!(header.generation(), slot.generation);
    assert_eq!(header.size(), slot.size);
    assert_eq!(header.cuts(), slot.cuts);
    assert_eq!(header.holes(), slot.holes.0..slot.holes.1);
    assert_eq!(header.cut_pending(), slot.flags == 2);
    let view = header.view();
    let seal_gen = view.seal_gen().map(u64::from);
    assert_eq!(
        seal_gen,
        Some(slot.generation.saturating_add(1)).filter(|seal_gen| *seal_gen < 1 << 32)
    );
    assert!(header.geometry().stored_bytes(view.size) >= HEADER as u64 + view.size);
    assert_eq!(header.reopen(bytes).unwrap().mac(), header.mac());
}

/// Commits on `header`, which was read from `bytes`, and reads the outcome.
fn commit(header: &Header, change: &Change, mut bytes: Vec<u8>) {
    let holes = (change.holes.0.value(), change.holes.1.value());
    let change = HeaderChange {
        size: change.size.value(),
        holes: holes.0..holes.1,
        cuts: change.cuts.value(),
        cut_pending: change.cut_pending,
    };
    let allowed = change.size <= MAX_FILE_BYTES
        && (holes.0 == holes.1 || holes_allowed(holes))
        && change.cuts >= header.cuts()
        && header.generation() < u64::MAX;
    let commit = header.commit(&change);
    assert_eq!(commit.is_ok(), allowed, "{change:?}");
    let Ok(HeaderCommit { header: next, write }) = commit else { return };
    let (mac_at, at) = (write.expect.mac_offset as usize, write.offset as usize);
    assert_eq!(bytes[..64], write.expect.prologue);
    assert_eq!(bytes[mac_at..mac_at + 32], write.expect.mac);
    let before = bytes.clone();
    bytes[at..at + 512].copy_from_slice(&write.bytes[..]);
    let read = header.reopen(&bytes).unwrap();
    assert_eq!(read.generation(), header.generation() + 1);
    assert_eq!((read.mac(), read.size(), read.cuts()), (next.mac(), change.size, change.cuts));
    assert_eq!(read.cut_pending(), change.cut_pending);
    assert!(read.holes() == change.holes || (read.holes() == (0..0) && change.holes.is_empty()));
    assert!(open(&bytes, &OpenOptions::default()).is_some());
    assert!(next.reopen(&before).is_err(), "the header before was put back");
}

fn remember(header: &Header, ask: &Ask, bytes: &[u8]) {
    let file_id = ask.right_file_id.map(|right| match right {
        true => header.file_id(),
        false => FileId::from_bytes(Forge::another().file_id()),
    });
    let least = ask.least.map(|(generation, right)| {
        let mac = if right { header.mac() } else { [0; 32] };
        (generation.value(), mac)
    });
    let options = OpenOptions {
        expected_file_id: file_id,
        least,
        recover_torn: ask.recover_torn,
        ..OpenOptions::default()
    };
    let known = least.is_none_or(|(generation, mac)| {
        generation < header.generation()
            || (generation == header.generation() && mac == header.mac())
    });
    let expected = ask.right_file_id != Some(false) && known;
    assert_eq!(open(bytes, &options).is_some(), expected);
    assert!(SLOTS.contains(&(header.mac_offset() as usize - 480)));
}

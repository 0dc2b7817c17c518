//! Blocks: sealed ones, edited in any way, opened under any view. Never a panic; each verdict is
//! the one of the specification's table, judged here anew; damage leaves zeros.
#![no_main]

#[path = "../../../crypto/tests/damaged/forge.rs"]
#[expect(dead_code, reason = "headers are another target's")]
mod forge;

use std::sync::OnceLock;

use arbitrary::Arbitrary;
use forge::{B, Forge, PREFIX, ROOT, STRIDE, Slot, text};
use libfuzzer_sys::fuzz_target;
use sealback_crypto::{
    Buffer, ContentKey, DamageKind, Engine, FileView, Header, OpenOptions, RootKey, Stored, Verdict,
};

#[derive(Arbitrary, Debug)]
struct Input {
    chunk_blocks: u8,
    other_engine: bool,
    first_block: u8,
    /// Bytes of plaintext that are sealed, and where they are cut into slices.
    sealed: u16,
    slices: Vec<u16>,
    seal_gen: u32,
    edits: Vec<Edit>,
    /// Bytes that are wanted, and bytes of the file behind them.
    wanted: u16,
    behind: u32,
    generation: u64,
    holes: (u8, u8),
}

#[derive(Arbitrary, Debug)]
enum Edit {
    Append(Vec<u8>),
    Copy { from: u8, to: u8 },
    Cut(u16),
    Exchange { a: u8, b: u8 },
    Len { block: u8, len: u32 },
    Put { at: u16, bytes: Vec<u8> },
    Xor { at: u16, bits: u8 },
    Zero { at: u16, len: u16 },
}

/// At most as many blocks as this are sealed or wanted.
const MAX_BLOCKS: usize = 4;
const MAX_CHUNK_BLOCKS: usize = 3;

fn key(chunk_blocks: usize) -> &'static ContentKey {
    static KEYS: OnceLock<Vec<ContentKey>> = OnceLock::new();
    let keys = KEYS.get_or_init(|| {
        let open = |chunk_blocks| {
            let forge = Forge::new().with_prologue_byte(48, chunk_blocks as u8);
            let bytes = forge.header(&[Slot::new(1, 0)]);
            let root = RootKey::from_bytes(&ROOT);
            let header = Header::open(&bytes, &root, &OpenOptions::default()).unwrap();
            header.content_key().clone()
        };
        (0..=MAX_CHUNK_BLOCKS).map(open).collect()
    });
    &keys[chunk_blocks]
}

fuzz_target!(|input: Input| {
    let chunk_blocks = usize::from(input.chunk_blocks) % (MAX_CHUNK_BLOCKS + 1);
    let key = match input.other_engine {
        true => key(chunk_blocks).with_engine(Engine::AesGcm),
        false => key(chunk_blocks).clone(),
    };
    let first = u64::from(input.first_block % 8);
    let plain = text(0..usize::from(input.sealed) % (MAX_BLOCKS * B + 1));
    let was = seal(&key, first, &input, &plain);
    let mut now = was.clone();
    input.edits.iter().for_each(|edit| apply(edit, &mut now));

    let wanted = usize::from(input.wanted) % (MAX_BLOCKS * B + 1);
    let start = first * B as u64;
    let size = start + wanted as u64 + u64::from(input.behind);
    let holes = u64::from(input.holes.0 % 16)..u64::from(input.holes.1 % 16);
    let view = FileView { size, generation: input.generation, holes };
    let mut buffer = Buffer::unpooled(now.len());
    buffer.copy_from_slice(&now);
    let mut read = vec![0xee; wanted];
    let opened = key.open(&view, first, Stored { buffer, len: now.len() }, &mut read);

    assert_eq!(opened.verdicts().len(), wanted.div_ceil(B));
    for (index, verdict) in opened.verdicts().iter().enumerate() {
        let block = Block { number: first + index as u64, chunk_blocks, now: stride(&now, index) };
        let expected = judge(&block, &view, stride(&was, index));
        assert_eq!(*verdict, expected, "block {}", block.number);
        let has = block.now.get(..PREFIX).is_some_and(|prefix| prefix != [0; PREFIX]);
        assert_eq!(opened.nonce(block.number).is_some(), has);
        let range = index * B..wanted.min((index + 1) * B);
        let mut expected = vec![0; range.len()];
        if let Verdict::Opened { len, .. } = verdict {
            let len = range.len().min(*len as usize);
            expected[..len].copy_from_slice(&plain[range.start..range.start + len]);
        }
        assert!(read[range] == expected, "block {}: plaintext", block.number);
    }
    if let Some(sealed) = opened.into_sealed() {
        assert_eq!(sealed.bytes(), &was[..sealed.bytes().len()]);
    }
});

fn seal(key: &ContentKey, first: u64, input: &Input, plain: &[u8]) -> Vec<u8> {
    let mut slices = Vec::new();
    let mut rest = plain;
    for at in &input.slices {
        let (slice, behind) = rest.split_at(usize::from(*at).min(rest.len()));
        slices.push(slice);
        rest = behind;
    }
    slices.push(rest);
    let buffer = Buffer::unpooled(key.geometry().span_bytes(plain.len() as u64) as usize);
    match key.seal(first, input.seal_gen, &slices, buffer) {
        Ok(sealed) => sealed.bytes().to_vec(),
        Err(error) => {
            assert!(plain.is_empty(), "{error}");
            Vec::new()
        }
    }
}

fn apply(edit: &Edit, stored: &mut Vec<u8>) {
    let len = stored.len();
    let block = |number: u8| usize::from(number) % MAX_BLOCKS * STRIDE;
    match edit {
        Edit::Append(bytes) if len < MAX_BLOCKS * STRIDE => stored.extend(bytes),
        Edit::Copy { from, to } => {
            let (from, to) = (block(*from), block(*to));
            if from.max(to) + STRIDE <= len {
                stored.copy_within(from..from + STRIDE, to);
            }
        }
        Edit::Cut(at) => stored.truncate(usize::from(*at)),
        Edit::Exchange { a, b } => {
            let (a, b) = (block(*a), block(*b));
            if a.max(b) + STRIDE <= len {
                (0..STRIDE).for_each(|at| stored.swap(a + at, b + at));
            }
        }
        Edit::Len { block: number, len: claim } => {
            let at = block(*number) + 40;
            if at + 4 <= len {
                stored[at..at + 4].copy_from_slice(&(claim % 5000).to_le_bytes());
            }
        }
        Edit::Put { at, bytes } => {
            let at = usize::from(*at).min(len);
            let n = bytes.len().min(len - at);
            stored[at..at + n].copy_from_slice(&bytes[..n]);
        }
        Edit::Xor { at, bits } if len > 0 => stored[usize::from(*at) % len] ^= bits,
        Edit::Zero { at, len: n } => {
            let at = usize::from(*at).min(len);
            stored[at..len.min(at + usize::from(*n))].fill(0);
        }
        Edit::Append(_) | Edit::Xor { .. } => {}
    }
}

/// What is stored for one block.
struct Block<'a> {
    number: u64,
    chunk_blocks: usize,
    now: &'a [u8],
}

fn stride(stored: &[u8], index: usize) -> &[u8] {
    let at = (index * STRIDE).min(stored.len());
    &stored[at..stored.len().min(at + STRIDE)]
}

/// The table of verdicts in `FORMAT.md`, in its order. What authenticates is what was sealed there.
fn judge(block: &Block<'_>, view: &FileView, was: &[u8]) -> Verdict {
    let damaged =
        |kind| Verdict::Damaged(sealback_crypto::BlockDamage { block: block.number, kind });
    let last = view.size.div_ceil(B as u64) - 1;
    let may_be_hole = view.holes.contains(&block.number);
    let object = |number: u64| number.checked_div(block.chunk_blocks as u64);
    if block.now.is_empty() && object(block.number) != object(last) {
        return if may_be_hole { Verdict::Hole } else { damaged(DamageKind::Missing) };
    }
    let Some((prefix, behind)) = block.now.split_at_checked(PREFIX) else {
        return damaged(DamageKind::CutShort);
    };
    if prefix == [0; PREFIX] {
        return if may_be_hole { Verdict::Hole } else { damaged(DamageKind::Missing) };
    }
    let number_at = |at| u32::from_le_bytes(forge::field(prefix, at));
    let (len, seal_gen) = (number_at(40), number_at(44));
    let len_bytes = len as usize;
    if len == 0 || len_bytes > B {
        return damaged(DamageKind::AlteredOrTorn);
    }
    if behind.len() < len_bytes {
        return damaged(DamageKind::CutShort);
    }
    if was.get(..PREFIX + len_bytes) != Some(&block.now[..PREFIX + len_bytes]) {
        return damaged(DamageKind::AlteredOrTorn);
    }
    if u64::from(seal_gen) > view.generation.saturating_add(1) {
        return damaged(DamageKind::HeaderPutBack);
    }
    let needed = (view.size - block.number * B as u64).min(B as u64);
    if u64::from(len) < needed && !may_be_hole {
        return damaged(DamageKind::Missing);
    }
    Verdict::Opened { len, seal_gen }
}

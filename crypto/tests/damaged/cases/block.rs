//! Blocks that are damaged under a header that is sound.

use sealback_crypto::HeaderError;

use super::{
    ALTERED, CUT_SHORT, Case, HEADER_PUT_BACK, MISSING, OPENED, block_at, changed, sound,
    sound_with_holes,
};
use crate::forge::{B, Forge, PREFIX, SLOTS, STRIDE, Slot, field, older_text, text};

pub(super) fn cases() -> Vec<Case> {
    [bytes(), lengths(), out_of_place(), put_back(), ends(), missing()].concat()
}

/// Two blocks, the second of 100 bytes.
const SIZE: usize = B + 100;

/// A case of the sample: one verdict for each of its two blocks.
fn sampled(
    name: &'static str,
    done: &'static str,
    change: impl FnOnce(&mut Vec<u8>),
    blocks: [&'static str; 2],
) -> Case {
    Case::opened(name, done, changed(sound(SIZE), change), (SIZE, &blocks))
}

/// The same of a file of one block of 100 bytes.
fn lone(
    name: &'static str,
    done: &'static str,
    change: impl FnOnce(&mut Vec<u8>),
    found: &'static str,
) -> Case {
    Case::opened(name, done, changed(sound(100), change), (100, &[found]))
}

fn bytes() -> Vec<Case> {
    let flipped = |name, done, at: usize| {
        lone(name, done, |stored| stored[block_at(0) + at] ^= 0x10, ALTERED)
    };
    vec![
        flipped("nonce", "a byte of the block's nonce", 3),
        flipped("tag", "a byte of the block's tag", 24),
        flipped("seal-gen", "a byte of the block's seal_gen", 44),
        flipped("ciphertext-last", "the last byte of the block's ciphertext", PREFIX + 99),
        sampled(
            "ciphertext",
            "a byte of block 0's ciphertext",
            |stored| stored[block_at(0) + 2000] ^= 0x10,
            [ALTERED, OPENED],
        ),
        sampled(
            "torn",
            "the second half of block 0 is still its older version",
            |stored| {
                let older = Forge::new().block(0, &older_text(0..B), 1);
                stored[block_at(0) + 2048..block_at(1)].copy_from_slice(&older[2048..]);
            },
            [ALTERED, OPENED],
        ),
    ]
}

fn lengths() -> Vec<Case> {
    let with_len = |name, done, len: u32, found| {
        let at = block_at(0) + 40;
        let change = |stored: &mut Vec<u8>| stored[at..at + 4].copy_from_slice(&len.to_le_bytes());
        lone(name, done, change, found)
    };
    vec![
        with_len("len-less", "the block's len is 99, not 100", 99, ALTERED),
        with_len("len-0", "the block's len is 0", 0, ALTERED),
        with_len("len-over", "the block's len is B + 1", 4097, ALTERED),
        with_len("len-huge", "the block's len is 2^32 - 1", u32::MAX, ALTERED),
        with_len(
            "len-more-than-stored",
            "the block's len is 101, more than is stored behind its prefix",
            101,
            CUT_SHORT,
        ),
    ]
}

fn out_of_place() -> Vec<Case> {
    let (size, blocks) = (2 * B, [ALTERED; 2]);
    let exchanged = changed(sound(size), |stored| stored[block_at(0)..].rotate_left(STRIDE));
    vec![
        Case::opened(
            "blocks-exchanged",
            "blocks 0 and 1 are exchanged",
            exchanged,
            (size, &blocks),
        ),
        lone(
            "block-of-another-file",
            "the block is the same one of another file of the same root key",
            |stored| {
                let block = Forge::another().block(0, &text(0..100), 2);
                stored[block_at(0)..].copy_from_slice(&block);
            },
            ALTERED,
        ),
    ]
}

/// What was right once.
fn put_back() -> Vec<Case> {
    let forge = Forge::new();
    let older = |len: usize| forge.block(0, &older_text(0..len), 1);
    let put = |block: Vec<u8>| {
        move |stored: &mut Vec<u8>| stored[block_at(0)..][..block.len()].copy_from_slice(&block)
    };
    let header = forge.header(&[Slot::new(1, 0), Slot::new(2, SIZE)]);
    let later = [header, forge.blocks(&text(0..SIZE), 4)].concat();
    let remembering = Case::refused(
        "header-put-back-remembered",
        "generation 2's header stands before generation 4's blocks; the caller has seen 4",
        later.clone(),
        HeaderError::PutBack { found: 2, least: 4 },
    );
    let mac = field(&forge.header(&[Slot::new(4, SIZE)]), SLOTS[0] + 480);
    vec![
        sampled(
            "block-put-back",
            "block 0 is an older version of itself: not found",
            put(older(B)),
            [OPENED; 2],
        )
        .with_plaintext([older_text(0..B), text(B..SIZE)].concat()),
        sampled(
            "block-put-back-short",
            "block 0 is an older version of itself, of 50 bytes, where no hole may be",
            put(older(50)),
            [MISSING, OPENED],
        ),
        Case::opened(
            "header-put-back",
            "generation 2's header stands before generation 4's blocks",
            later,
            (SIZE, &[HEADER_PUT_BACK; 2]),
        ),
        Case { least: Some((4, mac)), ..remembering },
    ]
}

/// Files that end too early.
fn ends() -> Vec<Case> {
    let cut =
        |name, done, len: usize, blocks| sampled(name, done, |stored| stored.truncate(len), blocks);
    let lone_cut = |name, done, len: usize| {
        lone(name, done, |stored| stored.truncate(block_at(0) + len), CUT_SHORT)
    };
    let last = [OPENED, CUT_SHORT];
    vec![
        cut("cut-behind-header", "the file ends behind the header", block_at(0), [CUT_SHORT; 2]),
        cut("cut-in-block-0", "the file ends within block 0", block_at(0) + 900, [CUT_SHORT; 2]),
        cut("cut-between", "the file ends between blocks 0 and 1", block_at(1), last),
        lone_cut("cut-in-prefix", "the file ends within the block's prefix", 20),
        lone_cut("cut-behind-prefix", "the file ends behind the block's prefix", PREFIX),
        lone_cut("cut-in-ciphertext", "the file lacks its last byte", PREFIX + 99),
        Case::opened(
            "cut-before-holes",
            "the file ends behind the header, though all its blocks may be holes",
            sound_with_holes(2 * B + 100, (0, 3))[..block_at(0)].to_vec(),
            (2 * B + 100, &[CUT_SHORT; 3]),
        ),
    ]
}

fn missing() -> Vec<Case> {
    let zeroed = |len: usize| move |stored: &mut Vec<u8>| stored[block_at(0)..][..len].fill(0);
    let beside = sound_with_holes(SIZE, (1, 2));
    vec![
        sampled(
            "block-zeroed",
            "block 0 is zeros, where no hole may be",
            zeroed(STRIDE),
            [MISSING, OPENED],
        ),
        sampled(
            "prefix-zeroed",
            "block 0's prefix is zeros, where no hole may be",
            zeroed(PREFIX),
            [MISSING, OPENED],
        ),
        Case::opened(
            "block-zeroed-beside-the-hole-range",
            "block 0 is zeros; the hole range begins with block 1",
            changed(beside, zeroed(STRIDE)),
            (SIZE, &[MISSING, OPENED]),
        ),
        sampled(
            "short-block",
            "block 0 holds B - 1 bytes, where no hole may be",
            |stored| {
                let block = Forge::new().block(0, &text(0..B - 1), 2);
                stored[block_at(0)..][..block.len()].copy_from_slice(&block);
            },
            [MISSING, OPENED],
        ),
    ]
}

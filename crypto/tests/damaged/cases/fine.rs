//! Files that must open, so that no reader passes by refusing everything.

use super::{Case, HOLE, OPENED, block_at, changed, sound, sound_with_holes};
use crate::forge::{B, Forge, OTHER, STRIDE, Slot, older_text, text};

pub(super) fn cases() -> Vec<Case> {
    [sizes(), holes(), headers()].concat()
}

fn sizes() -> Vec<Case> {
    let new = Forge::new().header(&[Slot::new(1, 0)]);
    vec![
        Case::opened("fine-empty", "nothing: as it is created", new, (0, &[])).with_generation(1),
        Case::opened("fine-1-byte", "nothing", sound(1), (1, &[OPENED])),
        Case::opened("fine-1-block", "nothing: B bytes", sound(B), (B, &[OPENED])),
        Case::opened("fine-2-blocks", "nothing: B + 1 bytes", sound(B + 1), (B + 1, &[OPENED; 2])),
    ]
}

fn holes() -> Vec<Case> {
    let size = B + 100;
    let with_zeros = |from: usize| {
        let mut plaintext = text(0..size);
        plaintext[from..B].fill(0);
        plaintext
    };
    let short = changed(sound_with_holes(size, (0, 1)), |stored| {
        let block = Forge::new().block(0, &text(0..50), 2);
        stored[block_at(0)..][..block.len()].copy_from_slice(&block);
    });
    let zeroed = changed(sound_with_holes(size, (0, 1)), |stored| {
        stored[block_at(0)..][..STRIDE].fill(0);
    });
    vec![
        Case::opened(
            "fine-hole",
            "nothing, or all of block 0 was zeroed: not found, since a hole may be there",
            zeroed,
            (size, &[HOLE, OPENED]),
        )
        .with_plaintext(with_zeros(0)),
        Case::opened(
            "fine-short-block-in-hole-range",
            "nothing: block 0 holds 50 bytes, and what lies behind them means nothing",
            short,
            (size, &[OPENED; 2]),
        )
        .with_plaintext(with_zeros(50)),
    ]
}

fn headers() -> Vec<Case> {
    let forge = Forge::new();
    let with_blocks =
        |slots: &[Slot], text: &[u8]| [forge.header(slots), forge.blocks(text, 2)].concat();
    let cut = Slot { flags: 2, cuts: 1, ..Slot::new(3, 100) };
    let before = Slot::new(2, B + 100);
    let strange = Slot { flags: 4, unknown_byte: Some(136), ..Slot::new(1, 0) };
    let torn = changed(with_blocks(&[Slot::new(2, 100), Slot::new(3, 100)], &text(0..100)), |s| {
        s[4608 + 300] = 1;
    });
    let ahead =
        [forge.header(&[Slot::new(1, 0), Slot::new(2, 100)]), forge.blocks(&text(0..100), 3)];
    let recovered = Case::opened(
        "fine-torn-and-recovered",
        "a byte of the newer slot changed; the caller asks for the older one, after a crash",
        torn,
        (100, &[OPENED]),
    );
    vec![
        Case::opened(
            "fine-cut-pending",
            "nothing: the size went down to 100, the blocks are not cut off yet",
            with_blocks(&[before, cut], &text(0..B + 100)),
            (100, &[OPENED]),
        )
        .with_generation(3),
        Case::opened(
            "fine-unknown-values-in-the-older-slot",
            "flag bit 2 and a byte of the older slot that is zero in format 1 are set",
            forge.header(&[strange, Slot::new(2, 0)]),
            (0, &[]),
        ),
        Case::opened(
            "fine-wrapped-anew",
            "nothing: the newer slot wraps the file key under this root key, the older another's",
            forge.header(&[Slot { root: OTHER, ..Slot::new(1, 0) }, Slot::new(2, 0)]),
            (0, &[]),
        ),
        Case::opened(
            "fine-sealed-before-the-header",
            "nothing: the block is of the commit that follows this header",
            ahead.concat(),
            (100, &[OPENED]),
        ),
        Case { recover_torn: true, ..recovered },
        Case::opened(
            "fine-whole-file-put-back",
            "an older version of the whole file: not found without the caller's help",
            [
                forge.header(&[Slot::new(1, 0), Slot::new(2, 100)]),
                forge.blocks(&older_text(0..100), 2),
            ]
            .concat(),
            (100, &[OPENED]),
        )
        .with_plaintext(older_text(0..100)),
    ]
}

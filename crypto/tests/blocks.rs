//! Damage to stored blocks: each kind is found, named, and no plaintext is left behind.
//!
//! A small file of blocks of 4 KiB is sealed, its stored bytes are changed in one way, and what
//! opening says of each block is compared with what the format says it must.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic like the tests do")]

use std::ops::Range;

use proptest::prelude::*;
use sealback_crypto::{
    BlockDamage, Buffer, BufferPool, ContentKey, DamageKind, Engine, FileView, Geometry, Header,
    Opened, RootKey, Sealed, Stored, Verdict, sealed_bytes,
};

const B: usize = 4096;
const STRIDE: usize = B + 48;
const SEAL_GEN: u32 = 2;

/// Every engine of this build, the fakes too.
fn engines() -> Vec<Engine> {
    let fakes: &[Engine] = &[
        #[cfg(feature = "testkit")]
        Engine::Fake,
        #[cfg(feature = "testkit")]
        Engine::Slowed { times: 2 },
    ];
    [Engine::all(), fakes].concat()
}

fn key(engine: Engine) -> ContentKey {
    let root = RootKey::generate().unwrap();
    let geometry = Geometry::new(4096).unwrap();
    let new = Header::create(&root, geometry, engine).unwrap();
    new.header.content_key().clone()
}

fn view(size: usize, holes: Range<u64>) -> FileView {
    FileView { size: size as u64, generation: 1, holes }
}

fn text(len: usize) -> Vec<u8> {
    (0..=250).cycle().take(len).collect()
}

fn seal(key: &ContentKey, first_block: u64, plain: &[u8]) -> Sealed {
    let needed = sealed_bytes(key.geometry(), plain.len() as u64);
    let buffer = Buffer::unpooled(usize::try_from(needed).unwrap());
    key.seal(first_block, SEAL_GEN, &[plain], buffer).unwrap()
}

/// Opens from `first_block` to the end; what is handed out lies where 0xee was before.
fn open_from(
    key: &ContentKey,
    view: &FileView,
    first_block: u64,
    stored: &[u8],
) -> (Opened, Vec<u8>) {
    let mut buffer = Buffer::unpooled(stored.len());
    buffer.copy_from_slice(stored);
    let len = stored.len();
    let start = usize::try_from(first_block).unwrap() * B;
    let mut plain = vec![0xee; usize::try_from(view.size).unwrap() - start];
    let opened = key.open(view, first_block, Stored { buffer, len }, &mut plain);
    (opened, plain)
}

fn open(key: &ContentKey, view: &FileView, stored: &[u8]) -> (Opened, Vec<u8>) {
    open_from(key, view, 0, stored)
}

fn damaged(block: u64, kind: DamageKind) -> Verdict {
    Verdict::Damaged(BlockDamage { block, kind })
}

fn full() -> Verdict {
    opened(B)
}

fn opened(len: usize) -> Verdict {
    Verdict::Opened { len: u32::try_from(len).unwrap(), seal_gen: SEAL_GEN }
}

#[test]
fn what_threads_hand_each_other_may_be_handed_over() {
    fn shared<T: Send + Sync>() {}
    shared::<ContentKey>();
    shared::<Header>();
    shared::<Sealed>();
    shared::<Opened>();
    shared::<BufferPool>();
}

#[test]
fn what_was_sealed_is_opened_by_every_engine() {
    let sealing = key(Engine::AesGcm);
    for len in [1, 15, B - 1, B, B + 1, 3 * B, 3 * B + 7] {
        let plain = text(len);
        for sealer in Engine::all() {
            let sealed = seal(&sealing.with_engine(*sealer), 0, &plain);
            for opener in Engine::all() {
                let key = sealing.with_engine(*opener);
                let (opened, out) = open(&key, &view(len, 0..0), sealed.bytes());
                assert_eq!(out, plain);
                assert!(opened.first_damage().is_none());
                assert_eq!(opened.nonce(0), Some(sealed.nonce(0)));
                assert_eq!(opened.nonce(len.div_ceil(B) as u64), None);
                let verified = opened.into_sealed().unwrap();
                assert_eq!(verified.bytes(), sealed.bytes());
                assert_eq!(verified.blocks(), sealed.blocks());
                assert_eq!(verified.plaintext_len(), len as u64);
            }
        }
    }
}

#[test]
fn every_changed_byte_of_a_block_is_found_and_leaves_no_plaintext() {
    for engine in engines() {
        let key = key(engine);
        let plain = text(2 * B + 40);
        let sealed = seal(&key, 0, &plain);
        let view = view(plain.len(), 0..0);
        // All of the last block; of the first, its prefix and a sample of its ciphertext.
        let last = 2 * STRIDE..sealed.bytes().len();
        for at in (0..200).chain((200..STRIDE).step_by(97)).chain(last) {
            let mut stored = sealed.bytes().to_vec();
            stored[at] ^= 0x20;
            let block = at / STRIDE;
            let (opened, out) = open(&key, &view, &stored);
            for (index, verdict) in opened.verdicts().iter().enumerate() {
                let range = index * B..plain.len().min((index + 1) * B);
                if index == block {
                    assert_eq!(
                        *verdict,
                        damaged(index as u64, DamageKind::AlteredOrTorn),
                        "{engine} byte {at}"
                    );
                    assert!(out[range].iter().all(|&byte| byte == 0), "{engine} byte {at}");
                } else {
                    assert_eq!(out[range.clone()], plain[range]);
                }
            }
            let damage = opened.first_damage().unwrap();
            assert!(damage.to_string().starts_with(&format!("block {block}: ")));
            assert!(opened.into_sealed().is_none());
        }
    }
}

#[test]
fn a_length_that_reaches_past_what_is_stored_is_cut_short() {
    // Altered or cut cannot be told apart, for what would authenticate is not there.
    let key = key(Engine::fastest());
    let sealed = seal(&key, 0, &text(40));
    let mut stored = sealed.bytes().to_vec();
    stored[40] = 41;
    let (found, out) = open(&key, &view(40, 0..1), &stored);
    assert_eq!(found.verdicts(), [damaged(0, DamageKind::CutShort)]);
    assert_eq!(out, [0; 40]);
    for len in [0, B + 1, usize::MAX >> 32] {
        stored[40..44].copy_from_slice(&u32::try_from(len).unwrap().to_le_bytes());
        let (found, out) = open(&key, &view(40, 0..1), &stored);
        assert_eq!(found.verdicts(), [damaged(0, DamageKind::AlteredOrTorn)]);
        assert_eq!(out, [0; 40]);
    }
}

#[test]
fn exchanged_blocks_are_found() {
    for engine in engines() {
        let key = key(engine);
        let plain = text(3 * B);
        let sealed = seal(&key, 0, &plain);
        let view = view(plain.len(), 0..0);
        let mut stored = sealed.bytes().to_vec();
        let (first, second) = stored.split_at_mut(STRIDE);
        first.swap_with_slice(&mut second[..STRIDE]);
        let (opened, out) = open(&key, &view, &stored);
        let altered = |block| damaged(block, DamageKind::AlteredOrTorn);
        assert_eq!(opened.verdicts(), [altered(0), altered(1), full()]);
        assert_eq!(out[..2 * B], vec![0; 2 * B]);
        assert_eq!(out[2 * B..], plain[2 * B..]);
    }
}

#[test]
fn a_block_of_another_file_is_found() {
    for engine in engines() {
        let (mine, other) = (key(engine), key(engine));
        let sealed = seal(&other, 0, &text(B));
        let (opened, out) = open(&mine, &view(B, 0..0), sealed.bytes());
        assert_eq!(opened.verdicts(), [damaged(0, DamageKind::AlteredOrTorn)]);
        assert_eq!(out, vec![0; B]);
    }
}

#[test]
fn a_file_cut_at_any_length_is_cut_short_from_there_on() {
    let key = key(Engine::fastest());
    let plain = text(2 * B + 30);
    let sealed = seal(&key, 0, &plain);
    for len in 0..sealed.bytes().len() {
        let (opened, out) = open(&key, &view(plain.len(), 0..0), &sealed.bytes()[..len]);
        let n_whole = len / STRIDE;
        for (block, verdict) in (0..).zip(opened.verdicts()) {
            if block < n_whole as u64 {
                assert_eq!(*verdict, full(), "{len}");
            } else {
                assert_eq!(*verdict, damaged(block, DamageKind::CutShort), "{len}");
            }
        }
        assert_eq!(out[..n_whole * B], plain[..n_whole * B]);
        assert!(out[n_whole * B..].iter().all(|&byte| byte == 0));
    }
}

#[test]
fn absent_objects_are_missing_blocks_and_a_short_last_object_is_cut() {
    let chunked = {
        let root = RootKey::generate().unwrap();
        let geometry = Geometry::new(4096).unwrap().with_chunk_blocks(2);
        let new = Header::create(&root, geometry, Engine::fastest()).unwrap();
        new.header.content_key().clone()
    };
    let (missing, cut) = (DamageKind::Missing, DamageKind::CutShort);
    let (opened, _) = open(&chunked, &view(4 * B, 0..0), &[]);
    let expected = [damaged(0, missing), damaged(1, missing), damaged(2, cut), damaged(3, cut)];
    assert_eq!(opened.verdicts(), expected);
    let (opened, _) = open(&chunked, &view(4 * B, 0..4), &[]);
    let hole = Verdict::Hole;
    assert_eq!(opened.verdicts(), [hole.clone(), hole, damaged(2, cut), damaged(3, cut)]);
}

#[test]
fn a_flat_file_that_ends_within_its_hole_range_is_cut_short() {
    let key = key(Engine::fastest());
    let (opened, out) = open(&key, &view(4 * B, 0..4), &[]);
    let cut = |block| damaged(block, DamageKind::CutShort);
    assert_eq!(opened.verdicts(), [cut(0), cut(1), cut(2), cut(3)]);
    assert_eq!(out, vec![0; 4 * B]);
}

#[test]
fn holes_read_as_zeros_inside_their_range_only() {
    for engine in engines() {
        let key = key(engine);
        let plain = text(4 * B);
        let sealed = seal(&key, 0, &plain);
        let mut stored = sealed.bytes().to_vec();
        stored[STRIDE..STRIDE + 48].fill(0);
        stored[3 * STRIDE..3 * STRIDE + 48].fill(0);
        let (found, out) = open(&key, &view(4 * B, 1..2), &stored);
        let missing = damaged(3, DamageKind::Missing);
        assert_eq!(found.verdicts(), [full(), Verdict::Hole, full(), missing]);
        assert_eq!(out[B..2 * B], vec![0; B]);
        assert_eq!(out[3 * B..], vec![0; B]);
        assert_eq!(found.nonce(1), None);
        assert!(found.into_sealed().is_none());
        // The last block may be a hole too, if its prefix is there.
        let (found, _) = open(&key, &view(4 * B, 1..4), &stored[..3 * STRIDE + 48]);
        assert_eq!(found.verdicts(), [full(), Verdict::Hole, full(), Verdict::Hole]);
        let (found, _) = open(&key, &view(4 * B, 1..4), &stored[..3 * STRIDE + 47]);
        assert_eq!(found.verdicts()[3], damaged(3, DamageKind::CutShort));
    }
}

#[test]
fn a_zero_prefix_with_bytes_behind_or_a_zero_nonce_alone_is_no_way_in() {
    let key = key(Engine::fastest());
    let sealed = seal(&key, 0, &text(2 * B));
    let mut stored = sealed.bytes().to_vec();
    stored[..24].fill(0);
    let (found, out) = open(&key, &view(2 * B, 0..2), &stored);
    assert_eq!(found.verdicts()[0], damaged(0, DamageKind::AlteredOrTorn));
    assert_eq!(out[..B], vec![0; B]);
}

#[test]
fn a_short_block_reads_as_zeros_from_its_end_on_inside_holes_only() {
    for engine in engines() {
        let key = key(engine);
        let short = seal(&key, 0, &text(100));
        let mut stored = vec![0xaa; STRIDE];
        stored[..148].copy_from_slice(short.bytes());
        stored.extend_from_slice(seal(&key, 1, &text(B)).bytes());
        let (found, out) = open(&key, &view(2 * B, 0..1), &stored);
        assert_eq!(found.verdicts(), [opened(100), full()]);
        assert_eq!(out[..100], text(100));
        assert_eq!(out[100..B], vec![0; B - 100]);
        let runs = found.into_sealed_runs();
        assert_eq!(runs.len(), 1, "what lies behind the short one is nobody's");
        assert_eq!((runs[0].blocks(), runs[0].bytes()), (1..2, &stored[STRIDE..]));
        let (found, out) = open(&key, &view(2 * B, 1..2), &stored);
        assert_eq!(found.verdicts(), [damaged(0, DamageKind::Missing), full()]);
        assert_eq!(out[..B], vec![0; B]);
    }
}

#[test]
fn more_than_the_size_says_is_authenticated_but_not_handed_out() {
    for engine in engines() {
        let key = key(engine);
        let sealed = seal(&key, 0, &text(B + 500));
        let (found, out) = open(&key, &view(B + 80, 0..0), sealed.bytes());
        assert_eq!(found.verdicts(), [full(), opened(500)]);
        assert_eq!(out, text(B + 80));
        assert_eq!(found.into_sealed().unwrap().bytes(), sealed.bytes());
        // A byte that is not asked for is authenticated as well.
        let mut stored = sealed.bytes().to_vec();
        *stored.last_mut().unwrap() ^= 1;
        let (found, out) = open(&key, &view(B + 80, 0..0), &stored);
        assert_eq!(found.verdicts()[1], damaged(1, DamageKind::AlteredOrTorn));
        assert_eq!(out[B..], [0; 80]);
    }
}

#[test]
fn a_block_of_a_later_header_says_header_put_back() {
    for engine in engines() {
        let key = key(engine);
        let plain = text(B);
        let sealed = key.seal(0, 3, &[&plain], Buffer::unpooled(STRIDE)).unwrap();
        let mut view = view(B, 0..0);
        let (found, out) = open(&key, &view, sealed.bytes());
        assert_eq!(found.verdicts(), [damaged(0, DamageKind::HeaderPutBack)]);
        assert_eq!(out, vec![0; B]);
        view.generation = 2;
        assert_eq!(open(&key, &view, sealed.bytes()).1, plain);
        // Nothing is believed of a block that does not authenticate.
        view.generation = 1;
        let mut stored = sealed.bytes().to_vec();
        stored[30] ^= 1;
        let (found, _) = open(&key, &view, &stored);
        assert_eq!(found.verdicts(), [damaged(0, DamageKind::AlteredOrTorn)]);
    }
}

#[test]
fn opening_may_begin_and_end_anywhere_within_the_file() {
    let key = key(Engine::fastest());
    let plain = text(5 * B);
    let sealed = seal(&key, 0, &plain);
    let tail = sealed.slice(3..5);
    let (found, out) = open_from(&key, &view(5 * B, 0..0), 3, tail.bytes());
    assert_eq!(found.verdicts(), [full(), full()]);
    assert_eq!(out, plain[3 * B..]);
    assert_eq!(found.nonce(4), Some(sealed.nonce(4)));
    assert_eq!((found.nonce(2), found.nonce(5)), (None, None));
    let (found, out) = open_from(&key, &view(5 * B, 0..0), 5, &[]);
    assert!(found.verdicts().is_empty() && out.is_empty());
    assert!(found.into_sealed().is_none());
}

#[test]
#[should_panic(expected = "must lie within the file")]
fn opening_beyond_the_size_panics() {
    let stored = Stored { buffer: Buffer::unpooled(0), len: 0 };
    let _ = key(Engine::fastest()).open(&view(10, 0..0), 0, stored, &mut [0; 11]);
}

#[test]
fn the_last_generation_that_can_seal_is_known() {
    let mut view = view(0, 0..0);
    view.generation = u64::from(u32::MAX) - 1;
    assert_eq!(view.seal_gen(), Some(u32::MAX));
    view.generation += 1;
    assert_eq!(view.seal_gen(), None);
    view.generation = u64::MAX;
    assert_eq!(view.seal_gen(), None);
}

proptest! {
    #[test]
    fn what_is_handed_out_is_always_what_was_sealed(
        len in 1_usize..3 * B,
        edits in proptest::collection::vec((0_usize..3 * STRIDE, any::<u8>()), 0..6),
        keep in 0_usize..3 * STRIDE,
    ) {
        let key = key(Engine::fastest());
        let plain = text(len);
        let sealed = seal(&key, 0, &plain);
        let mut stored = sealed.bytes().to_vec();
        for (at, byte) in edits {
            if let Some(place) = stored.get_mut(at) {
                *place = byte;
            }
        }
        stored.truncate(keep.max(1));
        let (found, out) = open(&key, &view(len, 0..0), &stored);
        prop_assert_eq!(found.verdicts().len(), len.div_ceil(B));
        for (index, verdict) in found.verdicts().iter().enumerate() {
            let range = index * B..len.min((index + 1) * B);
            match verdict {
                Verdict::Opened { .. } => prop_assert_eq!(&out[range.clone()], &plain[range]),
                _ => prop_assert!(out[range].iter().all(|&byte| byte == 0)),
            }
        }
    }
}

proptest! {
    #[test]
    fn opening_into_slices_is_opening_into_one(
        len in 1..5 * B,
        borders in prop::collection::vec(0..5 * B, 0..6),
        altered in prop::option::of(0usize..5),
    ) {
        let key = key(Engine::fastest());
        let mut stored = seal(&key, 0, &text(len)).bytes().to_vec();
        if let Some(byte) = altered.and_then(|block| stored.get_mut(block * (B + 48) + 50)) {
            *byte ^= 1;
        }
        let view = view(len, 0..0);
        let (expected, whole) = open(&key, &view, &stored);

        let mut plain = vec![0xee; len];
        let mut borders: Vec<_> = borders.into_iter().map(|at| at.min(len)).collect();
        borders.sort_unstable();
        let (mut slices, mut rest, mut at) = (Vec::new(), &mut plain[..], 0);
        for border in borders {
            let (slice, behind) = rest.split_at_mut(border - at);
            slices.push(slice);
            (rest, at) = (behind, border);
        }
        slices.push(rest);
        let mut buffer = Buffer::unpooled(stored.len());
        buffer.copy_from_slice(&stored);
        let stored = Stored { len: stored.len(), buffer };
        let opened = key.open_into(&view, 0, stored, slices);
        prop_assert_eq!(opened.verdicts(), expected.verdicts());
        prop_assert!(plain == whole);
    }
}

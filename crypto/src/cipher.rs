//! The engines: interchangeable makers of AES-256-GCM, byte for byte the same.
//!
//! `ciphertext, tag = AES-256-GCM[key](nonce, aad, plaintext)`, NIST SP 800-38D, with a 96-bit
//! nonce and a 128-bit tag, out of place. `seal.rs`, `open.rs` and `xaes.rs` call it.
//!
//! **Wiping.** `aes-gcm` with feature `zeroize` wipes the key schedule (`aes` 0.9, `lib.rs`:
//! `zeroize_flat_type` in each cipher's drop) and GHASH's state (`ghash` passes the feature on to
//! `polyval` 0.7, whose drop does the same). `aws-lc-rs` keeps the key in an `EVP_AEAD_CTX` alone;
//! dropping `LessSafeKey` frees it by `EVP_AEAD_CTX_free` (`aws-lc-rs/src/ptr.rs`), which ends in
//! `OPENSSL_free`, and that cleanses all memory it frees (`aws-lc/crypto/mem.c`).

#[cfg(feature = "testkit")]
mod fake;

use std::str::FromStr;
use std::{error, fmt};

use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes256Gcm, Tag};
#[cfg(feature = "aws-lc")]
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce as AwsNonce, UnboundKey};
use zeroize::Zeroize;

#[cfg(feature = "testkit")]
use fake::Fake;

/// Which implementation seals and opens. All real ones give the same bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Engine {
    /// The crate `aes-gcm`: pure Rust, always built in, the reference.
    AesGcm,
    /// AWS-LC, several times as fast on current CPUs.
    #[cfg(feature = "aws-lc")]
    AwsLc,
    /// For tests only: no secrecy at all, but quick, and notices a wrong key, nonce, block number
    /// or length and every changed byte.
    #[cfg(feature = "testkit")]
    Fake,
    /// For tests only: the fastest real engine, sealing each block anew several times over.
    #[cfg(feature = "testkit")]
    Slowed {
        /// How often each block is sealed; 0 counts as 1.
        times: u32,
    },
}

impl Engine {
    /// The fastest real engine that is built in.
    pub fn fastest() -> Engine {
        #[cfg(feature = "aws-lc")]
        let engine = Engine::AwsLc;
        #[cfg(not(feature = "aws-lc"))]
        let engine = Engine::AesGcm;
        engine
    }

    /// The name that [`Engine::from_str`] takes, as far as the engine is a real one.
    pub fn name(self) -> &'static str {
        match self {
            Engine::AesGcm => "aes-gcm",
            #[cfg(feature = "aws-lc")]
            Engine::AwsLc => "aws-lc",
            #[cfg(feature = "testkit")]
            Engine::Fake => "fake",
            #[cfg(feature = "testkit")]
            Engine::Slowed { .. } => "slowed",
        }
    }

    /// The real engines that are built in, the reference first.
    pub fn all() -> &'static [Engine] {
        &[
            Engine::AesGcm,
            #[cfg(feature = "aws-lc")]
            Engine::AwsLc,
        ]
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Engine {
    type Err = UnknownEngine;

    /// Reads `auto` (the fastest), `aes-gcm` or `aws-lc`.
    fn from_str(name: &str) -> Result<Engine, UnknownEngine> {
        if name == "auto" {
            return Ok(Engine::fastest());
        }
        let built_in = Engine::all().iter().find(|engine| engine.name() == name);
        built_in.copied().ok_or_else(|| match name {
            "aws-lc" => UnknownEngine::NotBuiltIn { name: name.to_owned() },
            _ => UnknownEngine::NoSuchName { name: name.to_owned() },
        })
    }
}

/// A name that stands for no engine here.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum UnknownEngine {
    /// No engine has this name.
    NoSuchName {
        /// What was asked for.
        name: String,
    },
    /// The engine exists, but this build left it out.
    NotBuiltIn {
        /// What was asked for; also the name of the cargo feature.
        name: String,
    },
}

impl fmt::Display for UnknownEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UnknownEngine::NoSuchName { name } => {
                write!(f, "no engine is called \"{name}\": auto, aes-gcm or aws-lc")
            }
            UnknownEngine::NotBuiltIn { name } => {
                write!(f, "the engine {name} is not built in: build with the feature {name}")
            }
        }
    }
}

impl error::Error for UnknownEngine {}

/// A message did not authenticate; nothing more is told, by design.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refused;

/// One AES-256-GCM key in one engine; wiped when dropped.
pub(crate) enum Cipher {
    AesGcm(Box<Aes256Gcm>),
    #[cfg(feature = "aws-lc")]
    AwsLc(LessSafeKey),
    #[cfg(feature = "testkit")]
    Fake(Fake),
    #[cfg(feature = "testkit")]
    Slowed {
        times: u32,
        cipher: Box<Cipher>,
    },
}

impl Cipher {
    pub(crate) fn new(engine: Engine, key: &[u8; 32]) -> Cipher {
        match engine {
            Engine::AesGcm => Cipher::AesGcm(Box::new(Aes256Gcm::new(key.into()))),
            #[cfg(feature = "aws-lc")]
            Engine::AwsLc => {
                let key = UnboundKey::new(&AES_256_GCM, key);
                Cipher::AwsLc(LessSafeKey::new(key.expect("32 bytes are a key of AES-256-GCM")))
            }
            #[cfg(feature = "testkit")]
            Engine::Fake => Cipher::Fake(Fake::new(key)),
            #[cfg(feature = "testkit")]
            Engine::Slowed { times } => {
                Cipher::Slowed { times, cipher: Box::new(Cipher::new(Engine::fastest(), key)) }
            }
        }
    }

    /// Seals `plain` into `sealed`, which must be as long, and gives the tag.
    pub(crate) fn seal(
        &self,
        nonce: &[u8; 12],
        aad: &[u8],
        plain: &[u8],
        sealed: &mut [u8],
    ) -> [u8; 16] {
        assert_eq!(plain.len(), sealed.len(), "sealing keeps the length");
        match self {
            Cipher::AesGcm(cipher) => {
                let inout = InOutBuf::new(plain, sealed).expect("the lengths were compared");
                cipher
                    .encrypt_inout_detached(nonce.into(), aad, inout)
                    .expect("a block is far below AES-GCM's 64 GiB")
                    .into()
            }
            #[cfg(feature = "aws-lc")]
            Cipher::AwsLc(cipher) => {
                let mut tag = [0; 16];
                let nonce = AwsNonce::assume_unique_for_key(*nonce);
                cipher
                    .seal_out_of_place_scatter(nonce, Aad::from(aad), plain, sealed, &[], &mut tag)
                    .expect("a block is far below AES-GCM's 64 GiB");
                tag
            }
            #[cfg(feature = "testkit")]
            Cipher::Fake(cipher) => cipher.seal(nonce, aad, plain, sealed),
            #[cfg(feature = "testkit")]
            Cipher::Slowed { times, cipher } => {
                for _ in 1..*times {
                    cipher.seal(nonce, aad, plain, sealed);
                }
                cipher.seal(nonce, aad, plain, sealed)
            }
        }
    }

    /// Opens `sealed` into `plain`, which must be as long.
    ///
    /// If the message is refused, `plain` is all zeros: AWS-LC decrypts before it knows the tag,
    /// and what any engine leaves behind then is its own affair (`aes-gcm` checks first and leaves
    /// the old content).
    pub(crate) fn open(
        &self,
        nonce: &[u8; 12],
        aad: &[u8],
        (sealed, tag): (&[u8], &[u8; 16]),
        plain: &mut [u8],
    ) -> Result<(), Refused> {
        assert_eq!(plain.len(), sealed.len(), "opening keeps the length");
        let opened = match self {
            Cipher::AesGcm(cipher) => {
                let inout = InOutBuf::new(sealed, plain).expect("the lengths were compared");
                let tag: &Tag = tag.into();
                cipher.decrypt_inout_detached(nonce.into(), aad, inout, tag).is_ok()
            }
            #[cfg(feature = "aws-lc")]
            Cipher::AwsLc(cipher) => {
                let nonce = AwsNonce::assume_unique_for_key(*nonce);
                cipher.open_separate_gather(nonce, Aad::from(aad), sealed, tag, plain).is_ok()
            }
            #[cfg(feature = "testkit")]
            Cipher::Fake(cipher) => cipher.open(nonce, aad, (sealed, tag), plain),
            #[cfg(feature = "testkit")]
            Cipher::Slowed { cipher, .. } => cipher.open(nonce, aad, (sealed, tag), plain).is_ok(),
        };
        if !opened {
            plain.zeroize();
            return Err(Refused);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use zeroize::ZeroizeOnDrop;

    use super::*;

    /// Every engine of this build, the fakes too.
    fn engines() -> Vec<Engine> {
        let fakes: &[Engine] = &[
            #[cfg(feature = "testkit")]
            Engine::Fake,
            #[cfg(feature = "testkit")]
            Engine::Slowed { times: 3 },
        ];
        [Engine::all(), fakes].concat()
    }

    #[test]
    fn names_are_read_back() {
        for engine in Engine::all() {
            assert_eq!(engine.name().parse(), Ok(*engine));
        }
        assert_eq!("auto".parse(), Ok(Engine::fastest()));
        let error = "rot13".parse::<Engine>().unwrap_err();
        assert!(error.to_string().contains("no engine is called \"rot13\""));
        let aws = "aws-lc".parse::<Engine>();
        assert_eq!(aws.is_ok(), cfg!(feature = "aws-lc"));
        if let Err(error) = aws {
            assert!(error.to_string().contains("not built in"));
        }
    }

    #[test]
    fn key_schedules_are_wiped_on_drop() {
        fn wiped<T: ZeroizeOnDrop>() {}
        wiped::<aes::Aes256>();
        wiped::<Aes256Gcm>();
        wiped::<crate::xaes::Xaes>();
    }

    #[test]
    fn a_refused_message_leaves_zeros_in_every_engine() {
        for engine in engines() {
            let cipher = Cipher::new(engine, &[1; 32]);
            for len in [1, 15, 16, 17, 4096, 16384] {
                let plain = vec![0xab; len];
                let mut sealed = vec![0; len];
                let mut tag = cipher.seal(&[2; 12], b"aad", &plain, &mut sealed);
                assert_ne!(sealed, plain, "{engine}");
                tag[3] ^= 1;
                let mut out = vec![0x55; len];
                let opened = cipher.open(&[2; 12], b"aad", (&sealed, &tag), &mut out);
                assert_eq!(opened, Err(Refused), "{engine}");
                assert_eq!(out, vec![0; len], "{engine}");
            }
        }
    }

    proptest! {
        #[test]
        fn real_engines_give_the_same_bytes_and_open_each_others(
            key: [u8; 32],
            nonce: [u8; 12],
            aad in proptest::collection::vec(any::<u8>(), 0..40),
            plain in proptest::collection::vec(any::<u8>(), 0..5000),
        ) {
            let mut first: Option<(Vec<u8>, [u8; 16])> = None;
            for engine in Engine::all() {
                let mut sealed = vec![0; plain.len()];
                let tag = Cipher::new(*engine, &key).seal(&nonce, &aad, &plain, &mut sealed);
                let (sealed, tag) = first.get_or_insert((sealed.clone(), tag)).clone();
                prop_assert_eq!(&first, &Some((sealed.clone(), tag)));
                for other in Engine::all() {
                    let mut out = vec![0; plain.len()];
                    let opened = Cipher::new(*other, &key)
                        .open(&nonce, &aad, (&sealed, &tag), &mut out);
                    prop_assert_eq!(opened, Ok(()));
                    prop_assert_eq!(&out, &plain);
                }
            }
        }

        #[test]
        fn any_change_is_refused_by_every_engine(
            plain in proptest::collection::vec(any::<u8>(), 1..300),
            at: proptest::sample::Index,
            bit in 0_u8..8,
        ) {
            for engine in engines() {
                let cipher = Cipher::new(engine, &[9; 32]);
                let (mut nonce, mut aad) = ([4; 12], [5; 16]);
                let mut sealed = vec![0; plain.len()];
                let mut tag = cipher.seal(&nonce, &aad, &plain, &mut sealed);
                let place = at.index(plain.len() + 44);
                let byte = match place {
                    0..12 => &mut nonce[place],
                    12..28 => &mut aad[place - 12],
                    28..44 => &mut tag[place - 28],
                    _ => &mut sealed[place - 44],
                };
                *byte ^= 1 << bit;
                let mut out = vec![1; plain.len()];
                let opened = cipher.open(&nonce, &aad, (&sealed, &tag), &mut out);
                prop_assert_eq!(opened, Err(Refused));
                prop_assert!(out.iter().all(|&byte| byte == 0));
            }
        }
    }
}

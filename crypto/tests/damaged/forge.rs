//! Makes sealed files from `FORMAT.md` alone: right ones, and ones that no writer would make.
//!
//! It shares no line with the library, whose writer neither repeats its random bytes nor puts a
//! valid MAC under a wrong value. Keys and nonces are fixed here, so that the corpus is the same
//! whenever it is made; nothing of it may be used for secrets.

use aes::cipher::BlockCipherEncrypt;
use aes_gcm::aead::{AeadInOut, KeyInit};

pub(crate) type Key = [u8; 32];

/// The root key that the cases are opened with, but for those of another key.
pub(crate) const ROOT: Key = [0x11; 32];
pub(crate) const OTHER: Key = [0x22; 32];
pub(crate) const B: usize = 4096;
pub(crate) const HEADER: usize = 8192;
pub(crate) const PREFIX: usize = 48;
pub(crate) const STRIDE: usize = B + PREFIX;
/// Where the even and the odd slot begin.
pub(crate) const SLOTS: [usize; 2] = [512, 4608];
pub(crate) const PROLOGUES: [usize; 2] = [0, 4096];

/// The plaintext that all files hold, but where a case says otherwise.
pub(crate) fn text(positions: std::ops::Range<usize>) -> Vec<u8> {
    positions.map(|position| (position % 251) as u8).collect()
}

/// What an older version of a file held.
pub(crate) fn older_text(positions: std::ops::Range<usize>) -> Vec<u8> {
    positions.map(|position| 255 - (position % 251) as u8).collect()
}

/// One file's prologue and file key: what all its other keys come from.
#[derive(Clone)]
pub(crate) struct Forge {
    pub(crate) prologue: [u8; 64],
    file_key: Key,
}

impl Forge {
    /// The file that the cases are about.
    pub(crate) fn new() -> Forge {
        Forge::of_file([0x33; 32], [0x44; 32])
    }

    /// Another file of the same root key.
    pub(crate) fn another() -> Forge {
        Forge::of_file([0x55; 32], [0x66; 32])
    }

    fn of_file(file_id: [u8; 32], file_key: Key) -> Forge {
        let mut prologue = [0; 64];
        prologue[..13].copy_from_slice(b"SEALBACK\x01\0\x01\0\x0c");
        prologue[16..48].copy_from_slice(&file_id);
        Forge { prologue, file_key }
    }

    /// The same file with another byte in its prologue, to which all its keys are bound.
    pub(crate) fn with_prologue_byte(mut self, at: usize, byte: u8) -> Forge {
        self.prologue[at] = byte;
        self
    }

    pub(crate) fn file_id(&self) -> [u8; 32] {
        field(&self.prologue, 16)
    }

    /// A header with these slots; zeros where none is.
    pub(crate) fn header(&self, slots: &[Slot]) -> Vec<u8> {
        let mut header = vec![0; HEADER];
        for at in PROLOGUES {
            header[at..at + 64].copy_from_slice(&self.prologue);
        }
        for slot in slots {
            let at = SLOTS[slot.place];
            header[at..at + 512].copy_from_slice(&self.slot(slot));
        }
        header
    }

    fn slot(&self, slot: &Slot) -> Vec<u8> {
        let key_id = derive("root key id", &[&slot.root, &self.file_id()]);
        let wrapping_key = derive("file key wrapping", &[&slot.root]);
        let nonce = [slot.generation as u8; 24];
        let wrapped = seal(&wrapping_key, nonce, &self.prologue, &self.file_key);
        let (tag, wrapped) = wrapped.split_at(16);
        let mut bytes = [slot.generation, slot.size, slot.flags].map(u64::to_le_bytes).concat();
        bytes.extend([&key_id[..16], &nonce, wrapped, tag].concat());
        bytes.extend([slot.cuts, slot.holes.0, slot.holes.1].map(u64::to_le_bytes).concat());
        bytes.resize(480, 0);
        if let Some(at) = slot.unknown_byte {
            bytes[at] = 1;
        }
        let header_key = derive("file header key", &[&self.file_key, &self.prologue]);
        let mac = blake3::keyed_hash(&header_key, &[&self.prologue[..], &bytes].concat());
        bytes.extend(mac.as_bytes());
        bytes
    }

    /// A block as it is stored: prefix and ciphertext.
    pub(crate) fn block(&self, number: u64, text: &[u8], seal_gen: u32) -> Vec<u8> {
        let content_key = derive("file content key", &[&self.file_key, &self.prologue]);
        // As drawn for a span that was sealed for this generation.
        let number_in_span = (number as u32).to_be_bytes();
        let nonce = field(&[&[0x70 + seal_gen as u8; 20][..], &number_in_span].concat(), 0);
        let claims = [text.len() as u32, seal_gen].map(u32::to_le_bytes).concat();
        let aad = [&number.to_le_bytes()[..], &claims].concat();
        let sealed = seal(&content_key, nonce, &aad, text);
        [&nonce[..], &sealed[..16], &claims, &sealed[16..]].concat()
    }

    /// The blocks of a text, dense, as one sync seals them.
    pub(crate) fn blocks(&self, text: &[u8], seal_gen: u32) -> Vec<u8> {
        let blocks = text.chunks(B).enumerate();
        blocks.flat_map(|(number, text)| self.block(number as u64, text, seal_gen)).collect()
    }
}

/// What a slot says, true or not.
#[derive(Clone)]
pub(crate) struct Slot {
    pub(crate) generation: u64,
    pub(crate) size: u64,
    pub(crate) flags: u64,
    pub(crate) cuts: u64,
    pub(crate) holes: (u64, u64),
    pub(crate) root: Key,
    /// 0 for the even slot, 1 for the odd one.
    pub(crate) place: usize,
    /// A byte of the slot that is 1 where format 1 has zeros.
    pub(crate) unknown_byte: Option<usize>,
}

impl Slot {
    pub(crate) fn new(generation: u64, size: usize) -> Slot {
        Slot {
            generation,
            size: size as u64,
            flags: 0,
            cuts: 0,
            holes: (0, 0),
            root: ROOT,
            place: (generation % 2) as usize,
            unknown_byte: None,
        }
    }
}

fn derive(purpose: &str, material: &[&[u8]]) -> Key {
    blake3::derive_key(&format!("sealback 2026-11-23 v1 {purpose}"), &material.concat())
}

/// XAES-256-GCM; the tag comes first, as a block stores it.
fn seal(key: &Key, nonce: [u8; 24], aad: &[u8], text: &[u8]) -> Vec<u8> {
    let aes = aes::Aes256::new(&(*key).into());
    let encrypt = |plain: u128| {
        let mut block = plain.to_be_bytes().into();
        aes.encrypt_block(&mut block);
        u128::from_be_bytes(block.into())
    };
    let l = encrypt(0);
    let k1 = (l << 1) ^ ((l >> 127) * 0x87);
    let halves = [1, 2].map(|counter| {
        let message = [&[0, counter, b'X', 0], &nonce[..12]].concat();
        encrypt(u128::from_be_bytes(field(&message, 0)) ^ k1).to_be_bytes()
    });
    let subkey: Key = field(&halves.concat(), 0);
    let mut sealed = text.to_vec();
    let tag = aes_gcm::Aes256Gcm::new(&subkey.into())
        .encrypt_inout_detached(&field(&nonce, 12).into(), aad, sealed.as_mut_slice().into())
        .unwrap();
    [&tag[..], &sealed].concat()
}

/// The `N` bytes at `at`; callers stay within `bytes`.
pub(crate) fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    std::array::from_fn(|index| bytes[at + index])
}

//! A slot: the header's 512 bytes that a commit writes, under a MAC.
//!
//! `mac = BLAKE3.keyed_hash(header_key, prologue || slot[..480])`

use std::ops::Range;

use blake3::Hasher;
use zeroize::Zeroizing;

use super::HeaderError;
use super::prologue::Prologue;
use crate::bytes;
use crate::cipher::Engine;
use crate::derive::{self, Secret};
use crate::geometry::{Geometry, MAX_FILE_BYTES};
use crate::key::RootKey;
use crate::nonce::Nonce;
use crate::xaes::Xaes;

/// Bytes of a slot: what one commit writes.
pub const SLOT_BYTES: usize = 512;

/// Where the even and the odd slot begin: no write of 4 KiB can take both.
pub(super) const SLOT_OFFSETS: [usize; 2] = [512, 4608];

/// Where the MAC stands in a slot; all before it is what it speaks for.
pub(super) const MAC_OFFSET: usize = 480;

const CUT_PENDING: u64 = 1 << 1;
const WRAP: Range<usize> = 24..112;
const RESERVED: Range<usize> = 136..MAC_OFFSET;

/// What a slot says.
#[derive(Clone)]
pub(super) struct Slot {
    pub(super) values: Values,
    pub(super) wrap: Wrap,
}

impl Slot {
    pub(super) fn to_bytes(
        &self,
        header_key: &[u8; 32],
        prologue: &Prologue,
    ) -> Box<[u8; SLOT_BYTES]> {
        let values = &self.values;
        let flags = if values.cut_pending { CUT_PENDING } else { 0 };
        let mut bytes = Box::new([0; SLOT_BYTES]);
        for (at, value) in [
            (0, values.generation),
            (8, values.size),
            (16, flags),
            (112, values.cuts),
            (120, values.holes.start),
            (128, values.holes.end),
        ] {
            bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        bytes[WRAP].copy_from_slice(&self.wrap.0);
        let mac = mac(header_key, prologue, &bytes);
        bytes[MAC_OFFSET..].copy_from_slice(mac.as_bytes());
        bytes
    }

    /// Reads a slot whose MAC held. What it says may still be unknown to format 1.
    pub(super) fn parse(bytes: &[u8; SLOT_BYTES], geometry: Geometry) -> Result<Slot, HeaderError> {
        let flags = bytes::u64_at(bytes, 16);
        if flags & !CUT_PENDING != 0 {
            return Err(HeaderError::UnknownFlags(flags));
        }
        let values = Values {
            generation: bytes::u64_at(bytes, 0),
            size: bytes::u64_at(bytes, 8),
            cut_pending: flags & CUT_PENDING != 0,
            cuts: bytes::u64_at(bytes, 112),
            holes: bytes::u64_at(bytes, 120)..bytes::u64_at(bytes, 128),
        };
        if let Some(at) = bytes::first_nonzero(&bytes[RESERVED]) {
            let offset = SLOT_OFFSETS[values.slot_index()] + RESERVED.start + at;
            return Err(HeaderError::UnknownSlotField { offset });
        }
        values.check(geometry)?;
        Ok(Slot { values, wrap: Wrap(bytes::field(bytes, WRAP.start)) })
    }
}

/// The values of a slot that commits change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Values {
    pub(super) generation: u64,
    pub(super) size: u64,
    pub(super) cut_pending: bool,
    pub(super) cuts: u64,
    pub(super) holes: Range<u64>,
}

impl Values {
    /// The same when writing as when reading, so that nothing is written that cannot be read.
    pub(super) fn check(&self, geometry: Geometry) -> Result<(), HeaderError> {
        if self.size > MAX_FILE_BYTES {
            return Err(HeaderError::SizeTooLarge(self.size));
        }
        let Range { start, end } = self.holes;
        let none = (start, end) == (0, 0);
        if !none && (start >= end || end > geometry.n_blocks(MAX_FILE_BYTES)) {
            return Err(HeaderError::BadHoles { start, end });
        }
        Ok(())
    }

    /// 0 for the even slot, 1 for the odd one.
    pub(super) fn slot_index(&self) -> usize {
        usize::from(self.generation % 2 == 1)
    }
}

/// Bytes 24 to 112 of a slot: key_id, nonce, wrapped file key, tag.
#[derive(Clone)]
pub(super) struct Wrap([u8; 88]);

impl Wrap {
    /// `wrapped, tag = XAES-256-GCM[wrapping_key](nonce, prologue, file_key)`
    pub(super) fn new(
        root: &RootKey,
        prologue: &Prologue,
        file_key: &[u8; 32],
        nonce: Nonce,
    ) -> Wrap {
        let mut wrap = [0; 88];
        wrap[..16].copy_from_slice(&derive::key_id(root, &prologue.file_id()));
        wrap[16..40].copy_from_slice(nonce.as_bytes());
        let xaes = Xaes::new(&derive::wrapping_key(root));
        let wrapped = &mut wrap[40..72];
        let tag = xaes.seal(WRAP_ENGINE, nonce, prologue.as_bytes(), file_key, wrapped);
        wrap[72..].copy_from_slice(&tag);
        Wrap(wrap)
    }

    /// The wrap of a slot as it is stored, authentic or not.
    pub(super) fn of_slot(slot: &[u8; SLOT_BYTES]) -> Wrap {
        Wrap(bytes::field(slot, WRAP.start))
    }

    pub(super) fn key_id(&self) -> [u8; 16] {
        bytes::field(&self.0, 0)
    }

    /// The file key, if `root` wrapped it for this very prologue and nobody changed a byte.
    pub(super) fn unwrap_key(&self, root: &RootKey, prologue: &Prologue) -> Option<Secret> {
        let xaes = Xaes::new(&derive::wrapping_key(root));
        let nonce = Nonce::from_bytes(bytes::field(&self.0, 16));
        let message = (&self.0[40..72], &bytes::field(&self.0, 72));
        let mut file_key: Secret = Box::new(Zeroizing::new([0; 32]));
        let aad = prologue.as_bytes();
        xaes.open(WRAP_ENGINE, nonce, aad, message, &mut file_key[..]).ok()?;
        Some(file_key)
    }
}

/// 32 bytes need no speed, and a header that a fake engine wrote is a real one.
const WRAP_ENGINE: Engine = Engine::AesGcm;

/// The MAC as it is stored in a slot.
pub(super) fn mac_of(slot: &[u8; SLOT_BYTES]) -> [u8; 32] {
    bytes::field(slot, MAC_OFFSET)
}

/// Whether the stored MAC is the right one, in constant time.
pub(super) fn mac_holds(
    slot: &[u8; SLOT_BYTES],
    header_key: &[u8; 32],
    prologue: &Prologue,
) -> bool {
    mac(header_key, prologue, slot) == blake3::Hash::from_bytes(mac_of(slot))
}

fn mac(header_key: &[u8; 32], prologue: &Prologue, slot: &[u8; SLOT_BYTES]) -> blake3::Hash {
    let mut hasher = Zeroizing::new(Hasher::new_keyed(header_key));
    hasher.update(prologue.as_bytes());
    hasher.update(&slot[..MAC_OFFSET]);
    hasher.finalize()
}

/// Makes the MAC of an edited slot right again; for tests of what an authentic slot may say.
#[cfg(test)]
pub(super) fn renew_mac(slot: &mut [u8; SLOT_BYTES], header_key: &[u8; 32], prologue: &Prologue) {
    let mac = mac(header_key, prologue, slot);
    slot[MAC_OFFSET..].copy_from_slice(mac.as_bytes());
}

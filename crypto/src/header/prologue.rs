//! The prologue: the header's 64 bytes that never change; every key of the file depends on them.

use super::HeaderError;
use crate::bytes;
use crate::geometry::Geometry;
use crate::key::FileId;

/// Where the two copies stand in the header.
pub(super) const OFFSETS: [usize; 2] = [0, 4096];

pub(super) const PROLOGUE_BYTES: usize = 64;

const MAGIC: &[u8; 8] = b"SEALBACK";
const VERSION: u16 = 1;
const XAES_256_GCM: u16 = 1;

/// A prologue of format 1: its bytes, and what they say.
#[derive(Clone)]
pub(super) struct Prologue {
    bytes: [u8; PROLOGUE_BYTES],
    geometry: Geometry,
}

impl Prologue {
    pub(super) fn new(file_id: FileId, geometry: Geometry) -> Prologue {
        let mut bytes = [0; PROLOGUE_BYTES];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..10].copy_from_slice(&VERSION.to_le_bytes());
        bytes[10..12].copy_from_slice(&XAES_256_GCM.to_le_bytes());
        bytes[12] = geometry.block_shift();
        bytes[16..48].copy_from_slice(file_id.as_bytes());
        bytes[48..52].copy_from_slice(&geometry.chunk_blocks().to_le_bytes());
        Prologue { bytes, geometry }
    }

    /// Reads the copy at the header's start. What a later version may have changed is looked at
    /// last, so that such a file is refused by its version.
    pub(super) fn parse(bytes: [u8; PROLOGUE_BYTES]) -> Result<Prologue, HeaderError> {
        if bytes[..8] != MAGIC[..] {
            return Err(HeaderError::NotSealed);
        }
        let version = bytes::u16_at(&bytes, 8);
        if version != VERSION {
            return Err(HeaderError::UnknownVersion(version));
        }
        let cipher = bytes::u16_at(&bytes, 10);
        if cipher != XAES_256_GCM {
            return Err(HeaderError::UnknownCipher(cipher));
        }
        let geometry = Geometry::from_fields(bytes[12], bytes::u32_at(&bytes, 48))
            .ok_or(HeaderError::BadBlockShift(bytes[12]))?;
        for zeros in [13..16, 52..64] {
            if let Some(at) = bytes::first_nonzero(&bytes[zeros.clone()]) {
                let offset = zeros.start + at;
                return Err(HeaderError::PaddingAltered { offset });
            }
        }
        Ok(Prologue { bytes, geometry })
    }

    pub(super) fn as_bytes(&self) -> &[u8; PROLOGUE_BYTES] {
        &self.bytes
    }

    pub(super) fn geometry(&self) -> Geometry {
        self.geometry
    }

    pub(super) fn file_id(&self) -> FileId {
        FileId::from_bytes(bytes::field(&self.bytes, 16))
    }
}

/// What a prologue says that nobody has checked.
pub(super) fn claims(bytes: [u8; PROLOGUE_BYTES]) -> (FileId, Option<Geometry>) {
    let geometry = Geometry::from_fields(bytes[12], bytes::u32_at(&bytes, 48));
    (FileId::from_bytes(bytes::field(&bytes, 16)), geometry)
}

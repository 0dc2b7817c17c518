//! What a stored header says of itself, before anyone has checked it.

use super::prologue;
use super::slot::SLOT_OFFSETS;
use crate::bytes;
use crate::geometry::{Geometry, HEADER_BYTES};
use crate::key::FileId;

/// What a header claims. Nothing of it is authenticated: it is for whoever keeps sealed files without
/// having a key, and only to decide what costs time if it is wrong. [`Header::open`](crate::Header::open)
/// tells what is true.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeaderClaims {
    /// The greater of both slots' generations.
    pub generation: u64,
    /// The greater of both slots' sizes of the plaintext file, in bytes: in the middle of a cut, the
    /// size before it.
    pub size: u64,
    /// Which file it is of.
    pub file_id: FileId,
    /// How the file is cut up; `None` for what no header of format 1 says.
    pub geometry: Option<Geometry>,
}

impl HeaderClaims {
    /// The claims of a stored header.
    pub fn of(header: &[u8; HEADER_BYTES]) -> HeaderClaims {
        let greater = |at| SLOT_OFFSETS.map(|slot| bytes::u64_at(header, slot + at));
        let [generation, size] = [0, 8].map(|at| greater(at).into_iter().fold(0, u64::max));
        let (file_id, geometry) = prologue::claims(bytes::field(header, 0));
        HeaderClaims { generation, size, file_id, geometry }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Engine, Geometry, Header, HeaderChange, RootKey};

    #[test]
    fn a_header_claims_the_greater_generation_and_the_greater_size_of_its_slots() {
        let geometry = Geometry::new(4096).unwrap().with_chunk_blocks(9);
        let new = Header::create(&RootKey::from_bytes(&[1; 32]), geometry, Engine::AesGcm).unwrap();
        let geometry = Some(geometry);
        let claims = |generation, size| {
            let file_id = new.header.file_id();
            HeaderClaims { generation, size, file_id, geometry }
        };
        assert_eq!(HeaderClaims::of(&new.bytes), claims(1, 0));
        let sized = |size, cuts| HeaderChange { size, holes: 0..0, cuts, cut_pending: cuts > 0 };
        let mut bytes = new.bytes.clone();
        let mut header = new.header.clone();
        for (generation, change, size) in [(2, sized(9000, 0), 9000), (3, sized(10, 1), 9000)] {
            let commit = header.commit(&change).unwrap();
            let at = usize::try_from(commit.write.offset).unwrap();
            bytes[at..at + commit.write.bytes.len()].copy_from_slice(&commit.write.bytes[..]);
            assert_eq!(HeaderClaims::of(&bytes), claims(generation, size));
            header = commit.header;
        }
    }
}

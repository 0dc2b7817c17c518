//! A stored file as a flat one has it, wherever its blocks lie.

use sealback_crypto::{HEADER_BYTES, HeaderClaims, Stored};
use sealback_stream::{Name, Server, read_stored};

/// Header and blocks of a file, for a reader of flat files.
///
/// # Panics
/// If there is no such file, or it cannot be read.
pub fn flat(server: &dyn Server, name: &Name) -> Vec<u8> {
    let target = server.open(name).expect("there is such a file");
    let mut bytes = target.read_header().expect("it has a header");
    let header: &[u8; HEADER_BYTES] = bytes[..].try_into().expect("a whole header");
    let claims = HeaderClaims::of(header);
    let geometry = claims.geometry.expect("a header that says how the file is cut up");
    let n_blocks = geometry.n_blocks(claims.size);
    if n_blocks == 0 {
        return bytes;
    }
    let stored = read_stored(&*target, geometry, 0..n_blocks);
    let Stored { buffer, len } = stored.expect("its blocks are read");
    bytes.extend_from_slice(&buffer[..len]);
    bytes
}

//! Key derivation: every secret of a file comes from the root key or the file key, here.
//!
//! `out = BLAKE3.derive_key(context, material)`; each context string is used for one thing alone.
//! The hasher is wiped too, since its state gives away the key.

use std::sync::LazyLock;

use blake3::{
    Hasher,
    hazmat::{self, ContextKey, HasherExt},
};
use zeroize::{Zeroize, Zeroizing};

use crate::key::{FileId, RootKey};

/// 32 secret bytes at one place on the heap, wiped there when dropped; moving them copies nothing.
pub(crate) type Secret = Box<Zeroizing<[u8; 32]>>;

/// What a context string comes to, which is no secret.
type Context = LazyLock<ContextKey>;

static KEY_ID: Context =
    LazyLock::new(|| hazmat::hash_derive_key_context("sealback 2026-11-23 v1 root key id"));
static WRAPPING: Context =
    LazyLock::new(|| hazmat::hash_derive_key_context("sealback 2026-11-23 v1 file key wrapping"));
static CONTENT: Context =
    LazyLock::new(|| hazmat::hash_derive_key_context("sealback 2026-11-23 v1 file content key"));
static HEADER: Context =
    LazyLock::new(|| hazmat::hash_derive_key_context("sealback 2026-11-23 v1 file header key"));
static VOUCHING: Context =
    LazyLock::new(|| hazmat::hash_derive_key_context("sealback 2026-11-30 v1 file vouching key"));

/// Names the root key in one file's header. The file id is bound in, so that a server cannot see
/// which files share a root key.
pub(crate) fn key_id(root: &RootKey, file_id: &FileId) -> [u8; 16] {
    let mut id = [0; 16];
    let material = [&root.as_bytes()[..], file_id.as_bytes()];
    derive(&KEY_ID, &material, &mut id);
    id
}

/// The key under which a file key is wrapped.
pub(crate) fn wrapping_key(root: &RootKey) -> Secret {
    secret(&WRAPPING, &[root.as_bytes()])
}

/// The key of a file's blocks; it depends on every immutable byte of the header.
pub(crate) fn content_key(file_key: &[u8; 32], prologue: &[u8; 64]) -> Secret {
    secret(&CONTENT, &[file_key, prologue])
}

/// The key of a file's header MACs; it depends on every immutable byte of the header.
pub(crate) fn header_key(file_key: &[u8; 32], prologue: &[u8; 64]) -> Secret {
    secret(&HEADER, &[file_key, prologue])
}

/// The key under which a client vouches for what it keeps of a file elsewhere.
pub(crate) fn vouching_key(file_key: &[u8; 32], prologue: &[u8; 64]) -> Secret {
    secret(&VOUCHING, &[file_key, prologue])
}

fn secret(context: &Context, material: &[&[u8]]) -> Secret {
    let mut out: Secret = Box::new(Zeroizing::new([0; 32]));
    derive(context, material, &mut out[..]);
    out
}

fn derive(context: &Context, material: &[&[u8]], out: &mut [u8]) {
    let mut hasher = Zeroizing::new(Hasher::new_from_context_key(context));
    for part in material {
        hasher.update(part);
    }
    let mut reader = hasher.finalize_xof();
    reader.fill(out);
    reader.zeroize();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derivation_is_blake3s_own_over_the_joined_material() {
        let root = RootKey::from_bytes(&[3; 32]);
        let joined = [[3; 32], [9; 32]].concat();
        let hash = blake3::derive_key("sealback 2026-11-23 v1 root key id", &joined);
        assert_eq!(key_id(&root, &FileId::from_bytes([9; 32])), hash[..16]);
        assert_eq!(
            **wrapping_key(&root),
            blake3::derive_key("sealback 2026-11-23 v1 file key wrapping", &[3; 32])
        );
        let joined = [&[5; 32][..], &[6; 64]].concat();
        assert_eq!(
            **content_key(&[5; 32], &[6; 64]),
            blake3::derive_key("sealback 2026-11-23 v1 file content key", &joined)
        );
        assert_eq!(
            **header_key(&[5; 32], &[6; 64]),
            blake3::derive_key("sealback 2026-11-23 v1 file header key", &joined)
        );
        assert_eq!(
            **vouching_key(&[5; 32], &[6; 64]),
            blake3::derive_key("sealback 2026-11-30 v1 file vouching key", &joined)
        );
    }
}

//! Sealing and opening a span, per block size and engine.

use std::hint;

use sealback_crypto::{
    BufferPool, ContentKey, Engine as Cipher, FileView, Geometry, Header, RootKey, Stored,
};

use super::{Call, Kernel};

const BLOCK_SIZES: [(u64, &str); 5] = [
    (4 << 10, "4KiB"),
    (16 << 10, "16KiB"),
    (64 << 10, "64KiB"),
    (256 << 10, "256KiB"),
    (1 << 20, "1MiB"),
];

/// Plaintext that an engine seals in one go by default.
const SPAN_BYTES: u64 = 512 << 10;

pub(super) fn kernels() -> Vec<Kernel> {
    let mut kernels = Vec::new();
    for cipher in Cipher::all() {
        for (block_bytes, size) in BLOCK_SIZES {
            let span_bytes = SPAN_BYTES.max(block_bytes);
            let kernel = |what: &str, begin: fn(Cipher, u64, u64) -> Call| Kernel {
                name: format!("{what}/{}/{size}", cipher.name()),
                n_units: span_bytes / block_bytes,
                unit: "block",
                unit_bytes: block_bytes,
                begin: Box::new(move || begin(*cipher, block_bytes, span_bytes)),
            };
            kernels.extend([kernel("seal", seal), kernel("open", open)]);
        }
    }
    kernels
}

/// The key of a new file.
pub(super) fn content_key(cipher: Cipher, block_bytes: u64) -> ContentKey {
    let geometry = Geometry::new(block_bytes).expect("a block size");
    let new = Header::create(&RootKey::from_bytes(&[1; 32]), geometry, cipher);
    new.expect("the system has random bytes").header.content_key().clone()
}

fn len(bytes: u64) -> usize {
    usize::try_from(bytes).expect("a span is small")
}

/// From one slice into a buffer of a pool.
fn seal(cipher: Cipher, block_bytes: u64, span_bytes: u64) -> Call {
    let key = content_key(cipher, block_bytes);
    let pool = BufferPool::new(1, len(key.geometry().span_bytes(span_bytes)));
    let plain = vec![7; len(span_bytes)];
    Box::new(move || {
        let buffer = pool.try_take().expect("it came home");
        hint::black_box(key.seal(0, 1, &[&plain], buffer).expect("the buffer is large enough"));
    })
}

/// From a buffer of a pool, which the stored bytes are copied to before.
fn open(cipher: Cipher, block_bytes: u64, span_bytes: u64) -> Call {
    let key = content_key(cipher, block_bytes);
    let stored_bytes = len(key.geometry().span_bytes(span_bytes));
    let pool = BufferPool::new(2, stored_bytes);
    let take = move || pool.try_take().expect("it came home");
    let mut plain = vec![7; len(span_bytes)];
    let sealed = key.seal(0, 1, &[&plain], take()).expect("the buffer is large enough");
    let view = FileView { size: span_bytes, generation: 1, holes: 0..0 };
    Box::new(move || {
        let mut buffer = take();
        buffer.copy_from_slice(sealed.bytes());
        let opened = key.open(&view, 0, Stored { buffer, len: stored_bytes }, &mut plain);
        assert!(opened.first_damage().is_none());
        hint::black_box(&plain);
    })
}

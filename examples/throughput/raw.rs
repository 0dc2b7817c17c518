//! References: what the machine does with the same bytes and nothing of the pipeline.

use std::{
    fs::File,
    hint,
    io::{Read, Write},
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use sealback::crypto::{BufferPool, ContentKey, Engine as Cipher, Geometry, Header, RootKey};

use crate::{Failure, folios::Folios};

/// Plaintext that is sealed in one go, as the engine does it by default.
const SPAN_BYTES: u64 = 512 << 10;
/// Sealed buffers: as many as the engine's pool has by default.
const N_BUFFERS: usize = 22;

/// The key of a new file.
pub(crate) fn content_key(cipher: Cipher, block_bytes: u64) -> Result<ContentKey, Failure> {
    let geometry = Geometry::new(block_bytes)?;
    let header = Header::create(&RootKey::from_bytes(&[1; 32]), geometry, cipher)?.header;
    Ok(header.content_key().clone())
}

fn span_blocks(block_bytes: u64) -> u64 {
    (SPAN_BYTES / block_bytes).max(1)
}

/// Memory to seal into: as many buffers as the engine has, used again and again.
pub(crate) fn ring(geometry: Geometry) -> BufferPool {
    let block_bytes = geometry.block_bytes();
    let bytes = geometry.span_bytes(span_blocks(block_bytes) * block_bytes);
    BufferPool::new(N_BUFFERS, usize::try_from(bytes).expect("a span is small"))
}

/// Seals all of a file's folios, span by span, on so many threads, into a ring of buffers.
pub(crate) fn seal(
    key: &ContentKey,
    folios: &Folios,
    pool: &BufferPool,
    n_threads: usize,
) -> Result<(), Failure> {
    let span_blocks = span_blocks(key.geometry().block_bytes());
    each_part(folios.n_blocks(), span_blocks, n_threads, |blocks| {
        let slices: Vec<&[u8]> =
            folios.slices(blocks.clone()).map(|(folio, range)| &folio[range]).collect();
        let buffer = pool.try_take().expect("there are more buffers than threads");
        let sealed = key.seal(blocks.start, 1, &slices, buffer).expect("it fits");
        hint::black_box(sealed.bytes());
    });
    Ok(())
}

/// Copies all of a file's folios, span by span, on so many threads, into a ring of buffers.
pub(crate) fn copy(folios: &Folios, block_bytes: u64, pool: &BufferPool, n_threads: usize) {
    each_part(folios.n_blocks(), span_blocks(block_bytes), n_threads, |blocks| {
        let mut buffer = pool.try_take().expect("there are more buffers than threads");
        let mut at = 0;
        for (folio, range) in folios.slices(blocks) {
            buffer[at..at + range.len()].copy_from_slice(&folio[range.clone()]);
            at += range.len();
        }
        hint::black_box(&buffer[..]);
    });
}

/// Calls `work` for all parts of `0..n`, on so many threads.
pub(crate) fn each_part(
    n: u64,
    part: u64,
    n_threads: usize,
    work: impl Fn(std::ops::Range<u64>) + Sync,
) {
    let next = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..n_threads {
            scope.spawn(|| {
                loop {
                    let start = next.fetch_add(part, Ordering::Relaxed);
                    if start >= n {
                        return;
                    }
                    work(start..n.min(start + part));
                }
            });
        }
    });
}

/// Copies a file with a buffer of 1 MiB.
pub(crate) fn copy_file(from: &Path, to: &Path) -> Result<(), Failure> {
    let (mut from, mut to) = (File::open(from)?, File::create(to)?);
    let mut buffer = vec![0; 1 << 20];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(()),
            len => to.write_all(&buffer[..len])?,
        }
    }
}

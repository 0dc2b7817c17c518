//! The engine alone.

use std::hint;

use sealback::crypto::{Buffer, BufferPool, Engine as Cipher, FileView, Stored};
use zeroize::Zeroize;

use super::{Setup, fastest};
use crate::{
    Failure,
    folios::Folios,
    measure::{Round, Side, Sides},
    raw,
};

const BLOCK_BYTES: u64 = 16 << 10;

/// Sealing on so many threads.
pub(super) fn seal(setup: &Setup, cipher: Cipher, n_threads: usize) -> Result<Sides, Failure> {
    let folios = Folios::new(setup.size, 64 << 10, BLOCK_BYTES);
    let (copied, size) = (folios.clone(), folios.size());
    let key = raw::content_key(cipher, BLOCK_BYTES)?;
    Ok(Sides {
        subject: Box::new(move || Round::time(size, || raw::seal(&key, &folios, n_threads))),
        reference: Box::new(move || {
            Round::time(size, || {
                raw::copy(&copied, BLOCK_BYTES, n_threads);
                Ok(())
            })
        }),
    })
}

/// What is opened again and again: sealed bytes in one thread's cache are what a reader has.
const OPENED_BYTES: usize = 512 << 10;

/// Opening on one thread.
pub(super) fn open(setup: &Setup) -> Result<Sides, Failure> {
    let key = raw::content_key(fastest(), BLOCK_BYTES)?;
    let n_spans = setup.size / OPENED_BYTES as u64;
    let size = n_spans * OPENED_BYTES as u64;
    let plain = vec![7; OPENED_BYTES];
    let span = usize::try_from(key.geometry().span_bytes(OPENED_BYTES as u64))?;
    let sealed = key.seal(0, 1, &[&plain], Buffer::unpooled(span))?;
    let view = FileView { size: OPENED_BYTES as u64, generation: 1, holes: 0..0 };
    // The sealed bytes of a unit come in a buffer of a pool, and go with it.
    let pool = BufferPool::new(1, span);
    let mut opened = vec![0; OPENED_BYTES];
    let subject = move || {
        Round::time(size, || {
            for _span in 0..n_spans {
                let mut buffer = pool.try_take().expect("it came back");
                buffer[..sealed.bytes().len()].copy_from_slice(sealed.bytes());
                let stored = Stored { len: sealed.bytes().len(), buffer };
                let verdicts = key.open(&view, 0, stored, &mut opened);
                assert!(verdicts.first_damage().is_none());
            }
            hint::black_box(&opened);
            Ok(())
        })
    };
    Ok(Sides { subject: Box::new(subject), reference: copies(size, n_spans) })
}

/// Copies of as much memory, as often.
fn copies(size: u64, n: u64) -> Side {
    let (from, mut to) = (vec![7_u8; OPENED_BYTES], vec![0_u8; OPENED_BYTES]);
    Box::new(move || {
        Round::time(size, || {
            for _copy in 0..n {
                to.copy_from_slice(hint::black_box(&from));
                hint::black_box(&to);
            }
            Ok(())
        })
    })
}

/// Wiping folios, as eviction does.
pub(super) fn wipe(setup: &Setup) -> Result<Sides, Failure> {
    let n_folios = usize::try_from(setup.size)? / FOLIO_BYTES;
    Ok(Sides {
        subject: each_folio(n_folios, |folio| folio.zeroize()),
        reference: each_folio(n_folios, |folio| folio.fill(0)),
    })
}

const FOLIO_BYTES: usize = 64 << 10;

fn each_folio(n_folios: usize, wipe: fn(&mut [u8])) -> Side {
    // More than what a core's cache holds.
    let mut folios = vec![vec![7_u8; FOLIO_BYTES]; n_folios.clamp(1, 1024)];
    Box::new(move || {
        Round::time((n_folios * FOLIO_BYTES) as u64, || {
            for index in 0..n_folios {
                let n = folios.len();
                let folio = &mut folios[index % n];
                wipe(folio);
                hint::black_box(folio);
            }
            Ok(())
        })
    })
}

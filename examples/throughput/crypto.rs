//! The engine alone.

use std::hint;

use sealback::{
    Config, CreateOptions, Engine, Place,
    crypto::{Buffer, BufferPool, Engine as Cipher, FileView, RootKey, Stored},
    stream::{Name, NullServer},
};

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
    let (ring, other_ring) = (raw::ring(key.geometry()), raw::ring(key.geometry()));
    Ok(Sides {
        subject: Box::new(move || Round::time(size, || raw::seal(&key, &folios, &ring, n_threads))),
        reference: Box::new(move || {
            Round::time(size, || {
                raw::copy(&copied, BLOCK_BYTES, &other_ring, n_threads);
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

/// Giving up clean folios, whose plaintext is wiped, against zeros written to as much memory.
pub(super) fn wipe(setup: &Setup) -> Result<Sides, Failure> {
    let n_folios = (usize::try_from(setup.size)? / FOLIO_BYTES).clamp(1, MAX_WIPED);
    let size = n_folios * FOLIO_BYTES;
    // Room for all of them, so that none is given up before, and none is written back early.
    let engine = Engine::new(Config {
        memory_bytes: (size * 2).max(8 << 20),
        folio_bytes: FOLIO_BYTES,
        dirty_background_percent: 100,
        dirty_limit_percent: 100,
        ..Config::default()
    })?;
    let (root, server) = (RootKey::from_bytes(&[1; 32]), NullServer::default());
    let place = Place { server: &server, cache: None, root: &root };
    let file = engine.create(&place, &Name::new("file")?, &CreateOptions::default())?;
    let plain = vec![7; FOLIO_BYTES];
    let subject = move || {
        (0..n_folios).try_for_each(|folio| file.write_at((folio * FOLIO_BYTES) as u64, &plain))?;
        file.sync()?;
        assert_eq!(engine.stats().folios_out, n_folios);
        let round = Round::time(size as u64, || Ok(file.revalidate()?))?;
        assert_eq!(engine.stats().folios_out, 0);
        Ok(round)
    };
    let mut folios = vec![vec![7_u8; FOLIO_BYTES]; n_folios];
    let reference = move || {
        Round::time(size as u64, || {
            folios.iter_mut().for_each(|folio| hint::black_box(folio).fill(0));
            Ok(())
        })
    };
    Ok(Sides { subject: Box::new(subject), reference: Box::new(reference) })
}

const FOLIO_BYTES: usize = 64 << 10;
/// Folios: 256 MiB, more than what a core's cache holds.
const MAX_WIPED: usize = 4096;

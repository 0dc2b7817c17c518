//! The pipeline on targets in memory.

use std::sync::Arc;

use sealback::{
    Config, CreateOptions, Engine, File, Place,
    crypto::{Engine as Cipher, RootKey},
    stream::{
        Cache, Failure as Fails, MemoryCache, MemoryOptions, MemoryServer, Name, NullCache,
        NullServer, Server, TargetError, TargetErrorKind,
        faulty::{Fault, Faults, FaultyServer, Operation, Rule, When},
    },
};

use super::{Setup, fastest, n_threads};
use crate::{
    Failure,
    folios::Folios,
    measure::{Round, Side, Sides},
    raw,
};

const BLOCK_BYTES: u64 = 16 << 10;
/// Stored bytes in a subrequest, at most.
const WRITE_BYTES: u64 = 1 << 20;

/// A new file, of which nobody else knows.
fn create(
    engine: &Engine,
    (server, cache): (&dyn Server, Option<&dyn Cache>),
    name: &str,
    block_bytes: u64,
) -> Result<File, Failure> {
    let root = RootKey::from_bytes(&[1; 32]);
    let options = CreateOptions { block_bytes, replace: true };
    Ok(engine.create(&Place { server, cache, root: &root }, &Name::new(name)?, &options)?)
}

fn engine(cipher: Cipher) -> Result<Engine, Failure> {
    Ok(Engine::new(Config { cipher, ..Config::default() })?)
}

/// One writeback of all of a file.
fn write_back(file: &File, folios: &Arc<Folios>) -> Result<Round, Failure> {
    Round::time(folios.size(), || {
        file.writeback_from(folios.clone(), folios.size())?.wait()?;
        Ok(())
    })
}

/// The same, of a new file, through both streams to targets that accept at once.
fn write_to_null(
    engine: &Engine,
    folios: &Arc<Folios>,
    block_bytes: u64,
) -> Result<Round, Failure> {
    let (server, cache) = (NullServer::new(WRITE_BYTES), NullCache::new(WRITE_BYTES));
    write_back(&create(engine, (&server, Some(&cache)), "file", block_bytes)?, folios)
}

/// From folios in memory to targets that accept at once, against the engine on all threads.
pub(super) fn null(
    setup: &Setup,
    cipher: Cipher,
    folio_bytes: u64,
    block_bytes: u64,
) -> Result<Sides, Failure> {
    let folios = Arc::new(Folios::new(setup.size, folio_bytes, block_bytes));
    let (engine, source) = (engine(cipher)?, folios.clone());
    let subject = move || write_to_null(&engine, &source, block_bytes);
    Ok(Sides { subject: Box::new(subject), reference: engine_alone(cipher, folios, block_bytes)? })
}

/// The fastest engine against the one that is always there, both through the pipeline.
pub(super) fn engines(setup: &Setup) -> Result<Sides, Failure> {
    let folios = Arc::new(Folios::new(setup.size, 64 << 10, BLOCK_BYTES));
    let side = |cipher| -> Result<Side, Failure> {
        let (engine, source) = (engine(cipher)?, folios.clone());
        Ok(Box::new(move || write_to_null(&engine, &source, BLOCK_BYTES)))
    };
    Ok(Sides { subject: side(fastest())?, reference: side(Cipher::AesGcm)? })
}

/// Sixteen times the bytes, against once: each should cost as much CPU time, and both as much memory. All
/// of them are the same few folios, handed out again and again.
pub(super) fn size(setup: &Setup) -> Result<Sides, Failure> {
    const RESIDENT: u64 = 64 << 20;
    let folios = Folios::ring(16 * setup.size, RESIDENT, 64 << 10, BLOCK_BYTES);
    let engine = engine(fastest())?;
    let side = |source: Folios| -> Side {
        let (engine, source) = (engine.clone(), Arc::new(source));
        Box::new(move || Round::with_peak(|| write_to_null(&engine, &source, BLOCK_BYTES)))
    };
    Ok(Sides { reference: side(folios.nth_file(0, setup.size)), subject: side(folios) })
}

fn engine_alone(cipher: Cipher, folios: Arc<Folios>, block_bytes: u64) -> Result<Side, Failure> {
    let key = raw::content_key(cipher, block_bytes)?;
    let ring = raw::ring(key.geometry());
    let seal = move || Round::time(folios.size(), || raw::seal(&key, &folios, &ring, n_threads()));
    Ok(Box::new(seal))
}

/// To targets that keep what they get.
pub(super) fn memory(setup: &Setup) -> Result<Sides, Failure> {
    let folios = Arc::new(Folios::new(setup.size, 64 << 10, BLOCK_BYTES));
    let (engine, source) = (engine(fastest())?, folios.clone());
    let options = MemoryOptions::default().with_max_write_bytes(WRITE_BYTES);
    let (server, cache) = (MemoryServer::new(options), MemoryCache::new(options));
    // Written over from the second round on: memory that is touched for the first time is slow.
    let file = create(&engine, (&server, Some(&cache)), "file", BLOCK_BYTES)?;
    let subject = move || write_back(&file, &source);
    let reference = engine_alone(fastest(), folios, BLOCK_BYTES)?;
    Ok(Sides { subject: Box::new(subject), reference })
}

const N_FILES: u64 = 1000;

/// A thousand files at once, against one.
pub(super) fn many_files(setup: &Setup) -> Result<Sides, Failure> {
    let one = Arc::new(Folios::new(setup.size, 64 << 10, BLOCK_BYTES));
    // The same memory, or a core's cache would have the files' plaintext.
    let file = |nth| Arc::new(one.nth_file(nth, setup.size / N_FILES));
    let each: Vec<_> = (0..N_FILES).map(file).collect();
    let (engine, server) = (engine(fastest())?, NullServer::new(WRITE_BYTES));
    let (other_engine, other_server) = (engine.clone(), server.clone());
    let subject = move || {
        let create =
            |number| create(&engine, (&server, None), &format!("file{number}"), BLOCK_BYTES);
        let files = (0..N_FILES).map(create).collect::<Result<Vec<_>, _>>()?;
        Round::time(each.iter().map(|folios| folios.size()).sum(), || {
            let begin = |(file, folios): (&File, &Arc<Folios>)| {
                file.writeback_from(folios.clone(), folios.size())
            };
            let writing = files.iter().zip(&each).map(begin).collect::<Result<Vec<_>, _>>()?;
            for writing in writing {
                writing.wait()?;
            }
            Ok(())
        })
    };
    let reference = move || {
        let file = create(&other_engine, (&other_server, None), "file", BLOCK_BYTES)?;
        write_back(&file, &one)
    };
    Ok(Sides { subject: Box::new(subject), reference: Box::new(reference) })
}

/// With every hundredth subrequest to the server failing once, against none.
pub(super) fn faults(setup: &Setup) -> Result<Sides, Failure> {
    let folios = Arc::new(Folios::new(setup.size, 64 << 10, BLOCK_BYTES));
    let engine = engine(fastest())?;
    let side = |faulty: bool| -> Side {
        let (engine, source) = (engine.clone(), folios.clone());
        let rule = || Rule {
            operation: Operation::Write,
            when: When::Every(100),
            fault: Fault::Fail(Fails::Retry(TargetError::new(TargetErrorKind::Io, "injected"))),
        };
        Box::new(move || {
            let faults = if faulty { Faults::scripted([rule()]) } else { Faults::none() };
            let server = FaultyServer::new(NullServer::new(256 << 10), &faults);
            write_back(&create(&engine, (&server, None), "file", BLOCK_BYTES)?, &source)
        })
    };
    Ok(Sides { subject: side(true), reference: side(false) })
}

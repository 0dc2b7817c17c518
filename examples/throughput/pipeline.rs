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

/// Through both streams to targets that accept at once, from folios in memory, against the engine on
/// all threads.
pub(super) fn null(
    setup: &Setup,
    cipher: Cipher,
    folio_bytes: u64,
    block_bytes: u64,
) -> Result<Sides, Failure> {
    let folios = Arc::new(Folios::new(setup.size, folio_bytes, block_bytes));
    let (server, cache) = (NullServer::new(WRITE_BYTES), NullCache::new(WRITE_BYTES));
    let (engine, source) = (engine(cipher)?, folios.clone());
    let subject = move || {
        let file = create(&engine, (&server, Some(&cache)), "file", block_bytes)?;
        Round::time(source.size(), || {
            file.writeback_from(source.clone(), source.size())?.wait()?;
            Ok(())
        })
    };
    Ok(Sides { subject: Box::new(subject), reference: engine_alone(cipher, folios, block_bytes)? })
}

fn engine_alone(cipher: Cipher, folios: Arc<Folios>, block_bytes: u64) -> Result<Side, Failure> {
    let key = raw::content_key(cipher, block_bytes)?;
    Ok(Box::new(move || Round::time(folios.size(), || raw::seal(&key, &folios, n_threads()))))
}

/// To targets that keep what they get.
pub(super) fn memory(setup: &Setup) -> Result<Sides, Failure> {
    let folios = Arc::new(Folios::new(setup.size, 64 << 10, BLOCK_BYTES));
    let (engine, source) = (engine(fastest())?, folios.clone());
    let options = MemoryOptions::default().with_max_write_bytes(WRITE_BYTES);
    let (server, cache) = (MemoryServer::new(options), MemoryCache::new(options));
    // Written over from the second round on: memory that is touched for the first time is slow.
    let file = create(&engine, (&server, Some(&cache)), "file", BLOCK_BYTES)?;
    let subject = move || {
        Round::time(source.size(), || {
            file.writeback_from(source.clone(), source.size())?.wait()?;
            Ok(())
        })
    };
    let reference = engine_alone(fastest(), folios, BLOCK_BYTES)?;
    Ok(Sides { subject: Box::new(subject), reference })
}

const N_FILES: u64 = 1000;

/// A thousand files at once, against one.
pub(super) fn many_files(setup: &Setup) -> Result<Sides, Failure> {
    let one = Arc::new(Folios::new(setup.size, 64 << 10, BLOCK_BYTES));
    let each = Arc::new(Folios::new(setup.size / N_FILES, 64 << 10, BLOCK_BYTES));
    let (engine, server) = (engine(fastest())?, NullServer::new(WRITE_BYTES));
    let (other_engine, other_server) = (engine.clone(), server.clone());
    let subject = move || {
        let create =
            |number| create(&engine, (&server, None), &format!("file{number}"), BLOCK_BYTES);
        let files = (0..N_FILES).map(create).collect::<Result<Vec<_>, _>>()?;
        Round::time(N_FILES * each.size(), || {
            let begin = |file: &File| file.writeback_from(each.clone(), each.size());
            let writing = files.iter().map(begin).collect::<Result<Vec<_>, _>>()?;
            for writing in writing {
                writing.wait()?;
            }
            Ok(())
        })
    };
    let reference = move || {
        let file = create(&other_engine, (&other_server, None), "file", BLOCK_BYTES)?;
        Round::time(one.size(), || {
            file.writeback_from(one.clone(), one.size())?.wait()?;
            Ok(())
        })
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
            let file = create(&engine, (&server, None), "file", BLOCK_BYTES)?;
            Round::time(source.size(), || {
                file.writeback_from(source.clone(), source.size())?.wait()?;
                Ok(())
            })
        })
    };
    Ok(Sides { subject: side(true), reference: side(false) })
}

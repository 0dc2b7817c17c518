//! What is drawn: parts of a file are read, others written, and then it is written back.

use std::{error::Error, sync::Arc, time::Duration};

use sealback::{
    Config, CreateOptions, Engine, Place,
    crypto::RootKey,
    stream::{
        MemoryCache, MemoryOptions, MemoryServer, Name,
        faulty::{Faults, FaultyCache, FaultyServer, Rates},
    },
    trace::TraceEvent,
};
use sealback_examples::recorder::Recorder;

pub(crate) const BLOCK_BYTES: u64 = 16 << 10;
pub(crate) const FOLIO_BYTES: u64 = 64 << 10;

/// What the writeback told.
pub(crate) fn play(size: u64, seed: u64) -> Result<Vec<(Duration, TraceEvent)>, Box<dyn Error>> {
    // Late answers, and of the server such that only a part or nothing went through: a cache that
    // fails is done without.
    let late = Rates { elsewhere: 900, ..Rates::default() };
    let failing = Rates { retry: 40, short: 40, ..late };
    let faults = [Faults::seeded(seed, failing), Faults::seeded(seed, late)];
    faults.iter().for_each(Faults::stop);
    // Cut in different places, on purpose.
    let [upload, cached] =
        [384 << 10, 224 << 10].map(|bytes| MemoryOptions::default().with_max_write_bytes(bytes));
    let server = FaultyServer::new(MemoryServer::new(upload), &faults[0]);
    let cache = FaultyCache::new(MemoryCache::new(cached), &faults[1]);
    let root = RootKey::from_bytes(&[1; 32]);
    let name = Name::new("file")?;
    let config = || Config {
        folio_bytes: 64 << 10,
        span_bytes: 256 << 10,
        memory_bytes: usize::try_from(size).map_or(64 << 20, |size| (2 * size).max(16 << 20)),
        dirty_background_percent: 100,
        dirty_limit_percent: 100,
        readahead_bytes: 0,
        ..Config::default()
    };
    let mut bytes = vec![7; usize::try_from(size)?];
    let alone = Place { server: &server, cache: None, root: &root };
    let options = CreateOptions { block_bytes: BLOCK_BYTES, replace: false };
    // Another engine's, so that what is read now comes from the server.
    let engine = Engine::new(config())?;
    let file = engine.create(&alone, &name, &options)?;
    file.write_at(0, &bytes)?;
    file.close().map_err(|unclosed| unclosed.error)?;

    let engine = Engine::new(config())?;
    let file = engine.open(&Place { cache: Some(&cache), ..alone }, &name)?;
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut at = 0;
    while at < size {
        let end = size.min(at + rng.u64(50_000..1_500_000));
        let part = usize::try_from(at)?..usize::try_from(end)?;
        match rng.u8(..5) {
            0 => {}
            // What is read goes to the cache.
            1 => drop(file.read_at(at, &mut bytes[part])?),
            _ => file.write_at(at, &bytes[part])?,
        }
        at = end;
    }
    faults.iter().for_each(Faults::resume);
    let recorder = Arc::new(Recorder::default());
    // One that began by itself, with what was read, tells nothing: what it leaves is written then.
    while file.dirty_bytes() > 0 {
        file.writeback_observed(Some(recorder.clone())).wait()?;
    }
    faults.iter().for_each(Faults::stop);
    file.close().map_err(|unclosed| unclosed.error)?;
    Ok(recorder.events())
}

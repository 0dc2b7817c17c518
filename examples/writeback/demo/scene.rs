//! The picture's file: written in parts, read in parts, left alone in parts.

use std::{io::Write, ops::Range, sync::Arc};

use sealback::{Config, CreateOptions, Engine, File, Place};
use sealback_examples::recorder::Recorder;

use super::{Stores, Trouble, data::Pattern, name, picture::Scale, recorder::Recording};

/// Puts a file on the server, changes parts of it with the cache at hand, and records the
/// writeback.
pub(crate) fn play(stores: &Stores) -> Result<Recording, Trouble> {
    let Stores { server, cache, root, .. } = stores;
    let name = name("picture")?;
    let engine = Engine::new(config())?;
    let place = Place { server, cache: None, root };
    let options = CreateOptions { block_bytes: BLOCK_BYTES, replace: false };
    let file = engine.create(&place, &name, &options)?;
    let (_, ended) = file.write_from(0, &mut before().reader(SIZE_BYTES), |_| {})?;
    ended.map_err(Trouble::Local)?;
    file.sync()?;
    drop(file);
    drop(engine);

    let engine = Engine::new(config())?;
    let place = Place { server, cache: Some(cache), root };
    let file = engine.open(&place, &name)?;
    change(&file)?;
    let recorder = Arc::new(Recorder::default());
    file.writeback_observed(Some(recorder.clone())).wait()?;
    file.sync()?;
    Ok(Recording { events: recorder.events() })
}

/// Reads some parts, for the cache to get them, and writes others.
fn change(file: &File) -> Result<(), Trouble> {
    let mut bytes = vec![0; len(&(0..SIZE_BYTES))];
    for part in READ {
        file.read_at(part.start, &mut bytes[..len(&part)])?;
    }
    file.bypass_cache(UNCACHED);
    let after = after();
    for part in WRITTEN {
        let bytes = &mut bytes[..len(&part)];
        after.fill(part.start, bytes);
        file.write_at(part.start, bytes)?;
    }
    Ok(())
}

/// Reads the file back from the server alone and, once the cache has all of it, from the cache
/// alone.
pub(crate) fn check(stores: &Stores, out: &mut impl Write) -> Result<(), Trouble> {
    let Stores { server, cut_off, cache, root } = stores;
    compare("from the server alone", &Place { server, cache: None, root })?;
    writeln!(out, "ok  the file reads back from the server alone, byte for byte")?;
    // What the cache lacks comes from the server, and goes to the cache.
    compare("from both", &Place { server, cache: Some(cache), root })?;
    compare("from the cache alone", &Place { server: cut_off, cache: Some(cache), root })?;
    writeln!(out, "ok  and, read once so that the cache has the rest, from the cache alone")?;
    Ok(())
}

fn compare(what: &str, place: &Place<'_>) -> Result<(), Trouble> {
    let engine = Engine::new(config())?;
    let file = engine.open(place, &name("picture")?)?;
    let mut expected = vec![0; len(&(0..SIZE_BYTES))];
    before().fill(0, &mut expected);
    for part in WRITTEN {
        after().fill(part.start, &mut expected[index(part.start)..index(part.end)]);
    }
    let mut read = vec![0; expected.len()];
    for (number, part) in read.chunks_mut(AT_ONCE_BYTES).enumerate() {
        file.read_at((number * AT_ONCE_BYTES) as u64, part)?;
        file.writeback().wait()?;
    }
    match file.size() == SIZE_BYTES && read == expected {
        true => Ok(()),
        false => Err(Trouble::Differs(format!("{what}: the file is not what was written"))),
    }
}

/// Little memory, so that the writeback cannot take all it has to do at once; and nothing read
/// ahead, so that the parts read are those that were asked for.
fn config() -> Config {
    let folio_bytes = index(FOLIO_BYTES);
    Config { folio_bytes, memory_bytes: 40 << 20, readahead_bytes: 0, ..Config::default() }
}

fn before() -> Pattern {
    Pattern::new(2)
}

fn after() -> Pattern {
    Pattern::new(3)
}

fn len(part: &Range<u64>) -> usize {
    index(part.end - part.start)
}

fn index(offset: u64) -> usize {
    usize::try_from(offset).expect("an offset within a file of a few MiB")
}

const KIB: u64 = 1 << 10;
/// One character of the picture.
const BLOCK_BYTES: u64 = 32 * KIB;
const FOLIO_BYTES: u64 = 256 * KIB;
/// The last block is not full.
const SIZE_BYTES: u64 = 7675 * KIB;
pub(crate) const SCALE: Scale =
    Scale { block_bytes: BLOCK_BYTES, folio_bytes: FOLIO_BYTES, size_bytes: SIZE_BYTES };

/// What is read, and so goes to the cache as it is.
const READ: [Range<u64>; 3] =
    [128 * KIB..640 * KIB, 4160 * KIB..4800 * KIB, 6528 * KIB..6912 * KIB];
/// What is written: nothing begins or ends with a block, let alone a folio.
const WRITTEN: [Range<u64>; 5] = [
    655 * KIB..1871 * KIB,
    2250 * KIB..3930 * KIB,
    4820 * KIB..4900 * KIB,
    5310 * KIB..6100 * KIB,
    7210 * KIB..SIZE_BYTES,
];
/// What the cache is not to get.
const UNCACHED: Range<u64> = 2944 * KIB..3456 * KIB;
const AT_ONCE_BYTES: usize = 1 << 20;

//! Writes over a part of a file on the server, in place.

use std::{fs, io::Write, os::unix::fs::MetadataExt, time::Instant};

use sealback::{Error, File, crypto::MAX_FILE_BYTES, stream::Name};
use sealback_examples::Size;
use serde::Serialize;

use crate::{
    args::PatchArgs,
    behind::Sent,
    failure::Failure,
    progress::Progress,
    source::Source,
    stores::{self, Stores},
    summary::{self, Summary, Written},
};

pub(crate) fn run(args: &PatchArgs) -> Result<(), Failure> {
    let PatchArgs { name, offset, .. } = args;
    let mut source = Source::open(&args.src)?;
    let stores = Stores::open_to_change(&args.at, &args.with, name)?;
    check(&source, &stores, name, *offset)?;
    let engine = stores::engine(&args.with)?;
    let file = stores.open_file(&engine, name)?;
    let started = Instant::now();
    let progress = Progress::of_writing(&engine, source.len_bytes, file.block_bytes());
    let bytes = write(&file, name, &mut source, *offset).inspect_err(|_| file.discard())?;
    drop(progress);
    let written = Written { name, bytes, took: started.elapsed() };
    let patched = Patched {
        summary: Summary::new(&stores, &engine, &file, &written),
        offset: *offset,
        file_bytes: file.size(),
        behind: stores.upload(&file),
    };
    summary::tell(args.json, &patched, |out| {
        patched.summary.print(out)?;
        let size = Size(patched.file_bytes);
        writeln!(out, "  at {offset}; the file has {} bytes ({size})", patched.file_bytes)?;
        Sent::print(patched.behind.as_ref(), out)
    })
}

/// Refuses what cannot end well, before anything is written.
fn check(source: &Source, stores: &Stores, name: &Name, offset: u64) -> Result<(), Failure> {
    if source.len_bytes.is_some_and(|len| len > MAX_FILE_BYTES - offset) {
        return Err(Failure::of_file(name, &Error::TooLarge));
    }
    let stored = stores.location.path_of(name).and_then(|path| fs::metadata(path).ok());
    if let (Some(stored), Some(source_is)) = (stored, &source.metadata)
        && (stored.dev(), stored.ino()) == (source_is.dev(), source_is.ino())
    {
        // It would grow as fast as it is read.
        return Err(Failure::of(&source.shown, "is the stored file itself"));
    }
    Ok(())
}

/// Writes all of the source at `offset`, and syncs. Returns how much there was.
fn write(file: &File, name: &Name, source: &mut Source, offset: u64) -> Result<u64, Failure> {
    let failure = |error| Failure::of_file(name, &error);
    let (bytes, ended) = file.write_from(offset, &mut source.reader, |_| ()).map_err(failure)?;
    if bytes > 0 {
        file.sync().map_err(failure)?;
    }
    ended.map(|()| bytes).map_err(|error| {
        let what = format_args!("{error}; the {bytes} bytes before that were written");
        Failure::of(&source.shown, what)
    })
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Patched {
    #[serde(flatten)]
    summary: Summary,
    offset: u64,
    /// The file's size now.
    file_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    behind: Option<Sent>,
}

//! Puts a file on the server: beside whatever has its name, and in its place when all is there.

use std::{
    io::Write,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use sealback::{CreateOptions, File, stream::Name};

use crate::{
    args::PutArgs,
    failure::Failure,
    progress::Progress,
    source::Source,
    stores::{self, Stores},
    summary::{self, Summary, Written},
};

pub(crate) fn run(args: &PutArgs) -> Result<(), Failure> {
    let name = args.name()?;
    let mut source = Source::open(&args.src)?;
    let stores = Stores::open_with(&args.at, &args.with)?;
    let engine = stores::engine(&args.with)?;
    let started = Instant::now();
    let options = CreateOptions { block_bytes: args.block_size, replace: true };
    let file = engine
        .create(&stores.place(), &name, &options)
        .map_err(|error| Failure::of_file(&name, &error))?;
    let bytes = match fill(&file, &name, &mut source) {
        Ok(bytes) => bytes,
        Err(failure) => {
            let draft = stores.server.dir().join(format!(".sealback/{}.draft", file.file_id()));
            abandon(file, &draft);
            return Err(failure);
        }
    };
    let written = Written { name: &name, bytes, took: started.elapsed() };
    let summary = Summary::new(&stores, &engine, &file, &written);
    summary::tell(args.json, &summary, |out| {
        summary.print(out)?;
        if args.stats { writeln!(out, "{}", engine.stats()) } else { Ok(()) }
    })
}

/// Writes all of the source, syncs and publishes. Returns its size.
fn fill(file: &File, name: &Name, source: &mut Source) -> Result<u64, Failure> {
    let progress = Progress::start(source.len_bytes);
    let failure = |error| Failure::of_file(name, &error);
    let (bytes, ended) =
        file.write_from(0, &mut source.reader, |bytes| progress.set(bytes)).map_err(failure)?;
    ended.map_err(|error| Failure::of(&source.shown, error))?;
    file.sync().map_err(failure)?;
    file.publish().map_err(failure)?;
    Ok(bytes)
}

/// Lets go of a file that is not to be published, and waits until its draft is gone.
fn abandon(file: File, draft: &Path) {
    file.discard();
    drop(file);
    // A thread that has just ended the writeback may hold the draft for a moment longer. If that
    // is not enough, the next one to open the server removes it.
    let started = Instant::now();
    while draft.exists() && started.elapsed() < Duration::from_secs(2) {
        thread::sleep(Duration::from_millis(1));
    }
}

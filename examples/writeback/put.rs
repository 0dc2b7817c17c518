//! Puts a file on the server: beside whatever has its name, and in its place when all is there.

use std::{
    io::Write,
    thread,
    time::{Duration, Instant},
};

use sealback::{CreateOptions, File, stream::Name};

use serde::Serialize;

use crate::{
    args::PutArgs,
    behind::Sent,
    failure::Failure,
    progress::Progress,
    server::Location,
    source::Source,
    stores::{self, Stores},
    summary::{self, Summary, Written},
};

pub(crate) fn run(args: &PutArgs) -> Result<(), Failure> {
    let name = args.name()?;
    let mut source = Source::open(&args.src)?;
    let stores = Stores::open_for_put(args, &name)?;
    let engine = stores::engine(&args.with)?;
    let started = Instant::now();
    let options = CreateOptions { block_bytes: args.block_size, replace: true };
    let file = engine
        .create(&stores.place(), &name, &options)
        .map_err(|error| Failure::of_file(&name, &error))?;
    let progress = Progress::of_writing(&engine, source.len_bytes, args.block_size);
    let filled = fill(&file, &name, &mut source);
    drop(progress);
    let bytes = match filled {
        Ok(bytes) => bytes,
        Err(failure) => {
            abandon(file, &stores.location);
            return Err(failure);
        }
    };
    let written = Written { name: &name, bytes, took: started.elapsed() };
    let summary = Summary::new(&stores, &engine, &file, &written);
    let put = Put { summary, behind: stores.upload(&file) };
    summary::tell(args.json, &put, |out| {
        put.summary.print(out)?;
        Sent::print(put.behind.as_ref(), out)?;
        if args.stats { writeln!(out, "{}", engine.stats()) } else { Ok(()) }
    })
}

/// Writes all of the source, syncs and publishes. Returns its size.
fn fill(file: &File, name: &Name, source: &mut Source) -> Result<u64, Failure> {
    let failure = |error| Failure::of_file(name, &error);
    let (bytes, ended) = file.write_from(0, &mut source.reader, |_| ()).map_err(failure)?;
    ended.map_err(|error| Failure::of(&source.shown, error))?;
    file.sync().map_err(failure)?;
    file.publish().map_err(failure)?;
    Ok(bytes)
}

/// Lets go of a file that is not to be published, and waits until its draft is gone.
fn abandon(file: File, location: &Location) {
    let draft = location.draft_path(file.file_id());
    file.discard();
    drop(file);
    // A thread that has just ended the writeback may hold the draft for a moment longer. If that
    // is not enough, the next one to open the server removes it. An object store's is waited for when
    // it is closed.
    let started = Instant::now();
    while draft.as_ref().is_some_and(|draft| draft.exists()) && started.elapsed() < PATIENCE {
        thread::sleep(Duration::from_millis(1));
    }
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Put {
    #[serde(flatten)]
    summary: Summary,
    #[serde(skip_serializing_if = "Option::is_none")]
    behind: Option<Sent>,
}

const PATIENCE: Duration = Duration::from_secs(2);

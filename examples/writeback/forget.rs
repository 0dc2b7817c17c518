//! Drops what waits to be uploaded, where that is asked for twice; nothing is lost without a word.

use std::{
    io::{self, Write},
    path::Path,
};

use sealback::{Error, stream::Pending};
use sealback_examples::Size;

use crate::{
    args::ForgetArgs,
    failure::{Failure, one_line},
    output::Output,
    stores::{self, Stores},
};

pub(crate) fn run(args: &ForgetArgs) -> Result<(), Failure> {
    let (stores, behind) = Stores::open_behind(&args.at, &args.cache)?;
    let pending = behind.pending_of(&args.name)?;
    if let Some(path) = &args.save {
        save(&stores, &pending, path)?;
    }
    let Pending { name, bytes, .. } = pending;
    let size = Size(bytes);
    if !args.yes {
        let what =
            format_args!("{size} wait there and are nowhere else: --yes drops them for good");
        return Err(Failure::of(&args.name, what));
    }
    let forgotten = behind.server.forget(&name);
    forgotten.map_err(|error| behind.failure(error))?;
    let line = one_line(&format!("{name}: what waited is dropped, {size}"));
    writeln!(io::stdout().lock(), "{line}").map_err(Failure::of_stdout)
}

/// Writes what waits of a file into one, without asking the server.
fn save(stores: &Stores, pending: &Pending, path: &Path) -> Result<(), Failure> {
    let engine = stores::plain_engine()?;
    let mut output = Output::begin(path)?;
    let mut end = 0;
    let saved = engine.read_waiting(&stores.place(), pending, |at, bytes| {
        output.skip(at - end)?;
        end = at + bytes.len() as u64;
        output.write(bytes).map_err(Unsaved::Output)
    });
    match saved {
        Ok(()) => output.finish(),
        Err(Unsaved::Output(failure)) => Err(failure),
        Err(Unsaved::Waiting(error)) => Err(Failure::of_file(&pending.name, &error)),
    }
}

/// Why what waits is not saved.
enum Unsaved {
    Output(Failure),
    Waiting(Error),
}

impl From<Error> for Unsaved {
    fn from(error: Error) -> Unsaved {
        Unsaved::Waiting(error)
    }
}

impl From<Failure> for Unsaved {
    fn from(failure: Failure) -> Unsaved {
        Unsaved::Output(failure)
    }
}

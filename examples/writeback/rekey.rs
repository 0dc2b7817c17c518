//! Has a file open with another root key.

use std::io::{self, Write};

use crate::{
    args::RekeyArgs,
    failure::Failure,
    stores::{self, Stores},
};

pub(crate) fn run(args: &RekeyArgs) -> Result<(), Failure> {
    let name = &args.name;
    let new_root = stores::read_key(&args.new_key)?;
    let stores = Stores::open(&args.at, args.cache.as_deref(), name)?;
    stores.probe()?;
    let engine = stores::plain_engine()?;
    let file = stores.open_file(&engine, name)?;
    file.rekey(&new_root).map_err(|error| {
        let what = format_args!("{error}; it opens with the old key or with the new one");
        Failure::of(name, what)
    })?;
    let mut out = io::stdout().lock();
    writeln!(out, "{name}: opens with {}", args.new_key.display())
        .and_then(|()| out.flush())
        .map_err(Failure::of_stdout)
}

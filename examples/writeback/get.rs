//! Gets a file back: block after block is opened, and only a whole file appears.

use zeroize::Zeroizing;

use crate::{
    args::GetArgs,
    failure::Failure,
    output::Output,
    progress::Progress,
    stores::{self, Stores},
};

pub(crate) fn run(args: &GetArgs) -> Result<(), Failure> {
    let stores = Stores::open_with(&args.at, &args.with, &args.name)?;
    let engine = stores::engine(&args.with)?;
    let file = stores.open_file(&engine, &args.name)?;
    let mut output = Output::begin(&args.out)?;
    let progress = match args.out.as_os_str() == "-" {
        true => Progress::hidden(),
        false => Progress::start(Some(file.size())),
    };
    let mut bytes = Zeroizing::new(vec![0; AT_ONCE_BYTES]);
    let mut at = 0;
    loop {
        let read = file.read_at(at, &mut bytes);
        let len = read.map_err(|error| Failure::of_file(&args.name, &error))?;
        if len == 0 {
            break;
        }
        output.write(&bytes[..len])?;
        at += len as u64;
        progress.set(at);
        if stores.cache.is_some() {
            // What came from the server goes to the cache. A cache that fails is done without.
            drop(file.writeback());
        }
    }
    if stores.cache.is_some() {
        let _ = file.writeback().wait();
    }
    drop(progress);
    output.finish()
}

/// What stays in a core's cache between reading and writing.
const AT_ONCE_BYTES: usize = 1 << 20;

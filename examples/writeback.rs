//! Puts files, sealed, on a server, gets them back, and changes them there.
//!
//! Without arguments it shows on a generated file, in a temporary directory, what the library
//! does. What goes wrong is one line on standard error and exit status 1; a command line that
//! means nothing, 2. No outside input makes it panic, and no key material is ever printed.
#![forbid(unsafe_code)]

#[path = "writeback/args.rs"]
mod args;
#[path = "writeback/behind.rs"]
mod behind;
#[path = "writeback/demo.rs"]
mod demo;
#[path = "writeback/failure.rs"]
mod failure;
#[path = "writeback/forget.rs"]
mod forget;
#[path = "writeback/get.rs"]
mod get;
#[path = "writeback/inspect.rs"]
mod inspect;
#[path = "writeback/keygen.rs"]
mod keygen;
#[path = "writeback/list.rs"]
mod list;
#[path = "writeback/output.rs"]
mod output;
#[path = "writeback/patch.rs"]
mod patch;
#[path = "writeback/progress.rs"]
mod progress;
#[path = "writeback/put.rs"]
mod put;
#[path = "writeback/rekey.rs"]
mod rekey;
#[path = "writeback/resize.rs"]
mod resize;
#[path = "writeback/resume.rs"]
mod resume;
#[path = "writeback/scrub.rs"]
mod scrub;
#[path = "writeback/server.rs"]
mod server;
#[path = "writeback/source.rs"]
mod source;
#[path = "writeback/stores.rs"]
mod stores;
#[path = "writeback/summary.rs"]
mod summary;
#[path = "writeback/verify.rs"]
mod verify;

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::Parser;
use tracing_subscriber::{
    filter::Targets, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

use crate::{
    args::{Cli, Command},
    failure::Failure,
};

fn main() -> ExitCode {
    let outcome = Cli::try_parse().map_err(Failure::Usage).and_then(run);
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        // Help and version come this way, too, with status 0.
        Err(Failure::Usage(error)) => {
            // There is nobody else to tell, if nobody listens.
            let _ = error.print();
            u8::try_from(error.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from)
        }
        Err(Failure::Failed(line)) => {
            let _ = writeln!(io::stderr(), "writeback: {line}");
            ExitCode::FAILURE
        }
    }
}

/// Has what is told inside go to standard error.
fn listen(filter: Targets) {
    let printed = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    tracing_subscriber::registry().with(printed).with(filter).init();
}

fn run(cli: Cli) -> Result<(), Failure> {
    cli.trace.into_iter().for_each(listen);
    match cli.command {
        None => demo::run(),
        Some(Command::Forget(args)) => forget::run(&args),
        Some(Command::Get(args)) => get::run(&args),
        Some(Command::Inspect(args)) => inspect::run(&args),
        Some(Command::Keygen(args)) => keygen::run(&args),
        Some(Command::List(args)) => list::run(&args),
        Some(Command::Patch(args)) => patch::run(&args),
        Some(Command::Punch(args)) => resize::punch(&args),
        Some(Command::Put(args)) => put::run(&args),
        Some(Command::Rekey(args)) => rekey::run(&args),
        Some(Command::Resume(args)) => resume::run(&args),
        Some(Command::Scrub(args)) => scrub::run(&args),
        Some(Command::Truncate(args)) => resize::truncate(&args),
        Some(Command::Verify(args)) => verify::run(&args),
    }
}

//! How fast the library is: each case beside a reference that is measured in the same run, in turns,
//! since machines differ and share their cores.
//!
//! ```sh
//! cargo run --release --example throughput                          # all cases
//! cargo run --release --example throughput -- --only pipeline-null --size 4GiB --seconds 20 --json
//! ```
#![forbid(unsafe_code)]

#[path = "throughput/cases.rs"]
mod cases;
#[path = "throughput/folios.rs"]
mod folios;
#[path = "throughput/measure.rs"]
mod measure;
#[path = "throughput/raw.rs"]
mod raw;

use std::{error, path::PathBuf, process::ExitCode};

use clap::Parser;
use sealback_examples::parse_size;

use crate::{cases::Setup, measure::Limits};

type Failure = Box<dyn error::Error>;

/// Measures cases, each in turns with its reference.
#[derive(Debug, Parser)]
struct Args {
    /// Cases whose names begin so; all, if there is none.
    #[arg(long, value_name = "CASE")]
    only: Vec<String>,
    /// Bytes that a round writes or reads, of the cases that have no size of their own: 1MiB or more.
    #[arg(long, value_name = "BYTES", value_parser = parse_round, default_value = "1GiB")]
    size: u64,
    /// Goes on for so long with each case, five rounds at least.
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds, default_value = "5")]
    seconds: f64,
    /// Where files in memory are: a tmpfs.
    #[arg(long, value_name = "DIR", default_value = "/dev/shm")]
    tmpfs: PathBuf,
    /// Where files on the disk are.
    #[arg(long, value_name = "DIR", default_value = "/var/tmp")]
    disk: PathBuf,
    /// An object store, for the case about one (of a build with the feature object-store): s3://BUCKET,
    /// az://CONTAINER, gs://BUCKET. How to get in is in the environment.
    #[arg(long, value_name = "URL")]
    objects: Option<String>,
    /// Prints one object instead of a table.
    #[arg(long)]
    json: bool,
    /// Prints the cases' names, and what each is measured against.
    #[arg(long)]
    list: bool,
}

/// What is smaller than a folio of each of a thousand files measures nothing.
fn parse_round(text: &str) -> Result<u64, String> {
    match parse_size(text).map_err(|bad| bad.to_string())? {
        size if size < 1 << 20 => Err("a round writes 1MiB or more".into()),
        size => Ok(size),
    }
}

fn parse_seconds(text: &str) -> Result<f64, String> {
    match text.parse().map_err(|_| "a number of seconds")? {
        seconds if (0.0..=86_400.0).contains(&seconds) => Ok(seconds),
        _ => Err("a case takes from 0 to 86400 seconds".into()),
    }
}

fn run(args: &Args) -> Result<(), Failure> {
    let is_wanted = |name: &str| match &args.only[..] {
        [] => args.list || args.objects.is_some() || name != cases::OBJECTS,
        only => only.iter().any(|only| name.starts_with(only)),
    };
    let wanted: Vec<_> = cases::ALL.iter().filter(|case| is_wanted(case.name)).collect();
    if wanted.is_empty() {
        return Err("no case is called so: see --list".into());
    }
    if args.list {
        wanted.iter().for_each(|case| println!("{:<22} {}", case.name, case.against));
        return Ok(());
    }
    let setup = Setup {
        size: args.size,
        tmpfs: args.tmpfs.clone(),
        disk: args.disk.clone(),
        objects: args.objects.clone(),
    };
    let limits = Limits { seconds: args.seconds };
    let mut outcomes = Vec::new();
    for case in wanted {
        let sides = (case.begin)(&setup)?;
        let outcome = measure::measure(case, sides, limits)?;
        if !args.json {
            println!("{outcome}");
        }
        outcomes.push(outcome);
    }
    if args.json {
        println!("{}", measure::to_json(&outcomes)?);
    }
    Ok(())
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("throughput: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_of_nothing_and_seconds_without_end_are_refused() {
        assert_eq!(parse_round("1MiB").unwrap(), 1 << 20);
        assert_eq!(parse_seconds("0.5").unwrap(), 0.5);
        for size in ["0", "1", "1023KiB", "much"] {
            assert!(parse_round(size).is_err(), "{size}");
        }
        for seconds in ["-1", "nan", "inf", "86401", "soon"] {
            assert!(parse_seconds(seconds).is_err(), "{seconds}");
        }
    }
}

//! What the suites of the mounted folder do to its files: see `tests/mount/run`.
//!
//! ```sh
//! exercise handles SEED N PATH…    # N operations on one file, through several handles or several mounts
//! exercise records FILE NOTES      # overwrites records with an fsync after each, until the folder is gone
//! exercise recorded FILE NOTES     # looks whether what was acknowledged is there
//! exercise writers PATH PATH       # two mounts write other bytes of the same blocks
//! ```

mod handles;
mod records;
mod writers;

use std::{env, error, path::Path, process::ExitCode};

type Failure = Box<dyn error::Error>;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let outcome = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["handles", seed, n_operations, ref paths @ ..] if !paths.is_empty() => {
            handles::exercise(seed, n_operations, paths)
        }
        ["records", file, notes] => records::write(Path::new(file), Path::new(notes)),
        ["recorded", file, notes] => records::check(Path::new(file), Path::new(notes)),
        ["writers", one, other] => writers::exercise([Path::new(one), Path::new(other)]),
        _ => {
            Err("the first lines of tests/mount/exercise/main.rs say what can be asked for".into())
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("exercise: {failure}");
            ExitCode::FAILURE
        }
    }
}

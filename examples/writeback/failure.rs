//! How the program fails: with one line, whatever was said on the way.

use std::{fmt, io};

use sealback::Error;

/// Why the program ends before it is done.
#[derive(Debug)]
pub(crate) enum Failure {
    /// What to tell, in one line.
    Failed(String),
    /// A command line that means nothing, or asks for help.
    Usage(clap::Error),
}

impl Failure {
    /// One line, whatever the names in it hold.
    pub(crate) fn new(what: impl fmt::Display) -> Failure {
        let mut line = String::new();
        for character in what.to_string().chars() {
            match character.is_control() {
                true => line.extend(character.escape_default()),
                false => line.push(character),
            }
        }
        Failure::Failed(line)
    }

    /// Something that was being done with something, and why it was not.
    pub(crate) fn of(subject: impl fmt::Display, error: impl fmt::Display) -> Failure {
        Failure::new(format_args!("{subject}: {error}"))
    }

    /// What the library says of a file. A server's error names the file itself.
    pub(crate) fn of_file(name: impl fmt::Display, error: &Error) -> Failure {
        match error {
            Error::Server { range: None, .. } => Failure::new(error),
            _ => Failure::of(name, error),
        }
    }

    /// Nobody reads what is printed.
    pub(crate) fn of_stdout(error: io::Error) -> Failure {
        Failure::of("standard output", error)
    }
}

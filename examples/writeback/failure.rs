//! How the program fails: with one line, whatever was said on the way.

use std::{fmt, io};

use clap::error::ErrorKind;
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
        Failure::Failed(one_line(&what.to_string()))
    }

    /// A command line that means nothing, and why.
    pub(crate) fn usage(kind: ErrorKind, what: impl fmt::Display) -> Failure {
        Failure::Usage(clap::Error::raw(kind, format!("{what}\n")))
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

/// The same with control characters as escapes.
pub(crate) fn one_line(text: &str) -> String {
    let mut line = String::new();
    for character in text.chars() {
        match character.is_control() {
            true => line.extend(character.escape_default()),
            false => line.push(character),
        }
    }
    line
}

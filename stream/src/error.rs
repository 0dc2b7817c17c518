//! How a target says no: each failure names what the retryer does about it.
//!
//! A target decides the kind, from what it knows of its server; nobody guesses it from an errno.

use std::{
    error,
    fmt::{self, Write as _},
    io,
    sync::Arc,
};

use sealback_crypto::Nonce;

/// Why a subrequest did not go through, as a decision for the retryer.
///
/// A write that went through in part is not a failure: it terminates with the bytes written.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Failure {
    /// An expectation did not hold. Nothing of the subrequest was written. Every block that
    /// differs is named.
    Conflict(Vec<BlockConflict>),
    /// It will not get better by trying again.
    Fatal(TargetError),
    /// The grant no longer holds: ask the target anew, then send again.
    Renegotiate(TargetError),
    /// Transient, or its outcome is not known: send the same bytes again.
    Retry(TargetError),
}

/// One block whose stored nonce was not the expected one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockConflict {
    /// The block's number.
    pub block: u64,
    /// The nonce that is stored there; `None` for a hole or nothing.
    pub stored: Option<Nonce>,
}

/// What a target ran into.
#[derive(Clone, Debug)]
pub struct TargetError {
    kind: TargetErrorKind,
    context: String,
    source: Option<Arc<io::Error>>,
}

/// The kinds of [`TargetError`], as a caller would tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TargetErrorKind {
    /// There is a file of that name already.
    AlreadyExists,
    /// The operation was cancelled before it took place.
    Cancelled,
    /// Compare-and-write of a header: it is no longer what was read.
    Conflict,
    /// What is kept here is not what was put there.
    Damaged,
    /// The target dropped a completion without using it.
    Dropped,
    /// An input/output error without a better name.
    Io,
    /// The name stands for a directory.
    IsADirectory,
    /// No room left, or over quota.
    NoSpace,
    /// There is no file of that name.
    NotFound,
    /// The caller may not.
    NotPermitted,
    /// The target takes no writes.
    ReadOnly,
    /// The server has too much to do: later, and slower.
    Throttled,
    /// No answer in time: whether it took place is not known.
    TimedOut,
    /// The target cannot do this.
    Unsupported,
}

impl TargetError {
    /// An error of a kind, with what was being done (no secrets, no full stop).
    pub fn new(kind: TargetErrorKind, context: impl Into<String>) -> TargetError {
        TargetError { kind, context: context.into(), source: None }
    }

    /// The error behind an [`io::Error`], with what was being done. The kind follows from the
    /// error's own.
    pub fn from_io(context: impl Into<String>, source: io::Error) -> TargetError {
        let kind = match source.kind() {
            io::ErrorKind::AlreadyExists => TargetErrorKind::AlreadyExists,
            io::ErrorKind::InvalidData => TargetErrorKind::Damaged,
            io::ErrorKind::IsADirectory => TargetErrorKind::IsADirectory,
            io::ErrorKind::NotFound => TargetErrorKind::NotFound,
            io::ErrorKind::PermissionDenied => TargetErrorKind::NotPermitted,
            io::ErrorKind::QuotaExceeded | io::ErrorKind::StorageFull => TargetErrorKind::NoSpace,
            io::ErrorKind::ReadOnlyFilesystem => TargetErrorKind::ReadOnly,
            io::ErrorKind::TimedOut => TargetErrorKind::TimedOut,
            io::ErrorKind::Unsupported => TargetErrorKind::Unsupported,
            _ => TargetErrorKind::Io,
        };
        TargetError { kind, context: context.into(), source: Some(Arc::new(source)) }
    }

    /// What kind of error it is.
    pub fn kind(&self) -> TargetErrorKind {
        self.kind
    }

    /// Whether the same may go through when it is tried again.
    pub fn is_transient(&self) -> bool {
        match self.kind {
            TargetErrorKind::Dropped
            | TargetErrorKind::Io
            | TargetErrorKind::Throttled
            | TargetErrorKind::TimedOut => true,
            TargetErrorKind::AlreadyExists
            | TargetErrorKind::Cancelled
            | TargetErrorKind::Conflict
            | TargetErrorKind::Damaged
            | TargetErrorKind::IsADirectory
            | TargetErrorKind::NoSpace
            | TargetErrorKind::NotFound
            | TargetErrorKind::NotPermitted
            | TargetErrorKind::ReadOnly
            | TargetErrorKind::Unsupported => false,
        }
    }
}

/// One line without control characters, whatever a server has said: it goes to terminals and logs.
impl fmt::Display for TargetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Some(source) => write!(Escaped(f), "{}: {source}", self.context),
            None => Escaped(f).write_str(&self.context),
        }
    }
}

/// Writes control characters as escapes.
struct Escaped<'a, 'b>(&'a mut fmt::Formatter<'b>);

impl fmt::Write for Escaped<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for part in text.split_inclusive(char::is_control) {
            let plain = part.trim_end_matches(char::is_control);
            self.0.write_str(plain)?;
            part[plain.len()..]
                .chars()
                .try_for_each(|c| write!(self.0, "{}", c.escape_default()))?;
        }
        Ok(())
    }
}

impl error::Error for TargetError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// An error of which a target says nothing more will not get better by trying again.
impl From<TargetError> for Failure {
    fn from(error: TargetError) -> Failure {
        Failure::Fatal(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Conflict(blocks) => match blocks.first() {
                Some(first) => write!(
                    f,
                    "conflict: block {} ({} in all) was changed by someone else",
                    first.block,
                    blocks.len()
                ),
                None => f.write_str("conflict"),
            },
            Failure::Fatal(error) | Failure::Renegotiate(error) | Failure::Retry(error) => {
                error.fmt(f)
            }
        }
    }
}

impl error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::{TargetError, TargetErrorKind, io};

    #[test]
    fn what_a_server_says_has_no_control_characters_when_it_is_shown() {
        let said = "no room\r\n\u{1b}[2Jleft, for \u{9b}31mü";
        let shown = "no room\\r\\n\\u{1b}[2Jleft, for \\u{9b}31mü";
        let error = TargetError::new(TargetErrorKind::NoSpace, said);
        assert_eq!(error.to_string(), shown);
        let behind = TargetError::from_io("writing\t", io::Error::other(said));
        assert_eq!(behind.to_string(), format!("writing\\t: {shown}"));
    }
}

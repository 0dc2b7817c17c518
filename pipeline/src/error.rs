//! What can go wrong, as decisions that a caller can take.

use std::{error, fmt, ops::Range, sync::Arc};

use sealback_crypto::{BlockDamage, HeaderError};
use sealback_stream::{BadName, BlockConflict, TargetError, TargetErrorKind};

use crate::rmw::MergeError;

/// An error of the engine or of a file.
///
/// It can be cloned, because one failed writeback is reported to every open handle.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Error {
    /// The operation was cancelled; what it had not done yet is still to be done.
    Cancelled,
    /// A configured value does not fit; says which and why.
    Config(&'static str),
    /// Blocks were changed by someone else since they were read. The data is still dirty; but in a sync's
    /// answer it may be about what this client had sent and not committed, and is gone.
    Conflict {
        /// The first of the blocks and what is stored there now.
        blocks: Vec<BlockConflict>,
    },
    /// Somebody else has made the file shorter. In a sync's answer: what this client had sent behind
    /// the new end, and not committed, is gone with it.
    Cut {
        /// How long the file was made, in bytes.
        size: u64,
    },
    /// A block could not be read: it is not what was written.
    Damaged(BlockDamage),
    /// The engine has been shut down.
    Closed,
    /// The header could not be read, or cannot be what is asked for.
    Header(Arc<HeaderError>),
    /// The name cannot be a file's.
    Name(BadName),
    /// The cipher or the random source failed. The data is still dirty.
    Seal(Arc<dyn error::Error + Send + Sync>),
    /// The server refused, for good or too often. The data is still dirty.
    Server {
        /// The positions (bytes of plaintext) concerned, where it is about some.
        range: Option<Range<u64>>,
        /// How often it was tried.
        attempts: u32,
        /// The server's last error.
        source: TargetError,
    },
    /// A [source](crate::source::FolioSource) handed out what is no run of dirty blocks, or panicked;
    /// says which.
    Source(&'static str),
    /// The file would be larger than 2^60 bytes.
    TooLarge,
    /// The server did not hand out what it holds.
    Unread {
        /// The positions (bytes of plaintext) concerned.
        range: Range<u64>,
        /// How often it was tried.
        attempts: u32,
        /// The server's last error.
        source: TargetError,
    },
}

impl Error {
    /// An error of the server that is not about a range.
    pub(crate) fn server(source: TargetError) -> Error {
        Error::Server { range: None, attempts: 1, source }
    }

    /// The kind of the target's error, if it is one.
    pub fn target_kind(&self) -> Option<TargetErrorKind> {
        self.target().map(TargetError::kind)
    }

    /// The target's error, if it is one.
    pub(crate) fn target(&self) -> Option<&TargetError> {
        match self {
            Error::Server { source, .. } | Error::Unread { source, .. } => Some(source),
            _ => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Cancelled => f.write_str("cancelled"),
            Error::Closed => f.write_str("the engine has been shut down"),
            Error::Config(what) | Error::Source(what) => f.write_str(what),
            Error::Conflict { blocks } => match blocks.first() {
                Some(first) => write!(
                    f,
                    "conflict: block {} was changed by someone else ({} blocks in all)",
                    first.block,
                    blocks.len()
                ),
                None => f.write_str("conflict: the header was changed by someone else"),
            },
            Error::Cut { size } => {
                write!(f, "someone else has cut the file to {size} bytes, with what was sent here")
            }
            Error::Damaged(damage) => damage.fmt(f),
            Error::Header(source) => source.fmt(f),
            Error::Name(source) => source.fmt(f),
            Error::Seal(source) => write!(f, "sealing failed: {source}"),
            Error::Server { range: Some(range), attempts, source } => write!(
                f,
                "bytes {} to {} did not reach the server in {attempts} attempt{}: {source}",
                range.start,
                range.end,
                plural(*attempts)
            ),
            Error::Server { range: None, source, .. } => source.fmt(f),
            Error::TooLarge => f.write_str("a sealed file holds at most 2^60 bytes"),
            Error::Unread { range, attempts, source } => write!(
                f,
                "bytes {} to {} could not be read in {attempts} attempt{}: {source}",
                range.start,
                range.end,
                plural(*attempts)
            ),
        }
    }
}

fn plural(n: u32) -> &'static str {
    if n == 1 { "" } else { "s" }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Error::Damaged(source) => Some(source),
            Error::Header(source) => Some(source.as_ref()),
            Error::Name(source) => Some(source),
            Error::Seal(source) => Some(source.as_ref()),
            Error::Server { source, .. } | Error::Unread { source, .. } => Some(source),
            _ => None,
        }
    }
}

impl From<BadName> for Error {
    fn from(source: BadName) -> Error {
        Error::Name(source)
    }
}

impl From<HeaderError> for Error {
    fn from(source: HeaderError) -> Error {
        Error::Header(Arc::new(source))
    }
}

impl From<MergeError> for Error {
    fn from(error: MergeError) -> Error {
        match error {
            MergeError::Damaged(damage) => Error::Damaged(damage),
            MergeError::Seal(source) => Error::Seal(Arc::new(source)),
        }
    }
}

impl From<BlockDamage> for Error {
    fn from(source: BlockDamage) -> Error {
        Error::Damaged(source)
    }
}

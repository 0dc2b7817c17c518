//! What callers are told: errors of the library as those of the system.

use std::{error::Error as _, io};

use rustix::io::Errno;
use sealback::{
    Error,
    stream::{TargetError, TargetErrorKind},
};

/// What every room answers with.
pub(crate) type Result<T> = std::result::Result<T, Errno>;

/// An error of the library, as the system would call it. What was damaged, and where, has been said in
/// the log.
pub(crate) fn errno(error: &Error) -> Errno {
    match error {
        Error::TooLarge => Errno::FBIG,
        Error::Cancelled => Errno::INTR,
        Error::Conflict { .. } | Error::Cut { .. } => Errno::STALE,
        Error::Server { source, .. } | Error::Unread { source, .. } => of_target(source),
        _ => Errno::IO,
    }
}

fn of_target(error: &TargetError) -> Errno {
    let source = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    // What the lower file system said of room, quotas and permissions is what the caller is to hear.
    if let Some(errno) = source.and_then(Errno::from_io_error) {
        return errno;
    }
    match error.kind() {
        TargetErrorKind::AlreadyExists => Errno::EXIST,
        TargetErrorKind::NoSpace => Errno::NOSPC,
        TargetErrorKind::NotFound => Errno::STALE,
        TargetErrorKind::NotPermitted => Errno::ACCESS,
        TargetErrorKind::ReadOnly => Errno::ROFS,
        TargetErrorKind::TimedOut => Errno::TIMEDOUT,
        TargetErrorKind::Unsupported => Errno::OPNOTSUPP,
        _ => Errno::IO,
    }
}

/// An error of the standard library's.
pub(crate) fn of_io(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_and_a_full_quota_are_told_apart() {
        for errno_below in [Errno::NOSPC, Errno::DQUOT, Errno::ROFS, Errno::IO] {
            let below = io::Error::from(errno_below);
            let source = TargetError::from_io("writing", below);
            let error = Error::Server { range: Some(0..1), attempts: 1, source };
            assert_eq!(errno(&error), errno_below);
        }
    }
}

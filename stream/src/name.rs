//! Names of sealed files on a server.

use std::{error, fmt};

/// The name of a sealed file: one path component that every server can hold.
///
/// Not empty, at most 255 bytes, no `/`, no NUL, neither `.` nor `..`, and not beginning with
/// `.sealback`, which is where a server keeps what it needs beside the files.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(String);

/// Why a string is no [`Name`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BadName {
    /// It is `.` or `..`.
    Dots,
    /// It has no character.
    Empty,
    /// It has a NUL byte.
    Nul,
    /// It begins with `.sealback`.
    Reserved,
    /// It has a `/`.
    Slash,
    /// It is longer than 255 bytes.
    TooLong,
}

impl Name {
    /// Checks a name.
    ///
    /// # Errors
    /// [`BadName`] says which rule it breaks.
    pub fn new(name: &str) -> Result<Name, BadName> {
        if name.is_empty() {
            Err(BadName::Empty)
        } else if name == "." || name == ".." {
            Err(BadName::Dots)
        } else if name.contains('/') {
            Err(BadName::Slash)
        } else if name.contains('\0') {
            Err(BadName::Nul)
        } else if name.len() > 255 {
            Err(BadName::TooLong)
        } else if name.starts_with(".sealback") {
            Err(BadName::Reserved)
        } else {
            Ok(Name(name.to_owned()))
        }
    }

    /// The name as a string.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for BadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BadName::Dots => "a name may not be '.' or '..'",
            BadName::Empty => "a name may not be empty",
            BadName::Nul => "a name may not have a NUL byte",
            BadName::Reserved => "a name may not begin with '.sealback'",
            BadName::Slash => "a name may not have a '/'",
            BadName::TooLong => "a name may not be longer than 255 bytes",
        })
    }
}

impl error::Error for BadName {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_path_component() {
        for (name, verdict) in [
            ("", Err(BadName::Empty)),
            (".", Err(BadName::Dots)),
            ("..", Err(BadName::Dots)),
            ("a/b", Err(BadName::Slash)),
            ("/", Err(BadName::Slash)),
            ("a\0", Err(BadName::Nul)),
            (".sealback", Err(BadName::Reserved)),
            (".sealbackup", Err(BadName::Reserved)),
            ("..a", Ok(())),
            ("a b", Ok(())),
        ] {
            assert_eq!(Name::new(name).map(|_| ()), verdict, "{name:?}");
        }
        assert!(Name::new(&"x".repeat(255)).is_ok());
        assert_eq!(Name::new(&"x".repeat(256)), Err(BadName::TooLong));
    }
}

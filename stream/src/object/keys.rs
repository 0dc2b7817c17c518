//! Which key an object has: names and chunks to keys, and back.
//!
//! A name's letters, digits, `-`, `_` and inner dots stand for themselves; every other byte is `%` and two
//! hex digits, since stores differ in what else they keep apart. So no two names have one key.

use std::{fmt::Write as _, str::FromStr};

use object_store::path::{Path, PathPart};
use sealback_crypto::FileId;

use crate::Name;

/// What a file's objects are called.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Keys {
    prefix: Path,
    name: String,
}

/// What an object of a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Chunk {
        name: Name,
        file_id: FileId,
        chunk: u64,
    },
    Header {
        name: Name,
    },
    /// Nothing that a server has made.
    Other,
}

impl Keys {
    pub(super) fn new(prefix: &Path, name: &Name) -> Keys {
        Keys { prefix: prefix.clone(), name: encoded(name.as_str()) }
    }

    /// The key of the header.
    pub(super) fn header(&self) -> Path {
        self.below("header")
    }

    /// What the keys of a file's chunks begin with.
    pub(super) fn chunks(&self, file_id: FileId) -> Path {
        self.below(&format!("blocks/{file_id}"))
    }

    /// The key of a chunk.
    pub(super) fn chunk(&self, file_id: FileId, chunk: u64) -> Path {
        self.below(&format!("blocks/{file_id}/{chunk:016x}"))
    }

    fn below(&self, rest: &str) -> Path {
        let parts = [self.name.as_str()].into_iter().chain(rest.split('/'));
        // Every part is of letters, digits and what stays as it is, but for the `%`, which must.
        let parts = parts.map(|part| PathPart::parse(part).expect("no '/', no control character"));
        self.prefix.parts().chain(parts).fold(Path::ROOT, Path::join)
    }
}

impl Key {
    /// What a key below `prefix` is of.
    pub(super) fn parse(prefix: &Path, key: &Path) -> Key {
        Key::try_parse(prefix, key).unwrap_or(Key::Other)
    }

    /// The number of the chunk that a chunk's key ends with.
    pub(super) fn chunk_of(key: &Path) -> Option<u64> {
        let digits = key.filename()?;
        let chunk = u64::from_str_radix(digits, 16).ok()?;
        // What was not written so by a server is another's.
        (format!("{chunk:016x}") == digits).then_some(chunk)
    }

    fn try_parse(prefix: &Path, key: &Path) -> Option<Key> {
        let parts: Vec<_> = key.prefix_match(prefix)?.collect();
        let parts: Vec<&str> = parts.iter().map(AsRef::as_ref).collect();
        match parts[..] {
            [name, "header"] => Some(Key::Header { name: decoded(name)? }),
            [name, "blocks", id, _] => {
                let (name, file_id) = (decoded(name)?, FileId::from_str(id).ok()?);
                let chunk = Key::chunk_of(key)?;
                (file_id.to_string() == id).then_some(Key::Chunk { name, file_id, chunk })
            }
            _ => None,
        }
    }
}

/// The name that a part of a key stands for.
pub(super) fn decoded(part: &str) -> Option<Name> {
    let name = Name::new(&without_percents(part)?).ok()?;
    // What was not written so by a server is another's.
    (encoded(name.as_str()) == part).then_some(name)
}

/// What a text says in which bytes may be `%` and two hex digits.
pub(super) fn without_percents(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        rest = behind;
        bytes.push(match first {
            b'%' => {
                let (digits, behind) = rest.split_at_checked(2)?;
                rest = behind;
                u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()?
            }
            plain => *plain,
        });
    }
    String::from_utf8(bytes).ok()
}

fn encoded(name: &str) -> String {
    let mut key = String::with_capacity(name.len());
    for (at, byte) in name.bytes().enumerate() {
        let is_inner = at > 0 && at + 1 < name.len();
        if byte.is_ascii_alphanumeric() || b"-_".contains(&byte) || (byte == b'.' && is_inner) {
            key.push(char::from(byte));
        } else {
            write!(key, "%{byte:02X}").expect("a string takes whatever is written");
        }
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_a_key_of_its_own_and_comes_back_from_it() {
        let prefix = Path::from("some/prefix");
        let longest = "\u{e4}".repeat(127);
        let names = [
            "a",
            "A",
            "a b",
            "a%20b",
            "-a",
            "..a",
            "a.",
            "a.b",
            ".a",
            "%",
            "%41",
            "\u{e4}\u{1f980}",
            "a\n",
            "*",
            "\\",
            "header",
            "blocks",
            "a+b",
            "a?b#c",
            &longest,
        ];
        let mut seen = Vec::new();
        for text in names {
            let name = Name::new(text).unwrap();
            let keys = Keys::new(&prefix, &name);
            let key = keys.header();
            assert_eq!(Key::parse(&prefix, &key), Key::Header { name: name.clone() });
            // It is the same when a store has listed it.
            assert_eq!(Path::parse(key.as_ref()).unwrap(), key);
            assert!(key.as_ref().len() <= 12 + 3 * 255 + 7 && !seen.contains(&key), "{key}");
            seen.push(key);
            let file_id = FileId::from_bytes([0xab; 32]);
            let chunk = keys.chunk(file_id, 0x1f);
            assert!(chunk.as_ref().ends_with(&format!("/blocks/{file_id}/000000000000001f")));
            assert!(chunk.prefix_matches(&keys.chunks(file_id)));
            assert_eq!(Key::parse(&prefix, &chunk), Key::Chunk { name, file_id, chunk: 0x1f });
        }
    }

    #[test]
    fn what_no_server_has_made_is_no_file() {
        let (prefix, id) = (Path::from("p"), "ab".repeat(32));
        for key in [
            "p/a",
            "q/a/header",
            "p/a/b/header",
            "p/%4/header",
            "p/%41/header",
            "p/a b/header",
            "p/a/blocks/00/0",
            "p/.sealback/header",
            "p/a/headers",
            &format!("p/a/blocks/{id}/+00000000000001f"),
            &format!("p/a/blocks/{id}/00000000000000AB"),
            &format!("p/a/blocks/{id}/00000000000000ab/x"),
            &format!("p/a/blocks/{}/00000000000000ab", id.to_uppercase()),
            "p/a/blocks/../../b/header",
        ] {
            // Of some there is not even a path.
            let Ok(path) = Path::parse(key) else { continue };
            assert_eq!(Key::parse(&prefix, &path), Key::Other, "{key}");
        }
        for digits in ["+00000000000001f", "00000000000000AB", "1f", "", "header"] {
            assert_eq!(Key::chunk_of(&Path::from(digits)), None, "{digits}");
        }
    }
}

//! What a request is of: its file, what kind of write, and of which positions.

use std::{fmt, ops::Range};

use crate::{open_file::OpenFile, pass::PassKind};

/// What kind of write a request carries out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WriteKind {
    /// Writeback that nobody asked for.
    Background,
    /// What reads fetched, for the cache alone.
    CopyToCache,
    /// A direct write.
    Direct,
    /// A writeback that asks a filter of the client's.
    Filtered,
    /// A part of what is dirty.
    Range,
    /// A page cache of the client's own.
    Source,
    /// All that is dirty.
    Sync,
    /// A writethrough.
    Writethrough,
}

impl WriteKind {
    /// The kind in a word or two.
    pub fn name(self) -> &'static str {
        match self {
            WriteKind::Background => "background",
            WriteKind::CopyToCache => "copy-to-cache",
            WriteKind::Direct => "direct",
            WriteKind::Filtered => "filtered",
            WriteKind::Range => "range",
            WriteKind::Source => "source",
            WriteKind::Sync => "sync",
            WriteKind::Writethrough => "writethrough",
        }
    }
}

impl fmt::Display for WriteKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl From<PassKind> for WriteKind {
    fn from(kind: PassKind) -> WriteKind {
        match kind {
            PassKind::Background => WriteKind::Background,
            PassKind::Copies => WriteKind::CopyToCache,
            PassKind::Range { .. } => WriteKind::Range,
            PassKind::Sync => WriteKind::Sync,
        }
    }
}

/// What is written, by a pass that is about to begin.
#[derive(Clone, Debug)]
pub(crate) struct Subject {
    pub(crate) kind: WriteKind,
    /// The positions that it may write.
    pub(crate) range: Range<u64>,
}

impl Subject {
    /// Whatever there is in a file.
    pub(crate) fn all_of(file: &OpenFile, kind: WriteKind) -> Subject {
        Subject { kind, range: 0..file.folios().size() }
    }

    /// Of a pass over the page cache.
    pub(crate) fn of_pass(file: &OpenFile, kind: PassKind) -> Subject {
        let geometry = file.geometry();
        let blocks = match kind {
            PassKind::Background | PassKind::Copies | PassKind::Sync => {
                return Subject::all_of(file, kind.into());
            }
            PassKind::Range { start, end } => start..end,
        };
        let range = geometry.block_start(blocks.start)..geometry.block_start(blocks.end);
        Subject { kind: kind.into(), range }
    }
}

/// What a request is of.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    /// Its number among the requests of the engine.
    pub(crate) request: u64,
    /// The number of its file among the files of the engine.
    pub(crate) file: u64,
    pub(crate) subject: Subject,
}

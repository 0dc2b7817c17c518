//! The cases: what is done to a file, how it is opened, and what a reader must find.

mod block;
mod fine;
mod header;

use sealback_crypto::HeaderError;

use crate::forge::{B, Forge, HEADER, Key, ROOT, STRIDE, Slot, text};

/// One row of the corpus.
#[derive(Clone)]
pub(crate) struct Case {
    /// Also its file's name, unless an earlier case has the same bytes.
    pub(crate) name: &'static str,
    /// What was done to the file.
    pub(crate) done: &'static str,
    pub(crate) stored: Vec<u8>,
    /// The root key to open it with.
    pub(crate) key: Key,
    /// What the caller remembers of the file.
    pub(crate) expected_file_id: Option<[u8; 32]>,
    pub(crate) least: Option<(u64, [u8; 32])>,
    /// Whether the caller asks for the older slot where the newer is torn.
    pub(crate) recover_torn: bool,
    pub(crate) finding: Finding,
}

/// What a reader must find.
#[derive(Clone)]
pub(crate) enum Finding {
    /// The header opens.
    Opened {
        generation: u64,
        /// The file's plaintext, with zeros in the place of each block that is damaged.
        plaintext: Vec<u8>,
        /// One for each block.
        blocks: Vec<&'static str>,
    },
    /// It does not.
    Refused(HeaderError),
}

/// Every case; names are unique.
pub(crate) fn all() -> Vec<Case> {
    [fine::cases(), header::cases(), block::cases()].concat()
}

impl Case {
    fn new(name: &'static str, done: &'static str, stored: Vec<u8>, finding: Finding) -> Case {
        let (expected_file_id, least, recover_torn) = (None, None, false);
        Case { name, done, stored, key: ROOT, expected_file_id, least, recover_torn, finding }
    }

    /// A file whose header is refused.
    fn refused(
        name: &'static str,
        done: &'static str,
        stored: Vec<u8>,
        error: HeaderError,
    ) -> Case {
        Case::new(name, done, stored, Finding::Refused(error))
    }

    /// A file of generation 2 whose header opens, which holds the usual text.
    fn opened(
        name: &'static str,
        done: &'static str,
        stored: Vec<u8>,
        (size, blocks): (usize, &[&'static str]),
    ) -> Case {
        let mut plaintext = text(0..size);
        for (part, found) in plaintext.chunks_mut(B).zip(blocks) {
            if *found != OPENED {
                part.fill(0);
            }
        }
        let blocks = blocks.to_vec();
        Case::new(name, done, stored, Finding::Opened { generation: 2, plaintext, blocks })
    }

    /// The same with another plaintext.
    fn with_plaintext(mut self, wanted: Vec<u8>) -> Case {
        if let Finding::Opened { plaintext, .. } = &mut self.finding {
            *plaintext = wanted;
        }
        self
    }

    /// The same with another generation.
    fn with_generation(mut self, wanted: u64) -> Case {
        if let Finding::Opened { generation, .. } = &mut self.finding {
            *generation = wanted;
        }
        self
    }
}

/// A file of generation 2 that nothing is wrong with.
fn sound(size: usize) -> Vec<u8> {
    sound_with_holes(size, (0, 0))
}

/// The same with a hole range, in which there is no hole.
fn sound_with_holes(size: usize, holes: (u64, u64)) -> Vec<u8> {
    let forge = Forge::new();
    let header = forge.header(&[Slot::new(1, 0), Slot { holes, ..Slot::new(2, size) }]);
    [header, forge.blocks(&text(0..size), 2)].concat()
}

/// The same file after `change`.
fn changed(mut stored: Vec<u8>, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    change(&mut stored);
    stored
}

/// Where a block begins in the file.
fn block_at(number: usize) -> usize {
    HEADER + number * STRIDE
}

const OPENED: &str = "opened";
const HOLE: &str = "hole";
const ALTERED: &str = "altered_or_torn";
const CUT_SHORT: &str = "cut_short";
const MISSING: &str = "missing";
const HEADER_PUT_BACK: &str = "header_put_back";

//! One file of a log: records behind one another, and an index of what they come to.
//!
//! **Invariants:**
//! 1. What the index says of a block is what the records say of it, the later ones first.
//! 2. After a crash it is what it was after some promise, which is vouched for by who has the file's key.
//! 3. A block's base is what was expected of it when it was first written here, its dirty positions are
//!    all that were changed since; so it stands for all of its writes.

use std::{collections::BTreeMap, io, ops::Range};

use sealback_crypto::{Geometry, Nonce};

use super::{
    chain::{Bytes, Chain},
    changed::Changed,
    record::{Entry, Mac, Placed, Record, SealedEntry},
};
use crate::{Expectation, Expected, Segment as Piece, Write};

/// What was written of one block, and not uploaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedBlock {
    /// The nonce of its latest version.
    pub nonce: Nonce,
    /// Stored bytes of that.
    pub bytes: u32,
    /// What the server must have for it; `None`: whatever it has is written over.
    pub base: Option<Expected>,
    pub(super) changed: Changed,
    /// Where its bytes are.
    at: u64,
}

/// Makes the MAC by which something that is kept here is known again.
pub(super) type Vouch<'a> = &'a dyn Fn(&[u8]) -> Mac;

impl Placed {
    /// With what a promise has to be vouched for.
    fn claim(&self) -> Option<Claim> {
        match &self.record {
            Record::Promise(promise, mac) => {
                Some(Claim { said: promise.said(&self.before), mac: *mac })
            }
            Record::Blocks(_) | Record::Cut { .. } | Record::Kept | Record::Sent { .. } => None,
        }
    }
}

impl LoggedBlock {
    /// The positions in the file that were changed, ascending; none: all of the block.
    pub fn dirty(&self) -> Vec<Range<u64>> {
        self.changed.ranges()
    }

    /// Where the last of them ends; `None`: all of the block was.
    pub fn dirty_end(&self) -> Option<u64> {
        self.changed.end()
    }
}

/// What is known of a block here.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found<'a> {
    Hole,
    Nothing,
    Sealed(&'a LoggedBlock),
}

/// A log's file, and what is in it.
pub(super) struct Segment {
    chain: Chain,
    /// Boxed, they take a third less: what is added in order leaves half of each node empty.
    blocks: BTreeMap<u64, Box<LoggedBlock>>,
    /// What is a hole where no block is.
    holes: Vec<Range<u64>>,
    promise: Option<Promise>,
    /// Something was written since that was promised.
    is_ahead: bool,
    /// With what the last promise that was found here has to be vouched for.
    claim: Option<Claim>,
}

/// What is found, and whoever has the file's key has to say whether he has written it.
pub(super) struct Claim {
    pub(super) said: Vec<u8>,
    pub(super) mac: Mac,
}

/// What was acknowledged of a file and no header says yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Promise {
    /// The file has grown, and is at least so many bytes long; 0 if it has not.
    pub grown_to: u64,
    /// The blocks that may be holes or short (exclusive end).
    pub holes: Range<u64>,
    /// How long the file is to who promises: all that was written before speaks for so much.
    pub size: u64,
}

impl Promise {
    /// Both promises.
    pub(super) fn and(&self, other: &Promise) -> Promise {
        let holes = match (self.holes.is_empty(), other.holes.is_empty()) {
            (_, true) => self.holes.clone(),
            (true, false) => other.holes.clone(),
            (false, false) => {
                self.holes.start.min(other.holes.start)..self.holes.end.max(other.holes.end)
            }
        };
        let grown_to = self.grown_to.max(other.grown_to);
        Promise { grown_to, holes, size: self.size.max(other.size) }
    }
}

impl Segment {
    /// A log's file as it is found, which `name` tells from any other; what stands behind the last whole
    /// record is dropped, or an error if it was acknowledged. So is what stands behind the last promise: that
    /// was not acknowledged, and nobody vouches for it.
    pub(super) fn recover(bytes: Bytes, name: &str) -> io::Result<Segment> {
        let start = blake3::hash(name.as_bytes());
        let (mut chain, mut placed) = Chain::recover(bytes, start)?;
        let is_promise = |placed: &Placed| matches!(placed.record, Record::Promise(..));
        let n_promised = placed.iter().rposition(is_promise).map_or(0, |last| last + 1);
        let claim = placed[..n_promised].last().and_then(Placed::claim);
        let is_kept = |placed: &&Placed| placed.record == Record::Kept;
        let n_whole = n_promised + placed[n_promised..].iter().take_while(is_kept).count();
        if n_whole < placed.len() {
            placed.truncate(n_whole);
            let (end, last) = placed.last().map_or((0, start), |last| (last.end, last.hash));
            chain.take_back(end, last)?;
        }
        let (blocks, holes) = (BTreeMap::new(), Vec::new());
        let mut segment = Segment { chain, blocks, holes, promise: None, is_ahead: false, claim };
        placed.into_iter().for_each(|placed| segment.note(placed));
        Ok(segment)
    }

    /// What is to be vouched for, if this was found here.
    pub(super) fn claim(&self) -> Option<&Claim> {
        self.claim.as_ref()
    }

    /// Whether something was written since something was promised.
    pub(super) fn is_ahead(&self) -> bool {
        self.is_ahead
    }

    /// Appends a write whose expectations hold.
    pub(super) fn append(&mut self, write: &Write) -> io::Result<()> {
        let (mut entries, mut payload) = (Vec::new(), Vec::new());
        for segment in &write.segments {
            match segment {
                Piece::Hole { blocks, .. } => entries.push(Entry::Hole(blocks.clone())),
                Piece::Sealed(sealed) => {
                    for (block, nonce) in sealed.nonces() {
                        let bytes = sealed.block_bytes_of(block);
                        let base = base_of(&write.expectations, block);
                        let dirty = dirty_of(write, block, sealed.geometry());
                        let dirty = if base.is_some() { dirty } else { Vec::new() };
                        payload.push(bytes);
                        let bytes = u32::try_from(bytes.len()).map_err(io::Error::other)?;
                        let sealed = SealedEntry { block, bytes, nonce, base, dirty };
                        entries.push(Entry::Sealed(sealed));
                    }
                }
            }
        }
        self.push(Record::Blocks(entries), &payload)
    }

    /// Appends what is promised, and vouched for with all that is here.
    pub(super) fn promise(&mut self, promise: &Promise, vouch: Vouch<'_>) -> io::Result<()> {
        let mac = vouch(&promise.said(&self.chain.last()));
        self.push(Record::Promise(promise.clone(), mac), &[])
    }

    /// Appends that the file was cut.
    pub(super) fn cut(&mut self, n_blocks: u64) -> io::Result<()> {
        self.push(Record::Cut { n_blocks }, &[])
    }

    fn push(&mut self, record: Record, payload: &[&[u8]]) -> io::Result<()> {
        let placed = self.chain.push(record, payload)?;
        self.note(placed);
        Ok(())
    }

    fn note(&mut self, placed: Placed) {
        let mut at = placed.payload_at;
        self.is_ahead = match placed.record {
            Record::Blocks(_) | Record::Cut { .. } => true,
            Record::Promise(..) => false,
            Record::Kept | Record::Sent { .. } => self.is_ahead,
        };
        match placed.record {
            Record::Blocks(entries) => {
                for entry in entries {
                    match entry {
                        Entry::Hole(blocks) => {
                            self.drop_blocks(&blocks);
                            add(&mut self.holes, blocks);
                        }
                        Entry::Sealed(sealed) => {
                            let bytes = u64::from(sealed.bytes);
                            self.note_block(sealed, at);
                            at += bytes;
                        }
                    }
                }
            }
            Record::Cut { n_blocks } => {
                self.blocks.split_off(&n_blocks);
                self.holes.retain(|hole| hole.start < n_blocks);
                if let Some(last) = self.holes.last_mut() {
                    last.end = last.end.min(n_blocks);
                }
            }
            Record::Promise(promise, _) => {
                let before = self.promise.take().unwrap_or_default();
                self.promise = Some(before.and(&promise));
            }
            // The one is the chain's; the other stands beside a segment.
            Record::Kept | Record::Sent { .. } => {}
        }
    }

    fn note_block(&mut self, sealed: SealedEntry, at: u64) {
        let SealedEntry { block, bytes, nonce, base, dirty } = sealed;
        let (mut first_base, mut changed) = (base, Changed::new(dirty));
        if base.is_some()
            && let Some(before) = self.blocks.get(&block)
        {
            first_base = before.base;
            changed = changed.and(&before.changed);
        }
        let logged = LoggedBlock { nonce, bytes, base: first_base, changed, at };
        self.blocks.insert(block, Box::new(logged));
    }

    fn drop_blocks(&mut self, blocks: &Range<u64>) {
        let dropped: Vec<_> = self.blocks.range(blocks.clone()).map(|(block, _)| *block).collect();
        dropped.iter().for_each(|block| drop(self.blocks.remove(block)));
    }

    /// Drops for good what nobody was promised: what lies behind so many blocks.
    pub(super) fn drop_unpromised(&mut self, n_blocks: u64) -> io::Result<()> {
        if self.end_block() > n_blocks { self.cut(n_blocks) } else { Ok(()) }
    }

    pub(super) fn find(&self, block: u64) -> Found<'_> {
        match self.blocks.get(&block) {
            Some(logged) => Found::Sealed(logged),
            None if self.holes.iter().any(|hole| hole.contains(&block)) => Found::Hole,
            None => Found::Nothing,
        }
    }

    /// Reads a block's stored bytes into the beginning of `to`; returns how many there are.
    pub(super) fn read(&self, logged: &LoggedBlock, to: &mut [u8]) -> io::Result<usize> {
        let len = usize::try_from(logged.bytes).map_err(io::Error::other)?;
        let to = to.get_mut(..len).ok_or(io::ErrorKind::InvalidData)?;
        self.chain.read(logged.at, to).map(|()| len)
    }

    /// All that is in it is acknowledged from now on, and survives a power cut if that is asked for.
    pub(super) fn keep(&mut self, survives_power_cut: bool) -> io::Result<()> {
        if survives_power_cut {
            self.chain.sync()?;
        }
        self.chain.keep()
    }

    pub(super) fn blocks(&self) -> &BTreeMap<u64, Box<LoggedBlock>> {
        &self.blocks
    }

    pub(super) fn promised(&self) -> Option<&Promise> {
        self.promise.as_ref()
    }

    /// The block behind the last that is here.
    pub(super) fn end_block(&self) -> u64 {
        let block = self.blocks.last_key_value().map_or(0, |(block, _)| block + 1);
        self.holes.last().map_or(block, |hole| hole.end.max(block))
    }

    /// Bytes that it takes.
    pub(super) fn bytes(&self) -> u64 {
        self.chain.bytes()
    }

    /// What tells its content from any other.
    pub(super) fn hash(&self) -> blake3::Hash {
        self.chain.last()
    }
}

/// What is expected of a block.
fn base_of(expectations: &[Expectation], block: u64) -> Option<Expected> {
    let at = expectations.binary_search_by_key(&block, |expectation| expectation.block).ok()?;
    Some(expectations[at].expected)
}

/// The positions of a block that a write has changed.
fn dirty_of(write: &Write, block: u64, geometry: Geometry) -> Vec<Range<u64>> {
    let of_block = geometry.block_start(block)..geometry.block_start(block + 1);
    let first = write.dirty.partition_point(|dirty| dirty.end <= of_block.start);
    let within = write.dirty[first..].iter().take_while(|dirty| dirty.start < of_block.end);
    within.map(|dirty| dirty.start.max(of_block.start)..dirty.end.min(of_block.end)).collect()
}

/// Adds a range to ascending ones that neither overlap nor touch.
pub(super) fn add(ranges: &mut Vec<Range<u64>>, range: Range<u64>) {
    let first = ranges.partition_point(|held| held.end < range.start);
    let end = ranges.partition_point(|held| held.start <= range.end);
    let joined = ranges[first..end]
        .iter()
        .fold(range, |joined, held| joined.start.min(held.start)..joined.end.max(held.end));
    ranges.splice(first..end, [joined]);
}

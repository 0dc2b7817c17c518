//! What is known of one file's log: its segments, and the header that the server has.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use sealback_crypto::{Geometry, HEADER_BYTES, HeaderClaims, Nonce};

use super::{
    changed::Changed,
    segment::{Found, Promise, Segment},
};

/// What changes of a log, under its lock.
pub(super) struct State {
    /// As the server had it when it was last asked.
    pub(super) header: Box<[u8; HEADER_BYTES]>,
    pub(super) frozen: Option<(u64, Arc<Segment>)>,
    pub(super) active: Option<(u64, Segment)>,
    /// The number of the next segment.
    pub(super) next: u64,
    /// The file was replaced, or removed.
    pub(super) is_gone: bool,
    /// The last upload failed, and not because the server was away.
    pub(super) is_refused: bool,
    /// Who has the file's key has seen that what was found here is his.
    pub(super) is_proven: bool,
}

impl State {
    /// The segments, the newest first.
    pub(super) fn segments(&self) -> impl Iterator<Item = &Segment> {
        let active = self.active.iter().map(|(_, segment)| segment);
        active.chain(self.frozen.iter().map(|(_, segment)| &**segment))
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.frozen.is_none() && self.active.is_none()
    }

    /// What it takes on the disk, in bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.segments().map(Segment::bytes).sum()
    }

    /// The newest segment that knows a block, and what it knows.
    pub(super) fn find(&self, block: u64) -> Option<(&Segment, Found<'_>)> {
        let found = self.segments().map(|segment| (segment, segment.find(block)));
        found.into_iter().find(|(_, found)| *found != Found::Nothing)
    }

    /// The nonce that is here for a block: of a sealed one, or that there is none.
    pub(super) fn nonce(&self, block: u64) -> Option<Option<Nonce>> {
        match self.find(block)?.1 {
            Found::Sealed(logged) => Some(Some(logged.nonce)),
            Found::Hole => Some(None),
            Found::Nothing => None,
        }
    }

    /// As [`written`](super::WriteLog::written).
    pub(super) fn written(&self) -> Vec<(u64, Vec<Range<u64>>)> {
        let mut written: BTreeMap<u64, Changed> = BTreeMap::new();
        // The newer block has all that the older one has.
        for (block, logged) in self.segments().flat_map(Segment::blocks) {
            let is_latest = matches!(self.nonce(*block), Some(Some(_)));
            if is_latest {
                let changed = match written.remove(block) {
                    Some(newer) => newer.and(&logged.changed),
                    None => logged.changed.clone(),
                };
                written.insert(*block, changed);
            }
        }
        written.into_iter().map(|(block, changed)| (block, changed.ranges())).collect()
    }

    pub(super) fn promised(&self) -> Option<Promise> {
        let promises = self.segments().filter_map(Segment::promised);
        promises.fold(None, |all, one| Some(all.unwrap_or_default().and(one)))
    }

    /// Whether what is here can be uploaded, and so makes room, without anything more being written.
    pub(super) fn can_be_uploaded(&self, geometry: Geometry) -> bool {
        let n_promised = self.n_promised(geometry);
        let is_promised = |segment: &Segment| segment.end_block() <= n_promised;
        let active = self.active.as_ref().map(|(_, segment)| segment);
        !self.is_gone
            && !self.is_refused
            && (self.frozen.is_some() || active.is_none_or(is_promised))
    }

    /// How many blocks the header and the promises speak for.
    pub(super) fn n_promised(&self, geometry: Geometry) -> u64 {
        let promised = self.promised().map_or(0, |promise| promise.size);
        geometry.n_blocks(promised.max(HeaderClaims::of(&self.header).size))
    }
}

//! How blocks read: by the header, and by what this client has written since.

use std::ops::Range;

use sealback_crypto::{BlockDamage, DamageKind, FileView, Geometry, Opened, Verdict};

/// What decides how blocks read.
pub(super) struct View {
    /// With all of what lies between the holes and the blocks that have grown allowed to be holes.
    pub(super) file: FileView,
    /// What may really be holes.
    pub(super) holes: Range<u64>,
    /// Blocks that may be stored so long only.
    pub(super) grown: Vec<(u64, u64)>,
}

impl View {
    /// The first block that is a hole, or shorter than it should be, where only blocks that have grown
    /// may be so, down to the length that they had.
    pub(super) fn first_too_short(
        &self,
        blocks: &Range<u64>,
        opened: &Opened,
    ) -> Option<BlockDamage> {
        if self.grown.is_empty() {
            return None;
        }
        let geometry = opened.geometry();
        let too_short = |(block, verdict): (u64, &Verdict)| {
            let len = match verdict {
                Verdict::Opened { len, .. } => u64::from(*len),
                _ => 0,
            };
            let grown = self.grown.iter().find(|(grown, _)| *grown == block);
            let least = grown.map_or(geometry.block_len(block, self.file.size), |(_, len)| *len);
            let damaged = len < least && !self.holes.contains(&block);
            damaged.then_some(BlockDamage { block, kind: DamageKind::Missing })
        };
        blocks.clone().zip(opened.verdicts()).find_map(too_short)
    }
}

/// Whether something is stored of a block behind a size.
pub(crate) fn reaches_behind(verdict: &Verdict, geometry: Geometry, block: u64, size: u64) -> bool {
    let Verdict::Opened { len, .. } = verdict else { return false };
    geometry.block_start(block) + u64::from(*len) > size
}

/// Whether more is stored of a block than a file of that size has: somebody is making it longer. Who
/// changes the block then has not read all of it, and must not expect what is stored: it is merged.
pub(super) fn is_longer(verdict: &Verdict, geometry: Geometry, block: u64, size: u64) -> bool {
    block < geometry.n_blocks(size) && reaches_behind(verdict, geometry, block, size)
}

//! Opens every block of a file, and tells of each what is there.

use std::{ops::Range, sync::Arc};

use sealback_crypto::{BlockDamage, Nonce, Verdict};
use zeroize::Zeroizing;

use crate::{Error, config::READ_UNIT_BYTES, open_file::OpenFile, ranges::index_of};

/// What the server holds for one block.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BlockReport {
    /// It is not what was written.
    Damaged(BlockDamage),
    /// A hole; it reads as zeros.
    Hole,
    /// It opened.
    Opened {
        /// Plaintext bytes sealed in it.
        len: u32,
        /// The generation that its sealing was for.
        seal_gen: u32,
        /// Its nonce.
        nonce: Nonce,
    },
}

/// Opens all blocks, and tells `each` what it found, in order.
pub(crate) fn verify(
    file: &Arc<OpenFile>,
    mut each: impl FnMut(u64, &BlockReport),
) -> Result<(), Error> {
    let header = file.header();
    let (geometry, size) = (header.geometry(), header.size());
    let unit_blocks = (READ_UNIT_BYTES as u64 / geometry.block_bytes()).max(1);
    let n_blocks = geometry.n_blocks(size);
    let mut plain = Zeroizing::new(Vec::new());
    let mut first = 0;
    while first < n_blocks {
        let blocks = first..(first + unit_blocks).min(n_blocks);
        for (block, report) in verify_unit(file, blocks.clone(), &mut plain)? {
            each(block, &report);
        }
        first = blocks.end;
    }
    Ok(())
}

fn verify_unit(
    file: &Arc<OpenFile>,
    blocks: Range<u64>,
    plain: &mut Zeroizing<Vec<u8>>,
) -> Result<Vec<(u64, BlockReport)>, Error> {
    let header = file.header();
    let (geometry, view) = (header.geometry(), header.view());
    let end = geometry.block_start(blocks.end).min(view.size);
    let len = index_of(end - geometry.block_start(blocks.start));
    plain.resize(len, 0);
    let stored = file.read_blocks(&*file.target, blocks.clone()).map_err(Error::server)?;
    let opened = header.content_key().open(&view, blocks.start, stored, plain);
    let report = |(block, verdict): (u64, &Verdict)| {
        let report = match verdict {
            Verdict::Damaged(damage) => BlockReport::Damaged(*damage),
            Verdict::Opened { len, seal_gen } => {
                let nonce = opened.nonce(block).expect("an opened block has a nonce");
                BlockReport::Opened { len: *len, seal_gen: *seal_gen, nonce }
            }
            _ => BlockReport::Hole,
        };
        (block, report)
    };
    Ok(blocks.zip(opened.verdicts()).map(report).collect())
}

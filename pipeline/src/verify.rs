//! Opens every block of a file, and tells of each what is there; compares a cache's copy with it.

use std::{ops::Range, sync::Arc};

use sealback_crypto::{BlockDamage, Nonce, Opened, Stored, Verdict};
use sealback_stream::CacheFile;
use zeroize::Zeroizing;

use crate::{Error, config::read_unit_blocks, open_file::OpenFile, ranges::index_of};

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

/// What a cache's copy holds for one block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CacheReport {
    /// Nothing that counts.
    Absent,
    /// Not what the server has: damaged, or stale. Reading notices it and heals it.
    Differs,
    /// The server's bytes.
    Same,
}

/// Opens all blocks, and tells `each` what it found, in order.
pub(crate) fn verify(
    file: &Arc<OpenFile>,
    mut each: impl FnMut(u64, &BlockReport),
) -> Result<(), Error> {
    let mut plain = Zeroizing::new(Vec::new());
    for_each_unit(file, |blocks| {
        let opened = open_unit(file, blocks.clone(), &mut plain)?;
        for (block, verdict) in blocks.zip(opened.verdicts()) {
            each(block, &report(&opened, block, verdict));
        }
        Ok(())
    })
}

/// Compares all blocks, and tells `each` what it found, in order.
pub(crate) fn verify_cache(
    file: &Arc<OpenFile>,
    mut each: impl FnMut(u64, CacheReport),
) -> Result<bool, Error> {
    let Some(cache) = file.cache() else { return Ok(false) };
    for_each_unit(file, |blocks| {
        for (block, report) in blocks.clone().zip(compare_unit(file, &*cache, &blocks)?) {
            each(block, report);
        }
        Ok(())
    })?;
    Ok(true)
}

/// Walks the blocks of the committed size, so many at a time that they fit a buffer. The file
/// may be cut between two of them.
pub(crate) fn for_each_unit(
    file: &Arc<OpenFile>,
    mut each: impl FnMut(Range<u64>) -> Result<(), Error>,
) -> Result<(), Error> {
    let geometry = file.geometry();
    let unit_blocks = read_unit_blocks(geometry);
    let mut first = 0;
    loop {
        let _sizes = file.hold_sizes();
        let end = (first + unit_blocks).min(geometry.n_blocks(file.header().size()));
        if first >= end {
            return Ok(());
        }
        each(first..end)?;
        first = end;
    }
}

fn open_unit(
    file: &Arc<OpenFile>,
    blocks: Range<u64>,
    plain: &mut Zeroizing<Vec<u8>>,
) -> Result<Opened, Error> {
    let header = file.header();
    let (geometry, view) = (header.geometry(), header.view());
    let end = geometry.block_start(blocks.end).min(view.size);
    plain.resize(index_of(end - geometry.block_start(blocks.start)), 0);
    let stored = file.read_blocks(&*file.target, blocks.clone()).map_err(Error::server)?;
    Ok(header.content_key().open(&view, blocks.start, stored, plain))
}

fn report(opened: &Opened, block: u64, verdict: &Verdict) -> BlockReport {
    match verdict {
        Verdict::Damaged(damage) => BlockReport::Damaged(*damage),
        Verdict::Opened { len, seal_gen } => {
            let nonce = opened.nonce(block).expect("an opened block has a nonce");
            BlockReport::Opened { len: *len, seal_gen: *seal_gen, nonce }
        }
        _ => BlockReport::Hole,
    }
}

fn compare_unit(
    file: &Arc<OpenFile>,
    cache: &dyn CacheFile,
    blocks: &Range<u64>,
) -> Result<Vec<CacheReport>, Error> {
    let geometry = file.geometry();
    let server = file.read_blocks(&*file.target, blocks.clone()).map_err(Error::server)?;
    let present = cache.present(blocks.clone());
    let copy = file.read_blocks(cache, blocks.clone()).ok();
    let same = |copy: &Stored, index, nonce: &Nonce| {
        let stored = server.block_bytes(geometry, index);
        server.nonce(geometry, index).as_ref() == Some(nonce)
            && stored.is_some()
            && stored == copy.block_bytes(geometry, index)
    };
    let compare = |(index, nonce): (usize, &Option<Nonce>)| match (nonce, &copy) {
        (None, _) => CacheReport::Absent,
        (Some(nonce), Some(copy)) if same(copy, index, nonce) => CacheReport::Same,
        (Some(_), _) => CacheReport::Differs,
    };
    Ok(present.iter().enumerate().map(compare).collect())
}

//! The server's side of an upload: blocks that are sealed already, sent; merged where somebody was before.

use std::{collections::BTreeMap, ops::Range};

use sealback_crypto::{
    Buffer, FileView, Geometry, Header, PREFIX_BYTES, Plaintext, Sealed, Stored,
};
use sealback_stream::{Expectation, LoggedBlock, Segment, Target, Write};

use crate::{
    Error,
    config::READ_UNIT_BYTES,
    control::{grant_now, write_now},
    open_file::OpenFile,
    ranges::{hull, index_of},
    rmw::Merge,
    sync::Arc,
};

/// A block that others keep changing is merged so often.
const MAX_MERGES: u32 = 16;

/// What is known of each block that was logged.
type Known<'a> = &'a dyn Fn(u64) -> Option<LoggedBlock>;

/// A file that takes blocks over.
pub(super) struct Taking<'a> {
    file: &'a Arc<OpenFile>,
    /// The file of which they are taken, which counts them.
    of: &'a OpenFile,
    /// With the lock under which the file grows.
    grows: bool,
    /// Of each block that was sent, how many bytes of plaintext it has.
    sent: BTreeMap<u64, u64>,
}

impl<'a> Taking<'a> {
    pub(super) fn new(file: &'a Arc<OpenFile>, of: &'a OpenFile, grows: bool) -> Taking<'a> {
        Taking { file, of, grows, sent: BTreeMap::new() }
    }

    /// How many stored bytes may go in one write that begins with a block.
    pub(super) fn room_at(&self, block: u64) -> Result<u64, Error> {
        let grant = grant_now(&*self.file.target, block);
        let stride = self.file.geometry().stride_bytes();
        let to_boundary = grant.boundary.map_or(u64::MAX, |end| (end - block) * stride);
        Ok(grant.max_bytes.min(to_boundary).min(READ_UNIT_BYTES as u64))
    }

    /// Sends blocks, `plain_len` bytes of plaintext, as they are; those that are not what was expected are
    /// merged.
    pub(super) fn take(
        &mut self,
        first: u64,
        plain_len: u64,
        stored: Stored,
        known: Known<'_>,
    ) -> Result<(), Error> {
        let (sealed, _) = open_logged(&self.file.header(), (first, plain_len), stored)?;
        let mut waiting = vec![sealed];
        while let Some(run) = waiting.pop() {
            if run.blocks().is_empty() {
                continue;
            }
            let expect = |block| Some(Expectation { block, expected: known(block)?.base? });
            let write = Write {
                expectations: run.blocks().filter_map(expect).collect(),
                segments: vec![Segment::Sealed(run.clone())],
                dirty: Vec::new(),
            };
            let answer =
                self.file.core.persist(None, || write_now(&*self.file.target, write.clone()))?;
            match answer {
                Ok(bytes) => waiting.extend(self.sent(&run, bytes)?),
                Err(conflicts) => {
                    let mut at = run.blocks().start;
                    for conflict in conflicts {
                        let block = conflict.block;
                        let logged = known(block)
                            .filter(|_| run.blocks().contains(&block) && block >= at)
                            .ok_or(Error::Conflict { blocks: vec![conflict] })?;
                        self.merge(run.slice(block..block + 1), logged)?;
                        waiting.push(run.slice(at..block));
                        at = block + 1;
                    }
                    waiting.push(run.slice(at..run.blocks().end));
                }
            }
        }
        Ok(())
    }

    /// Notes what went through; returns the rest.
    fn sent(&mut self, run: &Sealed, bytes: u64) -> Result<Option<Sealed>, Error> {
        let (blocks, stride) = (run.blocks(), self.file.geometry().stride_bytes());
        let all = bytes >= run.bytes().len() as u64;
        let end = if all { blocks.end } else { blocks.start + bytes / stride };
        if end == blocks.start {
            return Err(crate::resize::no_progress(
                self.file.geometry().block_start(end)..self.file.geometry().block_start(blocks.end),
            ));
        }
        let mut uploaded = self.of.uploaded();
        for block in blocks.start..end {
            let bytes = run.block_bytes_of(block).len();
            self.sent.insert(block, (bytes - PREFIX_BYTES) as u64);
            uploaded.blocks += 1;
            uploaded.bytes += bytes as u64;
        }
        Ok((end < blocks.end).then(|| run.slice(end..blocks.end)))
    }

    /// Lays what was changed of a block over what is stored.
    fn merge(&mut self, ours: Sealed, logged: LoggedBlock) -> Result<(), Error> {
        let (block, start) =
            (ours.blocks().start, self.file.geometry().block_start(ours.blocks().start));
        let mut dirty = logged.dirty();
        if dirty.is_empty() {
            dirty.push(start..start + ours.plaintext_len());
        }
        let merge = Merge { block, ours, dirty };
        for _ in 0..MAX_MERGES {
            let merged = self.file.merge(&merge, self.grows)?;
            let write = Write {
                expectations: vec![Expectation { block, expected: merged.expected }],
                segments: vec![Segment::Sealed(merged.sealed.clone())],
                dirty: Vec::new(),
            };
            let answer =
                self.file.core.persist(None, || write_now(&*self.file.target, write.clone()))?;
            if let Ok(bytes) = answer {
                self.of.uploaded().merged += 1;
                return self.sent(&merged.sealed, bytes).map(drop);
            }
        }
        Err(Error::Conflict { blocks: Vec::new() })
    }

    /// The blocks, from the one that a file of `before` bytes ended in, that have less than a file of `size`
    /// bytes has of them.
    pub(super) fn short_blocks(&self, before: u64, size: u64) -> Range<u64> {
        let geometry = self.file.geometry();
        let first = geometry.block_at(before);
        let stored_before = |block| geometry.block_len(block, before);
        let mut short = 0..0;
        let mut at = first;
        let end = geometry.n_blocks(size);
        for (block, len) in self.sent.range(first..end) {
            if at < *block && (at > first || stored_before(at) < geometry.block_len(at, size)) {
                short = hull(&short, &(at..*block));
            }
            if *len < geometry.block_len(*block, size) {
                short = hull(&short, &(*block..*block + 1));
            }
            at = *block + 1;
        }
        if at < end { hull(&short, &(at..end)) } else { short }
    }
}

impl OpenFile {
    /// Copies all blocks of a sealed file that nobody changes.
    pub(super) fn copy_of(self: &Arc<Self>, of: &OpenFile, new: &dyn Target) -> Result<(), Error> {
        let geometry = self.geometry();
        let end = geometry.n_blocks(self.header().size());
        let mut taking = Taking::new(self, of, false);
        let mut first = 0;
        while first < end {
            let most = (taking.room_at(first)? / geometry.stride_bytes()).max(1);
            let blocks = first..end.min(first + most);
            let stored = of.read_blocks(new, blocks.clone()).map_err(Error::server)?;
            first = blocks.end;
            for (run, plain_len, stored) in runs(geometry, blocks, &stored) {
                taking.take(run, plain_len, stored, &|_| None)?;
            }
        }
        if end > 0 && !taking.sent.contains_key(&(end - 1)) {
            self.make_holes(&(end - 1..end), &[])?;
        }
        Ok(())
    }
}

/// Blocks of so many bytes of plaintext, as what may be sent, and that plaintext, if they open.
pub(super) fn open_logged(
    header: &Header,
    (first, plain_len): (u64, u64),
    stored: Stored,
) -> Result<(Sealed, Plaintext), Error> {
    let mut plain = Plaintext::zeros(index_of(plain_len));
    let size = header.geometry().block_start(first) + plain_len;
    // Any header may have been there when they were sealed.
    let view = FileView { size, generation: u64::MAX, holes: 0..0 };
    let opened = header.content_key().open(&view, first, stored, &mut plain);
    if let Some(damage) = opened.first_damage() {
        return Err(Error::Damaged(*damage));
    }
    let sealed = opened.into_sealed().ok_or(Error::Conflict { blocks: Vec::new() })?;
    Ok((sealed, plain))
}

/// What is stored of blocks, without holes: runs of which all blocks but the last are full, each with its first
/// block and its bytes of plaintext.
fn runs(geometry: Geometry, blocks: Range<u64>, stored: &Stored) -> Vec<(u64, u64, Stored)> {
    let stride = index_of(geometry.stride_bytes());
    let mut runs: Vec<(u64, u64, Stored)> = Vec::new();
    let mut is_open = false;
    for (index, block) in blocks.enumerate() {
        if stored.nonce(geometry, index).is_none() {
            is_open = false;
            continue;
        }
        // What is cut short is found so when it is opened.
        let bytes_left = (stored.len - index * stride).min(stride);
        let whole = stored.block_bytes(geometry, index).map(<[u8]>::len);
        let len = whole.unwrap_or(bytes_left);
        let plain_len = match whole {
            Some(len) => (len - PREFIX_BYTES) as u64,
            None => geometry.block_bytes(),
        };
        match runs.last_mut().filter(|_| is_open) {
            Some((_, plain, run)) => {
                *plain += plain_len;
                run.len += len;
            }
            None => {
                let from = index * stride;
                let mut buffer = Buffer::unpooled(stored.len - from);
                buffer.copy_from_slice(&stored.buffer[from..stored.len]);
                runs.push((block, plain_len, Stored { buffer, len }));
            }
        }
        is_open = len == stride;
    }
    runs
}

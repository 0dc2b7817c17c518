//! Reading: what is in a log, over what the server has; of that, however many answers it comes in.

use std::ops::Range;

use sealback_crypto::{Nonce, PREFIX_BYTES, Stored};

use super::{
    log::{WriteLog, index, stride_len, unread},
    segment::Found,
};
use crate::{TargetError, Write, read_stored};

impl WriteLog {
    /// What the server has for the blocks of which something is expected, and that are not here. None of
    /// them while it does not answer: then the upload finds out.
    pub(super) fn stored_there(&self, write: &Write) -> Vec<(u64, Option<Nonce>)> {
        let unknown: Vec<_> = {
            let state = self.state();
            let blocks = write.expectations.iter().map(|expectation| expectation.block);
            blocks.filter(|block| state.nonce(*block).is_none()).collect()
        };
        let mut there = Vec::new();
        for block in unknown {
            let Ok(stored) = self.read_server(block..block + 1) else { return there };
            there.push((block, stored.nonce(self.geometry(), 0)));
        }
        there
    }

    /// What the server has stored for blocks, if it is there.
    fn read_server(&self, blocks: Range<u64>) -> Result<Stored, TargetError> {
        self.ask(|server| read_stored(server, self.geometry(), blocks))
    }

    /// Reads blocks: what is here, and the server's where nothing is. Returns how many bytes there are.
    pub(super) fn read(&self, blocks: &Range<u64>, to: &mut [u8]) -> Result<usize, TargetError> {
        loop {
            // What was here may have gone to the server while that was asked for something else.
            if let Some(bytes) = self.try_read(blocks, to)? {
                return Ok(bytes);
            }
        }
    }

    fn try_read(&self, blocks: &Range<u64>, to: &mut [u8]) -> Result<Option<usize>, TargetError> {
        let stride = stride_len(self.geometry());
        to.fill(0);
        let mut end = 0;
        let missing = self.missing(blocks);
        for run in &missing {
            let at = index(run.start - blocks.start) * stride;
            let stored = self.read_server(run.clone())?;
            to[at..at + stored.len].copy_from_slice(&stored.buffer[..stored.len]);
            end = end.max(if stored.len == 0 { 0 } else { at + stored.len });
        }
        let state = self.state();
        for block in blocks.clone() {
            let at = index(block - blocks.start) * stride;
            let Some((segment, found)) = state.find(block) else {
                match missing.iter().any(|run| run.contains(&block)) {
                    true => continue,
                    false => return Ok(None),
                }
            };
            let place = &mut to[at..at + stride];
            place.fill(0);
            let len = match found {
                Found::Sealed(logged) => segment.read(logged, place),
                Found::Hole | Found::Nothing => Ok(PREFIX_BYTES),
            };
            end = end.max(at + len.map_err(unread)?);
        }
        // What lies before something that is here is part of the file.
        let behind = state.segments().any(|segment| segment.end_block() > blocks.end);
        Ok(Some(if behind { to.len() } else { end }))
    }

    /// The runs of blocks of which nothing is here.
    fn missing(&self, blocks: &Range<u64>) -> Vec<Range<u64>> {
        let state = self.state();
        let mut runs: Vec<Range<u64>> = Vec::new();
        for block in blocks.clone().filter(|block| state.find(*block).is_none()) {
            match runs.last_mut() {
                Some(run) if run.end == block => run.end += 1,
                _ => runs.push(block..block + 1),
            }
        }
        runs
    }
}

//! Reading a target's blocks, and waiting for them.

use std::{ops::Range, sync::mpsc};

use sealback_crypto::{Buffer, Geometry, Stored};

use crate::{Read, ReadCompletion, Target, TargetError, TargetErrorKind};

/// What is stored of blocks: all of it, in however many answers it comes.
pub(super) fn read_all(
    target: &dyn Target,
    geometry: Geometry,
    blocks: Range<u64>,
) -> Result<Stored, TargetError> {
    let n_blocks = usize::try_from(blocks.end - blocks.start).unwrap_or(usize::MAX);
    let stride = usize::try_from(geometry.stride_bytes()).unwrap_or(usize::MAX);
    let mut stored = read_once(target, geometry, blocks.clone())?;
    while stored.n_reached(geometry) < n_blocks {
        let n_whole = stored.len / stride;
        let rest = read_once(target, geometry, blocks.start + n_whole as u64..blocks.end)?;
        let at = n_whole * stride;
        let len = rest.len.min(stored.buffer.len() - at);
        stored.buffer[at..at + len].copy_from_slice(&rest.buffer[..len]);
        stored.len = stored.len.max(at + len);
        if len < stride {
            // All that is stored of its first block: the file ends there.
            break;
        }
    }
    Ok(stored)
}

fn read_once(
    target: &dyn Target,
    geometry: Geometry,
    blocks: Range<u64>,
) -> Result<Stored, TargetError> {
    let bytes = (blocks.end - blocks.start) * geometry.stride_bytes();
    let bytes = usize::try_from(bytes).expect("what is read is in memory");
    let (sender, answer) = mpsc::channel();
    let done = ReadCompletion::new(move |outcome| {
        // Who asks waits for it.
        drop(sender.send(outcome));
    });
    target.read(Read { blocks, geometry, buffer: Buffer::unpooled(bytes) }, done);
    let dropped = || TargetError::new(TargetErrorKind::Dropped, "a read ended without an answer");
    let (buffer, len) = answer.recv().map_err(|_| dropped())??;
    // It may come back another buffer, and say anything.
    if buffer.len() < bytes {
        return Err(dropped());
    }
    Ok(Stored { len: len.min(bytes), buffer })
}

//! Reading blocks of a target that may answer in parts.

use std::{ops::Range, sync::mpsc};

use sealback_crypto::{Buffer, Geometry, Stored};

use crate::{Read, ReadCompletion, Target, TargetError, TargetErrorKind};

/// What is stored of `blocks`: one answer after the other, each asked for by `read_once` from the first block
/// that did not come whole. An answer that comes short is no end ([`Target`](crate::Target), 6): what it leaves
/// out is asked for until nothing more comes, so that who finds a block absent can rely on it.
///
/// # Errors
/// What `read_once` ended with.
///
/// # Panics
/// If there are more blocks than fit the memory.
pub fn read_whole(
    geometry: Geometry,
    blocks: Range<u64>,
    mut read_once: impl FnMut(Range<u64>) -> Result<Stored, TargetError>,
) -> Result<Stored, TargetError> {
    let index_of = |count| usize::try_from(count).expect("what is read is in memory");
    let (n_blocks, stride) =
        (index_of(blocks.end - blocks.start), index_of(geometry.stride_bytes()));
    let mut stored = read_once(blocks.clone())?;
    while stored.n_reached(geometry) < n_blocks {
        let n_whole = stored.len / stride;
        let rest = read_once(blocks.start + n_whole as u64..blocks.end)?;
        let from = n_whole * stride;
        // The first answer may have come in a buffer that has no room for this one.
        let len = rest.len.min(stored.buffer.len() - from);
        stored.len = stored.len.max(from + len);
        stored.buffer[from..][..len].copy_from_slice(&rest.buffer[..len]);
        if len < stride {
            // It is all that is stored of its first block, and so the end.
            break;
        }
    }
    Ok(stored)
}

/// What a target has stored of `blocks`, all of it, in however many answers that comes. Waits for them.
///
/// # Errors
/// The target's; [`TargetErrorKind::Dropped`] if it gives no answer, or not the buffer that it was lent.
///
/// # Panics
/// If there are more blocks than fit the memory.
pub fn read_stored(
    target: &dyn Target,
    geometry: Geometry,
    blocks: Range<u64>,
) -> Result<Stored, TargetError> {
    read_whole(geometry, blocks, |blocks| read_once(target, geometry, blocks))
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

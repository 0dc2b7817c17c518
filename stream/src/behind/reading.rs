//! Reading a target's blocks, however many answers they come in, and waiting for them.

use std::{ops::Range, sync::mpsc};

use sealback_crypto::{Buffer, Geometry, Stored};

use crate::{Read, ReadCompletion, Target, TargetError, TargetErrorKind, read_whole};

/// What is stored of blocks: all of it, in however many answers it comes.
pub(super) fn read_all(
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

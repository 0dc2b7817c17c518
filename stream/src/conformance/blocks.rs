//! Writing and reading blocks.

use sealback_crypto::{BufferPool, PREFIX_BYTES};

use super::{
    ServerChecks, Verdict, ensure,
    sample::{Sample, name, put, read, read_into, write},
};
use crate::{Segment, Server};

pub(super) const CHECKS: ServerChecks = &[
    ("what was written reads back, byte for byte", round_trips),
    ("a write of several segments stores each at its place", several_segments),
    ("what was written anew reads anew, through every handle", overwritten),
    ("a read is short where the stored file ends", short_at_the_end),
    ("a gap reads as zeros", gap_of_zeros),
    ("a hole's prefixes read as zeros, and its neighbours stay", holes),
    ("a hole at the end reaches the end of its last prefix", hole_at_the_end),
    ("a hole far beyond the end makes the file longer, by zeros", hole_beyond_the_end),
    ("a short last block is written anew, longer and shorter", short_block_anew),
    ("a read gives its buffer back", buffer_back),
];

fn round_trips(server: &dyn Server) -> Verdict {
    let sample = Sample::new(server)?;
    let target = sample.create(server, &name("a")?)?;
    for (first, n_blocks) in
        [(0, 1), (1, 3), (500, 2), (63, 1), (64, 1), (65, 5), (1000, 16), (7, 1), (1023, 2)]
    {
        let sealed = sample.seal(first..first + n_blocks, 3)?;
        put(&*target, &sealed)?;
        sample.ensure_stored(&*target, &sealed)?;
        // A run that was cut out of a larger one stands at its own place.
        let part = sealed.slice(first + n_blocks / 2..first + n_blocks);
        sample.ensure_stored(&*target, &part)?;
    }
    let short = sample.seal_bytes(1030, 4096 + 5, 4)?;
    put(&*target, &short)?;
    let stored = read(&*target, sample.geometry(), 1030..1032)?;
    ensure!(stored == short.bytes(), "a short last block does not read back alone");
    Ok(())
}

fn several_segments(server: &dyn Server) -> Verdict {
    let sample = Sample::new(server)?;
    let target = sample.create(server, &name("a")?)?;
    let (left, right, far) = (sample.seal(2..4, 1)?, sample.seal(4..5, 2)?, sample.seal(9..11, 3)?);
    let short = sample.seal_bytes(20, 100, 4)?;
    let all = [&left, &right, &far, &short];
    write(&*target, all.map(|sealed| Segment::Sealed(sealed.clone())).into())?;
    for sealed in all {
        sample.ensure_stored(&*target, sealed)?;
    }
    let gap = read(&*target, sample.geometry(), 5..9)?;
    ensure!(gap.iter().all(|byte| *byte == 0), "the gap between two segments was written to");
    Ok(())
}

fn overwritten(server: &dyn Server) -> Verdict {
    let (sample, name) = (Sample::new(server)?, name("a")?);
    let target = sample.create(server, &name)?;
    let other = server.open(&name)?;
    let first = sample.seal(0..6, 1)?;
    put(&*target, &first)?;
    sample.ensure_stored(&*other, &first)?;
    let second = sample.seal(2..4, 2)?;
    put(&*other, &second)?;
    sample.ensure_stored(&*target, &second)?;
    sample.ensure_stored(&*target, &first.slice(0..2))?;
    sample.ensure_stored(&*target, &first.slice(4..6))
}

fn short_at_the_end(server: &dyn Server) -> Verdict {
    let sample = Sample::new(server)?;
    let target = sample.create(server, &name("a")?)?;
    let sealed = sample.seal_bytes(0, 2 * 4096 + 17, 1)?;
    put(&*target, &sealed)?;
    let stored = read(&*target, sample.geometry(), 0..8)?;
    ensure!(stored == sealed.bytes(), "{} bytes are there", stored.len());
    for beyond in [3, 4, 100, 1 << 40] {
        let stored = read(&*target, sample.geometry(), beyond..beyond + 2)?;
        ensure!(stored.is_empty(), "block {beyond}, beyond the end, has {} bytes", stored.len());
    }
    Ok(())
}

fn gap_of_zeros(server: &dyn Server) -> Verdict {
    let sample = Sample::new(server)?;
    let target = sample.create(server, &name("a")?)?;
    put(&*target, &sample.seal(40..41, 1)?)?;
    let stored = read(&*target, sample.geometry(), 0..40)?;
    let n_bytes = 40 * 4144;
    ensure!(stored.len() == n_bytes, "{} bytes were read of {n_bytes}", stored.len());
    ensure!(stored.iter().all(|byte| *byte == 0), "there is something in the gap");
    Ok(())
}

fn holes(server: &dyn Server) -> Verdict {
    let sample = Sample::new(server)?;
    let target = sample.create(server, &name("a")?)?;
    let sealed = sample.seal(0..12, 1)?;
    put(&*target, &sealed)?;
    let anew = sample.seal(8..9, 2)?;
    let segments = vec![
        sample.hole(1..2),
        sample.hole(4..8),
        Segment::Sealed(anew.clone()),
        sample.hole(9..10),
    ];
    write(&*target, segments)?;
    for block in [1, 4, 5, 6, 7, 9] {
        let stored = read(&*target, sample.geometry(), block..block + 1)?;
        ensure!(stored.len() == 4144, "of hole {block}, {} bytes are there", stored.len());
        ensure!(stored[..PREFIX_BYTES] == [0; PREFIX_BYTES], "hole {block} has a prefix");
    }
    for blocks in [0..1, 2..4, 10..12] {
        sample.ensure_stored(&*target, &sealed.slice(blocks))?;
    }
    sample.ensure_stored(&*target, &anew)
}

fn hole_at_the_end(server: &dyn Server) -> Verdict {
    let sample = Sample::new(server)?;
    let target = sample.create(server, &name("a")?)?;
    let sealed = sample.seal(0..3, 1)?;
    put(&*target, &sealed)?;
    for holes in [2..3, 1..6, 9..20] {
        let last = holes.end - 1;
        write(&*target, vec![sample.hole(holes)])?;
        let stored = read(&*target, sample.geometry(), last..last + 1)?;
        ensure!(stored.len() >= PREFIX_BYTES, "{} bytes of the last hole", stored.len());
        ensure!(stored[..PREFIX_BYTES] == [0; PREFIX_BYTES], "the last hole has a prefix");
    }
    sample.ensure_stored(&*target, &sealed.slice(0..1))
}

fn hole_beyond_the_end(server: &dyn Server) -> Verdict {
    let sample = Sample::new(server)?;
    let target = sample.create(server, &name("a")?)?;
    let sealed = sample.seal_bytes(0, 4096 + 17, 1)?;
    put(&*target, &sealed)?;
    write(&*target, vec![sample.hole(20..22)])?;
    let stored = read(&*target, sample.geometry(), 0..22)?;
    let least = 21 * 4144 + PREFIX_BYTES;
    ensure!(stored.len() >= least, "{} bytes are there, where {least} must be", stored.len());
    let (old, new) = stored.split_at(sealed.bytes().len());
    ensure!(old == sealed.bytes(), "what was there is no longer");
    ensure!(new.iter().all(|byte| *byte == 0), "there is something in what is new");
    Ok(())
}

fn short_block_anew(server: &dyn Server) -> Verdict {
    let sample = Sample::new(server)?;
    let target = sample.create(server, &name("a")?)?;
    let before = sample.seal(0..2, 1)?;
    put(&*target, &before)?;
    let mut longest = 0;
    for bytes in [100, 4000, 4096, 1, 2000] {
        let last = sample.seal_bytes(2, bytes, 2)?;
        put(&*target, &last)?;
        longest = longest.max(last.bytes().len());
        let stored = read(&*target, sample.geometry(), 2..4)?;
        // What was longer before may stand behind it.
        ensure!(stored.starts_with(last.bytes()), "{bytes} bytes do not read back");
        ensure!(stored.len() <= longest, "{} bytes are there, of {longest}", stored.len());
    }
    sample.ensure_stored(&*target, &before)
}

fn buffer_back(server: &dyn Server) -> Verdict {
    let sample = Sample::new(server)?;
    let target = sample.create(server, &name("a")?)?;
    let sealed = sample.seal(0..1, 1)?;
    put(&*target, &sealed)?;
    let pool = BufferPool::new(1, 3 * 4144);
    for blocks in [0..1, 0..3, 5..6] {
        let Some(buffer) = pool.try_take() else {
            ensure!(false, "the buffer of an earlier read did not come home");
            continue;
        };
        let (buffer, bytes) = read_into(&*target, sample.geometry(), blocks.clone(), buffer)?;
        ensure!(pool.n_free() == 0 && buffer.len() == 3 * 4144, "another buffer came back");
        ensure!(sealed.bytes().starts_with(&buffer[..bytes]), "of {blocks:?}, other bytes");
    }
    ensure!(pool.n_free() == 1, "the buffer did not come home");
    Ok(())
}

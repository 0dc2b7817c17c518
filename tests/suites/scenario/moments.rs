//! What a file may be after a crash: a moment since something was acknowledged, block for block.

use sealback::{Error, File};

/// What is done to a file.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Punch { at: usize, len: usize },
    SetLen(usize),
    Sync,
    Write { at: usize, len: usize },
}

/// What the file may be after a crash.
pub(crate) struct Model {
    /// What was acknowledged last, and what it was after each operation since; of the last one, that
    /// need not have gone through.
    moments: Vec<Vec<u8>>,
}

impl Model {
    /// Of a file that is on the server as it is.
    pub(crate) fn of(bytes: Vec<u8>) -> Model {
        Model { moments: vec![bytes] }
    }

    /// Whether all of it is on the server.
    pub(crate) fn is_acknowledged(&self) -> bool {
        self.moments.len() == 1
    }

    fn now(&self) -> Vec<u8> {
        self.moments.last().cloned().unwrap_or_default()
    }

    /// Notes what an operation would make of the file.
    pub(crate) fn begin(&mut self, op: &Op, number: u32) {
        let mut now = self.now();
        match *op {
            Op::Punch { at, len } => {
                let end = (at + len).min(now.len());
                now[at.min(end)..end].fill(0);
            }
            Op::SetLen(len) => now.resize(len, 0),
            Op::Sync => {}
            Op::Write { at, len } => {
                now.resize(now.len().max(at + len), 0);
                now[at..at + len].copy_from_slice(&content(number, len));
            }
        }
        self.moments.push(now);
    }

    /// It went through.
    pub(crate) fn end(&mut self, op: &Op) {
        let now = self.now();
        match *op {
            Op::Sync => self.moments = vec![now],
            // What is cut off is gone, whatever else is not there yet.
            Op::SetLen(len) => self.moments.iter_mut().for_each(|moment| moment.truncate(len)),
            Op::Punch { .. } | Op::Write { .. } => {}
        }
    }

    /// Whether it may have that size: that of a moment, or one between two where it grew, since what is
    /// being written may be written back in part.
    fn may_be_long(&self, size: usize) -> bool {
        let mut steps = self.moments.windows(2).map(|step| step[0].len()..=step[1].len());
        self.moments.iter().any(|moment| moment.len() == size)
            || steps.any(|step| step.contains(&size))
    }

    /// Whether that may be there.
    pub(crate) fn check(&self, found: &[u8], block_bytes: usize) -> Result<(), String> {
        if !self.may_be_long(found.len()) {
            let sizes: Vec<usize> = self.moments.iter().map(Vec::len).collect();
            return Err(format!("{} bytes, of {sizes:?}", found.len()));
        }
        for (block, bytes) in found.chunks(block_bytes).enumerate() {
            let at = block * block_bytes;
            let is = |moment: &Vec<u8>| matches(bytes, moment, at);
            // A block of several folios may be written back while they are being written.
            let is_between = |step: &[Vec<u8>]| {
                let borders = (0..bytes.len()).step_by(FOLIO_BYTES);
                borders.into_iter().any(|border| {
                    let (new, old) = bytes.split_at(border);
                    matches(new, &step[1], at) && matches(old, &step[0], at + border)
                })
            };
            if !self.moments.iter().any(is) && !self.moments.windows(2).any(is_between) {
                return Err(format!("block {block} is as it never was"));
            }
        }
        Ok(())
    }
}

pub(crate) fn apply(file: &File, op: &Op, number: u32) -> Result<(), Error> {
    match *op {
        Op::Punch { at, len } => file.punch(at as u64..(at + len) as u64),
        Op::SetLen(len) => file.set_len(len as u64),
        Op::Sync => file.sync(),
        Op::Write { at, len } => file.write_at(at as u64, &content(number, len)),
    }
}

/// Whether that is what a moment has from a position on, with zeros behind its end.
fn matches(bytes: &[u8], moment: &[u8], at: usize) -> bool {
    let there = moment.get(at..).unwrap_or_default();
    let there = &there[..there.len().min(bytes.len())];
    bytes[..there.len()] == *there && bytes[there.len()..].iter().all(|byte| *byte == 0)
}

/// That of an engine that was not told otherwise: blocks are as large or smaller, or as many times larger.
const FOLIO_BYTES: usize = 64 << 10;

/// What the operation of a number writes.
fn content(number: u32, len: usize) -> Vec<u8> {
    number.to_le_bytes().into_iter().cycle().take(len).collect()
}

pub(crate) fn read_all(file: &File) -> Result<Vec<u8>, Error> {
    let mut bytes = vec![0; usize::try_from(file.size()).unwrap()];
    let read = file.read_at(0, &mut bytes)?;
    assert_eq!(read, bytes.len());
    Ok(bytes)
}

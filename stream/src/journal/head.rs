//! The journal's first bytes: how far what is in it has been carried out.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    io,
};

use super::{LOG_START, Owner, field, u64_at};
use crate::flat::{Flat, overwrite};

/// What the head says. It is written in one step that neither a kill nor a power cut can tear: it
/// lies within one sector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// Whether a record behind it may be all that the disk has of what it speaks of.
    pub(super) durable: bool,
    /// The run of the machine in which it was written.
    pub(super) run: [u8; 16],
    /// The number of the log: each begins anew behind the head.
    pub(super) epoch: u64,
    /// What stands before this place (exclusive end) has been carried out, as this run sees the file.
    pub(super) applied: u64,
    /// Goes up with every change of the file by somebody who does not wait for the disk.
    pub(super) changes: u64,
    /// The stored file of which the records speak.
    pub(super) inode: u64,
}

impl Head {
    /// That of a log that nobody has begun. It is like no other, so that nobody takes the next log for
    /// one that he has left before it was emptied.
    pub(super) fn none(owner: &Owner<'_>) -> Head {
        Head {
            durable: false,
            run: owner.run,
            epoch: 0,
            applied: LOG_START,
            changes: RandomState::new().build_hasher().finish(),
            inode: owner.inode,
        }
    }

    /// That of the next log, which is empty.
    #[must_use]
    pub(super) fn next_log(self, owner: &Owner<'_>) -> Head {
        let (epoch, changes) = (self.epoch.saturating_add(1), self.changes.wrapping_add(1));
        Head { epoch, changes, ..Head::none(owner) }
    }

    /// Reads it; `None` if it is not there, or not whole. One of a later version is refused: what it
    /// speaks of is not known here.
    pub(super) fn read(log: &dyn Flat, owner: &Owner<'_>) -> io::Result<Option<Head>> {
        let mut bytes = [0; HEAD_LEN];
        log.read_at(0, &mut bytes)?;
        let (said, mac) = bytes.split_at(HEAD_LEN - 32);
        if !said.starts_with(MAGIC) || owner.hash(&[said]) != *mac {
            return Ok(None);
        }
        let version = u16::from_le_bytes(field(&bytes, 8));
        if version != VERSION {
            let said = format!("the journal is of version {version}, not {VERSION}");
            return Err(io::Error::new(io::ErrorKind::Unsupported, said));
        }
        Ok(Some(Head {
            durable: bytes[10] != 0,
            run: field(&bytes, 16),
            epoch: u64_at(&bytes, 32),
            applied: u64_at(&bytes, 40),
            changes: u64_at(&bytes, 48),
            inode: u64_at(&bytes, 56),
        }))
    }

    pub(super) fn write(&self, log: &mut dyn Flat, owner: &Owner<'_>) -> io::Result<()> {
        overwrite(log, 0, &self.to_bytes(owner))
    }

    pub(super) fn to_bytes(self, owner: &Owner<'_>) -> [u8; HEAD_LEN] {
        self.to_bytes_of_version(owner, VERSION)
    }

    pub(super) fn to_bytes_of_version(self, owner: &Owner<'_>, version: u16) -> [u8; HEAD_LEN] {
        let mut bytes = [0; HEAD_LEN];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..10].copy_from_slice(&version.to_le_bytes());
        bytes[10] = u8::from(self.durable);
        bytes[16..32].copy_from_slice(&self.run);
        for (at, value) in
            [(32, self.epoch), (40, self.applied), (48, self.changes), (56, self.inode)]
        {
            bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        let hash = owner.hash(&[&bytes[..HEAD_LEN - 32]]);
        bytes[HEAD_LEN - 32..].copy_from_slice(&hash);
        bytes
    }
}

pub(super) const HEAD_LEN: usize = 128;
const MAGIC: &[u8; 8] = b"SBJOURNL";
const VERSION: u16 = 1;

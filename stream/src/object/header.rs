//! The header of a file: read, compared and written, put in the place of another's.

use std::ops::Range;

use bytes::Bytes;
use object_store::{UpdateVersion, path::Path};
use sealback_crypto::{HEADER_BYTES, HeaderClaims, SlotExpectation, SlotWrite};

use super::{
    alter::{First, Object, Step, Unaltered},
    file::{OpenObject, Standing},
    keys::Keys,
    store::{Found, Store},
};
use crate::{TargetError, TargetErrorKind};

/// An object of a header's key may be somebody's mistake, but is not read without end.
const MAX_BYTES: u64 = 64 << 10;

pub(super) fn object(key: &Path) -> Object<'_> {
    Object { key, max_bytes: MAX_BYTES }
}

/// The header that was found, if there is one. An empty object is what a removed file leaves behind.
pub(super) fn header_of(found: &Found) -> Option<&Bytes> {
    match found {
        Found::Content { bytes, .. } if !bytes.is_empty() => Some(bytes),
        Found::Absent | Found::Content { .. } | Found::Length { .. } => None,
    }
}

/// What a stored header claims; one that is cut short is filled up with zeros.
pub(super) fn claims_of(header: &[u8]) -> HeaderClaims {
    let mut whole = Box::new([0; HEADER_BYTES]);
    let len = header.len().min(HEADER_BYTES);
    whole[..len].copy_from_slice(&header[..len]);
    HeaderClaims::of(&whole)
}

impl Store {
    /// The header object of a file, as it is now.
    pub(super) async fn header(&self, keys: &Keys) -> Result<Found, TargetError> {
        self.get(&keys.header(), MAX_BYTES).await
    }

    /// Makes a header the one of its name, if `may_replace` allows what is there; returns what was.
    pub(super) async fn put_header(
        &self,
        keys: &Keys,
        header: Bytes,
        may_replace: impl Fn(Option<&Bytes>) -> Result<(), TargetError>,
    ) -> Result<(Found, Found), TargetError> {
        let key = keys.header();
        let mut replaced = Found::Absent;
        let decide = |found: &Found| {
            let there = header_of(found);
            // Only an earlier attempt can have put it there: nobody else has its file id.
            if there == Some(&header) {
                return Step::Done;
            }
            if let Err(refusal) = may_replace(there) {
                return Step::Refuse(refusal);
            }
            replaced = found.clone();
            Step::Put(header.clone().into())
        };
        let first = First::Guess(Found::Absent);
        let version = self.alter(object(&key), first, decide).await.map_err(either)?;
        let stored = match version {
            Some(version) => Found::Content { bytes: header, version },
            None => Found::Absent,
        };
        Ok((replaced, stored))
    }
}

impl OpenObject {
    pub(super) async fn read_header(&self) -> Result<Bytes, TargetError> {
        if let Some(header) = self.own_header() {
            return Ok(header);
        }
        let found = self.store.header(&self.keys).await?;
        // It may have lost its name meanwhile.
        if let Some(header) = self.own_header() {
            return Ok(header);
        }
        let header = header_of(&found).cloned().ok_or_else(gone)?;
        self.saw(found.version().cloned().map(|version| (header.clone(), version)));
        Ok(header.slice(..header.len().min(HEADER_BYTES)))
    }

    /// The header of a file that is not the one of its name.
    fn own_header(&self) -> Option<Bytes> {
        match &*self.standing() {
            Standing::Draft { header } | Standing::Gone { header } => Some(header.clone()),
            Standing::Stored { .. } => None,
        }
    }

    /// The header in the store is this one, if it is known.
    fn saw(&self, header: Option<(Bytes, UpdateVersion)>) {
        if let Standing::Stored { last } = &mut *self.standing() {
            *last = header;
        }
    }

    pub(super) async fn write_slot(&self, write: &SlotWrite) -> Result<(), TargetError> {
        let _turn = self.header_turn.lock().await;
        let last = match &mut *self.standing() {
            Standing::Draft { header } => {
                check(header, &write.expect)?;
                *header = with_slot(header, write);
                return Ok(());
            }
            Standing::Gone { .. } => return Err(gone()),
            Standing::Stored { last } => last.take(),
        };
        let first = match last {
            Some((bytes, version)) => First::Guess(Found::Content { bytes, version }),
            None => First::Content,
        };
        let stored = self.write_stored_slot(write, first).await?;
        self.saw(stored);
        Ok(())
    }

    async fn write_stored_slot(
        &self,
        write: &SlotWrite,
        first: First,
    ) -> Result<Option<(Bytes, UpdateVersion)>, TargetError> {
        let key = self.keys.header();
        let mut put: Option<Bytes> = None;
        let decide = |found: &Found| {
            let Some(header) = header_of(found) else { return Step::Refuse(gone()) };
            if put.is_some() && header.get(slot(write)) == Some(&write.bytes[..]) {
                // An attempt went through that was answered otherwise.
                put = Some(header.clone());
                return Step::Done;
            }
            match check(header, &write.expect) {
                Ok(()) => Step::Put(put.insert(with_slot(header, write)).clone().into()),
                Err(error) => Step::Refuse(error),
            }
        };
        let version = self.store.alter(object(&key), first, decide).await.map_err(either)?;
        Ok(put.zip(version))
    }

    /// The header, if it still is what was read.
    pub(super) async fn check_header(&self, expect: &SlotExpectation) -> Result<(), TargetError> {
        check(&self.read_header().await?, expect)
    }
}

/// A header with a slot written. One that is too short for it is not what was read.
fn with_slot(header: &Bytes, write: &SlotWrite) -> Bytes {
    let mut header = header.to_vec();
    if let Some(slot) = header.get_mut(slot(write)) {
        slot.copy_from_slice(&write.bytes[..]);
    }
    header.into()
}

fn slot(write: &SlotWrite) -> Range<usize> {
    let start = usize::try_from(write.offset).unwrap_or(HEADER_BYTES);
    start..start.saturating_add(write.bytes.len())
}

/// Whether a header is still what was read.
fn check(header: &[u8], expect: &SlotExpectation) -> Result<(), TargetError> {
    let mac_at = usize::try_from(expect.mac_offset).unwrap_or(HEADER_BYTES);
    let mac = header.get(mac_at..mac_at.saturating_add(expect.mac.len()));
    if header.len() == HEADER_BYTES
        && header.starts_with(&expect.prologue)
        && mac == Some(&expect.mac)
    {
        return Ok(());
    }
    Err(TargetError::new(TargetErrorKind::Conflict, "the header is no longer what was read"))
}

pub(super) fn gone() -> TargetError {
    TargetError::new(TargetErrorKind::NotFound, "the file was removed, or another has its name")
}

pub(super) fn either(unaltered: Unaltered<TargetError>) -> TargetError {
    match unaltered {
        Unaltered::Failed(error) | Unaltered::Refused(error) => error,
    }
}

//! A server and a cache that keep nothing but headers: what a measurement compares with.
//!
//! They accept every write at once, whatever it expects, and have no block when it is read.

use std::{fmt, ops::Range, task::Waker};

use sealback_crypto::{FileId, Geometry, HEADER_BYTES, Nonce, Sealed, SlotExpectation, SlotWrite};

use crate::{
    Cache, CacheFile, Completion, Grant, Prepared, Read, ReadCompletion, SizeLock, SizeLockAttempt,
    Target, TargetError, Write,
    flat::{check_header, write_slot},
    memory::{Shelf, Shelved, Unpublished},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// A server that keeps nothing but headers. Clones are the same server.
#[derive(Clone)]
pub struct NullServer {
    shelf: Arc<Shelf<Header>>,
    max_write_bytes: u64,
}

impl NullServer {
    /// A server without files, that takes so many stored bytes in one write.
    pub fn new(max_write_bytes: u64) -> NullServer {
        NullServer { shelf: Shelf::new(), max_write_bytes }
    }
}

impl Default for NullServer {
    fn default() -> NullServer {
        NullServer::new(DEFAULT_MAX_WRITE_BYTES)
    }
}

impl fmt::Debug for NullServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NullServer")
    }
}

impl Shelved for NullServer {
    type File = Header;

    fn shelf(&self) -> &Arc<Shelf<Header>> {
        &self.shelf
    }

    fn begin(&self, header: &[u8; HEADER_BYTES]) -> Result<Arc<Header>, TargetError> {
        Ok(Header::new(header.to_vec()))
    }

    fn handle(&self, header: Arc<Header>, unpublished: Unpublished<Header>) -> Arc<dyn Target> {
        Arc::new(NullFile { header, unpublished, max_write_bytes: self.max_write_bytes })
    }
}

/// A cache that has nothing: every record is absent, whatever was confirmed.
#[derive(Clone, Debug)]
pub struct NullCache {
    max_write_bytes: u64,
}

impl NullCache {
    /// A cache that takes so many stored bytes in one write.
    pub fn new(max_write_bytes: u64) -> NullCache {
        NullCache { max_write_bytes }
    }
}

impl Default for NullCache {
    fn default() -> NullCache {
        NullCache::new(DEFAULT_MAX_WRITE_BYTES)
    }
}

impl Cache for NullCache {
    fn open(
        &self,
        _file_id: FileId,
        _geometry: Geometry,
    ) -> Result<Arc<dyn CacheFile>, TargetError> {
        let (header, unpublished) = (Header::new(Vec::new()), Unpublished::none());
        Ok(Arc::new(NullFile { header, unpublished, max_write_bytes: self.max_write_bytes }))
    }
}

/// The stored header, all that is kept.
pub(crate) struct Header(Mutex<Vec<u8>>);

impl Header {
    fn new(bytes: Vec<u8>) -> Arc<Header> {
        Arc::new(Header(Mutex::new(bytes)))
    }

    /// Nothing under the lock can panic half-way.
    fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct NullFile {
    header: Arc<Header>,
    unpublished: Unpublished<Header>,
    max_write_bytes: u64,
}

impl fmt::Debug for NullFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NullFile")
    }
}

impl Target for NullFile {
    fn identity(&self) -> u128 {
        Arc::as_ptr(&self.header).addr() as u128
    }

    fn prepare(&self, _block: u64, _waker: &Waker) -> Prepared {
        Prepared::Granted(Grant::unlimited().with_max_bytes(self.max_write_bytes))
    }

    fn is_immediate(&self) -> bool {
        true
    }

    fn write(&self, write: Write, done: Completion) {
        let bytes = write.bytes();
        // The sealed buffers go home before anyone hears of the end.
        drop(write);
        done.written(bytes);
    }

    fn read(&self, read: Read, done: ReadCompletion) {
        done.read(read.buffer, 0);
    }

    fn read_header(&self) -> Result<Vec<u8>, TargetError> {
        Ok(self.header.bytes().clone())
    }

    fn write_slot(&self, write: &SlotWrite) -> Result<(), TargetError> {
        write_slot(&mut *self.header.bytes(), write)
    }

    fn cut(
        &self,
        _geometry: Geometry,
        _n_blocks: u64,
        expect: &SlotExpectation,
    ) -> Result<(), TargetError> {
        check_header(&*self.header.bytes(), expect)
    }

    fn barrier(&self) -> Result<(), TargetError> {
        Ok(())
    }

    fn publish(&self) -> Result<(), TargetError> {
        self.unpublished.publish(&self.header);
        Ok(())
    }

    fn lock_size(&self) -> Result<Option<SizeLock>, TargetError> {
        Ok(None)
    }

    fn try_lock_size(&self) -> Result<SizeLockAttempt, TargetError> {
        Ok(SizeLockAttempt::Lockless)
    }
}

impl CacheFile for NullFile {
    fn present(&self, blocks: Range<u64>) -> Vec<Option<Nonce>> {
        blocks.map(|_| None).collect()
    }

    fn forget(&self, _blocks: Range<u64>) -> Result<(), TargetError> {
        Ok(())
    }

    fn confirm(&self, _sealed: &Sealed) -> Result<(), TargetError> {
        Ok(())
    }

    fn invalidate(&self) -> Result<(), TargetError> {
        Ok(())
    }

    fn set_header(
        &self,
        header: &[u8; HEADER_BYTES],
        _stored_bytes: u64,
    ) -> Result<(), TargetError> {
        *self.header.bytes() = header.to_vec();
        Ok(())
    }
}

const DEFAULT_MAX_WRITE_BYTES: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::{cache_checks, server_checks};

    #[test]
    fn what_the_contract_says_of_names_headers_and_grants_is_kept() {
        let mut n_checks = 0;
        for check in server_checks().filter(|check| KEPT.contains(&check.sentence)) {
            check.run(&NullServer::default());
            n_checks += 1;
        }
        assert_eq!(n_checks, KEPT.len());
    }

    #[test]
    fn a_null_cache_has_no_block_whatever_was_confirmed() {
        let sentence = "of a new copy, no block is present";
        let check = cache_checks().find(|check| check.sentence == sentence).unwrap();
        check.run(&NullCache::default());
        let geometry = Geometry::new(4096).unwrap();
        let copy = NullCache::new(7).open(FileId::from_bytes([0; 32]), geometry).unwrap();
        copy.set_header(&[3; HEADER_BYTES], 0).unwrap();
        assert_eq!(copy.read_header().unwrap(), [3; HEADER_BYTES]);
        let Prepared::Granted(grant) = copy.prepare(0, Waker::noop()) else { unreachable!() };
        assert_eq!(grant.max_bytes, 7);
    }

    const KEPT: &[&str] = &[
        "a created file has its whole header, and nothing else",
        "a file is not created where one is",
        "what is not there is not found",
        "a removed file is gone, and its name is free",
        "a draft is not seen before it is published",
        "a draft that is dropped unpublished is gone",
        "publishing what is no draft does nothing",
        "a slot is written where the header is still what was read",
        "a slot is not written over another MAC than what was read",
        "a slot is not written under another prologue than what was read",
        "of several who write a slot at once, one goes through",
        "a grant is for at least one block and one segment",
    ];
}

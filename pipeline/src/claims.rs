//! Who may say what the cache's copy holds: the pass that wrote it, unless somebody knows better since.
//!
//! A pass has the record of a block set when the server and the cache both have it. By then somebody
//! else may have overwritten it on the server, and this client may have noticed: a record that came
//! behind that would bring back a block that is no longer stored, and that authenticates. So each pass
//! has a claim, which is revoked before what the cache holds is forgotten, and when the pass ends.
//!
//! **Invariant:** nothing that was written under a claim is confirmed after the claim was revoked.

use sealback_crypto::Sealed;
use sealback_stream::CacheFile;

use crate::{
    open_file::OpenFile,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

/// A file's claims.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    /// Claims that were made before this number are revoked.
    valid_from: AtomicU64,
    /// Held while a record is set, and while one is forgotten because somebody knows better.
    settling: Mutex<()>,
}

impl Claims {
    /// One for `file`, which learns of what has been confirmed.
    pub(crate) fn claim(
        self: &Arc<Self>,
        cache: Arc<dyn CacheFile>,
        file: Weak<OpenFile>,
    ) -> Claim {
        let number = self.valid_from.load(Ordering::SeqCst);
        Claim { claims: self.clone(), cache, file, number }
    }

    /// Revokes all claims. What is being confirmed at this moment may be.
    pub(crate) fn end(&self) {
        self.valid_from.fetch_add(1, Ordering::SeqCst);
    }

    /// Revokes all claims, then has the cache forget what it must not be believed to hold.
    pub(crate) fn revoke<T>(&self, forget: impl FnOnce() -> T) -> T {
        self.end();
        let _settling = self.settling.lock().unwrap_or_else(PoisonError::into_inner);
        forget()
    }
}

/// What a pass may say of the cache.
#[derive(Clone, Debug)]
pub(crate) struct Claim {
    claims: Arc<Claims>,
    cache: Arc<dyn CacheFile>,
    file: Weak<OpenFile>,
    number: u64,
}

impl Claim {
    pub(crate) fn cache(&self) -> &Arc<dyn CacheFile> {
        &self.cache
    }

    fn holds(&self) -> bool {
        self.claims.valid_from.load(Ordering::SeqCst) == self.number
    }

    /// Sets the record of blocks that were written and acknowledged, as long as the claim holds.
    pub(crate) fn confirm(&self, sealed: &Sealed) {
        self.set(sealed);
        // Others may go the same way.
        if let Some(file) = self.file.upgrade() {
            file.folios().arrived(&sealed.blocks());
        }
    }

    fn set(&self, sealed: &Sealed) {
        let _settling = self.claims.settling.lock().unwrap_or_else(PoisonError::into_inner);
        if self.holds() {
            // A record that could not be set means absent.
            let _ = self.cache.confirm(sealed);
            if !self.holds() {
                // Whoever revoked it meanwhile, and does not wait to forget more than this.
                let _ = self.cache.forget(sealed.blocks()).or_else(|_| self.cache.invalidate());
            }
        }
    }
}

//! Changes one object on condition that it still is what the change was made of.
//!
//! Read, decide, put; where the put did not find what was read, or nobody knows what became of it, all of
//! it once more. So whoever decides sees what is there, what an earlier put of his own has left included.

use std::time::Duration;

use object_store::{PutPayload, UpdateVersion, path::Path};
use tokio::time;

use super::store::{Found, Store};
use crate::{TargetError, TargetErrorKind};

/// An object that others keep changing, or that cannot be had, is tried again so often.
const MAX_ATTEMPTS: u32 = 8;
const DELAY_MIN: Duration = Duration::from_millis(20);
const DELAY_MAX: Duration = Duration::from_secs(4);
/// A store that has too much to do is left alone as if it had failed so often before.
const ATTEMPTS_WHEN_THROTTLED: u32 = 4;
/// What is smaller is not counted among what is held.
const SMALL_BYTES: u64 = 64 << 10;

/// An object to be changed.
pub(super) struct Object<'a> {
    pub(super) key: &'a Path,
    /// It has no more bytes than that.
    pub(super) max_bytes: u64,
}

/// How to begin.
pub(super) enum First {
    /// With what is likely there: it is only put to the store, never refused or called done.
    Guess(Found),
    /// With how long it is.
    Length,
    /// With its bytes.
    Content,
}

/// What is to be done, where something was found.
pub(super) enum Step<E> {
    /// It is what it should be.
    Done,
    /// Its bytes must be seen first.
    Look,
    Put(PutPayload),
    Refuse(E),
}

/// Why an object was not changed.
#[derive(Debug)]
pub(super) enum Unaltered<E> {
    Failed(TargetError),
    Refused(E),
}

impl<E> From<TargetError> for Unaltered<E> {
    fn from(error: TargetError) -> Unaltered<E> {
        Unaltered::Failed(error)
    }
}

impl Store {
    /// Does to an object what `decide` says, and returns which version it is then.
    pub(super) async fn alter<E>(
        &self,
        object: Object<'_>,
        first: First,
        mut decide: impl FnMut(&Found) -> Step<E>,
    ) -> Result<Option<UpdateVersion>, Unaltered<E>> {
        let Object { key, max_bytes } = object;
        let mut is_guess = matches!(first, First::Guess(_));
        let mut held = None;
        let mut next = match first {
            First::Guess(found) => Ok(found),
            First::Length => self.head(key).await,
            First::Content => self.get_held(&mut held, key, max_bytes).await,
        };
        let mut attempts = 1;
        loop {
            let failed = match next {
                Err(error) => Some(error),
                Ok(found) => match decide(&found) {
                    Step::Put(payload) => match self.replace(key, payload, &found).await {
                        Ok(version) => return Ok(Some(version)),
                        Err(error) => Some(error),
                    },
                    Step::Done if !is_guess => return Ok(found.version().cloned()),
                    Step::Refuse(refusal) if !is_guess => return Err(Unaltered::Refused(refusal)),
                    Step::Done | Step::Refuse(_) | Step::Look => None,
                },
            };
            if let Some(error) = failed {
                let changed = error.kind() == TargetErrorKind::Conflict;
                if attempts >= MAX_ATTEMPTS || !(changed || error.is_transient()) {
                    return Err(Unaltered::Failed(error));
                }
                // Who lost a race once looks at once.
                match error.kind() {
                    TargetErrorKind::Conflict if attempts == 1 => {}
                    TargetErrorKind::Throttled => pause(attempts + ATTEMPTS_WHEN_THROTTLED).await,
                    _ => pause(attempts).await,
                }
                attempts += 1;
            }
            is_guess = false;
            next = self.get_held(&mut held, key, max_bytes).await;
        }
    }

    /// As `get`, with a permit for what is large, which is kept: the put has the bytes, too.
    async fn get_held<'a>(
        &'a self,
        held: &mut Option<tokio::sync::SemaphorePermit<'a>>,
        key: &Path,
        max_bytes: u64,
    ) -> Result<Found, TargetError> {
        if held.is_none() && max_bytes > SMALL_BYTES {
            // It is never closed.
            *held = self.spliced.acquire().await.ok();
        }
        self.get(key, max_bytes).await
    }
}

/// Waits before the next attempt, each time twice as long, and nobody as long as another.
pub(super) async fn pause(attempts: u32) {
    let longest = DELAY_MIN.saturating_mul(1 << attempts.min(16)).min(DELAY_MAX);
    time::sleep(longest.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
}

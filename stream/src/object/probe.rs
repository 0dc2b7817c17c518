//! Whether a store keeps the conditions that are put to it: asked, not believed.
//!
//! What goes through that must not shows a broken rule. What is refused that must not be may be the echo of
//! a put of our own which was answered otherwise, and sent again: it counts when it has been seen often.

use futures_util::{StreamExt, stream};
use object_store::{PutMode, PutPayload, UpdateVersion, path::Path};

use super::store::{Found, Store};
use crate::{TargetError, TargetErrorKind};

/// Writers that race for one object.
const N_RACERS: usize = 4;
/// A refusal is believed when it has been met so often.
const MAX_ATTEMPTS: u32 = 3;

/// What a store has shown.
enum Shown {
    Broken {
        rule: String,
    },
    Kept,
    /// It refused what it must accept, or an earlier attempt had gone through.
    Refusal {
        rule: &'static str,
    },
}

/// Shows, on an object of its own, that the store refuses what it must and accepts what is right.
///
/// # Errors
/// [`TargetErrorKind::Unsupported`] says which rule the store broke.
pub(super) async fn probe(store: &Store, prefix: &Path) -> Result<(), TargetError> {
    let mut attempts = 1;
    loop {
        let key = scratch_key(prefix)?;
        let shown = keeps_conditions(store, &key).await;
        let removed = store.delete(vec![key]).await;
        match shown? {
            Shown::Broken { rule } => return Err(broken(&rule)),
            Shown::Kept => return removed,
            Shown::Refusal { rule } if attempts == MAX_ATTEMPTS => return Err(broken(rule)),
            Shown::Refusal { .. } => attempts += 1,
        }
    }
}

/// A key that nobody else has.
fn scratch_key(prefix: &Path) -> Result<Path, TargetError> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|error| {
        TargetError::new(TargetErrorKind::Io, format!("the system gave no random bytes: {error}"))
    })?;
    let name = format!("{:032x}", u128::from_le_bytes(random));
    Ok(prefix.clone().join(".sealback").join("probe").join(name))
}

async fn keeps_conditions(store: &Store, key: &Path) -> Result<Shown, TargetError> {
    let shown = |rule: &str| Ok(Shown::Broken { rule: rule.to_owned() });
    let Some(first) = put(store, key, 0, PutMode::Create).await? else {
        return Ok(Shown::Refusal { rule: "it refuses to create an object where none is" });
    };
    if put(store, key, 1, PutMode::Create).await?.is_some() {
        return shown("it creates an object where one is already");
    }
    if first.e_tag.is_none() && first.version.is_none() {
        return shown("it gives its objects no version");
    }
    if put(store, key, 2, PutMode::Update(first.clone())).await?.is_none() {
        return Ok(Shown::Refusal {
            rule: "it refuses to replace an object that is what was read",
        });
    }
    if put(store, key, 3, PutMode::Update(first)).await?.is_some() {
        return shown("it replaces an object that is no longer what was read");
    }
    let Some(second) = read_back(store, key, 2).await? else {
        return shown("what it gives back is not what was put");
    };
    let racers = (0..N_RACERS).map(|racer| {
        let mode = PutMode::Update(second.clone());
        async move { put(store, key, 4 + racer, mode).await }
    });
    let outcomes: Vec<_> = stream::iter(racers).buffer_unordered(N_RACERS).collect().await;
    let mut n_winners = 0;
    for outcome in outcomes {
        n_winners += usize::from(outcome?.is_some());
    }
    match n_winners {
        0 => {
            Ok(Shown::Refusal { rule: "of several that replace what was read at once, none does" })
        }
        1 => Ok(Shown::Kept),
        n => shown(&format!("of {N_RACERS} that replace what was read at once, {n} do")),
    }
}

/// Puts the probe's object; `None` if a condition kept it from being.
async fn put(
    store: &Store,
    key: &Path,
    number: usize,
    mode: PutMode,
) -> Result<Option<UpdateVersion>, TargetError> {
    match store.put(key, PutPayload::from(content(number)), mode).await {
        Ok(version) => Ok(Some(version)),
        Err(error) => match error.kind() {
            TargetErrorKind::Conflict => Ok(None),
            TargetErrorKind::Unsupported => {
                Err(broken(&format!("it knows no conditions ({error})")))
            }
            _ => Err(error),
        },
    }
}

/// Each content has another hash: some stores' versions are that.
fn content(number: usize) -> String {
    format!("sealback probes whether conditions are kept: {number}")
}

/// Which version the probe's object is, if it is read, and looked at, as what was put.
async fn read_back(
    store: &Store,
    key: &Path,
    number: usize,
) -> Result<Option<UpdateVersion>, TargetError> {
    let wanted = content(number);
    let n_bytes = wanted.len() as u64;
    let (got, looked_at) = (store.get(key, n_bytes).await?, store.head(key).await?);
    Ok(match got {
        Found::Content { bytes, version } if bytes == wanted && looked_at.len() == n_bytes => {
            Some(version)
        }
        Found::Absent | Found::Content { .. } | Found::Length { .. } => None,
    })
}

fn broken(rule: &str) -> TargetError {
    let context = format!(
        "this object store does not keep the conditions that several writers need: {rule}; if nobody \
         else writes, ObjectOptions::single_writer does without"
    );
    TargetError::new(TargetErrorKind::Unsupported, context)
}

//! Whether a store keeps the conditions that are put to it: asked, not believed.

use futures_util::{StreamExt, stream};
use object_store::{PutMode, PutPayload, UpdateVersion, path::Path};

use super::store::Store;
use crate::{TargetError, TargetErrorKind};

/// Writers that race for one object.
const N_RACERS: usize = 4;

/// Shows, on an object of its own, that the store refuses what it must and accepts what is right.
///
/// # Errors
/// [`TargetErrorKind::Unsupported`] says which rule the store broke.
pub(super) async fn probe(store: &Store, prefix: &Path) -> Result<(), TargetError> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|error| {
        TargetError::new(TargetErrorKind::Io, format!("the system gave no random bytes: {error}"))
    })?;
    let name = format!("{:032x}", u128::from_le_bytes(random));
    let key = prefix.clone().join(".sealback").join("probe").join(name);
    let probed = keeps_conditions(store, &key).await;
    let removed = store.delete(vec![key]).await;
    probed.and(removed)
}

async fn keeps_conditions(store: &Store, key: &Path) -> Result<(), TargetError> {
    let first = put(store, key, 0, PutMode::Create)
        .await?
        .ok_or_else(|| broken("it refuses to create an object where none is"))?;
    if put(store, key, 1, PutMode::Create).await?.is_some() {
        return Err(broken("it creates an object where one is already"));
    }
    let second = put(store, key, 2, PutMode::Update(first.clone()))
        .await?
        .ok_or_else(|| broken("it refuses to replace an object that is what was read"))?;
    if put(store, key, 3, PutMode::Update(first)).await?.is_some() {
        return Err(broken("it replaces an object that is no longer what was read"));
    }
    let racers = (0..N_RACERS).map(|racer| {
        let mode = PutMode::Update(second.clone());
        async move { put(store, key, 4 + racer, mode).await }
    });
    let outcomes: Vec<_> = stream::iter(racers).buffer_unordered(N_RACERS).collect().await;
    let mut n_winners = 0;
    for outcome in outcomes {
        n_winners += usize::from(outcome?.is_some());
    }
    if n_winners == 1 {
        return Ok(());
    }
    Err(broken(&format!(
        "of {N_RACERS} that replace what was read at once, {n_winners} went through"
    )))
}

/// Puts the probe's object; `None` if a condition kept it from being.
async fn put(
    store: &Store,
    key: &Path,
    number: usize,
    mode: PutMode,
) -> Result<Option<UpdateVersion>, TargetError> {
    // Each content has another hash: some stores' versions are that.
    let payload =
        PutPayload::from(format!("sealback probes whether conditions are kept: {number}"));
    match store.put(key, payload, mode).await {
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

fn broken(rule: &str) -> TargetError {
    let context = format!(
        "this object store does not keep the conditions that several writers need: {rule}; if nobody \
         else writes, ObjectOptions::single_writer does without"
    );
    TargetError::new(TargetErrorKind::Unsupported, context)
}

//! In the place of `objects.rs`, in a build without object stores.

use super::Setup;
use crate::{Failure, measure::Sides};

pub(super) fn put(setup: &Setup) -> Result<Sides, Failure> {
    let url = setup.objects.as_deref().unwrap_or("an object store");
    Err(format!("{url} needs a build with --features object-store").into())
}

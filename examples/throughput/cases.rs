//! What is measured, and what each case is measured against.

use std::{num::NonZero, path::PathBuf, thread};

use sealback::crypto::Engine as Cipher;

use crate::{Failure, measure::Sides};

mod crypto;
mod local;
#[cfg_attr(not(feature = "object-store"), path = "no_objects.rs")]
mod objects;
mod pipeline;
mod syncs;

/// What all cases are told.
#[derive(Debug)]
pub(crate) struct Setup {
    /// Bytes in a round.
    pub(crate) size: u64,
    pub(crate) tmpfs: PathBuf,
    pub(crate) disk: PathBuf,
    /// The URL of an object store, if there is one.
    pub(crate) objects: Option<String>,
}

/// A case, and its reference.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) against: &'static str,
    pub(crate) begin: fn(&Setup) -> Result<Sides, Failure>,
}

const fn case(
    name: &'static str,
    against: &'static str,
    begin: fn(&Setup) -> Result<Sides, Failure>,
) -> Case {
    Case { name, against, begin }
}

const ALL_THREADS: &str = "the engine, all threads";
const COPY: &str = "a copy in memory";
const PLAIN_COPY: &str = "a plain copy";

/// The case that needs an object store.
pub(crate) const OBJECTS: &str = "objects-put";

/// Ascending by what they take in; but for the case about memory, which comes before others leave some
/// behind.
pub(crate) const ALL: &[Case] = &[
    case("size-16-times", "one time the size", pipeline::size),
    case("seal-1", COPY, |setup| crypto::seal(setup, fastest(), 1)),
    case("seal-all", "a copy in memory, all threads", |setup| {
        crypto::seal(setup, fastest(), n_threads())
    }),
    case("seal-aes-gcm-1", COPY, |setup| crypto::seal(setup, Cipher::AesGcm, 1)),
    case("seal-aes-gcm-all", "a copy in memory, all threads", |setup| {
        crypto::seal(setup, Cipher::AesGcm, n_threads())
    }),
    case("open", COPY, crypto::open),
    case("wipe", "zeros written to memory", crypto::wipe),
    case("pipeline-null", ALL_THREADS, |setup| {
        pipeline::null(setup, fastest(), 64 << 10, 16 << 10)
    }),
    case("pipeline-null-folio-4k", ALL_THREADS, |setup| {
        pipeline::null(setup, fastest(), 4 << 10, 16 << 10)
    }),
    case("pipeline-null-aes-gcm", ALL_THREADS, |setup| {
        pipeline::null(setup, Cipher::AesGcm, 64 << 10, 16 << 10)
    }),
    case("block-size-4k", ALL_THREADS, |setup| pipeline::null(setup, fastest(), 64 << 10, 4 << 10)),
    case("block-size-16k", ALL_THREADS, |setup| {
        pipeline::null(setup, fastest(), 64 << 10, 16 << 10)
    }),
    case("block-size-64k", ALL_THREADS, |setup| {
        pipeline::null(setup, fastest(), 64 << 10, 64 << 10)
    }),
    case("block-size-256k", ALL_THREADS, |setup| {
        pipeline::null(setup, fastest(), 64 << 10, 256 << 10)
    }),
    case("block-size-1m", ALL_THREADS, |setup| pipeline::null(setup, fastest(), 64 << 10, 1 << 20)),
    case("engines", "the pipeline with aes-gcm", pipeline::engines),
    case("pipeline-memory", ALL_THREADS, pipeline::memory),
    case("many-files", "one file", pipeline::many_files),
    case("faults", "no fault", pipeline::faults),
    case("local-put", "two plain copies at once", local::put_with_cache),
    case("local-put-one", PLAIN_COPY, local::put),
    case("local-put-disk", PLAIN_COPY, local::put_disk),
    case("local-get", PLAIN_COPY, local::get),
    case("small-files", "plain copies", local::small_files),
    case(OBJECTS, "plain puts of the same objects", objects::put),
    case("random-4k", "plain pwrites, then fdatasync", syncs::random),
    case("sync-latency", "pwrite and fdatasync", syncs::latency),
];

fn fastest() -> Cipher {
    Cipher::fastest()
}

fn n_threads() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get)
}

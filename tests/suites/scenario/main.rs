//! Named behaviours: each test is one sentence that must hold.
#![expect(clippy::unwrap_used, reason = "a test that unwraps fails where it should")]
#![cfg_attr(
    feature = "object-store",
    expect(clippy::duplicate_mod, reason = "some suites are run over several kinds of server")
)]

mod ancestor;
mod behind;
mod behind_again;
mod behind_altered;
mod behind_disk;
mod behind_full;
mod behind_kill;
mod bench;
mod clients;
mod conflicts;
mod conformance;
mod copy_to_cache;
mod counting;
mod crash;
mod cuts;
mod direct;
mod dump;
mod faults;
mod files;
mod filtered;
mod granule;
mod groups;
mod in_place;
mod kill;
mod killing;
mod lifecycle;
mod lockless;
mod model;
mod moments;
#[cfg(feature = "object-store")]
mod objects;
mod other_clients;
mod own_cache;
mod pages;
mod races;
mod served;
mod stalled;
mod streamed;
mod stress;
mod support;
mod syscalls;
mod telling;
mod uncommitted;
mod vectored;
mod writethrough;

//! What the program `writeback` promises on its command line, checked from outside.
//!
//! The program is the example that `cargo test -p sealback-examples` builds beside these tests;
//! with `--test cli` cargo leaves it as it is: `cargo build --examples` comes first then. Each test
//! works in a directory of its own.
#![expect(clippy::unwrap_used, reason = "a panic in a test's helper is how the test fails")]

#[path = "cli/behind.rs"]
mod behind;
#[path = "cli/change.rs"]
mod change;
#[path = "cli/change_failure.rs"]
mod change_failure;
#[path = "cli/damage.rs"]
mod damage;
#[path = "cli/every_byte.rs"]
mod every_byte;
#[path = "cli/failure.rs"]
mod failure;
#[path = "cli/inspection.rs"]
mod inspection;
#[path = "cli/keys.rs"]
mod keys;
#[path = "cli/rekey.rs"]
mod rekey;
#[path = "cli/report.rs"]
mod report;
#[path = "cli/roundtrip.rs"]
mod roundtrip;
#[path = "cli/servers.rs"]
mod servers;
#[path = "cli/together.rs"]
mod together;
#[path = "cli/usage.rs"]
mod usage;
#[path = "cli/world.rs"]
mod world;

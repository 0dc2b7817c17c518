//! What the program `writeback` promises on its command line, checked from outside.
//!
//! The program is the example that cargo builds beside these tests. Each test works in a
//! directory of its own.
#![expect(clippy::unwrap_used, reason = "a panic in a test's helper is how the test fails")]

#[path = "cli/damage.rs"]
mod damage;
#[path = "cli/failure.rs"]
mod failure;
#[path = "cli/keys.rs"]
mod keys;
#[path = "cli/report.rs"]
mod report;
#[path = "cli/roundtrip.rs"]
mod roundtrip;
#[path = "cli/usage.rs"]
mod usage;
#[path = "cli/world.rs"]
mod world;

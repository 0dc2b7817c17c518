//! The test kit of sealback: what the suites run the library under, and check it with.
//!
//! - [`simulator`]: the real request under a seeded schedule, watched by an oracle.
//! - [`auditor`]: no nonce is ever sent twice with other bytes.
//! - [`away`]: a server that goes away and comes back.
//! - [`counter`]: which blocks were read and written, and reads that fail.
//! - [`crash`]: a server that goes away at a chosen moment.
//! - [`flat`]: a stored file as a flat one has it.
//! - [`gate`]: a server whose writes wait until a test lets them through.
//! - [`interpose`]: what they have in common.
//! - [`kernels`]: what the benches time, and whose instructions are counted.
//! - [`lifetime`]: a file's life under a seeded schedule.
//! - [`recorder`]: what a request told of itself.
//! - [`reader`]: an independent reader of sealed files, written from the specification alone.

pub mod auditor;
pub mod away;
mod bound;
pub mod counter;
pub mod crash;
pub mod flat;
pub mod gate;
pub mod interpose;
pub mod kernels;
pub mod lifetime;
mod oracle;
pub mod reader;
pub mod recorder;
pub mod simulator;
mod tally;

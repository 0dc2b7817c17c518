//! The test kit of sealback: what the suites run the library under, and check it with.
//!
//! - [`simulator`]: the real request under a seeded schedule, watched by an oracle.
//! - [`gate`]: a server whose writes wait until a test lets them through.
//! - [`recorder`]: what a request told of itself.
//! - [`reader`]: an independent reader of sealed files, written from the specification alone.

pub mod gate;
mod oracle;
pub mod reader;
pub mod recorder;
pub mod simulator;

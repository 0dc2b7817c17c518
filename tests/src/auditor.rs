//! The nonce auditor: whatever is sent to a server in any test, no nonce comes twice with other
//! bytes.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use sealback_stream::{Completion, Segment, Target, Write};

use crate::interpose::Hook;

/// Every nonce that was sent in this process.
static SENT: Mutex<Option<Nonces>> = Mutex::new(None);

/// A hook that lets everything through, and looks at every block's nonce.
#[derive(Clone, Copy, Debug, Default)]
pub struct Auditor;

impl Hook for Auditor {
    fn write(&self, target: &Arc<dyn Target>, write: Write, done: Completion) {
        let mut sent = SENT.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(repeated) = sent.get_or_insert_default().note(&write) {
            // An I/O thread's panic would fail the write only.
            eprintln!("{repeated}");
            std::process::abort();
        }
        drop(sent);
        target.write(write, done);
    }
}

/// Nonces that were sent, with a hash of their blocks' bytes.
#[derive(Debug, Default)]
pub struct Nonces(HashMap<[u8; 24], [u8; 32]>);

impl Nonces {
    /// Notes the nonces of a write.
    ///
    /// # Errors
    /// One of them was sent before, in whatever file, with other bytes: the one thing that must not
    /// happen. The same bytes may be sent again.
    pub fn note(&mut self, write: &Write) -> Result<(), String> {
        for segment in &write.segments {
            let Segment::Sealed(sealed) = segment else { continue };
            for (block, nonce) in sealed.nonces() {
                let bytes = *blake3::hash(sealed.block_bytes_of(block)).as_bytes();
                let before = self.0.insert(*nonce.as_bytes(), bytes);
                if before.is_some_and(|before| before != bytes) {
                    return Err(format!("nonce {nonce:?} of block {block} was used twice"));
                }
            }
        }
        Ok(())
    }
}

//! Which run of the machine this is.

use std::{fs, process, sync::OnceLock, time::SystemTime};

/// What tells this run of the machine from others: without a disk that was waited for, what an
/// earlier run left behind may be older than what it had acknowledged.
pub(super) fn run_id() -> [u8; 16] {
    static RUN: OnceLock<[u8; 16]> = OnceLock::new();
    *RUN.get_or_init(|| {
        // Where the system does not say, the process stands for it.
        let run = fs::read("/proc/sys/kernel/random/boot_id")
            .unwrap_or_else(|_| format!("{} {:?}", process::id(), SystemTime::now()).into());
        let mut id = [0; 16];
        id.copy_from_slice(&blake3::hash(&run).as_bytes()[..16]);
        id
    })
}

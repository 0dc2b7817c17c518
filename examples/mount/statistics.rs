//! What the mount does and holds, for people: by SIGUSR1, or by
//! `getfattr -n user.sealback.statistics --only-values MOUNTPOINT`.

use std::{fmt::Write, sync::atomic::Ordering};

use fuser::InitFlags;
use sealback::EngineStats;
use sealback_examples::Size;

use crate::tree::Tree;

impl Tree {
    /// One line for each thing.
    pub(crate) fn statistics(&self) -> String {
        let inodes = self.inodes.all();
        let open: Vec<_> = inodes.iter().filter_map(|inode| inode.content.open_file()).collect();
        let dirty: u64 = open.iter().map(|file| file.dirty_bytes()).sum();
        let EngineStats { requests, buffers_free, buffers, folios_out, active_requests, .. } =
            self.engine.stats();
        let memory = Size(self.engine.config().memory_bytes as u64);
        let folios = Size((folios_out * self.engine.config().folio_bytes) as u64);
        let mut text = String::new();
        let mut line = |what: &str, value: &dyn std::fmt::Display| {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{what:<28}{value}");
        };
        let granted = self.granted.get().copied().unwrap_or(InitFlags::empty());
        let collects = granted.contains(InitFlags::FUSE_WRITEBACK_CACHE);
        line("the kernel collects writes", &if collects { "yes" } else { "no" });
        line("requests of the kernel", &self.n_requests.load(Ordering::Relaxed));
        line("known to the kernel", &inodes.len());
        line("open by callers", &self.files.len());
        line("open below", &open.len());
        line("not written back", &Size(dirty));
        line("pages in memory", &format_args!("{folios} of {memory}"));
        line("sealed buffers in use", &format_args!("{} of {buffers}", buffers - buffers_free));
        line("writebacks under way", &active_requests);
        line("of those that have ended", &format_args!("{requests:?}"));
        text
    }
}

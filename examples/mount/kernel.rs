//! What is agreed upon with the kernel, and the forms in which it is answered.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use fuser::{
    Errno, FopenFlags, Generation, InitFlags, KernelConfig, ReplyAttr, ReplyEmpty, ReplyEntry,
    ReplyXattr, Request,
};
use rustix::fs::OFlags;

use crate::{directory::Maker, errors::Result, tree::Tree};

/// What the kernel talks to.
pub(crate) struct Kernel(pub(crate) Arc<Tree>);

impl Kernel {
    /// Tells the kernel what this can do.
    pub(crate) fn agree(&self, config: &mut KernelConfig) {
        let mut wanted = InitFlags::FUSE_DO_READDIRPLUS
            | InitFlags::FUSE_READDIRPLUS_AUTO
            | InitFlags::FUSE_ASYNC_DIO
            | InitFlags::FUSE_PARALLEL_DIROPS
            | InitFlags::FUSE_CACHE_SYMLINKS
            // Else the kernel asks for an attribute of the file before each write.
            | InitFlags::FUSE_HANDLE_KILLPRIV_V2;
        match self.0.options.shared {
            true => {
                wanted |= InitFlags::FUSE_AUTO_INVAL_DATA | InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP;
            }
            false => wanted |= InitFlags::FUSE_WRITEBACK_CACHE,
        }
        // What an older kernel does not have, it does without.
        let granted = wanted & config.capabilities();
        let _ = config.add_capabilities(granted);
        let _ = config.set_max_write(MAX_BYTES);
        if let Err(most) = config.set_max_readahead(MAX_BYTES) {
            let _ = config.set_max_readahead(most);
        }
        let _ = config.set_max_background(64);
        // The kernel is asked once.
        let _ = self.0.granted.set(granted);
    }

    /// How long the kernel may believe what it was told. What one mount has for itself changes through
    /// the kernel only.
    pub(crate) fn believed_for(&self) -> Duration {
        if self.0.options.shared { Duration::ZERO } else { Duration::from_secs(60) }
    }

    /// How the kernel is to treat a file that it opens: what it has in its page cache stays, unless
    /// others may have changed it. What is appended goes past that, where others append, too: to where the file
    /// ends then, and not where the kernel takes it to end.
    pub(crate) fn opened(&self, flags: OFlags) -> FopenFlags {
        match self.0.options.shared {
            true if flags.contains(OFlags::APPEND) => FopenFlags::FOPEN_DIRECT_IO,
            true => FopenFlags::empty(),
            false => FopenFlags::FOPEN_KEEP_CACHE,
        }
    }

    /// The tree, for one more request.
    pub(crate) fn tree(&self) -> &Arc<Tree> {
        self.0.n_requests.fetch_add(1, Ordering::Relaxed);
        &self.0
    }

    pub(crate) fn entry(&self, reply: ReplyEntry, found: Result<fuser::FileAttr>) {
        match found {
            Ok(attributes) => reply.entry(&self.believed_for(), &attributes, GENERATION),
            Err(error) => reply.error(told(error)),
        }
    }

    pub(crate) fn attributes(&self, reply: ReplyAttr, found: Result<fuser::FileAttr>) {
        match found {
            Ok(attributes) => reply.attr(&self.believed_for(), &attributes),
            Err(error) => reply.error(told(error)),
        }
    }
}

pub(crate) fn told(error: rustix::io::Errno) -> Errno {
    Errno::from_i32(error.raw_os_error())
}

pub(crate) fn done(reply: ReplyEmpty, done: Result<()>) {
    match done {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(told(error)),
    }
}

/// Answers with bytes, or with how many there are.
pub(crate) fn xattr(reply: ReplyXattr, room: u32, found: Result<Vec<u8>>) {
    match found {
        Ok(bytes) => match u32::try_from(bytes.len()) {
            Ok(n_bytes) if room == 0 => reply.size(n_bytes),
            Ok(n_bytes) if n_bytes <= room => reply.data(&bytes),
            _ => reply.error(Errno::ERANGE),
        },
        Err(error) => reply.error(told(error)),
    }
}

pub(crate) fn maker(request: &Request) -> Maker {
    Maker { uid: request.uid(), gid: request.gid() }
}

/// Whether whoever changes a file may leave one that runs as somebody else.
pub(crate) fn may_keep_privileges(request: &Request) -> bool {
    request.uid() == 0
}

pub(crate) fn flags_of(flags: i32) -> OFlags {
    OFlags::from_bits_retain(flags.cast_unsigned())
}

/// Numbers are not given twice while the kernel knows them: see `inodes`.
pub(crate) const GENERATION: Generation = Generation(0);
/// What one request carries.
pub(crate) const MAX_BYTES: u32 = 1 << 20;

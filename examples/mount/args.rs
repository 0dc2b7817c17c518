//! The command line.

use std::{path::PathBuf, thread::available_parallelism};

use clap::Parser;
use sealback::stream::Durability;
use sealback_examples::parse_size;

/// Mounts a directory of sealed files as a folder.
///
/// What is written to MOUNTPOINT is kept, sealed, in SERVER, under the same names. Unmount with
/// `fusermount3 -u MOUNTPOINT`: everything is written back before the program ends.
#[derive(Debug, Parser)]
#[command(name = "mount", version)]
pub(crate) struct Args {
    /// The directory in which the sealed files are
    pub(crate) server: PathBuf,
    /// An empty directory: where they are seen as they are
    pub(crate) mountpoint: PathBuf,
    /// The key file
    #[arg(long, value_name = "KEYFILE")]
    pub(crate) key: PathBuf,
    /// A directory for a local cache, sealed as on the server
    #[arg(long, value_name = "DIR")]
    pub(crate) cache: Option<PathBuf>,
    /// Memory for pages and sealed buffers, in all
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = parse_memory)]
    pub(crate) memory: usize,
    /// Bytes sealed in one piece, of new files: a power of two, 4KiB to 1MiB
    #[arg(long, value_name = "SIZE", default_value = "16KiB", value_parser = parse_size)]
    pub(crate) block_size: u64,
    /// What an fsync has written survives: none, process (a kill) or power-cut
    #[arg(long, value_name = "WHAT", default_value = "process")]
    pub(crate) durability: Durability,
    /// Nothing can be written
    #[arg(long)]
    pub(crate) read_only: bool,
    /// Other users may use it, too, as far as the files' modes let them
    #[arg(long)]
    pub(crate) allow_other: bool,
    /// Several mounts of the same SERVER: each sees at open what others have written
    #[arg(long)]
    pub(crate) shared: bool,
    /// Stays in the foreground; Ctrl-C unmounts
    #[arg(long)]
    pub(crate) foreground: bool,
    /// Where to tell what goes wrong, when in the background [default: .sealback/mount.log in SERVER;
    /// with --read-only, nowhere]
    #[arg(long, value_name = "FILE")]
    pub(crate) log: Option<PathBuf>,
    /// Threads that answer the kernel [default: one more than there are cores, 3 to 8]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(2..=256))]
    threads: Option<u16>,
}

impl Args {
    /// How many threads answer the kernel. Each that writes to a file waits for the others, and is woken.
    pub(crate) fn n_threads(&self) -> usize {
        let cores = || available_parallelism().map_or(2, usize::from);
        self.threads.map_or_else(|| (cores() + 1).clamp(3, 8), usize::from)
    }
}

fn parse_memory(text: &str) -> Result<usize, &'static str> {
    let bytes = parse_size(text).map_err(|_| "a size is such as 256MiB")?;
    usize::try_from(bytes).map_err(|_| "more than this machine can address")
}

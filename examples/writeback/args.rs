//! The command line.

use std::{ops::RangeInclusive, path::PathBuf, str::FromStr};

use clap::{Args, Parser, Subcommand, error::ErrorKind};
use sealback::{
    Error, crypto,
    stream::{Durability, Name},
};
use sealback_examples::parse_size;
use tracing_subscriber::filter::Targets;

use crate::{failure::Failure, server::Location};

/// Puts files, sealed, on a server, gets them back, and changes them there.
///
/// A server is a directory, or an object store. Without a command it shows what it does, in a temporary directory.
#[derive(Debug, Parser)]
#[command(name = "writeback", version, disable_help_subcommand = true)]
pub(crate) struct Cli {
    /// Tells on standard error what happens inside, as far as the filter lets it through: targets with
    /// levels, such as 'sealback=trace' or 'sealback::retry=debug,sealback::sync=debug'
    #[arg(
        long,
        global = true,
        value_name = "FILTER",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "sealback=debug"
    )]
    pub(crate) trace: Option<Targets>,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Writes a new key file: 32 random bytes that only its owner may read
    Keygen(KeygenArgs),
    /// Seals a file onto the server; one that has the name is replaced when all is there
    Put(PutArgs),
    /// Opens a file from the server (or the cache) into a file that appears when it is whole
    Get(GetArgs),
    /// Writes over a part of a file on the server, in place; the file grows if need be.
    ///
    /// Between the file's end and an offset behind it, zeros appear. A SRC of no bytes changes
    /// nothing. If reading SRC fails, what was read before that is in the file, and the exit
    /// status is 1. If writing fails, the file has its old size; of the bytes that were to be
    /// written over, some blocks may be old and others new; the rest of the file is what it was.
    Patch(PatchArgs),
    /// Makes a file on the server shorter, or longer by zeros
    Truncate(TruncateArgs),
    /// Makes zeros of a part of a file; whole blocks of it take no room any more.
    ///
    /// The file's size stays; what lies behind its end is left out.
    Punch(PunchArgs),
    /// Has a file open with another root key from now on, and not with the one that it had.
    ///
    /// No block is touched. This revokes nothing: who had the old key may have kept the file's own.
    Rekey(RekeyArgs),
    /// Opens every block on the server, and names each that fails.
    ///
    /// The exit status is 1 if anything is damaged on the server, or if a block of the cache's copy
    /// is not the server's.
    Verify(VerifyArgs),
    /// Uploads what was put or patched with --write-behind, and tells of each file what came of it.
    ///
    /// A block that somebody else has changed meanwhile is merged: exactly what was written here is laid
    /// over it. The exit status is 1 if something still waits, because the server is away or says no.
    Resume(ResumeArgs),
    /// Drops what waits of a file, which the server then never gets; says first what that is.
    ///
    /// It is for what cannot be uploaded: the file is gone on the server, or was damaged in the cache.
    Forget(ForgetArgs),
    /// Tells what the header says, which blocks were sealed together, and which fail
    Inspect(InspectArgs),
    /// Prints the names of the files on the server
    List(ListArgs),
    /// Finds what a crash has left in an object store: objects that are of no file
    Scrub(ScrubArgs),
}

#[derive(Args, Debug)]
pub(crate) struct KeygenArgs {
    /// The key file; it must not exist
    #[arg(value_name = "KEYFILE")]
    pub(crate) key_file: PathBuf,
}

#[derive(Args, Debug)]
pub(crate) struct PutArgs {
    /// The file to put; '-' for standard input
    pub(crate) src: PathBuf,
    #[command(flatten)]
    pub(crate) at: At,
    #[command(flatten)]
    pub(crate) with: With,
    /// The name on the server [default: that of SRC]
    #[arg(long, value_parser = Name::new)]
    pub(crate) name: Option<Name>,
    /// Bytes sealed in one piece: a power of two, 4KiB to 1MiB
    #[arg(long, value_name = "SIZE", default_value = "16KiB", value_parser = parse_block_size)]
    pub(crate) block_size: u64,
    /// How much of the file goes into one object of an object store, about [default: 8MiB]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub(crate) chunk_size: Option<u64>,
    /// Prints one JSON object instead of a summary
    #[arg(long)]
    pub(crate) json: bool,
    /// Prints behind the summary what was waited for, tried again, and how long things took
    #[arg(long, conflicts_with = "json")]
    pub(crate) stats: bool,
}

#[derive(Args, Debug)]
pub(crate) struct GetArgs {
    /// The name on the server
    #[arg(value_parser = Name::new)]
    pub(crate) name: Name,
    #[command(flatten)]
    pub(crate) at: At,
    #[command(flatten)]
    pub(crate) with: With,
    /// Where to; '-' for standard output
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
}

#[derive(Args, Debug)]
pub(crate) struct PatchArgs {
    /// The name on the server
    #[arg(value_parser = Name::new)]
    pub(crate) name: Name,
    /// What to write: a file; '-' for standard input
    pub(crate) src: PathBuf,
    /// Where in the file it begins, in bytes: a size such as 4096 or 16KiB, at most 2^60
    #[arg(long, value_name = "N", value_parser = parse_position)]
    pub(crate) offset: u64,
    #[command(flatten)]
    pub(crate) at: At,
    #[command(flatten)]
    pub(crate) with: With,
    /// Prints one JSON object instead of a summary
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct TruncateArgs {
    /// The name on the server
    #[arg(value_parser = Name::new)]
    pub(crate) name: Name,
    /// How long the file is to be: a size such as 4096 or 16KiB, at most 2^60
    #[arg(value_parser = parse_position)]
    pub(crate) size: u64,
    #[command(flatten)]
    pub(crate) at: At,
    #[command(flatten)]
    pub(crate) with: With,
    /// Prints one JSON object instead of a line
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct PunchArgs {
    /// The name on the server
    #[arg(value_parser = Name::new)]
    pub(crate) name: Name,
    /// Where in the file the zeros begin, in bytes: a size such as 4096 or 16KiB, at most 2^60
    #[arg(long, value_name = "N", value_parser = parse_position)]
    pub(crate) offset: u64,
    /// How many bytes become zeros: a size, at most 2^60
    #[arg(long, value_name = "M", value_parser = parse_position)]
    pub(crate) length: u64,
    #[command(flatten)]
    pub(crate) at: At,
    #[command(flatten)]
    pub(crate) with: With,
    /// Prints one JSON object instead of a line
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct RekeyArgs {
    /// The name on the server
    #[arg(value_parser = Name::new)]
    pub(crate) name: Name,
    #[command(flatten)]
    pub(crate) at: At,
    /// The file with the new root key; it must exist
    #[arg(long, value_name = "KEYFILE")]
    pub(crate) new_key: PathBuf,
    /// The cache: a directory, made if it is missing. Without it, a copy there is not used again
    #[arg(long, value_name = "DIR")]
    pub(crate) cache: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct VerifyArgs {
    /// The name on the server
    #[arg(value_parser = Name::new)]
    pub(crate) name: Name,
    #[command(flatten)]
    pub(crate) at: At,
    /// A cache: its copy is compared with the server, block by block, and each that differs is
    /// named. A copy of another state of the file is emptied first
    #[arg(long, value_name = "DIR")]
    pub(crate) cache: Option<PathBuf>,
    /// Prints one JSON object instead of lines
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct ResumeArgs {
    #[command(flatten)]
    pub(crate) at: At,
    /// The cache in whose directory it waits
    #[arg(long, value_name = "DIR")]
    pub(crate) cache: PathBuf,
    /// Prints one JSON object instead of lines
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct ForgetArgs {
    /// The name, as 'resume' tells it
    #[arg(value_parser = Name::new)]
    pub(crate) name: Name,
    #[command(flatten)]
    pub(crate) at: At,
    /// The cache in whose directory it waits
    #[arg(long, value_name = "DIR")]
    pub(crate) cache: PathBuf,
    /// Writes what was written into this file first, each byte at its place, and zeros between; '-' for
    /// standard output
    #[arg(long, value_name = "FILE")]
    pub(crate) save: Option<PathBuf>,
    /// Drops it. Without this, nothing is dropped
    #[arg(long)]
    pub(crate) yes: bool,
}

#[derive(Args, Debug)]
pub(crate) struct InspectArgs {
    /// The name on the server
    #[arg(value_parser = Name::new)]
    pub(crate) name: Name,
    #[command(flatten)]
    pub(crate) at: At,
    /// A cache: if something of the file waits there to be uploaded, that is said
    #[arg(long, value_name = "DIR")]
    pub(crate) cache: Option<PathBuf>,
    /// Prints one JSON object instead of tables
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    pub(crate) on: On,
    /// Prints one JSON object instead of lines
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct ScrubArgs {
    #[command(flatten)]
    pub(crate) on: On,
    /// Removes what it finds
    #[arg(long)]
    pub(crate) remove: bool,
    /// Leaves out what is younger: it may belong to a put that is under way [default: 3600]
    #[arg(long, value_name = "SECONDS")]
    pub(crate) older_than: Option<u64>,
    /// Prints one JSON object instead of lines
    #[arg(long)]
    pub(crate) json: bool,
}

/// Where the sealed files are.
#[derive(Args, Clone, Debug)]
pub(crate) struct On {
    /// The server: a directory that exists, or s3://BUCKET/PREFIX, az://CONTAINER/PREFIX,
    /// gs://BUCKET/PREFIX
    #[arg(long, value_name = "DIR|URL")]
    pub(crate) server: Location,
    /// Takes an object store that does not keep apart who writes at once: this is the only one
    /// who writes there
    #[arg(long)]
    pub(crate) single_writer: bool,
}

/// Where the sealed files are, and what opens them.
#[derive(Args, Debug)]
pub(crate) struct At {
    #[command(flatten)]
    pub(crate) on: On,
    /// The file with the root key
    #[arg(long, value_name = "KEYFILE")]
    pub(crate) key: PathBuf,
}

/// What the engine works with.
#[derive(Args, Debug)]
pub(crate) struct With {
    /// The cache: a directory, made if it is missing
    #[arg(long, value_name = "DIR")]
    pub(crate) cache: Option<PathBuf>,
    /// What the cache's directory may take on the disk: beyond that, what was not opened for longest
    /// is dropped
    #[arg(long, value_name = "SIZE", value_parser = parse_size, requires = "cache")]
    pub(crate) cache_size: Option<u64>,
    /// Writes to the cache's directory, durably, and uploads from there: what the server does not take
    /// now, 'resume' takes there later. What waits is read before what the server has
    #[arg(long, requires = "cache")]
    pub(crate) write_behind: bool,
    /// What the end of a write survives: none, process (a kill) or power-cut
    ///
    /// With any but 'none', a crash leaves each block that is being written over as it was or as it
    /// was to be.
    #[arg(long, default_value = "process", value_parser = Durability::from_str)]
    pub(crate) durability: Durability,
    /// What seals and opens: auto, aes-gcm or aws-lc
    #[arg(long, default_value = "auto", value_parser = crypto::Engine::from_str)]
    pub(crate) engine: crypto::Engine,
    /// Memory for plaintext and sealed bytes on their way, at least 8MiB
    #[arg(long, value_name = "SIZE", default_value = "64MiB", value_parser = parse_memory)]
    pub(crate) memory: usize,
    /// Threads that seal and open [default: one for each core]
    #[arg(long, value_name = "N", value_parser = parse_threads)]
    pub(crate) threads: Option<usize>,
}

impl PutArgs {
    /// The name on the server, given or the source's own.
    pub(crate) fn name(&self) -> Result<Name, Failure> {
        if let Some(name) = &self.name {
            return Ok(name.clone());
        }
        let usage = |what: &str| Failure::usage(ErrorKind::MissingRequiredArgument, what);
        if self.src.as_os_str() == "-" {
            return Err(usage("standard input has no name: --name is needed"));
        }
        let own = self.src.file_name().and_then(|name| name.to_str());
        Name::new(own.unwrap_or_default()).map_err(|_| {
            usage(&format!("'{}' gives no name: --name is needed", self.src.display()))
        })
    }
}

fn parse_block_size(text: &str) -> Result<u64, String> {
    let bytes = parse_size(text).map_err(|error| error.to_string())?;
    let geometry = crypto::Geometry::new(bytes);
    geometry.map_or(Err("a block is a power of two from 4KiB to 1MiB".to_owned()), |_| Ok(bytes))
}

/// A position in a file, or its size.
fn parse_position(text: &str) -> Result<u64, String> {
    let bytes = parse_size(text).map_err(|error| error.to_string())?;
    match bytes <= crypto::MAX_FILE_BYTES {
        true => Ok(bytes),
        false => Err(Error::TooLarge.to_string()),
    }
}

fn parse_memory(text: &str) -> Result<usize, String> {
    let bytes = parse_size(text).map_err(|error| error.to_string())?;
    match MEMORY_BYTES.contains(&bytes) {
        true => usize::try_from(bytes).map_err(|error| error.to_string()),
        false => Err("the memory is 8MiB to 1TiB".to_owned()),
    }
}

fn parse_threads(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(threads) if THREADS.contains(&threads) => Ok(threads),
        _ => Err(format!("the number of threads is 1 to {}", THREADS.end())),
    }
}

const MEMORY_BYTES: RangeInclusive<u64> = 8 << 20..=1 << 40;
const THREADS: RangeInclusive<usize> = 1..=1024;

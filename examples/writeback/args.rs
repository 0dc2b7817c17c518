//! The command line.

use std::{ops::RangeInclusive, path::PathBuf, str::FromStr};

use clap::{Args, Parser, Subcommand, error::ErrorKind};
use sealback::{crypto, stream::Name};
use sealback_examples::parse_size;

use crate::failure::Failure;

/// Puts files, sealed, on a server that is a directory, and gets them back.
///
/// Without a command it shows what it does, in a temporary directory.
#[derive(Debug, Parser)]
#[command(name = "writeback", version, disable_help_subcommand = true)]
pub(crate) struct Cli {
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
    /// Opens every block on the server, and names each that fails
    Verify(VerifyArgs),
    /// Tells what the header says, and which blocks were sealed together
    Inspect(InspectArgs),
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
    /// Prints one JSON object instead of a summary
    #[arg(long)]
    pub(crate) json: bool,
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
pub(crate) struct VerifyArgs {
    /// The name on the server
    #[arg(value_parser = Name::new)]
    pub(crate) name: Name,
    #[command(flatten)]
    pub(crate) at: At,
}

#[derive(Args, Debug)]
pub(crate) struct InspectArgs {
    /// The name on the server
    #[arg(value_parser = Name::new)]
    pub(crate) name: Name,
    #[command(flatten)]
    pub(crate) at: At,
    /// Prints one JSON object instead of tables
    #[arg(long)]
    pub(crate) json: bool,
}

/// Where the sealed files are, and what opens them.
#[derive(Args, Debug)]
pub(crate) struct At {
    /// The server: a directory that exists
    #[arg(long, value_name = "DIR")]
    pub(crate) server: PathBuf,
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
    /// Whether the source is standard input.
    pub(crate) fn is_stdin(&self) -> bool {
        self.src.as_os_str() == "-"
    }

    /// The name on the server, given or the source's own.
    pub(crate) fn name(&self) -> Result<Name, Failure> {
        if let Some(name) = &self.name {
            return Ok(name.clone());
        }
        let usage = |kind, what: String| Failure::Usage(clap::Error::raw(kind, what + "\n"));
        if self.is_stdin() {
            let what = "standard input has no name: --name is needed";
            return Err(usage(ErrorKind::MissingRequiredArgument, what.to_owned()));
        }
        let own = self.src.file_name().and_then(|name| name.to_str());
        Name::new(own.unwrap_or_default()).map_err(|_| {
            let what = format!("'{}' gives no name: --name is needed", self.src.display());
            usage(ErrorKind::MissingRequiredArgument, what)
        })
    }
}

fn parse_block_size(text: &str) -> Result<u64, String> {
    let bytes = parse_size(text).map_err(|error| error.to_string())?;
    let geometry = crypto::Geometry::new(bytes);
    geometry.map_or(Err("a block is a power of two from 4KiB to 1MiB".to_owned()), |_| Ok(bytes))
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

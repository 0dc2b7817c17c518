//! An encrypted folder: a directory of sealed files, mounted through FUSE. How to use it, what it hides and
//! what not: `mount/README.md`.
//!
//! ```text
//!  kernel ──► filesystem ──► directory, attributes, xattrs ──► the lower tree, by descriptors
//!                        └─► data ──► content ──► sealback::File ──► sealed files in the lower tree
//! ```
#![forbid(unsafe_code)]

#[path = "mount/appending.rs"]
mod appending;
#[path = "mount/args.rs"]
mod args;
#[path = "mount/attributes.rs"]
mod attributes;
#[path = "mount/background.rs"]
mod background;
#[path = "mount/content.rs"]
mod content;
#[path = "mount/data.rs"]
mod data;
#[path = "mount/directory.rs"]
mod directory;
#[path = "mount/errors.rs"]
mod errors;
#[path = "mount/filesystem.rs"]
mod filesystem;
#[path = "mount/forgetting.rs"]
mod forgetting;
#[path = "mount/handles.rs"]
mod handles;
#[path = "mount/inodes.rs"]
mod inodes;
#[path = "mount/kernel.rs"]
mod kernel;
#[path = "mount/lower.rs"]
mod lower;
#[path = "mount/owner.rs"]
mod owner;
#[path = "mount/signals.rs"]
mod signals;
#[path = "mount/statistics.rs"]
mod statistics;
#[path = "mount/tree.rs"]
mod tree;
#[path = "mount/unmount.rs"]
mod unmount;
#[path = "mount/xattrs.rs"]
mod xattrs;

use std::{
    fmt,
    fs::File,
    path::Path,
    process::ExitCode,
    sync::{Arc, OnceLock, atomic::AtomicU64},
    thread,
    time::{Duration, Instant},
};

use clap::Parser;
use fuser::{MountOption, Session, SessionACL};
use rustix::{
    fs::{CWD, Mode},
    process::{Resource, Rlimit, getegid, geteuid, getrlimit, setrlimit, umask},
};
use sealback::{
    Config, Engine,
    stream::{Durability, LocalCache, LocalOptions, LocalServer, TargetErrorKind},
};
use sealback_examples::{key_file, read_ahead::Mountpoint};

use crate::{
    appending::Appending,
    args::Args,
    handles::Handles,
    inodes::Inodes,
    kernel::Kernel,
    owner::{Owner, PATIENCE, PAUSE},
    tree::{Log, Options, Tree},
    unmount::Asked,
};

fn main() -> ExitCode {
    let args = Args::parse();
    let is_first = !args.foreground && !background::is_here();
    let ended = if is_first { background::start().map_err(of("starting")) } else { run(&args) };
    ended.unwrap_or_else(|failure| {
        eprintln!("mount: {failure}");
        ExitCode::FAILURE
    })
}

fn of<E: fmt::Display>(what: impl fmt::Display) -> impl FnOnce(E) -> String {
    move |error| format!("{what}: {error}")
}

/// Mounts, answers the kernel until that is over, and writes everything back.
fn run(args: &Args) -> Result<ExitCode, String> {
    let server = args.server.canonicalize().map_err(of(args.server.display()))?;
    let mountpoint = args.mountpoint.canonicalize().map_err(of(args.mountpoint.display()))?;
    if server.starts_with(&mountpoint) || mountpoint.starts_with(&server) {
        return Err("SERVER and MOUNTPOINT must not lie in one another".to_owned());
    }
    let n_descriptors = allow_many_files();
    // A core file would have the key in it, and what is in the files.
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    // What lies beside the sealed files is for nobody else; what callers make gets its mode as they say.
    umask(Mode::RWXG | Mode::RWXO);
    let beside = server.join(".sealback");
    let take = || Owner::take(&beside, args.shared, PATIENCE).map_err(of(args.server.display()));
    let mut owner = if args.read_only { None } else { Some(take()?) };
    let log = background::is_here().then(|| {
        let beside = (!args.read_only).then_some(beside.as_path());
        background::open_log(args.log.as_deref(), beside).map_err(of("the log"))
    });
    let log = log.transpose()?;
    let tree = Arc::new(open(args, &server, n_descriptors)?);
    let mut config = fuser::Config::default();
    config.mount_options = vec![
        MountOption::FSName(server.display().to_string()),
        MountOption::Subtype("sealback".to_owned()),
        MountOption::DefaultPermissions,
        if args.read_only { MountOption::RO } else { MountOption::RW },
    ];
    config.acl = if args.allow_other { SessionACL::All } else { SessionACL::Owner };
    config.n_threads = Some(args.n_threads());
    config.clone_fd = true;
    let mounting = of(mountpoint.display());
    let mounted_on = Mountpoint::new(&mountpoint);
    let session = Session::new(Kernel(tree.clone()), &mountpoint, &config).map_err(mounting)?;
    // It is mounted once.
    let _ = tree.notifier.set(session.notifier());
    let asked = Asked::default();
    signals::watch(tree.clone(), asked.clone(), mountpoint).map_err(of("watching signals"))?;
    let (again, forgetful) = (tree.clone(), tree.clone());
    thread::spawn(move || forgetful.keep_few());
    thread::spawn(move || {
        mounted_on.read_far_ahead();
        loop {
            thread::sleep(TRY_AGAIN);
            again.try_again();
        }
    });
    match &log {
        Some(log) => background::is_mounted(log).map_err(of("the log"))?,
        None => eprintln!("mount: mounted; unmount with Ctrl-C or fusermount3 -u"),
    }
    let ran = session.run();
    if let Some(owner) = &mut owner {
        owner.is_ending();
    }
    let all_is_there = tree.write_everything_back(&asked);
    // Others may mount the tree from here on.
    drop(owner);
    ran.map_err(of("talking to the kernel"))?;
    Ok(if all_is_there { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Opens what the command line names.
fn open(args: &Args, server: &Path, n_descriptors: usize) -> Result<Tree, String> {
    let root_key = key_file::read(&args.key).map_err(of(args.key.display()))?;
    let options = LocalOptions::default().with_durability(args.durability);
    let root = lower::reference(CWD, server.as_os_str());
    let inodes = Inodes::new(root.map_err(of(server.display()))?, n_descriptors);
    let open_cache = |dir: &Path| {
        std::fs::create_dir_all(dir).map_err(of(dir.display()))?;
        LocalCache::open(dir, options).map_err(of(dir.display()))
    };
    let cache = args.cache.as_deref().map(open_cache).transpose()?;
    let beside = if args.read_only { server.to_owned() } else { server.join(".sealback") };
    let appending = (args.shared && !args.read_only).then(|| Appending::open(&beside));
    let appending = appending.transpose().map_err(of(beside.display()))?;
    let beside = File::open(beside).map_err(of("the server"))?;
    let hidden = lower::identity(&lower::stat(&beside).map_err(of("the server"))?);
    let (memory_bytes, folio_bytes) = (args.memory, FOLIO_BYTES);
    let config = Config { memory_bytes, folio_bytes, ..Config::default() };
    Ok(Tree {
        options: Options {
            block_bytes: args.block_size,
            shared: args.shared,
            waits_for_disk: args.durability == Durability::PowerCut,
        },
        engine: Engine::new(config).map_err(of("the engine"))?,
        server: open_server(args, server, options)?,
        cache,
        appending,
        root_key,
        inodes,
        files: Handles::new(),
        directories: Handles::new(),
        beside,
        hidden,
        uid: geteuid().as_raw(),
        gid: getegid().as_raw(),
        n_requests: AtomicU64::new(0),
        granted: OnceLock::new(),
        notifier: OnceLock::new(),
        log: Log::default(),
    })
}

/// Opens the directory: with one mount of it, nobody else changes anything in it. A mount that has just ended, or a
/// program that is about to, is waited for.
fn open_server(args: &Args, server: &Path, options: LocalOptions) -> Result<LocalServer, String> {
    if args.shared || args.read_only {
        return LocalServer::open(server, options).map_err(of("the server"));
    }
    let began = Instant::now();
    loop {
        match LocalServer::open_alone(server, options) {
            Err(error)
                if error.kind() == TargetErrorKind::NotPermitted && began.elapsed() < PATIENCE =>
            {
                thread::sleep(PAUSE);
            }
            opened => return opened.map_err(of("the server")),
        }
    }
}

/// Each file that the kernel knows takes a descriptor. Returns how many there may be.
fn allow_many_files() -> usize {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // With fewer, fewer are known at once.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    let allowed = getrlimit(Resource::Nofile).current;
    allowed.and_then(|allowed| usize::try_from(allowed).ok()).unwrap_or(usize::MAX)
}

/// Pages that are written here and there take a folio each: small ones let more of them be dirty at once,
/// and cost whoever reads one byte after the other.
const FOLIO_BYTES: usize = 32 << 10;
const TRY_AGAIN: Duration = Duration::from_secs(5);

//! Going into the background: the program starts itself once more, and ends when that is mounted.

use std::{
    env,
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    path::Path,
    process::{Child, Command, ExitCode, Stdio},
};

use crate::lower;

/// Says to a process that it is the one in the background.
const MARK: &str = "SEALBACK_MOUNT_IN_BACKGROUND";

/// Whether this is the process in the background.
pub(crate) fn is_here() -> bool {
    env::var_os(MARK).is_some()
}

/// Starts the process in the background, and waits until it has mounted the tree or has failed.
pub(crate) fn start() -> io::Result<ExitCode> {
    let mut command = Command::new(env::current_exe()?);
    command.args(env::args_os().skip(1)).env(MARK, "1");
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    Ok(if is_ready(&mut child)? { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn is_ready(child: &mut Child) -> io::Result<bool> {
    let mut said = String::new();
    if let Some(mut stdout) = child.stdout.take() {
        stdout.read_to_string(&mut said)?;
    }
    if said == READY {
        return Ok(true);
    }
    child.wait()?;
    Ok(false)
}

/// Where the process in the background tells what goes wrong: in a file that the user names, or beside the sealed
/// files; nowhere, where nothing is to be written there.
pub(crate) fn open_log(named: Option<&Path>, beside: Option<&Path>) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let options = options.append(true);
    match (named, beside) {
        (Some(named), _) => options.create(true).open(named),
        (None, Some(beside)) => lower::own_file(&beside.join("mount.log"), options),
        (None, None) => options.open("/dev/null"),
    }
}

/// Lets the first process end: from now on what goes wrong is told in the log.
pub(crate) fn is_mounted(log: &File) -> io::Result<()> {
    rustix::process::setsid()?;
    io::stdout().write_all(READY.as_bytes())?;
    io::stdout().flush()?;
    rustix::stdio::dup2_stderr(log)?;
    rustix::stdio::dup2_stdout(log)?;
    Ok(())
}

const READY: &str = "mounted\n";

//! Signals: SIGINT and SIGTERM unmount, SIGUSR1 tells the statistics.

use std::{
    io,
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    thread,
};

use signal_hook::{
    consts::{SIGINT, SIGTERM, SIGUSR1},
    iterator::Signals,
};

use crate::{tree::Tree, unmount::Asked};

/// Waits for signals from now on, on a thread of its own.
pub(crate) fn watch(tree: Arc<Tree>, asked: Asked, mountpoint: PathBuf) -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGUSR1])?;
    let watch = move || {
        for signal in &mut signals {
            if signal == SIGUSR1 {
                eprint!("{}", tree.statistics());
            } else if asked.fetch_add(1, Ordering::Relaxed) == 0 {
                unmount(&tree, &mountpoint);
            }
        }
    };
    thread::Builder::new().name("signals".to_owned()).spawn(watch).map(drop)
}

/// Unmounts. What callers still have open they may go on using; the end waits for them.
fn unmount(tree: &Tree, mountpoint: &PathBuf) {
    use rustix::mount::{UnmountFlags, unmount};
    if unmount(mountpoint, UnmountFlags::empty()).is_ok() {
        return;
    }
    // Who is not root has a program for it.
    let fusermount = |lazily: &[&str]| {
        let mut command = std::process::Command::new("fusermount3");
        command.args(["-u", "-q"]).args(lazily).arg(mountpoint);
        command.status().is_ok_and(|status| status.success())
    };
    if fusermount(&[]) {
        return;
    }
    tree.log("the folder is in use; it ends when all that is open there is closed");
    if unmount(mountpoint, UnmountFlags::DETACH).is_err() && !fusermount(&["-z"]) {
        tree.log("it cannot be unmounted");
    }
}

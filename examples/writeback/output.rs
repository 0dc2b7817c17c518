//! Where plaintext goes: a file that appears when it is whole, or a stream.
//!
//! A file is written without a name where the system can do that, so that not even a kill leaves
//! a part of it; else under a temporary one beside its place.

use std::{
    fs::{self, File, Permissions},
    io::{self, Read, Seek, Stdout, Write},
    os::{fd::AsRawFd, unix::fs::PermissionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use tempfile::NamedTempFile;

use crate::failure::Failure;

/// Where plaintext goes.
pub(crate) struct Output {
    shown: String,
    way: Way,
}

enum Way {
    /// A new file without a name, and what it is to be called.
    Nameless(File, PathBuf),
    /// A new file with a temporary name, and what it is to be called.
    Named(NamedTempFile, PathBuf),
    /// Something that is there and is no regular file.
    Special(File),
    Stdout(Stdout),
}

impl Output {
    /// Begins an output; nothing that is there is touched yet, unless it is a stream.
    pub(crate) fn begin(path: &Path) -> Result<Output, Failure> {
        if path.as_os_str() == "-" {
            return Ok(Output {
                shown: "standard output".to_owned(),
                way: Way::Stdout(io::stdout()),
            });
        }
        let shown = path.display().to_string();
        let way = begin_file(path).map_err(|error| Failure::of(&shown, error))?;
        Ok(Output { shown, way })
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let to: &mut dyn Write = match &mut self.way {
            Way::Named(file, _) => file,
            Way::Nameless(file, _) | Way::Special(file) => file,
            Way::Stdout(stdout) => stdout,
        };
        to.write_all(bytes).map_err(|error| Failure::of(&self.shown, error))
    }

    /// Goes on so many bytes further on; before that are zeros, which a file does not store.
    pub(crate) fn skip(&mut self, bytes: u64) -> Result<(), Failure> {
        let skipped = match &mut self.way {
            Way::Named(file, _) => seek(file.as_file_mut(), bytes),
            Way::Nameless(file, _) => seek(file, bytes),
            Way::Special(file) => io::copy(&mut io::repeat(0).take(bytes), file).map(drop),
            Way::Stdout(stdout) => io::copy(&mut io::repeat(0).take(bytes), stdout).map(drop),
        };
        skipped.map_err(|error| Failure::of(&self.shown, error))
    }

    /// All of it has been written: the file appears under its name.
    pub(crate) fn finish(self) -> Result<(), Failure> {
        let finished = match self.way {
            Way::Named(file, path) => file.persist(path).map(|_| ()).map_err(|error| error.error),
            Way::Nameless(file, path) => name(&file, &path),
            Way::Special(mut file) => file.flush(),
            Way::Stdout(mut stdout) => stdout.flush(),
        };
        finished.map_err(|error| Failure::of(&self.shown, error))
    }
}

fn seek(file: &mut File, bytes: u64) -> io::Result<()> {
    file.seek_relative(bytes.try_into().map_err(io::Error::other)?)
}

fn begin_file(path: &Path) -> io::Result<Way> {
    let path = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_owned(),
        Err(error) => return Err(error),
        Ok(there) if there.is_dir() => return Err(io::ErrorKind::IsADirectory.into()),
        // What a symbolic link leads to is replaced, not the link.
        Ok(there) if there.is_file() => path.canonicalize()?,
        Ok(_) => return Ok(Way::Special(File::options().write(true).open(path)?)),
    };
    if path.file_name().is_none() {
        return Err(io::ErrorKind::InvalidFilename.into());
    }
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    match rustix::fs::open(directory_of(&path), flags, Mode::from_raw_mode(NEW_FILE_MODE)) {
        Ok(file) => Ok(Way::Nameless(File::from(file), path)),
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::ISDIR | rustix::io::Errno::INVAL) => {
            let permissions = Permissions::from_mode(NEW_FILE_MODE);
            let file = tempfile::Builder::new()
                .permissions(permissions)
                .tempfile_in(directory_of(&path))?;
            Ok(Way::Named(file, path))
        }
        Err(error) => Err(error.into()),
    }
}

/// Gives a file without a name its name, in the place of whatever has it.
fn name(file: &File, path: &Path) -> io::Result<()> {
    let own = format!("/proc/self/fd/{}", file.as_raw_fd());
    // A link does not replace what is there, a rename does: so it gets a name of its own first.
    let linked = tempfile::Builder::new().make_in(directory_of(path), |temporary| {
        rustix::fs::linkat(CWD, &own, CWD, temporary, AtFlags::SYMLINK_FOLLOW)?;
        Ok(())
    })?;
    linked.persist(path).map_err(|error| error.error)
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// As for any new file: the process's mask decides.
const NEW_FILE_MODE: u32 = 0o666;

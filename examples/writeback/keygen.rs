//! A new key file: never over anything that is there, and on the disk when it is reported.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use sealback::crypto::RootKey;

use crate::{args::KeygenArgs, failure::Failure};

pub(crate) fn run(args: &KeygenArgs) -> Result<(), Failure> {
    let path = &args.key_file;
    let failure = |error: io::Error| Failure::of(path.display(), error);
    let key = RootKey::generate().map_err(|error| Failure::of("a new key", error))?;
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(path).map_err(failure)?;
    let written = file.write_all(key.as_bytes()).and_then(|()| file.sync_all());
    if let Err(error) = written.and_then(|()| sync_directory_of(path)) {
        // Half a key is none, and nobody has used this one yet.
        let _ = fs::remove_file(path);
        return Err(failure(error));
    }
    Ok(())
}

/// Waits until the disk has the file's name.
fn sync_directory_of(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}

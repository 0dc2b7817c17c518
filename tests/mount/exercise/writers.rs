//! Two mounts of one tree write other bytes of the same blocks: both see all of them in the end.

use std::{
    fs::{self, OpenOptions},
    os::unix::fs::FileExt,
    path::Path,
};

use crate::Failure;

const N_PLACES: u64 = 200;
const FILE_BYTES: usize = 100_000;

pub(crate) fn exercise(paths: [&Path; 2]) -> Result<(), Failure> {
    fs::write(paths[0], vec![0; FILE_BYTES])?;
    let open = |path| OpenOptions::new().write(true).open(path);
    let files = [(open(paths[0])?, [b'A'; 50], 0), (open(paths[1])?, [b'B'; 50], 100)];
    for place in 0..N_PLACES {
        for (file, data, offset) in &files {
            file.write_all_at(data, place * 500 + offset)?;
        }
        if place % 20 == 0 {
            files.iter().try_for_each(|(file, ..)| file.sync_all())?;
        }
    }
    drop(files);
    let mut expected = vec![0; FILE_BYTES];
    for stretch in expected.chunks_mut(500) {
        stretch[..50].fill(b'A');
        stretch[100..150].fill(b'B');
    }
    for path in paths {
        let found = fs::read(path)?;
        let differs = found.iter().zip(&expected).position(|(found, expected)| found != expected);
        if differs.is_some() || found.len() != FILE_BYTES {
            let found = found.len();
            return Err(format!("{}: {found} bytes, differs at {differs:?}", path.display()).into());
        }
    }
    Ok(())
}

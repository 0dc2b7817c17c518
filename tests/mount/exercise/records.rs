//! Records that are overwritten with an fsync after each, and notes outside of the folder of what was
//! acknowledged: whatever happens to the folder, it is there afterwards.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::Write,
    os::unix::fs::FileExt,
    path::Path,
};

use crate::Failure;

const N_RECORDS: u64 = 64;
const RECORD_BYTES: usize = 20_000;

fn record(number: u64, version: u64) -> Vec<u8> {
    let line = format!("{:.<100}", format!("{number}:{version};"));
    line.repeat(RECORD_BYTES / 100).into_bytes()
}

fn place_of(number: u64) -> u64 {
    number * RECORD_BYTES as u64
}

/// Overwrites them until that fails, which it does when the folder's program is killed.
pub(crate) fn write(path: &Path, notes: &Path) -> Result<(), Failure> {
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
    let mut notes = File::create(notes)?;
    for version in 0.. {
        for number in 0..N_RECORDS {
            writeln!(notes, "begin {number} {version}")?;
            file.write_all_at(&record(number, version), place_of(number))?;
            file.sync_all()?;
            writeln!(notes, "done {number} {version}")?;
        }
    }
    Ok(())
}

/// Each is the acknowledged one; of the one that was being written, that or the next.
pub(crate) fn check(path: &Path, notes: &Path) -> Result<(), Failure> {
    let allowed = allowed(&fs::read_to_string(notes)?)?;
    let (file, mut n_acknowledged) = (File::open(path)?, 0);
    for (number, versions) in allowed {
        let mut found = vec![0; RECORD_BYTES];
        let is_whole = file.read_exact_at(&mut found, place_of(number)).is_ok();
        if is_whole && versions.iter().any(|version| found == record(number, *version)) {
            n_acknowledged += 1;
        } else if !versions.contains(&0) {
            // The first write of the last record may be there in part, or not at all.
            let found = String::from_utf8_lossy(&found[..20]);
            return Err(format!("record {number}: {found}, not one of {versions:?}").into());
        }
    }
    println!("{n_acknowledged} records are as they were acknowledged");
    if n_acknowledged == 0 { Err("nothing was acknowledged".into()) } else { Ok(()) }
}

/// Which versions each record may have.
fn allowed(notes: &str) -> Result<BTreeMap<u64, Vec<u64>>, Failure> {
    let mut allowed: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for line in notes.lines() {
        let [what, number, version] = line.split(' ').collect::<Vec<_>>()[..] else {
            return Err(format!("no note: {line}").into());
        };
        let versions = allowed.entry(number.parse()?).or_default();
        if what == "done" {
            versions.clear();
        }
        versions.push(version.parse()?);
    }
    Ok(allowed)
}

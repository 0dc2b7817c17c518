//! Changes a file's size, and makes zeros of a part of it.

use std::io::Write;

use sealback::{Error, File, FileInfo};
use serde::Serialize;

use crate::{
    args::{PunchArgs, TruncateArgs},
    behind::Sent,
    failure::Failure,
    inspect::HoleRange,
    stores::{self, Stores},
    summary,
};

pub(crate) fn truncate(args: &TruncateArgs) -> Result<(), Failure> {
    let TruncateArgs { name, size, .. } = args;
    let stores = Stores::open_to_change(&args.at, &args.with, name)?;
    let engine = stores::engine(&args.with)?;
    let file = stores.open_file(&engine, name)?;
    let before = file.size();
    change(&file, || {
        file.set_len(*size)?;
        if *size > before { file.sync() } else { Ok(()) }
    })
    .map_err(|error| Failure::of_file(name, &error))?;
    let report = Report::new(name.as_str(), before, &file.info(), stores.upload(&file));
    summary::tell(args.json, &report, |out| {
        writeln!(out, "{name}: {} bytes, {before} before", report.bytes)?;
        Sent::print(report.behind.as_ref(), out)
    })
}

pub(crate) fn punch(args: &PunchArgs) -> Result<(), Failure> {
    let PunchArgs { name, offset, length, .. } = args;
    let stores = Stores::open_to_change(&args.at, &args.with, name)?;
    let engine = stores::engine(&args.with)?;
    let file = stores.open_file(&engine, name)?;
    let before = file.size();
    let range = (*offset).min(before)..(offset + length).min(before);
    change(&file, || {
        file.punch(range.clone())?;
        if range.is_empty() { Ok(()) } else { file.sync() }
    })
    .map_err(|error| Failure::of_file(name, &error))?;
    let report = Report::new(name.as_str(), before, &file.info(), stores.upload(&file));
    summary::tell(args.json, &report, |out| {
        match range.is_empty() {
            true => writeln!(out, "{name}: nothing to punch, {before} bytes"),
            false => writeln!(out, "{name}: zeros from {} to {}", range.start, range.end),
        }?;
        Sent::print(report.behind.as_ref(), out)
    })
}

/// Changes a file; if that fails, nothing is written any more.
fn change(file: &File, how: impl FnOnce() -> Result<(), Error>) -> Result<(), Error> {
    how().inspect_err(|_| file.discard())
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report<'a> {
    name: &'a str,
    file_id: String,
    bytes_before: u64,
    bytes: u64,
    generation: u64,
    cuts: u64,
    hole_range: HoleRange,
    #[serde(skip_serializing_if = "Option::is_none")]
    behind: Option<Sent>,
}

impl Report<'_> {
    fn new<'a>(
        name: &'a str,
        bytes_before: u64,
        info: &FileInfo,
        behind: Option<Sent>,
    ) -> Report<'a> {
        Report {
            name,
            file_id: info.file_id.to_string(),
            bytes_before,
            bytes: info.size,
            generation: info.generation,
            cuts: info.cuts,
            hole_range: HoleRange::from(&info.holes),
            behind,
        }
    }
}

//! Uploads what was written behind, and tells of each file what came of it.

use std::io::{self, Write};

use sealback::Uploaded;
use serde::Serialize;

use crate::{
    args::ResumeArgs,
    behind::{Behind, Sent},
    failure::{Failure, one_line},
    stores::{self, Stores},
    summary,
};

pub(crate) fn run(args: &ResumeArgs) -> Result<(), Failure> {
    let (stores, behind) = Stores::open_behind(&args.at, &args.cache)?;
    let engine = stores::plain_engine()?;
    let pending = behind.pending()?;
    let (n_files, mut files) = (pending.len(), Vec::new());
    for pending in pending {
        let sent = match engine.open_pending(&stores.place(), &pending) {
            Ok(file) => behind.upload(&file, pending.bytes),
            Err(error) => Sent::new(Uploaded::default(), Some(&error)),
        };
        let file = Resumed { name: pending.name.to_string(), sent };
        if !args.json {
            file.print().map_err(Failure::of_stdout)?;
        }
        files.push(file);
    }
    let why = files.iter().find_map(|file| file.sent.waits()).map(str::to_owned);
    let n_waiting = files.iter().filter(|file| file.sent.waits().is_some()).count();
    let report = Report { n_waiting, files };
    summary::tell(args.json, &report, |out| match n_files {
        0 => writeln!(out, "nothing waits"),
        _ => Ok(()),
    })?;
    why.map_or(Ok(()), |why| Err(still_waiting(&behind, (n_waiting, n_files), &why)))
}

fn still_waiting(behind: &Behind, (n_waiting, n_files): (usize, usize), why: &str) -> Failure {
    behind.failure(format_args!("{n_waiting} of {n_files} files still wait: {why}"))
}

/// What came of one file.
#[derive(Debug, Serialize)]
struct Resumed {
    name: String,
    #[serde(flatten)]
    sent: Sent,
}

impl Resumed {
    fn print(&self) -> io::Result<()> {
        writeln!(
            io::stdout().lock(),
            "{}: {}",
            one_line(&self.name),
            one_line(&self.sent.to_string())
        )
    }
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report {
    n_waiting: usize,
    files: Vec<Resumed>,
}

//! Prints the names of the files on a server.

use std::io::Write;

use serde::Serialize;

use crate::{
    args::ListArgs,
    failure::{Failure, one_line},
    server::{OpenServer, Wishes},
    summary,
};

pub(crate) fn run(args: &ListArgs) -> Result<(), Failure> {
    let server = OpenServer::open(&args.on, Wishes::default())?;
    let names = server.list()?;
    let report = Report { names: names.iter().map(|name| name.as_str()).collect() };
    summary::tell(args.json, &report, |out| {
        report.names.iter().try_for_each(|name| writeln!(out, "{}", one_line(name)))
    })
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report<'a> {
    names: Vec<&'a str>,
}

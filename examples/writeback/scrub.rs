//! Finds objects that are of no file, and removes them where that is asked for.

use std::{
    io::{self, Write},
    time::Duration,
};

use sealback_examples::Size;
use serde::Serialize;

use crate::{
    args::ScrubArgs,
    failure::Failure,
    server::{OpenServer, Wishes},
    summary,
};

pub(crate) fn run(args: &ScrubArgs) -> Result<(), Failure> {
    let orphan_age = args.older_than.map(Duration::from_secs);
    let wishes = Wishes { orphan_age, ..Wishes::default() };
    let found = OpenServer::open(&args.on, wishes)?.scrub(args.remove)?;
    summary::tell(args.json, &found, |out| found.print(out))
}

/// What a scrub finds, and does: what `--json` prints.
#[derive(Debug, Serialize)]
pub(crate) struct Orphaned {
    /// What may be removed.
    pub(crate) objects: Vec<Object>,
    /// How many may belong to a put that is under way.
    pub(crate) n_younger: u64,
    pub(crate) n_removed: u64,
}

/// An object that is of no file.
#[derive(Debug, Serialize)]
pub(crate) struct Object {
    pub(crate) key: String,
    pub(crate) bytes: u64,
}

impl Orphaned {
    fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let Orphaned { objects, n_younger, n_removed } = self;
        for Object { key, bytes } in objects {
            writeln!(out, "{key}: {bytes} bytes")?;
        }
        let size = Size(objects.iter().map(|object| object.bytes).sum());
        write!(out, "{} objects of no file, {size}", objects.len())?;
        match n_younger {
            0 => {}
            n => write!(out, "; {n} younger ones may belong to a put that is under way")?,
        }
        writeln!(out, "; {n_removed} removed")
    }
}

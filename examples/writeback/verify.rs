//! Opens every block that the server has, and names each that fails.

use std::io::{self, Write};

use sealback::BlockReport;

use crate::{
    args::VerifyArgs,
    failure::Failure,
    stores::{self, Stores},
};

pub(crate) fn run(args: &VerifyArgs) -> Result<(), Failure> {
    let stores = Stores::open(&args.at, None)?;
    let engine = stores::plain_engine()?;
    let file = stores.open_file(&engine, &args.name)?;
    let mut out = io::stdout().lock();
    let mut written = Ok(());
    let mut counts = Counts::default();
    file.verify(|_, report| {
        counts.add(report);
        if let (BlockReport::Damaged(damage), Ok(())) = (report, &written) {
            written = writeln!(out, "{damage}");
        }
    })
    .map_err(|error| Failure::of_file(&args.name, &error))?;
    let Counts { opened, holes, damaged } = counts;
    let n_blocks = counts.n_blocks();
    let summary = format_args!("{opened} opened, {holes} holes, {damaged} damaged");
    written
        .and_then(|()| writeln!(out, "{}: {n_blocks} blocks: {summary}", args.name))
        .and_then(|()| out.flush())
        .map_err(Failure::of_stdout)?;
    counts.verdict(&args.name)
}

/// How many blocks were found how.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) opened: u64,
    pub(crate) holes: u64,
    pub(crate) damaged: u64,
}

impl Counts {
    pub(crate) fn add(&mut self, report: &BlockReport) {
        match report {
            BlockReport::Opened { .. } => self.opened += 1,
            BlockReport::Hole => self.holes += 1,
            _ => self.damaged += 1,
        }
    }

    pub(crate) fn n_blocks(&self) -> u64 {
        self.opened + self.holes + self.damaged
    }

    /// A failure if anything is damaged.
    pub(crate) fn verdict(&self, name: &sealback::stream::Name) -> Result<(), Failure> {
        match self.damaged {
            0 => Ok(()),
            n => {
                let n_blocks = self.n_blocks();
                Err(Failure::of(name, format_args!("damaged: {n} of {n_blocks} blocks")))
            }
        }
    }
}

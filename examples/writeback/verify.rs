//! Opens every block that the server has, and names each that fails; compares a cache's copy.

use std::{
    fmt,
    io::{self, StdoutLock, Write},
};

use sealback::{BlockReport, CacheReport, Error, File, crypto::BlockDamage, stream::Name};
use serde::Serialize;

use crate::{
    args::VerifyArgs,
    failure::Failure,
    stores::{self, Stores},
    summary,
};

pub(crate) fn run(args: &VerifyArgs) -> Result<(), Failure> {
    let name = &args.name;
    let stores = Stores::open(&args.at, args.cache.as_deref(), name)?;
    let engine = stores::plain_engine()?;
    let file = stores.open_file(&engine, name)?;
    let mut findings = Findings::new(args.json);
    verify_server(&file, &mut findings)
        .and_then(|()| match args.cache {
            Some(_) => verify_cache(&file, &mut findings),
            None => Ok(()),
        })
        .map_err(|error| Failure::of_file(name, &error))?;
    let report = findings.report(name.as_str())?;
    summary::tell(args.json, &report, |out| report.print(out))?;
    report.verdict(name)
}

fn verify_server(file: &File, findings: &mut Findings) -> Result<(), Error> {
    file.verify(|_, report| {
        findings.counts.add(report);
        if let BlockReport::Damaged(damage) = report {
            findings.damaged(damage);
        }
    })
}

fn verify_cache(file: &File, findings: &mut Findings) -> Result<(), Error> {
    let mut copy = Copy::default();
    copy.in_use = file.verify_cache(|block, report| match report {
        CacheReport::Absent => copy.n_absent += 1,
        CacheReport::Same => copy.n_same += 1,
        // Whatever else the library finds one day is not the server's block, either.
        _ => {
            copy.n_differing += 1;
            findings.differs(&mut copy, block);
        }
    })?;
    findings.copy = Some(copy);
    Ok(())
}

/// What is found, told line by line or kept for the JSON object.
struct Findings {
    json: bool,
    out: StdoutLock<'static>,
    written: io::Result<()>,
    counts: Counts,
    damaged: Vec<Damaged>,
    copy: Option<Copy>,
}

impl Findings {
    fn new(json: bool) -> Findings {
        Findings {
            json,
            out: io::stdout().lock(),
            written: Ok(()),
            counts: Counts::default(),
            damaged: Vec::new(),
            copy: None,
        }
    }

    fn damaged(&mut self, damage: &BlockDamage) {
        match self.json {
            true => self.damaged.push(Damaged::from(damage)),
            false => self.line(damage),
        }
    }

    fn differs(&mut self, copy: &mut Copy, block: u64) {
        match self.json {
            true => copy.differing.push(block),
            false => self.line(format_args!("block {block}: the cache's copy differs")),
        }
    }

    fn line(&mut self, line: impl fmt::Display) {
        if self.written.is_ok() {
            self.written = writeln!(self.out, "{line}");
        }
    }

    fn report(self, name: &str) -> Result<Report<'_>, Failure> {
        let Findings { written, counts, damaged, copy, .. } = self;
        written.map_err(Failure::of_stdout)?;
        Ok(Report { name, n_blocks: counts.n_blocks(), counts, damaged, cache: copy })
    }
}

/// How many blocks were found how.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Counts {
    #[serde(rename = "n_opened")]
    pub(crate) opened: u64,
    #[serde(rename = "n_holes")]
    pub(crate) holes: u64,
    #[serde(rename = "n_damaged")]
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

    /// What is to be said if anything is damaged.
    pub(crate) fn complaint(&self) -> Option<String> {
        let (n, n_blocks) = (self.damaged, self.n_blocks());
        (n > 0).then(|| format!("damaged: {n} of {n_blocks} blocks"))
    }
}

/// A block that did not open.
#[derive(Debug, Serialize)]
pub(crate) struct Damaged {
    pub(crate) block: u64,
    pub(crate) what: String,
}

impl From<&BlockDamage> for Damaged {
    fn from(damage: &BlockDamage) -> Damaged {
        Damaged { block: damage.block, what: damage.kind.to_string() }
    }
}

/// How the cache's copy compares.
#[derive(Debug, Default, Serialize)]
struct Copy {
    /// Whether there is one in use.
    in_use: bool,
    n_same: u64,
    n_absent: u64,
    n_differing: u64,
    differing: Vec<u64>,
}

impl fmt::Display for Copy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Copy { in_use, n_same, n_absent, n_differing, .. } = self;
        match in_use {
            true => {
                write!(f, "the cache: {n_same} same, {n_absent} absent, {n_differing} differing")
            }
            false => f.write_str("the cache has no copy of this file in use"),
        }
    }
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report<'a> {
    name: &'a str,
    n_blocks: u64,
    #[serde(flatten)]
    counts: Counts,
    damaged: Vec<Damaged>,
    cache: Option<Copy>,
}

impl Report<'_> {
    fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let Report { name, n_blocks, cache, .. } = self;
        let Counts { opened, holes, damaged } = self.counts;
        writeln!(
            out,
            "{name}: {n_blocks} blocks: {opened} opened, {holes} holes, {damaged} damaged"
        )?;
        cache.as_ref().map_or(Ok(()), |copy| writeln!(out, "{name}: {copy}"))
    }

    /// A failure if anything is damaged, or differs.
    fn verdict(&self, name: &Name) -> Result<(), Failure> {
        let n_differing = self.cache.as_ref().map_or(0, |copy| copy.n_differing);
        let differing = (n_differing > 0).then(|| {
            format!("the cache's copy differs in {n_differing} of {} blocks", self.n_blocks)
        });
        let complaints: Vec<_> = self.counts.complaint().into_iter().chain(differing).collect();
        match complaints.is_empty() {
            true => Ok(()),
            false => Err(Failure::of(name, complaints.join("; "))),
        }
    }
}

//! Tells what a header says, and which blocks were sealed together.

use std::io::{self, Write};

use sealback::{BlockReport, FileInfo, crypto::Nonce};
use sealback_examples::Size;
use serde::Serialize;

use crate::{
    args::InspectArgs,
    failure::Failure,
    stores::{self, Stores},
    verify::Counts,
};

pub(crate) fn run(args: &InspectArgs) -> Result<(), Failure> {
    let stores = Stores::open(&args.at, None)?;
    let engine = stores::plain_engine()?;
    let file = stores.open_file(&engine, &args.name)?;
    let mut blocks = Blocks::default();
    file.verify(|block, report| blocks.add(block, report))
        .map_err(|error| Failure::of_file(&args.name, &error))?;
    let counts = blocks.counts;
    let report = Report::new(args.name.as_str(), &file.info(), blocks);
    let mut out = io::stdout().lock();
    let written = match args.json {
        true => serde_json::to_writer(&mut out, &report)
            .map_err(io::Error::from)
            .and_then(|()| writeln!(out)),
        false => report.print(&mut out),
    };
    written.and_then(|()| out.flush()).map_err(Failure::of_stdout)?;
    counts.verdict(&args.name)
}

/// What was found, block after block.
#[derive(Debug, Default)]
struct Blocks {
    counts: Counts,
    spans: Vec<Span>,
    damaged: Vec<Damaged>,
    /// The nonce of the block before, if it opened.
    last: Option<Nonce>,
}

impl Blocks {
    fn add(&mut self, block: u64, report: &BlockReport) {
        self.counts.add(report);
        let last = self.last.take();
        match report {
            BlockReport::Damaged(damage) => {
                self.damaged.push(Damaged { block, what: damage.kind.to_string() });
            }
            BlockReport::Opened { seal_gen, nonce, .. } => {
                self.last = Some(*nonce);
                match self.spans.last_mut() {
                    Some(span) if last.is_some_and(|last| prefix(&last) == prefix(nonce)) => {
                        span.n_blocks += 1;
                    }
                    _ => self.spans.push(Span::new(block, *seal_gen, nonce)),
                }
            }
            _ => {}
        }
    }
}

/// What the nonces of a span share.
fn prefix(nonce: &Nonce) -> &[u8] {
    &nonce.as_bytes()[..20]
}

/// Consecutive blocks that share a nonce prefix: they were sealed together.
#[derive(Debug, Serialize)]
struct Span {
    first_block: u64,
    n_blocks: u64,
    seal_gen: u32,
    nonce_prefix: String,
}

impl Span {
    fn new(first_block: u64, seal_gen: u32, nonce: &Nonce) -> Span {
        let nonce_prefix = prefix(nonce).iter().map(|byte| format!("{byte:02x}")).collect();
        Span { first_block, n_blocks: 1, seal_gen, nonce_prefix }
    }
}

#[derive(Debug, Serialize)]
struct Damaged {
    block: u64,
    what: String,
}

/// Blocks that may be holes, as the header says; the end is exclusive.
#[derive(Debug, Serialize)]
struct HoleRange {
    from: u64,
    to: u64,
}

#[derive(Debug, Serialize)]
struct Report<'a> {
    name: &'a str,
    file_id: String,
    bytes: u64,
    block_bytes: u64,
    stored_bytes: u64,
    generation: u64,
    cuts: u64,
    cut_pending: bool,
    hole_range: HoleRange,
    n_blocks: u64,
    n_holes: u64,
    damaged: Vec<Damaged>,
    spans: Vec<Span>,
}

impl Report<'_> {
    fn new<'a>(name: &'a str, info: &FileInfo, blocks: Blocks) -> Report<'a> {
        Report {
            name,
            file_id: info.file_id.to_string(),
            bytes: info.size,
            block_bytes: info.block_bytes,
            stored_bytes: info.stored_bytes(),
            generation: info.generation,
            cuts: info.cuts,
            cut_pending: info.cut_pending,
            hole_range: HoleRange { from: info.holes.start, to: info.holes.end },
            n_blocks: blocks.counts.n_blocks(),
            n_holes: blocks.counts.holes,
            damaged: blocks.damaged,
            spans: blocks.spans,
        }
    }

    fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let HoleRange { from, to } = self.hole_range;
        writeln!(out, "name          {}", self.name)?;
        writeln!(out, "file id       {}", self.file_id)?;
        writeln!(out, "size          {} bytes ({})", self.bytes, Size(self.bytes))?;
        writeln!(out, "stored        {} bytes when dense", self.stored_bytes)?;
        writeln!(out, "block size    {}", Size(self.block_bytes))?;
        writeln!(out, "generation    {}", self.generation)?;
        let pending = if self.cut_pending { ", and one is pending" } else { "" };
        writeln!(out, "cuts          {}{pending}", self.cuts)?;
        match from < to {
            true => writeln!(out, "holes         {} within blocks {from}..{to}", self.n_holes)?,
            false => writeln!(out, "holes         none")?,
        }
        writeln!(out, "blocks        {}, {} damaged", self.n_blocks, self.damaged.len())?;
        for Damaged { block, what } in &self.damaged {
            writeln!(out, "  block {block}: {what}")?;
        }
        writeln!(out, "spans         {} (blocks that were sealed together)", self.spans.len())?;
        if !self.spans.is_empty() {
            writeln!(out)?;
            writeln!(
                out,
                "{:>12} {:>8} {:>11}  nonce prefix",
                "first block", "blocks", "generation"
            )?;
        }
        for Span { first_block, n_blocks, seal_gen, nonce_prefix } in &self.spans {
            writeln!(out, "{first_block:>12} {n_blocks:>8} {seal_gen:>11}  {nonce_prefix}")?;
        }
        Ok(())
    }
}

//! Tells what a header says, which blocks were sealed together, and which are damaged or short.

use std::{
    io::{self, Write},
    ops::Range,
};

use sealback::{BlockReport, FileInfo, crypto::Nonce};
use sealback_examples::Size;
use serde::Serialize;

use crate::{
    args::InspectArgs,
    failure::Failure,
    stores::{self, Stores},
    summary,
    verify::{Counts, Damaged},
};

pub(crate) fn run(args: &InspectArgs) -> Result<(), Failure> {
    let name = &args.name;
    let stores = Stores::open(&args.at, args.cache.as_deref(), name)?;
    let engine = stores::plain_engine()?;
    let file = stores.open_file(&engine, name)?;
    let info = file.info();
    let mut blocks = Blocks::default();
    file.verify(|block, report| blocks.add(&info, block, report))
        .map_err(|error| Failure::of_file(name, &error))?;
    let complaint = blocks.counts.complaint();
    let report = Report::new(name.as_str(), &info, blocks);
    summary::tell(args.json, &report, |out| report.print(out))?;
    complaint.map_or(Ok(()), |complaint| Err(Failure::of(name, complaint)))
}

/// What was found, block after block.
#[derive(Debug, Default)]
struct Blocks {
    counts: Counts,
    spans: Vec<Span>,
    damaged: Vec<Damaged>,
    short: Vec<Short>,
    /// The nonce of the block before, if it opened.
    last: Option<Nonce>,
}

impl Blocks {
    fn add(&mut self, info: &FileInfo, block: u64, report: &BlockReport) {
        self.counts.add(report);
        let last = self.last.take();
        match report {
            BlockReport::Damaged(damage) => self.damaged.push(Damaged::from(damage)),
            BlockReport::Opened { len, seal_gen, nonce } => {
                self.last = Some(*nonce);
                match self.spans.last_mut() {
                    Some(span) if last.is_some_and(|last| prefix(&last) == prefix(nonce)) => {
                        span.n_blocks += 1;
                    }
                    _ => self.spans.push(Span::new(block, *seal_gen, nonce)),
                }
                let in_file =
                    info.block_bytes.min(info.size.saturating_sub(block * info.block_bytes));
                if u64::from(*len) < in_file {
                    self.short.push(Short { block, len: *len });
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

/// A block that is allowed to hold fewer bytes than the file has there: the rest are zeros.
#[derive(Debug, Serialize)]
struct Short {
    block: u64,
    len: u32,
}

/// Blocks that may be holes or short, as the header says; the end is exclusive.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct HoleRange {
    from: u64,
    to: u64,
}

impl From<&Range<u64>> for HoleRange {
    fn from(blocks: &Range<u64>) -> HoleRange {
        HoleRange { from: blocks.start, to: blocks.end }
    }
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
    short: Vec<Short>,
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
            hole_range: HoleRange::from(&info.holes),
            n_blocks: blocks.counts.n_blocks(),
            n_holes: blocks.counts.holes,
            damaged: blocks.damaged,
            short: blocks.short,
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
        let pending = match self.cut_pending {
            true => ", the last not finished: the next change to the file does that",
            false => "",
        };
        writeln!(out, "cuts          {}{pending}", self.cuts)?;
        match from < to {
            true => writeln!(out, "holes         {} within blocks {from}..{to}", self.n_holes)?,
            false => writeln!(out, "holes         none allowed")?,
        }
        let (n_damaged, n_short) = (self.damaged.len(), self.short.len());
        writeln!(out, "blocks        {}, {n_damaged} damaged, {n_short} short", self.n_blocks)?;
        for Damaged { block, what } in &self.damaged {
            writeln!(out, "  block {block}: {what}")?;
        }
        for Short { block, len } in &self.short {
            writeln!(out, "  block {block}: {len} bytes stored, the rest of it zeros")?;
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

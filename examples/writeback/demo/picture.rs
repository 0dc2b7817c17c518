//! Draws a writeback on the file's axis: a character is a block, and all of it comes from what
//! was recorded.
//!
//! ```text
//!  folios   |-------|-------|       |-------|
//!             CCCCCCDDDDDDDD        DDDDDDDD
//!  upload           [-- 1 --]       [-- 2 -]
//!  cache      [-1--][-2-][3 ]       [-- 4 -]
//! ```

use std::{
    io::{self, Write},
    ops::Range,
};

use sealback_examples::Size;

use super::recorder::{CACHE, Recording, STREAMS, UPLOAD, Way};

/// The rows of the picture, each as long as the file has blocks.
pub(crate) struct Picture {
    block_bytes: u64,
    ruler: Row,
    folios: Row,
    content: Row,
    streams: [Row; 2],
}

/// What a picture needs to know of the file.
pub(crate) struct Scale {
    pub(crate) block_bytes: u64,
    pub(crate) folio_bytes: u64,
    pub(crate) size_bytes: u64,
}

impl Picture {
    pub(crate) fn new(recording: &Recording, scale: &Scale) -> Picture {
        let Scale { block_bytes, folio_bytes, size_bytes } = *scale;
        let n_blocks = column(size_bytes.div_ceil(block_bytes));
        let row = || Row::blank(n_blocks + 1);
        let mut picture = Picture {
            block_bytes,
            ruler: row(),
            folios: row(),
            content: row(),
            streams: [row(), row()],
        };
        for start in (0..n_blocks).step_by(RULER_STEP) {
            let position = Size(start as u64 * block_bytes);
            picture.ruler.write(start, &format!("'{position}"));
        }
        let per_folio = folio_bytes / block_bytes;
        for span in recording.spans() {
            picture.content.fill(&span.blocks, letter(span.way));
            for block in span.blocks {
                let folio = column(block / per_folio * per_folio);
                picture.folios.frame(folio..(folio + column(per_folio)).min(n_blocks));
            }
        }
        for stream in [UPLOAD, CACHE] {
            for subrequest in recording.subrequests(stream) {
                picture.streams[stream].bracket(&subrequest.blocks, subrequest.id);
            }
        }
        picture
    }

    pub(crate) fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let block = Size(self.block_bytes);
        writeln!(out, "One writeback, as it happened (a character is a block of {block})")?;
        let n_columns = self.content.0.len();
        for start in (0..n_columns - 1).step_by(WIDTH) {
            // One more than the width, for the last folio's frame.
            let columns = start..(start + WIDTH + 1).min(n_columns);
            let blocks = start..(start + WIDTH).min(n_columns);
            writeln!(out)?;
            self.ruler.print(out, "", &blocks)?;
            self.folios.print(out, "folios", &columns)?;
            self.content.print(out, "", &blocks)?;
            for (stream, row) in STREAMS.iter().zip(&self.streams) {
                row.print(out, stream, &blocks)?;
            }
        }
        writeln!(out)?;
        for (sign, meaning) in LEGEND {
            writeln!(out, "{sign:>LABEL_WIDTH$}  {meaning}")?;
        }
        Ok(())
    }
}

/// One character for each block.
struct Row(Vec<u8>);

impl Row {
    fn blank(n_columns: usize) -> Row {
        Row(vec![b' '; n_columns])
    }

    fn write(&mut self, start: usize, text: &str) {
        for (place, character) in self.0[start..].iter_mut().zip(text.bytes()) {
            *place = character;
        }
    }

    fn fill(&mut self, blocks: &Range<u64>, character: u8) {
        self.0[column(blocks.start)..column(blocks.end)].fill(character);
    }

    /// A folio: `|-------|`, whose ends are shared with its neighbours.
    fn frame(&mut self, columns: Range<usize>) {
        self.0[columns.start + 1..columns.end].fill(b'-');
        (self.0[columns.start], self.0[columns.end]) = (b'|', b'|');
    }

    /// A subrequest: `[-- 7 --]`. One that goes on in the next line of the picture has its number
    /// in both.
    fn bracket(&mut self, blocks: &Range<u64>, id: u64) {
        let (start, end) = (column(blocks.start), column(blocks.end));
        self.0[start..end].fill(b'-');
        let mut part = start;
        while part < end {
            let line_end = (part / WIDTH + 1) * WIDTH;
            let (first, last) = (part + 1, end.min(line_end).saturating_sub(1));
            let label = format!(" {id} ");
            let label = if first + label.len() > last { label.trim() } else { &label };
            if first + label.len() <= last {
                self.write(first + (last - first - label.len()) / 2, label);
            }
            part = line_end;
        }
        match end - start {
            1 => self.0[start] = b'|',
            _ => (self.0[start], self.0[end - 1]) = (b'[', b']'),
        }
    }

    fn print(&self, out: &mut impl Write, label: &str, columns: &Range<usize>) -> io::Result<()> {
        let text = String::from_utf8_lossy(&self.0[columns.clone()]);
        writeln!(out, "{}", format_args!("{label:<LABEL_WIDTH$}  {text}").to_string().trim_end())
    }
}

fn letter(way: Way) -> u8 {
    match way {
        Way::Both => b'D',
        Way::CacheOnly => b'C',
        Way::UploadOnly => b'd',
    }
}

fn column(blocks: u64) -> usize {
    usize::try_from(blocks).expect("a picture is of a small file")
}

/// Blocks in a line of the picture: whole folios.
const WIDTH: usize = 80;
const LABEL_WIDTH: usize = 8;
const RULER_STEP: usize = 16;

const LEGEND: [(&str, &str); 6] = [
    ("|-------|", "a folio; none where nothing is to be written"),
    ("D", "dirty: sealed once, for both streams"),
    ("d", "dirty, and kept out of the cache: a gap in the cache's stream"),
    ("C", "clean, read from the server: as it is, for the cache; a gap in the upload"),
    ("[-- 7 --]", "a subrequest and its number: upload up to 1 MiB, cache up to 384 KiB"),
    ("blank", "untouched: a gap in both streams"),
];

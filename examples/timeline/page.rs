//! The page: two drawings, along time and along the file, and what their colours mean.

use std::{fmt::Write, ops::Range};

use sealback_examples::Size;

use crate::{
    Args,
    scene::{BLOCK_BYTES, FOLIO_BYTES},
    story::{Story, Subrequest, Times},
};

/// The whole page. `args` says what was drawn.
pub(crate) fn page(story: &Story, args: &Args) -> String {
    let title = format!(
        "A writeback of {} in {:.1} ms: blocks of {}, folios of {}, seed {}",
        Size(args.size),
        story.ends as f64 / 1000.0,
        Size(BLOCK_BYTES),
        Size(FOLIO_BYTES),
        args.seed,
    );
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>{title}</title>\n\
         <style>{STYLE}</style>\n<h1>{title}</h1>\n{LEGEND}\n<h2>Along time</h2>\n{}\n\
         <h2>Along the file</h2>\n{}\n</html>\n",
        along_time(story, args.size),
        along_file(story, args.size),
    )
}

/// A drawing that grows downwards.
struct Drawing {
    svg: String,
    y: f64,
    /// How much of what it is drawn along there is.
    along: u64,
}

/// A rectangle, and what it tells when it is pointed at.
struct Bar {
    class: &'static str,
    along: Range<u64>,
    tells: String,
}

impl Bar {
    fn new(class: &'static str, along: Range<u64>, tells: String) -> Bar {
        Bar { class, along, tells }
    }
}

impl Drawing {
    fn new(along: u64) -> Drawing {
        Drawing { svg: String::new(), y: 0.0, along: along.max(1) }
    }

    fn x(&self, at: u64) -> f64 {
        LEFT + at as f64 / self.along as f64 * WIDTH
    }

    fn bar(&mut self, bar: &Bar, y: Range<f64>) {
        let Bar { class, along, tells } = bar;
        let (start, end) = (self.x(along.start), self.x(along.end));
        let (width, height) = ((end - start - 0.3).max(0.7), y.end - y.start);
        let _ = writeln!(
            self.svg,
            "<rect class=\"{class}\" x=\"{start:.1}\" y=\"{:.1}\" width=\"{width:.1}\" \
             height=\"{height:.1}\"><title>{tells}</title></rect>",
            y.start,
        );
    }

    /// Names what begins here.
    fn name(&mut self, name: &str) {
        let y = self.y + ROW - 2.0;
        let _ = writeln!(self.svg, "<text x=\"4\" y=\"{y:.1}\">{name}</text>");
    }

    /// A lane of bars, in as many rows as it takes that none lies over another. Each comes in parts.
    fn lane(&mut self, name: &str, bars: impl Iterator<Item = Vec<Bar>>) {
        self.name(name);
        let mut free_from: Vec<u64> = Vec::new();
        for parts in bars {
            let (Some(first), Some(last)) = (parts.first(), parts.last()) else { continue };
            let free = free_from.iter().position(|from| *from <= first.along.start);
            let row = free.unwrap_or(free_from.len());
            free_from.resize(free_from.len().max(row + 1), 0);
            free_from[row] = last.along.end;
            let y = self.y + row as f64 * ROW;
            parts.iter().for_each(|part| self.bar(part, y..y + ROW - 2.0));
        }
        self.y += free_from.len().max(1) as f64 * ROW + GAP;
    }

    fn finish(self) -> String {
        let (width, height) = (LEFT + WIDTH + 8.0, self.y);
        format!("<svg viewBox=\"0 0 {width:.0} {height:.0}\">\n{}</svg>", self.svg)
    }
}

fn along_time(story: &Story, size: u64) -> String {
    let mut drawing = Drawing::new(story.ends);
    let pauses = story.pauses.iter().map(|times| {
        vec![Bar::new("pause", times.clone(), format!("paused for {}", micros(times)))]
    });
    drawing.lane("paused", pauses);
    let sealed = story.spans.iter().filter(|span| !span.is_copy).map(|span| {
        let took = micros(&span.times);
        let tells = format!("span {}: blocks {:?}, sealed in {took}", span.id, span.blocks);
        vec![Bar::new("seal", span.times.clone(), tells)]
    });
    drawing.lane("crypto pool", sealed);
    for (name, subrequests) in NAMES.into_iter().zip(&story.streams) {
        let bars = subrequests.iter().map(|subrequest| {
            let Subrequest { queued, sent, .. } = subrequest;
            vec![
                Bar::new("queued", queued.clone(), tell(subrequest)),
                Bar::new(class(subrequest), sent.clone(), tell(subrequest)),
            ]
        });
        drawing.lane(name, bars);
    }
    folios_under_writeback(&mut drawing, story, size);
    scale(&mut drawing, |at| format!("{:.1} ms", at as f64 / 1000.0));
    drawing.finish()
}

/// Each folio where it is in the file, from when it was taken until it was released.
fn folios_under_writeback(drawing: &mut Drawing, story: &Story, size: u64) {
    drawing.name("folios");
    let n_folios = size.div_ceil(FOLIO_BYTES) as f64;
    let height = FILE_HEIGHT / n_folios;
    for folio in &story.folios {
        let class = if folio.is_clean { "clean" } else { "failed" };
        let end = if folio.is_clean { "clean" } else { "dirty again" };
        let tells = format!("folio {}: {end} after {}", folio.number, micros(&folio.times));
        let y = drawing.y + folio.number as f64 * height;
        drawing.bar(&Bar::new(class, folio.times.clone(), tells), y..y + height * 0.85);
    }
    drawing.y += FILE_HEIGHT + GAP;
}

fn along_file(story: &Story, size: u64) -> String {
    let mut drawing = Drawing::new(size);
    let positions =
        |blocks: &Range<u64>| blocks.start * BLOCK_BYTES..(blocks.end * BLOCK_BYTES).min(size);
    let mut folios: Vec<_> = story.folios.iter().map(|folio| folio.number).collect();
    folios.sort_unstable();
    folios.dedup();
    let bars = folios.into_iter().map(|folio| {
        let along = folio * FOLIO_BYTES..((folio + 1) * FOLIO_BYTES).min(size);
        vec![Bar::new("clean", along, format!("folio {folio}"))]
    });
    drawing.lane("folios", bars);
    let mut spans: Vec<_> = story.spans.iter().collect();
    spans.sort_by_key(|span| span.blocks.start);
    let bars = spans.into_iter().map(|span| {
        let class = if span.is_copy { "copy" } else { "seal" };
        let tells = format!("span {}: blocks {:?}", span.id, span.blocks);
        vec![Bar::new(class, positions(&span.blocks), tells)]
    });
    drawing.lane("spans", bars);
    for (name, subrequests) in NAMES.into_iter().zip(&story.streams) {
        let mut sorted: Vec<_> = subrequests.iter().collect();
        sorted.sort_by_key(|subrequest| subrequest.runs.first().map(|run| run.start));
        let bars = sorted.into_iter().map(|subrequest| {
            let bar = |run| Bar::new(class(subrequest), positions(run), tell(subrequest));
            subrequest.runs.iter().map(bar).collect()
        });
        drawing.lane(name, bars);
    }
    scale(&mut drawing, |at| Size(at).to_string());
    drawing.finish()
}

/// Marks at the bottom.
fn scale(drawing: &mut Drawing, label: impl Fn(u64) -> String) {
    const N_MARKS: u64 = 8;
    for mark in 0..=N_MARKS {
        let at = drawing.along * mark / N_MARKS;
        let (x, y) = (drawing.x(at), drawing.y + ROW);
        let anchor = if mark == N_MARKS { "end" } else { "middle" };
        let _ = writeln!(
            drawing.svg,
            "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"0\" y2=\"{:.1}\"/>\
             <text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>",
            drawing.y,
            label(at),
        );
    }
    drawing.y += ROW + GAP;
}

fn class(subrequest: &Subrequest) -> &'static str {
    match (&subrequest.outcome, subrequest.attempts) {
        (Err(_), _) => "failed",
        (Ok(_), 0) => "sent",
        (Ok(_), _) => "again",
    }
}

fn tell(subrequest: &Subrequest) -> String {
    let Subrequest { id, attempts, runs, queued, sent, outcome } = subrequest;
    let ended = match outcome {
        Ok(bytes) => format!("{bytes} bytes went through"),
        Err(error) => escape(error),
    };
    format!(
        "subrequest {id}, attempt {}: blocks {runs:?}, queued for {}, answered after {}: {ended}",
        attempts + 1,
        micros(queued),
        micros(sent),
    )
}

fn micros(times: &Times) -> String {
    format!("{} µs", times.end.saturating_sub(times.start))
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

const NAMES: [&str; 2] = ["upload", "cache"];
/// Of what is drawn, without the names on its left.
const WIDTH: f64 = 1300.0;
const LEFT: f64 = 90.0;
const ROW: f64 = 11.0;
const GAP: f64 = 12.0;
const FILE_HEIGHT: f64 = 260.0;
const STYLE: &str = "body{font:13px system-ui,sans-serif;margin:16px;color:#222;background:#fff}\
    h1{font-size:17px}h2{font-size:14px;margin:18px 0 4px}svg{width:100%;height:auto}\
    text{font-size:9px;fill:#444}line{stroke:#8883;stroke-width:.5}\
    .pause{fill:#c62828}.seal{fill:#6a4fb3}.copy{fill:#bdb2e0}.queued{fill:#d9d9d9}\
    .sent{fill:#2e7d32}.again{fill:#f9a825}.failed{fill:#c62828}.clean{fill:#5b8fc9}\
    span{padding:0 6px;margin-right:4px;border-radius:3px}";
const LEGEND: &str = "<p><span style=\"background:#5b8fc9\"></span>folio under writeback, until it is \
    clean &ensp;<span style=\"background:#6a4fb3\"></span>sealed &ensp;<span \
    style=\"background:#bdb2e0\"></span>the server's own bytes, for the cache &ensp;<span \
    style=\"background:#d9d9d9\"></span>in its stream's queue &ensp;<span \
    style=\"background:#2e7d32\"></span>with its target &ensp;<span \
    style=\"background:#f9a825\"></span>cut anew and sent again &ensp;<span \
    style=\"background:#c62828\"></span>failed, or the request paused. Point at anything.</p>";

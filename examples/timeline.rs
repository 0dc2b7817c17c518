//! Runs a writeback and draws what happened in it: one page, with nothing loaded from anywhere.
//!
//! The folios, the crypto pool and both streams' subrequests, once along time and once along the file.
//! The targets are in memory, and are slow and fail now and then, from a seed: so the queues stall, the
//! request pauses, and what failed is cut anew.
//!
//! ```sh
//! cargo run --release --example timeline -- --out timeline.html
//! ```
#![forbid(unsafe_code)]

#[path = "timeline/page.rs"]
mod page;
#[path = "timeline/scene.rs"]
mod scene;
#[path = "timeline/story.rs"]
mod story;

use std::{error, fs, path::PathBuf, process::ExitCode};

use clap::Parser;
use sealback_examples::parse_size;

/// Draws a writeback as it happened.
#[derive(Debug, Parser)]
struct Args {
    /// The page's file.
    #[arg(long, value_name = "FILE", default_value = "timeline.html")]
    out: PathBuf,
    /// The file's size.
    #[arg(long, value_name = "BYTES", value_parser = parse_size, default_value = "12MiB")]
    size: u64,
    /// Which parts are written, and what fails.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn run(args: &Args) -> Result<(), Box<dyn error::Error>> {
    if !(1 << 20..=256 << 20).contains(&args.size) {
        return Err("a picture has room for 1MiB to 256MiB".into());
    }
    let events = scene::play(args.size, args.seed)?;
    let story = story::Story::of(&events);
    fs::write(&args.out, page::page(&story, args))?;
    println!(
        "{}: {} events, {} spans, {} subrequests, {} pauses",
        args.out.display(),
        events.len(),
        story.spans.len(),
        story.streams.iter().map(Vec::len).sum::<usize>(),
        story.pauses.len(),
    );
    Ok(())
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("timeline: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_shows_every_subrequest_of_a_writeback_that_failed_on_the_way_and_loads_nothing() {
        let args = Args { out: PathBuf::new(), size: 4 << 20, seed: 3 };
        let events = scene::play(args.size, args.seed).unwrap();
        let story = story::Story::of(&events);
        let page = page::page(&story, &args);
        assert!(!story.streams.iter().any(Vec::is_empty), "both streams have something to do");
        for subrequest in story.streams.iter().flatten() {
            assert!(subrequest.sent.end >= subrequest.sent.start, "{subrequest:?}");
            let told = format!("subrequest {}, attempt {}", subrequest.id, subrequest.attempts + 1);
            // Along time, and along the file.
            assert!(page.matches(&told).count() >= 2, "{told}");
        }
        assert_eq!(page.matches("<svg").count(), 2);
        assert!(!page.contains("http") && !page.contains("src="), "nothing is loaded");
    }
}

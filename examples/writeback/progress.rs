//! A progress bar, for whoever sits at a terminal.

use std::{
    io::{self, IsTerminal},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{self, RecvTimeoutError, Sender},
    },
    thread,
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};
use sealback::{
    Engine, File,
    crypto::Geometry,
    trace::{Observer, TraceEvent},
};

/// Shows how far it is; shows nothing unless standard output and standard error are terminals.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    watching: Option<Watching>,
}

impl Progress {
    /// Begins at 0 of `total` bytes, if it is known how many there are.
    pub(crate) fn start(total: Option<u64>) -> Progress {
        if !io::stdout().is_terminal() {
            return Progress::hidden();
        }
        let (bar, template) = match total {
            Some(total) => (ProgressBar::new(total), BAR),
            None => (ProgressBar::no_length(), COUNTER),
        };
        // A template that does not parse leaves the default one.
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        Progress { bar: Some(bar), watching: None }
    }

    /// The same for what an engine is about to write: shows by itself how much of it the server has
    /// acknowledged.
    pub(crate) fn of_writing(engine: &Engine, total: Option<u64>, block_bytes: u64) -> Progress {
        let mut progress = Progress::start(total);
        progress.watching = progress.bar.clone().map(|bar| {
            let acknowledged = Arc::new(Acknowledged::default());
            engine.observe(Some(acknowledged.clone()));
            let watched = Some(engine.clone());
            Watching::begin(bar, watched, move || acknowledged.plaintext_bytes(block_bytes))
        });
        progress
    }

    /// The same for what is uploaded of a file that is written behind.
    pub(crate) fn of_uploading(file: &File, total: u64) -> Progress {
        let mut progress = Progress::start(Some(total));
        let file = file.reopen();
        progress.watching = progress
            .bar
            .clone()
            .map(|bar| Watching::begin(bar, None, move || file.uploaded().bytes));
        progress
    }

    /// Shows nothing.
    pub(crate) fn hidden() -> Progress {
        Progress { bar: None, watching: None }
    }

    pub(crate) fn set(&self, bytes: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(bytes);
        }
    }
}

/// The line of the bar is free again, whatever happened.
impl Drop for Progress {
    fn drop(&mut self) {
        drop(self.watching.take());
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// A thread that shows how far something is, until this is dropped.
struct Watching {
    /// An engine that tells of it.
    engine: Option<Engine>,
    /// Dropped, it ends the thread.
    end: Option<Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Watching {
    fn begin(
        bar: ProgressBar,
        engine: Option<Engine>,
        so_far: impl Fn() -> u64 + Send + 'static,
    ) -> Watching {
        let (end, ended) = mpsc::channel();
        let thread = thread::spawn(move || {
            while ended.recv_timeout(SHOWN_EVERY) == Err(RecvTimeoutError::Timeout) {
                let bytes = so_far();
                bar.set_position(bar.length().map_or(bytes, |total| bytes.min(total)));
            }
        });
        Watching { engine, end: Some(end), thread: Some(thread) }
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        if let Some(engine) = &self.engine {
            engine.observe(None);
        }
        drop(self.end.take());
        // A panic in it has been told of, and shows nothing more.
        let _ = self.thread.take().map(thread::JoinHandle::join);
    }
}

/// Counts what the server has acknowledged.
#[derive(Default)]
struct Acknowledged {
    stored_bytes: AtomicU64,
}

impl Acknowledged {
    fn plaintext_bytes(&self, block_bytes: u64) -> u64 {
        let stored = self.stored_bytes.load(Ordering::Relaxed);
        let stride =
            Geometry::new(block_bytes).map_or(block_bytes, |geometry| geometry.stride_bytes());
        stored / stride * block_bytes + stored % stride
    }
}

impl Observer for Acknowledged {
    fn event(&self, _at: Duration, _request: u64, event: &TraceEvent) {
        if let TraceEvent::Terminated { stream: 0, outcome: Ok(bytes), .. } = event {
            self.stored_bytes.fetch_add(*bytes, Ordering::Relaxed);
        }
    }
}

const SHOWN_EVERY: Duration = Duration::from_millis(100);
const BAR: &str = "[{bar:40}] {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left";
const COUNTER: &str = "{spinner} {bytes}, {bytes_per_sec}, {elapsed}";

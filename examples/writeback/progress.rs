//! A progress bar, for whoever sits at a terminal.

use std::io::{self, IsTerminal};

use indicatif::{ProgressBar, ProgressStyle};

/// Shows how far it is; shows nothing unless standard output and standard error are terminals.
pub(crate) struct Progress(Option<ProgressBar>);

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
        Progress(Some(bar))
    }

    /// Shows nothing.
    pub(crate) fn hidden() -> Progress {
        Progress(None)
    }

    pub(crate) fn set(&self, bytes: u64) {
        if let Some(bar) = &self.0 {
            bar.set_position(bytes);
        }
    }
}

/// The line of the bar is free again, whatever happened.
impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

const BAR: &str = "[{bar:40}] {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left";
const COUNTER: &str = "{spinner} {bytes}, {bytes_per_sec}, {elapsed}";

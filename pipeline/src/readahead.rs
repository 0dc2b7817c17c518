//! Reads ahead of a handle that reads one byte after the other, into the page cache.
//!
//! The window begins small and doubles as long as reads follow one another; a read elsewhere closes it,
//! so that random reads fetch what they ask for and nothing else. The next stretch is asked for when
//! half of the window has been read. What is read ahead are folios like all others: there is one copy,
//! and it is as fresh as they are.

use std::ops::Range;

use crate::{config::READ_UNIT_BYTES, open_file::OpenFile, sync::Arc};

const UNIT: u64 = READ_UNIT_BYTES as u64;
const FIRST_WINDOW: u64 = 128 << 10;

/// One handle's reading ahead.
#[derive(Debug, Default)]
pub(crate) struct Readahead {
    /// Where the last read ended: one that begins there is sequential.
    next: u64,
    /// How far ahead the next stretch reaches; 0 if reads do not follow one another.
    window: u64,
    /// All before this has been asked for.
    asked_to: u64,
}

impl Readahead {
    /// Notes a read, and returns what is to be fetched ahead of it, at most `most` bytes.
    pub(crate) fn note(&mut self, read: &Range<u64>, most: u64, size: u64) -> Range<u64> {
        let sequential = read.start == self.next;
        self.next = read.end;
        if !sequential || most == 0 {
            (self.window, self.asked_to) = (0, 0);
            return read.end..read.end;
        }
        let ahead = self.asked_to.saturating_sub(read.end);
        if self.window > 0 && ahead > self.window / 2 {
            return read.end..read.end;
        }
        let least = FIRST_WINDOW.max((read.end - read.start).saturating_mul(2));
        self.window = self.window.saturating_mul(2).max(least).min(most);
        let from = self.asked_to.max(read.end);
        self.asked_to = read.end.saturating_add(self.window).min(size).max(from);
        from..self.asked_to
    }
}

impl OpenFile {
    /// Has a range fetched on other threads, a unit at a time.
    pub(crate) fn read_ahead(self: &Arc<Self>, range: Range<u64>) {
        let mut start = range.start;
        while start < range.end {
            let end = range.end.min((start / UNIT + 1) * UNIT);
            let unit = start..end;
            start = end;
            // A file that is closed meanwhile is not kept open by what nobody will read.
            let weak = Arc::downgrade(self);
            self.core.io.read_ahead(move || {
                if let Some(file) = weak.upgrade() {
                    file.fill_ahead(&unit);
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: u64 = 1 << 30;
    const MOST: u64 = 4 << 20;

    #[test]
    fn the_window_doubles_as_long_as_reads_follow_one_another() {
        let (mut readahead, mut ahead, mut asked) = (Readahead::default(), Vec::new(), 0);
        for at in (0..64 << 20).step_by(64 << 10) {
            let range = readahead.note(&(at..at + (64 << 10)), MOST, SIZE);
            if !range.is_empty() {
                assert_eq!(
                    range.start,
                    asked.max(at + (64 << 10)),
                    "nothing twice, nothing left out"
                );
                asked = range.end;
                ahead.push((asked - at - (64 << 10)) >> 10);
            }
        }
        assert_eq!(ahead[..7], [128, 256, 512, 1024, 2048, 4096, 4096]);
    }

    #[test]
    fn random_reads_ask_for_nothing_ahead() {
        let mut readahead = Readahead::default();
        for at in [700, 3, 900, 20, 100_000, 5] {
            let at = at * 4096;
            assert!(readahead.note(&(at..at + 4096), MOST, SIZE).is_empty());
        }
    }

    #[test]
    fn nothing_is_asked_for_behind_the_end_or_with_no_window_allowed() {
        let mut readahead = Readahead::default();
        assert_eq!(readahead.note(&(0..4096), MOST, 10_000), 4096..10_000);
        assert!(readahead.note(&(4096..8192), MOST, 10_000).is_empty());
        assert!(Readahead::default().note(&(0..4096), 0, SIZE).is_empty());
    }
}

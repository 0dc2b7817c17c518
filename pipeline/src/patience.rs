//! How long a stream that may fail is waited for: one that answers nothing is switched off.

use std::time::Duration;

/// Watches one stream's answers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    limit: Duration,
    /// When it last answered, or was asked with nothing else outstanding.
    last: Duration,
    /// A wake-up is coming at this time.
    wakes_at: Option<Duration>,
}

/// What to do about it now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Nothing.
    On,
    /// Look again at this time.
    Until(Duration),
    /// Wait no longer.
    Over,
}

impl Patience {
    pub(crate) fn new(limit: Duration) -> Patience {
        Patience { limit, last: Duration::ZERO, wakes_at: None }
    }

    /// It has answered, or has been asked anew.
    pub(crate) fn heard(&mut self, now: Duration) {
        self.last = now;
    }

    /// To be asked while something is outstanding.
    pub(crate) fn look(&mut self, now: Duration) -> Wait {
        if self.limit == Duration::MAX {
            return Wait::On;
        }
        let until = self.last.saturating_add(self.limit);
        if now >= until {
            return Wait::Over;
        }
        if self.wakes_at.is_some_and(|wakes_at| now < wakes_at) {
            return Wait::On;
        }
        self.wakes_at = Some(until);
        Wait::Until(until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_ends_so_long_after_the_last_answer_and_asks_for_one_wake_up_at_a_time() {
        let seconds = Duration::from_secs;
        let mut patience = Patience::new(seconds(10));
        patience.heard(seconds(1));
        assert_eq!(patience.look(seconds(1)), Wait::Until(seconds(11)));
        patience.heard(seconds(5));
        assert_eq!(patience.look(seconds(6)), Wait::On);
        assert_eq!(patience.look(seconds(11)), Wait::Until(seconds(15)));
        assert_eq!(patience.look(seconds(15)), Wait::Over);
    }
}

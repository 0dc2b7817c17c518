//! Nothing goes on for ever: a schedule has an end, and so has each step of it.

/// Far more than any schedule takes.
const MAX_STEPS: u32 = 10_000;
/// Far more than a request asks for, or tells of, in one step.
const MAX_ASKED: u32 = 1_000;

/// Counts what a schedule does.
#[derive(Debug, Default)]
pub(crate) struct Bound {
    steps: u32,
    asked: u32,
}

impl Bound {
    /// # Panics
    /// If there is no end.
    pub(crate) fn step(&mut self) {
        (self.steps, self.asked) = (self.steps + 1, 0);
        assert!(self.steps < MAX_STEPS, "it comes to no end");
    }

    /// The request has asked for something, or told of something.
    ///
    /// # Panics
    /// If it does so for ever.
    pub(crate) fn asked(&mut self) {
        self.asked += 1;
        assert!(self.asked < MAX_ASKED, "the request goes on for ever, and gets nowhere");
    }
}

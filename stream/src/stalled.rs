//! Prepared subrequests, in order, waiting for their ciphertext and for room in the window.
//!
//! Two lanes: what is sent again goes before what was never sent. Only the head may leave, so
//! first issues ascend through the file whatever order sealing completes in, and so do retries
//! among themselves.

use std::collections::VecDeque;

use crate::{Runs, Subrequest};

/// The ordered queue between preparing a subrequest and issuing it.
#[derive(Debug, Default)]
pub struct StalledQueue {
    again: VecDeque<Subrequest>,
    fresh: VecDeque<Subrequest>,
}

impl StalledQueue {
    /// An empty queue.
    pub fn new() -> StalledQueue {
        StalledQueue::default()
    }

    /// Adds a subrequest that was never issued, behind the others.
    ///
    /// # Panics
    /// If it begins before the last one's end.
    pub fn push(&mut self, subrequest: Subrequest) {
        push_ascending(&mut self.fresh, subrequest);
    }

    /// Adds a subrequest that is issued again, behind the others that are.
    ///
    /// # Panics
    /// If it begins before the last one's end.
    pub fn push_again(&mut self, subrequest: Subrequest) {
        push_ascending(&mut self.again, subrequest);
    }

    /// The subrequest that is to leave next.
    pub fn head(&self) -> Option<&Subrequest> {
        self.again.front().or_else(|| self.fresh.front())
    }

    /// Takes the head out if it is ready: `ready` is given its blocks, and answers what the
    /// caller wants to know of them if every one is sealed.
    pub fn pop_ready<T>(
        &mut self,
        ready: impl FnOnce(&Runs) -> Option<T>,
    ) -> Option<(Subrequest, T)> {
        let answer = ready(&self.head()?.blocks)?;
        let subrequest = self.again.pop_front().or_else(|| self.fresh.pop_front())?;
        Some((subrequest, answer))
    }

    /// The first block that is waiting.
    pub fn start(&self) -> Option<u64> {
        let starts = [self.again.front(), self.fresh.front()];
        starts.into_iter().flatten().map(|subrequest| subrequest.blocks.start()).min()
    }

    /// Whether a subrequest waits to be issued again.
    pub fn has_again(&self) -> bool {
        !self.again.is_empty()
    }

    /// Takes out all that wait to be issued again; their credits go back when they are dropped.
    pub fn drain_again(&mut self) -> impl Iterator<Item = Subrequest> {
        self.again.drain(..)
    }

    /// How many subrequests wait.
    pub fn len(&self) -> usize {
        self.again.len() + self.fresh.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Drops all of them; their credits go back.
    pub fn clear(&mut self) {
        self.again.clear();
        self.fresh.clear();
    }
}

fn push_ascending(lane: &mut VecDeque<Subrequest>, subrequest: Subrequest) {
    if let Some(last) = lane.back() {
        assert!(
            last.blocks.end() <= subrequest.blocks.start(),
            "subrequest {:?} queued behind {:?}",
            subrequest.blocks,
            last.blocks
        );
    }
    lane.push_back(subrequest);
}

#[cfg(test)]
mod tests {
    use std::{ops::Range, time::Duration};

    use super::*;
    use crate::Credit;

    fn subrequest(id: u64, blocks: Range<u64>) -> Subrequest {
        let (blocks, prepared_at) = (Runs::one(blocks), Duration::ZERO);
        Subrequest { id, blocks, boundary: None, attempts: 0, prepared_at, credit: Credit::none() }
    }

    #[test]
    fn only_the_head_leaves_and_only_when_it_is_sealed() {
        let mut queue = StalledQueue::new();
        queue.push(subrequest(1, 0..4));
        queue.push(subrequest(2, 4..8));
        let sealed = |sealed: Range<u64>| {
            move |blocks: &Runs| {
                (sealed.start <= blocks.start() && blocks.end() <= sealed.end).then_some(())
            }
        };
        assert!(queue.pop_ready(sealed(4..8)).is_none(), "the second is sealed, not the head");
        assert_eq!(queue.pop_ready(sealed(0..8)).unwrap().0.id, 1);
        assert_eq!(queue.pop_ready(sealed(0..8)).unwrap().0.id, 2);
        assert!(queue.is_empty());
    }

    #[test]
    fn what_is_sent_again_goes_before_what_was_never_sent() {
        let mut queue = StalledQueue::new();
        queue.push(subrequest(1, 8..9));
        queue.push_again(subrequest(2, 2..3));
        queue.push_again(subrequest(3, 5..6));
        assert_eq!(queue.start(), Some(2));
        let order: Vec<_> =
            std::iter::from_fn(|| queue.pop_ready(|_| Some(())).map(|(sub, ())| sub.id)).collect();
        assert_eq!(order, [2, 3, 1]);
    }
}

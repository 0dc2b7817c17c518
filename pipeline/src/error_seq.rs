//! The errors of a file's writebacks, until every handle has told of them: after the kernel's `errseq_t`.
//!
//! Of failures the last counts: what they were about is still dirty, or was told of before, and is tried
//! again. What is gone for good is told of whatever else has failed since.

use std::collections::BTreeMap;

use sealback_stream::BlockConflict;

use crate::Error;

/// Errors, numbered from 1: each handle tells each once.
#[derive(Debug, Default)]
pub(crate) struct ErrorSeq {
    number: u64,
    /// Boxed: most files have none.
    last: Option<Box<Error>>,
    losses: Option<Box<Losses>>,
}

/// What is told.
#[derive(Clone, Debug)]
pub(crate) enum Told {
    /// Something is gone for good.
    Gone(Error),
    /// Something failed, and is tried again.
    Failed(Error),
}

impl Told {
    pub(crate) fn error(self) -> Error {
        let (Told::Gone(error) | Told::Failed(error)) = self;
        error
    }
}

#[derive(Debug, Default)]
struct Losses {
    /// Blocks that somebody else has changed, and the numbers of the errors that said so last.
    blocks: BTreeMap<u64, (u64, BlockConflict)>,
    /// The last cut, and the number of the error that told of it.
    cut: Option<(u64, u64)>,
}

impl ErrorSeq {
    /// The number of the last one.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Something failed that is tried again.
    pub(crate) fn failed(&mut self, error: &Error) {
        self.number += 1;
        self.last = Some(Box::new(error.clone()));
    }

    /// Blocks that were sent and not committed are gone.
    pub(crate) fn blocks_gone(&mut self, blocks: &[BlockConflict]) {
        self.number += 1;
        let numbered = blocks.iter().map(|one| (one.block, (self.number, *one)));
        self.losses.get_or_insert_default().blocks.extend(numbered);
    }

    /// What was sent and not committed is gone with a cut to that size.
    pub(crate) fn cut_off(&mut self, size: u64) {
        self.number += 1;
        self.losses.get_or_insert_default().cut = Some((self.number, size));
    }

    /// What somebody is to be told of who has heard of all before the number `heard`, included; notes
    /// that he has heard of that.
    pub(crate) fn since(&self, heard: &mut u64) -> Option<Told> {
        let losses = self.losses.as_ref().filter(|_| *heard < self.number);
        let loss = losses.and_then(|losses| losses.since(heard, self.number));
        loss.map(Told::Gone).or_else(|| {
            let news = std::mem::replace(heard, self.number) < self.number;
            self.last.as_deref().filter(|_| news).cloned().map(Told::Failed)
        })
    }
}

impl Losses {
    /// The same of what is gone, in the order of the numbers up to `number`, included.
    fn since(&self, heard: &mut u64, number: u64) -> Option<Error> {
        let cut = self.cut.filter(|(number, _)| number > heard);
        let to = cut.map_or(number, |(number, _)| number - 1);
        let news = self.blocks.values().filter(|(number, _)| (*heard + 1..=to).contains(number));
        let blocks: Vec<_> = news.map(|(_, conflict)| *conflict).collect();
        if !blocks.is_empty() {
            *heard = to;
            return Some(Error::Conflict { blocks });
        }
        let (number, size) = cut?;
        *heard = number;
        Some(Error::Cut { size })
    }
}

#[cfg(test)]
mod tests {
    use sealback_stream::{TargetError, TargetErrorKind};

    use super::*;

    fn failed() -> Error {
        Error::server(TargetError::new(TargetErrorKind::TimedOut, "no answer"))
    }

    fn gone(blocks: &[u64]) -> Error {
        let conflict = |block: &u64| BlockConflict { block: *block, stored: None };
        Error::Conflict { blocks: blocks.iter().map(conflict).collect() }
    }

    fn lose(errors: &mut ErrorSeq, blocks: &[u64]) {
        let Error::Conflict { blocks } = gone(blocks) else { unreachable!("made just so") };
        errors.blocks_gone(&blocks);
    }

    fn told(errors: &ErrorSeq, heard: &mut u64) -> Vec<String> {
        let all = std::iter::from_fn(|| errors.since(heard));
        all.map(|told| format!("{:?}", told.error())).collect()
    }

    #[test]
    fn of_errors_that_go_away_the_last_is_told_and_of_what_is_gone_everything() {
        let (mut errors, mut heard) = (ErrorSeq::default(), 0);
        errors.failed(&failed());
        lose(&mut errors, &[3, 4]);
        errors.failed(&failed());
        lose(&mut errors, &[4, 9]);
        errors.failed(&failed());
        assert_eq!(told(&errors, &mut heard), [format!("{:?}", gone(&[3, 4, 9]))]);
        errors.failed(&failed());
        assert_eq!(told(&errors, &mut heard), [format!("{:?}", failed())]);
        // Who opens the file now hears of nothing that was before.
        assert_eq!((heard, told(&errors, &mut errors.number()).len()), (6, 0));
    }

    #[test]
    fn what_is_gone_before_a_cut_is_told_before_it_and_what_is_gone_after_it_then() {
        let (mut errors, mut heard) = (ErrorSeq::default(), 0);
        lose(&mut errors, &[7]);
        errors.cut_off(5000);
        lose(&mut errors, &[8]);
        errors.failed(&failed());
        let all = [gone(&[7]), Error::Cut { size: 5000 }, gone(&[8])];
        let expected = all.map(|error| format!("{error:?}"));
        assert_eq!(told(&errors, &mut heard), expected);
    }
}

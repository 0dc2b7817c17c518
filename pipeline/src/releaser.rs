//! Folios under writeback, in file order; each leaves exactly once, when the streams have passed it.

use std::collections::VecDeque;

use crate::source::FolioEnd;

#[derive(Debug, Default)]
pub(crate) struct Releaser {
    folios: VecDeque<FolioEnd>,
}

impl Releaser {
    /// Adds a folio behind the others.
    ///
    /// # Panics
    /// If it ends before the last one's end.
    pub(crate) fn push(&mut self, folio: FolioEnd) {
        assert!(
            self.folios.back().is_none_or(|last| last.end <= folio.end),
            "folio {folio:?} out of order"
        );
        self.folios.push_back(folio);
    }

    /// Takes out the first folio if it ends at or before `collected_to`.
    pub(crate) fn pop_passed(&mut self, collected_to: u64) -> Option<u64> {
        if self.folios.front()?.end > collected_to {
            return None;
        }
        self.folios.pop_front().map(|end| end.folio)
    }

    /// Takes out the first folio.
    pub(crate) fn pop(&mut self) -> Option<u64> {
        self.folios.pop_front().map(|end| end.folio)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.folios.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folio_leaves_when_its_end_is_passed_and_not_before() {
        let mut releaser = Releaser::default();
        assert!(releaser.is_empty());
        releaser.push(FolioEnd { folio: 7, end: 2 });
        releaser.push(FolioEnd { folio: 8, end: 2 });
        assert_eq!(releaser.pop_passed(1), None);
        assert_eq!(releaser.pop_passed(2), Some(7));
        assert!(!releaser.is_empty());
        assert_eq!(releaser.pop(), Some(8));
        assert!(releaser.is_empty());
    }
}

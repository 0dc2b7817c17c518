//! Where opened blocks go: slices one after the other, whose borders need not be those of blocks.

use std::{mem, vec};

use crate::plaintext::Plaintext;

/// The slices, taken off block by block.
pub(super) struct Places<'a> {
    /// What is left of the slice at the front.
    front: &'a mut [u8],
    rest: vec::IntoIter<&'a mut [u8]>,
    /// Bytes in all that are left.
    left: usize,
    /// Empty until a block crosses slices.
    scratch: Plaintext,
    block_len_max: usize,
}

impl<'a> Places<'a> {
    pub(super) fn new(plain: Vec<&'a mut [u8]>, block_len_max: usize) -> Places<'a> {
        Places {
            left: plain.iter().map(|slice| slice.len()).sum(),
            front: &mut [],
            rest: plain.into_iter(),
            scratch: Plaintext::default(),
            block_len_max,
        }
    }

    pub(super) fn left(&self) -> usize {
        self.left
    }

    /// Has `fill` fill the next block's bytes, of which there are some: where they are to lie, if that
    /// is in one slice, else elsewhere, and distributes them.
    pub(super) fn next<T>(&mut self, fill: impl FnOnce(&mut [u8]) -> T) -> T {
        let len = self.left.min(self.block_len_max);
        while self.front.is_empty() {
            self.front = self.rest.next().expect("some are left");
        }
        self.left -= len;
        if self.front.len() >= len {
            let (piece, behind) = mem::take(&mut self.front).split_at_mut(len);
            self.front = behind;
            return fill(piece);
        }
        // Never grown afterwards: a reallocation would leave an unwiped copy behind.
        if self.scratch.is_empty() {
            self.scratch = Plaintext::zeros(self.block_len_max);
        }
        let filled = fill(&mut self.scratch[..len]);
        let mut at = 0;
        while at < len {
            while self.front.is_empty() {
                self.front = self.rest.next().expect("so many are left");
            }
            let part = self.front.len().min(len - at);
            let (piece, behind) = mem::take(&mut self.front).split_at_mut(part);
            piece.copy_from_slice(&self.scratch[at..at + part]);
            self.front = behind;
            at += part;
        }
        filled
    }
}

//! What else decides what a pass takes: write groups, a filter, and how far a writethrough has come.

use std::ops::Range;

use super::{Life, UnderWay, index};
use crate::simulator::BLOCK;

impl Life {
    /// What is dirtied from now on belongs to another group.
    pub(super) fn close_group(&mut self) {
        if self.direct.is_some() {
            return;
        }
        let group = self.pages.close_group();
        self.note(format!("close group {group}"));
        self.closed.push((group, self.model.clone()));
        if self.request.is_none() {
            self.look_at_groups();
        }
    }

    /// Of each group that has ended the server has all, and nothing of a newer one.
    pub(super) fn look_at_groups(&mut self) {
        let oldest = self.pages.oldest_group();
        let (ended, closed) =
            std::mem::take(&mut self.closed).into_iter().partition(|(group, _)| *group < oldest);
        self.closed = closed;
        let ended: Vec<(u64, Vec<u8>)> = ended;
        if let Some((group, was)) = ended.last() {
            self.lived.groups += ended.len() as u64;
            let is = self.on_the_server(was.len());
            let differs = is.iter().zip(was).position(|(a, b)| a != b);
            assert!(differs.is_none(), "group {group} is not as it was, at {differs:?}");
        }
    }

    /// So many bytes of the file, as the server has them.
    fn on_the_server(&self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        for (block, stored) in self.server.range(..self.geometry.n_blocks(len as u64)) {
            let plain = self.open_one(*block, &stored.bytes);
            let start = index(block * BLOCK);
            let end = len.min(start + plain.len());
            bytes[start..end].copy_from_slice(&plain[..end - start]);
        }
        bytes
    }

    /// Has what is older written back before `range` is written.
    pub(super) fn write_older(&mut self, range: &Range<u64>) {
        while self.pages.is_older_within(range) {
            self.lived.older_first += 1;
            // Whoever writes through gives way.
            self.through = None;
            let faults = std::mem::replace(&mut self.faults, 0);
            self.under_way.push(UnderWay::Wake);
            self.finish_pass();
            if self.pages.is_older_within(range) {
                self.begin_pass();
                self.finish_pass();
            }
            self.faults = faults;
        }
    }

    /// Begins a pass that passes over some of what is dirty.
    pub(super) fn begin_filtered(&mut self) {
        self.begin_pass();
        self.filtered = true;
    }

    /// From which block on a filter lets what is dirty through; none, if it stops here.
    pub(super) fn filter(&mut self, from: u64) -> Option<u64> {
        if !self.filtered {
            return Some(from);
        }
        match self.rng.u32(..6) {
            0 => {
                self.lived.passed_over += 1;
                None
            }
            1 => {
                self.lived.passed_over += 1;
                Some(from + self.rng.u64(1..4))
            }
            _ => Some(from),
        }
    }

    /// Begins to write through, with a pass that follows.
    pub(super) fn begin_through(&mut self) {
        let start = self.position();
        let range = start..start + self.rng.usize(1..30_000);
        self.note(format!("write through {range:?}"));
        self.lived.through += 1;
        self.write_older(&(start as u64..range.end as u64));
        self.grow_to(start);
        self.begin_pass();
        self.through = Some(range);
    }

    /// Writes the next piece through.
    pub(super) fn advance_through(&mut self) {
        let Some(left) = self.through.clone() else { return };
        let piece = left.start..(left.start + self.rng.usize(1..6000)).min(left.end);
        let data: Vec<u8> = piece.clone().map(|_| self.rng.u8(..)).collect();
        self.note(format!("write through {piece:?}"));
        self.put(piece.start, &data);
        if let Some(through) = &mut self.through {
            through.start = piece.end;
            self.under_way.push(UnderWay::Wake);
        }
    }
}

//! Write groups: to which one what is dirty belongs, and which have ended.
//!
//! A folio is of the group that was current when it was dirtied, and all folios that lie in one block
//! are of the same: a block is sealed as a whole. Whoever writes to one of an older group has it
//! written back before. So what is dirty of an older group never changes, and goes as it was when the
//! group was closed.

use std::{collections::BTreeMap, ops::Range};

use super::Folios;

/// The groups of a file.
#[derive(Debug, Default)]
pub(super) struct Groups {
    current: u64,
    /// Those that are closed and have not ended, with the file's size when they were closed.
    closed: BTreeMap<u64, u64>,
}

/// What has to be written back before a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Older {
    /// These blocks, which are of the oldest group.
    Blocks(Range<u64>),
    /// All of the oldest group.
    Group,
}

impl Folios {
    /// What is dirtied from now on belongs to another group. Returns the one that is closed.
    pub(crate) fn close_group(&mut self) -> u64 {
        let Groups { current, closed } = &mut self.groups;
        closed.insert(*current, self.size);
        *current += 1;
        *current - 1
    }

    /// The group that what is dirtied now belongs to.
    pub(crate) fn group(&self) -> u64 {
        self.groups.current
    }

    /// The oldest group that has not ended.
    pub(crate) fn oldest_group(&self) -> u64 {
        self.groups.closed.keys().next().copied().unwrap_or(self.groups.current)
    }

    /// Whether all of a group, and of those before it, is on the server.
    pub(crate) fn has_ended(&self, group: u64) -> bool {
        group < self.oldest_group()
    }

    /// The group that a folio belongs to when it becomes dirty: that of its block.
    pub(super) fn group_for(&self, index: u64) -> u64 {
        if self.groups.closed.is_empty() {
            // Nothing is of another.
            return self.groups.current;
        }
        let dirty = self.unclean(self.block_mates(index)).next();
        dirty.map_or(self.groups.current, |(_, folio)| folio.group)
    }

    /// What is dirty of a folio, and of its block, belongs to `group`: it was sent in that one, which
    /// must not end without it. What a newer one has written to the same block goes with it.
    pub(super) fn regroup(&mut self, index: u64, group: u64) {
        let mates = self.block_mates(index);
        self.folios.range_mut(mates).for_each(|(_, folio)| folio.group = group);
    }

    /// What has to be written back before `range` may be written: what shares blocks with it and is of
    /// an older group; all of the oldest group, if others are older than that; and where an older
    /// group has made the file longer and no header says so yet, since nothing but holes may be missing
    /// from what it commits.
    pub(crate) fn older_within(&self, range: &Range<u64>) -> Option<Older> {
        let Groups { current, closed } = &self.groups;
        let (oldest, size) = (self.oldest_group(), closed.values().next_back()?);
        let blocks = self.geometry.blocks_covering(range.clone());
        let is_uncommitted = self.geometry.block_start(blocks.end) > self.committed;
        if self.geometry.block_start(blocks.start) < *size && is_uncommitted {
            return Some(Older::Group);
        }
        let first = self.block_mates(range.start / self.folio_bytes).start;
        let end = self.block_mates((range.end - 1) / self.folio_bytes).end;
        let mut older = self.unclean(first..end).filter(|(_, folio)| folio.group < *current);
        let (_, folio) = older.next()?;
        let positions = first * self.folio_bytes..end * self.folio_bytes;
        let blocks = self.geometry.blocks_covering(positions);
        let is_oldest = folio.group == oldest && older.all(|(_, folio)| folio.group == oldest);
        let is_committed = blocks.end <= self.geometry.n_blocks(self.committed);
        Some(if is_oldest && is_committed { Older::Blocks(blocks) } else { Older::Group })
    }

    /// The newest of the closed groups of which, and of those before, nothing is left. `draft`: no
    /// header has to say so.
    pub(crate) fn newest_done(&self, draft: bool) -> Option<u64> {
        // Most files have none.
        self.groups.closed.first_key_value()?;
        let oldest_left = self.unclean(..).map(|(_, folio)| folio.group).min();
        let is_done = |(group, size): &(&u64, &u64)| {
            oldest_left.is_none_or(|left| **group < left) && (draft || **size <= self.committed)
        };
        self.groups.closed.iter().take_while(is_done).last().map(|(group, _)| *group)
    }

    /// Closed groups that have made the file longer than a header says, with the sizes.
    pub(super) fn groups_grown(&self) -> BTreeMap<u64, u64> {
        let grown = |(_, size): &(&u64, &u64)| **size > self.committed;
        self.groups.closed.iter().filter(grown).map(|(group, size)| (*group, *size)).collect()
    }

    /// They have made it so long again.
    pub(super) fn grow_groups(&mut self, grown: BTreeMap<u64, u64>) {
        self.groups.closed.extend(grown);
    }

    /// A closed group, and all before it, end.
    pub(crate) fn end_groups(&mut self, newest: u64) {
        // An emptied map keeps its memory.
        self.groups.closed = self.groups.closed.split_off(&(newest + 1));
    }

    /// The size that a pass may commit: everything before it is on the server, and no newer group has
    /// made it so.
    pub(crate) fn size_to_commit(&self) -> u64 {
        let closed = self.groups.closed.values().next();
        closed.map_or(self.clean_to(), |size| self.clean_to().min(*size))
    }

    /// The file has become so long: groups have nothing behind that.
    pub(super) fn cut_groups(&mut self, size: u64) {
        self.groups.closed.values_mut().for_each(|closed| *closed = size.min(*closed));
    }
}

//! What the client does to its file, and somebody else to the same.

use std::ops::Range;

use sealback_crypto::{Buffer, FileView, Nonce, Stored as StoredBytes};
use sealback_stream::Expected;

use super::{Copy, LANE, LAST_BLOCK, Life, N_BLOCKS, Stored, index};
use crate::simulator::BLOCK;

impl Life {
    pub(super) fn write(&mut self) {
        let at = self.position();
        let most = [100, 4096, 20_000][self.rng.usize(..3)];
        let len = 1 + self.rng.usize(..most);
        let data: Vec<u8> = (0..len).map(|_| self.rng.u8(..)).collect();
        self.note(format!("write {at}+{len}"));
        self.lived.writes += 1;
        self.lived.writes_meanwhile += u64::from(self.request.is_some());
        self.grow_to(at);
        self.put(at, &data);
    }

    /// A few bytes that are ours.
    pub(super) fn write_in_lane(&mut self) {
        let lanes = self.model.len().div_ceil(LANE * 2);
        let start = self.rng.usize(..lanes) * LANE * 2;
        let end = (start + LANE).min(self.model.len());
        let at = self.rng.usize(start..end);
        let data: Vec<u8> = (at..self.rng.usize(at..end) + 1).map(|_| self.rng.u8(..)).collect();
        self.note(format!("write {at}+{}", data.len()));
        self.lived.writes += 1;
        self.lived.writes_meanwhile += u64::from(self.request.is_some());
        self.put(at, &data);
    }

    /// Somebody else lays a few bytes of his over a block.
    pub(super) fn other_writes(&mut self) {
        let lane = self.rng.usize(..self.model.len()) / LANE * LANE;
        let at = if lane / LANE % 2 == 1 { lane } else { lane + LANE };
        let end = (at + LANE).min(self.model.len());
        let block = self.geometry.block_at(at as u64);
        let Some(stored) = self.server.get(&block).filter(|_| at < end) else { return };
        let start = index(self.geometry.block_start(block));
        let mut plain = self.open_one(block, &stored.bytes.clone());
        for position in at..end {
            plain[position - start] = self.rng.u8(..);
            self.model[position] = plain[position - start];
            for (_, was) in self.closed.iter_mut().filter(|(_, was)| position < was.len()) {
                was[position] = plain[position - start];
            }
        }
        self.seal_anew(block, &plain);
        self.note(format!("somebody else changes block {block} at {at}"));
        self.lived.others += 1;
    }

    /// A block is stored with these bytes, past the request.
    fn seal_anew(&mut self, block: u64, plain: &[u8]) {
        let buffer = Buffer::unpooled(plain.len() + 48);
        let sealed = self.key.seal(block, 2, &[plain], buffer).expect("it fits");
        let bytes = sealed.bytes().to_vec();
        self.server.insert(block, Stored { nonce: sealed.nonce(block), bytes });
    }

    pub(super) fn open_one(&self, block: u64, bytes: &[u8]) -> Vec<u8> {
        let mut buffer = Buffer::unpooled(bytes.len());
        buffer.copy_from_slice(bytes);
        let size = (block + 1) * BLOCK;
        let view = FileView { size, generation: 9, holes: 0..u64::MAX };
        let mut plain = vec![0; bytes.len() - 48];
        let stored = StoredBytes { len: bytes.len(), buffer };
        let opened = self.key.open(&view, block, stored, &mut plain);
        assert!(opened.first_damage().is_none(), "{:?}", opened.first_damage());
        plain
    }

    /// A position that is about the edge of a block now and then.
    pub(super) fn position(&mut self) -> usize {
        let any = self.rng.usize(..usize::try_from(N_BLOCKS * BLOCK).expect("small"));
        let edge = any / 4096 * 4096 + self.rng.usize(..3);
        if self.rng.bool() { any } else { edge.saturating_sub(1) }
    }

    pub(super) fn grow_to(&mut self, at: usize) {
        if self.model.len() >= at {
            return;
        }
        self.pages.grow(at as u64, self.geometry);
        self.model.resize(at, 0);
    }

    pub(super) fn put(&mut self, at: usize, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        let range = at as u64..(at + data.len()) as u64;
        self.write_older(&range);
        for missing in self.pages.to_fill(&range) {
            self.fill(&missing);
        }
        self.pages.put(range.start, data, true);
        self.model.resize(self.model.len().max(at + data.len()), 0);
        self.model[at..at + data.len()].copy_from_slice(data);
    }

    pub(super) fn fill(&mut self, range: &Range<u64>) {
        let blocks = self.geometry.blocks_covering(range.clone());
        let (plain, nonces) = self.open(blocks.clone());
        let start = self.geometry.block_start(blocks.start);
        let slice = &plain[index(range.start - start)..index(range.end - start)];
        self.pages.put(range.start, slice, false);
        for (block, nonce) in blocks.zip(nonces) {
            self.pages.set_stored(block, Expected::of(nonce));
        }
    }

    /// What a pass does before it seals a block that was written in part.
    pub(super) fn fill_block(&mut self, block: u64) {
        let start = self.geometry.block_start(block);
        let end = self.pages.size().min(start + BLOCK);
        if start < end {
            self.fill(&(start..end));
        }
        self.lived.fills += 1;
    }

    pub(super) fn read(&mut self) {
        let at = self.position().min(self.model.len());
        let end = (at + self.rng.usize(..20_000)).min(self.model.len());
        let bytes = self.read_now(at..end);
        assert!(bytes == self.model[at..end], "{at}..{end} reads as something else");
    }

    /// What a reader gets.
    pub(super) fn read_now(&mut self, positions: Range<usize>) -> Vec<u8> {
        let range = positions.start as u64..positions.end as u64;
        let mut bytes = vec![0xAA; positions.len()];
        for missing in self.pages.read(&range, &mut bytes) {
            let blocks = self.geometry.blocks_covering(missing.clone());
            let start = self.geometry.block_start(blocks.start);
            let (plain, _) = self.open(blocks);
            let into = index(missing.start - range.start)..index(missing.end - range.start);
            let from = index(missing.start - start)..index(missing.end - start);
            bytes[into].copy_from_slice(&plain[from]);
        }
        bytes
    }

    pub(super) fn set_len(&mut self) {
        let size = self.position();
        self.note(format!("set_len {} to {size}", self.model.len()));
        if size > self.model.len() {
            return self.grow_to(size);
        }
        self.lived.cuts += 1;
        if self.pages.has_older_groups() {
            self.flush();
        }
        if self.failed {
            // The library knows what it committed; here it is what is known to be stored.
            self.flush();
        }
        self.model.truncate(size);
        self.pages.cut(size as u64);
        let n_blocks = self.geometry.n_blocks(size as u64);
        self.server.split_off(&n_blocks);
        self.forget(n_blocks..LAST_BLOCK);
        self.trim(self.geometry.block_at(size as u64), size as u64);
        // What is stored for a block that was wholly dirty need not be known: a guess may conflict.
        self.failed = true;
        self.flush();
    }

    /// What was cut off does not stay in the last block.
    fn trim(&mut self, block: u64, size: u64) {
        let len = index(size - self.geometry.block_start(block));
        let Some(stored) = self.server.get(&block).filter(|_| len > 0) else { return };
        let plain = self.open_one(block, &stored.bytes);
        if plain.len() > len {
            self.forget(block..block + 1);
            self.seal_anew(block, &plain[..len]);
            self.pages.forget_clean(&(block..block + 1));
        }
    }

    /// Writes everything back, with nothing failing.
    pub(super) fn flush(&mut self) {
        let faults = std::mem::replace(&mut self.faults, 0);
        while self.pages.has_older_groups() {
            self.begin_pass();
            self.finish_pass();
        }
        self.begin_pass();
        self.finish_pass();
        self.faults = faults;
    }

    pub(super) fn punch(&mut self) {
        // As the library does, on what is written back.
        self.flush();
        let n_full = self.geometry.block_at(self.model.len() as u64);
        if n_full == 0 {
            return;
        }
        let start = self.rng.u64(..n_full);
        let blocks = start..(start + self.rng.u64(1..6)).min(n_full);
        self.note(format!("punch {blocks:?}"));
        self.lived.punches += 1;
        self.make_holes(&blocks);
        self.pages.punched(&blocks);
        let positions =
            self.geometry.block_start(blocks.start)..self.geometry.block_start(blocks.end);
        self.model[index(positions.start)..index(positions.end)].fill(0);
    }

    pub(super) fn make_holes(&mut self, blocks: &Range<u64>) {
        self.forget(blocks.clone());
        self.server.retain(|block, _| !blocks.contains(block));
    }

    pub(super) fn lose_cache(&mut self) {
        self.lived.caches_lost += 1;
        self.copy = Copy::default();
    }

    pub(super) fn forget(&mut self, blocks: Range<u64>) {
        self.copy.present.retain(|block, _| !blocks.contains(block));
    }

    /// Opens blocks as they are stored, from the cache where its record calls them present.
    pub(super) fn open(&mut self, blocks: Range<u64>) -> (Vec<u8>, Vec<Option<Nonce>>) {
        let size = self.model.len() as u64;
        let stride = index(self.geometry.stride_bytes());
        let end = self.geometry.block_start(blocks.end).min(size);
        let len = index(end - self.geometry.block_start(blocks.start));
        let mut buffer = Buffer::unpooled(stride * index(blocks.end - blocks.start));
        for (place, block) in blocks.clone().enumerate() {
            let present = !self.others && self.copy.present.contains_key(&block);
            let stored =
                if present { self.copy.blocks.get(&block) } else { self.server.get(&block) };
            if let Some(stored) = stored {
                let at = place * stride;
                buffer[at..at + stored.bytes.len()].copy_from_slice(&stored.bytes);
            }
        }
        let view = FileView { size, generation: 9, holes: 0..u64::MAX };
        let stored = StoredBytes { len: buffer.len(), buffer };
        let mut plain = vec![0; len];
        let opened = self.key.open(&view, blocks.start, stored, &mut plain);
        assert!(opened.first_damage().is_none(), "{:?}", opened.first_damage());
        let nonces = blocks.map(|block| opened.nonce(block)).collect();
        (plain, nonces)
    }
}

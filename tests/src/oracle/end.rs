//! What must hold when a request has ended.

use sealback::Error;
use sealback_crypto::{Buffer, ContentKey, FileView, Sealed, Stored as StoredBytes, Verdict};

use super::Oracle;
use crate::simulator::{BLOCK, CACHE, plain_block};

impl Oracle {
    pub(crate) fn on_in_doubt(&mut self, sealed: &Sealed) {
        assert!(self.tally.is_ending(), "nothing is in doubt as long as it can be sent again");
        for (block, nonce) in sealed.nonces() {
            assert!(self.told_of.insert(block), "block {block} is told of twice");
            assert!(self.streams[0].ever_issued.contains(&block), "block {block} never left");
            let merged = self.merges.merged(block);
            assert!(merged || self.sent[&block] == nonce, "block {block} is another");
        }
    }

    /// `lacks`: the source had something that it could not hand out.
    pub(crate) fn on_done(&mut self, result: &Result<(), Error>, lacks: bool) {
        self.log.push(format!("done {result:?}"));
        assert!(self.result.replace(result.is_ok()).is_none(), "done twice");
        self.tally.check_end(result, lacks);
        // What else was dirty than what the source could not hand out has gone its way.
        let went_well = matches!(result, Ok(()) | Err(Error::Closed));
        assert!(!went_well || self.redirty.is_empty(), "redirtied, and yet it went well");
    }

    pub(crate) fn at_end(&mut self, dirty_left: usize, key: &ContentKey) {
        assert!(self.handed_out.is_empty(), "folios still out: {:?}", self.handed_out);
        let servers = || self.streams.iter().enumerate().filter(|(index, _)| *index != CACHE);
        assert!(servers().all(|(_, view)| view.in_flight.is_empty()), "uploads still in flight");
        if self.result == Some(true) {
            assert_eq!(dirty_left, 0, "it went well and left folios dirty");
            for (block, to) in &self.wanted {
                for (index, view) in servers().filter(|(index, _)| to.contains(*index)) {
                    assert!(view.stored.contains_key(block), "{index} has lost block {block}");
                }
                let cached = self.cached.contains(block) || self.streams[CACHE].off;
                assert!(cached || !to.contains(CACHE), "the cache has block {block} for nothing");
            }
        }
        for block in self.streams[0].stored.keys() {
            assert!(self.told_of.contains(block), "nobody knows that block {block} is stored");
        }
        for view in &self.streams {
            for (block, stored) in &view.stored {
                assert_eq!(opened(key, *block, &stored.bytes), plain_block(*block));
            }
        }
        let (upload, copies) = self.streams.split_first().expect("there is a server");
        for copy in copies.iter().filter(|copy| !copy.off) {
            for (block, copied) in &copy.stored {
                // What was merged and did not go out again is another there.
                let same = self.result == Some(true) || !self.merges.merged(*block);
                if let (Some(uploaded), true) = (upload.stored.get(block), same) {
                    assert_eq!(uploaded.bytes, copied.bytes, "block {block}");
                }
            }
        }
    }
}

fn opened(key: &ContentKey, block: u64, bytes: &[u8]) -> Vec<u8> {
    let mut buffer = Buffer::unpooled(bytes.len());
    buffer[..bytes.len()].copy_from_slice(bytes);
    let view = FileView { size: (block + 1) * BLOCK, generation: 9, holes: 0..0 };
    let mut plain = vec![0; bytes.len() - 48];
    let stored = StoredBytes { buffer, len: bytes.len() };
    let opened = key.open(&view, block, stored, &mut plain);
    assert!(matches!(opened.verdicts(), [Verdict::Opened { .. }]), "{:?}", opened.verdicts());
    plain
}

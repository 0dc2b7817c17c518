use std::ops::Range;

use sealback_crypto::models::{Timeouts, explore};
use sealback_stream::MemoryOptions;
use shuttle::thread;

use super::*;
use crate::{
    Engine,
    engine::models::{Answers, BLOCK, File, end, start},
};

/// An engine and a file with so many blocks of zeros, open.
struct Opened {
    engine: Engine,
    file: Arc<File>,
    open: Arc<OpenFile>,
}

impl Opened {
    fn new(n_blocks: usize) -> Arc<Opened> {
        let engine = start();
        let (file, header) = File::create(MemoryOptions::default(), Answers::Elsewhere);
        let open = file.open(&engine, &header);
        open.write(0, &vec![0; n_blocks * BLOCK]).unwrap();
        sync(&open);
        Arc::new(Opened { engine, file, open })
    }

    fn end(self: Arc<Opened>) {
        let Opened { engine, file, open } = Arc::into_inner(self).expect("nobody else has it");
        drop((open, file));
        end(engine);
    }

    /// What the server has there, as somebody else reads it.
    fn stored(&self, positions: Range<usize>) -> Vec<u8> {
        let other = self.file.open(&self.engine, &self.open.header());
        let mut bytes = vec![0; positions.len()];
        let n_read =
            other.read(positions.start as u64, &mut bytes, OpenFile::read_missing).unwrap();
        bytes.truncate(n_read);
        bytes
    }
}

fn sync(open: &Arc<OpenFile>) {
    open.sync(&open.hold_sizes(), PassKind::Sync, None).unwrap();
}

fn block(number: usize) -> Range<usize> {
    number * BLOCK..(number + 1) * BLOCK
}

/// Two who write and sync, and background passes that take what they find.
#[test]
fn a_sync_returns_when_what_was_dirty_at_its_call_is_on_the_server() {
    explore(Timeouts::Never, || {
        let opened = Opened::new(2);
        let writers = [(0, 1), (1, 2)].map(|(number, byte)| {
            let opened = opened.clone();
            thread::spawn(move || {
                let data = [byte; BLOCK];
                opened.open.write((number * BLOCK) as u64, &data).unwrap();
                sync(&opened.open);
                assert_eq!(opened.stored(block(number)), data);
            })
        });
        opened.open.kick(PassKind::Background, || true);
        opened.open.kick(PassKind::Sync, || true);
        writers.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(opened.open.folios().dirty_bytes(), 0);
        assert!(!opened.open.passes.are_waited_for());
        opened.end();
    });
}

/// Two who ask for passes and one who holds them back for a while, then asks for one himself.
#[test]
fn one_pass_runs_at_a_time_and_none_but_ones_own_while_they_are_held_back() {
    explore(Timeouts::Never, || {
        let opened = Opened::new(2);
        let kickers = [0, 1].map(|number| {
            let opened = opened.clone();
            thread::spawn(move || {
                opened.open.write((number * BLOCK) as u64, &[1; BLOCK]).unwrap();
                if let Started::New(pass) | Started::Other(pass) =
                    opened.open.start_pass(PassKind::Sync, None)
                {
                    assert_eq!(pass.wait().result.map_err(|error| error.to_string()), Ok(()));
                }
            })
        });
        let open = &opened.open;
        let alone = open.passes.hold_back();
        assert!(matches!(open.start_pass(PassKind::Sync, None), Started::HeldBack));
        open.run_pass(&alone, PassKind::Sync).unwrap();
        assert!(open.passes.state().running.is_none());
        drop(alone);
        kickers.into_iter().for_each(|thread| thread.join().unwrap());
        sync(open);
        assert_eq!(opened.stored(0..2 * BLOCK), [1; 2 * BLOCK]);
        opened.end();
    });
}

/// Somebody reads the block of which a pass lacks a part.
#[test]
fn a_pass_goes_on_whoever_fetches_what_it_lacks() {
    explore(Timeouts::Never, || {
        let opened = Opened::new(1);
        // With nothing in memory.
        let open = opened.file.open(&opened.engine, &opened.open.header());
        open.write(5, &[1]).unwrap();
        let reader = open.clone();
        let reader =
            thread::spawn(move || reader.read(0, &mut [0; BLOCK], OpenFile::read_missing).unwrap());
        sync(&open);
        reader.join().unwrap();
        drop(open);
        assert_eq!(opened.stored(4..7), [0, 1, 0]);
        opened.end();
    });
}

/// A cut waits for the pass, a write and a sync for the cut, and a background pass for nobody.
#[test]
fn a_cut_a_write_and_a_sync_do_not_wait_for_one_another_for_ever() {
    explore(Timeouts::Never, || {
        let opened = Opened::new(2);
        let (cutter, writer) = (opened.clone(), opened.clone());
        let cutter = thread::spawn(move || cutter.open.set_len(BLOCK as u64).unwrap());
        let writer = thread::spawn(move || {
            writer.open.write(0, &[1; BLOCK]).unwrap();
            writer.open.kick(PassKind::Background, || true);
            sync(&writer.open);
            assert_eq!(writer.stored(block(0)), [1; BLOCK]);
        });
        writer.join().unwrap();
        cutter.join().unwrap();
        assert_eq!(opened.stored(0..2 * BLOCK), [1; BLOCK]);
        opened.end();
    });
}

/// Two who append and sync, each with a pass that grows the file.
#[test]
fn syncs_of_a_growing_file_do_not_wait_for_one_another_for_ever() {
    explore(Timeouts::Never, || {
        let opened = Opened::new(1);
        let appenders = [1, 2].map(|byte| {
            let opened = opened.clone();
            thread::spawn(move || {
                // The committed file ends within a block that each pass looks at before it begins.
                let position = opened.open.append(&[byte; 100]).unwrap();
                sync(&opened.open);
                let position = crate::ranges::index_of(position);
                assert_eq!(opened.stored(position..position + 100), [byte; 100]);
            })
        });
        appenders.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(opened.open.header().size(), (BLOCK + 200) as u64);
        opened.end();
    });
}

//! Crashes at every change: in two passes, count and stop.
//!
//! The first pass runs a workload and counts what it changes and syncs, files and journals alike. The
//! second stops it at each of these in turn. What is there then is looked at by somebody who has
//! nothing else: what was acknowledged is there, and of the rest each block is as it was at some moment
//! since. `SEALBACK_CRASHES=N` runs N workloads for each kind of crash.

use fastrand::Rng;
use sealback::{CreateOptions, Engine, Error, File, Place};
use sealback_stream::{
    Durability,
    faulty::{Crash, DiskServer},
};

use crate::{
    moments::{Model, Op, apply, read_all},
    support::{engine, name, root},
};

/// A workload, and how it ends.
#[derive(Clone, Debug)]
struct Case {
    block_bytes: usize,
    ops: Vec<Op>,
    durability: Durability,
    crash: Crash,
    seed: u64,
}

impl Case {
    fn new(seed: u64, durability: Durability, crash: Crash) -> Case {
        let mut rng = Rng::with_seed(seed);
        let block_bytes = *rng.choice(&[4096, 16384]).unwrap();
        let size = rng.usize(1..14) * block_bytes + rng.usize(..block_bytes);
        // A file that is there, of which parts are written over.
        let mut ops = vec![Op::Write { at: 0, len: size }, Op::Sync];
        for _op in 0..rng.usize(4..10) {
            let at = rng.usize(..size + block_bytes);
            ops.push(match rng.u8(..10) {
                0 => Op::SetLen(at),
                1 => Op::Punch { at, len: rng.usize(..4 * block_bytes) },
                2..4 => Op::Write { at: at - at % block_bytes, len: 3 * block_bytes },
                4..7 => Op::Write { at, len: rng.usize(1..2 * block_bytes) },
                _ => Op::Sync,
            });
        }
        ops.push(Op::Sync);
        Case { block_bytes, ops, durability, crash, seed }
    }

    /// Runs the workload until it fails, and says what may be there; `None` if not even the file is.
    fn run(&self, server: &DiskServer) -> Option<Model> {
        let engine = engine();
        let options = CreateOptions { block_bytes: self.block_bytes as u64, replace: false };
        let root = root();
        let place = Place { server, cache: None, root: &root };
        let file = engine.create(&place, &name(), &options).ok()?;
        let mut model = Model::of(Vec::new());
        for (op, number) in self.ops.iter().zip(1..) {
            model.begin(op, number);
            if apply(&file, op, number).is_err() {
                break;
            }
            model.end(op);
        }
        file.discard();
        Some(model)
    }

    /// Counts what the workload changes.
    fn count(&self) -> u64 {
        let server = DiskServer::new(self.durability);
        let model = self.run(&server).unwrap();
        assert!(model.is_acknowledged(), "it went through");
        server.n_changes()
    }

    /// Stops the workload at one change, and now and then the one who opens the file next, too.
    fn stop_at(&self, change: u64) -> Result<(), String> {
        let mut rng = Rng::with_seed(self.seed ^ change.rotate_left(32));
        let server = DiskServer::new(self.durability);
        server.stop_after(change, rng.u64(..));
        let Some(model) = self.run(&server) else { return Ok(()) };
        let mut server = server.crash(self.crash, rng.u64(..));
        if rng.bool() {
            server.stop_after(rng.u64(..6), rng.u64(..));
            drop(open(&engine(), &server));
            server = server.crash(self.crash, rng.u64(..));
        }
        self.look(&server, &model).map_err(|error| error.to_string())?
    }

    /// Opens the file, compares it with what may be there, and goes on with it.
    fn look(&self, server: &DiskServer, model: &Model) -> Result<Result<(), String>, Error> {
        let file = open(&engine(), server)?;
        let mut bytes = read_all(&file)?;
        if let Err(wrong) = model.check(&bytes, self.block_bytes) {
            return Ok(Err(wrong));
        }
        for at in (0..bytes.len()).step_by(3 * self.block_bytes / 2) {
            let end = bytes.len().min(at + self.block_bytes);
            bytes[at..end].fill(99);
            file.write_at(at as u64, &bytes[at..end])?;
        }
        file.sync()?;
        assert!(!file.info().cut_pending);
        drop(file);
        let same = read_all(&open(&engine(), server)?)? == bytes;
        Ok(if same { Ok(()) } else { Err("it cannot be gone on with".into()) })
    }
}

fn open(engine: &Engine, server: &DiskServer) -> Result<File, Error> {
    engine.open(&Place { server, cache: None, root: &root() }, &name())
}

/// Runs the workloads, stopped at every change, and says what was wrong.
fn crash_at_every_change(durability: Durability, crash: Crash) -> Vec<String> {
    let n_cases = std::env::var("SEALBACK_CRASHES").map_or(5, |n| n.parse().unwrap());
    let (mut n_crashes, mut wrong) = (0, Vec::new());
    for seed in 0..n_cases {
        let case = Case::new(seed, durability, crash);
        // The count of a workload with threads is not the same each time.
        for change in 0..case.count() + 2 {
            if let Err(error) = case.stop_at(change) {
                wrong.push(format!("{error}: stopped at change {change} of {case:?}"));
            }
            n_crashes += 1;
        }
    }
    println!("{durability:?}, {crash:?}: {n_cases} workloads, {n_crashes} crashes");
    wrong
}

#[test]
fn a_kill_at_any_change_leaves_each_block_as_it_was_or_was_to_be() {
    for durability in [Durability::Process, Durability::PowerCut] {
        // What is left may be found in the same run of the machine, or in the next one.
        for crash in [Crash::Kill, Crash::Restart] {
            let wrong = crash_at_every_change(durability, crash);
            assert!(wrong.is_empty(), "{wrong:#?}");
        }
    }
}

#[test]
fn a_power_cut_at_any_change_leaves_each_block_as_it_was_or_was_to_be() {
    let wrong = crash_at_every_change(Durability::PowerCut, Crash::PowerCut);
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Goal: what the tests above would find is there to be found. Method: the same without a journal.
#[test]
fn without_a_journal_a_kill_tears_blocks_and_without_syncs_a_power_cut_loses_them() {
    for (durability, crash) in
        [(Durability::None, Crash::Kill), (Durability::Process, Crash::PowerCut)]
    {
        let wrong = crash_at_every_change(durability, crash);
        assert!(wrong.iter().any(|error| error.contains("altered or torn")), "{wrong:#?}");
    }
}

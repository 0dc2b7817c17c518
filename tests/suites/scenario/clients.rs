//! Two clients of one file, each with every way of writing that there is, in an order that a seed
//! draws, on servers that fail. Whoever looks in the end sees the same.
//!
//! The model is a vector of bytes. Stretches of the file belong to the clients in turn, so that what
//! each of them writes is known, and is in the same blocks as what the other writes. What fails is done
//! once more with nothing failing; what is told to be gone, because the other has made holes of what was
//! sent and not committed, is written once more.

use std::{collections::BTreeSet, ops::Range};

use fastrand::Rng;
use sealback::{Config, Decision, Engine, Error, File, Operation};
use sealback_stream::{
    Failure, MemoryServer, Server, TargetError, TargetErrorKind,
    faulty::{Fault, Faults, FaultyServer, Operation as FaultyOperation, Rates, Rule, When},
};
use sealback_tests::{auditor::Auditor, interpose::InterposedServer, reader::read_sealed};

use crate::support::{Log, ROOT, config, create, memory, name, open, read_all};

const BLOCK: u64 = 4096;
/// Not a multiple of a block: most blocks are of both.
const STRETCH: usize = 10_000;
const N_STRETCHES: usize = 20;

/// What a client does next.
#[derive(Clone, Copy, Debug)]
enum Step {
    Append,
    CloseGroup,
    Direct,
    Filtered,
    Read,
    ReadDirect,
    Revalidate,
    Sync,
    SyncRange,
    Through,
    Write,
    Writeback,
}

/// Writes are drawn as often as all else.
const STEPS: [Step; 18] = [
    Step::Append,
    Step::CloseGroup,
    Step::Direct,
    Step::Direct,
    Step::Filtered,
    Step::Read,
    Step::ReadDirect,
    Step::Revalidate,
    Step::Sync,
    Step::SyncRange,
    Step::Through,
    Step::Through,
    Step::Through,
    Step::Write,
    Step::Write,
    Step::Write,
    Step::Write,
    Step::Writeback,
];

struct Client {
    /// Its stretches are those of this parity.
    parity: usize,
    file: File,
    faults: Faults,
    /// Groups that it has closed, in their order.
    groups: Vec<Operation<Result<(), Error>>>,
    failed: u32,
    /// It was told that something it had sent and not committed is gone.
    lost: bool,
}

impl Client {
    fn new(parity: usize, server: &InterposedServer<MemoryServer, Auditor>, seed: u64) -> Client {
        let rates = Rates {
            retry: 30,
            renegotiate: 20,
            fatal: 5,
            short: 40,
            unknown: 20,
            dropped: 10,
            elsewhere: 100,
            ..Rates::default()
        };
        let faults = Faults::seeded(seed * 2 + parity as u64, rates);
        faults.stop();
        let faulty = FaultyServer::new(server.clone(), &faults);
        let folio_bytes = [4096, 16 << 10][usize::try_from(seed % 2).unwrap()];
        let engine = Engine::new(Config { folio_bytes, ..config() }).unwrap();
        let file = open(&engine, &faulty, None);
        faults.resume();
        Client { parity, file, faults, groups: Vec::new(), failed: 0, lost: false }
    }

    /// Does something, and if that fails, once more with nothing failing.
    fn surely<T>(&mut self, step: impl Fn(&File) -> Result<T, Error>) -> T {
        let mut errors = Vec::new();
        for attempt in 0..4 {
            match step(&self.file) {
                Ok(done) => {
                    self.faults.resume();
                    return done;
                }
                Err(error) => {
                    self.lost |= matches!(error, Error::Conflict { .. });
                    errors.push(error);
                }
            }
            self.failed += u32::from(attempt == 0);
            // The next may tell of what happened before.
            self.faults.stop();
        }
        panic!("nothing fails any more, but client {} does: {errors:?}", self.parity);
    }

    /// Writes once more what is its own, if it was told that something is gone.
    fn restore(&mut self, model: &[u8]) {
        while std::mem::take(&mut self.lost) {
            for start in (self.parity * STRETCH..model.len()).step_by(2 * STRETCH) {
                let data = &model[start..model.len().min(start + STRETCH)];
                self.surely(|file| file.write_at(start as u64, data));
            }
            self.surely(File::sync);
        }
    }

    /// Positions within a stretch of its own.
    fn draw(&self, rng: &mut Rng, len: usize) -> Range<usize> {
        let stretch = rng.usize(..N_STRETCHES / 2) * 2 + self.parity;
        let end = ((stretch + 1) * STRETCH).min(len.max(1));
        let start = (stretch * STRETCH + rng.usize(..STRETCH)).min(end);
        start..start + rng.usize(..=end - start)
    }

    fn write(&mut self, step: Step, rng: &mut Rng, model: &mut Vec<u8>, log: &mut Log) {
        let range = self.draw(rng, N_STRETCHES * STRETCH);
        if range.is_empty() {
            return;
        }
        let (at, data) = (range.start as u64, vec![rng.u8(1..); range.len()]);
        log.0.push(format!("  {range:?} become {}", data[0]));
        model.resize(model.len().max(range.end), 0);
        model[range].copy_from_slice(&data);
        let (pieces, ends) = (rng.usize(1..5000), rng.u32(..3));
        match step {
            Step::Direct => self.surely(|file| file.write_direct(at, data.clone()).result),
            Step::Through => self.surely(|file| {
                let mut writing = file.writethrough(at)?;
                data.chunks(pieces).try_for_each(|piece| writing.advance(piece))?;
                match ends {
                    0 => writing.end(),
                    1 => writing.end_later().map(drop),
                    _ => Ok(()),
                }
            }),
            _ => self.surely(|file| file.write_at(at, &data)),
        }
    }

    /// What is its own it reads as it has written it.
    fn read(&mut self, step: Step, rng: &mut Rng, model: &[u8]) {
        let range = self.draw(rng, model.len());
        let range = range.start.min(model.len())..range.end.min(model.len());
        let end = usize::try_from(self.file.size()).unwrap();
        let bytes = self.surely(|file| {
            let mut bytes = vec![0; range.len()];
            match step {
                Step::ReadDirect => file.read_direct(range.start as u64, &mut bytes)?,
                _ => file.read_at(range.start as u64, &mut bytes)?,
            };
            Ok(bytes)
        });
        for (position, byte) in range.clone().zip(bytes) {
            // What the other has made longer may not be known here.
            assert!(byte == model[position] || position >= end, "byte {position} of {range:?}");
        }
    }

    fn filtered(&mut self, rng: &mut Rng) {
        let drawn = rng.u64(..);
        self.surely(|file| {
            file.writeback_filtered(move |positions| {
                match Rng::with_seed(drawn ^ positions.start).u32(..8) {
                    0 => Decision::Defer,
                    1 => Decision::Skip,
                    2 => Decision::Stop,
                    _ => Decision::Write,
                }
            })
        });
    }
}

/// What one client appends no other knows of: both have to agree on the end.
fn append(clients: &mut [Client; 2], first: usize, rng: &mut Rng, model: &mut Vec<u8>) {
    if model.len() > N_STRETCHES * STRETCH {
        return;
    }
    for client in clients.iter_mut() {
        client.surely(File::sync);
        client.restore(model);
    }
    let data = vec![rng.u8(1..); rng.usize(1..9000)];
    let client = &mut clients[first];
    client.surely(File::revalidate);
    client.faults.stop();
    assert_eq!(client.file.append(&data).unwrap(), model.len() as u64);
    client.faults.resume();
    client.surely(File::sync);
    model.extend(data);
    clients[1 - first].surely(File::revalidate);
}

fn step(clients: &mut [Client; 2], rng: &mut Rng, model: &mut Vec<u8>, log: &mut Log) {
    let (at, step) = (rng.usize(..2), STEPS[rng.usize(..STEPS.len())]);
    log.0.push(format!("client {at}: {step:?}, {} bytes", model.len()));
    let client = &mut clients[at];
    match step {
        Step::Append => append(clients, at, rng, model),
        Step::CloseGroup => {
            let group = client.file.close_group();
            client.groups.push(client.file.group_ended(group));
        }
        Step::Filtered => client.filtered(rng),
        Step::Read | Step::ReadDirect => client.read(step, rng, model),
        Step::Revalidate => client.surely(File::revalidate),
        Step::Sync => client.surely(File::sync),
        Step::SyncRange => {
            let start = rng.u64(..200_000);
            client.surely(|file| file.sync_range(start..start + 30_000));
        }
        Step::Direct | Step::Through | Step::Write => client.write(step, rng, model, log),
        Step::Writeback => drop(client.file.writeback()),
    }
    clients.iter_mut().for_each(|client| client.restore(model));
}

#[test]
fn what_somebody_else_wrote_behind_the_end_is_not_overwritten_by_the_zeros_of_growing() {
    let server = memory();
    let file = create(&crate::support::engine(), &server, None, BLOCK);
    file.write_at(0, &[1; 100]).unwrap();
    file.sync().unwrap();
    // It knows no more of what is stored.
    file.revalidate().unwrap();
    let other = open(&crate::support::engine(), &server, None);
    other.write_at(3000, &[2; 10]).unwrap();
    other.close().unwrap();
    file.write_at(200, &[3; 10]).unwrap();
    file.write_at(3500, &[3; 10]).unwrap();
    file.sync().unwrap();
    let mut expected = vec![0; 3510];
    for (at, len, byte) in [(0, 100, 1), (3000, 10, 2), (200, 10, 3), (3500, 10, 3)] {
        expected[at..at + len].fill(byte);
    }
    assert_same(&all_of(&server), &expected, "a client who opens it now");
    assert_same(&read_all(&file), &expected, "this client");
}

#[test]
fn what_was_sent_and_not_committed_and_somebody_else_made_a_hole_of_is_sent_again_after_a_look() {
    let server = memory();
    create(&crate::support::engine(), &server, None, BLOCK).close().unwrap();
    let rule = failing(FaultyOperation::Header, When::From(1), TargetErrorKind::Io);
    let faults = Faults::scripted([rule]);
    let file = open(&crate::support::engine(), &FaultyServer::new(server.clone(), &faults), None);
    file.write_at(40_000, &[1; 5000]).unwrap();
    file.sync().unwrap_err();
    assert_eq!(file.dirty_bytes(), 0, "it is there, and no header says so");
    faults.stop();
    let other = open(&crate::support::engine(), &server, None);
    other.write_at(100_000, &[2; 10]).unwrap();
    other.close().unwrap();
    file.revalidate().unwrap();
    file.sync().unwrap();
    let mut expected = vec![0; 100_010];
    expected[40_000..45_000].fill(1);
    expected[100_000..].fill(2);
    assert_same(&all_of(&server), &expected, "a client who opens it now");
}

#[test]
fn what_two_clients_have_sent_behind_the_end_and_not_committed_is_sent_again_by_who_meets_it() {
    let server = memory();
    create(&crate::support::engine(), &server, None, BLOCK).close().unwrap();
    let client = || {
        let rule = failing(FaultyOperation::Header, When::From(1), TargetErrorKind::Io);
        let faults = Faults::scripted([rule]);
        let faulty = FaultyServer::new(server.clone(), &faults);
        (open(&crate::support::engine(), &faulty, None), faults)
    };
    let [(first, first_faults), (second, second_faults)] = [client(), client()];
    first.write_at(40_000, &[1; 5000]).unwrap();
    first.sync().unwrap_err();
    // In the middle of the other's: behind the end that is nobody's. No header tells of it.
    second.write_at(42_000, &[2; 100]).unwrap();
    second.sync().unwrap_err();
    first_faults.stop();
    first.sync().unwrap();
    let mut expected = vec![0; 45_000];
    expected[40_000..].fill(1);
    assert_same(&all_of(&server), &expected, "a client who opens it when the first has synced");
    second_faults.stop();
    second.sync().unwrap();
    expected[42_000..42_100].fill(2);
    assert_same(&all_of(&server), &expected, "a client who opens it in the end");
}

#[test]
fn what_somebody_else_has_made_longer_stays_so_however_often_it_is_written_from_here() {
    let server = memory();
    let file = create(&crate::support::engine(), &server, None, BLOCK);
    file.write_at(0, &[1; 100]).unwrap();
    file.sync().unwrap();
    let other = open(&crate::support::engine(), &server, None);
    other.write_at(150, &[2; 50]).unwrap();
    other.close().unwrap();
    let mut expected = [vec![1; 100], vec![0; 50], vec![2; 50]].concat();
    for at in [10, 20, 30] {
        file.write_at(at as u64, &[3]).unwrap();
        // On the server, with no commit that would meet the other's.
        file.writeback().wait().unwrap();
        expected[at] = 3;
        assert_same(&all_of(&server), &expected, "a client who opens it now");
    }
    file.sync().unwrap();
    assert_same(&read_all(&file), &expected, "this client");
}

/// Of blocks that were sent and not committed, and are not here any more, somebody else makes holes,
/// after `before`: those that are told of in 8 looks.
fn told_of_holes(faults: &Faults, before: impl FnOnce(&File)) -> BTreeSet<u64> {
    let server = memory();
    create(&crate::support::engine(), &server, None, BLOCK).close().unwrap();
    let rule = failing(FaultyOperation::Header, When::From(1), TargetErrorKind::Io);
    let no_header = Faults::scripted([rule]);
    faults.stop();
    let faulty = FaultyServer::new(FaultyServer::new(server.clone(), &no_header), faults);
    let file = open(&crate::support::engine(), &faulty, None);
    for block in GONE {
        file.write_at(block * BLOCK, &[1; 4096]).unwrap();
    }
    file.sync().unwrap_err();
    no_header.stop();
    file.revalidate().unwrap();
    before(&file);
    let other = open(&crate::support::engine(), &server, None);
    other.write_at(100_000, &[2; 10]).unwrap();
    other.close().unwrap();
    faults.resume();
    let mut told = BTreeSet::new();
    for _look in 0..8 {
        if let Err(Error::Conflict { blocks }) = file.revalidate() {
            told.extend(blocks.iter().map(|conflict| conflict.block));
        }
    }
    told
}

const GONE: [u64; 4] = [10, 11, 14, 15];

fn failing(operation: FaultyOperation, when: When, kind: TargetErrorKind) -> Rule {
    let fault = Fault::Fail(Failure::Fatal(TargetError::new(kind, "injected")));
    Rule { operation, when, fault }
}

#[test]
fn what_somebody_else_made_holes_of_is_told_even_if_a_look_at_it_fails_on_the_way() {
    for every in 2..=4 {
        let when = When::Every(every);
        let rule = failing(FaultyOperation::Read, when, TargetErrorKind::NotPermitted);
        let faults = Faults::scripted([rule]);
        let told = told_of_holes(&faults, |_| ());
        assert!(faults.injected(FaultyOperation::Read) > 0);
        assert_eq!(told, BTreeSet::from(GONE), "one read of {every} fails");
    }
}

#[test]
fn what_somebody_else_made_holes_of_is_told_even_if_a_barrier_has_failed_before() {
    let rule = failing(FaultyOperation::Barrier, When::From(1), TargetErrorKind::Io);
    let faults = Faults::scripted([rule]);
    let told = told_of_holes(&faults, |file| {
        faults.resume();
        file.sync().unwrap_err();
        faults.stop();
    });
    assert_eq!(told, BTreeSet::from(GONE));
}

#[test]
fn two_clients_that_write_in_every_way_at_failing_servers_see_the_same_in_the_end() {
    let drawn = |name| std::env::var(name).ok().map(|value| value.parse::<u64>().unwrap());
    let (first, rounds) = match (drawn("SEALBACK_SEED"), drawn("SEALBACK_CASES")) {
        (Some(seed), rounds) => (seed, rounds.unwrap_or(1)),
        (None, rounds) => (0, rounds.unwrap_or(30)),
    };
    let mut failed = 0;
    for seed in first..first + rounds {
        let (mut rng, mut log) = (Rng::with_seed(seed), Log::default());
        log.0.push(format!("seed {seed}"));
        let server = memory();
        let engine = crate::support::engine();
        create(&engine, &server, None, [BLOCK, 4 * BLOCK][rng.usize(..2)]).close().unwrap();
        let mut clients = [Client::new(0, &server, seed), Client::new(1, &server, seed)];
        let mut model = Vec::new();
        for _ in 0..100 {
            step(&mut clients, &mut rng, &mut model, &mut log);
        }
        for client in &mut clients {
            client.surely(File::sync);
            client.restore(&model);
            client.faults.stop();
            let ended = client.groups.drain(..).all(|group| group.wait().is_ok());
            assert!(ended, "all its groups are on the server");
            failed += client.failed;
        }
        let stored = read_sealed(&server.stored(&name()).unwrap(), &ROOT).unwrap().plaintext;
        assert_same(&stored, &model, "an independent reader");
        assert_same(&all_of(&server), &model, "a client who opens it now");
        for client in &clients {
            client.file.revalidate().unwrap();
            assert_same(&read_all(&client.file), &model, &format!("client {}", client.parity));
        }
    }
    assert!(failed > 0 || rounds < 30, "nothing has failed");
}

#[track_caller]
fn assert_same(seen: &[u8], model: &[u8], by: &str) {
    let differs = |at: &usize| seen[*at] != model[*at];
    let differ: Vec<_> = (0..seen.len().min(model.len())).filter(differs).collect();
    assert_eq!(seen.len(), model.len(), "the length that {by} sees");
    let ends = (differ.first(), differ.last(), differ.first().map(|at| (seen[*at], model[*at])));
    assert!(differ.is_empty(), "{by} sees {} other bytes, at {ends:?}", differ.len());
}

fn all_of(server: &dyn Server) -> Vec<u8> {
    read_all(&open(&crate::support::engine(), server, None))
}

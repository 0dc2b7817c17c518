//! Two clients of one file, each with every way of writing that there is, in an order that a seed
//! draws, on servers that fail. Whoever looks in the end sees the same.
//!
//! The model is a vector of bytes. Stretches of the file belong to the clients in turn, so that what
//! each of them writes is known, and is in the same blocks as what the other writes. What fails is done
//! once more with nothing failing; what is told to be gone, because the other has made holes of what was
//! sent and not committed, is written once more.

use std::ops::Range;

use fastrand::Rng;
use sealback::{Config, Decision, Engine, Error, File, Operation};
use sealback_stream::{
    Cache, Granule, MemoryCache, MemoryOptions,
    faulty::{Faults, FaultyCache, FaultyServer, Rates},
};
use sealback_tests::{auditor::Auditor, interpose::InterposedServer, reader::read_sealed};

use super::served::{Served, served_locked, stored};
use crate::support::{
    Log, ROOT, all_of, assert_same, audited, config, create, name, open, read_all,
};

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
    fn new(
        parity: usize,
        server: &InterposedServer<Served, Auditor>,
        cache: Option<MemoryCache>,
        seed: u64,
    ) -> Client {
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
        let cache = cache.map(|cache| FaultyCache::new(cache, &faults));
        let file = open(&engine, &faulty, cache.as_ref().map(|cache| cache as &dyn Cache));
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
        // What the other has made longer may not be known here.
        let mut read = range.clone().zip(bytes);
        let strange = read.find(|(at, byte)| *byte != model[*at] && *at < end);
        if let Some((position, _)) = strange {
            // What is gone is read as what is there now, and told of.
            self.lost = matches!(self.file.take_error(), Some(Error::Conflict { .. }));
            assert!(self.lost, "byte {position} of {range:?}");
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
fn two_clients_that_write_in_every_way_at_failing_servers_see_the_same_in_the_end() {
    for_each_seed(|_seed| None);
}

#[test]
fn two_clients_with_caches_that_write_in_every_way_see_the_same_in_the_end() {
    // One cache of two would rather have larger pieces.
    let granule = Granule::new(64 << 10).unwrap();
    for_each_seed(|seed| {
        let cache = MemoryCache::new(MemoryOptions::default());
        Some(if seed % 4 < 2 { cache } else { cache.with_granule(granule) })
    });
}

fn for_each_seed(cache: impl Fn(u64) -> Option<MemoryCache>) {
    let drawn = |name| std::env::var(name).ok().map(|value| value.parse::<u64>().unwrap());
    let (first, rounds) = match (drawn("SEALBACK_SEED"), drawn("SEALBACK_CASES")) {
        (Some(seed), rounds) => (seed, rounds.unwrap_or(1)),
        (None, rounds) => (0, rounds.unwrap_or(30)),
    };
    let mut failed = 0;
    for seed in first..first + rounds {
        let (mut rng, mut log) = (Rng::with_seed(seed), Log::default());
        log.0.push(format!("seed {seed}"));
        let server = audited(served_locked(rng.bool()));
        let engine = crate::support::engine();
        create(&engine, &server, None, [BLOCK, 4 * BLOCK][rng.usize(..2)]).close().unwrap();
        let mut clients = [0, 1].map(|parity| Client::new(parity, &server, cache(seed), seed));
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
        let stored = read_sealed(&stored(&server, &name()), &ROOT).unwrap().plaintext;
        assert_same(&stored, &model, "an independent reader");
        assert_same(&all_of(&server), &model, "a client who opens it now");
        for client in &clients {
            client.file.revalidate().unwrap();
            assert_same(&read_all(&client.file), &model, &format!("client {}", client.parity));
        }
    }
    assert!(failed > 0 || rounds < 30, "nothing has failed");
}

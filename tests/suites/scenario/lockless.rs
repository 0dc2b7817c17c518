//! Several clients of one file on a server that has no lock of the size, as object stores have none: what
//! one has sent behind the end is left alone by the others, and a cut takes exactly what it should.
//!
//! Clients of their own engines, each on a thread, in cells of their own that lie in each other's blocks.
//! Every operation is noted with when it began and ended; so of each byte it is known in the end what it
//! may be: what its owner wrote last, or a zero, if somebody may have cut it off since.

use std::thread;

use fastrand::Rng;
use sealback_stream::Server;
use sealback_tests::{interpose::InterposedServer, reader::read_sealed};

use self::{
    clients::{Client, Haste},
    history::History,
};
use crate::support::{ROOT, all_of, create, engine, lockless, name};

mod clients;
mod history;
mod in_doubt;
mod named;

/// What the clients of one run are given to do.
#[derive(Clone, Copy, Debug)]
struct Plan {
    n_clients: usize,
    block_bytes: u64,
    /// Of a hundred operations, those that cut the file.
    cuts: u32,
    /// Of a hundred operations, those that make holes.
    punches: u32,
}

impl Plan {
    fn drawn(rng: &mut Rng) -> Plan {
        Plan {
            n_clients: [2, 4][rng.usize(..2)],
            block_bytes: [4096, 16 << 10][rng.usize(..2)],
            cuts: [0, 0, 2, 10][rng.usize(..4)],
            punches: [0, 0, 5][rng.usize(..3)],
        }
    }
}

/// Has clients do what a seed says, and looks whether the file can have come of that.
fn check(server: &(impl Server + Clone), seed: u64) {
    let plan = Plan::drawn(&mut Rng::with_seed(seed));
    let server = InterposedServer::new(server.clone(), Haste);
    create(&engine(), &server, None, plan.block_bytes).close().unwrap();
    let history = History::default();
    thread::scope(|scope| {
        for number in 0..plan.n_clients {
            let (server, history) = (&server, &history);
            scope.spawn(move || Client::new(server, plan, history, number, seed).run());
        }
    });
    let found = history.check(&all_of(&server));
    found.unwrap_or_else(|found| panic!("seed {seed}, {plan:?}: {found}"));
}

fn seeds() -> std::ops::Range<u64> {
    let drawn = |name| std::env::var(name).ok().map(|value| value.parse::<u64>().unwrap());
    match (drawn("SEALBACK_SEED"), drawn("SEALBACK_CASES")) {
        (Some(seed), cases) => seed..seed + cases.unwrap_or(20),
        (None, cases) => 0..cases.unwrap_or(20),
    }
}

#[test]
fn two_and_four_clients_that_grow_cut_and_punch_one_file_lose_nothing_and_bring_nothing_back() {
    for seed in seeds() {
        let server = lockless();
        check(&server, seed);
        let stored = read_sealed(&server.stored(&name()).unwrap(), &ROOT).unwrap().plaintext;
        assert!(all_of(&server) == stored, "seed {seed}: a client sees something else");
    }
}

/// The same with chunk objects, of a few blocks each.
#[cfg(feature = "object-store")]
#[test]
fn two_and_four_clients_of_an_object_store_lose_nothing_and_bring_nothing_back() {
    use crate::objects::served::served_by;

    for seed in seeds() {
        check(&served_by(5 + seed % 3 * 5, 8), seed);
    }
}

//! What transient failures cost: the same writes to memory targets, with every hundredth subrequest
//! to the server failing, and without, in turns.
//!
//! ```sh
//! cargo run --release --example retry_cost
//! ```

use std::{error::Error, time::Instant};

use sealback::{
    Config, CreateOptions, Engine, Place,
    crypto::RootKey,
    stream::{
        Failure, MemoryCache, MemoryOptions, MemoryServer, Name, TargetError, TargetErrorKind,
        faulty::{Fault, Faults, FaultyServer, Operation, Rule, When},
    },
};

/// Bytes written in one round.
const BYTES: usize = 256 << 20;
/// Stored bytes in a subrequest to the server, at most.
const SUBREQUEST_BYTES: u64 = 256 << 10;
const N_ROUNDS: usize = 21;

/// Writes everything once. Returns bytes in a second, and how many subrequests failed.
fn round(engine: &Engine, data: &[u8], faults: &Faults) -> Result<(f64, u64), Box<dyn Error>> {
    let options = MemoryOptions::default().with_max_write_bytes(SUBREQUEST_BYTES);
    let server = FaultyServer::new(MemoryServer::new(options), faults);
    let cache = MemoryCache::new(MemoryOptions::default());
    let root = RootKey::from_bytes(&[1; 32]);
    let place = Place { server: &server, cache: Some(&cache), root: &root };
    let file = engine.create(&place, &Name::new("file")?, &CreateOptions::default())?;
    let started = Instant::now();
    for (index, chunk) in data.chunks(1 << 20).enumerate() {
        file.write_at((index as u64) << 20, chunk)?;
    }
    file.sync()?;
    let seconds = started.elapsed().as_secs_f64();
    Ok((data.len() as f64 / seconds, faults.injected(Operation::Write)))
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

fn main() -> Result<(), Box<dyn Error>> {
    let engine = Engine::new(Config::default())?;
    let data = vec![7; BYTES];
    let rule = || Rule {
        operation: Operation::Write,
        when: When::Every(100),
        fault: Fault::Fail(Failure::Retry(TargetError::new(TargetErrorKind::Io, "injected"))),
    };
    round(&engine, &data, &Faults::none())?;
    let (mut without, mut with, mut ratios, mut failed) = (vec![], vec![], vec![], 0);
    for _ in 0..N_ROUNDS {
        let (rate, _) = round(&engine, &data, &Faults::none())?;
        let (faulty_rate, injected) = round(&engine, &data, &Faults::scripted([rule()]))?;
        without.push(rate);
        with.push(faulty_rate);
        ratios.push(faulty_rate / rate);
        failed = injected;
    }
    println!("without failures      {:.2} GB/s", median(without) / 1e9);
    println!("1 % of them failing   {:.2} GB/s, {failed} failures a round", median(with) / 1e9);
    println!("ratio, the median of {N_ROUNDS} rounds: {:.3}", median(ratios));
    Ok(())
}

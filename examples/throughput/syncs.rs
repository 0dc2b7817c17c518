//! Small overwrites and their syncs.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::Path,
    time::Instant,
};

use sealback::{
    Config, CreateOptions, Engine, Place,
    crypto::RootKey,
    stream::{Durability, LocalOptions, LocalServer, Name},
};
use tempfile::TempDir;

use super::Setup;
use crate::{
    Failure,
    measure::{Round, Sides},
};

const PIECE: usize = 4 << 10;

/// A sealed file and a plain one of the same size, filled and synced.
struct World {
    dir: TempDir,
    sealed: sealback::File,
    plain: File,
}

impl World {
    fn new(dir: &Path, durability: Durability, size: u64) -> Result<World, Failure> {
        let dir = tempfile::tempdir_in(dir)?;
        let options = LocalOptions::default().with_durability(durability);
        let at = dir.path().join("server");
        fs::create_dir(&at)?;
        let server = LocalServer::open(at, options)?;
        let root = RootKey::from_bytes(&[1; 32]);
        let place = Place { server: &server, cache: None, root: &root };
        let engine = Engine::new(Config::default())?;
        let options = CreateOptions { block_bytes: PIECE as u64, replace: false };
        let sealed = engine.create(&place, &Name::new("file")?, &options)?;
        let plain = File::create_new(dir.path().join("plain"))?;
        let bytes = vec![7; 1 << 20];
        for at in (0..size).step_by(bytes.len()) {
            sealed.write_at(at, &bytes)?;
            plain.write_all_at(&bytes, at)?;
        }
        sealed.sync()?;
        plain.sync_data()?;
        Ok(World { dir, sealed, plain })
    }
}

/// Where the pieces of a round go.
fn positions(rng: &mut fastrand::Rng, n: u64, size: u64) -> Vec<u64> {
    (0..n).map(|_| rng.u64(..size / PIECE as u64) * PIECE as u64).collect()
}

/// Overwrites at random, then one sync, on the disk, against the same in a plain file.
pub(super) fn random(setup: &Setup) -> Result<Sides, Failure> {
    const N: u64 = 20_000;
    let size = setup.size;
    let world = World::new(&setup.disk, Durability::Process, size)?;
    let (plain, mut rng) = (world.plain.try_clone()?, fastrand::Rng::with_seed(1));
    let (mut other_rng, data) = (fastrand::Rng::with_seed(1), [8; PIECE]);
    let subject = move || {
        let positions = positions(&mut rng, N, size);
        let _kept = &world.dir;
        let round = Round::time(N * PIECE as u64, || {
            for position in positions {
                world.sealed.write_at(position, &data)?;
            }
            Ok(world.sealed.sync()?)
        })?;
        Ok(Round { operations: N, ..round })
    };
    let reference = move || {
        let positions = positions(&mut other_rng, N, size);
        let round = Round::time(N * PIECE as u64, || {
            positions.into_iter().try_for_each(|position| plain.write_all_at(&data, position))?;
            Ok(plain.sync_data()?)
        })?;
        Ok(Round { operations: N, ..round })
    };
    Ok(Sides { subject: Box::new(subject), reference: Box::new(reference) })
}

/// One overwrite and its sync, that survive a power cut, again and again, on the disk, against pwrite
/// and fdatasync.
pub(super) fn latency(setup: &Setup) -> Result<Sides, Failure> {
    const N: u64 = 200;
    let size = setup.size.min(64 << 20);
    let world = World::new(&setup.disk, Durability::PowerCut, size)?;
    let (plain, mut rng) = (world.plain.try_clone()?, fastrand::Rng::with_seed(1));
    let (mut other_rng, data) = (fastrand::Rng::with_seed(1), [8; PIECE]);
    let subject = move || {
        let _kept = &world.dir;
        each(positions(&mut rng, N, size), |position| {
            world.sealed.write_at(position, &data)?;
            Ok(world.sealed.sync()?)
        })
    };
    let reference = move || {
        each(positions(&mut other_rng, N, size), |position| {
            plain.write_all_at(&data, position)?;
            Ok(plain.sync_data()?)
        })
    };
    Ok(Sides { subject: Box::new(subject), reference: Box::new(reference) })
}

/// Times each of the operations.
fn each(
    positions: Vec<u64>,
    mut operation: impl FnMut(u64) -> Result<(), Failure>,
) -> Result<Round, Failure> {
    let mut latencies = Vec::with_capacity(positions.len());
    let bytes = positions.len() as u64 * PIECE as u64;
    let round = Round::time(bytes, || {
        positions.into_iter().try_for_each(|position| {
            let started = Instant::now();
            operation(position)?;
            latencies.push(started.elapsed());
            Ok(())
        })
    })?;
    Ok(Round { operations: latencies.len() as u64, latencies, ..round })
}

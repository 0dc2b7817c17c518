//! A server of one's own: sealed files whose blocks are rows of a [`redb`] database, written from scratch
//! against the seam, [`sealback::stream::Server`] and [`sealback::stream::Target`].
//!
//! ```sh
//! cargo run --release --example custom_target           # a file's life on it, in a temporary directory
//! cargo test -p sealback-examples --example custom_target      # it keeps the contract
//! ```
//!
//! Read it in this order:
//!
//! 1. `custom_target/tables.rs`: what is stored, and where a block is.
//! 2. `custom_target/target.rs`: one file. Each clause of the contract (see [`Target`]) is named where
//!    it is kept.
//! 3. `custom_target/server.rs`: names, drafts, and when a file that nobody can find any more goes.
//! 4. The tests below: the suite that whoever writes a target runs first.
//!
//! What a server need not know: keys, plaintext, sizes. It is handed sealed blocks, each 48 bytes of
//! prefix and its ciphertext, and the 24 bytes in front of them, the nonce, are all that it ever
//! compares.
//!
//! [`Target`]: sealback::stream::Target
#![forbid(unsafe_code)]

use std::{error::Error, path::Path};

use sealback::{BlockReport, Config, CreateOptions, Engine, File, Place, crypto::RootKey};

#[path = "custom_target/server.rs"]
mod server;
#[path = "custom_target/tables.rs"]
mod tables;
#[path = "custom_target/target.rs"]
mod target;

use sealback::stream::Name;
use server::RedbServer;

const BLOCK: usize = 16 << 10;
const N_BLOCKS: usize = 64;

fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    run(&std::env::args().nth(1).map_or_else(|| dir.path().join("files.redb"), Into::into))
}

/// Writes a file, reads it, changes it and cuts it, in the database at `path`.
fn run(path: &Path) -> Result<(), Box<dyn Error>> {
    let (root, name) = (RootKey::generate()?, Name::new("letters")?);
    let mut expected: Vec<u8> = (0..=250).cycle().take(N_BLOCKS * BLOCK).collect();

    let server = RedbServer::open(path)?;
    let engine = Engine::new(Config::default())?;
    let place = Place { server: &server, cache: None, root: &root };
    // Replaces what an earlier run has left, by a draft that is published.
    let options = CreateOptions { block_bytes: BLOCK as u64, replace: true };
    let file = engine.create(&place, &name, &options)?;
    file.write_at(0, &expected)?;
    file.sync()?;
    file.publish()?;
    println!("create, write, sync: {} blocks of {BLOCK} bytes", file.size() / BLOCK as u64);
    println!("  {} transactions", server.take_n_writes());
    file.close()?;
    drop((engine, server));

    let server = RedbServer::open(path)?;
    let engine = Engine::new(Config::default())?;
    let place = Place { server: &server, cache: None, root: &root };
    let file = engine.open(&place, &name)?;
    same(&file, &expected)?;
    println!("reopen, read: the same {} bytes", expected.len());
    verify(&file)?;

    for block in [3, 17, 18, 40, 63] {
        let at = block * BLOCK + 5;
        file.write_at(at as u64, b"patched")?;
        expected[at..at + 7].copy_from_slice(b"patched");
    }
    file.sync()?;
    same(&file, &expected)?;
    println!("patch, sync: 5 blocks in 4 places");
    println!("  {} transaction, because gaps are granted", server.take_n_writes());

    expected.truncate(10 * BLOCK + 100);
    file.set_len(expected.len() as u64)?;
    file.revalidate()?;
    same(&file, &expected)?;
    println!("cut: {} bytes are left", file.size());
    verify(&file)?;
    file.close()?;
    Ok(())
}

/// Reads all of a file.
fn same(file: &File, expected: &[u8]) -> Result<(), Box<dyn Error>> {
    let mut bytes = vec![0; expected.len() + 1];
    let read = file.read_at(0, &mut bytes)?;
    if bytes[..read] == *expected { Ok(()) } else { Err("the file reads otherwise".into()) }
}

/// Opens every block.
fn verify(file: &File) -> Result<(), Box<dyn Error>> {
    let (mut good, mut others) = (0, 0);
    file.verify(|_, report| match report {
        BlockReport::Opened { .. } => good += 1,
        _ => others += 1,
    })?;
    println!("verify: {good} blocks open, {others} do not");
    if others == 0 { Ok(()) } else { Err("a block does not open".into()) }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, sync::Arc};

    use sealback_stream::{Server, conformance};

    use super::*;

    #[test]
    fn a_server_in_a_database_keeps_the_contract() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let made = Cell::new(0);
        // A database for each check.
        conformance::server(&|| -> Arc<dyn Server> {
            made.set(made.get() + 1);
            let path = dir.path().join(format!("{}.redb", made.get()));
            Arc::new(RedbServer::open(&path).expect("a new database"))
        });
    }

    #[test]
    fn a_file_lives_its_life_in_a_database() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        run(&dir.path().join("files.redb")).expect("each step goes well");
    }

    #[test]
    fn what_nobody_can_find_any_more_takes_no_room() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("files.redb");
        let (root, name) = (RootKey::from_bytes(&[7; 32]), Name::new("a").expect("a name"));
        let options = CreateOptions { block_bytes: 4096, replace: true };
        let server = RedbServer::open(&path).expect("a new database");
        {
            let engine = Engine::new(Config::default()).expect("an engine");
            let place = Place { server: &server, cache: None, root: &root };
            for round in 0..3 {
                let file = engine.create(&place, &name, &options).expect("a draft");
                file.write_at(0, &[round; 40_000]).expect("memory");
                file.sync().expect("a sync");
                // The last one is dropped unpublished.
                if round < 2 {
                    file.publish().expect("it takes the place of the one before");
                }
            }
        }
        assert_eq!(server.n_rows().expect("counted"), (1, 10), "one file, and its blocks");
        server.remove(&name).expect("it is there");
        assert_eq!(server.n_rows().expect("counted"), (0, 0));
    }
}

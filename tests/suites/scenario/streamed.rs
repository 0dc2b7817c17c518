//! Streams into new files: how far they go ahead, and what they leave in the memory.

use sealback::{Config, CreateOptions, Engine, File, Place};
use sealback_stream::{MemoryOptions, MemoryServer, Name, NullServer, Server};

use crate::support::{assert_same, config, name, read_all, root, sample};

const BLOCK: usize = 16 << 10;
const MIB: u64 = 1 << 20;
/// What a stream may be ahead by: its lead, and the step that it takes meanwhile.
const MOST_AHEAD: u64 = 20 * MIB;
/// Memory for 40 MiB of folios.
const MEMORY: usize = 64 << 20;

fn draft(engine: &Engine, server: &dyn Server) -> File {
    let root = root();
    let options = CreateOptions { block_bytes: BLOCK as u64, replace: true };
    let name = Name::new("streamed").unwrap();
    engine.create(&Place { server, cache: None, root: &root }, &name, &options).unwrap()
}

#[test]
fn a_stream_into_a_new_file_is_never_further_ahead_of_the_server_than_its_lead() {
    let engine = Engine::new(Config { memory_bytes: MEMORY, ..config() }).unwrap();
    let file = draft(&engine, &NullServer::default());
    let (mut source, mut most) = (std::io::Read::take(std::io::repeat(7), 100 * MIB), 0);
    let each = |_| most = most.max(file.dirty_bytes());
    file.write_from(0, &mut source, each).unwrap().1.unwrap();
    assert!((1..=MOST_AHEAD).contains(&most), "{most} bytes were dirty at once");
    file.sync().unwrap();
    assert_eq!(file.size(), 100 * MIB);
}

#[test]
fn a_stream_leaves_in_the_memory_what_others_have_there() {
    let engine = Engine::new(Config { memory_bytes: MEMORY, ..config() }).unwrap();
    let server = MemoryServer::new(MemoryOptions::default());
    let kept = crate::support::create(&engine, &server, None, BLOCK as u64);
    let data = sample(8 << 20);
    kept.write_at(0, &data).unwrap();
    kept.sync().unwrap();
    let file = draft(&engine, &NullServer::default());
    let mut source = std::io::Read::take(std::io::repeat(7), 100 * MIB);
    file.write_from(0, &mut source, |_| ()).unwrap().1.unwrap();
    file.sync().unwrap();
    let n_reads = server.n_reads();
    assert_same(&read_all(&kept), &data, name().as_str());
    assert_eq!(server.n_reads(), n_reads, "nothing had to be fetched");
}

#[test]
fn a_stream_that_ends_in_the_middle_of_a_block_is_written_whole() {
    let engine = Engine::new(Config { memory_bytes: MEMORY, ..config() }).unwrap();
    let server = MemoryServer::new(MemoryOptions::default());
    let file = draft(&engine, &server);
    let data = sample((24 << 20) + 12_345);
    // Once into a new file, once over what is there, a little behind its start.
    file.write_from(0, &mut &data[..], |_| ()).unwrap().1.unwrap();
    file.sync().unwrap();
    file.publish().unwrap();
    file.write_from(5, &mut &data[..], |_| ()).unwrap().1.unwrap();
    file.sync().unwrap();
    assert_same(&read_all(&file), &[&data[..5], &data[..]].concat(), "its handle");
}

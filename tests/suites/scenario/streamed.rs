//! Streams into new files: how far they go ahead, and what they leave in the memory.

use std::{io, sync::mpsc, thread, time::Duration};

use sealback::{Config, CreateOptions, Engine, File, Place, request::RequestState};
use sealback_stream::{MemoryOptions, MemoryServer, Name, NullServer, Server};

use crate::support::{assert_same, config, name, read_all, root, sample};

const BLOCK: usize = 16 << 10;
const MIB: u64 = 1 << 20;
/// What a stream may be ahead by: its lead, and the step that it takes meanwhile.
const MOST_AHEAD: u64 = 4 * MIB;
/// Memory for 40 MiB of folios.
const MEMORY: usize = 64 << 20;

fn draft(engine: &Engine, server: &dyn Server) -> File {
    let root = root();
    let options = CreateOptions { block_bytes: BLOCK as u64, replace: true };
    let name = Name::new("streamed").unwrap();
    engine.create(&Place { server, cache: None, root: &root }, &name, &options).unwrap()
}

fn open_streamed(engine: &Engine, server: &dyn Server) -> File {
    let root = root();
    let place = Place { server, cache: None, root: &root };
    engine.open(&place, &Name::new("streamed").unwrap()).unwrap()
}

#[test]
fn a_stream_into_a_new_file_is_never_further_ahead_of_the_server_than_its_lead() {
    let engine = Engine::new(Config { memory_bytes: MEMORY, ..config() }).unwrap();
    let file = draft(&engine, &NullServer::default());
    let (mut source, mut most) = (io::Read::take(io::repeat(7), 100 * MIB), 0);
    let each = |_| most = most.max(file.dirty_bytes());
    file.write_from(0, &mut source, each).unwrap().1.unwrap();
    assert!((1..=MOST_AHEAD).contains(&most), "{most} bytes were dirty at once");
    file.sync().unwrap();
    assert_eq!(file.size(), 100 * MIB);
}

#[test]
fn one_pass_follows_a_stream_from_its_first_folio_to_its_last() {
    let engine = Engine::new(Config { memory_bytes: MEMORY, ..config() }).unwrap();
    let file = draft(&engine, &NullServer::default());
    let mut source = io::Read::take(io::repeat(7), 100 * MIB);
    file.write_from(0, &mut source, |_| ()).unwrap().1.unwrap();
    file.sync().unwrap();
    let n_passes = engine.stats().request_latency.count();
    // One that somebody else has to wait for gives way, which is not often.
    assert!(n_passes < 10, "{n_passes} passes of 100 MiB");
}

/// Yields what it is sent, and waits for it.
struct Sent(mpsc::Receiver<Vec<u8>>);

impl io::Read for Sent {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let Ok(sent) = self.0.recv() else { return Ok(0) };
        to[..sent.len()].copy_from_slice(&sent);
        Ok(sent.len())
    }
}

#[test]
fn whoever_syncs_does_not_wait_for_a_stream_whose_source_has_nothing_yet() {
    let engine = Engine::new(Config { memory_bytes: MEMORY, ..config() }).unwrap();
    let server = MemoryServer::new(MemoryOptions::default());
    let file = draft(&engine, &server);
    let data = sample(6 << 20);
    let (sender, source) = mpsc::channel();
    let (written, far) = mpsc::channel();
    thread::scope(|scope| {
        let stream = scope.spawn(|| {
            let far = |bytes| written.send(bytes).unwrap();
            file.write_from(0, &mut Sent(source), far).unwrap().1.unwrap();
        });
        let (first, second) = data.split_at(4 << 20);
        first.chunks(4096).for_each(|chunk| sender.send(chunk.to_vec()).unwrap());
        while far.recv().unwrap() < first.len() as u64 {}
        file.sync().unwrap();
        assert_eq!(file.dirty_bytes(), 0, "what was filled is on the server");
        second.chunks(4096).for_each(|chunk| sender.send(chunk.to_vec()).unwrap());
        while far.recv().unwrap() < data.len() as u64 {}
        engine.sync_all().unwrap();
        drop(sender);
        stream.join().unwrap();
    });
    drop(engine);
    file.sync().unwrap();
    assert_same(&read_all(&file), &data, "its handle");
}

#[test]
fn streams_whose_sources_have_nothing_yet_keep_no_other_file_from_being_written_back() {
    const N_STREAMS: usize = 20;
    let dirty_expire = Duration::from_millis(20);
    let engine = Engine::new(Config { memory_bytes: MEMORY, dirty_expire, ..config() }).unwrap();
    let server = MemoryServer::new(MemoryOptions::default());
    let other = crate::support::create(&engine, &server, None, BLOCK as u64);
    thread::scope(|scope| {
        let streams: Vec<_> = (0..N_STREAMS)
            .map(|_| {
                let ((sender, source), (written, far)) = (mpsc::channel(), mpsc::channel());
                let file = draft(&engine, &NullServer::default());
                let mut source = Sent(source);
                scope.spawn(move || {
                    // When the test fails, nobody hears it.
                    let far = |bytes| written.send(bytes).unwrap_or_default();
                    file.write_from(0, &mut source, far).unwrap().1.unwrap();
                });
                (0..256).for_each(|_| sender.send(vec![7; 4096]).unwrap());
                while far.recv().unwrap() < MIB {}
                (sender, far)
            })
            .collect();
        other.write_at(0, &[1; 100]).unwrap();
        let is_clean = || other.dirty_bytes() == 0 && server.n_writes() > 0;
        let waited = (0..10_000).find(|_| {
            thread::sleep(Duration::from_millis(1));
            is_clean()
        });
        assert!(waited.is_some(), "it is dirty still: {}", engine.dump());
        drop(streams);
    });
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
    let mut source = io::Read::take(io::repeat(7), 100 * MIB);
    file.write_from(0, &mut source, |_| ()).unwrap().1.unwrap();
    file.sync().unwrap();
    let n_reads = server.n_reads();
    assert_same(&read_all(&kept), &data, name().as_str());
    assert_eq!(server.n_reads(), n_reads, "nothing had to be fetched");
}

/// Yields so many bytes; then tells of it, and waits to be let go on.
struct Stalling {
    left: usize,
    stalled: mpsc::Sender<()>,
    go_on: mpsc::Receiver<()>,
}

impl io::Read for Stalling {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            self.stalled.send(()).unwrap();
            let _ = self.go_on.recv();
        }
        let n = to.len().min(self.left);
        self.left -= n;
        to[..n].fill(7);
        Ok(n)
    }
}

#[test]
fn a_draft_is_published_without_the_pass_of_a_stream_that_has_stalled() {
    let engine = Engine::new(Config { memory_bytes: MEMORY, ..config() }).unwrap();
    let server = MemoryServer::new(MemoryOptions::default());
    let file = draft(&engine, &server);
    let other = Engine::new(config()).unwrap();
    let ((stalled, has_stalled), (go, go_on)) = (mpsc::channel(), mpsc::channel());
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut source = Stalling { left: 2 << 20, stalled, go_on };
            file.write_from(0, &mut source, |_| ()).unwrap().1.unwrap();
        });
        // It is let go on, too, when this fails.
        let go = go;
        has_stalled.recv().unwrap();
        file.publish().unwrap();
        // It holds no lock on the size, which others may take from now on.
        let mut requests = engine.dump().requests;
        // One that has ended, and tells so, is there for a moment more.
        requests.retain(|request| !matches!(request.view.state, RequestState::Finishing));
        assert!(requests.is_empty(), "still under way: {requests:?}");
        // What it has stored is nobody else's to overwrite.
        let size = open_streamed(&other, &server).size();
        assert!(size >= MIB, "the header speaks of {size} bytes");
        go.send(()).unwrap();
    });
    file.close().unwrap();
    assert_same(&read_all(&open_streamed(&other, &server)), &[7; 2 << 20], name().as_str());
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

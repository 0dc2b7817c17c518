//! Written behind: what was acknowledged comes to the server, as it was sealed, whatever happened meanwhile.

use std::{
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use sealback::{CreateOptions, Engine, File, Place};
use sealback_stream::{MemoryOptions, MemoryServer, Name, WriteBehind, WriteBehindOptions};
use sealback_tests::{
    away::{AwayServer, Road},
    gate::{Gate, GateServer},
};
use tempfile::TempDir;

use crate::support::{
    all_of, assert_same, create, ends, engine, name, open, read_all, root, sample,
};

pub(crate) const BLOCK: usize = 4096;
/// Longer than anything takes that ends.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A server that can be away, and a directory for what waits.
pub(crate) struct World {
    pub(crate) memory: MemoryServer,
    pub(crate) server: AwayServer<MemoryServer>,
    dir: TempDir,
}

/// One life of a client that writes behind.
pub(crate) struct Client {
    pub(crate) engine: Engine,
    pub(crate) behind: WriteBehind,
}

impl World {
    fn new() -> World {
        World::in_dir(TempDir::new().unwrap())
    }

    /// With a directory for what waits.
    fn in_dir(dir: TempDir) -> World {
        let memory = MemoryServer::new(MemoryOptions::default());
        let server = AwayServer::new(memory.clone(), Road::default());
        World { memory, server, dir }
    }

    /// With a file of such bytes on the server.
    pub(crate) fn with(content: &[u8]) -> World {
        World::new().having(content)
    }

    /// The same, with a directory on another disk.
    pub(crate) fn with_on(content: &[u8], disk: &Path) -> World {
        World::in_dir(TempDir::new_in(disk).unwrap()).having(content)
    }

    fn having(self, content: &[u8]) -> World {
        let world = self;
        let file = create(&engine(), &world.memory, None, BLOCK as u64);
        file.write_at(0, content).unwrap();
        file.sync().unwrap();
        world
    }

    /// The directory of what waits.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn client(&self) -> Client {
        self.client_of(engine(), WriteBehindOptions::default())
    }

    pub(crate) fn client_of(&self, engine: Engine, options: WriteBehindOptions) -> Client {
        Client { engine, behind: behind(&self.server, self.dir.path(), options) }
    }

    /// A client whose server is away when it has opened the file.
    pub(crate) fn client_alone(&self) -> (Client, File) {
        let client = self.client();
        let file = client.open();
        self.server.hook.set_away(true);
        (client, file)
    }

    /// Somebody uploads what waits, with the server there.
    pub(crate) fn resume(&self) {
        self.server.hook.set_away(false);
        self.client().resume();
    }

    fn nonces(&self, name: &Name) -> Vec<[u8; 24]> {
        let stored = self.memory.stored(name).unwrap();
        stored[8192..].chunks(BLOCK + 48).map(|block| block[..24].try_into().unwrap()).collect()
    }
}

impl Client {
    pub(crate) fn open(&self) -> File {
        open(&self.engine, &self.behind, None)
    }

    fn resume(&self) {
        let root = root();
        let place = Place { server: &self.behind, cache: None, root: &root };
        for resumed in self.engine.resume(&place, &self.behind).unwrap() {
            resumed.uploaded.unwrap();
        }
        assert!(self.behind.pending().unwrap().is_empty());
    }

    /// The end of the process, more or less: nothing more is uploaded.
    pub(crate) fn die(self, file: File) {
        drop(file);
        drop(self);
    }
}

fn behind(
    server: &AwayServer<MemoryServer>,
    dir: &Path,
    options: WriteBehindOptions,
) -> WriteBehind {
    let opened = || WriteBehind::open(Arc::new(server.clone()), dir, options);
    let since = Instant::now();
    // A thread of the client before may be about to end.
    while opened().is_err() && since.elapsed() < PATIENCE {
        thread::sleep(Duration::from_millis(1));
    }
    opened().unwrap()
}

#[test]
fn what_was_synced_while_the_server_was_away_is_there_after_a_resume() {
    let mut content = sample(10 * BLOCK + 100);
    let world = World::with(&content);
    let (client, file) = world.client_alone();
    let patch = sample(3 * BLOCK);
    file.write_at(2 * BLOCK as u64, &patch).unwrap();
    file.sync().unwrap();
    content[2 * BLOCK..5 * BLOCK].copy_from_slice(&patch);
    assert_same(&read_all_from(&file, 2 * BLOCK, patch.len()), &patch, "the writer");
    client.die(file);
    assert_ne!(all_of(&world.memory), content);
    world.resume();
    assert_same(&all_of(&world.memory), &content, "somebody else");
}

pub(crate) fn read_all_from(file: &File, at: usize, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    assert_eq!(file.read_at(at as u64, &mut bytes).unwrap(), len);
    bytes
}

#[test]
fn what_somebody_else_has_changed_meanwhile_of_the_same_blocks_is_kept() {
    let mut content = sample(4 * BLOCK);
    let world = World::with(&content);
    let (client, file) = {
        let client = world.client();
        let file = client.open();
        // What is to be changed in part is here before the server goes away.
        read_all(&file);
        world.server.hook.set_away(true);
        (client, file)
    };
    for (at, byte) in [(10, 1), (BLOCK + 7, 2), (2 * BLOCK - 3, 3)] {
        file.write_at(at as u64, &[byte; 5]).unwrap();
        content[at..at + 5].fill(byte);
        file.sync().unwrap();
    }
    client.die(file);
    let other = open(&engine(), &world.memory, None);
    for (at, byte) in [(0, 8), (20, 9), (BLOCK, 10), (3 * BLOCK, 11)] {
        other.write_at(at as u64, &[byte; 5]).unwrap();
        content[at..at + 5].fill(byte);
    }
    other.sync().unwrap();
    drop(other);
    world.resume();
    assert_same(&all_of(&world.memory), &content, "somebody else");
}

#[test]
fn growth_that_waits_is_laid_behind_what_others_have_grown_meanwhile() {
    let mut content = sample(BLOCK + 100);
    let world = World::with(&content);
    let (client, file) = world.client_alone();
    content.resize(20 * BLOCK, 0);
    file.write_at(10 * BLOCK as u64, &[5; 2 * BLOCK + 9]).unwrap();
    content[10 * BLOCK..12 * BLOCK + 9].fill(5);
    file.sync().unwrap();
    assert_eq!(file.size(), 12 * BLOCK as u64 + 9);
    client.die(file);
    let other = open(&engine(), &world.memory, None);
    other.write_at(3 * BLOCK as u64 + 5, &[6; 100]).unwrap();
    content[3 * BLOCK + 5..3 * BLOCK + 105].fill(6);
    other.sync().unwrap();
    world.resume();
    content.truncate(12 * BLOCK + 9);
    assert_same(&all_of(&world.memory), &content, "somebody else");
}

#[test]
fn what_others_have_cut_off_meanwhile_does_not_come_back_but_for_what_was_written_here() {
    let content = sample(10 * BLOCK);
    let world = World::with(&content);
    let client = world.client();
    let file = client.open();
    read_all(&file);
    world.server.hook.set_away(true);
    file.write_at(6 * BLOCK as u64 + 10, &[7; 20]).unwrap();
    file.sync().unwrap();
    client.die(file);
    let other = open(&engine(), &world.memory, None);
    other.set_len(2 * BLOCK as u64 + 50).unwrap();
    drop(other);
    world.resume();
    let mut left = content[..2 * BLOCK + 50].to_vec();
    left.resize(6 * BLOCK + 10, 0);
    left.extend([7; 20]);
    assert_same(&all_of(&world.memory), &left, "somebody else");
}

#[test]
fn a_later_process_finds_the_file_as_it_was_written_with_the_server_away() {
    let mut content = sample(5 * BLOCK);
    let world = World::with(&content);
    let (client, file) = world.client_alone();
    let whole = sample(9 * BLOCK + 77);
    file.write_at(0, &whole).unwrap();
    file.sync().unwrap();
    client.die(file);
    let client = world.client();
    let file = client.open();
    assert_same(&read_all(&file), &whole, "the later process");
    file.write_at(3, &[1; 3]).unwrap();
    file.append(&[2; 30]).unwrap();
    file.sync().unwrap();
    content = whole;
    content[3..6].fill(1);
    content.extend([2; 30]);
    assert_same(&read_all(&file), &content, "the later process");
    client.die(file);
    world.resume();
    assert_same(&all_of(&world.memory), &content, "somebody else");
}

#[test]
fn what_is_uploaded_after_a_restart_is_what_was_sealed_before() {
    let world = World::with(&sample(8 * BLOCK));
    let (client, file) = world.client_alone();
    file.write_at(2 * BLOCK as u64, &sample(10 * BLOCK)).unwrap();
    file.sync().unwrap();
    let sealed = client.engine.stats().requests.spans;
    assert!(sealed > 0);
    // What the client itself is given by what stands before its server.
    let written = client.stored(12);
    client.die(file);
    world.server.hook.set_away(false);
    let client = world.client();
    client.resume();
    assert_eq!(client.engine.stats().requests.spans, 0, "something was sealed");
    assert_eq!(world.nonces(&name())[2..], written[2..]);
    assert_eq!(world.nonces(&name()).len(), 12);
}

#[test]
fn a_new_file_waits_as_a_whole_and_goes_up_as_it_was_sealed() {
    let world = World::new();
    world.server.hook.set_away(true);
    let client = world.client();
    let content = sample(300 * BLOCK + 5);
    client.put(&content);
    assert_same(&read_all(&client.open()), &content, "the client");
    let file = client.open();
    let written = client.stored(301);
    client.die(file);
    world.server.hook.set_away(false);
    let client = world.client();
    client.resume();
    assert_eq!(client.engine.stats().requests.spans, 0, "something was sealed");
    assert_eq!(world.nonces(&name()), written);
    assert_same(&all_of(&world.memory), &content, "somebody else");
    // It goes on as any file.
    let file = client.open();
    file.write_at(0, &[1; 10]).unwrap();
    file.sync().unwrap();
    drop(file);
    client.resume();
    assert_eq!(all_of(&world.memory)[..10], [1; 10]);
}

#[test]
fn a_new_file_is_read_while_it_is_uploaded() {
    let memory = MemoryServer::new(MemoryOptions::default());
    let server = GateServer::new(memory.clone(), Gate::default());
    let dir = TempDir::new().unwrap();
    let behind =
        WriteBehind::open(Arc::new(server.clone()), dir.path(), WriteBehindOptions::default());
    let client = Client { engine: engine(), behind: behind.unwrap() };
    let content = sample(30 * BLOCK + 5);
    client.put(&content);
    let file = client.open();
    let uploading = file.submit(File::upload);
    server.hook.wait_for(1);
    // From the directory, not from memory.
    assert_same(&read_all(&open(&engine(), &client.behind, None)), &content, "who reads");
    server.hook.open();
    uploading.wait().unwrap();
    assert_same(&all_of(&memory), &content, "somebody else");
    assert_same(&read_all(&open(&engine(), &client.behind, None)), &content, "who reads later");
}

#[test]
fn a_new_file_with_holes_is_uploaded_with_its_holes() {
    let world = World::new();
    world.server.hook.set_away(true);
    let client = world.client();
    let root = root();
    let place = Place { server: &client.behind, cache: None, root: &root };
    let options = CreateOptions { block_bytes: BLOCK as u64, replace: true };
    let file = client.engine.create(&place, &name(), &options).unwrap();
    file.write_at(5 * BLOCK as u64 + 3, &[1; 9]).unwrap();
    file.set_len(20 * BLOCK as u64 + 1).unwrap();
    file.sync().unwrap();
    file.publish().unwrap();
    let content = read_all(&file);
    client.die(file);
    world.resume();
    assert_same(&all_of(&world.memory), &content, "somebody else");
}

impl Client {
    fn put(&self, content: &[u8]) {
        let root = root();
        let place = Place { server: &self.behind, cache: None, root: &root };
        let options = CreateOptions { block_bytes: BLOCK as u64, replace: true };
        let file = self.engine.create(&place, &name(), &options).unwrap();
        file.write_from(0, &mut &*content, |_| ()).unwrap().1.unwrap();
        file.sync().unwrap();
        file.publish().unwrap();
    }

    /// The nonces of the first blocks, as the client's server has them for it.
    fn stored(&self, n_blocks: u64) -> Vec<[u8; 24]> {
        let pending = self.behind.pending().unwrap();
        let geometry = sealback_crypto::Geometry::new(BLOCK as u64).unwrap();
        let mut nonces = Vec::new();
        for block in 0..n_blocks {
            let (sender, answer) = std::sync::mpsc::channel();
            let done = sealback_stream::ReadCompletion::new(move |read| sender.send(read).unwrap());
            let buffer = sealback_crypto::Buffer::unpooled(BLOCK + 48);
            let read = sealback_stream::Read { blocks: block..block + 1, geometry, buffer };
            pending[0].file.as_ref().unwrap().read(read, done);
            let nonce = answer.recv().unwrap().map(|(buffer, _)| buffer[..24].try_into().unwrap());
            nonces.push(nonce.unwrap_or([0; 24]));
        }
        nonces
    }
}

#[test]
fn a_client_uploads_by_itself_and_goes_on_when_the_server_is_back() {
    let mut content = sample(4 * BLOCK);
    let world = World::with(&content);
    let (client, file) = world.client_alone();
    file.write_at(BLOCK as u64, &[1; BLOCK]).unwrap();
    file.sync().unwrap();
    content[BLOCK..2 * BLOCK].fill(1);
    world.server.hook.set_away(false);
    wait_until_uploaded(&client);
    assert_same(&all_of(&world.memory), &content, "somebody else");
    file.write_at(0, &[2; 10]).unwrap();
    file.append(&[3; 10]).unwrap();
    file.sync().unwrap();
    content[..10].fill(2);
    content.extend([3; 10]);
    wait_until_uploaded(&client);
    assert_same(&all_of(&world.memory), &content, "somebody else");
    assert_same(&read_all(&file), &content, "the client");
}

pub(crate) fn wait_until_uploaded(client: &Client) {
    let since = Instant::now();
    while !client.behind.pending().unwrap().is_empty() {
        assert!(since.elapsed() < PATIENCE, "it is never uploaded");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn cuts_punches_and_new_keys_go_to_the_server_after_what_was_written() {
    let content = sample(10 * BLOCK);
    let world = World::with(&content);
    let client = world.client();
    let file = client.open();
    let mut model = content;
    file.write_at(BLOCK as u64 + 5, &[1; 10]).unwrap();
    model[BLOCK + 5..BLOCK + 15].fill(1);
    file.set_len(5 * BLOCK as u64 + 5).unwrap();
    model.truncate(5 * BLOCK + 5);
    assert_same(&all_of(&world.memory), &model, "somebody else, after a cut");
    file.append(&[2; 2 * BLOCK]).unwrap();
    model.extend([2; 2 * BLOCK]);
    file.punch(BLOCK as u64 + 10..4 * BLOCK as u64).unwrap();
    model[BLOCK + 10..4 * BLOCK].fill(0);
    assert_same(&all_of(&world.memory), &model, "somebody else, after a punch");
    assert_same(&read_all(&file), &model, "the client");
    file.write_at(0, &[3; 10]).unwrap();
    model[..10].fill(3);
    file.rekey(&sealback_crypto::RootKey::from_bytes(&[43; 32])).unwrap();
    let root = sealback_crypto::RootKey::from_bytes(&[43; 32]);
    let place = Place { server: &world.memory, cache: None, root: &root };
    let other = engine().open(&place, &name()).unwrap();
    assert_same(&read_all(&other), &model, "who has the new key");
    world.server.hook.set_away(true);
    assert!(ends(move || file.set_len(1).is_err()).unwrap(), "a cut with the server away");
}

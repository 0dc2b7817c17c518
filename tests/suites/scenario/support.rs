//! What several scenarios begin with.

use std::{sync::mpsc, thread, time::Duration};

use sealback::{Config, CreateOptions, Engine, File, Place};
use sealback_crypto::RootKey;
use sealback_stream::{Cache, MemoryOptions, MemoryServer, Name, Server};
use sealback_tests::{auditor::Auditor, interpose::InterposedServer};

pub(crate) const ROOT: [u8; 32] = [42; 32];

pub(crate) fn root() -> RootKey {
    RootKey::from_bytes(&ROOT)
}

pub(crate) fn name() -> Name {
    Name::new("file").unwrap()
}

/// A server in memory, whose nonces are audited.
pub(crate) fn memory() -> InterposedServer<MemoryServer, Auditor> {
    memory_with(MemoryOptions::default())
}

/// The same without a lock of the size, as object stores are.
pub(crate) fn lockless() -> InterposedServer<MemoryServer, Auditor> {
    memory_with(MemoryOptions::default().without_size_lock())
}

/// The one or the other.
pub(crate) fn memory_locked(locked: bool) -> InterposedServer<MemoryServer, Auditor> {
    if locked { memory() } else { lockless() }
}

pub(crate) fn memory_with(options: MemoryOptions) -> InterposedServer<MemoryServer, Auditor> {
    audited(MemoryServer::new(options))
}

/// A server whose nonces are audited.
pub(crate) fn audited<S: Server>(server: S) -> InterposedServer<S, Auditor> {
    InterposedServer::new(server, Auditor)
}

/// A small engine: little memory, so that the bounds are met.
pub(crate) fn config() -> Config {
    Config { memory_bytes: 8 << 20, span_bytes: 64 << 10, ..Config::default() }
}

/// How many folios such an engine has.
pub(crate) fn n_folios(config: &Config) -> usize {
    config.memory_bytes / 64 * 36 / config.folio_bytes
}

pub(crate) fn engine() -> Engine {
    Engine::new(config()).unwrap()
}

/// The same with folios of that size.
pub(crate) fn engine_with(folio_bytes: usize) -> Engine {
    Engine::new(Config { folio_bytes, ..config() }).unwrap()
}

pub(crate) fn create(
    engine: &Engine,
    server: &dyn Server,
    cache: Option<&dyn Cache>,
    block_bytes: u64,
) -> File {
    let root = root();
    let options = CreateOptions { block_bytes, replace: false };
    engine.create(&Place { server, cache, root: &root }, &name(), &options).unwrap()
}

pub(crate) fn open(engine: &Engine, server: &dyn Server, cache: Option<&dyn Cache>) -> File {
    let root = root();
    engine.open(&Place { server, cache, root: &root }, &name()).unwrap()
}

/// Bytes that differ at every position.
pub(crate) fn sample(len: usize) -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(len as u64);
    let mut bytes = vec![0; len];
    rng.fill(&mut bytes);
    bytes
}

pub(crate) fn read_all(file: &File) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(file.size()).unwrap()];
    assert_eq!(file.read_at(0, &mut bytes).unwrap(), bytes.len());
    bytes
}

#[track_caller]
pub(crate) fn assert_same(seen: &[u8], model: &[u8], by: &str) {
    let differs = |at: &usize| seen[*at] != model[*at];
    let differ: Vec<_> = (0..seen.len().min(model.len())).filter(differs).collect();
    assert_eq!(seen.len(), model.len(), "the length that {by} sees");
    let ends = (differ.first(), differ.last(), differ.first().map(|at| (seen[*at], model[*at])));
    assert!(differ.is_empty(), "{by} sees {} other bytes, at {ends:?}", differ.len());
}

pub(crate) fn all_of(server: &dyn Server) -> Vec<u8> {
    read_all(&open(&engine(), server, None))
}

/// A test that waits this long has failed: it is no measure of speed.
const PATIENCE: Duration = Duration::from_secs(30);

/// What `run` returns; `None` if it does not end.
pub(crate) fn ends<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || sender.send(run()));
    receiver.recv_timeout(PATIENCE).ok()
}

/// Printed when a test fails.
#[derive(Default)]
pub(crate) struct Log(pub(crate) Vec<String>);

impl Drop for Log {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.iter().for_each(|line| eprintln!("{line}"));
        }
    }
}

//! Which requests a stream into a new file makes of a store.

use std::{
    collections::HashSet,
    future::poll_fn,
    sync::{Arc, Mutex},
    task::Poll,
};

use object_store::{PutMode, memory::InMemory, path::Path};
use sealback::{Config, CreateOptions, Engine, File, Place};
use sealback_stream::{
    ObjectOptions, ObjectServer,
    faulty::{HookedStore, StoreFault, StoreHook, StoreRequest},
};

use crate::support::{assert_same, config, ends, name, open, read_all, root, sample};

const BLOCK: u64 = 16 << 10;
const MIB: usize = 1 << 20;
/// So that 512 blocks make a chunk.
const CHUNK_BYTES: u64 = 512 * (BLOCK + 48);

/// Keeps what was asked, and holds puts of chunks until so many are under way at once.
#[derive(Debug)]
struct Asked {
    at_once: usize,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Debug, Default)]
struct Seen {
    requests: Vec<StoreRequest>,
    under_way: HashSet<Path>,
    most: usize,
}

fn is_chunk(key: &Path) -> bool {
    key.as_ref().contains("/blocks/")
}

impl StoreHook for Asked {
    fn begins(&self, request: &StoreRequest) -> StoreFault {
        let mut seen = self.seen.lock().unwrap();
        seen.requests.push(request.clone());
        let StoreRequest::Put { key, .. } = request else { return StoreFault::Pass };
        if !is_chunk(key) {
            return StoreFault::Pass;
        }
        seen.under_way.insert(key.clone());
        seen.most = seen.most.max(seen.under_way.len());
        let (at_once, seen) = (self.at_once, self.seen.clone());
        StoreFault::Wait(Box::pin(poll_fn(move |context| {
            if seen.lock().unwrap().most >= at_once {
                return Poll::Ready(());
            }
            context.waker().wake_by_ref();
            Poll::Pending
        })))
    }

    fn ended(&self, request: &StoreRequest) {
        self.seen.lock().unwrap().under_way.remove(request.key());
    }
}

/// How a file is filled.
type Fill = fn(&File, &[u8]);

fn from_a_stream(file: &File, data: &[u8]) {
    file.write_from(0, &mut &data[..], |_| ()).unwrap().1.unwrap();
}

/// As through a mount.
fn in_small_writes(file: &File, data: &[u8]) {
    let mut at = 0;
    for piece in data.chunks(10_000) {
        file.write_at(at, piece).unwrap();
        at += piece.len() as u64;
    }
}

fn put(engine: &Engine, server: &ObjectServer, fill: Fill, data: &[u8]) -> File {
    let root = root();
    let options = CreateOptions { block_bytes: BLOCK, replace: true };
    let place = Place { server, cache: None, root: &root };
    let file = engine.create(&place, &name(), &options).unwrap();
    fill(&file, data);
    file.sync().unwrap();
    file.publish().unwrap();
    file
}

/// Puts a file, and looks at what that asks of the store.
#[track_caller]
fn put_is_one_request_for_each_chunk(
    fill: Fill,
    memory_bytes: usize,
    at_once: usize,
    file_bytes: usize,
) {
    let seen = Arc::<Mutex<Seen>>::default();
    let store = HookedStore::new(Arc::new(InMemory::new()), Asked { at_once, seen: seen.clone() });
    let options = ObjectOptions::default().with_chunk_bytes(CHUNK_BYTES);
    let server = ObjectServer::open(Arc::new(store), Path::ROOT, options).unwrap();
    server.probe().unwrap();
    seen.lock().unwrap().requests.clear();
    let config = Config { memory_bytes, span_bytes: 512 << 10, ..config() };
    let data = sample(file_bytes);
    let (asked_of, source) = (server.clone(), data.clone());
    ends(move || drop(put(&Engine::new(config).unwrap(), &asked_of, fill, &source)))
        .expect("so many at once are never under way");
    let (mut chunks, mut headers) = (Vec::new(), 0);
    for request in &seen.lock().unwrap().requests {
        match request {
            StoreRequest::Put { key, mode: PutMode::Create, bytes } if is_chunk(key) => {
                chunks.push((key.clone(), *bytes));
            }
            StoreRequest::Put { key, mode: PutMode::Create, .. }
                if key.as_ref() == "file/header" =>
            {
                headers += 1;
            }
            request => panic!("asked for nothing: {request:?}"),
        }
    }
    assert_eq!((chunks.len(), headers), (file_bytes.div_ceil(8 * MIB), 1));
    assert!(chunks[..file_bytes / (8 * MIB)].iter().all(|(_, bytes)| *bytes as u64 == CHUNK_BYTES));
    let reader = Engine::new(Config::default()).unwrap();
    assert_same(&read_all(&open(&reader, &server, None)), &data, "who opens it");
}

#[test]
fn a_new_file_is_put_with_one_request_for_each_chunk_and_one_for_the_header() {
    put_is_one_request_for_each_chunk(from_a_stream, 64 << 20, 1, 64 * MIB);
    put_is_one_request_for_each_chunk(from_a_stream, 64 << 20, 1, 20 * MIB + 12_345);
}

#[test]
fn several_chunks_are_under_way_at_once_where_the_memory_has_room_for_them() {
    put_is_one_request_for_each_chunk(from_a_stream, 64 << 20, 2, 64 * MIB);
    put_is_one_request_for_each_chunk(from_a_stream, 128 << 20, 4, 64 * MIB);
}

#[test]
fn a_file_that_is_written_in_order_is_put_with_one_request_for_each_chunk_too() {
    put_is_one_request_for_each_chunk(in_small_writes, 64 << 20, 1, 64 * MIB);
    put_is_one_request_for_each_chunk(in_small_writes, 64 << 20, 1, 20 * MIB + 12_345);
    put_is_one_request_for_each_chunk(in_small_writes, 256 << 20, 1, 150 * MIB);
}

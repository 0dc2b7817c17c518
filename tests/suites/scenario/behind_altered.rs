//! Written behind into a directory that somebody alters who has no key: nothing of that comes into the file,
//! and nothing that was acknowledged is dropped without a word.

use std::{fs, ops::Range, path::PathBuf};

use sealback::{Error, Place};
use sealback_stream::{TargetErrorKind, WriteBehind};

use crate::{
    behind::{BLOCK, World},
    support::{all_of, assert_same, engine, root, sample},
};

/// A log's records: head (what hashes cover of it, then the hash) and all that follows it.
struct Log {
    /// What the first record knows as the one before it.
    start: [u8; 32],
    records: Vec<(Vec<u8>, Vec<u8>)>,
    path: PathBuf,
}

const HASH_AT: usize = 28;
const HEAD_LEN: usize = 60;
/// What a record's body begins with.
const BLOCKS: u8 = 1;
const PROMISE: u8 = 3;

impl Log {
    /// The one log in a world's directory.
    fn of(world: &World) -> Log {
        let paths = fs::read_dir(world.dir()).unwrap().map(|entry| entry.unwrap().path());
        let logs: Vec<_> = paths
            .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
            .collect();
        let [path] = &logs[..] else { panic!("{logs:?}") };
        let stem = path.file_stem().unwrap().to_str().unwrap();
        let (bytes, mut records, mut at) = (fs::read(path).unwrap(), Vec::new(), 0);
        while at < bytes.len() {
            let field = |range: Range<usize>| {
                let mut field = [0; 8];
                field[..range.len()].copy_from_slice(&bytes[at + range.start..at + range.end]);
                usize::try_from(u64::from_le_bytes(field)).unwrap()
            };
            let end = at + HEAD_LEN + field(16..20) + field(20..28);
            let (head, rest) = bytes[at..end].split_at(HEAD_LEN);
            records.push((head[..HASH_AT].to_vec(), rest.to_vec()));
            at = end;
        }
        Log { start: *blake3::hash(stem.as_bytes()).as_bytes(), records, path: path.clone() }
    }

    /// The body of the first record of a kind.
    fn body(&mut self, kind: u8) -> &mut Vec<u8> {
        &mut self.records.iter_mut().find(|(_, body)| body[0] == kind).unwrap().1
    }

    /// Writes it back, with hashes that are right.
    fn write(&self) {
        let (mut before, mut bytes) = (self.start, Vec::new());
        for (head, rest) in &self.records {
            let mut head = head.clone();
            head[8..16].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
            let mut hasher = blake3::Hasher::new();
            hasher.update(&before).update(&head).update(rest);
            before = *hasher.finalize().as_bytes();
            bytes.extend([&head[..], &before, rest].concat());
        }
        fs::write(&self.path, bytes).unwrap();
    }
}

/// A world in which a patch waits, and what the file has without it.
fn waiting() -> (World, Vec<u8>) {
    let content = sample(4 * BLOCK);
    let world = World::with(&content);
    let (client, file) = world.client_alone();
    file.write_at(BLOCK as u64, &[1; BLOCK]).unwrap();
    file.sync().unwrap();
    client.die(file);
    world.server.hook.set_away(false);
    (world, content)
}

fn resume(behind: &WriteBehind) -> Result<(), Error> {
    let root = root();
    let place = Place { server: behind, cache: None, root: &root };
    engine()
        .resume(&place, behind)
        .unwrap()
        .into_iter()
        .try_for_each(|file| file.uploaded.map(drop))
}

/// Goal: only who has the file's key says how long it is, where its holes are, and what is laid over what.
#[test]
fn what_somebody_without_the_key_writes_into_a_log_is_not_uploaded() {
    let alterations: [fn(&mut Log); 5] = [
        // The file has grown.
        |log| log.body(PROMISE)[1..9].copy_from_slice(&(1_u64 << 40).to_le_bytes()),
        // Blocks of it are holes.
        |log| log.body(PROMISE)[17..25].copy_from_slice(&4_u64.to_le_bytes()),
        // The block is another one.
        |log| log.body(BLOCKS)[2] = 2,
        // A record is gone; or there twice.
        |log| log.records.retain(|(_, body)| body[0] != BLOCKS),
        |log| log.records.insert(0, log.records[0].clone()),
    ];
    for (n, alter) in alterations.into_iter().enumerate() {
        let (world, content) = waiting();
        let mut log = Log::of(&world);
        alter(&mut log);
        log.write();
        let altered = fs::read(&log.path).unwrap();
        let client = world.client();
        let error = resume(&client.behind).unwrap_err();
        assert_eq!(error.target_kind(), Some(TargetErrorKind::Damaged), "{n}: {error}");
        assert_same(&all_of(&world.memory), &content, "somebody else");
        assert_eq!(fs::read(&log.path).unwrap(), altered, "{n}: it stays as it is found");
    }
}

#[test]
fn a_log_that_is_written_back_as_it_was_is_uploaded() {
    let (world, mut content) = waiting();
    Log::of(&world).write();
    resume(&world.client().behind).unwrap();
    content[BLOCK..2 * BLOCK].fill(1);
    assert_same(&all_of(&world.memory), &content, "somebody else");
}

#[test]
fn a_log_that_is_given_another_files_name_is_told() {
    let (world, content) = waiting();
    let log = Log::of(&world);
    let stem = log.path.file_stem().unwrap().to_str().unwrap().strip_suffix(".0").unwrap();
    let head = log.path.with_file_name(format!("{stem}.head"));
    let said = fs::read(&head).unwrap();
    let renamed = [&said[..8 + 8192], b"another"].concat();
    fs::write(&head, [&renamed[..], blake3::hash(&renamed).as_bytes()].concat()).unwrap();
    let error = resume(&world.client().behind).unwrap_err();
    assert_eq!(error.target_kind(), Some(TargetErrorKind::Damaged), "{error}");
    assert_same(&all_of(&world.memory), &content, "somebody else");
    fs::write(&head, said).unwrap();
    resume(&world.client().behind).unwrap();
    assert_ne!(all_of(&world.memory), content);
}

#[test]
fn what_somebody_appends_to_a_log_is_dropped() {
    let (world, mut content) = waiting();
    let mut log = Log::of(&world);
    let mut zeroed = log.records[0].clone();
    // As if the first block were a hole.
    zeroed.1 = [&[BLOCKS, 1][..], &0_u64.to_le_bytes(), &1_u64.to_le_bytes()].concat();
    zeroed.0[16..20].copy_from_slice(&u32::try_from(zeroed.1.len()).unwrap().to_le_bytes());
    zeroed.0[20..28].fill(0);
    log.records.push(zeroed);
    log.write();
    resume(&world.client().behind).unwrap();
    content[BLOCK..2 * BLOCK].fill(1);
    assert_same(&all_of(&world.memory), &content, "somebody else");
}

#[test]
fn another_files_log_is_not_taken_for_this_ones() {
    let (world, content) = waiting();
    let log = Log::of(&world);
    let bytes = fs::read(&log.path).unwrap();
    // Another log of the same file.
    let stem = log.path.file_stem().unwrap().to_str().unwrap().replace(".0", ".1");
    fs::rename(&log.path, log.path.with_file_name(format!("{stem}.log"))).unwrap();
    let error = resume(&world.client().behind).unwrap_err();
    assert_eq!(error.target_kind(), Some(TargetErrorKind::Damaged), "{error}");
    fs::rename(log.path.with_file_name(format!("{stem}.log")), &log.path).unwrap();
    assert_eq!(fs::read(&log.path).unwrap(), bytes, "it stays as it is found");
    assert_same(&all_of(&world.memory), &content, "somebody else");
    resume(&world.client().behind).unwrap();
}

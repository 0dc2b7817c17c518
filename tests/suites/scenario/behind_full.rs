//! Written behind into logs that are full: who writes is told, or waits, and nothing is lost.

use std::{
    thread,
    time::{Duration, Instant},
};

use sealback::{Config, Engine, Error, File, RetryLimits};
use sealback_stream::{Server, WhenFull, WriteBehindOptions};

use crate::{
    behind::{BLOCK, Client, PATIENCE, World, wait_until_uploaded},
    support::{all_of, assert_same, config, engine, name, sample},
};

/// So much may wait, and so much more may be on its way when that is reached.
const ROOM: u64 = 1 << 20;
const ON_ITS_WAY: u64 = 4 * (4 << 20) + (1 << 20);
const LARGE: usize = 32 << 20;

fn client(world: &World, when_full: WhenFull) -> Client {
    let options =
        WriteBehindOptions { max_log_bytes: ROOM, when_full, ..WriteBehindOptions::default() };
    world.client_of(engine(), options)
}

fn waiting_bytes(client: &Client) -> u64 {
    client.behind.pending().unwrap().iter().map(|pending| pending.bytes).sum()
}

fn until(mut is_so: impl FnMut() -> bool, what: &str) {
    let since = Instant::now();
    while !is_so() {
        assert!(since.elapsed() < PATIENCE, "{what}");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_full_log_keeps_what_is_written_dirty_until_there_is_room() {
    let world = World::with(&sample(BLOCK));
    let options = WriteBehindOptions {
        max_log_bytes: 40 * BLOCK as u64,
        when_full: WhenFull::Fail,
        ..WriteBehindOptions::default()
    };
    let limits = RetryLimits { max_attempts: 2, ..config().retry };
    let client =
        world.client_of(Engine::new(Config { retry: limits, ..config() }).unwrap(), options);
    let file = client.open();
    world.server.hook.set_away(true);
    let content = sample(60 * BLOCK);
    file.write_at(0, &content[..30 * BLOCK]).unwrap();
    file.sync().unwrap();
    file.write_at(30 * BLOCK as u64, &content[30 * BLOCK..]).unwrap();
    file.sync().unwrap_err();
    assert!(file.dirty_bytes() > 0);
    world.server.hook.set_away(false);
    until(|| file.sync().is_ok(), "there is never room");
    drop(file);
    wait_until_uploaded(&client);
    assert_same(&all_of(&world.memory), &content, "somebody else");
}

/// Overwrites all of a large file, and syncs it.
fn overwrite(file: &File, content: &[u8]) -> Result<(), Error> {
    for (at, piece) in content.chunks(1 << 20).enumerate() {
        file.write_at((at << 20) as u64, piece)?;
    }
    file.sync()
}

/// Other bytes than a large file has.
fn others() -> Vec<u8> {
    sample(LARGE).iter().map(|byte| byte ^ 0x55).collect()
}

fn start_overwriting(file: &File) -> thread::JoinHandle<Result<(), Error>> {
    let file = file.reopen();
    thread::spawn(move || overwrite(&file, &others()))
}

#[test]
fn who_writes_to_a_full_log_waits_until_the_server_is_back_if_that_is_asked_for() {
    let world = World::with(&sample(LARGE));
    let client = client(&world, WhenFull::Wait);
    let file = client.open();
    world.server.hook.set_away(true);
    let writer = start_overwriting(&file);
    until(|| waiting_bytes(&client) >= ROOM, "nothing is logged");
    // As far as it gets.
    let mut before = 0;
    until(
        || {
            thread::sleep(Duration::from_millis(200));
            waiting_bytes(&client) == std::mem::replace(&mut before, waiting_bytes(&client))
        },
        "it goes on and on",
    );
    assert!(waiting_bytes(&client) < ROOM + ON_ITS_WAY, "{} wait", waiting_bytes(&client));
    assert!(!writer.is_finished(), "it does not wait");
    world.server.hook.set_away(false);
    until(|| writer.is_finished(), "it waits for ever");
    writer.join().unwrap().unwrap();
    let content = others();
    wait_until_uploaded(&client);
    assert_same(&all_of(&world.memory), &content, "somebody else");
}

#[test]
fn more_than_the_logs_hold_is_written_while_the_server_is_there_though_nobody_syncs() {
    let world = World::with(&sample(LARGE));
    let client = client(&world, WhenFull::Wait);
    let file = client.open();
    let content = others();
    overwrite(&file, &content).unwrap();
    assert!(waiting_bytes(&client) < ROOM + ON_ITS_WAY, "{} wait", waiting_bytes(&client));
    wait_until_uploaded(&client);
    assert_same(&all_of(&world.memory), &content, "somebody else");
}

/// What a pass adds behind the end cannot be uploaded before the pass has ended.
#[test]
fn a_file_that_grows_by_more_than_the_logs_hold_does_not_wait_for_itself() {
    let world = World::with(&sample(BLOCK));
    let client = client(&world, WhenFull::Wait);
    let file = client.open();
    world.server.hook.set_away(true);
    let content = sample(8 << 20);
    let written = content.clone();
    let writing = file.submit(move |file| overwrite(file, &written));
    until(|| waiting_bytes(&client) >= ROOM, "nothing is logged");
    world.server.hook.set_away(false);
    writing.wait().unwrap();
    wait_until_uploaded(&client);
    assert_same(&all_of(&world.memory), &content, "somebody else");
}

#[test]
fn who_writes_to_a_file_that_the_server_has_no_more_is_told_when_the_log_is_full() {
    let world = World::with(&sample(LARGE));
    drop(client(&world, WhenFull::Wait).open());
    world.memory.remove(&name()).unwrap();
    world.server.hook.set_away(true);
    let client = client(&world, WhenFull::Wait);
    let file = client.open();
    let writer = start_overwriting(&file);
    until(|| waiting_bytes(&client) >= ROOM, "nothing is logged");
    world.server.hook.set_away(false);
    until(|| writer.is_finished(), "it waits for ever");
    writer.join().unwrap().unwrap_err();
    // Nobody is to have it written now.
    file.discard();
}

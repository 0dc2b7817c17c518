//! A change that fails says so in one line, and leaves all else what it was.

use std::{
    fs,
    io::Write,
    os::{
        fd::OwnedFd,
        unix::{fs::symlink, net::UnixStream},
    },
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{
    failure::Mounted,
    world::{AT, HEADER, Outcome, PREFIX, World, bytes},
};

const BLOCK: usize = 4096;
const KIB: usize = 1024;
const MIB: usize = 1 << 20;

/// Every command that changes a file in place, on `file`.
const CHANGES: [&[&str]; 4] = [
    &["patch", "file", "source", "--offset", "5000"],
    &["truncate", "file", "5000"],
    &["punch", "file", "--offset", "5", "--length", "10000"],
    &["rekey", "file", "--new-key", "other"],
];

/// A world with a `file` of 5 blocks, and another key.
fn world() -> (World, Vec<u8>) {
    let world = World::new();
    let plain = bytes(31, 4 * BLOCK + 1000);
    world.put_bytes(&plain, "file", &["--block-size", "4KiB", "--cache", "cache"]);
    world.run(&["keygen", "other"]).succeeds();
    world.write("source", b"patch");
    (world, plain)
}

/// Asserts that every change fails on these stored bytes, and changes none of them.
fn refuses(world: &World, stored: &[u8], meanings: &[&str]) {
    for change in CHANGES {
        for further in [&[][..], &["--cache", "cache"]] {
            fs::write(world.stored("file"), stored).unwrap();
            world.on(&[change, further].concat()).fails(meanings);
            assert!(fs::read(world.stored("file")).unwrap() == stored, "{change:?}");
        }
    }
}

#[test]
fn what_does_not_open_is_not_changed() {
    let (world, _) = world();
    let sound = world.read("server/file");
    refuses(&world, b"", &["cut short: 0 of 8192 bytes"]);
    refuses(&world, &bytes(5, 20_000), &["no sealed file"]);
    refuses(&world, &sound[..HEADER - 1], &["cut short"]);
    let (even, odd) = (600, 4700);
    for places in [&[even][..], &[odd], &[even, odd], &[20], &[4116]] {
        let mut damaged = sound.clone();
        places.iter().for_each(|at| damaged[*at] ^= 1);
        refuses(&world, &damaged, &["header"]);
    }
    fs::rename(world.path("other"), world.path("key")).unwrap();
    world.run(&["keygen", "other"]).succeeds();
    refuses(&world, &sound, &["another root key"]);
}

#[test]
fn what_is_missing_or_a_directory_is_named() {
    let (world, plain) = world();
    fs::create_dir(world.stored("dir")).unwrap();
    for change in CHANGES {
        let on = |name: &'static str| {
            let mut args = change.to_vec();
            args[1] = name;
            world.on(&args)
        };
        on("dir").fails(&["dir: is a directory"]);
        on("nothing").fails(&["nothing: there is no such file on the server"]);
        let at = |server, key| [change, &["--server", server, "--key", key]].concat();
        world.run(&at("nowhere", "key")).fails(&["nowhere: no such file"]);
        world.run(&at("source", "key")).fails(&["source is not a directory"]);
        world.run(&at("server", "nothing")).fails(&["the key file nothing: no such file"]);
        world.run(&at("server", "server")).fails(&["the key file server: is a directory"]);
    }
    world.on(&["patch", "file", "server", "--offset", "0"]).fails(&["is a directory"]);
    world.on(&["patch", "file", "nothing", "--offset", "0"]).fails(&["no such file"]);
    world.on(&["rekey", "file", "--new-key", "nothing"]).fails(&["no such file"]);
    world.on(&["rekey", "file", "--new-key", "server"]).fails(&["is a directory"]);
    world.on(&["rekey", "file", "--new-key", "source"]).fails(&["5 bytes"]);
    fs::remove_dir(world.stored("dir")).unwrap();
    world.holds_only(&["file"]);
    assert!(world.get_bytes("file", &[]) == plain);
}

#[test]
fn a_source_that_fails_in_the_middle_leaves_what_went_before_it() {
    let (world, mut plain) = world();
    let data = bytes(32, 50_000);
    let (reader, mut writer) = UnixStream::pair().unwrap();
    writer.write_all(&data).unwrap();
    // A peer that is gone with something unread resets the connection, behind what it sent.
    (&reader).write_all(b"unread").unwrap();
    drop(writer);
    let args = [&["patch", "file", "-", "--offset", "3000"], &AT[..]].concat();
    let mut command = world.command(&args);
    command.stdin(OwnedFd::from(reader));
    let outcome = Outcome::of(&args, &command.output().unwrap());
    outcome.fails(&["standard input: connection reset by peer (os error 104); the 50000 bytes"]);
    plain.truncate(3000);
    plain.extend(data);
    assert!(world.get_bytes("file", &[]) == plain);
    world.verify("file").succeeds();
    // One that fails at once changes nothing.
    let sound = world.read("server/file");
    let args = ["patch", "file", "/proc/self/mem", "--offset", "3000"];
    world.on(&args).fails(&["/proc/self/mem: "]);
    assert!(world.read("server/file") == sound);
}

#[test]
fn a_patch_that_is_killed_leaves_what_is_not_patched_and_no_more_than_was_written() {
    let (world, plain) = world();
    let args = [&["patch", "file", "/dev/zero", "--offset", "9000"], &AT[..]].concat();
    let mut child = world.command(&args).stdout(Stdio::null()).spawn().unwrap();
    // Only when much has been written, so that the file's own blocks have been.
    let started = Instant::now();
    while fs::metadata(world.stored("file")).unwrap().len() < 8 << 20 {
        assert!(started.elapsed() < Duration::from_secs(60), "nothing is written");
        thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let got = world.get_bytes("file", &[]);
    // It has grown by what was committed meanwhile: zeros.
    assert!(got.len() >= plain.len() && got[..9000] == plain[..9000]);
    assert!(got[plain.len()..].iter().all(|byte| *byte == 0));
    // What lies behind the end is not met when the file grows over it.
    let mut model = got;
    world.on(&["truncate", "file", "5MiB"]).succeeds();
    model.resize(5 << 20, 0);
    world.patch_bytes("file", b"behind", 7 << 20, &[]);
    model.resize(7 << 20, 0);
    model.extend(b"behind");
    assert!(world.get_bytes("file", &[]) == model);
}

#[test]
fn a_file_is_not_patched_with_its_own_stored_bytes() {
    let (world, _) = world();
    let sound = world.read("server/file");
    symlink("server/file", world.path("link")).unwrap();
    for source in ["server/file", "link"] {
        let args = ["patch", "file", source, "--offset", "0"];
        world.on(&args).fails(&["is the stored file itself"]);
    }
    assert!(world.read("server/file") == sound);
}

#[test]
fn what_would_go_beyond_2_to_the_60_changes_nothing() {
    let (world, _) = world();
    let sound = world.read("server/file");
    let all = 1_u64 << 60;
    for offset in [all - 4, all] {
        let args = ["patch", "file", "source", "--offset", &offset.to_string()];
        world.on(&args).fails(&["at most 2^60 bytes"]);
    }
    let args = ["patch", "file", "-", "--offset", &all.to_string()];
    world.on_with(&args, b"patch").fails(&["at most 2^60 bytes"]);
    assert!(world.read("server/file") == sound);
}

#[test]
fn a_file_larger_than_the_disk_allows_is_refused_and_stays() {
    let (world, plain) = world();
    // Few file systems hold a file of 2^60 bytes; one that does may well have it.
    let all = (1_u64 << 60).to_string();
    let outcome = world.on(&["truncate", "file", &all]);
    if outcome.stderr.is_empty() {
        println!("skipped: this file system holds a file of 2^60 bytes");
        return;
    }
    outcome.fails(&["file: bytes", "file too large"]);
    assert!(world.get_bytes("file", &[]) == plain);
    let near = ((1_u64 << 60) - 5).to_string();
    world.on(&["patch", "file", "source", "--offset", &near]).fails(&["file: bytes"]);
    assert!(world.get_bytes("file", &[]) == plain);
}

#[test]
fn a_full_disk_keeps_what_is_not_patched() {
    let world = World::new();
    let Some(_mounted) = Mounted::tmpfs(&world, "server", "4m") else { return };
    let plain = bytes(33, MIB + 5);
    world.put_bytes(&plain, "file", &["--block-size", "4KiB"]);
    world.write("source", &bytes(34, 10 * MIB));
    let at = 500 * KIB + 7;
    for further in [&[][..], &["--cache", "cache"]] {
        let args = ["patch", "file", "source", "--offset", &at.to_string()];
        world.on(&[&args, further].concat()).fails(&["no space"]);
        let got = world.get_bytes("file", &[]);
        // It has grown by what there was room for.
        assert!(got.len() >= plain.len() && got[..at] == plain[..at]);
        let said = world.on(&["verify", "file", "--cache", "cache"]).succeeds().stdout();
        assert!(said.contains(", 0 damaged\n") && said.contains(", 0 differing\n"), "{said}");
        assert!(world.get_bytes("file", &["--cache", "cache"]) == got);
    }
    world.holds_only(&["file"]);
}

#[test]
fn a_full_disk_is_no_hindrance_to_cutting_and_punching() {
    let world = World::new();
    let Some(_mounted) = Mounted::tmpfs(&world, "server", "2m") else { return };
    let mut plain = bytes(39, MIB);
    world.put_bytes(&plain, "file", &["--block-size", "4KiB"]);
    let filler = fs::File::create(world.stored("filler")).unwrap();
    while (&filler).write_all(&[0; 4096]).is_ok() {}
    world.on(&["truncate", "file", "1000001"]).succeeds();
    world.on(&["punch", "file", "--offset", "7", "--length", "100000"]).succeeds();
    plain.truncate(1_000_001);
    plain[7..100_007].fill(0);
    assert!(world.get_bytes("file", &[]) == plain);
}

#[test]
fn a_full_disk_under_a_hole_keeps_what_is_not_patched() {
    let world = World::new();
    let Some(_mounted) = Mounted::tmpfs(&world, "server", "2m") else { return };
    let mut plain = bytes(35, MIB);
    world.put_bytes(&plain, "file", &[]);
    world.on(&["punch", "file", "--offset", "64KiB", "--length", "512KiB"]).succeeds();
    plain[64 * KIB..576 * KIB].fill(0);
    world.write("server/filler", &vec![0; 1_350 * KIB]);
    world.write("source", &bytes(36, 512 * KIB));
    let patch = ["patch", "file", "source", "--offset", "64KiB"];
    world.on(&patch).fails(&["no space"]);
    // The block at which the disk was full is the hole that it was.
    let said = world.on(&["verify", "file"]).succeeds().stdout();
    assert!(said.contains(", 0 damaged\n"), "{said}");
    fs::remove_file(world.stored("filler")).unwrap();
    world.on(&patch).succeeds();
    plain[64 * KIB..576 * KIB].copy_from_slice(&bytes(36, 512 * KIB));
    assert!(world.get_bytes("file", &[]) == plain);
}

#[test]
fn what_may_only_be_read_is_not_changed() {
    let (world, plain) = world();
    let Some(world) = world.unprivileged() else { return };
    world.allow("server/file", 0o400);
    let sound = world.read("server/file");
    for change in CHANGES {
        world.on(change).fails(&["for reading only"]);
        assert!(world.read("server/file") == sound, "{change:?}");
    }
    assert!(world.get_bytes("file", &[]) == plain);
    world.allow("server/file", 0);
    world.allow("source", 0);
    for change in CHANGES {
        world.on(change).fails(&["permission denied"]);
    }
    world.allow("server/file", 0o600);
    world.on(CHANGES[0]).fails(&["source: permission denied"]);
    world.allow("other", 0);
    world.on(CHANGES[3]).fails(&["the key file other: permission denied"]);
    assert!(world.read("server/file") == sound);
}

#[test]
fn a_read_only_file_system_is_not_changed() {
    let world = World::new();
    let Some(_mounted) = Mounted::tmpfs(&world, "server", "4m") else { return };
    let plain = bytes(37, 20_000);
    world.put_bytes(&plain, "file", &[]);
    world.run(&["keygen", "other"]).succeeds();
    remount(&world.path("server"), "ro");
    for change in CHANGES {
        world.on(change).fails(&["for reading only", "read-only file system"]);
    }
    world.put("source", "file", &[]).fails(&["read-only"]);
    assert!(world.get_bytes("file", &[]) == plain);
    remount(&world.path("server"), "rw");
    world.holds_only(&["file"]);
    for change in CHANGES {
        world.on(change).succeeds();
    }
}

fn remount(path: &Path, how: &str) {
    let mut mount = Command::new("mount");
    let status = mount.args(["-o", &format!("remount,{how}")]).arg(path).status().unwrap();
    assert!(status.success());
}

#[test]
fn a_damaged_block_is_not_patched_in_part_and_may_be_as_a_whole() {
    let (world, mut plain) = world();
    let at = HEADER + 2 * (PREFIX + BLOCK) + 100;
    let mut damaged = world.read("server/file");
    damaged[at] ^= 1;
    world.write("server/file", &damaged);
    let in_block = |offset: usize| (2 * BLOCK + offset).to_string();
    for offset in [1, BLOCK - 3] {
        let args = ["patch", "file", "source", "--offset", &in_block(offset)];
        world.on(&args).fails(&["block 2: altered or torn"]);
        assert!(world.read("server/file")[at] == damaged[at]);
    }
    world.on(&["truncate", "file", &in_block(7)]).fails(&["block 2: altered or torn"]);
    world.write("server/file", &damaged);
    let args = ["punch", "file", "--offset", &in_block(1), "--length", "10"];
    world.on(&args).fails(&["block 2: altered or torn"]);
    assert!(world.read("server/file") == damaged);
    // One that ends in the damaged block may have written the blocks before that, whole.
    let data = bytes(40, 2 * BLOCK);
    world.write("source", &data);
    world.on(&["patch", "file", "source", "--offset", "100"]).fails(&["block 2: altered or torn"]);
    let said = world.verify("file").fails(&["damaged: 1 of 5 blocks"]).stdout();
    assert!(said.starts_with("block 2: "), "{said}");
    world.patch_bytes("file", &data, 0, &[]);
    plain[..2 * BLOCK].copy_from_slice(&data);
    world.patch_bytes("file", &bytes(38, BLOCK), 2 * BLOCK, &[]);
    plain[2 * BLOCK..3 * BLOCK].copy_from_slice(&bytes(38, BLOCK));
    assert!(world.get_bytes("file", &[]) == plain);
}

#[test]
fn an_answer_that_nobody_reads_is_an_error_of_a_change_that_was_made() {
    let (world, plain) = world();
    for (change, size) in CHANGES.iter().zip([plain.len(), 5000, 5000]) {
        for json in [&[][..], &["--json"]] {
            let args = [change, &AT[..], json].concat();
            let mut command = world.command(&args);
            command.stdout(fs::File::options().write(true).open("/dev/full").unwrap());
            let outcome = Outcome::of(&args, &command.output().unwrap());
            outcome.fails(&["standard output: no space"]);
        }
        assert_eq!(world.get_bytes("file", &[]).len(), size, "{change:?}");
    }
}

//! Everything that can go wrong around the files leaves what was there before, and nothing else.

use std::{
    fs,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::world::{Outcome, World, bytes};

const MIB: usize = 1 << 20;

/// A world with an earlier version of `file`, and that version.
fn with_earlier() -> (World, Vec<u8>) {
    let world = World::new();
    let earlier = bytes(21, 3 * MIB + 5);
    world.put_bytes(&earlier, "file", &["--cache", "cache"]);
    (world, earlier)
}

/// Asserts that the earlier version is all that is there.
fn keeps(world: &World, earlier: &[u8]) {
    world.holds_only(&["file"]);
    assert!(world.get_bytes("file", &[]) == earlier);
    assert!(world.get_bytes("file", &["--cache", "cache"]) == earlier);
}

#[test]
fn a_source_that_cannot_be_read_keeps_the_earlier_version() {
    let (world, earlier) = with_earlier();
    world.put("server", "file", &["--cache", "cache"]).fails(&["is a directory"]);
    keeps(&world, &earlier);
    world.put("nothing", "file", &["--cache", "cache"]).fails(&["no such file"]);
    keeps(&world, &earlier);
    // A directory as standard input fails at the first read, after the draft was begun.
    let args = ["put", "-", "--server", "server", "--key", "key", "--name", "file"];
    let mut command = world.command(&args);
    command.stdin(fs::File::open(world.path("server")).unwrap());
    Outcome::of(&args, &command.output().unwrap()).fails(&["is a directory"]);
    keeps(&world, &earlier);
}

#[test]
fn a_source_whose_reading_fails_keeps_the_earlier_version() {
    let (world, earlier) = with_earlier();
    // A process's memory: it can be opened, and nothing is mapped at its start.
    let with = ["--cache", "cache", "--memory", "8MiB"];
    world.put("/proc/self/mem", "file", &with).fails(&["/proc/self/mem"]);
    keeps(&world, &earlier);
}

#[test]
fn a_put_that_is_killed_keeps_the_earlier_version_and_its_draft_goes() {
    let (world, earlier) = with_earlier();
    let args = ["put", "/dev/zero", "--server", "server", "--key", "key", "--name", "file"];
    let mut child = world.command(&args).stdout(Stdio::null()).spawn().unwrap();
    // Only when much has been written.
    let started = Instant::now();
    // A draft need not have a name.
    let descriptors = format!("/proc/{}/fd", child.id());
    let large = |entry: fs::DirEntry| {
        fs::metadata(entry.path()).is_ok_and(|there| there.is_file() && there.len() > 8 << 20)
    };
    while !fs::read_dir(&descriptors).unwrap().flatten().any(large) {
        assert!(started.elapsed() < Duration::from_secs(60), "nothing is written");
        thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    // Whoever opens the server next removes what nobody writes any more.
    assert!(world.get_bytes("file", &[]) == earlier);
    keeps(&world, &earlier);
}

#[test]
fn a_full_disk_keeps_the_earlier_version() {
    let world = World::new();
    let Some(_mounted) = Mounted::tmpfs(&world, "server", "8m") else { return };
    let earlier = bytes(22, 2 * MIB);
    world.put_bytes(&earlier, "file", &["--cache", "cache"]);
    world.write("source", &bytes(23, 30 * MIB));
    for with in [&[][..], &["--cache", "cache"]] {
        world.put("source", "file", with).fails(&["no space"]);
        keeps(&world, &earlier);
    }
}

#[test]
fn a_full_cache_is_done_without() {
    let world = World::new();
    let Some(_mounted) = Mounted::tmpfs(&world, "cache", "4m") else { return };
    let plain = bytes(24, 20 * MIB);
    world.write("source", &plain);
    let json = world.put("source", "file", &["--cache", "cache", "--json"]).succeeds().json();
    assert!(json["cache_file"].is_null(), "{json}");
    assert!(world.get_bytes("file", &[]) == plain);
    assert!(world.get_bytes("file", &["--cache", "cache"]) == plain);
}

#[test]
fn a_full_disk_leaves_no_part_of_an_output() {
    let world = World::new();
    fs::create_dir(world.path("small")).unwrap();
    let Some(_mounted) = Mounted::tmpfs(&world, "small", "2m") else { return };
    world.put_bytes(&bytes(25, 9 * MIB), "file", &[]);
    let args = ["get", "file", "--server", "server", "--key", "key", "--out", "small/out"];
    world.run(&args).fails(&["no space"]);
    assert!(crate::world::names_in(&world.path("small")).is_empty());
}

#[test]
fn a_directory_where_a_file_should_be_is_named() {
    let world = World::new();
    world.write("source", b"x");
    fs::create_dir(world.stored("dir")).unwrap();
    world.put("source", "dir", &[]).fails(&["is a directory"]);
    world.get("dir", &[]).fails(&["is a directory"]);
    world.verify("dir").fails(&["is a directory"]);
    world.inspect("dir").fails(&["is a directory"]);
    world.holds_only(&["dir"]);
    world.put("source", "file", &[]).succeeds();
    fs::create_dir(world.path("out")).unwrap();
    world.get("file", &[]).fails(&["is a directory"]);
    assert!(crate::world::names_in(&world.path("out")).is_empty());
}

#[test]
fn what_is_missing_is_named() {
    let world = World::new();
    world.write("source", b"x");
    world.get("file", &[]).fails(&["no such file"]);
    world.verify("file").fails(&["no such file"]);
    world.inspect("file").fails(&["no such file"]);
    assert!(!world.path("out").exists());
    let nowhere = ["--server", "nowhere", "--key", "key"];
    world.run(&[&["put", "source"], &nowhere[..]].concat()).fails(&["nowhere: no such file"]);
    assert!(!world.path("nowhere").exists());
    let no_dir = ["--server", "source", "--key", "key"];
    world.run(&[&["put", "source"], &no_dir[..]].concat()).fails(&["source is not a directory"]);
    world.put("source", "file", &["--cache", "source"]).fails(&["the cache"]);
    let meaning = "the cache: it cannot be the server's directory";
    world.put("source", "file", &["--cache", "./server"]).fails(&[meaning]);
    world.holds_only(&[]);
    world.put("source", "file", &[]).succeeds();
    let out = ["--server", "server", "--key", "key", "--out", "no/such/dir/out"];
    world.run(&[&["get", "file"], &out[..]].concat()).fails(&["no such file"]);
}

#[test]
fn what_may_not_be_read_or_written_is_named() {
    let world = World::new();
    world.put_bytes(b"x", "file", &[]);
    let Some(world) = world.unprivileged() else { return };
    let allow = |path: &str, mode| world.allow(path, mode);
    allow("source", 0);
    world.put("source", "file", &[]).fails(&["permission denied"]);
    allow("server/file", 0);
    world.get("file", &[]).fails(&["permission denied"]);
    allow("server/file", 0o400);
    world.get("file", &[]).succeeds();
    allow("key", 0);
    world.get("file", &[]).fails(&["permission denied"]);
}

#[test]
fn control_characters_in_a_name_do_not_break_the_line() {
    let world = World::new();
    world.get("two\nlines", &[]).fails(&["two\\nlines"]);
    world.put("no\nsuch", "file", &[]).fails(&["no\\nsuch"]);
}

#[test]
fn an_output_that_nobody_reads_is_an_error_and_no_panic() {
    let world = World::new();
    world.put_bytes(&bytes(1, 3 * MIB), "file", &[]);
    let out = ["--server", "server", "--key", "key"];
    let to_stdout: &[&str] = &["--out", "-"];
    for (command, further) in
        [("get", to_stdout), ("verify", &[]), ("inspect", &[]), ("inspect", &["--json"])]
    {
        let args = [&[command, "file"], &out[..], further].concat();
        for full in ["/dev/full", "closed pipe"] {
            let mut command = world.command(&args);
            match full {
                "/dev/full" => {
                    command.stdout(fs::File::options().write(true).open(full).unwrap());
                }
                _ => {
                    let (reader, writer) = std::io::pipe().unwrap();
                    drop(reader);
                    command.stdout(writer);
                }
            }
            let outcome = Outcome::of(&args, &command.output().unwrap());
            outcome.fails(&["standard output: no space", "standard output: broken pipe"]);
        }
    }
}

#[test]
fn the_demonstration_succeeds_and_cleans_up() {
    let world = World::new();
    fs::create_dir(world.path("tmp")).unwrap();
    let mut command = world.command(&[]);
    command.env("TMPDIR", world.path("tmp"));
    let said = Outcome::of(&[], &command.output().unwrap()).succeeds().stdout();
    for word in ["GB/s", "stalls", "Peak memory", "folios", "upload", "cache", "prepared"] {
        assert!(said.contains(word), "{word:?} is missing in {said}");
    }
    assert_eq!(said.lines().filter(|line| line.starts_with("ok ")).count(), 2, "{said}");
    assert!(said.lines().all(|line| line.len() <= 100), "{said}");
    assert!(crate::world::names_in(&world.path("tmp")).is_empty());
}

/// A file system of a few MiB, unmounted when dropped.
pub(crate) struct Mounted(std::path::PathBuf);

impl Mounted {
    /// Mounts one where that is allowed; else says so, and the test is skipped.
    pub(crate) fn tmpfs(world: &World, dir: &str, size: &str) -> Option<Mounted> {
        let path = world.path(dir);
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(&path);
        match mount.output() {
            Ok(output) if output.status.success() => Some(Mounted(path)),
            _ => {
                println!("skipped: no file system can be mounted here");
                None
            }
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(&self.0).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            println!("{} stays mounted", self.0.display());
        }
    }
}

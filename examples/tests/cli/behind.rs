//! What `--write-behind` promises: durable in the cache's directory at once, on the server when that is
//! there, and nothing older is shown meanwhile without a word.

use std::{
    fs,
    process::{Command, Stdio},
};

use crate::world::{AT, HEADER, Outcome, PREFIX, World, bytes, names_in, program};

const BEHIND: [&str; 3] = ["--write-behind", "--cache", "cache"];
const BLOCK: usize = 16 << 10;

impl World {
    /// The server's directory has gone, as one that is not mounted.
    fn server_away(&self) {
        fs::rename(self.path("server"), self.path("elsewhere")).unwrap();
    }

    fn server_back(&self) {
        fs::rename(self.path("elsewhere"), self.path("server")).unwrap();
    }

    fn resume(&self) -> Outcome {
        self.on(&["resume", "--cache", "cache"])
    }

    fn patch_behind(&self, offset: usize, content: &[u8]) -> Outcome {
        let offset = offset.to_string();
        self.on_with(&[&["patch", "file", "-", "--offset", &offset], &BEHIND[..]].concat(), content)
    }
}

#[test]
fn a_put_with_the_server_away_is_durable_in_the_cache_and_uploaded_by_a_resume() {
    let world = World::new();
    let content = bytes(31, 3 << 20);
    world.write("source", &content);
    world.server_away();
    let said = world.put("source", "file", &BEHIND).succeeds().stdout();
    assert!(said.contains("waits in the cache for 'writeback resume'"), "{said}");
    assert!(!world.path("server").exists(), "nothing is made where the server was");
    let outcome = world.resume();
    assert!(outcome.stdout().starts_with("file: waits in the cache"), "{}", outcome.stdout());
    outcome.fails(&["1 of 1 files still wait"]);
    assert!(world.get_bytes("file", &BEHIND) == content, "as it waits");
    world.server_back();
    let said = world.resume().succeeds().stdout();
    assert_eq!(said, "file: 192 blocks uploaded, 3.0 MiB\n");
    world.holds_only(&["file"]);
    assert!(world.get_bytes("file", &[]) == content);
    assert_eq!(world.resume().succeeds().stdout(), "nothing waits\n");
}

#[test]
fn a_put_with_the_server_there_is_on_it_when_it_ends() {
    let world = World::new();
    let content = bytes(32, 100_000);
    world.write("source", &content);
    let json = world.put("source", "file", &[&BEHIND[..], &["--json"]].concat()).succeeds().json();
    assert_eq!(json["behind"]["waits"], serde_json::Value::Null);
    assert_eq!(json["behind"]["uploaded_blocks"], 7);
    assert!(world.get_bytes("file", &["--cache", "cache"]) == content);
    let json = world.on(&["resume", "--cache", "cache", "--json"]).succeeds().json();
    assert_eq!(json, serde_json::json!({ "n_waiting": 0, "files": [] }));
}

#[test]
fn a_resume_merges_what_others_have_changed_meanwhile_and_says_so() {
    let world = World::new();
    let mut content = bytes(33, 4 * BLOCK);
    world.put_bytes(&content, "file", &BEHIND);
    world.server_away();
    let said = world.patch_behind(10, &[1; 5]).succeeds().stdout();
    assert!(said.contains("waits in the cache"), "{said}");
    world.patch_behind(2 * BLOCK, &[2; BLOCK]).succeeds();
    world.server_back();
    world.patch_bytes("file", &[3; 5], 0, &[]);
    let json = world.on(&["resume", "--cache", "cache", "--json"]).succeeds().json();
    assert_eq!(json["n_waiting"], 0);
    let file = &json["files"][0];
    let told = ["name", "uploaded_blocks", "merged_blocks"].map(|field| file[field].to_string());
    assert_eq!(told, ["\"file\"", "2", "1"]);
    content[..5].fill(3);
    content[10..15].fill(1);
    content[2 * BLOCK..3 * BLOCK].fill(2);
    assert!(world.get_bytes("file", &[]) == content);
}

#[test]
fn what_is_older_than_what_waits_is_not_shown_without_a_word() {
    let world = World::new();
    world.put_bytes(&bytes(34, 2 * BLOCK), "file", &BEHIND);
    world.put_bytes(b"another", "another", &[]);
    world.server_away();
    world.patch_behind(0, &[1; BLOCK]).succeeds();
    world.server_back();
    world.run(&["keygen", "new"]).succeeds();
    let with_cache = |args: &[&str]| world.on(&[args, &["--cache", "cache"]].concat());
    for args in [
        &["get", "file", "--out", "out"][..],
        &["verify", "file"],
        &["inspect", "file"],
        &["patch", "file", "source", "--offset", "0"],
        &["put", "source", "--name", "file"],
        &["truncate", "file", "1"],
        &["punch", "file", "--offset", "0", "--length", "1"],
        &["rekey", "file", "--new-key", "new"],
    ] {
        with_cache(args).fails(&["waits in cache and is newer than what the server has"]);
    }
    with_cache(&["verify", "another"]).succeeds();
    world.resume().succeeds();
    with_cache(&["verify", "file"]).succeeds();
    assert_eq!(world.get_bytes("file", &["--cache", "cache"])[..BLOCK], [1; BLOCK]);
}

#[test]
fn what_waits_for_one_server_is_not_uploaded_to_another() {
    let world = World::new();
    world.write("source", b"for the one");
    world.server_away();
    world.put("source", "file", &BEHIND).succeeds();
    fs::create_dir(world.path("other")).unwrap();
    let other = ["--server", "other", "--key", "key", "--cache", "cache"];
    world.run(&[&["resume"], &other[..]].concat()).fails(&["holds what waits for the server"]);
    world
        .run(&[&["put", "source", "--write-behind"], &other[..]].concat())
        .fails(&["holds what waits for the server"]);
    // What is not written behind does not mind.
    world.run(&[&["put", "source"], &other[..]].concat()).succeeds();
    world.server_back();
    world.resume().succeeds();
    world.run(&[&["put", "source", "--write-behind"], &other[..]].concat()).succeeds();
}

/// Goal: a disk that is not mounted is not taken for an empty server, by a later process either.
#[test]
fn nothing_is_uploaded_into_the_directory_that_a_disk_was_mounted_over() {
    let world = World::new();
    world.write("source", b"before");
    world.put("source", "file", &BEHIND).succeeds();
    world.server_away();
    fs::create_dir(world.path("server")).unwrap();
    world.write("source", b"unmounted");
    let said = world.put("source", "file", &BEHIND).succeeds().stdout();
    assert!(said.contains("waits in the cache for 'writeback resume'"), "{said}");
    world.resume().fails(&["server is another one"]);
    assert!(world.get_bytes("file", &BEHIND) == b"unmounted");
    // Nothing was made there.
    fs::remove_dir(world.path("server")).unwrap();
    world.server_back();
    world.resume().succeeds();
    assert!(world.get_bytes("file", &[]) == b"unmounted");
}

impl World {
    /// A file on the server, and something that waits to be written over a part of it.
    fn with_a_patch_that_waits(seed: u64) -> World {
        let world = World::new();
        world.put_bytes(&bytes(seed, 3 * BLOCK), "file", &BEHIND);
        world.server_away();
        world.patch_behind(BLOCK + 7, b"what waits").succeeds();
        world
    }

    fn forget(&self, further: &[&str]) -> Outcome {
        self.on(&[&["forget", "file", "--cache", "cache"], further].concat())
    }

    /// The one file of some kind in the directory of what waits.
    fn waiting(&self, suffix: &str) -> String {
        let names = names_in(&self.path("cache/behind"));
        let mut found = names.iter().filter(|name| name.ends_with(suffix));
        let name = found.next().unwrap();
        assert!(found.next().is_none(), "{names:?}");
        format!("cache/behind/{name}")
    }

    fn flip(&self, name: &str, at: usize) {
        let mut content = self.read(name);
        content[at] ^= 1;
        self.write(name, &content);
    }
}

#[test]
fn what_waits_for_a_file_that_is_gone_on_the_server_is_kept_until_it_is_saved_and_forgotten() {
    let world = World::with_a_patch_that_waits(41);
    world.server_back();
    fs::remove_file(world.stored("file")).unwrap();
    let outcome = world.resume();
    let said = outcome.stdout();
    assert!(said.starts_with("file: waits in the cache, until 'writeback forget'"), "{said}");
    outcome.fails(&["1 of 1 files still wait"]);
    world.forget(&[]).fails(&["--yes drops them for good"]);
    world.forget(&["--save", "saved"]).fails(&["--yes drops them for good"]);
    let saved = world.read("saved");
    assert!(saved[..BLOCK + 7] == [0; BLOCK + 7] && saved[BLOCK + 7..] == *b"what waits");
    world.resume().fails(&["1 of 1 files still wait"]);
    world.forget(&["--yes"]).succeeds();
    assert_eq!(world.resume().succeeds().stdout(), "nothing waits\n");
    world.forget(&["--yes"]).fails(&["nothing of file waits there"]);
    world.put_bytes(b"another", "file", &BEHIND);
    assert!(world.get_bytes("file", &[]) == b"another");
}

#[test]
fn a_new_file_that_waits_can_be_saved_and_forgotten_with_the_server_away() {
    let world = World::new();
    let content = bytes(42, 2 * BLOCK + 9);
    world.write("source", &content);
    world.server_away();
    world.put("source", "file", &BEHIND).succeeds();
    world.forget(&["--save", "saved", "--yes"]).succeeds();
    assert!(world.read("saved") == content);
    world.server_back();
    assert_eq!(world.resume().succeeds().stdout(), "nothing waits\n");
    world.holds_only(&[]);
}

/// Goal: nothing that was acknowledged is dropped in silence because a bit of the log has flipped.
#[test]
fn what_waits_and_is_damaged_is_told_by_every_command_until_it_is_forgotten() {
    for at in [9, 100, 1000] {
        let world = World::with_a_patch_that_waits(43);
        let log = world.waiting(".log");
        world.flip(&log, at);
        let damaged = world.read(&log);
        world.server_back();
        world.write("source", b"of another");
        world.put("source", "another", &BEHIND).succeeds();
        let outcome = world.resume();
        let said = outcome.stdout();
        assert!(said.starts_with("file: waits in the cache, until"), "{at}: {said}");
        outcome.fails(&["damaged"]);
        world.get("file", &BEHIND).fails(&["damaged"]);
        world.get("file", &["--cache", "cache"]).fails(&["waits in cache"]);
        assert!(world.read(&log) == damaged, "it stays as it is found");
        world.forget(&["--yes"]).succeeds();
        assert_eq!(world.resume().succeeds().stdout(), "nothing waits\n");
        assert!(world.get_bytes("file", &[]) == bytes(43, 3 * BLOCK));
    }
}

#[test]
fn a_new_file_that_waits_and_is_damaged_is_told_and_not_published() {
    let world = World::new();
    world.write("source", &bytes(51, 3 * BLOCK));
    world.server_away();
    world.put("source", "file", &BEHIND).succeeds();
    world.server_back();
    let waiting = "cache/behind/new/file";
    let whole = world.read(waiting);
    world.flip(waiting, HEADER + BLOCK + 2 * PREFIX + 9);
    let outcome = world.resume();
    let said = outcome.stdout();
    assert!(said.starts_with("file: waits in the cache, until 'writeback forget'"), "{said}");
    outcome.fails(&["block 1"]);
    world.holds_only(&[]);
    for len in [HEADER - 1, HEADER + BLOCK] {
        world.write(waiting, &whole[..len]);
        world.resume().fails(&["1 of 1 files still wait"]);
        world.holds_only(&[]);
    }
    world.write(waiting, &whole);
    world.resume().succeeds();
    assert!(world.get_bytes("file", &[]) == bytes(51, 3 * BLOCK));
}

#[test]
fn what_waits_for_a_file_whose_name_is_damaged_is_told_and_found_again_by_who_knows_the_name() {
    let world = World::with_a_patch_that_waits(44);
    world.flip(&world.waiting(".head"), 8200);
    world.server_back();
    let outcome = world.resume();
    assert!(outcome.stdout().contains("the name and the header"), "{}", outcome.stdout());
    outcome.fails(&["1 of 1 files still wait"]);
    let content = world.get_bytes("file", &BEHIND);
    assert!(content[BLOCK + 7..BLOCK + 17] == *b"what waits");
    world.resume().succeeds();
    assert!(world.get_bytes("file", &[]) == content);
}

/// Goal: the upload after a restart seals nothing anew. Method: every stored byte of every block is one that the
/// directory had before, and nothing is told of sealing, of which a put tells.
#[test]
fn a_resume_uploads_byte_for_byte_what_was_sealed_before() {
    const TRACE: &str = "--trace=sealback::span=trace,sealback::retry=debug";
    let world = World::new();
    world.write("source", &bytes(45, 9 * BLOCK + 5));
    world.server_away();
    assert!(
        world.put("source", "file", &[&BEHIND[..], &[TRACE]].concat()).stderr.contains("sealed")
    );
    let sealed = world.read("cache/behind/new/file");
    world.server_back();
    assert_eq!(world.on(&["resume", "--cache", "cache", TRACE]).stderr, "");
    assert!(world.read("server/file")[HEADER..] == sealed[HEADER..]);
    world.server_away();
    // Whole blocks, and behind the end.
    world.patch_behind(BLOCK, &bytes(46, 3 * BLOCK)).succeeds();
    world.patch_behind(9 * BLOCK + 5, &bytes(47, 2 * BLOCK)).succeeds();
    let logs =
        names_in(&world.path("cache/behind")).into_iter().filter(|name| name.ends_with(".log"));
    let log: Vec<u8> = logs.flat_map(|name| world.read(&format!("cache/behind/{name}"))).collect();
    let before = world.read("elsewhere/file");
    world.server_back();
    let outcome = world.on(&["resume", "--cache", "cache", TRACE]);
    assert_eq!(outcome.stderr, "");
    assert!(outcome.stdout().starts_with("file: 6 blocks uploaded"), "{}", outcome.stdout());
    let (stride, after) = (BLOCK + PREFIX, world.read("server/file"));
    let is_new =
        |(n, block): &(usize, &[u8])| before[HEADER..].chunks(stride).nth(*n) != Some(block);
    let new: Vec<_> = after[HEADER..].chunks(stride).enumerate().filter(is_new).collect();
    assert_eq!(new.iter().map(|(n, _)| *n).collect::<Vec<_>>(), [1, 2, 3, 9, 10, 11]);
    for (n, block) in new {
        assert!(log.windows(block.len()).any(|window| window == block), "block {n}");
    }
}

#[test]
fn a_resume_with_another_key_uploads_nothing_and_loses_nothing() {
    let world = World::with_a_patch_that_waits(48);
    world.server_back();
    world.run(&["keygen", "another"]).succeeds();
    let resume = ["resume", "--server", "server", "--key", "another", "--cache", "cache"];
    world.run(&resume).fails(&["another root key"]);
    world
        .run(&[&["forget", "file", "--save", "saved"], &resume[1..]].concat())
        .fails(&["another root key"]);
    assert!(!world.path("saved").exists());
    assert!(world.get_bytes("file", &[]) == bytes(48, 3 * BLOCK));
    world.resume().succeeds();
    assert_eq!(world.get_bytes("file", &[])[BLOCK + 7..BLOCK + 17], *b"what waits");
}

#[test]
fn of_resumes_at_once_one_uploads_and_the_others_are_told() {
    let world = World::with_a_patch_that_waits(49);
    world.server_back();
    let args = [&["resume", "--cache", "cache"][..], &AT].concat();
    let start =
        || world.command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let children: Vec<_> = (0..8).map(|_| start()).collect();
    let mut n_uploaded = 0;
    for child in children {
        let outcome = Outcome::of(&args, &child.wait_with_output().unwrap());
        n_uploaded += u32::from(outcome.stdout().contains("1 block uploaded"));
        if !outcome.stderr.is_empty() {
            outcome.fails(&["is used by another process"]);
        }
    }
    assert_eq!(n_uploaded, 1);
    assert_eq!(world.get_bytes("file", &[])[BLOCK + 7..BLOCK + 17], *b"what waits");
}

/// Goal: a server that was restored from a backup is told of, and gets all that waits.
#[test]
fn a_server_that_was_put_back_to_an_earlier_state_is_told_and_gets_what_waits() {
    let world = World::new();
    let mut content = bytes(50, 3 * BLOCK);
    world.put_bytes(&content, "file", &BEHIND);
    let backup = world.read("server/file");
    world.patch_behind(5, b"lost with it").succeeds();
    world.server_away();
    world.patch_behind(BLOCK + 7, b"what waits").succeeds();
    world.server_back();
    world.write("server/file", &backup);
    let said = world.resume().succeeds().stdout();
    assert!(said.contains("; the server was put back to an earlier state of it"), "{said}");
    content[BLOCK + 7..BLOCK + 17].copy_from_slice(b"what waits");
    assert!(world.get_bytes("file", &[]) == content);
    let said = world.patch_behind(0, b"x").succeeds().stdout();
    assert!(said.contains("1 block uploaded") && !said.contains("put back"), "{said}");
}

#[test]
fn writing_behind_needs_a_cache() {
    let world = World::new();
    world.write("source", b"x");
    world.put("source", "file", &["--write-behind"]).misuses("--cache");
    world.on(&["resume"]).misuses("--cache");
}

/// Goal: what the README says of write-behind can be done. Method: its commands, as they stand there.
#[test]
fn the_readmes_commands_do_what_it_says_they_do() {
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md")).unwrap();
    let section = readme.split("\n## Write-behind\n").nth(1).unwrap();
    let commands = section.split("```sh\n").nth(1).unwrap().split("```").next().unwrap();
    let (first, rest) = commands.split_once('\n').unwrap();
    assert_eq!(first, "writeback=target/release/examples/writeback");
    let script = format!("set -ex\nwriteback={}\n{rest}", program().display());
    let world = World::new();
    let mut content = bytes(35, 2 << 20);
    world.write("big.iso", &content);
    fs::rename(world.path("key"), world.path("my.key")).unwrap();
    let mut bash = Command::new("bash");
    let output = bash.args(["-c", &script]).current_dir(world.path("")).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    content[1_000_000..1_000_006].copy_from_slice(b"hello\n");
    assert!(world.read("copy.iso") == content, "as it is here with the server away");
    assert!(said.contains("behind  waits in the cache for 'writeback resume'"), "{said}");
    assert!(said.contains("\nbig.iso: 1 block uploaded, 16.0 KiB\n"), "{said}");
    assert!(said.ends_with("0 damaged\n"), "{said}");
}

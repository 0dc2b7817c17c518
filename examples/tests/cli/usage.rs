//! Command lines that mean nothing, and help for those who wrote them.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt};

use crate::world::{AT, Outcome, World};

#[test]
fn help_and_version_go_to_standard_output() {
    let world = World::new();
    for args in [&["--help"][..], &["-h"], &["put", "--help"], &["--version"], &["get", "-h"]] {
        assert!(!world.run(args).succeeds().stdout.is_empty());
    }
    let help = world.run(&["--help"]).stdout();
    for command in [
        "keygen", "put", "get", "patch", "truncate", "punch", "rekey", "verify", "inspect", "list",
        "resume", "scrub",
    ] {
        assert!(help.contains(command), "{help}");
    }
}

#[test]
fn a_command_line_that_means_nothing_is_status_2() {
    let world = World::new();
    world.run(&["frobnicate"]).misuses("frobnicate");
    world.run(&["keygen"]).misuses("KEYFILE");
    world.run(&["keygen", "a", "b"]).misuses("unexpected argument 'b'");
    world.run(&["put"]).misuses("SRC");
    world.run(&["put", "source"]).misuses("--server");
    world.run(&["get", "file", "--server", "server", "--key", "key"]).misuses("--out");
    world.run(&["verify", "file", "--server", "server"]).misuses("--key");
    world.run(&["list"]).misuses("--server");
    world.run(&["scrub"]).misuses("--server");
    world.on(&["patch", "file", "source"]).misuses("--offset");
    world.on(&["patch", "file", "--offset", "0"]).misuses("SRC");
    world.on(&["truncate", "file"]).misuses("SIZE");
    world.on(&["punch", "file", "--offset", "0"]).misuses("--length");
    world.on(&["punch", "file", "--length", "0"]).misuses("--offset");
    world.on(&["rekey", "file"]).misuses("--new-key");
    world.run(&["--json"]).misuses("--json");
}

#[test]
fn a_name_is_one_plain_path_component() {
    let world = World::new();
    world.write("source", b"x");
    for (name, meaning) in [
        ("a/b", "a name may not have a '/'"),
        ("/", "a name may not have a '/'"),
        ("..", "a name may not be '.' or '..'"),
        (".", "a name may not be '.' or '..'"),
        ("", "a name may not be empty"),
        (".sealback", "a name may not begin with '.sealback'"),
        (".sealback.x", "a name may not begin with '.sealback'"),
        (&"x".repeat(256), "a name may not be longer than 255 bytes"),
    ] {
        world.put("source", name, &[]).misuses(meaning);
        world.get(name, &[]).misuses(meaning);
        world.verify(name).misuses(meaning);
        world.inspect(name).misuses(meaning);
        world.on(&["patch", name, "source", "--offset", "0"]).misuses(meaning);
        world.on(&["truncate", name, "0"]).misuses(meaning);
        world.on(&["punch", name, "--offset", "0", "--length", "1"]).misuses(meaning);
        world.on(&["rekey", name, "--new-key", "key"]).misuses(meaning);
    }
    world.run(&[&["put", "-"], &AT[..]].concat()).misuses("--name is needed");
    world.run(&[&["put", ".."], &AT[..]].concat()).misuses("--name is needed");
    assert!(!world.path("out").exists());
    world.holds_only(&[]);
}

#[test]
fn a_block_is_a_power_of_two_within_bounds() {
    let world = World::new();
    world.write("source", b"x");
    for size in ["0", "1", "2048", "5000", "12KiB", "2MiB", "1GiB"] {
        let meaning = "a block is a power of two from 4KiB to 1MiB";
        world.put("source", "file", &["--block-size", size]).misuses(meaning);
    }
    for size in ["16kb", "big", "-1", "1.5KiB", "16 KiB", "99999999999TiB", ""] {
        let size = format!("--block-size={size}");
        world.put("source", "file", &[&size]).misuses("--block-size");
    }
    world.holds_only(&[]);
}

#[test]
fn memory_threads_and_engine_are_within_bounds() {
    let world = World::new();
    world.write("source", b"x");
    for memory in
        ["0", "1MiB", "8388607", "lots", "-64MiB", "64MB", "1e9", "17TiB", "18446744073709551616"]
    {
        let memory = format!("--memory={memory}");
        world.put("source", "file", &[&memory]).misuses("--memory");
        world.get("file", &[&memory]).misuses("--memory");
    }
    for threads in ["0", "-1", "many", "1025", "1.5"] {
        let threads = format!("--threads={threads}");
        world.put("source", "file", &[&threads]).misuses("--threads");
    }
    world.put("source", "file", &["--engine", "rot13"]).misuses("no engine is called \"rot13\"");
    world.put("source", "file", &["--engine", "fake"]).misuses("no engine is called");
    #[cfg(not(feature = "aws-lc"))]
    world.put("source", "file", &["--engine", "aws-lc"]).misuses("not built in");
    world.holds_only(&[]);
}

#[test]
fn the_bounds_themselves_are_allowed() {
    let world = World::new();
    world.write("source", &[7; 100_000]);
    for further in [
        ["--memory", "8MiB"],
        ["--memory", "1TiB"],
        ["--threads", "1"],
        ["--threads", "64"],
        ["--block-size", "4096"],
        ["--block-size", "1048576"],
        ["--engine", "auto"],
    ] {
        world.put("source", "file", &further).succeeds();
        assert_eq!(world.get_bytes("file", &[]), [7; 100_000], "{further:?}");
    }
}

#[test]
fn a_position_is_a_size_of_at_most_2_to_the_60() {
    let world = World::new();
    world.put_bytes(b"x", "file", &[]);
    let stored = world.read("server/file");
    for (size, meaning) in [
        ("1152921504606846977", "at most 2^60 bytes"),
        ("1048577TiB", "at most 2^60 bytes"),
        ("9223372036854775808", "at most 2^60 bytes"),
        ("18446744073709551615", "at most 2^60 bytes"),
        ("18446744073709551616", "below 2^64"),
        ("16777216TiB", "below 2^64"),
        ("1e9", "such as 64MiB"),
        ("16kb", "such as 64MiB"),
        ("-1", "such as 64MiB"),
        ("", "such as 64MiB"),
    ] {
        let option = |name: &str| format!("--{name}={size}");
        world.on(&["patch", "file", "source", &option("offset")]).misuses(meaning);
        world.run(&[&["truncate"], &AT[..], &["file", "--", size]].concat()).misuses(meaning);
        world.on(&["punch", "file", &option("offset"), "--length", "1"]).misuses(meaning);
        world.on(&["punch", "file", "--offset", "0", &option("length")]).misuses(meaning);
    }
    assert_eq!(world.read("server/file"), stored);
}

#[test]
fn what_is_not_utf_8_is_no_name_but_may_be_a_path() {
    let world = World::new();
    let odd = OsStr::from_bytes(b"od\xffd");
    std::fs::write(world.path("").join(odd), b"odd").unwrap();
    let run = |args: &[&OsStr]| {
        let mut command = world.command(&[]);
        command.args(args).args(AT);
        Outcome::of(&["..."], &command.output().unwrap())
    };
    let text = OsStr::new;
    for command in ["get", "verify", "inspect", "patch", "truncate", "punch", "rekey"] {
        run(&[text(command), odd]).misuses("invalid UTF-8");
    }
    run(&[text("put"), text("key"), text("--name"), odd]).misuses("invalid UTF-8");
    run(&[odd]).misuses("unrecognized subcommand");
    run(&[text("truncate"), text("file"), odd]).misuses("invalid UTF-8");
    run(&[text("patch"), text("file"), odd, text("--offset"), odd]).misuses("invalid UTF-8");
    run(&[text("put"), odd]).misuses("--name is needed");
    world.holds_only(&[]);
    run(&[text("put"), odd, text("--name"), text("file")]).succeeds();
    run(&[text("patch"), text("file"), odd, text("--offset"), text("1")]).succeeds();
    run(&[text("get"), text("file"), text("--out"), odd]).succeeds();
    assert_eq!(std::fs::read(world.path("").join(odd)).unwrap(), b"oodd");
}

//! Key files: made once, for their owner alone, and refused when they hold no key.

use std::{fs, os::unix::fs::PermissionsExt};

use crate::world::{World, bytes};

#[test]
fn a_key_file_is_32_bytes_that_only_its_owner_may_read() {
    let world = World::new();
    let metadata = fs::metadata(world.path("key")).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o7777, 0o600);
    assert_eq!(metadata.len(), 32);
    world.run(&["keygen", "other"]).succeeds();
    assert_ne!(world.read("key"), world.read("other"));
}

#[test]
fn a_key_file_is_never_written_over() {
    let world = World::new();
    let before = world.read("key");
    world.run(&["keygen", "key"]).fails(&["exists"]);
    assert_eq!(world.read("key"), before);
    world.run(&["keygen", "server"]).fails(&["exists"]);
    std::os::unix::fs::symlink("nowhere", world.path("link")).unwrap();
    world.run(&["keygen", "link"]).fails(&["exists"]);
    assert!(!world.path("nowhere").exists());
    world.run(&["keygen", "no/such/key"]).fails(&["no such file"]);
}

#[test]
fn a_key_file_of_hex_digits_is_the_same_key() {
    let world = World::new();
    world.put_bytes(b"secret", "file", &[]);
    let hex: String = world.read("key").iter().map(|byte| format!("{byte:02X}")).collect();
    for text in [hex.clone(), format!("{hex}\n"), hex.to_lowercase()] {
        world.write("key", text.as_bytes());
        assert_eq!(world.get_bytes("file", &[]), b"secret");
    }
}

#[test]
fn what_holds_no_key_is_refused_without_a_word_of_what_it_holds() {
    let world = World::new();
    world.put_bytes(b"secret", "file", &[]);
    let hex = "ab".repeat(32);
    for (content, meaning) in [
        (Vec::new(), "0 bytes"),
        (bytes(1, 31), "31 bytes"),
        (bytes(1, 33), "33 bytes"),
        (bytes(1, 10_000), "over 65 bytes"),
        (format!("{hex}\n\n").into_bytes(), "over 65 bytes"),
        (format!("xy{}", &hex[2..]).into_bytes(), "hex digit"),
    ] {
        world.write("key", &content);
        let outcome = world.get("file", &[]).fails(&[meaning]);
        assert!(!outcome.stderr.contains("abab"), "{}", outcome.stderr);
        world.put("source", "new", &[]).fails(&[meaning]);
    }
    fs::remove_file(world.path("key")).unwrap();
    world.get("file", &[]).fails(&["no such file"]);
    fs::create_dir(world.path("key")).unwrap();
    world.verify("file").fails(&["is a directory"]);
    assert!(!world.path("out").exists());
    world.holds_only(&["file"]);
}

#[test]
fn another_key_opens_nothing() {
    let world = World::new();
    world.put_bytes(&bytes(1, 50_000), "file", &["--cache", "cache"]);
    fs::remove_file(world.path("key")).unwrap();
    world.run(&["keygen", "key"]).succeeds();
    world.get("file", &[]).fails(&["another root key"]);
    world.get("file", &["--cache", "cache"]).fails(&["another root key"]);
    world.verify("file").fails(&["another root key"]);
    world.inspect("file").fails(&["another root key"]);
    assert!(!world.path("out").exists());
}

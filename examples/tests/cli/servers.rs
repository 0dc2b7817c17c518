//! What `--server` takes: a directory, or an object store, as far as that can be seen without one. With real
//! ones: tests/objects.

use std::fs;

use crate::world::World;

#[test]
fn a_list_has_the_names_of_the_files_and_nothing_else() {
    let world = World::new();
    assert_eq!(world.run(&["list", "--server", "server"]).succeeds().stdout(), "");
    for name in ["b", "a", "two\nlines", "ü"] {
        world.put_bytes(b"x", name, &[]);
    }
    fs::create_dir(world.stored("dir")).unwrap();
    let said = world.run(&["list", "--server", "server"]).succeeds().stdout();
    assert_eq!(said, "a\nb\ntwo\\nlines\nü\n");
    let json = world.run(&["list", "--server", "server", "--json"]).succeeds().json();
    assert_eq!(json, serde_json::json!({ "names": ["a", "b", "two\nlines", "ü"] }));
    world.run(&["list", "--server", "nowhere"]).fails(&["nowhere: no such file"]);
}

#[test]
fn what_is_for_object_stores_is_refused_with_a_directory() {
    let world = World::new();
    world.write("source", b"x");
    for option in [&["--single-writer"][..], &["--chunk-size", "1MiB"]] {
        world.put("source", "file", option).misuses("is for an object store");
    }
    world.run(&["scrub", "--server", "server"]).misuses("a directory needs no scrub");
    world.holds_only(&[]);
    fs::create_dir_all(world.path("s3:/there")).unwrap();
    world.run(&["list", "--server", "./s3://there"]).succeeds();
}

#[cfg(not(feature = "object-store"))]
#[test]
fn a_build_without_object_stores_says_so() {
    let world = World::new();
    let meaning = "no object store was built in: --features object-store";
    for url in ["s3://bucket/prefix", "memory:///"] {
        world.run(&["list", "--server", url]).fails(&[meaning]);
    }
}

#[cfg(feature = "object-store")]
mod objects {
    use crate::world::{World, bytes};

    fn on(server: &str) -> [&str; 4] {
        ["--server", server, "--key", "key"]
    }

    #[test]
    fn a_store_in_memory_is_of_one_process() {
        let world = World::new();
        world.write("source", &bytes(1, 3_000_000));
        let args = [&["put", "source", "--chunk-size", "256KiB", "--json"], &on("memory:///")[..]];
        let json = world.run(&args.concat()).succeeds().json();
        assert_eq!(json["streams"]["upload"]["subrequests"], 12);
        assert_eq!(world.run(&["list", "--server", "memory:///"]).succeeds().stdout(), "");
        world
            .run(&[&["get", "source", "--out", "out"], &on("memory:///")[..]].concat())
            .fails(&["there is no such file on the server"]);
        let said = world.run(&["scrub", "--server", "memory:///"]).succeeds().stdout();
        assert_eq!(said, "0 objects of no file, 0 B; 0 removed\n");
    }

    #[test]
    fn a_put_that_fails_into_a_store_is_one_line() {
        let world = World::new();
        let args = [&["put", "/proc/self/mem", "--name", "x"], &on("memory:///")[..]].concat();
        world.run(&args).fails(&["/proc/self/mem"]);
    }

    #[test]
    fn what_is_no_store_is_named_without_its_secrets() {
        let world = World::new();
        for (url, meaning) in [
            ("ftp://bucket/prefix", "ftp"),
            ("://", "://"),
            ("s3://", "s3://"),
            ("s3:///prefix", "s3://"),
            ("s3://me:hush@bucket/prefix", "secret"),
            ("az://hush@container", "secret"),
            ("gs://bucket/prefix?token=hush", "?"),
        ] {
            let outcome = world.run(&["list", "--server", url]);
            assert!(!outcome.stderr.contains("hush"), "{url}: {}", outcome.stderr);
            outcome.fails(&[meaning]);
        }
    }
}

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
    use std::{
        io::{Read as _, Write as _},
        net::{SocketAddr, TcpListener},
        process::Command,
        thread,
    };

    use crate::world::{Outcome, World, bytes};

    fn on(server: &str) -> [&str; 4] {
        ["--server", server, "--key", "key"]
    }

    #[test]
    fn a_store_in_memory_is_of_one_process() {
        let world = World::new();
        world.write("source", &bytes(1, 3_000_000));
        let args = [&["put", "source", "--chunk-size", "256KiB", "--json"], &on("memory:///")[..]];
        let json = world.run(&args.concat()).succeeds().json();
        assert_eq!(json["streams"]["upload"]["subrequests"], 13);
        assert_eq!(world.run(&["list", "--server", "memory:///"]).succeeds().stdout(), "");
        world
            .run(&[&["get", "source", "--out", "out"], &on("memory:///")[..]].concat())
            .fails(&["there is no such file on the server"]);
        let said = world.run(&["scrub", "--server", "memory:///"]).succeeds().stdout();
        assert_eq!(said, "0 objects of no file, 0 B; 0 removed\n");
    }

    #[test]
    fn who_says_that_nobody_else_writes_is_told_once_what_that_means() {
        let world = World::new();
        world.write("source", b"x");
        let put = ["put", "source", "--single-writer"];
        for further in [&[][..], &["--cache", "cache"], &["--cache", "cache", "--write-behind"]] {
            let outcome = world.run(&[&put, &on("memory:///")[..], further].concat());
            assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
            let meaning =
                "--single-writer: no conditions are put to the memory store; what anybody else";
            assert!(outcome.stderr.contains(meaning), "{}", outcome.stderr);
        }
        let args = ["put", "source", "--single-writer", "--server", "s3://me:hush@bucket"];
        let outcome = world.run(&[&args[..], &["--key", "key"]].concat());
        assert!(!outcome.stderr.contains("hush"), "{}", outcome.stderr);
    }

    #[test]
    fn a_put_that_fails_into_a_store_is_one_line() {
        let world = World::new();
        let args = [&["put", "/proc/self/mem", "--name", "x"], &on("memory:///")[..]].concat();
        world.run(&args).fails(&["/proc/self/mem"]);
    }

    #[test]
    fn what_is_no_store_is_refused_and_no_secret_repeated() {
        let world = World::new();
        for (url, meaning) in [
            ("ftp://bucket/prefix", "it names no object store"),
            ("file:///prefix", "only s3://, az://, gs:// and memory:///"),
            ("://", "it is not well formed"),
            ("s3://", "it names no object store"),
            ("s3://me:hush@bucket/prefix", "credentials and options come from the environment"),
            ("az://hush@container", "credentials and options come from the environment"),
            ("gs://bucket/prefix?token=hush", "credentials and options come from the environment"),
        ] {
            refuses(&mut world.command(&["list", "--server", url]), meaning);
        }
    }

    #[test]
    fn credentials_that_a_store_does_not_take_are_not_repeated() {
        let world = World::new();
        world.write("source", b"x");
        let address =
            answering("403 Forbidden", "<Error><Code>SignatureDoesNotMatch</Code></Error>");
        for args in [&["list"][..], &["put", "source", "--key", "key"]] {
            let mut command = world.command(&[args, &["--server", "s3://bucket/prefix"]].concat());
            for (name, value) in [
                ("AWS_ENDPOINT", format!("http://{address}").as_str()),
                ("AWS_ALLOW_HTTP", "true"),
                ("AWS_REGION", "us-east-1"),
                ("AWS_ACCESS_KEY_ID", "hush-id"),
                ("AWS_SECRET_ACCESS_KEY", "hush-key"),
            ] {
                command.env(name, value);
            }
            refuses(&mut command, "403 Forbidden");
        }
    }

    #[test]
    fn an_endpoint_that_is_none_is_refused_and_not_repeated() {
        let world = World::new();
        for (name, url) in [
            ("AWS_ENDPOINT", "s3://bucket"),
            ("AZURE_STORAGE_ENDPOINT", "az://container"),
            ("GOOGLE_BASE_URL", "gs://bucket"),
        ] {
            for endpoint in ["http://me:hush@127.0.0.1:port", "hush", "http://", "ftp://hush"] {
                let mut command = world.command(&["list", "--server", url]);
                for (name, value) in [
                    (name, endpoint),
                    ("AWS_ACCESS_KEY_ID", "hush-id"),
                    ("AWS_SECRET_ACCESS_KEY", "hush-key"),
                    ("AZURE_STORAGE_ACCOUNT_NAME", "hush"),
                    ("AZURE_STORAGE_ACCOUNT_KEY", "aHVzaA=="),
                    ("GOOGLE_SKIP_SIGNATURE", "true"),
                ] {
                    command.env(name, value);
                }
                refuses(
                    &mut command,
                    "the endpoint in the environment is no http:// or https:// URL",
                );
            }
        }
    }

    /// Runs a program that must fail, and say why without a secret.
    fn refuses(command: &mut Command, meaning: &str) {
        let outcome = Outcome::of(&["..."], &command.output().unwrap());
        assert!(!outcome.stderr.contains("hush"), "{}", outcome.stderr);
        outcome.fails(&[meaning]);
    }

    /// The address of a server that has one answer to everything.
    fn answering(status: &'static str, body: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for client in listener.incoming() {
                let mut client = client.unwrap();
                // What is asked fits one read, but for a body that nobody needs.
                let _ = client.read(&mut [0; 16 << 10]);
                let len = body.len();
                let _ = write!(
                    client,
                    "HTTP/1.1 {status}\r\nContent-Length: {len}\r\nConnection: close\r\n\r\n{body}"
                );
            }
        });
        address
    }
}

//! What the program tells of a file.

use crate::world::{World, bytes};

const MIB: usize = 1 << 20;

#[test]
fn the_json_of_a_put_has_every_field() {
    let world = World::new();
    world.write("source", &bytes(1, 3 * MIB));
    let with = ["--engine", "aes-gcm", "--block-size", "64KiB", "--json"];
    let json = world.put("source", "file", &with).succeeds().json();
    assert_eq!(json["name"], "file");
    assert_eq!(json["file_id"].as_str().unwrap().len(), 64);
    assert_eq!(json["bytes"], 3 * MIB);
    assert_eq!(json["engine"], "aes-gcm");
    assert_eq!(json["block_bytes"], 65536);
    assert!(json["seconds"].as_f64().unwrap() > 0.0);
    let rate = json["bytes"].as_f64().unwrap() / json["seconds"].as_f64().unwrap() / 1e9;
    assert!((json["gb_per_s"].as_f64().unwrap() / rate - 1.0).abs() < 1e-6);
    assert!(json["peak_rss_bytes"].as_u64().unwrap() > MIB as u64);
    assert!(json["streams"]["cache"].is_null() && json["cache_file"].is_null());
    let stored = (3 * MIB + 48 * 48) as u64;
    let upload = &json["streams"]["upload"];
    assert_eq!(upload["bytes"], stored);
    assert!(upload["subrequests"].as_u64().unwrap() >= 3);
    assert!(upload["stalls"].is_u64() && upload["stall_seconds"].is_f64());
    assert_eq!(upload["retries"], 0);
    assert_eq!(upload["latency"]["count"], upload["subrequests"]);
    assert!(json["waits"]["buffers_high_water"].as_u64().unwrap() > 0);
    assert_eq!(json["latencies"]["syncs"]["count"], 1);

    let with = ["--cache", "cache", "--json"];
    let json = world.put("source", "file", &with).succeeds().json();
    let stored = (3 * MIB + 192 * 48) as u64;
    assert_eq!(json["streams"]["cache"]["bytes"], stored);
    assert_eq!(json["streams"]["cache"]["retries"], 0);
}

#[test]
fn the_summary_of_a_put_names_both_streams() {
    let world = World::new();
    world.write("source", &bytes(1, MIB));
    let said = world.put("source", "file", &["--cache", "cache"]).succeeds().stdout();
    for word in ["1048576 bytes", "1 MiB", "GB/s", "upload", "cache", "subrequests"] {
        assert!(said.contains(word), "{word:?} is missing in {said}");
    }
    let said = world.put("source", "file", &[]).succeeds().stdout();
    assert!(!said.contains("cache"), "{said}");
}

#[test]
fn the_stats_of_a_put_say_what_was_waited_for_and_how_long_things_took() {
    let world = World::new();
    world.write("source", &bytes(1, MIB));
    let said = world.put("source", "file", &["--stats"]).succeeds().stdout();
    for word in ["upload: ", "answered: ", "pauses", "requests: ", "syncs: 1 ", "buffers out"] {
        assert!(said.contains(word), "{word:?} is missing in {said}");
    }
}

#[test]
fn a_trace_goes_to_standard_error_as_far_as_its_filter_lets_it_through() {
    let world = World::new();
    world.write("source", &bytes(1, MIB));
    let said = world.put("source", "file", &["--trace"]).stderr;
    for word in
        ["DEBUG", "sealback::request: begun", "sealback::commit: committed", "file=\"file\""]
    {
        assert!(said.contains(word), "{word:?} is missing in {said}");
    }
    assert!(!said.contains("TRACE"), "{said}");
    let only = ["--trace=sealback::subrequest=trace"];
    let said = world.put("source", "file", &only).stderr;
    assert!(said.contains("sealback::subrequest: issued request=1"), "{said}");
    assert!(said.lines().all(|line| line.contains("sealback::subrequest: ")), "{said}");
    assert_eq!(world.get_bytes("file", &[]), bytes(1, MIB));
    world.put("source", "file", &["--trace=sealback=loud"]).misuses("--trace");
}

#[test]
fn verify_counts_the_blocks_of_a_whole_file() {
    let world = World::new();
    world.put_bytes(&bytes(1, 100_000), "file", &[]);
    let said = world.verify("file").succeeds().stdout();
    assert_eq!(said, "file: 7 blocks: 7 opened, 0 holes, 0 damaged\n");
    world.put_bytes(b"", "file", &[]);
    let said = world.verify("file").succeeds().stdout();
    assert_eq!(said, "file: 0 blocks: 0 opened, 0 holes, 0 damaged\n");
}

#[test]
fn inspect_tells_the_header_and_spans_that_cover_the_file() {
    let world = World::new();
    world.write("source", &bytes(1, 3 * MIB + 5));
    let put = world.put("source", "file", &["--json"]).succeeds().json();
    let json = world.inspect("file").succeeds().json();
    assert_eq!(json["name"], "file");
    assert_eq!(json["file_id"], put["file_id"]);
    assert_eq!(json["bytes"], 3 * MIB + 5);
    assert_eq!(json["block_bytes"], 16384);
    assert_eq!(json["n_blocks"], 193);
    assert_eq!(json["stored_bytes"], 8192 + 193 * 48 + 3 * MIB + 5);
    assert_eq!((&json["cuts"], &json["cut_pending"]), (&0.into(), &false.into()));
    assert_eq!(json["n_holes"], 0);
    assert!(json["generation"].as_u64().unwrap() >= 2);
    assert!(json["damaged"].as_array().unwrap().is_empty());
    let spans = json["spans"].as_array().unwrap();
    let mut next = 0;
    for span in spans {
        assert_eq!(span["first_block"], next);
        assert_eq!(span["nonce_prefix"].as_str().unwrap().len(), 40);
        next += span["n_blocks"].as_u64().unwrap();
    }
    assert_eq!(next, 193);
    // Sealing block by block would be a span for each.
    assert!(spans.len() <= 20, "{} spans", spans.len());

    let args = ["inspect", "file", "--server", "server", "--key", "key"];
    let said = world.run(&args).succeeds().stdout();
    for word in ["file id", "generation", "16 KiB", "holes", "nonce prefix"] {
        assert!(said.contains(word), "{word:?} is missing in {said}");
    }
}

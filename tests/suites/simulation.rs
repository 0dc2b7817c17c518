//! Seeds: the real request, under every schedule and fault that a seed stands for.
//!
//! `SEALBACK_SEEDS=N` sets how many, `SEALBACK_SEED=S` replays one.

use sealback_crypto::Engine;
use sealback_tests::{
    lifetime::{self, Lived},
    simulator::{self, Met},
};

fn from_env(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect("a number"))
}

#[test]
fn whatever_fails_in_whatever_order_nothing_is_lost() {
    if let Some(seed) = from_env("SEALBACK_SEED") {
        println!("{:#?}", simulator::run(seed, Engine::Fake));
        return;
    }
    let n_seeds = from_env("SEALBACK_SEEDS").unwrap_or(3_000);
    let mut met = Met::default();
    for seed in 0..n_seeds {
        met.add(&simulator::run(seed, Engine::Fake));
    }
    println!("{n_seeds} seeds: {met:#?}");
    // A simulator that never meets what it is for proves nothing.
    for (what, times) in [
        ("transient failures", met.transient),
        ("dropped completions", met.dropped),
        ("unknown outcomes", met.unknown),
        ("renegotiations", met.renegotiated),
        ("short writes", met.short),
        ("torn blocks", met.torn),
        ("writes with gaps", met.vectored),
        ("conflicts", met.conflicts),
        ("merges", met.merges),
        ("reissues", met.reissues),
        ("splits", met.splits),
        ("joins", met.joins),
        ("back-offs", met.back_offs),
        ("hung caches", met.hung),
        ("cancelled requests", met.cancelled),
        ("refused credits", met.no_credit),
        ("starved issuers", met.starved),
        ("sources that waited", met.waited),
        ("times somebody waited", met.hurried),
        ("caches switched off", met.cache_off),
        ("failed requests", met.failed),
        ("redirtied folios", met.redirtied),
        ("folios released", met.released_early),
    ] {
        assert!(times >= n_seeds / 100, "only {times} {what} in {n_seeds} seeds");
    }
}

#[test]
fn a_second_server_has_what_the_first_has_whatever_fails() {
    let mut met = Met::default();
    let n_seeds = from_env("SEALBACK_SEEDS").unwrap_or(1_000);
    for seed in 2_000_000..2_000_000 + n_seeds {
        met.add(&simulator::mirror(seed, Engine::Fake));
    }
    println!("{n_seeds} seeds: {met:#?}");
    for times in [met.mirrored, met.failed, met.reissues, met.cache_off] {
        assert!(times >= n_seeds / 20, "{met:#?}");
    }
}

#[test]
fn a_seed_replays_exactly() {
    for seed in 0..50 {
        let (first, second) =
            (simulator::trace(seed, Engine::Fake).1, simulator::trace(seed, Engine::Fake).1);
        assert!(first.len() > 1 && first == second, "seed {seed}");
    }
}

#[test]
fn the_same_holds_with_the_real_cipher() {
    for seed in 1_000_000..1_000_200 {
        simulator::run(seed, Engine::AesGcm);
    }
}

#[test]
fn a_file_keeps_what_was_written_through_all_its_life() {
    if let Some(seed) = from_env("SEALBACK_SEED") {
        println!("{:#?}", lifetime::live(seed, Engine::AesGcm));
        return;
    }
    let n_seeds = from_env("SEALBACK_SEEDS").unwrap_or(1_000);
    let mut lived = Lived::default();
    for seed in 0..n_seeds {
        lived.add(&lifetime::live(seed, Engine::AesGcm));
    }
    println!("{n_seeds} lives: {lived:#?}");
    for (what, times) in [
        ("writes", lived.writes),
        ("writes beside a writeback", lived.writes_meanwhile),
        ("direct writes", lived.direct),
        ("direct writes that failed", lived.direct_failed),
        ("writethroughs", lived.through),
        ("times something was passed over", lived.passed_over),
        ("groups that ended", lived.groups),
        ("writes that waited for an older group", lived.older_first),
        ("fills before sealing", lived.fills),
        ("expectations", lived.expectations),
        ("cuts", lived.cuts),
        ("punches", lived.punches),
        ("evictions", lived.evictions),
        ("good passes", lived.passes),
        ("failed passes", lived.failed),
        ("lost caches", lived.caches_lost),
        ("changes by somebody else", lived.others),
        ("conflicts", lived.conflicts),
        ("merges", lived.merges),
    ] {
        assert!(times >= n_seeds / 20, "only {times} {what} in {n_seeds} lives");
    }
}

//! Counts the instructions of kernels under valgrind, and compares them with what is written in
//! `counts.txt` beside this: more than that and a tolerance is a regression, however busy the machine.
//!
//! ```sh
//! tests/instructions/run                       # counts those that counts.txt has
//! tests/instructions/run NAME…                 # counts these, any kernel
//! tests/instructions/run --write [NAME…]       # and writes down what they are now
//! ```
//!
//! A unit's count is how many instructions more a process takes that calls the kernel more often: what
//! comes before and after is in neither.
#![forbid(unsafe_code)]

use std::{
    collections::BTreeMap,
    env, error, fs,
    path::PathBuf,
    process::{Command, ExitCode},
};

use sealback_tests::kernels::{self, Kernel};

type Failure = Box<dyn error::Error>;

/// How much more than what is written down a count may be. From run to run it differs by less than a
/// thousandth; with another compiler or C library by some hundredths.
const TOLERANCE: f64 = 0.05;

/// How often a process calls the kernel: the first call takes memory that all others use again.
const FEW: u64 = 2;
const MANY: u64 = 6;

/// What glibc copies and clears memory with: vectors. Of a repeated string instruction each repetition
/// counts, which is as much as a byte.
const VECTORS_ONLY: &str =
    "glibc.cpu.x86_rep_stosb_threshold=1073741824:glibc.cpu.x86_rep_movsb_threshold=1073741824";

/// What counts are called that are compared; per unit.
type Counts = BTreeMap<String, u64>;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let outcome = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--call", name, times] => call(name, times).map(|()| true),
        ["--write", ref names @ ..] => count(names, true),
        ref names => count(names, false),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("instructions: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What valgrind runs.
fn call(name: &str, times: &str) -> Result<(), Failure> {
    let mut call = kernel(name)?.begin();
    (0..times.parse()?).for_each(|_| call());
    Ok(())
}

fn kernel(name: &str) -> Result<Kernel, Failure> {
    let kernel = kernels::all().into_iter().find(|kernel| kernel.name == name);
    kernel.ok_or_else(|| format!("no kernel is called {name}").into())
}

/// Counts, prints and compares. Returns whether none is above what is written down.
fn count(names: &[&str], write: bool) -> Result<bool, Failure> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("instructions/counts.txt");
    let text = fs::read_to_string(&path)?;
    let mut known = parse(&text)?;
    let names: Vec<String> = match names {
        [] => known.keys().cloned().collect(),
        names => names.iter().map(|name| (*name).to_owned()).collect(),
    };
    let mut is_good = true;
    for name in names {
        let kernel = kernel(&name)?;
        let now = per_unit(&kernel)?;
        let before = known.get(&name).copied();
        let change = before.map(|before| now as f64 / before as f64 - 1.0);
        let is_worse = change.is_some_and(|change| change > TOLERANCE);
        is_good &= !is_worse;
        print!("{name:<26} {now:>7} a {:<11}", kernel.unit);
        match (before, change) {
            (Some(before), Some(change)) => print!("{before:>8} before, {:+.1} %", change * 100.0),
            _ => print!("not written down"),
        }
        println!("{}", if is_worse { ": TOO MANY" } else { "" });
        known.insert(name, now);
    }
    if write {
        fs::write(&path, to_text(&text, &known))?;
        return Ok(true);
    }
    if !is_good {
        eprintln!("More than {:.0} % above {}.", TOLERANCE * 100.0, path.display());
        eprintln!("If they are to be: tests/instructions/run --write");
    }
    Ok(is_good)
}

fn per_unit(kernel: &Kernel) -> Result<u64, Failure> {
    let more = instructions(&kernel.name, MANY)?.saturating_sub(instructions(&kernel.name, FEW)?);
    Ok(more / (MANY - FEW) / kernel.n_units)
}

/// All instructions of a process of its own.
fn instructions(name: &str, times: u64) -> Result<u64, Failure> {
    let output = Command::new("valgrind")
        .env("GLIBC_TUNABLES", VECTORS_ONLY)
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(env::current_exe()?)
        .args(["--call", name, &times.to_string()])
        .output()
        .map_err(|error| format!("valgrind: {error}"))?;
    let told = String::from_utf8_lossy(&output.stderr);
    let collected = told.lines().find_map(|line| line.split_once("Collected :"));
    match collected {
        Some((_, count)) if output.status.success() => Ok(count.trim().parse()?),
        _ => Err(format!("valgrind has not counted {name}:\n{told}").into()),
    }
}

/// Lines of `name count`; what begins with `#` is a comment.
fn parse(text: &str) -> Result<Counts, Failure> {
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    let line = |line: &str| -> Result<(String, u64), Failure> {
        let (name, count) = line.split_once(' ').ok_or_else(|| format!("what is {line:?}?"))?;
        Ok((name.to_owned(), count.trim().parse()?))
    };
    lines.map(line).collect()
}

fn to_text(before: &str, counts: &Counts) -> String {
    let comments = before.lines().filter(|line| line.starts_with('#'));
    let counts = counts.iter().map(|(name, count)| format!("{name:<26} {count:>7}"));
    comments.map(str::to_owned).chain(counts).map(|line| line + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_down_is_read_again_and_comments_stay() {
        let text = "# why\na/b 12\n\nc/d/e      7\n";
        let mut counts = parse(text).unwrap();
        assert_eq!(counts.insert("c/d/e".to_owned(), 8), Some(7));
        let written = to_text(text, &counts);
        assert!(written.starts_with("# why\na/b ") && parse(&written).unwrap() == counts);
        assert!(parse("a/b twelve").is_err() && parse("a").is_err());
    }

    #[test]
    fn what_is_counted_are_kernels() {
        let counts = parse(include_str!("counts.txt")).unwrap();
        let are_built = |name: &&String| cfg!(feature = "aws-lc") || !name.contains("aws-lc");
        counts.keys().filter(are_built).for_each(|name| drop(kernel(name).unwrap()));
    }
}

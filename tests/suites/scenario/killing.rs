//! Tests that are run in processes of their own, say on a pipe what they begin and what has ended, and are
//! killed (`SIGKILL`) in the middle of it.

use std::{
    env,
    io::{BufRead, BufReader, Read},
    process::{Child, Command, Stdio},
};

/// Runs a test of this binary in another process, with these variables.
pub(crate) fn start(test: &str, vars: &[(&str, String)]) -> Child {
    Command::new(env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .envs(vars.iter().map(|(name, value)| (name, value)))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Kills a process when it has begun and `meanwhile` is over, and returns what it said.
pub(crate) fn kill(mut child: Child, meanwhile: impl FnOnce()) -> String {
    let mut said = BufReader::new(child.stdout.take().unwrap());
    let mut heard = String::new();
    while !heard.contains("begin ") {
        let n = said.read_line(&mut heard).unwrap();
        assert!(n > 0, "it ended before it began: {heard}");
    }
    meanwhile();
    child.kill().unwrap();
    said.read_to_string(&mut heard).unwrap();
    child.wait().unwrap();
    let begun = heard.find("begin ").unwrap();
    heard.split_off(begun)
}

/// What a process has said of an operation.
pub(crate) enum Told<'a, Op> {
    /// It was begun, under this number.
    Begun(&'a Op, u32),
    Ended(&'a Op),
}

/// Goes through what a killed process said: what it began, which must be what comes `next`, and which of that
/// had ended.
pub(crate) fn follow_told<Op>(
    said: &str,
    mut next: impl FnMut() -> (u32, Op),
    mut each: impl FnMut(Told<'_, Op>),
) {
    let mut under_way = None;
    // The last line may be cut off.
    for line in said.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
        if let Some(number) = line.strip_prefix("begin ") {
            let (expected, op) = next();
            assert_eq!(number, expected.to_string());
            each(Told::Begun(under_way.insert(op), expected));
        } else if line.starts_with("end ") {
            each(Told::Ended(&under_way.take().unwrap()));
        }
    }
}

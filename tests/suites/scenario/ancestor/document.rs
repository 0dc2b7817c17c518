//! `ANCESTOR.md` tells the truth: every bug has its row, and every test that it names is there. So are
//! those that the README's table of features names.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The repository's root.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn document() -> String {
    fs::read_to_string(root().join("tests/ANCESTOR.md")).unwrap()
}

/// The `path::name` of every test that a text names.
fn tests_in(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let quoted = text.split('`').skip(1).step_by(2);
    quoted.filter_map(|quoted| quoted.split_once(".rs::"))
}

/// The number and the text of every row of the table of bugs.
fn rows(document: &str) -> Vec<(u32, &str)> {
    let row = |line: &'_ str| line.strip_prefix("| ")?.split_once(" |")?.0.parse().ok();
    document.lines().filter_map(|line| Some((row(line)?, line))).collect()
}

#[test]
fn every_bug_of_the_ancestor_has_one_row() {
    let document = document();
    let numbers: Vec<_> = rows(&document).into_iter().map(|(number, _)| number).collect();
    assert_eq!(numbers, (1..=65).collect::<Vec<_>>());
}

#[test]
fn every_row_names_a_test_or_says_why_there_can_be_none() {
    let document = document();
    for (number, row) in rows(&document) {
        let named = tests_in(row).next().is_some() || row.contains("By construction: ");
        assert!(named, "row {number} says nothing of what keeps it out");
    }
}

/// # Panics
/// If the file does not have that test.
fn assert_has_test(path: &str, name: &str) {
    let file = root().join(path).with_extension("rs");
    let source = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{path}.rs: {error}"));
    let declared = source.split(&format!("fn {name}(")).next().filter(|before| *before != source);
    let before = declared.unwrap_or_else(|| panic!("{path}.rs has no {name}"));
    assert!(before.trim_end().ends_with(']'), "{name} of {path}.rs has no attribute: no test");
}

#[test]
fn every_test_that_the_document_names_is_in_the_sources() {
    let document = document();
    let tests: Vec<_> = tests_in(&document).collect();
    tests.iter().for_each(|(path, name)| assert_has_test(path, name));
    assert!(tests.len() > 65, "{} tests are named", tests.len());
}

#[test]
fn every_test_that_the_readme_names_is_in_the_sources() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let (_, table) = readme.split_once("| the test that holds it |").unwrap();
    let rows: Vec<_> = table.lines().skip(2).take_while(|line| line.starts_with("| ")).collect();
    assert!(rows.len() > 30, "{} rows", rows.len());
    for row in rows {
        let quoted = row.rsplit('`').nth(1).unwrap_or_else(|| panic!("no test holds {row}"));
        let (module, name) = quoted.split_once("::").unwrap_or_else(|| panic!("{quoted}"));
        let dirs =
            ["tests/suites/scenario", "tests/suites", "pipeline/src", "stream/src", "examples"];
        let paths = dirs.map(|dir| format!("{dir}/{module}"));
        let path = paths.iter().find(|path| root().join(path).with_extension("rs").exists());
        assert_has_test(path.unwrap_or_else(|| panic!("{module}")), name);
    }
}

//! The corpus as files, for readers that are not ours: sealed files, keys, `cases.json`, a table.

use std::collections::BTreeMap;
use std::fmt::{Debug, Write};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Once;

use sealback_crypto::HeaderError;

use crate::cases::{self, Case, Finding};
use crate::forge::{B, Key, OTHER, ROOT};

/// Where the corpus is committed.
pub(crate) fn dir() -> PathBuf {
    static WRITTEN: Once = Once::new();
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors/damaged");
    if std::env::var_os("SEALBACK_WRITE_VECTORS").is_some() {
        WRITTEN.call_once(|| write(&dir));
    }
    dir
}

/// Every case with the name of its file. Cases of the same bytes share one.
pub(crate) fn cases() -> Vec<(Case, String)> {
    let mut names = BTreeMap::new();
    let named = cases::all().into_iter().map(|case| {
        let file = names.entry(case.stored.clone()).or_insert_with(|| case.name.to_owned());
        let file = format!("{file}.sealed");
        (case, file)
    });
    named.collect()
}

/// Every file of the corpus: its name and its content.
pub(crate) fn files() -> Vec<(String, Vec<u8>)> {
    let cases = cases();
    let mut files: BTreeMap<_, _> =
        cases.iter().map(|(case, file)| (file.clone(), case.stored.clone())).collect();
    for key in [ROOT, OTHER] {
        files.insert(key_file(&key).to_owned(), format!("{}\n", hex(&key)).into());
    }
    files.insert("cases.json".to_owned(), json(&cases).into());
    // Its first part is written by hand.
    let readme = fs::read_to_string(dir_of_readme()).unwrap_or_default();
    let by_hand = readme.split(TABLE).next().unwrap_or_default();
    files.insert("README.md".to_owned(), format!("{by_hand}{TABLE}{}", table(&cases)).into());
    files.into_iter().collect()
}

/// `AlteredOrTorn` is `altered_or_torn`: the names in the corpus are those of the variants.
pub(crate) fn name_of(variant: &impl Debug) -> String {
    let debug = format!("{variant:?}");
    let mut name = String::new();
    for letter in debug.chars().take_while(char::is_ascii_alphanumeric) {
        if letter.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_lowercase());
    }
    name
}

fn dir_of_readme() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors/damaged/README.md")
}

fn write(dir: &Path) {
    let files = files();
    fs::create_dir_all(dir).unwrap();
    for entry in fs::read_dir(dir).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    for (name, content) in files {
        fs::write(dir.join(name), content).unwrap();
    }
}

fn json(cases: &[(Case, String)]) -> String {
    let mut json = format!("{{\n  \"format\": 1,\n  \"block_bytes\": {B},\n  \"cases\": [");
    for (index, (case, file)) in cases.iter().enumerate() {
        assert!(!case.done.contains(['"', '\\']), "{} would have to be escaped", case.name);
        json += if index == 0 { "\n    {\n" } else { ",\n    {\n" };
        json += &fields(case, file).join(",\n");
        json += "\n    }";
    }
    json + "\n  ]\n}\n"
}

/// The members of one case's object.
fn fields(case: &Case, file: &str) -> Vec<String> {
    let mut fields = Vec::new();
    let mut add = |name: &str, value: String| fields.push(format!("      \"{name}\": {value}"));
    add("name", quoted(case.name));
    add("file", quoted(file));
    add("done", quoted(case.done));
    add("key", quoted(key_file(&case.key)));
    if let Some(file_id) = &case.expected_file_id {
        add("expected_file_id", quoted(&hex(file_id)));
    }
    if let Some((generation, mac)) = &case.least {
        let mac = quoted(&hex(mac));
        add("least", format!("{{ \"generation\": {generation}, \"mac\": {mac} }}"));
    }
    if case.recover_torn {
        add("recover_torn", "true".to_owned());
    }
    match &case.finding {
        Finding::Refused(error) => {
            add("header_error", quoted(&name_of(error)));
            if let Some(offset) = offset_of(error) {
                add("offset", offset.to_string());
            }
        }
        Finding::Opened { generation, plaintext, blocks } => {
            add("generation", generation.to_string());
            add("size", plaintext.len().to_string());
            let blocks: Vec<_> = blocks.iter().map(|verdict| quoted(verdict)).collect();
            add("blocks", format!("[{}]", blocks.join(", ")));
            add("plaintext_blake3", quoted(blake3::hash(plaintext).to_hex().as_str()));
        }
    }
    fields
}

/// The place that an error names.
fn offset_of(error: &HeaderError) -> Option<usize> {
    match error {
        HeaderError::PaddingAltered { offset }
        | HeaderError::SlotErased { offset }
        | HeaderError::SlotParity { offset, .. }
        | HeaderError::TornOrAltered { offset }
        | HeaderError::UnknownSlotField { offset } => Some(*offset),
        HeaderError::PrologueAltered { at } => Some(*at),
        _ => None,
    }
}

fn table(cases: &[(Case, String)]) -> String {
    let mut table = "| case | what was done | verdict |\n|---|---|---|\n".to_owned();
    for (case, _) in cases {
        let verdict = match &case.finding {
            Finding::Refused(error) => format!("header: {}", name_of(error)),
            Finding::Opened { blocks, .. } if blocks.is_empty() => "opens, no blocks".to_owned(),
            Finding::Opened { blocks, .. } => blocks.join(", "),
        };
        writeln!(table, "| {} | {} | {verdict} |", case.name, case.done).unwrap();
    }
    table
}

fn key_file(key: &Key) -> &'static str {
    if *key == ROOT { "root.key" } else { "other.key" }
}

fn quoted(text: &str) -> String {
    format!("\"{text}\"")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// From here on, the README is made.
const TABLE: &str = "## The cases\n\n";

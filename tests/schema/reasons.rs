//! Every reason that a client can see stands in the contract with what to do about it, and so does docs/reasons.md.
//!
//! `UPDATE_SNAPSHOTS=1 cargo test --test it reasons` writes that page anew.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use prost_reflect::EnumDescriptor;
use virtualstack_proto::DESCRIPTOR_POOL;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/reasons.md");

/// Where the product's sources are.
const SOURCES: [&str; 5] = ["crates", "server", "gateway", "worker", "src"];

/// Words in upper case that are no reasons, or none that a client sees.
const NO_REASONS: &[(&str, &[&str])] = &[
    ("variables and files", &["CARGO_PKG_VERSION", "OUT_DIR", "LD_LIBRARY_PATH", "NO_COLOR", "PG_VERSION"]),
    ("what the simulator does", &["POWER_OFF", "POWER_ON", "REMOVE_SNAPSHOT", "SHUT_DOWN"]),
    (
        "said to whoever starts the product, before there are clients",
        &[
            "DATABASE_CLUSTER",
            "DATABASE_LANGUAGE",
            "DATABASE_REFUSES",
            "DATABASE_UNREACHABLE",
            "DATA_FOLDER",
            "DATA_FOLDER_UNREACHABLE",
            "NO_UNPRIVILEGED_USER",
            "POSTGRESQL_MISSING",
            "ROLES_MISSING",
            "SCHEMA_BEHIND",
            "SOCKET_FOLDER",
            "WRONG_SETTING",
        ],
    ),
    ("between a worker and the queue", &["LEASE_LOST"]),
];

fn reasons() -> EnumDescriptor {
    DESCRIPTOR_POOL.get_enum_by_name("virtualstack.reasons.v1.Reason").expect("the enum")
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs")
            && path.components().any(|part| part.as_os_str() == "src")
        {
            found.push(path);
        }
    }
}

/// Literals of a line that are a word in upper case, and whether it is one of `text_enum!` or `words!`.
fn words(line: &str) -> Vec<&str> {
    let of_a_list = line.trim().strip_suffix("\",").and_then(|line| line.split_once(" = \""));
    if of_a_list.is_some_and(|(name, _)| name.chars().all(|letter| letter.is_ascii_alphanumeric())) {
        return Vec::new();
    }
    let is_word = |text: &&str| {
        text.len() > 1
            && text.starts_with(|first: char| first.is_ascii_uppercase())
            && !text.ends_with('_')
            && text.chars().all(|letter| letter.is_ascii_uppercase() || letter.is_ascii_digit() || letter == '_')
    };
    line.split('"').skip(1).filter(is_word).collect()
}

/// Each word in upper case that the product's sources have as a literal, and a place where it stands. Tests are left out.
fn literals() -> BTreeMap<String, String> {
    let mut files = Vec::new();
    for folder in SOURCES {
        rust_files(&Path::new(ROOT).join(folder), &mut files);
    }
    assert!(files.len() > 100, "{} files", files.len());
    let mut found = BTreeMap::new();
    for file in files {
        let text = std::fs::read_to_string(&file).expect("a file");
        let product = text.split("#[cfg(test)]").next().unwrap_or_default();
        for (number, line) in product.lines().enumerate() {
            for word in words(line) {
                let place = file.strip_prefix(ROOT).expect("below the root").display();
                found.entry(word.to_owned()).or_insert_with(|| format!("{place}:{}", number + 1));
            }
        }
    }
    found
}

#[test]
fn the_contract_has_every_reason_and_no_other() {
    let (found, reasons) = (literals(), reasons());
    let is_check = |word: &str| virtualstack_images::Check::ALL.iter().any(|check| check.as_str() == word);
    let is_none = |word: &str| is_check(word) || NO_REASONS.iter().any(|(_, words)| words.contains(&word));
    let unknown: Vec<_> = found
        .iter()
        // Words of one part are those of states and verbs; which of them are reasons, the contract says.
        .filter(|(word, _)| word.contains('_') && !is_none(word) && reasons.get_value_by_name(word).is_none())
        .collect();
    assert!(
        unknown.is_empty(),
        "not in proto/virtualstack/reasons/v1/reason.proto: {unknown:#?}. Add each with a comment that says what its \
         reader should do; what no client sees goes into NO_REASONS"
    );
    let gone: Vec<_> = reasons
        .values()
        .map(|value| value.name().to_owned())
        .filter(|name| name != "REASON_UNSPECIFIED" && !found.contains_key(name))
        .collect();
    assert!(gone.is_empty(), "in the contract, and nothing says them any more: {gone:?}");
    for word in NO_REASONS.iter().flat_map(|(_, words)| *words) {
        assert!(found.contains_key(*word), "{word} is gone: take it out of NO_REASONS");
        assert!(reasons.get_value_by_name(word).is_none(), "{word} is in the contract: take it out of NO_REASONS");
    }
}

#[test]
fn the_page_of_reasons_is_fresh() {
    let reasons = reasons();
    let file = reasons.parent_file();
    let info = file.file_descriptor_proto().source_code_info.as_ref().expect("comments");
    let mut text = "# Reasons\n\n\
        What `reason` says in errors (google.rpc.ErrorInfo), in changes and events, and in decisions about access, and what to do \
        about it. Made from `proto/virtualstack/reasons/v1/reason.proto` by `UPDATE_SNAPSHOTS=1 cargo test --test it reasons`.\n\n\
        | reason | what it says, and what to do |\n| --- | --- |\n"
        .to_owned();
    for value in reasons.values().skip(1) {
        let found = info.location.iter().find(|location| location.path == value.path());
        let comment = found.map(|location| location.leading_comments().to_owned()).unwrap_or_default();
        let comment = comment.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(comment.ends_with('.'), "{}: {comment:?} does not say what to do", value.name());
        writeln!(text, "| {} | {comment} |", value.name()).expect("a string");
    }
    #[expect(clippy::disallowed_methods, reason = "asks this run of the tests to write")]
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(PAGE, &text).expect("written");
    }
    let page = std::fs::read_to_string(PAGE).unwrap_or_default();
    assert_eq!(page, text, "docs/reasons.md is stale: run with UPDATE_SNAPSHOTS=1 and commit");
}

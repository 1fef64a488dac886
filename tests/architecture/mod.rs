//! The rules of this repository that no type can hold: who may import whom, the same lints in every crate,
//! and nothing in it of the machine it was written on.

mod modules;

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

mod circles;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Who may import whom, names without "virtualstack-". A new crate needs a row, and so a decision.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    // The store only to migrate and to administer.
    ("virtualstack", &["server", "gateway", "worker", "cli", "postgres", "store", "objects"]),
    ("server", &["proto", "model", "store", "connections", "objects"]),
    ("gateway", &["proto", "connections"]),
    ("cli", &["proto"]),
    ("worker", &["model", "store", "queue", "objects", "images"]),
    ("store", &["model", "queue"]),
    ("postgres", &["model"]),
    ("connections", &[]),
    ("objects", &[]),
    ("images", &[]),
    // For its tests.
    ("queue", &["postgres"]),
    ("model", &[]),
    ("proto", &[]),
    ("argon2id-bench", &[]),
    ("select-bench", &[]),
    ("sink-bench", &[]),
];

/// SQL lives behind these; the model names diesel too, but optionally, and the store alone turns that on.
const MAY_NAME_SQL: &[&str] = &["store", "queue", "select-bench"];
const SQL: &[&str] = &["diesel", "tokio-postgres"];

/// These know nothing of the transport.
const MUST_NOT_NAME_GRPC: &[&str] = &["worker", "store", "queue", "model"];
const GRPC: &[&str] = &["tonic", "prost"];

/// Paths that exist on one machine only. Split, so that this file does not name them.
const FOREIGN_PATHS: &[&str] = &[
    concat!("..", "/shared"),
    concat!("/", "work"),
    concat!("/", "root"),
    concat!("/", "farm"),
    concat!("/", "Users"),
];

#[test]
fn crates_import_only_what_the_table_allows() {
    let mut wrong = Vec::new();
    for edge in edges() {
        if let Some(target) = edge.target.strip_prefix("virtualstack-") {
            let allowed = MAY_IMPORT.iter().find(|(from, _)| *from == edge.from).map_or(&[][..], |(_, to)| to);
            if !allowed.contains(&target) {
                wrong.push(format!("{} imports {target}", edge.from));
            }
            if target == "model" && edge.features.iter().any(|feature| feature == "diesel") && edge.from != "store" {
                wrong.push(format!("{} turns on the diesel feature of model", edge.from));
            }
        }
    }
    assert!(wrong.is_empty(), "against MAY_IMPORT: {wrong:#?}");
}

#[test]
fn every_crate_stands_in_the_table() {
    let missing: Vec<_> = packages()
        .iter()
        .map(|package| short_name(&package["name"]))
        .filter(|name| !MAY_IMPORT.iter().any(|(from, _)| from == name))
        .collect();
    assert!(missing.is_empty(), "MAY_IMPORT has no row for {missing:?}");
}

#[test]
fn sql_and_grpc_stay_in_their_crates() {
    let names = |edge: &Edge, family: &[&str]| {
        family.iter().any(|name| edge.target == *name || edge.target.starts_with(&format!("{name}-")))
    };
    let mut wrong = Vec::new();
    for edge in edges() {
        let from = edge.from.as_str();
        let optional_in_model = from == "model" && edge.optional;
        if names(&edge, SQL) && !MAY_NAME_SQL.contains(&from) && !optional_in_model {
            wrong.push(format!("{from} names {}", edge.target));
        }
        if names(&edge, GRPC) && MUST_NOT_NAME_GRPC.contains(&from) {
            wrong.push(format!("{from} names {}", edge.target));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_crate_inherits_the_lints() {
    for package in packages() {
        let manifest = package["manifest_path"].as_str().expect("a path");
        let text = fs::read_to_string(manifest).expect("a manifest");
        assert!(text.contains("[lints]\nworkspace = true"), "{manifest} lacks [lints] workspace = true");
    }
}

/// Examples in comments are for reading. Each crate that runs its own is a build and a start more in every test run.
#[test]
fn no_crate_runs_its_documentation() {
    for package in packages() {
        for target in package["targets"].as_array().expect("a list") {
            assert_eq!(target["doctest"], false, "{} lacks [lib] doctest = false", package["manifest_path"]);
        }
    }
}

/// What works on jobs goes by the database's clock ([`virtualstack_queue::Clock`]): a worker whose own is wrong fails nothing
/// before its time and keeps nothing beyond it. Adapters have to know what time it is elsewhere.
#[test]
fn what_works_on_jobs_reads_no_clock_of_its_own() {
    let is_bound = |file: &str| {
        let works = ["worker/src/", "crates/queue/src/"].iter().any(|folder| file.starts_with(folder));
        (works || file == "crates/store/src/operations.rs")
            && !file.starts_with("worker/src/adapters/")
            && file != "crates/queue/src/clock.rs"
    };
    let bound: Vec<_> = files().into_iter().filter(|file| file.ends_with(".rs") && is_bound(file)).collect();
    assert!(bound.len() > 30, "{bound:?}");
    for file in bound {
        let source = fs::read_to_string(Path::new(ROOT).join(&file)).expect("a file");
        let source = source.split("#[cfg(test)]").next().unwrap_or_default();
        assert!(!["Utc::now", "Local::now", "SystemTime"].iter().any(|clock| source.contains(clock)), "{file}");
    }
}

/// clippy says nothing of a path that leads nowhere, and then guards nothing.
#[test]
fn what_clippy_is_told_of_our_functions_is_there() {
    let text = fs::read_to_string(Path::new(ROOT).join("clippy.toml")).expect("a file");
    let paths: Vec<_> = text.split('"').filter(|part| part.starts_with("virtualstack_")).collect();
    assert!(paths.len() >= 3, "{paths:?}");
    for path in paths {
        assert!(is_there(path), "clippy.toml names {path}, which there is not");
    }
    for gone in ["virtualstack_store::tx::scope::JobScope::new", "virtualstack_store::tx::scope::TenantScope::make"] {
        assert!(!is_there(gone), "the test sees {gone}, which there is not");
    }
}

/// Whether `crate::module::Type::function` stands in the source of that module.
fn is_there(path: &str) -> bool {
    let mut segments: Vec<_> = path.split("::").map(str::to_owned).collect();
    let [function, of_type] = [segments.pop(), segments.pop()].map(|last| last.expect("a function of a type"));
    let package = segments.remove(0).replace('_', "-");
    let package = packages().into_iter().find(|known| known["name"] == package.as_str()).expect("a crate of ours");
    let manifest = Path::new(package["manifest_path"].as_str().expect("a path")).to_owned();
    let root = manifest.with_file_name("src");
    if segments.is_empty() {
        // What the crate gives out under its own name.
        let root = fs::read_to_string(root.join("lib.rs")).expect("a root");
        let given =
            root.lines().filter_map(|line| line.strip_prefix("pub use ")?.strip_suffix(&format!("::{of_type};")));
        segments = given.flat_map(|module| module.split("::").map(str::to_owned)).collect();
    }
    let module = root.join(segments.join("/"));
    let source = fs::read_to_string(module.with_extension("rs")).or_else(|_| fs::read_to_string(module.join("mod.rs")));
    let Ok(source) = source else { return false };
    let head = format!("\nimpl {of_type} {{\n");
    let blocks = source.split(&head).skip(1);
    blocks.filter_map(|block| block.split("\n}\n").next()).any(|block| block.contains(&format!(" fn {function}(")))
}

/// Fields and variants say what they are by their names; the lint missing_docs cannot tell them from items.
#[test]
fn files_and_public_items_have_docs() {
    let item = |line: &str| {
        let line = line.strip_prefix("    ").unwrap_or(line).strip_prefix("pub ");
        let line = line.map(|line| line.trim_start_matches("async ").trim_start_matches("const "));
        let kinds = ["struct ", "enum ", "trait ", "fn ", "static ", "type "];
        line.is_some_and(|line| kinds.iter().any(|kind| line.starts_with(kind)) || line.starts_with(char::is_uppercase))
    };
    let mut wrong = Vec::new();
    let sources = files().into_iter().filter(|file| file.contains("src/") && file.ends_with(".rs"));
    for file in sources.filter(|file| !file.starts_with("third_party/")) {
        let text = fs::read_to_string(Path::new(ROOT).join(&file)).expect("a source");
        let lines: Vec<_> = text.lines().collect();
        if !lines.first().is_some_and(|line| line.starts_with("//!")) {
            wrong.push(format!("{file}: its first line does not say what it is for"));
        }
        for (index, line) in lines.iter().enumerate().filter(|(_, line)| item(line)) {
            // Attributes stand in between.
            let above = lines[..index].iter().rev().map(|line| line.trim());
            let above = above.take_while(|line| !line.is_empty() && !line.starts_with(['{', '}']));
            if !above.into_iter().any(|line| line.starts_with("///")) {
                wrong.push(format!("{file}:{}: {line}", index + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn no_file_names_a_path_of_one_machine() {
    let mut wrong = Vec::new();
    for file in files() {
        // Binary files and links to nowhere have no lines to read.
        let Ok(text) = fs::read_to_string(Path::new(ROOT).join(&file)) else { continue };
        for (index, line) in text.lines().enumerate() {
            if FOREIGN_PATHS.iter().any(|path| names_path(line, path)) {
                wrong.push(format!("{file}:{}: {}", index + 1, line.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Whether `line` names `path` itself or something below it, and not a longer name that contains it.
fn names_path(line: &str, path: &str) -> bool {
    let part_of_name = |c: char| c.is_alphanumeric() || "_-.}*".contains(c);
    line.match_indices(path).any(|(start, _)| {
        !line[..start].ends_with(part_of_name) && !line[start + path.len()..].starts_with(part_of_name)
    })
}

/// A dependency of a crate of ours.
struct Edge {
    from: String,
    target: String,
    features: Vec<String>,
    optional: bool,
}

/// All dependencies of all members, but for the dev-dependencies of the root package: its tests look at the whole system.
fn edges() -> Vec<Edge> {
    let mut edges = Vec::new();
    for package in packages() {
        let from = short_name(&package["name"]);
        for dependency in package["dependencies"].as_array().expect("a list") {
            if from == "virtualstack" && dependency["kind"] == "dev" {
                continue;
            }
            edges.push(Edge {
                from: from.clone(),
                target: dependency["name"].as_str().expect("a name").to_owned(),
                features: serde_json::from_value(dependency["features"].clone()).expect("names"),
                optional: dependency["optional"] == true,
            });
        }
    }
    edges
}

fn short_name(name: &Value) -> String {
    let name = name.as_str().expect("a name");
    name.strip_prefix("virtualstack-").unwrap_or(name).to_owned()
}

/// The members of the workspace as cargo sees them.
fn packages() -> Vec<Value> {
    let metadata = output(Command::new(env!("CARGO")).args(["metadata", "--no-deps", "--format-version", "1"]));
    let metadata: Value = serde_json::from_str(&metadata).expect("JSON of cargo");
    metadata["packages"].as_array().expect("a list").clone()
}

/// What is committed, and what would be.
fn files() -> Vec<String> {
    let list = output(Command::new("git").args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]));
    list.split_terminator('\0').map(str::to_owned).collect()
}

fn output(command: &mut Command) -> String {
    let output = command.current_dir(ROOT).output().expect("a program that starts");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

//! The order of the modules, in every crate alike: a module uses the ground and the modules before it, and none behind it.
//!
//! What belongs to a module has its name in its path: `crates/store/src/compute/vms.rs`, `schema/iam.rs`,
//! `virtualstack.billing.v1`. All else is ground. The edges are the paths in the sources, wherever they stand: in a `use`, or
//! in an expression.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::ROOT;

const GROUND: &str = "ground";

/// What each module may use beside itself. A new module needs a row, and so a place in the order.
const MAY_USE: &[(&str, &[&str])] = &[
    (GROUND, &[]),
    ("iam", &[GROUND]),
    ("compute", &[GROUND, "iam"]),
    ("support", &[GROUND, "iam", "compute"]),
    ("notifications", &[GROUND, "iam", "compute", "support"]),
    ("billing", &[GROUND, "iam", "compute", "support", "notifications"]),
    ("audit", &[GROUND, "iam", "compute", "support", "notifications", "billing"]),
    // How a tenant begins and ends: each module has rows to make or to remove then.
    ("tenant_life", &[GROUND, "iam", "compute", "support", "notifications", "billing", "audit"]),
];

/// The crates that have modules, or must not know of any, by how others name them. The binary stands above them all.
const CRATES: &[(&str, &str)] = &[
    ("virtualstack_model", "crates/model/src"),
    ("virtualstack_store", "crates/store/src"),
    ("virtualstack_queue", "crates/queue/src"),
    ("virtualstack_postgres", "crates/postgres/src"),
    ("virtualstack_server", "server/src"),
    ("virtualstack_worker", "worker/src"),
    ("virtualstack_gateway", "gateway/src"),
    ("virtualstack_proto", "proto/src"),
];

/// What belongs to a module without its name in the path.
const HOMES: &[(&str, &str)] = &[
    ("virtualstack_server::services::mutations", "compute"),
    ("virtualstack_worker::adapters::hypervisor", "compute"),
    ("virtualstack_worker::adapters::desk", "support"),
];

/// Files that may use more, and why; `::*` is all that is in a folder.
const EXCEPTIONS: &[(&str, &[&str], &str)] = &[
    ("virtualstack_store::targets", &["compute"], "lists what the operations of each module work on"),
    ("virtualstack_store::changes::watch", &["iam"], "shows a caller what their access lets them see"),
    ("virtualstack_store::operations", &["iam"], "shows every caller of a watch the same"),
    ("virtualstack_store::tx", &["iam"], "keeps the access that iam decided again in a transaction"),
    ("virtualstack_server", &["iam"], "gives the binary the rules of passwords, for the first admin's"),
    ("virtualstack_server::auth::*", &["iam"], "checks the sessions, keys and passwords of iam for every call"),
    ("virtualstack_server::bootstrap", &["iam", "tenant_life"], "makes the provider's tenant and its first admin"),
    ("virtualstack_server::call::caller", &["iam"], "who calls is a principal of iam, whatever is called"),
    ("virtualstack_server::call::codec", &["compute"], "makes the rules of messages ready with one that has many"),
    ("virtualstack_server::call::texts", &["iam"], "checks the addresses and passwords that any message may bring"),
    ("virtualstack_server::layers::authorize", &["iam"], "decides by what iam knows of who calls"),
    (
        "virtualstack_server::services",
        &["iam", "compute", "support", "notifications"],
        "the list of the services of all modules",
    ),
    ("virtualstack_server::services::iam::tenants", &["tenant_life"], "the rpcs by which a tenant begins and ends"),
    (
        "virtualstack_server::services::registry",
        &["compute", "support", "notifications"],
        "lists what each module adds to operations and watches",
    ),
    (
        "virtualstack_worker::engine::context",
        &["compute", "support"],
        "holds what jobs of all modules share, hypervisors and the desk among it",
    ),
    ("virtualstack_server::services::watched", &["iam"], "hands on what the caller of a watch may see"),
    ("virtualstack_server::services::watches::teller", &["iam"], "reads what the caller of a watch may see"),
    ("virtualstack_worker::object_sweep", &["compute", "support"], "asks each module which objects it knows"),
    (
        "virtualstack_worker::worker",
        &["iam", "compute", "support", "notifications", "tenant_life"],
        "registers the jobs of all modules",
    ),
];

#[test]
fn modules_use_only_what_stands_before_them() {
    let (mut wrong, mut used) = (Vec::new(), BTreeSet::new());
    for (name, folder) in CRATES {
        for file in files(&Path::new(ROOT).join(folder)) {
            let text = fs::read_to_string(&file).expect("a source");
            let relative = file.strip_prefix(Path::new(ROOT).join(folder)).expect("below it");
            let here = module_path(name, &relative.to_string_lossy());
            let from = home(&here);
            let (_, may) = MAY_USE.iter().find(|(module, _)| *module == from).expect("a row");
            for path in paths(&text, &here) {
                let to = home(&path);
                if to == from || may.contains(&to) {
                    continue;
                }
                match EXCEPTIONS.iter().position(|(at, more, _)| excepted(&here, at) && more.contains(&to)) {
                    Some(exception) => _ = used.insert((exception, to)),
                    None => wrong.push(format!(
                        "{folder}/{}: {from} uses {path}, which is {to}; {from} may use {may:?}",
                        relative.display()
                    )),
                }
            }
        }
    }
    assert!(wrong.is_empty(), "against MAY_USE: {wrong:#?}");
    let granted =
        EXCEPTIONS.iter().enumerate().flat_map(|(index, (at, more, _))| more.iter().map(move |to| (index, at, *to)));
    let idle: Vec<_> =
        granted.filter(|(index, _, to)| !used.contains(&(*index, *to))).map(|(_, at, to)| (at, to)).collect();
    assert!(idle.is_empty(), "EXCEPTIONS that nothing needs any more: {idle:?}");
}

#[test]
fn each_module_may_use_all_before_it() {
    for (index, (module, may)) in MAY_USE.iter().enumerate() {
        let before: Vec<_> = MAY_USE[..index].iter().map(|(module, _)| *module).collect();
        assert_eq!(*may, before, "{module}");
    }
    for (at, _, reason) in EXCEPTIONS {
        assert!(reason.len() > 20, "{at}: {reason:?} is no reason");
    }
}

#[test]
fn paths_are_found_wherever_they_stand() {
    let found = |text: &str| paths(text, "virtualstack_store::compute::vms").into_iter().collect::<Vec<_>>();
    let text = "use crate::{iam::users::{self, User}, tx}; use super::quotas as q; fn f<'a>(x: &'a str) { \
        crate::billing::price::<u8>(x); \"crate::audit::x\"; '\"'; virtualstack_model::iam::id::RoleId::new(); a::iam::b } \
        // crate::support::x\n /* crate::audit::y */ mod m { fn g() { super::super::iam::x(); notifications::send() } }";
    assert_eq!(
        found(text),
        [
            "notifications::send",
            "virtualstack_model::iam::id",
            "virtualstack_store::billing::price",
            "virtualstack_store::compute::quotas",
            "virtualstack_store::iam::users",
            "virtualstack_store::iam::x",
            "virtualstack_store::tx",
        ]
    );
    assert_eq!(home("virtualstack_store::iam::users"), "iam");
    assert_eq!(home("virtualstack_server::services::operations"), GROUND);
    assert_eq!(home("virtualstack_worker::adapters::hypervisor::simulated"), "compute");
}

/// The module that a path belongs to.
fn home(path: &str) -> &'static str {
    if let Some((_, module)) = HOMES.iter().find(|(at, _)| is_in(path, at)) {
        return module;
    }
    let named = path.split("::").find_map(|segment| MAY_USE.iter().find(|(module, _)| *module == segment));
    named.map_or(GROUND, |(module, _)| module)
}

fn is_in(path: &str, at: &str) -> bool {
    path.strip_prefix(at).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

fn excepted(path: &str, at: &str) -> bool {
    at.strip_suffix("::*").map_or(path == at, |folder| is_in(path, folder))
}

/// The sources below a folder.
fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap_or_else(|error| panic!("{folder:?}: {error}")) {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files.extend(self::files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// The path of the Rust module that a file is.
fn module_path(name: &str, file: &str) -> String {
    let file = file.strip_suffix(".rs").unwrap_or(file);
    let file = file.strip_suffix("/mod").unwrap_or(if matches!(file, "lib" | "mod" | "main") { "" } else { file });
    [name].into_iter().chain(file.split('/').filter(|segment| !segment.is_empty())).collect::<Vec<_>>().join("::")
}

/// The paths to modules that a source names, as the whole workspace names them: up to the first type or function.
fn paths(text: &str, here: &str) -> BTreeSet<String> {
    let tokens = tokens(text);
    let (mut found, mut at) = (BTreeSet::new(), 0);
    let follows = |at: Option<usize>| at.and_then(|at| tokens.get(at)).is_some_and(|token| token == "::");
    while let Some(token) = tokens.get(at) {
        let is_head = matches!(token.as_str(), "crate" | "super" | "self")
            || CRATES.iter().any(|(name, _)| name == token)
            || MAY_USE.iter().any(|(module, _)| module == token);
        if is_head && !follows(at.checked_sub(1)) && follows(Some(at + 1)) {
            at = tree(&tokens, at, Vec::new(), &mut |path| _ = found.insert(resolve(&path, here)));
        } else {
            at += 1;
        }
    }
    found.retain(|path| path.contains("::"));
    found
}

/// Reads `a::b::{c, d::e}`; what comes behind it.
fn tree(tokens: &[String], mut at: usize, mut path: Vec<String>, each: &mut impl FnMut(Vec<String>)) -> usize {
    loop {
        match tokens.get(at).map(String::as_str) {
            Some("{") => {
                at += 1;
                while tokens.get(at).is_some_and(|token| token != "}") {
                    at = tree(tokens, at, path.clone(), each);
                    // What it is called here.
                    while tokens.get(at).is_some_and(|token| token != "," && token != "}") {
                        at += 1;
                    }
                    at += usize::from(tokens.get(at).is_some_and(|token| token == ","));
                }
                return at + 1;
            }
            Some(segment) if segment.chars().all(|c| c.is_alphanumeric() || c == '_') => path.push(segment.to_owned()),
            _ => {
                each(path);
                return at;
            }
        }
        if tokens.get(at + 1).is_none_or(|token| token != "::") {
            each(path);
            return at + 1;
        }
        at += 2;
    }
}

fn resolve(path: &[String], here: &str) -> String {
    let mut absolute: Vec<&str> = Vec::new();
    for (index, segment) in path.iter().map(String::as_str).enumerate() {
        match segment {
            "crate" => absolute.extend(here.split("::").next()),
            "self" if index == 0 => absolute.extend(here.split("::")),
            "self" => {}
            "super" => {
                if index == 0 {
                    absolute.extend(here.split("::"));
                }
                absolute.pop();
            }
            _ if segment.starts_with(char::is_uppercase) => break,
            _ => absolute.push(segment),
        }
    }
    absolute.join("::")
}

/// Names, `::` and signs, without comments and texts.
fn tokens(text: &str) -> Vec<String> {
    let source: Vec<char> = text.chars().collect();
    let (mut tokens, mut at) = (Vec::new(), 0);
    let starts = |at: usize, with: &str| with.chars().enumerate().all(|(index, c)| source.get(at + index) == Some(&c));
    let find = |from: usize, end: &str| (from..source.len()).find(|at| starts(*at, end)).unwrap_or(source.len());
    while let Some(&c) = source.get(at) {
        if starts(at, "//") {
            at = find(at, "\n");
        } else if starts(at, "/*") {
            at = find(at, "*/") + 2;
        } else if starts(at, "r#\"") {
            at = find(at, "\"#") + 2;
        } else if c == '"' {
            at += 1;
            while source.get(at).is_some_and(|c| *c != '"') {
                at += if source[at] == '\\' { 2 } else { 1 };
            }
            at += 1;
        } else if c == '\'' && source.get(at + 1) == Some(&'\\') {
            at = find(at + 3, "'") + 1;
        } else if c == '\'' && source.get(at + 2) == Some(&'\'') {
            at += 3;
        } else if c.is_alphanumeric() || c == '_' {
            let end = (at..source.len())
                .find(|at| !source[*at].is_alphanumeric() && source[*at] != '_')
                .unwrap_or(source.len());
            tokens.push(source[at..end].iter().collect());
            at = end;
        } else if starts(at, "::") {
            tokens.push("::".to_owned());
            at += 2;
        } else {
            if !c.is_whitespace() {
                tokens.push(c.to_string());
            }
            at += 1;
        }
    }
    tokens
}

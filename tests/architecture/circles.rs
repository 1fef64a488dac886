//! No two files of a crate import each other, directly or around a circle: whoever reads or moves a file has to know only
//! the files that it stands on.
//!
//! A file imports the files that define what it names, through whichever `pub use` it names it. So a `mod.rs` that
//! re-exports its children imports them, and who names a re-export does not import the `mod.rs`. A `mod` line imports
//! nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};

use super::{ROOT, packages};

/// Circles that exist, by their files in order, and why. A row whose circle is gone has to go too.
const ALLOWED: &[(&[&str], &str)] = &[];

#[test]
fn no_two_files_import_each_other_in_a_circle() {
    let found: Vec<_> = roots().iter().flat_map(|root| Tree::read(root).circles()).collect();
    let wrong: Vec<_> = found.iter().filter(|circle| !ALLOWED.iter().any(|(files, _)| circle.is_of(files))).collect();
    assert!(wrong.is_empty(), "these import each other in a circle: {wrong:#?}");
    let gone: Vec<_> = ALLOWED.iter().filter(|(files, _)| !found.iter().any(|circle| circle.is_of(files))).collect();
    assert!(gone.is_empty(), "ALLOWED has circles that are not there: {gone:#?}");
}

#[test]
fn a_path_leads_through_re_exports_to_the_file_that_defines_what_it_names() {
    let folder = tempfile::tempdir().expect("a folder");
    for (file, text) in [
        ("lib.rs", "mod one; mod two; pub use two::Thing;"),
        ("one.rs", "use crate::Thing as Other; pub(crate) fn one(_: Other) {}"),
        ("two/mod.rs", "mod inner; mod made; pub use inner::*;"),
        ("two/inner.rs", "pub struct Thing; mod deeper { fn two() { vec![super::super::super::one::one] } }"),
        ("two/made.rs", "use super::Thing; // use crate::one;"),
    ] {
        let path = folder.path().join(file);
        fs::create_dir_all(path.parent().expect("a folder")).expect("created");
        fs::write(path, text).expect("written");
    }
    let circles = Tree::read(&folder.path().join("lib.rs")).circles();
    let files: Vec<_> = ["one.rs", "two/inner.rs"].map(|file| folder.path().join(file).display().to_string()).into();
    assert_eq!(circles.len(), 1, "{circles:#?}");
    assert!(circles[0].is_of(&files.iter().map(String::as_str).collect::<Vec<_>>()), "{circles:#?}");
}

/// What is compiled by itself: libraries, binaries and tests of all members.
fn roots() -> Vec<PathBuf> {
    let mut roots = Vec::new();
    for package in packages() {
        for target in package["targets"].as_array().expect("a list") {
            if target["kind"][0] != "custom-build" {
                roots.push(PathBuf::from(target["src_path"].as_str().expect("a path")));
            }
        }
    }
    roots
}

/// Files that reach each other, and the imports between them.
#[derive(Debug)]
struct Circle {
    files: BTreeSet<String>,
    #[expect(dead_code, reason = "printed")]
    imports: Vec<String>,
}

impl Circle {
    fn is_of(&self, files: &[&str]) -> bool {
        self.files.iter().map(String::as_str).eq(files.iter().copied())
    }
}

/// A module, in a file of its own or not.
#[derive(Default)]
struct Module {
    file: String,
    parent: usize,
    children: BTreeMap<String, usize>,
    defined: BTreeSet<String>,
    /// Names that `use` brings in, with the paths that they stand for.
    uses: Vec<(String, Vec<String>)>,
    globs: Vec<Vec<String>>,
    /// Paths in code, as far as they have more than one segment.
    paths: BTreeSet<Vec<String>>,
}

/// Where a path leads to: a module itself, or something in it.
#[derive(Clone, Copy)]
struct Place {
    module: usize,
    is_module: bool,
}

/// The modules of a crate; the root is the first.
struct Tree(Vec<Module>);

impl Tree {
    fn read(root: &Path) -> Self {
        let mut tree = Self(Vec::new());
        let folder = root.parent().expect("a folder").to_owned();
        tree.file(root, &folder, 0);
        tree
    }

    /// Reads a file whose children are in `folder`.
    fn file(&mut self, path: &Path, folder: &Path, parent: usize) -> usize {
        let text = fs::read_to_string(path).expect("a file of source");
        let tokens = text.parse().expect("Rust");
        let file = path.strip_prefix(ROOT).unwrap_or(path).display().to_string();
        self.module(file, tokens, folder, parent)
    }

    fn module(&mut self, file: String, tokens: TokenStream, folder: &Path, parent: usize) -> usize {
        let index = self.0.len();
        self.0.push(Module { file, parent, ..Module::default() });
        self.code(index, tokens, folder);
        index
    }

    /// Takes in what stands in a module, at whatever depth.
    fn code(&mut self, module: usize, tokens: TokenStream, folder: &Path) {
        let tokens: Vec<_> = tokens.into_iter().collect();
        let mut at = 0;
        while let Some(token) = tokens.get(at) {
            at += 1;
            let word = match token {
                TokenTree::Ident(word) => word.to_string(),
                TokenTree::Group(group) => {
                    self.code(module, group.stream(), folder);
                    continue;
                }
                _ => continue,
            };
            match (word.as_str(), tokens.get(at), tokens.get(at + 1)) {
                ("use", Some(next), _) if !is_punct(next, '<') => {
                    let end = tokens[at..].iter().position(|token| is_punct(token, ';')).expect("an end");
                    self.take_use(module, &[], &tokens[at..at + end]);
                    at += end;
                }
                ("mod", Some(TokenTree::Ident(name)), next) => {
                    let (name, below) = (name.to_string(), folder.join(name.to_string()));
                    let child = match next {
                        Some(TokenTree::Group(body)) => {
                            let file = self.0[module].file.clone();
                            self.module(file, body.stream(), &below, module)
                        }
                        _ => {
                            let (flat, deep) = (folder.join(format!("{name}.rs")), below.join("mod.rs"));
                            self.file(if flat.exists() { &flat } else { &deep }, &below, module)
                        }
                    };
                    self.0[module].children.insert(name, child);
                    at += 2;
                }
                ("struct" | "enum" | "union" | "trait" | "type" | "const" | "static" | "fn", Some(next), _) => {
                    if let TokenTree::Ident(name) = next {
                        self.0[module].defined.insert(name.to_string());
                    }
                }
                _ => {
                    let mut path = vec![word];
                    while let Some(TokenTree::Ident(next)) = tokens.get(at + 2).filter(|_| is_colons(&tokens[at..])) {
                        path.push(next.to_string());
                        at += 3;
                    }
                    if path.len() > 1 {
                        self.0[module].paths.insert(path);
                    }
                }
            }
        }
    }

    /// Takes in one tree of a `use`: `a::b`, `a::b as c`, `a::*` or `a::{…}`.
    fn take_use(&mut self, module: usize, before: &[String], tokens: &[TokenTree]) {
        let (mut path, mut alias) = (before.to_vec(), None);
        let mut tokens = tokens.iter();
        while let Some(token) = tokens.next() {
            match token {
                TokenTree::Ident(word) if *word == "as" => alias = tokens.next().map(ToString::to_string),
                // `a::{self}` is `a`.
                TokenTree::Ident(word) if *word == "self" && !path.is_empty() => {}
                TokenTree::Ident(word) => path.push(word.to_string()),
                TokenTree::Punct(punct) if punct.as_char() == '*' => return self.0[module].globs.push(path),
                TokenTree::Group(group) => {
                    let inner: Vec<_> = group.stream().into_iter().collect();
                    return inner
                        .split(|token| is_punct(token, ','))
                        .for_each(|tree| self.take_use(module, &path, tree));
                }
                _ => {}
            }
        }
        if let Some(last) = path.last().cloned() {
            self.0[module].uses.push((alias.unwrap_or(last), path));
        }
    }

    /// Where a path leads to, as it is read in a module; none where that is another crate.
    fn resolve(&self, module: usize, path: &[String], depth: usize) -> Option<Place> {
        let (first, rest) = path.split_first()?;
        let mut place = match first.as_str() {
            "crate" => Place { module: 0, is_module: true },
            "self" => Place { module, is_module: true },
            "super" => Place { module: self.0[module].parent, is_module: true },
            name => self.look_up(module, name, depth)?,
        };
        for name in rest {
            if !place.is_module {
                break;
            }
            place = match name.as_str() {
                "super" => Place { module: self.0[place.module].parent, is_module: true },
                // What a macro has defined is not to be seen.
                name => self.look_up(place.module, name, depth).unwrap_or(Place { is_module: false, ..place }),
            };
        }
        Some(place)
    }

    fn look_up(&self, module: usize, name: &str, depth: usize) -> Option<Place> {
        let here = &self.0[module];
        if let Some(child) = here.children.get(name) {
            return Some(Place { module: *child, is_module: true });
        }
        if here.defined.contains(name) {
            return Some(Place { module, is_module: false });
        }
        // Globs may lead in circles, and a crate may have the name of what is used of it.
        let deeper = depth.checked_sub(1)?;
        let used = here.uses.iter().filter(|(alias, _)| alias == name);
        used.filter_map(|(_, path)| self.resolve(module, path, deeper)).next().or_else(|| {
            let globs = here.globs.iter().filter_map(|path| self.resolve(module, path, deeper));
            globs.filter(|glob| glob.is_module).find_map(|glob| self.look_up(glob.module, name, deeper))
        })
    }

    /// Which file imports which.
    fn imports(&self) -> BTreeMap<&str, BTreeSet<&str>> {
        let mut imports: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        for (index, module) in self.0.iter().enumerate() {
            let uses = module.uses.iter().map(|(_, path)| path).chain(&module.globs);
            let places = uses.chain(&module.paths).filter_map(|path| self.resolve(index, path, 8));
            let files = places.map(|place| self.0[place.module].file.as_str()).filter(|file| *file != module.file);
            imports.entry(module.file.as_str()).or_default().extend(files);
        }
        imports
    }

    fn circles(&self) -> Vec<Circle> {
        let imports = self.imports();
        let reached = |from: &str| {
            let (mut reached, mut open) = (BTreeSet::new(), vec![from.to_owned()]);
            while let Some(file) = open.pop() {
                let next = imports.get(file.as_str()).into_iter().flatten();
                open.extend(next.filter(|next| reached.insert((**next).to_owned())).map(|next| (*next).to_owned()));
            }
            reached
        };
        let reached: BTreeMap<_, _> = imports.keys().map(|file| (*file, reached(file))).collect();
        let mut circles = BTreeSet::new();
        for (file, from) in &reached {
            if from.contains(*file) {
                circles.insert(from.iter().filter(|other| reached[other.as_str()].contains(*file)).collect::<Vec<_>>());
            }
        }
        let between = |files: &[&String]| {
            let mut list = Vec::new();
            for from in files {
                let inside = imports[from.as_str()].iter().filter(|to| files.iter().any(|file| file == *to));
                list.extend(inside.map(|to| format!("{from} → {to}")));
            }
            list
        };
        circles
            .into_iter()
            .map(|files| Circle { imports: between(&files), files: files.into_iter().cloned().collect() })
            .collect()
    }
}

fn is_punct(token: &TokenTree, sign: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == sign)
}

fn is_colons(tokens: &[TokenTree]) -> bool {
    matches!(tokens, [first, second, ..] if is_punct(first, ':') && is_punct(second, ':'))
}

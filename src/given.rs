//! Settings as they were given: in a file, in variables, on the command line. Here it is known where each came from, so that
//! what is wrong is told by the name that it was given by, and all of it at once.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use figment::error::Kind;
use figment::providers::{Format as _, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};
use serde::de::DeserializeOwned;

/// What names of variables begin with.
const PREFIX: &str = "VIRTUALSTACK_";

/// What tests say to themselves.
const OF_TESTS: &str = "VIRTUALSTACK_TEST_";

/// What a number of the settings may be: its key, the least and the most.
pub(crate) struct Range(pub(crate) &'static str, pub(crate) f64, pub(crate) f64);

/// A key that no setting has.
const NO_KEY: &str = "?";

/// Settings that cannot be worked with, a line for each.
#[derive(Debug)]
pub(crate) struct Wrong(pub(crate) Vec<String>);

impl std::fmt::Display for Wrong {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.as_slice() {
            [one] => write!(f, "wrong settings: {one}"),
            all => write!(f, "wrong settings:\n  {}", all.join("\n  ")),
        }
    }
}

impl std::error::Error for Wrong {}

/// Where settings came from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sources {
    /// The settings file and its text.
    file: Option<(PathBuf, String)>,
    /// Names of variables, by key.
    variables: BTreeMap<String, String>,
    /// Flags of the command line, by key.
    flags: BTreeMap<String, &'static str>,
}

impl Sources {
    /// The name of a setting as it was given; of one that was not, as it could be.
    pub(crate) fn name(&self, key: &str) -> String {
        if let Some(flag) = self.flags.get(key) {
            return (*flag).to_owned();
        }
        if let Some(variable) = self.variables.get(key) {
            return format!("{variable} ({key})");
        }
        match self.file.as_ref().and_then(|(path, text)| Some((path, line_of(text, key)?))) {
            Some((path, line)) => format!("{}:{line}: {key}", path.display()),
            None => format!("{key} ({})", variable(key)),
        }
    }
}

/// Settings as they were given, and what is wrong with them so far.
pub(crate) struct Given {
    values: Dict,
    /// Sections that lack something, and are not extracted.
    aside: Dict,
    pub(crate) sources: Sources,
    /// Texts of variables that may be meant as something else than text.
    texts: BTreeMap<String, String>,
    pub(crate) problems: Vec<String>,
}

impl Given {
    /// Takes settings together: what comes later wins. `T` has all that there are.
    pub(crate) fn new<T: DeserializeOwned>(
        file: Option<(PathBuf, String)>,
        variables: impl Iterator<Item = (OsString, OsString)>,
        arguments: Vec<(&'static str, &'static str, String)>,
    ) -> Self {
        let keys = known_keys::<T>();
        let mut given = Self {
            values: Dict::new(),
            aside: Dict::new(),
            sources: Sources::default(),
            texts: BTreeMap::new(),
            problems: Vec::new(),
        };
        if let Some((path, text)) = file {
            given.read_file(path, text);
        }
        for (name, text) in variables {
            given.read_variable(&keys, &name.to_string_lossy(), text);
        }
        for (key, flag, text) in arguments {
            given.sources.flags.insert(key.to_owned(), flag);
            given.set(key, Value::from(text));
        }
        given
    }

    fn read_file(&mut self, path: PathBuf, text: String) {
        match toml_edit::ImDocument::parse(text.as_str()) {
            Ok(_) => {}
            Err(error) => {
                // The line itself is not shown: it may hold a secret.
                let line = error.span().map_or(1, |span| line_at(&text, span.start));
                self.problems.push(format!("{}:{line}: {}", path.display(), error.message().trim()));
                return;
            }
        }
        match Toml::string(&text).data() {
            Ok(mut profiles) => self.values = profiles.remove(&Profile::Default).unwrap_or_default(),
            Err(error) => self.problems.push(format!("{}: {error}", path.display())),
        }
        self.sources.file = Some((path, text));
    }

    fn read_variable(&mut self, keys: &[String], name: &str, text: OsString) {
        if !name.starts_with(PREFIX) || name.starts_with(OF_TESTS) {
            return;
        }
        let Ok(text) = text.into_string() else {
            self.problems.push(format!("{name}: is not UTF-8"));
            return;
        };
        // An empty one is one that is not set: so scripts and compose files hand on what they were not given.
        if text.is_empty() {
            return;
        }
        let Some(key) = keys.iter().find(|key| variable(key) == name) else {
            let names: Vec<_> = keys.iter().map(|key| variable(key)).collect();
            self.problems.push(format!("{name}: there is no such setting{}", nearest(name, &names)));
            return;
        };
        self.sources.variables.insert(key.clone(), name.to_owned());
        self.texts.insert(key.clone(), text.clone());
        self.set(key, Value::from(text));
    }

    /// Says that a setting cannot be worked with.
    pub(crate) fn refuse(&mut self, key: &str, problem: impl std::fmt::Display) {
        self.problems.push(format!("{}: {problem}", self.sources.name(key)));
    }

    /// The settings, with their numbers in `ranges`. What is wrong is left out, and told with what follows.
    pub(crate) fn extract<T: DeserializeOwned + Default>(&mut self, ranges: &[Range]) -> T {
        loop {
            let error = match Figment::from(Values(&self.values)).extract::<T>() {
                Ok(settings) => {
                    for Range(key, least, most) in ranges {
                        if self.number(key).is_some_and(|number| !(*least..=*most).contains(&number)) {
                            self.refuse(key, format_args!("must be {least} to {most}"));
                        }
                    }
                    return settings;
                }
                Err(error) => error,
            };
            let mut key = error.path.iter().take(2).cloned().collect::<Vec<_>>();
            match &error.kind {
                // A variable is text first: a password may be a number. Where text is wrong, it is what it looks like.
                Kind::InvalidType(..) if let Some(text) = self.texts.remove(&key.join(".")) => {
                    self.set(&key.join("."), text.parse().unwrap_or_else(|_| Value::from(text)));
                    continue;
                }
                Kind::UnknownField(name, _) => {
                    if key.last() != Some(name) {
                        key.push(name.clone());
                    }
                    let key = key.join(".");
                    let problem = format!("there is no such setting{}", nearest(&key, &known_keys::<T>()));
                    self.refuse(&key, problem);
                }
                Kind::MissingField(name) => {
                    self.refuse(&format!("{}.{name}", key.join(".")), "is required");
                    key.truncate(1);
                    let lacking = key.first().and_then(|section| self.values.get(section).cloned());
                    self.aside.extend(key.first().cloned().zip(lacking));
                }
                Kind::InvalidType(_, expected) if is_secret(&key) => {
                    self.refuse(&key.join("."), format!("must be {expected}"));
                }
                kind => {
                    let key = key.join(".");
                    match ranges.iter().find(|Range(ranged, ..)| *ranged == key) {
                        Some(Range(_, least, most)) => {
                            self.refuse(&key, format_args!("must be a number, {least} to {most}"));
                        }
                        None => self.refuse(&key, kind),
                    }
                }
            }
            if !remove(&mut self.values, &key) {
                return T::default();
            }
        }
    }

    /// A number that was given in a section.
    pub(crate) fn number(&self, key: &str) -> Option<f64> {
        let (section, name) = key.split_once('.')?;
        let of = |values: &Dict| match values.get(section) {
            Some(Value::Dict(_, values)) => values.get(name).cloned(),
            _ => None,
        };
        let Value::Num(_, number) = of(&self.values).or_else(|| of(&self.aside))? else { return None };
        number.to_f64().or_else(|| {
            let whole = number.to_i128().or_else(|| number.to_u128().and_then(|number| number.try_into().ok()));
            whole.map(|number| number as f64)
        })
    }

    fn set(&mut self, key: &str, value: Value) {
        match key.split_once('.') {
            None => drop(self.values.insert(key.to_owned(), value)),
            Some((section, key)) => {
                let section = self.values.entry(section.to_owned()).or_insert_with(|| Value::from(Dict::new()));
                if let Value::Dict(_, values) = section {
                    values.insert(key.to_owned(), value);
                }
            }
        }
    }
}

/// Values that were taken together.
struct Values<'a>(&'a Dict);

impl Provider for Values<'_> {
    fn metadata(&self) -> Metadata {
        Metadata::named("settings")
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.0.clone()))
    }
}

/// Every key that `T` has. serde names them to whoever gives one that there is not.
pub(crate) fn known_keys<T: DeserializeOwned>() -> Vec<String> {
    let unknown = || Dict::from([(NO_KEY.to_owned(), Value::from(0))]);
    let fields = |values: &Dict| match Figment::from(Values(values)).extract::<T>().err()?.kind {
        Kind::UnknownField(name, fields) if name == NO_KEY => Some(fields),
        _ => None,
    };
    let mut keys = Vec::new();
    for name in fields(&unknown()).unwrap_or_default() {
        match fields(&Dict::from([((*name).to_owned(), Value::from(unknown()))])) {
            Some(section) => keys.extend(section.iter().map(|key| format!("{name}.{key}"))),
            None => keys.push((*name).to_owned()),
        }
    }
    keys
}

/// The variable of a setting.
fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "_").to_uppercase())
}

/// Whether what was given must not be shown.
fn is_secret(key: &[String]) -> bool {
    key.last()
        .is_some_and(|key| ["password", "key", "key_previous", "secret", "url"].iter().any(|kind| key.ends_with(kind)))
}

/// What somebody may have meant, as the end of a sentence.
fn nearest(name: &str, known: &[String]) -> String {
    let near = known.iter().map(|known| (strsim::damerau_levenshtein(name, known), known)).min();
    match near {
        Some((distance, known)) if distance <= name.trim_start_matches(PREFIX).len() / 4 + 1 => {
            format!("; did you mean {known}?")
        }
        _ => String::new(),
    }
}

/// Takes out a value, or the section that it would be in.
fn remove(values: &mut Dict, key: &[String]) -> bool {
    match key {
        [section, key] => match values.get_mut(section) {
            Some(Value::Dict(_, keys)) => keys.remove(key).is_some() || values.remove(section).is_some(),
            Some(_) => values.remove(section).is_some(),
            None => false,
        },
        [key] => values.remove(key).is_some(),
        _ => false,
    }
}

fn line_at(text: &str, position: usize) -> usize {
    text[..position.min(text.len())].matches('\n').count() + 1
}

/// The line of a file that a setting, or the section that it would be in, stands in.
fn line_of(text: &str, key: &str) -> Option<usize> {
    let document = toml_edit::ImDocument::parse(text).ok()?;
    let mut table: &dyn toml_edit::TableLike = document.as_table();
    let mut found = None;
    for part in key.split('.') {
        let (key, item) = table.get_key_value(part)?;
        found = key.span();
        match item.as_table_like() {
            Some(inner) => table = inner,
            None => break,
        }
    }
    Some(line_at(text, found?.start))
}

/// A settings file and its text.
pub(crate) fn read(path: &Path) -> Result<(PathBuf, String), Wrong> {
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|error| Wrong(vec![format!("--config: cannot read {}: {error}", path.display())]))?;
    Ok((path.to_owned(), text))
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct All {
        name: Option<String>,
        server: Section,
    }

    #[derive(Debug, Default, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Section {
        password: String,
        port: Option<u16>,
        share: f64,
        origins: Vec<String>,
    }

    fn given(
        file: Option<&str>,
        variables: &[(&str, &str)],
        arguments: Vec<(&'static str, &'static str, String)>,
    ) -> Given {
        let file = file.map(|text| (PathBuf::from("x.toml"), text.to_owned()));
        let variables = variables.iter().map(|(name, text)| (OsString::from(name), OsString::from(text)));
        Given::new::<All>(file, variables, arguments)
    }

    #[test]
    fn every_key_is_known_by_what_the_settings_are() {
        let keys = ["name", "server.password", "server.port", "server.share", "server.origins"];
        assert_eq!(known_keys::<All>(), keys);
    }

    #[test]
    fn text_stays_text_and_all_else_is_what_it_looks_like() {
        let variables = [
            ("VIRTUALSTACK_NAME", "12345678901234"),
            ("VIRTUALSTACK_SERVER_PASSWORD", "true"),
            ("VIRTUALSTACK_SERVER_PORT", "80"),
            ("VIRTUALSTACK_SERVER_SHARE", "0.5"),
            ("VIRTUALSTACK_SERVER_ORIGINS", "[a, b]"),
            ("VIRTUALSTACK_TEST_X", "1"),
            ("OTHER", "1"),
        ];
        let mut given = given(None, &variables, Vec::new());
        let all: All = given.extract(&[Range("server.share", 0.0, 1.0)]);
        assert!(given.problems.is_empty(), "{:?}", given.problems);
        assert_eq!((all.name.as_deref(), all.server.password.as_str()), (Some("12345678901234"), "true"));
        assert_eq!((all.server.port, all.server.share, all.server.origins.len()), (Some(80), 0.5, 2));
        assert_eq!((given.number("server.port"), given.number("server.share")), (Some(80.0), Some(0.5)));
        assert_eq!(given.number("name"), None);
    }

    #[test]
    fn what_wins_is_the_command_line_then_variables_then_the_file() {
        let file = Some("name = \"file\"\n[server]\nport = 1\nshare = 1.0\n");
        let variables = [("VIRTUALSTACK_NAME", "variable"), ("VIRTUALSTACK_SERVER_PORT", "2")];
        let mut given = given(file, &variables, vec![("name", "--name", "argument".to_owned())]);
        let all: All = given.extract(&[Range("server.share", 0.0, 1.0)]);
        assert_eq!((all.name.as_deref(), all.server.port, all.server.share), (Some("argument"), Some(2), 1.0));
        let names = ["name", "server.port", "server.share", "server.origins"].map(|key| given.sources.name(key));
        let expected = [
            "--name",
            "VIRTUALSTACK_SERVER_PORT (server.port)",
            "x.toml:4: server.share",
            "server.origins (VIRTUALSTACK_SERVER_ORIGINS)",
        ];
        assert_eq!(names, expected);
    }

    #[test]
    fn all_that_is_wrong_is_told_at_once_and_by_the_name_it_was_given_by() {
        let file = Some("nmae = 1\n\n[server]\npassword = 123456789\nshare = \"much\"\n[sever]\nport = 1\n");
        let variables =
            [("VIRTUALSTACK_SERVER_PROT", "1"), ("VIRTUALSTACK_SERVER_PORT", "many"), ("VIRTUALSTACK_ZZZ", "1")];
        let mut given = given(file, &variables, Vec::new());
        let all: All = given.extract(&[Range("server.share", 0.0, 1.0)]);
        assert_eq!((all.server.port, all.server.share), (None, 0.0));
        let mut problems = given.problems;
        problems.sort();
        let text = problems.join("\n");
        for part in [
            "VIRTUALSTACK_SERVER_PROT: there is no such setting; did you mean VIRTUALSTACK_SERVER_PORT?",
            "VIRTUALSTACK_SERVER_PORT (server.port): invalid type: found string \"many\", expected u16",
            "VIRTUALSTACK_ZZZ: there is no such setting",
            "x.toml:1: nmae: there is no such setting; did you mean name?",
            "x.toml:4: server.password: must be a string",
            "x.toml:5: server.share: must be a number, 0 to 1",
            "x.toml:6: sever: there is no such setting",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
        assert_eq!(problems.len(), 7, "{text}");
        assert!(!text.contains("123456789"), "a secret is shown: {text}");
        assert!(!problems.iter().any(|line| line.starts_with("VIRTUALSTACK_ZZZ") && line.contains("did you mean")));
    }

    #[test]
    fn a_file_that_is_no_toml_is_told_with_its_line_and_not_with_its_text() {
        let given = given(Some("name = \"a\"\n[server]\npassword = secret\n"), &[], Vec::new());
        assert_eq!(given.problems.len(), 1);
        assert!(given.problems[0].starts_with("x.toml:3: "), "{:?}", given.problems);
        assert!(!given.problems[0].contains("= secret"), "{:?}", given.problems);
    }

    #[test]
    fn a_number_outside_of_its_range_is_refused_with_it() {
        for (share, wrong) in [("0", false), ("1.0", false), ("-0.1", true), ("1.5", true), ("2", true)] {
            let mut given = given(Some(&format!("server.share = {share}")), &[], Vec::new());
            given.extract::<All>(&[Range("server.share", 0.0, 1.0)]);
            let expected = if wrong { vec!["x.toml:1: server.share: must be 0 to 1".to_owned()] } else { Vec::new() };
            assert_eq!(given.problems, expected);
        }
    }

    #[test]
    fn an_empty_variable_is_one_that_is_not_set() {
        let mut given = given(Some("name = \"file\""), &[("VIRTUALSTACK_NAME", "")], Vec::new());
        assert_eq!(given.extract::<All>(&[]).name.as_deref(), Some("file"));
    }
}

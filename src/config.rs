//! Settings: defaults, then virtualstack.toml, then VIRTUALSTACK_* variables, then the command line.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use virtualstack_server::{DefaultQuota, MasterKey, Secret, check_email, normalize_email, password};
use virtualstack_store::schema::reach;
use virtualstack_worker::adapters::hypervisor::{simulated, vcenter};
use virtualstack_worker::adapters::{desk, mail};

use crate::given::{Given, Sources, Wrong, read};
use crate::ranges::RANGES;

/// All settings.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    pub(crate) environment: Environment,
    data_dir: Option<PathBuf>,
    master_key: Option<String>,
    master_key_file: Option<PathBuf>,
    master_key_previous: Option<String>,
    master_key_previous_file: Option<PathBuf>,
    gateway_secret: Option<String>,
    gateway_secret_file: Option<PathBuf>,
    pub(crate) admin: Admin,
    pub(crate) database: virtualstack_store::Config,
    pub(crate) server: virtualstack_server::Config,
    default_quota: DefaultQuota,
    pub(crate) gateway: virtualstack_gateway::Config,
    pub(crate) ops: Ops,
    pub(crate) worker: virtualstack_worker::Config,
    pub(crate) hypervisor: Hypervisor,
    pub(crate) simulated: simulated::Config,
    vcenter: Option<vcenter::Config>,
    pub(crate) desk: desk::Config,
    pub(crate) mail: mail::Config,
    /// Of servers and workers. Once it is loaded, a local one has its folder.
    pub(crate) storage: virtualstack_objects::Config,
    pub(crate) log: Log,
    /// Where all of this came from.
    #[serde(skip)]
    sources: Sources,
}

/// How careful to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Environment {
    #[default]
    Development,
    Testing,
    Production,
}

/// The first admin.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Admin {
    pub(crate) email: Option<String>,
    pub(crate) password: Option<String>,
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admin").field("email", &self.email).finish_non_exhaustive()
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Ops {
    pub(crate) listen: SocketAddr,
}

impl Default for Ops {
    fn default() -> Self {
        Self { listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 9464)) }
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Hypervisor {
    pub(crate) kind: HypervisorKind,
    /// For tests: kill the process at this point of a workflow, e.g. "vm_create.clone.after_call", …
    pub(crate) crash_at: Option<String>,
    /// … the how-manieth time it is passed.
    pub(crate) crash_after: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum HypervisorKind {
    #[default]
    Simulated,
    #[value(name = "vcenter")]
    VCenter,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Log {
    pub(crate) format: LogFormat,
    pub(crate) filter: String,
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Pretty, filter: "info".to_owned() }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    Pretty,
    Json,
}

impl Config {
    /// Folder of everything that `up` keeps.
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.data_dir.clone().unwrap_or_else(|| PathBuf::from(".virtualstack"))
    }

    /// The vCenter to work on, if it is one.
    pub(crate) fn vcenter(&self) -> Option<&vcenter::Config> {
        self.vcenter.as_ref().filter(|_| self.hypervisor.kind == HypervisorKind::VCenter)
    }

    /// The name of a setting as it was given.
    pub(crate) fn name(&self, key: &str) -> String {
        self.sources.name(key)
    }

    /// A setting that cannot be worked with, by the name that it was given by.
    pub(crate) fn wrong(&self, key: &str, problem: impl std::fmt::Display) -> Wrong {
        Wrong(vec![format!("{}: {problem}", self.name(key))])
    }

    /// What stands in a setting, or in the file that another one names.
    fn secret(&self, key: &str, text: Option<&str>, file: Option<&Path>) -> Result<Option<String>, Wrong> {
        let in_file = format!("{key}_file");
        match (text, file) {
            (Some(_), Some(_)) => Err(self.wrong(&in_file, format_args!("{key} is set as well; give one of the two"))),
            (Some(text), None) => Ok(Some(text.trim().to_owned())),
            (None, Some(file)) => {
                let read = std::fs::read_to_string(file);
                let failed = |error| self.wrong(&in_file, format_args!("cannot read {}: {error}", file.display()));
                read.map_err(failed).map(|text| Some(text.trim().to_owned()))
            }
            (None, None) => Ok(None),
        }
    }

    fn key(&self, key: &str, text: Option<&str>, file: Option<&Path>) -> Result<Option<MasterKey>, Wrong> {
        let Some(secret) = self.secret(key, text, file)? else { return Ok(None) };
        let given = if file.is_some() { format!("{key}_file") } else { key.to_owned() };
        MasterKey::parse(&secret).map(Some).map_err(|error| self.wrong(&given, error))
    }

    /// The master key that was given; None where `up` may make one.
    pub(crate) fn master_key(&self) -> Result<Option<MasterKey>, Wrong> {
        let key = self.key("master_key", self.master_key.as_deref(), self.master_key_file.as_deref())?;
        key.map(|key| self.with_previous(key)).transpose()
    }

    /// A master key together with the one before, while it is being changed.
    pub(crate) fn with_previous(&self, key: MasterKey) -> Result<MasterKey, Wrong> {
        let (text, file) = (self.master_key_previous.as_deref(), self.master_key_previous_file.as_deref());
        let previous = self.key("master_key_previous", text, file)?;
        Ok(previous.map_or(key.clone(), |previous| key.with_previous(&previous)))
    }

    /// The master key, which roles that run apart cannot do without.
    pub(crate) fn required_master_key(&self) -> Result<MasterKey, Wrong> {
        self.master_key()?
            .ok_or_else(|| self.wrong("master_key_file", "is required, or VIRTUALSTACK_MASTER_KEY with the key itself"))
    }

    /// What gateways show the server, so that it believes what they say of their clients; None where nobody is believed.
    pub(crate) fn gateway_secret(&self) -> Result<Option<String>, Wrong> {
        let (text, file) = (self.gateway_secret.as_deref(), self.gateway_secret_file.as_deref());
        let secret = self.secret("gateway_secret", text, file)?;
        if let Some(Err(error)) = secret.as_deref().map(|text| Secret::new("gateway_secret", text)) {
            let problem = error.to_string().replacen("gateway_secret: ", "", 1);
            return Err(self.wrong(if file.is_some() { "gateway_secret_file" } else { "gateway_secret" }, problem));
        }
        Ok(secret)
    }

    /// The database, which roles that run apart cannot do without.
    pub(crate) fn required_database(&self) -> Result<&virtualstack_store::Config, Wrong> {
        if self.database.url.is_empty() {
            return Err(self.wrong("database.url", "is required"));
        }
        Ok(&self.database)
    }

    /// What is wrong with settings that are each possible, by key.
    fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        let mut refuse = |wrong: bool, key, problem: &str| {
            if wrong {
                problems.push((key, problem.to_owned()));
            }
        };
        let production = self.environment == Environment::Production;
        let kind = self.hypervisor.kind;
        let crashes = self.hypervisor.crash_at.is_some() && self.environment != Environment::Testing;
        refuse(crashes, "hypervisor.crash_at", "only for environment = \"testing\"");
        let no_vcenter = kind == HypervisorKind::VCenter && self.vcenter.is_none();
        refuse(no_vcenter, "vcenter.url", "is required with hypervisor.kind = \"vcenter\"");
        let simulated = production && kind == HypervisorKind::Simulated;
        refuse(simulated, "hypervisor.kind", "\"simulated\" is not for environment = \"production\"");
        let to_files = production && self.mail.kind == mail::Kind::File;
        refuse(to_files, "mail.kind", "\"file\" is not for environment = \"production\"");
        let late = self.worker.heartbeat_ms >= self.worker.lease_ms;
        refuse(late, "worker.heartbeat_ms", "must be less than worker.lease_ms, or each job is taken for lost");
        let early = u64::from(self.worker.sweep_seconds) < SLOWEST_FILE + 2 * self.server.upload_idle_seconds;
        let sweep = "must be at least 1200 and twice server.upload_idle_seconds, or files go that are still uploaded";
        refuse(early, "worker.sweep_seconds", sweep);
        let short = self.server.session_seconds < self.server.access_token_seconds;
        refuse(short, "server.session_seconds", "must be at least server.access_token_seconds");
        let no_burst = self.server.calls_per_second > 0 && self.server.calls_burst == 0;
        refuse(no_burst, "server.calls_burst", "must be at least 1; calls_per_second = 0 is for no limit");
        let beyond = self.gateway.default_timeout > self.gateway.max_timeout;
        refuse(beyond, "gateway.default_timeout", "must be at most gateway.max_timeout");
        let email = self.admin.email.as_deref();
        refuse(!email.is_none_or(is_address), "admin.email", "must be an address like admin@example.com");
        if let Some(password) = &self.admin.password
            && let Err(problem) = password::check(password, email.as_slice())
        {
            problems.push(("admin.password", problem.to_owned()));
        }
        for (key, url) in [
            ("database.url", Some(&self.database.url).filter(|url| !url.is_empty())),
            ("database.migrate_url", self.database.migrate_url.as_ref()),
        ] {
            problems.extend(url.and_then(|url| reach::check_url(url).err()).map(|problem| (key, problem)));
        }
        problems
    }
}

/// Whether mail can go to it, as far as its form says.
fn is_address(text: &str) -> bool {
    check_email(&normalize_email(text)).is_ok()
}

/// Loads the settings. `file` may be missing unless it was asked for; `arguments` are keys, flags and values.
pub(crate) fn load(file: Option<&Path>, arguments: Vec<(&'static str, &'static str, String)>) -> Result<Config, Wrong> {
    let here = Path::new("virtualstack.toml");
    let file = match file {
        Some(asked_for) => Some(read(asked_for)?),
        None => here.is_file().then(|| read(here)).transpose()?,
    };
    #[expect(clippy::disallowed_methods, reason = "this is where settings come from")]
    let variables = std::env::vars_os();
    check(Given::new::<Config>(file, variables, arguments))
}

/// Seconds that the file of a ticket takes at most, which has a row only at its end: 15 MiB, at 16 KiB a second, and some more.
const SLOWEST_FILE: u64 = 1200;

/// Settings that can be worked with, or all that is wrong with them.
fn check(mut given: Given) -> Result<Config, Wrong> {
    let mut config: Config = given.extract(RANGES);
    // What an extraction has left out needs no second complaint.
    let extracted = given.problems.is_empty();
    for (key, problem) in config.problems() {
        if extracted || key != "vcenter.url" {
            given.refuse(key, problem);
        }
    }
    if config.storage.kind == virtualstack_objects::Kind::Local && config.storage.folder.is_none() {
        config.storage.folder = Some(config.data_dir().join("objects"));
    }
    config.server.default_quota = config.default_quota;
    config.server.desk_is_local = config.desk.kind == desk::Kind::Local;
    if let Err(error) = config.desk.check() {
        given.refuse(&format!("desk.{}", error.key), error.problem);
    }
    if let Err(error) = config.storage.check() {
        given.refuse(&format!("storage.{}", error.key), error.problem);
    }
    if let Err(error) = config.mail.check() {
        given.refuse(&format!("mail.{}", error.key), error.problem);
    }
    if let Some(Err(error)) = config.vcenter.as_ref().map(vcenter::Config::check) {
        given.refuse(&format!("vcenter.{}", error.key), error.problem);
    }
    if let Err(error) = virtualstack_server::check(&config.server) {
        let text = error.to_string();
        let (key, problem) = text.split_once(": ").unwrap_or(("server", &text));
        given.refuse(key, problem);
    }
    config.sources = given.sources;
    if let Err(Wrong(problems)) = config.master_key() {
        given.problems.extend(problems);
    }
    if let Err(Wrong(problems)) = config.gateway_secret() {
        given.problems.extend(problems);
    }
    if given.problems.is_empty() { Ok(config) } else { Err(Wrong(given.problems)) }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::given::{Range, known_keys};

    /// Lines of the example that are settings or sections, uncommented.
    fn example() -> Vec<&'static str> {
        let setting = |line: &&str| {
            let text = line.trim_start_matches('#');
            text.starts_with('[')
                || text
                    .split_once(" = ")
                    .is_some_and(|(key, _)| key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'))
        };
        let example = include_str!("../virtualstack.example.toml");
        example.lines().filter(setting).map(|line| line.trim_start_matches('#')).collect()
    }

    fn given(file: &str) -> Given {
        Given::new::<Config>(Some((PathBuf::from("x.toml"), file.to_owned())), std::iter::empty(), Vec::new())
    }

    /// Every key of the example, uncommented, is one that the product knows.
    #[test]
    fn the_example_names_settings_that_there_are() {
        let lines = example();
        assert!(lines.len() > 50, "the example has lost its settings");
        let mut given = given(&lines.join("\n"));
        // Its values are the defaults, so these are in their ranges.
        given.extract::<Config>(RANGES);
        assert!(given.problems.is_empty(), "{:?}", given.problems);
    }

    /// What serde expects of a setting that gets something that no setting is.
    fn expected(key: &str) -> String {
        let (section, name) = key.split_once('.').unwrap_or(("", key));
        let section = if section.is_empty() { String::new() } else { format!("[{section}]\n") };
        let mut given = given(&format!("{section}{name} = {{}}\n"));
        given.extract::<Config>(&[]);
        given.problems.iter().find(|problem| problem.contains(key)).cloned().unwrap_or_default()
    }

    #[test]
    fn every_number_has_a_range_and_one_outside_of_it_is_refused() {
        let is_number = |key: &String| {
            let expected = expected(key);
            let kinds = ["u8", "u16", "u32", "u64", "usize", "i32", "i64", "f64"];
            kinds.iter().any(|kind| expected.ends_with(&format!("expected {kind}")))
        };
        let numbers: Vec<_> = known_keys::<Config>().into_iter().filter(is_number).collect();
        let ranged: Vec<_> = RANGES.iter().map(|Range(key, ..)| *key).collect();
        assert!(numbers.len() > 40, "{numbers:?}");
        let missing: Vec<_> = numbers.iter().filter(|key| !ranged.contains(&key.as_str())).collect();
        assert!(missing.is_empty(), "give each a range in src/ranges.rs: {missing:?}");
        let gone: Vec<_> = ranged.iter().filter(|key| !numbers.iter().any(|number| number == *key)).collect();
        assert!(gone.is_empty(), "no numbers of the settings: {gone:?}");
        for Range(key, least, most) in RANGES {
            let (section, name) = key.split_once('.').expect("a section");
            for outside in [least - 1.0, most + 1.0] {
                let Err(Wrong(problems)) = check(given(&format!("[{section}]\n{name} = {outside}\n"))) else {
                    panic!("{key} = {outside} is taken")
                };
                let told = |problem: &String| {
                    problem.starts_with(&format!("x.toml:2: {key}: must be"))
                        && problem.contains(&format!("{least} to {most}"))
                };
                assert!(problems.iter().any(told), "{problems:?}");
            }
        }
    }

    #[test]
    fn settings_that_do_not_go_together_are_refused() {
        for (file, named) in [
            ("[worker]\nheartbeat_ms = 30000", "worker.heartbeat_ms"),
            ("[server]\naccess_token_seconds = 3600\nsession_seconds = 1800", "server.session_seconds"),
            ("[server]\ncalls_burst = 0", "server.calls_burst"),
            ("[gateway]\nmax_timeout = 10", "gateway.default_timeout"),
        ] {
            let Err(Wrong(problems)) = check(given(file)) else { panic!("{file} is taken") };
            assert!(problems.iter().any(|problem| problem.contains(named)), "{problems:?}");
        }
    }

    #[test]
    fn a_local_storage_is_in_the_data_folder_unless_it_is_said_to_be_elsewhere() {
        let folder = |file: &str| check(given(file)).expect("settings").storage.folder;
        assert_eq!(folder(""), Some(PathBuf::from(".virtualstack/objects")));
        assert_eq!(folder("data_dir = \"/data\""), Some(PathBuf::from("/data/objects")));
        let elsewhere = "data_dir = \"/data\"\n[storage]\nfolder = \"/mnt/uploads\"";
        assert_eq!(folder(elsewhere), Some(PathBuf::from("/mnt/uploads")));
    }

    const S3: &str = "[storage]\nkind = \"s3\"\nendpoint = \"https://s3.example.com\"\nbucket = \"uploads\"\n";

    #[test]
    fn a_storage_that_cannot_be_used_is_refused_by_its_setting() {
        for (more, named) in [
            ("", "storage.access_key (VIRTUALSTACK_STORAGE_ACCESS_KEY): is required"),
            ("access_key = \"a\"", "storage.secret_key (VIRTUALSTACK_STORAGE_SECRET_KEY): is required"),
            ("access_key = \"a\"\nsecret_key = 123456789", "x.toml:6: storage.secret_key: must be a string"),
            ("buckte = \"a\"", "x.toml:5: storage.buckte: there is no such setting; did you mean storage.bucket?"),
        ] {
            let Err(Wrong(problems)) = check(given(&format!("{S3}{more}"))) else { panic!("{more} is taken") };
            assert!(problems.iter().any(|problem| problem.starts_with(named)), "{problems:?}");
            assert!(!problems.concat().contains("123456789"), "a secret is shown: {problems:?}");
        }
    }

    #[test]
    fn credentials_of_the_storage_come_by_variables_and_are_not_printed() {
        let variables = [("ACCESS_KEY", "12345678"), ("SECRET_KEY", "87654321")]
            .map(|(name, text)| (format!("VIRTUALSTACK_STORAGE_{name}").into(), text.into()));
        let file = Some((PathBuf::from("x.toml"), S3.to_owned()));
        let config = check(Given::new::<Config>(file, variables.into_iter(), Vec::new())).expect("settings");
        let secret = |secret: &Option<virtualstack_objects::Secret>| secret.as_ref().map(|secret| secret.0.clone());
        assert_eq!(secret(&config.storage.access_key).as_deref(), Some("12345678"));
        assert_eq!(secret(&config.storage.secret_key).as_deref(), Some("87654321"));
        let shown = format!("{config:?}");
        assert!(!shown.contains("12345678") && !shown.contains("87654321"), "{shown}");
    }

    #[test]
    fn an_address_is_one_that_mail_can_go_to() {
        for address in ["admin@example.com", "a.b+c@mail.example.co.uk", "admin@localhost", "ada@bücher.example"] {
            assert!(is_address(address), "{address}");
        }
        for text in
            ["", "admin", "@example.com", "a@", "a b@example.com", "a@b@c", "a@-b.c", "a@b..c", "<a@b.c>", "a@b\n.c"]
        {
            assert!(!is_address(text), "{text:?}");
        }
    }
}

//! Settings: defaults, then virtualstack.toml, then VIRTUALSTACK_* variables, then the command line.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use figment::providers::{Format as _, Serialized, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};
use serde::Deserialize;
use virtualstack_server::{GatewaySecret, MasterKey, password};
use virtualstack_worker::adapters::hypervisor::{simulated, vcenter};
use virtualstack_worker::adapters::mail;

const PREFIX: &str = "VIRTUALSTACK_";

/// Sections, as they stand in the names of variables: VIRTUALSTACK_<SECTION>_<KEY>.
const SECTIONS: [&str; 11] =
    ["admin", "database", "gateway", "hypervisor", "log", "mail", "ops", "server", "simulated", "vcenter", "worker"];

/// Settings that cannot be worked with.
#[derive(Debug)]
pub(crate) struct Wrong(pub(crate) String);

impl std::fmt::Display for Wrong {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "wrong settings: {}", self.0)
    }
}

impl std::error::Error for Wrong {}

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
    pub(crate) gateway: virtualstack_gateway::Config,
    pub(crate) ops: Ops,
    pub(crate) worker: virtualstack_worker::Config,
    pub(crate) hypervisor: Hypervisor,
    pub(crate) simulated: simulated::Config,
    pub(crate) vcenter: Option<vcenter::Config>,
    pub(crate) mail: mail::Config,
    pub(crate) log: Log,
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

    /// The master key that was given; none where `up` may make one.
    pub(crate) fn master_key(&self) -> Result<Option<MasterKey>, Wrong> {
        let key = read_key("master_key", self.master_key.as_deref(), self.master_key_file.as_deref())?;
        key.map(|key| self.with_previous(key)).transpose()
    }

    /// A master key together with the one before, while it is being changed.
    pub(crate) fn with_previous(&self, key: MasterKey) -> Result<MasterKey, Wrong> {
        let (text, file) = (self.master_key_previous.as_deref(), self.master_key_previous_file.as_deref());
        let previous = read_key("master_key_previous", text, file)?;
        Ok(previous.map_or(key.clone(), |previous| key.with_previous(&previous)))
    }

    /// The master key, which roles that run apart cannot do without.
    pub(crate) fn required_master_key(&self) -> Result<MasterKey, Wrong> {
        let missing = "master_key_file: is required (VIRTUALSTACK_MASTER_KEY_FILE, or VIRTUALSTACK_MASTER_KEY)";
        self.master_key()?.ok_or_else(|| Wrong(missing.to_owned()))
    }

    /// What gateways show the server, so that it believes what they say of their clients; None where nobody is believed.
    pub(crate) fn gateway_secret(&self) -> Result<Option<String>, Wrong> {
        let text = match (&self.gateway_secret, &self.gateway_secret_file) {
            (Some(_), Some(_)) => {
                return Err(Wrong("gateway_secret and gateway_secret_file are both set; set one".to_owned()));
            }
            (Some(secret), None) => secret.clone(),
            (None, Some(file)) => std::fs::read_to_string(file)
                .map_err(|error| Wrong(format!("gateway_secret_file: cannot read {}: {error}", file.display())))?,
            (None, None) => return Ok(None),
        };
        let text = text.trim().to_owned();
        GatewaySecret::new(&text).map_err(|error| Wrong(error.to_string())).map(|_| Some(text))
    }

    /// The database, which roles that run apart cannot do without.
    pub(crate) fn required_database(&self) -> Result<&virtualstack_store::Config, Wrong> {
        if self.database.url.is_empty() {
            return Err(Wrong("database.url: is required (VIRTUALSTACK_DATABASE_URL)".to_owned()));
        }
        Ok(&self.database)
    }

    fn check(&self) -> Result<(), Wrong> {
        if self.hypervisor.crash_at.is_some() && self.environment != Environment::Testing {
            return Err(Wrong("hypervisor.crash_at: only for environment = \"testing\"".to_owned()));
        }
        if self.hypervisor.kind == HypervisorKind::VCenter && self.vcenter.is_none() {
            return Err(Wrong("vcenter.url: is required with hypervisor.kind = \"vcenter\"".to_owned()));
        }
        self.mail.check().map_err(|error| Wrong(error.to_string()))?;
        if let Some(password) = &self.admin.password {
            password::check(password, self.admin.email.as_deref().as_slice())
                .map_err(|problem| Wrong(format!("admin.password: {problem}")))?;
        }
        if self.environment == Environment::Production {
            if self.hypervisor.kind == HypervisorKind::Simulated {
                return Err(Wrong("hypervisor.kind: \"simulated\" is not for environment = \"production\"".to_owned()));
            }
            if self.mail.kind == mail::Kind::File {
                return Err(Wrong("mail.kind: \"file\" is not for environment = \"production\"".to_owned()));
            }
        }
        Ok(())
    }
}

/// Reads a master key that stands in a setting, or in the file that another one names.
fn read_key(name: &str, text: Option<&str>, file: Option<&Path>) -> Result<Option<MasterKey>, Wrong> {
    let text = match (text, file) {
        (Some(_), Some(_)) => return Err(Wrong(format!("{name} and {name}_file are both set; set one"))),
        (Some(text), None) => text.to_owned(),
        (None, Some(file)) => std::fs::read_to_string(file)
            .map_err(|error| Wrong(format!("{name}_file: cannot read {}: {error}", file.display())))?,
        (None, None) => return Ok(None),
    };
    MasterKey::parse(&text).map(Some).map_err(|error| Wrong(error.to_string().replacen("master_key", name, 1)))
}

/// Loads the settings. `file` may be missing unless it was asked for; `arguments` are keys and values.
pub(crate) fn load(file: Option<&Path>, arguments: Vec<(&'static str, String)>) -> Result<Config, Wrong> {
    let path = file.unwrap_or(Path::new("virtualstack.toml"));
    if file.is_some() && !path.is_file() {
        return Err(Wrong(format!("--config: cannot read {}", path.display())));
    }
    let written = if path.is_file() { Figment::from(Toml::file_exact(path)) } else { Figment::new() };
    let settings = arguments
        .into_iter()
        .fold(written.merge(Variables), |settings, (key, value)| settings.merge(Serialized::default(key, value)));
    let config: Config = settings.extract().map_err(|error| Wrong(error.to_string()))?;
    config.check()?;
    Ok(config)
}

/// VIRTUALSTACK_* variables.
struct Variables;

impl Provider for Variables {
    fn metadata(&self) -> Metadata {
        Metadata::named("VIRTUALSTACK_* variables")
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let mut settings = Dict::new();
        #[expect(clippy::disallowed_methods, reason = "this is where settings come from")]
        let variables = std::env::vars();
        for (name, text) in variables {
            let Some(key) = name.strip_prefix(PREFIX).map(str::to_lowercase) else { continue };
            // What tests say to themselves.
            if key.starts_with("test_") {
                continue;
            }
            let section = SECTIONS.iter().find_map(|section| {
                key.strip_prefix(section)
                    .and_then(|rest| rest.strip_prefix('_'))
                    .map(|rest| (*section, rest.to_owned()))
            });
            match section {
                None => {
                    settings.insert(key.clone(), value(&key, text));
                }
                Some((section, key)) => {
                    let entry = settings.entry(section.to_owned()).or_insert_with(|| Value::from(Dict::new()));
                    if let Value::Dict(_, keys) = entry {
                        keys.insert(key.clone(), value(&key, text));
                    }
                }
            }
        }
        Ok(Profile::Default.collect(settings))
    }
}

/// A variable's value: numbers, booleans and lists as such, but what is text stays text, even a password of digits.
fn value(key: &str, text: String) -> Value {
    let is_text = ["password", "key", "key_previous", "secret", "username", "email", "url", "file", "from", "host"]
        .iter()
        .any(|kind| key.ends_with(kind));
    if is_text { Value::from(text) } else { text.parse().unwrap_or_else(|_| Value::from(text)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every key of the example, uncommented, is one that the product knows.
    #[test]
    fn the_example_names_settings_that_there_are() {
        let example = include_str!("../virtualstack.example.toml");
        let setting = |line: &&str| {
            let text = line.trim_start_matches('#');
            text.starts_with('[')
                || text
                    .split_once(" = ")
                    .is_some_and(|(key, _)| key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'))
        };
        let lines: Vec<_> = example.lines().filter(setting).map(|line| line.trim_start_matches('#')).collect();
        assert!(lines.len() > 50, "the example has lost its settings");
        let config = Figment::from(Toml::string(&lines.join("\n"))).extract::<Config>();
        config.unwrap_or_else(|error| panic!("virtualstack.example.toml: {error}"));
    }

    #[test]
    fn what_is_text_stays_text() {
        assert_eq!(value("password", "12345678901234".to_owned()).as_str(), Some("12345678901234"));
        assert_eq!(value("concurrency", "4".to_owned()).to_u128(), Some(4));
    }
}

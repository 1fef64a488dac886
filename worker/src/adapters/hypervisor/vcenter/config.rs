//! Settings of a vCenter and their checks.

use std::fmt;
use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::Url;
use serde::Deserialize;

pub use crate::adapters::Password;

/// How to reach a vCenter and where in its inventory to work. All but `url`, `username` and one of the two passwords
/// may be left out.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Address, e.g. `https://vcenter.example.com`; plain HTTP only on loopback.
    pub url: String,
    pub username: String,
    #[serde(default)]
    pub password: Option<Password>,
    /// File with its password; read anew at each login, so it can be changed without a restart.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// PEM file of the authorities to trust instead of the system's.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// Datacenter; not needed where there is one. This and all below is given by name, or by path as govc shows it:
    /// `/DC0/vm/templates`.
    #[serde(default)]
    pub datacenter: Option<String>,
    /// Folder for our VMs below the datacenter's, made if absent.
    #[serde(default = "default_vm_folder")]
    pub vm_folder: String,
    /// Folder of the templates on offer below the datacenter's.
    #[serde(default = "default_template_folder")]
    pub template_folder: String,
    /// Cluster, resource pool or `cluster/pool`; not needed where there is one cluster.
    #[serde(default)]
    pub resource_pool: Option<String>,
    /// Datastore for disks; by default each VM goes where its template or medium is.
    #[serde(default)]
    pub datastore: Option<String>,
    /// Network of VMs that are made from a medium; by default the first that the cluster offers. A clone has its
    /// template's.
    #[serde(default)]
    pub network: Option<String>,
    /// Calls that change something and are under way at once.
    #[serde(default = "default_max_changes")]
    pub max_changes: usize,
    /// Those of them that make VMs.
    #[serde(default = "default_max_clones")]
    pub max_clones: usize,
    /// How long to wait for an answer.
    #[serde(default = "default_request_timeout_seconds")]
    pub request_timeout_seconds: u64,
}

impl Config {
    /// Settings for an address and an account, everything else by default.
    pub fn new(url: impl Into<String>, username: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            username: username.into(),
            password: None,
            password_file: None,
            ca_file: None,
            datacenter: None,
            vm_folder: default_vm_folder(),
            template_folder: default_template_folder(),
            resource_pool: None,
            datastore: None,
            network: None,
            max_changes: default_max_changes(),
            max_clones: default_max_clones(),
            request_timeout_seconds: default_request_timeout_seconds(),
        }
    }

    /// Host of the vCenter.
    pub(super) fn host(&self) -> String {
        Url::parse(&self.url).ok().and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default()
    }

    pub(super) fn request_timeout(&self) -> Duration {
        Duration::from_secs(self.request_timeout_seconds)
    }

    /// Checks what can be checked without the vCenter and gives the address of its SOAP service.
    pub fn check(&self) -> Result<Url, ConfigError> {
        let mut url = Url::parse(&self.url).map_err(|e| ConfigError::new("url", e))?;
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let loopback = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        match url.scheme() {
            "https" => {}
            "http" if loopback => {}
            "http" => return Err(ConfigError::new("url", "plain http is allowed on loopback only")),
            other => return Err(ConfigError::new("url", format!("unknown scheme {other}"))),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(ConfigError::new("url", "must hold no credentials; use username and password"));
        }
        if matches!(url.path(), "" | "/") {
            url.set_path("/sdk");
        }
        for (key, value) in
            [("username", &self.username), ("vm_folder", &self.vm_folder), ("template_folder", &self.template_folder)]
        {
            if value.trim_matches('/').is_empty() {
                return Err(ConfigError::new(key, "must not be empty"));
            }
        }
        for (key, value) in [
            ("datacenter", &self.datacenter),
            ("resource_pool", &self.resource_pool),
            ("datastore", &self.datastore),
            ("network", &self.network),
        ] {
            if value.as_ref().is_some_and(|value| value.trim_matches(['/', ' ']).is_empty()) {
                return Err(ConfigError::new(key, "must not be empty; leave it out where there is one"));
            }
        }
        for (key, value) in [
            ("max_changes", self.max_changes as u64),
            ("max_clones", self.max_clones as u64),
            ("request_timeout_seconds", self.request_timeout_seconds),
        ] {
            if value == 0 {
                return Err(ConfigError::new(key, "must be at least 1"));
            }
        }
        self.read_password()?;
        Ok(url)
    }

    /// The password as it is now.
    pub(super) fn read_password(&self) -> Result<Password, ConfigError> {
        match (&self.password, &self.password_file) {
            (Some(_), Some(_)) => {
                Err(ConfigError::new("password_file", "password is set as well; give one of the two"))
            }
            (Some(password), None) => Ok(password.clone()),
            (None, Some(file)) => fs::read_to_string(file)
                .map(|text| Password(text.trim_end_matches(['\r', '\n']).to_owned()))
                .map_err(|e| ConfigError::new("password_file", format!("{}: {e}", file.display()))),
            (None, None) => Err(ConfigError::new("password", "missing; set it or password_file")),
        }
    }
}

fn default_vm_folder() -> String {
    "virtualstack".into()
}

fn default_template_folder() -> String {
    "templates".into()
}

const fn default_max_changes() -> usize {
    8
}

const fn default_max_clones() -> usize {
    4
}

const fn default_request_timeout_seconds() -> u64 {
    30
}

/// A setting that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("vcenter.{key}: {problem}")]
pub struct ConfigError {
    pub key: &'static str,
    /// What is wrong with it.
    pub problem: String,
}

impl ConfigError {
    pub(super) fn new(key: &'static str, problem: impl fmt::Display) -> Self {
        Self { key, problem: problem.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        Config { password: Some(Password("hunter2".into())), ..Config::new("https://vc.example.com", "a@b") }
    }

    #[test]
    fn the_password_is_not_printed() {
        assert!(!format!("{:?}", config()).contains("hunter2"));
    }

    #[test]
    fn the_address_gets_the_path_of_the_service() {
        assert_eq!(config().check().expect("valid").as_str(), "https://vc.example.com/sdk");
    }

    #[test]
    fn an_error_names_its_key() {
        let key = |config: Config| config.check().expect_err("refused").key;
        assert_eq!(key(Config { url: "http://vc.example.com".into(), ..config() }), "url");
        assert_eq!(key(Config { url: "ftp://localhost".into(), ..config() }), "url");
        assert_eq!(key(Config { url: "https://user:pw@vc.example.com".into(), ..config() }), "url");
        assert_eq!(key(Config { password: None, ..config() }), "password");
        assert_eq!(key(Config { password_file: Some("/none".into()), ..config() }), "password_file");
        assert_eq!(key(Config { password: None, password_file: Some("/none".into()), ..config() }), "password_file");
        assert_eq!(key(Config { vm_folder: "/".into(), ..config() }), "vm_folder");
        assert_eq!(key(Config { max_clones: 0, ..config() }), "max_clones");
        assert_eq!(key(Config { datacenter: Some(String::new()), ..config() }), "datacenter");
        assert_eq!(key(Config { resource_pool: Some("/".into()), ..config() }), "resource_pool");
        assert!(Config { url: "http://[::1]:8989/sdk".into(), ..config() }.check().is_ok());
    }

    #[test]
    fn unknown_settings_are_refused() {
        let text = r#"{"url": "https://vc", "username": "u", "pasword": "x"}"#;
        assert!(serde_json::from_str::<Config>(text).expect_err("refused").to_string().contains("pasword"));
    }
}

//! Settings of mail and their checks.

use std::fmt;
use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;

use lettre::message::Mailbox;
use reqwest::Url;
use serde::Deserialize;

use crate::adapters::Password;

/// How mail leaves.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    pub kind: Kind,
    pub folder: Option<PathBuf>,
    /// Sender: an address, or a name and an address in angle brackets.
    pub from: String,
    /// What links in mails begin with: the console's address.
    pub link_base: String,
    pub smtp_host: Option<String>,
    /// Its port; by default that of the security: 587, 465 or 25.
    pub smtp_port: Option<u16>,
    /// Whether and when TLS starts.
    pub smtp_security: Security,
    /// PEM file of the authorities to trust instead of the system's.
    pub smtp_ca_file: Option<PathBuf>,
    /// Account at the relay; none where it asks for none.
    pub smtp_username: Option<String>,
    pub smtp_password: Option<Password>,
    /// File with its password; read anew for each mail, so it can be changed without a restart.
    pub smtp_password_file: Option<PathBuf>,
    /// Seconds that handing a mail over may take.
    pub timeout_seconds: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            kind: Kind::File,
            folder: None,
            from: "VirtualStack <no-reply@virtualstack.local>".to_owned(),
            link_base: "http://127.0.0.1:8080".to_owned(),
            smtp_host: None,
            smtp_port: None,
            smtp_security: Security::StartTls,
            smtp_ca_file: None,
            smtp_username: None,
            smtp_password: None,
            smtp_password_file: None,
            timeout_seconds: 30,
        }
    }
}

/// The adapters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Each mail becomes a file: for development.
    File,
    Smtp,
}

/// Security of the way to the relay. Each is used or the mail stays: nothing falls back to less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Security {
    StartTls,
    /// TLS from the first byte.
    Tls,
    /// None: for a relay on this machine or network.
    None,
}

impl Config {
    /// Checks what can be checked without looking outside.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.sender()?;
        let url = Url::parse(&self.link_base).map_err(|e| ConfigError::new("link_base", e))?;
        let plain = url.username().is_empty() && url.password().is_none() && url.query().is_none();
        if !matches!(url.scheme(), "http" | "https") || !plain || url.fragment().is_some() {
            return Err(ConfigError::new(
                "link_base",
                "must be an http or https URL without credentials, query or fragment",
            ));
        }
        if self.timeout_seconds == 0 {
            return Err(ConfigError::new("timeout_seconds", "must be at least 1"));
        }
        if self.kind == Kind::Smtp { self.check_smtp() } else { Ok(()) }
    }

    fn check_smtp(&self) -> Result<(), ConfigError> {
        let host = self.host()?;
        if self.smtp_port == Some(0) {
            return Err(ConfigError::new("smtp_port", "must be at least 1"));
        }
        if self.smtp_password.is_some() && self.smtp_password_file.is_some() {
            return Err(ConfigError::new("smtp_password_file", "smtp_password is set as well; give one of the two"));
        }
        let has_password = self.smtp_password.is_some() || self.smtp_password_file.is_some();
        if self.smtp_username.is_some() != has_password {
            let (key, other) =
                if has_password { ("smtp_username", "a password") } else { ("smtp_password", "smtp_username") };
            return Err(ConfigError::new(key, format!("is required with {other}")));
        }
        if self.smtp_ca_file.is_some() && self.smtp_security == Security::None {
            return Err(ConfigError::new("smtp_ca_file", "is of no use with smtp_security = \"none\""));
        }
        let loopback = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        if has_password && self.smtp_security == Security::None && !loopback {
            return Err(ConfigError::new("smtp_security", "\"none\" would show the password to the network"));
        }
        Ok(())
    }

    /// The relay.
    pub(super) fn host(&self) -> Result<&str, ConfigError> {
        let host = self.smtp_host.as_deref().filter(|host| !host.trim().is_empty());
        host.ok_or_else(|| ConfigError::new("smtp_host", "is required with mail.kind = \"smtp\""))
    }

    /// The sender.
    pub(super) fn sender(&self) -> Result<Mailbox, ConfigError> {
        self.from.parse().map_err(|e| ConfigError::new("from", e))
    }

    /// The password as it is now; none where the relay asks for none.
    pub(super) fn read_password(&self) -> Result<Option<Password>, ConfigError> {
        let Some(file) = &self.smtp_password_file else { return Ok(self.smtp_password.clone()) };
        let text = fs::read_to_string(file)
            .map_err(|e| ConfigError::new("smtp_password_file", format!("{}: {e}", file.display())))?;
        Ok(Some(Password(text.trim_end_matches(['\r', '\n']).to_owned())))
    }
}

/// A setting that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("mail.{key}: {problem}")]
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

    fn smtp() -> Config {
        Config { kind: Kind::Smtp, smtp_host: Some("mail.example.com".into()), ..Config::default() }
    }

    fn account() -> Config {
        Config { smtp_username: Some("ada".into()), smtp_password: Some(Password("hunter2".into())), ..smtp() }
    }

    #[test]
    fn the_password_is_not_printed() {
        assert!(!format!("{:?}", account()).contains("hunter2"));
    }

    #[test]
    fn an_error_names_its_key() {
        for config in [Config::default(), smtp(), account()] {
            config.check().expect("valid");
        }
        let text = |config: Config| config.check().expect_err("refused").to_string();
        assert_eq!(text(Config { smtp_host: None, ..smtp() }), "mail.smtp_host: is required with mail.kind = \"smtp\"");
        let key = |config: Config| config.check().expect_err("refused").key;
        assert_eq!(key(Config { from: "nobody".into(), ..Config::default() }), "from");
        assert_eq!(key(Config { from: "a@b.c\r\nBcc: d@e.f".into(), ..Config::default() }), "from");
        assert_eq!(key(Config { link_base: "example.com".into(), ..Config::default() }), "link_base");
        assert_eq!(key(Config { link_base: "ftp://example.com".into(), ..Config::default() }), "link_base");
        assert_eq!(key(Config { link_base: "https://example.com?a=b".into(), ..Config::default() }), "link_base");
        assert_eq!(key(Config { timeout_seconds: 0, ..Config::default() }), "timeout_seconds");
        assert_eq!(key(Config { smtp_host: Some(" ".into()), ..smtp() }), "smtp_host");
        assert_eq!(key(Config { smtp_port: Some(0), ..smtp() }), "smtp_port");
        assert_eq!(key(Config { smtp_password: None, ..account() }), "smtp_password");
        assert_eq!(key(Config { smtp_username: None, ..account() }), "smtp_username");
        assert_eq!(key(Config { smtp_password_file: Some("/none".into()), ..account() }), "smtp_password_file");
        assert_eq!(key(Config { smtp_security: Security::None, ..account() }), "smtp_security");
        let local = Config { smtp_host: Some("127.0.0.1".into()), smtp_security: Security::None, ..account() };
        local.check().expect("nobody listens on loopback");
        let file = Config { smtp_password: None, smtp_password_file: Some("/none".into()), ..account() };
        assert_eq!(file.read_password().expect_err("refused").key, "smtp_password_file");
    }

    #[test]
    fn unknown_settings_are_refused() {
        let error = serde_json::from_str::<Config>(r#"{"smtp_hots": "x"}"#).expect_err("refused");
        assert!(error.to_string().contains("smtp_hots"));
    }
}

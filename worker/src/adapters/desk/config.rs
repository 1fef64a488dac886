//! Settings of the desk and their checks.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::PathBuf;

use reqwest::Url;
use serde::Deserialize;

use crate::adapters::Password;

/// Headers that say something else, by how they begin.
const OTHERS_HEADERS: [&str; 4] = ["x-forwarded", "x-virtualstack", "x-api-key", "x-request-id"];

/// Where tickets are answered.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    pub kind: Kind,
    /// Address of the desk, e.g. `https://example.freshservice.com`.
    pub url: Option<String>,
    /// Key of the agent that we are there.
    pub api_key: Option<Password>,
    /// File with it; read anew for each call, so it can be changed without a restart.
    pub api_key_file: Option<PathBuf>,
    /// Custom field of text that keeps our id of a ticket; a tag does where there is none.
    pub id_field: Option<String>,
    /// What the desk's own states are here: `6 = "PENDING"`. The usual four need no line.
    pub states: BTreeMap<String, String>,
    /// Who answers, as tenants see it.
    pub staff_name: String,
    /// Secrets by which the desk says that something has changed there: one in the path, one in the header.
    pub webhook_secrets: Option<Password>,
    /// File with both, with a space or a line's end between them.
    pub webhook_secrets_file: Option<PathBuf>,
    /// Header of the second one.
    pub webhook_header: String,
    /// Share of the desk's calls that is left to others, in percent.
    pub headroom_percent: u8,
    /// Seconds to wait where fewer calls than that are left.
    pub pause_seconds: u64,
    /// Seconds that a call may take.
    pub timeout_seconds: u64,
    /// Seconds until what was put there is found by a search, at the latest.
    pub search_delay_seconds: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            kind: Kind::Local,
            url: None,
            api_key: None,
            api_key_file: None,
            id_field: None,
            states: BTreeMap::new(),
            staff_name: "Support".to_owned(),
            webhook_secrets: None,
            webhook_secrets_file: None,
            webhook_header: "x-desk-secret".to_owned(),
            headroom_percent: 20,
            pause_seconds: 15,
            timeout_seconds: 30,
            search_delay_seconds: 120,
        }
    }
}

/// The desks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Operators answer here.
    Local,
    Freshservice,
}

impl Config {
    /// Checks what can be checked without looking outside.
    pub fn check(&self) -> Result<(), ConfigError> {
        // Gateways pass it, whatever the desk is.
        if !self.webhook_header.starts_with("x-")
            || OTHERS_HEADERS.iter().any(|other| self.webhook_header.starts_with(other))
        {
            let problem = "must be a header of its own in lower case, beginning with x-";
            return Err(ConfigError::new("webhook_header", problem));
        }
        if self.kind == Kind::Local {
            return Ok(());
        }
        self.base()?;
        if self.api_key.is_none() && self.api_key_file.is_none() {
            return Err(ConfigError::new("api_key_file", "is required where the desk is another program"));
        }
        for (state, ours) in &self.states {
            if state.parse::<u32>().is_err()
                || virtualstack_model::support::ticket::TicketState::from_word(ours).is_none()
            {
                return Err(ConfigError::new(
                    "states",
                    format!("{state} = {ours:?} is not a number and OPEN, PENDING, RESOLVED or CLOSED"),
                ));
            }
        }
        if self.headroom_percent > 90 {
            return Err(ConfigError::new("headroom_percent", "must be at most 90"));
        }
        Ok(())
    }

    /// The secrets of the path and of the header, if the desk tells of changes.
    pub fn webhook(&self) -> Result<Option<(Password, Password)>, ConfigError> {
        let (key, text) = match (&self.webhook_secrets_file, &self.webhook_secrets) {
            (Some(file), _) => {
                let failed = |e| ConfigError::new("webhook_secrets_file", format!("{}: {e}", file.display()));
                ("webhook_secrets_file", fs::read_to_string(file).map_err(failed)?)
            }
            (None, Some(given)) => ("webhook_secrets", given.0.clone()),
            (None, None) => return Ok(None),
        };
        let words: Vec<_> = text.split_whitespace().collect();
        let is_secret = |word: &&str| {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
            (32..=200).contains(&word.len()) && word.bytes().all(plain)
        };
        match words[..] {
            [path, header] if words.iter().all(is_secret) && path != header => {
                Ok(Some((Password(path.to_owned()), Password(header.to_owned()))))
            }
            _ => Err(ConfigError::new(key, "must hold two different words of 32 to 200 letters, digits, - and _")),
        }
    }

    /// Where the desk is: by https, but on this machine.
    pub(super) fn base(&self) -> Result<Url, ConfigError> {
        let wrong = |problem: &str| ConfigError::new("url", problem);
        let url = self.url.as_deref().ok_or_else(|| wrong("is required where the desk is another program"))?;
        let url = Url::parse(url).map_err(|error| ConfigError::new("url", error))?;
        let here = matches!(url.host_str(), Some("127.0.0.1" | "localhost" | "[::1]"));
        if url.scheme() != "https" && !(url.scheme() == "http" && here) {
            return Err(wrong("must begin with https://, or http:// on loopback"));
        }
        if !url.username().is_empty() || url.password().is_some() || url.query().is_some() {
            return Err(wrong("must hold neither a name, nor a password, nor a query"));
        }
        Ok(url)
    }

    /// The key, as it is now.
    pub(super) fn read_key(&self) -> Result<Password, ConfigError> {
        if let Some(file) = &self.api_key_file {
            let text = fs::read_to_string(file)
                .map_err(|e| ConfigError::new("api_key_file", format!("{}: {e}", file.display())))?;
            return Ok(Password(text.trim().to_owned()));
        }
        self.api_key.clone().ok_or_else(|| ConfigError::new("api_key", "is required"))
    }
}

/// A setting that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("desk.{key}: {problem}")]
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

    #[test]
    fn what_a_desk_needs_is_asked_for() {
        let fresh = || Config {
            kind: Kind::Freshservice,
            url: Some("https://acme.freshservice.com".to_owned()),
            api_key: Some(Password("key".to_owned())),
            ..Config::default()
        };
        assert!(Config::default().check().is_ok() && fresh().check().is_ok());
        assert!(Config { url: Some("http://127.0.0.1:1".to_owned()), ..fresh() }.check().is_ok());
        let states = |state: &str, ours: &str| BTreeMap::from([(state.to_owned(), ours.to_owned())]);
        assert!(Config { states: states("6", "PENDING"), ..fresh() }.check().is_ok());
        for (wrong, key) in [
            (Config { url: None, ..fresh() }, "url"),
            (Config { url: Some("http://desk.example.com".to_owned()), ..fresh() }, "url"),
            (Config { url: Some("https://me:you@desk.example.com".to_owned()), ..fresh() }, "url"),
            (Config { api_key: None, ..fresh() }, "api_key_file"),
            (Config { states: states("6", "WAITING"), ..fresh() }, "states"),
            (Config { headroom_percent: 91, ..fresh() }, "headroom_percent"),
            (Config { webhook_header: "authorization".to_owned(), ..fresh() }, "webhook_header"),
            (Config { webhook_header: "x-forwarded-for".to_owned(), ..fresh() }, "webhook_header"),
            (Config { webhook_header: "x-api-key".to_owned(), ..Config::default() }, "webhook_header"),
        ] {
            assert_eq!(wrong.check().expect_err(key).key, key);
        }
        for (wrong, key) in [
            (Config { webhook_secrets: Some(Password("a".repeat(40))), ..fresh() }, "webhook_secrets"),
            (Config { webhook_secrets: Some(Password(["a"; 2].join(" "))), ..fresh() }, "webhook_secrets"),
            (Config { webhook_secrets_file: Some("/nowhere".into()), ..fresh() }, "webhook_secrets_file"),
        ] {
            assert_eq!(wrong.webhook().expect_err(key).key, key);
        }
        let secrets = Some(Password(format!("{}\n{}\n", "a".repeat(32), "b".repeat(32))));
        let (path, header) = Config { webhook_secrets: secrets, ..fresh() }.webhook().expect("read").expect("given");
        assert_eq!((path.0, header.0), ("a".repeat(32), "b".repeat(32)));
        assert!(!format!("{:?}", fresh()).contains("\"key\""), "no key is printed");
    }
}

//! Settings of the storage and their checks.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use reqwest::Url;
use serde::Deserialize;

/// Where objects are kept.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    pub kind: Kind,
    /// Folder of a local store, made if absent.
    pub folder: Option<PathBuf>,
    /// Address of an S3, e.g. `https://s3.example.com`; plain HTTP only on loopback.
    pub endpoint: Option<String>,
    pub bucket: Option<String>,
    pub region: String,
    pub access_key: Option<Secret>,
    /// File with it. This one and the next are read anew when the store refuses what was in them, and now and then.
    pub access_key_file: Option<PathBuf>,
    pub secret_key: Option<Secret>,
    pub secret_key_file: Option<PathBuf>,
    /// PEM file of the authorities to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// Whether the bucket stands in the path; else it stands before the host.
    pub path_style: bool,
    /// What the keys in a bucket begin with, segments with `/` between them.
    pub prefix: String,
    pub connect_timeout_seconds: u64,
    /// Seconds to wait for an answer, and for each piece of one.
    pub request_timeout_seconds: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            kind: Kind::Local,
            folder: None,
            endpoint: None,
            bucket: None,
            region: "us-east-1".to_owned(),
            access_key: None,
            access_key_file: None,
            secret_key: None,
            secret_key_file: None,
            ca_file: None,
            path_style: true,
            prefix: String::new(),
            connect_timeout_seconds: 5,
            request_timeout_seconds: 30,
        }
    }
}

/// The stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A folder that all servers and workers see.
    Local,
    S3,
}

/// One half of the credentials; never printed.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Config {
    /// Checks what can be checked without looking outside.
    pub fn check(&self) -> Result<(), ConfigError> {
        for (key, value) in [
            ("connect_timeout_seconds", self.connect_timeout_seconds),
            ("request_timeout_seconds", self.request_timeout_seconds),
        ] {
            if value == 0 {
                return Err(ConfigError::new(key, "must be at least 1"));
            }
        }
        if self.kind == Kind::S3 { self.check_s3() } else { Ok(()) }
    }

    fn check_s3(&self) -> Result<(), ConfigError> {
        self.url()?;
        self.check_pair("access_key", "access_key_file", self.access_key.as_ref(), self.access_key_file.is_some())?;
        self.check_pair("secret_key", "secret_key_file", self.secret_key.as_ref(), self.secret_key_file.is_some())?;
        if self.region.trim().is_empty() {
            return Err(ConfigError::new("region", "must not be empty; most stores take \"us-east-1\""));
        }
        if !self.prefix.is_empty() && self.prefix.parse::<crate::key::Key>().is_err() {
            return Err(ConfigError::new("prefix", "must be like \"virtualstack\" or \"a/b\""));
        }
        Ok(())
    }

    fn check_pair(
        &self,
        key: &'static str,
        in_file: &'static str,
        text: Option<&Secret>,
        file: bool,
    ) -> Result<(), ConfigError> {
        match (text, file) {
            (Some(_), true) => Err(ConfigError::new(in_file, format!("{key} is set as well; give one of the two"))),
            (None, false) => {
                Err(ConfigError::new(key, format!("is required with storage.kind = \"s3\", or {in_file}")))
            }
            (Some(text), false) if text.0.trim().is_empty() => Err(ConfigError::new(key, "must not be empty")),
            _ => Ok(()),
        }
    }

    /// The bucket, as its name can stand in a host.
    pub(crate) fn bucket(&self) -> Result<&str, ConfigError> {
        let wrong = |problem: &str| ConfigError::new("bucket", problem);
        let bucket = self.bucket.as_deref().ok_or_else(|| wrong("is required with storage.kind = \"s3\""))?;
        let inside = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
        let ends = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
        let bytes = bucket.as_bytes();
        if !(3..=63).contains(&bytes.len())
            || !bucket.bytes().all(inside)
            || !ends(bytes.first())
            || !ends(bytes.last())
        {
            return Err(wrong("must be 3 to 63 small letters, digits, '-' and '.'"));
        }
        Ok(bucket)
    }

    /// The address that requests go to: with the bucket in its host where it does not stand in the path.
    pub(crate) fn url(&self) -> Result<Url, ConfigError> {
        let wrong = |problem: String| ConfigError::new("endpoint", problem);
        let text =
            self.endpoint.as_deref().ok_or_else(|| wrong("is required with storage.kind = \"s3\"".to_owned()))?;
        let mut url = Url::parse(text).map_err(|error| wrong(error.to_string()))?;
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let address = host.parse::<IpAddr>().ok();
        let loopback = host == "localhost" || address.is_some_and(|ip| ip.is_loopback());
        match url.scheme() {
            "https" => {}
            "http" if loopback => {}
            "http" => return Err(wrong("plain http is allowed on loopback only".to_owned())),
            other => return Err(wrong(format!("unknown scheme {other}"))),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong("must hold no credentials; use access_key and secret_key".to_owned()));
        }
        if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
            return Err(wrong("must be like https://host:port; what comes after it is bucket and prefix".to_owned()));
        }
        let bucket = self.bucket()?;
        if !self.path_style {
            if address.is_some() {
                return Err(ConfigError::new("path_style", "must be true where the endpoint is an IP address"));
            }
            url.set_host(Some(&format!("{bucket}.{host}"))).map_err(|error| wrong(error.to_string()))?;
        }
        Ok(url)
    }
}

/// A setting that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("storage.{key}: {problem}")]
pub struct ConfigError {
    pub key: &'static str,
    /// What is wrong with it.
    pub problem: String,
}

impl ConfigError {
    pub(crate) fn new(key: &'static str, problem: impl fmt::Display) -> Self {
        Self { key, problem: problem.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s3() -> Config {
        Config {
            kind: Kind::S3,
            endpoint: Some("https://s3.example.com".into()),
            bucket: Some("uploads".into()),
            access_key: Some(Secret("AKIAHUNTER".into())),
            secret_key: Some(Secret("hunter2".into())),
            ..Config::default()
        }
    }

    fn at(endpoint: &str) -> Config {
        Config { endpoint: Some(endpoint.into()), ..s3() }
    }

    #[test]
    fn credentials_are_not_printed() {
        let text = format!("{:?}", s3());
        assert!(!text.contains("hunter2") && !text.contains("AKIAHUNTER"), "{text}");
    }

    #[test]
    fn an_error_names_its_key() {
        for config in [Config::default(), s3(), at("http://127.0.0.1:7070"), at("http://[::1]:1/")] {
            config.check().expect("valid");
        }
        let text = |config: Config| config.check().expect_err("refused").to_string();
        assert_eq!(text(Config { bucket: None, ..s3() }), "storage.bucket: is required with storage.kind = \"s3\"");
        let key = |config: Config| config.check().expect_err("refused").key;
        assert_eq!(key(Config { endpoint: None, ..s3() }), "endpoint");
        for endpoint in [
            "http://s3.example.com",
            "ftp://localhost",
            "https://u:p@s3.example.com",
            "https://s3.example.com/uploads",
            "https://s3.example.com?x=y",
            "s3.example.com",
            "http://127.0.0.1.example.com",
        ] {
            assert_eq!(key(at(endpoint)), "endpoint", "{endpoint}");
        }
        for bucket in ["", "ab", "Uploads", "a/b", "-abc", "abc.", "a_b", &"a".repeat(64)] {
            assert_eq!(key(Config { bucket: Some(bucket.into()), ..s3() }), "bucket", "{bucket}");
        }
        assert_eq!(key(Config { access_key: None, ..s3() }), "access_key");
        assert_eq!(key(Config { secret_key: Some(Secret(" ".into())), ..s3() }), "secret_key");
        assert_eq!(key(Config { access_key_file: Some("/none".into()), ..s3() }), "access_key_file");
        assert_eq!(key(Config { secret_key_file: Some("/none".into()), ..s3() }), "secret_key_file");
        assert_eq!(key(Config { region: String::new(), ..s3() }), "region");
        assert_eq!(key(Config { prefix: "/a".into(), ..s3() }), "prefix");
        assert_eq!(key(Config { request_timeout_seconds: 0, ..s3() }), "request_timeout_seconds");
        assert_eq!(key(Config { connect_timeout_seconds: 0, ..Config::default() }), "connect_timeout_seconds");
        assert_eq!(key(Config { path_style: false, ..at("http://127.0.0.1:1") }), "path_style");
    }

    #[test]
    fn a_bucket_stands_in_the_path_or_before_the_host() {
        let url = |config: Config| config.url().expect("an address").to_string();
        assert_eq!(url(s3()), "https://s3.example.com/");
        let config = Config { path_style: false, ..at("https://s3.example.com:9000") };
        assert_eq!(url(config), "https://uploads.s3.example.com:9000/");
    }

    #[test]
    fn unknown_settings_are_refused() {
        let error = serde_json::from_str::<Config>(r#"{"buckte": "x"}"#).expect_err("refused");
        assert!(error.to_string().contains("buckte"));
        let config: Config = serde_json::from_str(r#"{"kind": "s3"}"#).expect("settings");
        assert_eq!((config.kind, config.path_style), (Kind::S3, true));
    }
}

//! The credentials for an S3, which may change in their files while we run.

use std::fmt;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use object_store::CredentialProvider;
use object_store::aws::AwsCredential;

use crate::config::{Config, ConfigError, Secret};

/// How old what was read of the files may be. So credentials that were replaced are in use before they are refused.
const FRESH: Duration = Duration::from_secs(30);

/// What requests are signed with.
pub(super) struct Credentials {
    config: Config,
    read: Mutex<Read>,
}

struct Read {
    credential: Arc<AwsCredential>,
    at: Instant,
}

impl Credentials {
    pub(super) fn new(config: &Config) -> Result<Self, ConfigError> {
        let read = Read { credential: Arc::new(read(config)?), at: Instant::now() };
        Ok(Self { config: config.clone(), read: Mutex::new(read) })
    }

    /// What requests are signed with now.
    pub(super) fn current(&self) -> Arc<AwsCredential> {
        Arc::clone(&self.lock().credential)
    }

    /// Reads the files, and says whether they hold anything else than was refused. What cannot be read changes nothing:
    /// somebody may be writing it.
    pub(super) fn read_anew(&self, refused: &AwsCredential) -> bool {
        let found = read(&self.config);
        let mut read = self.lock();
        read.at = Instant::now();
        match found {
            Ok(found) if !is_same(&found, &read.credential) => {
                tracing::info!("the storage's credentials have changed");
                read.credential = Arc::new(found);
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "the storage's credentials stay as they were"),
        }
        !is_same(&read.credential, refused)
    }

    fn are_in_files(&self) -> bool {
        self.config.access_key_file.is_some() || self.config.secret_key_file.is_some()
    }

    fn lock(&self) -> MutexGuard<'_, Read> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl CredentialProvider for Credentials {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let (current, at) = {
            let read = self.lock();
            (Arc::clone(&read.credential), read.at)
        };
        if self.are_in_files() && at.elapsed() >= FRESH {
            self.read_anew(&current);
        }
        Ok(self.current())
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(…)")
    }
}

fn is_same(one: &AwsCredential, other: &AwsCredential) -> bool {
    one.key_id == other.key_id && one.secret_key == other.secret_key
}

fn read(config: &Config) -> Result<AwsCredential, ConfigError> {
    let key_id =
        read_half("access_key", config.access_key.as_ref(), "access_key_file", config.access_key_file.as_deref())?;
    let secret_key =
        read_half("secret_key", config.secret_key.as_ref(), "secret_key_file", config.secret_key_file.as_deref())?;
    Ok(AwsCredential { key_id, secret_key, token: None })
}

fn read_half(
    key: &'static str,
    text: Option<&Secret>,
    in_file: &'static str,
    file: Option<&Path>,
) -> Result<String, ConfigError> {
    let Some(file) = file else {
        return text.map(|text| text.0.trim().to_owned()).ok_or_else(|| ConfigError::new(key, "is required"));
    };
    let wrong = |problem: &dyn fmt::Display| ConfigError::new(in_file, format!("{}: {problem}", file.display()));
    let text = fs::read_to_string(file).map_err(|error| wrong(&error))?;
    let text = text.trim();
    if text.is_empty() { Err(wrong(&"is empty")) } else { Ok(text.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_anew_and_what_is_half_written_changes_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let (access, secret) = (folder.path().join("access"), folder.path().join("secret"));
        let write = |file: &Path, text: &str| fs::write(file, text).expect("written");
        let config = Config {
            access_key_file: Some(access.clone()),
            secret_key_file: Some(secret.clone()),
            ..Config::default()
        };
        assert_eq!(Credentials::new(&config).expect_err("refused").key, "access_key_file");
        write(&access, "one\n");
        write(&secret, "first\r\n");
        let credentials = Credentials::new(&config).expect("credentials");
        let first = credentials.current();
        assert_eq!((first.key_id.as_str(), first.secret_key.as_str()), ("one", "first"));
        assert!(!credentials.read_anew(&first), "nothing has changed");
        write(&secret, "");
        assert!(!credentials.read_anew(&first), "an empty file is one that is being written");
        write(&secret, "second\n");
        assert!(credentials.read_anew(&first));
        assert_eq!(credentials.current().secret_key, "second");
        assert!(credentials.read_anew(&first), "another request was refused before that");
        assert!(!format!("{credentials:?}").contains("second"));
    }

    #[tokio::test]
    async fn what_is_old_is_read_anew_without_a_refusal() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("secret");
        fs::write(&file, "first").expect("written");
        let config =
            Config { access_key: Some(Secret("one".into())), secret_key_file: Some(file.clone()), ..Config::default() };
        let credentials = Credentials::new(&config).expect("credentials");
        fs::write(&file, "second").expect("written");
        let secret = async || credentials.get_credential().await.expect("credentials").secret_key.clone();
        assert_eq!(secret().await, "first");
        credentials.lock().at = Instant::now().checked_sub(FRESH).expect("a moment ago");
        assert_eq!(secret().await, "second");
    }
}

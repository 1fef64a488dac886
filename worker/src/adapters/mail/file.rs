//! Mails as files: `<id>.eml` in a folder, named in the order of their time. For development.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use lettre::message::Mailbox;
use uuid::Uuid;

use super::config::{Config, ConfigError};
use super::mailer::{Fault, Mailer, Message, format};

/// Writes mails into a folder that, like them, only its owner can read.
pub struct File {
    folder: PathBuf,
    from: Mailbox,
}

impl File {
    /// Makes the folder unless it is there.
    pub fn new(config: &Config, folder: &Path) -> Result<Self, ConfigError> {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(|e| ConfigError::new("folder", format!("cannot make {}: {e}", folder.display())))?;
        Ok(Self { folder: folder.to_owned(), from: config.sender()? })
    }
}

#[async_trait]
impl Mailer for File {
    async fn send(&self, message: Message) -> Result<(), Fault> {
        let id = message.id;
        let mail = format(message, &self.from)?.formatted();
        let folder = self.folder.clone();
        let written = tokio::task::spawn_blocking(move || write(&folder, id, &mail)).await;
        written
            .map_err(io::Error::other)
            .flatten()
            .map_err(|error| Fault { retry: true, message: format!("cannot write a mail: {error}") })
    }
}

/// Writes a mail under another name first: a reader never sees half of it.
fn write(folder: &Path, id: Uuid, mail: &[u8]) -> io::Result<()> {
    let new = folder.join(format!(".{id}.new"));
    let written = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new).and_then(|mut file| {
        file.write_all(mail)?;
        file.sync_all()?;
        fs::rename(&new, folder.join(format!("{id}.eml")))
    });
    if written.is_err() {
        let _ = fs::remove_file(&new);
    }
    written
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::adapters::mail::mailer;

    fn message(text: &str) -> Message {
        mailer::message("ada@example.com", "Hi", text)
    }

    #[tokio::test]
    async fn each_mail_is_a_file_of_its_owner() {
        let parent = tempfile::tempdir().expect("a folder");
        let folder = parent.path().join("mail");
        let mailer = File::new(&Config::default(), &folder).expect("a mailer");
        for text in ["first\n", "second\n"] {
            mailer.send(message(text)).await.expect("sent");
        }
        File::new(&Config::default(), &folder).expect("again");
        let mode = |path: &Path| fs::metadata(path).expect("metadata").permissions().mode() & 0o777;
        assert_eq!(mode(&folder), 0o700);
        let mut files: Vec<_> = fs::read_dir(&folder).expect("a folder").map(|f| f.expect("a file").path()).collect();
        files.sort();
        assert_eq!(files.len(), 2, "nothing but mails: {files:?}");
        for (file, text) in files.iter().zip(["first\r\n", "second\r\n"]) {
            assert_eq!(file.extension().expect("a suffix"), "eml");
            assert_eq!(mode(file), 0o600);
            assert!(fs::read_to_string(file).expect("a mail").contains(&format!("\r\n\r\n{text}")));
        }
    }

    #[tokio::test]
    async fn what_cannot_be_written_may_be_written_later() {
        let parent = tempfile::tempdir().expect("a folder");
        let folder = parent.path().join("mail");
        let mailer = File::new(&Config::default(), &folder).expect("a mailer");
        fs::remove_dir(&folder).expect("removed");
        assert!(mailer.send(message("lost\n")).await.expect_err("nowhere to write").retry);
        fs::write(&folder, "a file").expect("written");
        assert_eq!(File::new(&Config::default(), &folder).err().expect("refused").key, "folder");
    }
}

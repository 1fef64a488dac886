//! The mails that a control plane has sent, as their readers see them.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use mailparse::{MailHeaderMap as _, parse_mail};

/// A mailbox of everybody.
pub(crate) struct Mails {
    folder: tempfile::TempDir,
    read: Mutex<HashSet<PathBuf>>,
}

impl Mails {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a folder"), read: Mutex::default() }
    }

    /// Where a mailer is to write them.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The texts of all mails to an address so far, the first one first.
    pub(crate) fn to(&self, address: &str) -> Vec<String> {
        self.files_to(address).into_iter().map(|(_, text)| text).collect()
    }

    /// The text of the first mail to an address that was not given yet; waits 30 s for it.
    pub(crate) async fn next_to(&self, address: &str) -> String {
        for _ in 0..600 {
            for (file, text) in self.files_to(address) {
                if self.read.lock().expect("no panic").insert(file) {
                    return text;
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("no mail to {address} within 30 s")
    }

    fn files_to(&self, address: &str) -> Vec<(PathBuf, String)> {
        let files = fs::read_dir(self.folder()).expect("a folder").map(|file| file.expect("a file").path());
        // Names go by time.
        let mut files: Vec<_> = files.filter(|file| file.extension().is_some_and(|suffix| suffix == "eml")).collect();
        files.sort();
        let text = |file: PathBuf| {
            let bytes = fs::read(&file).expect("a whole mail");
            let mail = parse_mail(&bytes).expect("a mail");
            let to = mail.headers.get_first_value("To").expect("a recipient");
            let plain = mail.subparts.first().unwrap_or(&mail);
            to.eq_ignore_ascii_case(address).then(|| (file, plain.get_body().expect("a text").replace("\r\n", "\n")))
        };
        files.into_iter().filter_map(text).collect()
    }
}

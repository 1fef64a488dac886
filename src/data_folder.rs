//! The folder of everything that `up` keeps: one process at a time has it.

use std::fs;
use std::fs::TryLockError;
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use virtualstack_server::MasterKey;

/// How often a lock is tried again: one that was killed a moment ago holds its lock until the system has cleared it away.
const TRIES: u32 = 10;
const BETWEEN_TRIES: Duration = Duration::from_millis(100);

/// A data folder that is ours for as long as this lives.
#[derive(Debug)]
pub(crate) struct DataFolder {
    path: PathBuf,
    _lock: fs::File,
}

impl DataFolder {
    /// Takes a folder, made if there is none.
    pub(crate) async fn take(path: &Path) -> anyhow::Result<Self> {
        let named = || format!("data_dir: cannot use {}", path.display());
        fs::create_dir_all(path).with_context(named)?;
        let file = path.join("lock");
        let open = fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&file);
        let mut lock = open.with_context(named)?;
        for tried in 1.. {
            match lock.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if tried < TRIES => tokio::time::sleep(BETWEEN_TRIES).await,
                Err(TryLockError::WouldBlock) => {
                    let mut holder = String::new();
                    let _ = lock.read_to_string(&mut holder);
                    bail!(
                        "data_dir: {} is in use by process {}; stop that one, or choose another --data-dir",
                        path.display(),
                        holder.trim()
                    )
                }
                Err(TryLockError::Error(error)) => return Err(error).with_context(named),
            }
        }
        lock.set_len(0).and_then(|()| lock.rewind()).with_context(named)?;
        writeln!(lock, "{}", std::process::id()).with_context(named)?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The master key in it, made at the first start.
    pub(crate) fn master_key(&self) -> anyhow::Result<MasterKey> {
        let file = self.path.join("master.key");
        match read_master_key(&self.path)? {
            Some(key) => Ok(key),
            None => {
                let key = MasterKey::generate()?;
                write_private(&file, &key.to_hex()).with_context(|| format!("cannot write {}", file.display()))?;
                Ok(key)
            }
        }
    }
}

/// The master key of a data folder, if `up` has made one there.
pub(crate) fn read_master_key(folder: &Path) -> anyhow::Result<Option<MasterKey>> {
    let file = folder.join("master.key");
    if !file.exists() {
        return Ok(None);
    }
    let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    MasterKey::parse(&text).map(Some).with_context(|| format!("{} is damaged", file.display()))
}

/// Writes a file that only its owner can read, whole or not at all.
pub(crate) fn write_private(file: &Path, text: &str) -> anyhow::Result<()> {
    let mut name = file.as_os_str().to_owned();
    name.push(".new");
    let _ = fs::remove_file(&name);
    let mut new = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&name)?;
    new.write_all(text.as_bytes())?;
    new.sync_all()?;
    fs::rename(&name, file)?;
    Ok(())
}

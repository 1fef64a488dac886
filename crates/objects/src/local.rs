//! Objects as files in a folder, which any number of processes may share.
//!
//! Not object_store's own local store: that leaves files readable by everybody, lists in no order and with none to go on
//! from, reads 8 KiB at a time, and leaves what was cut off beside the objects, where only a walk over all of them finds it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio::sync::mpsc;
use tokio_util::io::ReaderStream;
use uuid::Uuid;

use crate::config::{Config, ConfigError};
use crate::fault::{Class, Fault};
use crate::key::Key;
use crate::listed::Listed;
use crate::walk::walk;

/// Where files are written before they get their names. No key leads there. It is made when the store is opened and never
/// again: where it is missing, the folder is not the one that it was, such as a mount that has gone.
const NEW: &str = ".new";
/// Bytes of one read.
const PIECE: usize = 256 << 10;
/// Entries that a list is ahead of its reader.
const AHEAD: usize = 256;
/// How often a file is given its name when deletes take the empty folder away meanwhile.
const TRIES: u32 = 16;

/// A folder of objects.
pub(crate) struct Local {
    folder: PathBuf,
}

impl Local {
    pub(crate) fn open(config: &Config) -> Result<Self, ConfigError> {
        let given = config.folder.as_ref();
        let given = given.ok_or_else(|| ConfigError::new("folder", "is required with storage.kind = \"local\""))?;
        let wrong = |error: io::Error| ConfigError::new("folder", format!("cannot use {}: {error}", given.display()));
        make_folder(&given.join(NEW)).map_err(wrong)?;
        let folder = given.canonicalize().map_err(wrong)?;
        // So that a power cut leaves the folder, too.
        for folder in folder.join(NEW).ancestors().take(3) {
            sync_folder(folder).map_err(wrong)?;
        }
        Ok(Self { folder })
    }

    fn path(&self, key: &Key) -> PathBuf {
        self.folder.join(key.as_str())
    }

    pub(crate) async fn put(self: &Arc<Self>, key: &Key, bytes: Vec<Bytes>) -> Result<(), Fault> {
        let path = self.path(key);
        self.blocking(move |local| local.write(&path, &bytes)).await
    }

    fn write(&self, path: &Path, bytes: &[Bytes]) -> io::Result<()> {
        let new = self.folder.join(NEW).join(Uuid::now_v7().to_string());
        let written = stage(&new, bytes).and_then(|()| self.publish(&new, path));
        if written.is_err() {
            let _ = fs::remove_file(&new);
        }
        written
    }

    /// Gives a file its name, which a power cut does not take away: every folder on the way is on disk, whoever made it.
    fn publish(&self, new: &Path, path: &Path) -> io::Result<()> {
        let parent = path.parent().unwrap_or(&self.folder);
        for tried in 1.. {
            make_folder(parent)?;
            match fs::rename(new, path) {
                Err(error) if error.kind() == ErrorKind::NotFound && tried < TRIES && new.exists() => {}
                Err(error) => return Err(error),
                Ok(()) => break,
            }
        }
        parent.ancestors().take_while(|folder| folder.starts_with(&self.folder)).try_for_each(sync_folder)
    }

    pub(crate) async fn read(
        self: &Arc<Self>,
        key: &Key,
        range: Range<u64>,
    ) -> Result<BoxStream<'static, Result<Bytes, Fault>>, Fault> {
        let path = self.path(key);
        let file = self.blocking(move |local| local.open_file(&path)).await?;
        let mut file = tokio::fs::File::from_std(file);
        file.seek(io::SeekFrom::Start(range.start)).await.map_err(fault)?;
        let file = file.take(range.end.saturating_sub(range.start));
        Ok(ReaderStream::with_capacity(file, PIECE).map_err(fault).boxed())
    }

    /// The file of an object. A folder is none.
    fn open_file(&self, path: &Path) -> io::Result<File> {
        let file = File::open(path)?;
        if file.metadata()?.is_file() { Ok(file) } else { Err(ErrorKind::NotFound.into()) }
    }

    pub(crate) async fn delete(self: &Arc<Self>, keys: Vec<Key>) -> Result<(), Fault> {
        self.blocking(move |local| keys.iter().try_for_each(|key| local.remove(&local.path(key)))).await
    }

    /// Removes a file and the folders that are empty then.
    fn remove(&self, path: &Path) -> io::Result<()> {
        match fs::remove_file(path) {
            Err(error) if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Err(error),
            _ => {}
        }
        for folder in path.ancestors().skip(1).take_while(|folder| *folder != self.folder) {
            if fs::remove_dir(folder).is_err() {
                break;
            }
        }
        Ok(())
    }

    pub(crate) fn list(
        self: &Arc<Self>,
        prefix: &str,
        after: Option<&Key>,
    ) -> BoxStream<'static, Result<Listed, Fault>> {
        let (local, prefix, after) = (Arc::clone(self), prefix.to_owned(), after.map(Key::to_string));
        let (sender, receiver) = mpsc::channel(AHEAD);
        tokio::task::spawn_blocking(move || {
            if let Err(fault) = local.look() {
                let _ = sender.blocking_send(Err(fault));
                return;
            }
            // It ends when nobody reads any more.
            walk(&local.folder, &prefix, after.as_deref(), |listed| {
                sender.blocking_send(listed.map_err(fault)).is_ok()
            });
        });
        stream::unfold(receiver, |mut receiver| async { receiver.recv().await.map(|listed| (listed, receiver)) })
            .boxed()
    }

    pub(crate) async fn sweep_temporary(self: &Arc<Self>, older_than: Duration) -> Result<u64, Fault> {
        self.blocking(move |local| {
            let Some(before) = SystemTime::now().checked_sub(older_than) else { return Ok(0) };
            let mut swept = 0;
            for entry in fs::read_dir(local.folder.join(NEW))? {
                swept += u64::from(sweep(&entry?, before)?);
            }
            Ok(swept)
        })
        .await
    }

    /// Whether the folder is there: else each of its objects would seem to be gone.
    fn look(&self) -> Result<(), Fault> {
        let new = self.folder.join(NEW);
        let gone =
            |error| Fault::new(Class::Retry, format!("storage.folder: {}: {error}; is it mounted?", new.display()));
        fs::metadata(&new).map(|_| ()).map_err(gone)
    }

    /// Does what blocks, where that is allowed, and tells what is missing from a folder that is.
    async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> io::Result<T> + Send + 'static,
    ) -> Result<T, Fault> {
        let local = Arc::clone(self);
        let work = move || {
            local.look()?;
            work(&local).map_err(fault)
        };
        let cut_off = |error: tokio::task::JoinError| Err(Fault::new(Class::Retry, error.to_string()));
        tokio::task::spawn_blocking(work).await.unwrap_or_else(cut_off)
    }
}

/// Makes a folder, and those above it, that only their owner can look into.
fn make_folder(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Writes a file that only its owner can read and a power cut does not take away.
fn stage(new: &Path, bytes: &[Bytes]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(new)?;
    bytes.iter().try_for_each(|bytes| file.write_all(bytes))?;
    file.sync_all()
}

/// Brings the names in a folder to disk, where the file system knows how to.
fn sync_folder(folder: &Path) -> io::Result<()> {
    match File::open(folder).and_then(|folder| folder.sync_all()) {
        // A delete has taken it meanwhile, with what was put; or this is another's, above our own.
        Err(error)
            if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidInput | ErrorKind::PermissionDenied) =>
        {
            Ok(())
        }
        done => done,
    }
}

/// Removes a file unless it was written since, or somebody else has.
fn sweep(entry: &fs::DirEntry, before: SystemTime) -> io::Result<bool> {
    let swept = entry.metadata().and_then(|metadata| {
        let old = metadata.modified()? < before;
        if old { fs::remove_file(entry.path()).map(|()| true) } else { Ok(false) }
    });
    match swept {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        swept => swept,
    }
}

fn fault(error: io::Error) -> Fault {
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => Fault::new(Class::Missing, error.to_string()),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Fault::new(Class::Full, error.to_string()),
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem | ErrorKind::IsADirectory => {
            Fault::new(Class::Permanent, format!("storage.folder: {error}"))
        }
        _ => Fault::new(Class::Retry, format!("storage.folder: {error}")),
    }
}

//! The storage as its callers see it.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use uuid::Uuid;

use crate::config::{Config, ConfigError, Kind};
use crate::fault::{Class, Fault};
use crate::key::Key;
use crate::listed::Listed;
use crate::local::Local;
use crate::s3::S3;

/// Bytes of an object at most.
pub const MAX_OBJECT: usize = 8 << 20;

/// Where [`Objects::check`] puts its own. What is left there is what any object without a row is.
const CHECKS: &str = "checks";

/// The storage of the settings. Cheap to clone.
#[derive(Clone)]
pub struct Objects(Store);

#[derive(Clone)]
enum Store {
    Local(Arc<Local>),
    S3(Arc<S3>),
}

impl fmt::Debug for Objects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Store::Local(_) => "Objects(Local)",
            Store::S3(_) => "Objects(S3)",
        })
    }
}

impl Objects {
    /// Opens the storage. A local folder is made; an S3 is not asked anything: it need not be up.
    pub fn open(config: &Config) -> Result<Self, ConfigError> {
        config.check()?;
        Ok(Self(match config.kind {
            Kind::Local => Store::Local(Arc::new(Local::open(config)?)),
            Kind::S3 => Store::S3(Arc::new(S3::open(config)?)),
        }))
    }

    /// Puts an object, whole or not at all. Once this has returned it is there whatever happens. A second put of a key
    /// takes the place of the first.
    pub async fn put(&self, key: &Key, bytes: Vec<Bytes>) -> Result<(), Fault> {
        let size: usize = bytes.iter().map(Bytes::len).sum();
        if size > MAX_OBJECT {
            return Err(Fault::new(
                Class::Permanent,
                format!("{key}: {size} bytes; an object has {MAX_OBJECT} at most"),
            ));
        }
        match &self.0 {
            Store::Local(local) => local.put(key, bytes).await,
            Store::S3(s3) => s3.put(key, bytes).await,
        }
    }

    /// Reads a part of an object: as much of the range as there is, which is nothing beyond its end.
    pub async fn read(&self, key: &Key, range: Range<u64>) -> Result<BoxStream<'static, Result<Bytes, Fault>>, Fault> {
        // Nothing is longer, and both ends have to be numbers that an S3 and a file system know.
        let end = range.end.min(MAX_OBJECT as u64);
        let range = range.start.min(end)..end;
        match &self.0 {
            Store::Local(local) => local.read(key, range).await,
            Store::S3(s3) => s3.read(key, range).await,
        }
    }

    /// Deletes objects; those that are gone already are no fault. After a fault some of them may be there.
    pub async fn delete(&self, keys: &[Key]) -> Result<(), Fault> {
        match &self.0 {
            Store::Local(local) => local.delete(keys.to_vec()).await,
            Store::S3(s3) => s3.delete(keys).await,
        }
    }

    /// Lists the objects whose keys begin with a text, those after a key, in the order of their keys' bytes. What in the
    /// store is no object of ours is left out. It takes the memory of a page, or of a folder's names.
    pub fn list(&self, prefix: &str, after: Option<&Key>) -> BoxStream<'static, Result<Listed, Fault>> {
        match &self.0 {
            Store::Local(local) => local.list(prefix, after),
            Store::S3(s3) => s3.list(prefix, after),
        }
    }

    /// Removes what puts that were cut off have left in a folder, from so long ago that none is at work on it, and says
    /// how much that was. An S3 keeps no such thing.
    pub async fn sweep_temporary(&self, older_than: Duration) -> Result<u64, Fault> {
        match &self.0 {
            Store::Local(local) => local.sweep_temporary(older_than).await,
            Store::S3(_) => Ok(0),
        }
    }

    /// Looks whether the storage does all that it is for: puts a tiny object, lists, reads and deletes it.
    pub async fn check(&self) -> Result<(), Fault> {
        let id = Uuid::now_v7().to_string();
        let key = Key::new([CHECKS, &id]).map_err(|error| Fault::new(Class::Permanent, error.to_string()))?;
        self.put(&key, vec![Bytes::from(id.clone())]).await?;
        let listed = self.list(key.as_str(), None).next().await.transpose()?;
        let read: Vec<Bytes> = self.read(&key, 0..u64::MAX).await?.try_collect().await?;
        self.delete(std::slice::from_ref(&key)).await?;
        if listed.is_none_or(|listed| listed.key != key) || read.concat() != id.as_bytes() {
            return Err(Fault::new(Class::Permanent, format!("{key}: what was put is not what was listed and read")));
        }
        Ok(())
    }
}

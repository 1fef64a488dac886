//! Whether the database takes writes, as far as transactions have found out. It answers reads all the same, so nothing else
//! would tell whoever asks whether this process is ready.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use virtualstack_model::{Error, Result};

use crate::tx::error::{FULL, READ_ONLY, refused_write};

/// How long a write that was refused is held against the database. Where it is used, there is another one by then.
const MEMORY: Duration = Duration::from_secs(15);

/// What became of the last write that was refused, shared by all transactions of a store.
#[derive(Clone, Default)]
pub(crate) struct Room(Arc<Mutex<Option<(Instant, &'static str)>>>);

impl Room {
    /// Notes how a transaction ended.
    pub(crate) fn note<T>(&self, ended: &Result<T>) {
        if let Err(error) = ended
            && [FULL, READ_ONLY].contains(&error.reason())
        {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), error.reason()));
        }
    }

    /// An error while the database takes no writes.
    pub(crate) fn check(&self) -> Result<()> {
        match *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Some((at, reason)) if at.elapsed() < MEMORY => Err(refused_write(reason, Error::internal(reason))),
            _ => Ok(()),
        }
    }
}

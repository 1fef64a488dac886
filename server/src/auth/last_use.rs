//! When API keys were last used: noted off the way of requests, at most once a minute per key.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, TimeDelta, Utc};
use tokio::sync::mpsc;
use virtualstack_model::id::ApiKeyId;
use virtualstack_store::iam::api_keys::{self, Use};
use virtualstack_store::{Store, SystemPurpose, SystemScope};

/// A use within this time of the one that was noted is not noted.
const APART: TimeDelta = TimeDelta::minutes(1);

/// Uses that wait to be written, at most.
const WAITING: usize = 1024;

/// Keys whose last use is remembered, at most; the database refuses what is noted too often all the same.
const REMEMBERED: usize = 65_536;

/// Where uses are noted.
#[derive(Clone)]
pub(crate) struct LastUse {
    noted: Arc<Mutex<HashMap<ApiKeyId, DateTime<Utc>>>>,
    queue: mpsc::Sender<Use>,
}

impl LastUse {
    /// Starts what writes the notes. It ends with the last clone of what is returned.
    pub(crate) fn start(store: Store) -> Self {
        let (last_use, uses) = Self::new(WAITING);
        tokio::spawn(write(store, uses));
        last_use
    }

    fn new(waiting: usize) -> (Self, mpsc::Receiver<Use>) {
        let (queue, uses) = mpsc::channel(waiting);
        (Self { noted: Arc::default(), queue }, uses)
    }

    /// Notes that a key was used now. Never waits.
    pub(crate) fn note(&self, key: ApiKeyId, from: Option<IpAddr>) {
        self.note_at(Use { key, at: Utc::now(), from });
    }

    fn note_at(&self, one: Use) {
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        if noted.get(&one.key).is_some_and(|last| one.at - *last < APART) {
            return;
        }
        // Where too many wait, the next use of the key tries again.
        if self.queue.try_send(one).is_ok() {
            if noted.len() >= REMEMBERED {
                noted.clear();
            }
            noted.insert(one.key, one.at);
        }
    }
}

async fn write(store: Store, mut uses: mpsc::Receiver<Use>) {
    let mut batch = Vec::with_capacity(WAITING);
    while uses.recv_many(&mut batch, WAITING).await > 0 {
        let written = store.system(system(), async |tx| api_keys::note_uses(tx, &batch).await).await;
        if let Err(error) = written {
            tracing::warn!(keys = batch.len(), "the last use of API keys could not be noted: {error}");
        }
        batch.clear();
    }
}

/// Leave to work across tenants.
#[expect(clippy::disallowed_methods, reason = "the keys that were used are of any tenant")]
fn system() -> SystemScope {
    SystemScope::new(SystemPurpose::KeyUse)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_noted_once_a_minute() {
        let (last_use, mut uses) = LastUse::new(8);
        let (first, other) = (ApiKeyId::new(), ApiKeyId::new());
        let start = Utc::now();
        let mut noted = |key, seconds| {
            last_use.note_at(Use { key, at: start + TimeDelta::seconds(seconds), from: None });
            uses.try_recv().is_ok()
        };
        assert!(noted(first, 0));
        assert!(!noted(first, 0) && !noted(first, 59));
        assert!(noted(other, 59));
        assert!(noted(first, 60));
        assert!(!noted(first, 119) && !noted(other, 118));
        assert!(noted(other, 119) && noted(first, 120));
    }

    #[test]
    fn what_found_no_room_is_tried_again() {
        let (last_use, mut uses) = LastUse::new(1);
        let (first, second) = (ApiKeyId::new(), ApiKeyId::new());
        last_use.note(first, None);
        last_use.note(second, None);
        assert_eq!(uses.try_recv().expect("the first").key, first);
        uses.try_recv().expect_err("there was no room for the second");
        last_use.note(second, None);
        assert_eq!(uses.try_recv().expect("the second").key, second);
    }
}

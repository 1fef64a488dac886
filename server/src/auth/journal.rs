//! The rows of the audit log that no transaction of their own writes: who was turned away, and what operators read in a tenant.
//!
//! They are written off the way of the call. Equal ones become one row, which counts for [`COUNTED_FOR`] from its first call;
//! what comes later begins a new one. Each tenant has a share of the rows that are kept: whoever floods the log takes room
//! from nobody else, and what finds none is counted and not written.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use chrono::TimeDelta;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use virtualstack_model::Result;
use virtualstack_model::id::{AccountId, TenantId};
use virtualstack_model::log::{Audit, Outcome, Tally};
use virtualstack_store::iam::accounts::{self, Choice};
use virtualstack_store::iam::api_keys;
use virtualstack_store::{Store, SystemPurpose, SystemScope, SystemTx};

/// How long a row counts.
const COUNTED_FOR: Duration = Duration::from_secs(60);

/// How often counts are written that have grown. A new row is written at once.
const PACE: Duration = Duration::from_secs(1);

/// Rows that are kept at most, of one tenant and altogether. Those who are of no tenant have a share, too.
const MOST_OF_TENANT: usize = 1_000;
const MOST: usize = 10_000;

/// Rows of one commit at most.
const BATCH: usize = 200;

/// Takes rows in.
#[derive(Clone, Default)]
pub(crate) struct Journal(Arc<Shared>);

#[derive(Default)]
struct Shared {
    rows: Mutex<Rows>,
    /// There is a new row.
    more: Notify,
}

/// In whose log a row stands.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Whose {
    Tenant(TenantId),
    /// That of the named tenant, by slug or full name, where the account is in it; else of all tenants of the account.
    Account(AccountId, String),
    /// That of the tenant that an API key is or was of, by its public part.
    Key(String),
    /// The platform's.
    Nobody,
}

impl Whose {
    /// Whose share of the rows it takes: strangers can name accounts and keys.
    fn share(&self) -> Option<TenantId> {
        if let Self::Tenant(tenant) = self { Some(*tenant) } else { None }
    }

    /// The tenants whose logs it stands in, None for the platform's, and the name of the resource where that is known by now.
    async fn find(&self, tx: &mut SystemTx) -> Result<Vec<(Option<TenantId>, Option<String>)>> {
        let found = match self {
            Self::Tenant(tenant) => vec![(Some(*tenant), None)],
            Self::Account(account, named) => {
                let tenants = accounts::choices(tx, *account).await?;
                let is_named = |choice: &&Choice| *named == choice.slug || *named == choice.id.name();
                let named: Vec<_> = tenants.iter().filter(is_named).map(|choice| (Some(choice.id), None)).collect();
                let all = tenants.iter().map(|choice| (Some(choice.id), None));
                if named.is_empty() { all.collect() } else { named }
            }
            Self::Key(public_id) => {
                let key = api_keys::known_as(tx, public_id).await?;
                key.into_iter().map(|(tenant, id)| (Some(tenant), Some(id.name()))).collect()
            }
            Self::Nobody => Vec::new(),
        };
        Ok(if found.is_empty() { vec![(None, None)] } else { found })
    }
}

/// What makes calls equal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    whose: Whose,
    actor: String,
    credential: Option<String>,
    action: String,
    outcome: Outcome,
    resource: String,
    client: Option<IpAddr>,
}

impl Key {
    fn of(whose: Whose, audit: &Audit) -> Self {
        Self {
            whose,
            actor: audit.actor.name(),
            credential: audit.actor.credential().map(|credential| credential.name()),
            action: audit.action.clone(),
            outcome: audit.outcome.clone(),
            resource: audit.resource.clone(),
            client: audit.client_address,
        }
    }
}

/// A log that a row stands in.
#[derive(Clone, Debug)]
struct Log {
    tenant: Option<TenantId>,
    id: Uuid,
    /// Full name of the resource, where the row did not know it.
    resource: Option<String>,
}

/// A row, by its first call.
#[derive(Clone, Debug)]
struct Row {
    whose: Whose,
    audit: Arc<Audit>,
    /// In which logs it stands, once that was looked for.
    logs: Arc<OnceLock<Vec<Log>>>,
    count: i64,
    span: TimeDelta,
    began: Instant,
    /// How many of its calls are written.
    written: i64,
}

impl Row {
    fn counts(&self, now: Instant) -> bool {
        now.duration_since(self.began) < COUNTED_FOR
    }

    fn is_due(&self) -> bool {
        self.written < self.count
    }

    async fn write(&self, tx: &mut SystemTx) -> Result<()> {
        let logs = match self.logs.get() {
            Some(logs) => logs,
            None => {
                let found = self.whose.find(tx).await?;
                let log = |(tenant, resource)| Log { tenant, id: Uuid::now_v7(), resource };
                self.logs.get_or_init(|| found.into_iter().map(log).collect())
            }
        };
        for Log { tenant, id, resource } in logs {
            let mut audit = Audit::clone(&self.audit);
            audit.resource = resource.clone().unwrap_or(audit.resource);
            tx.audit_counted(*tenant, &audit, Tally { id: *id, count: self.count, span: self.span }).await?;
        }
        Ok(())
    }
}

/// Rows that count, and those that count no more and are not written whole.
#[derive(Default)]
struct Rows {
    counting: HashMap<Key, Row>,
    over: Vec<Row>,
    of_tenant: HashMap<Option<TenantId>, usize>,
}

impl Rows {
    /// Says whether there is a new row; None where there is no room for one.
    fn record(&mut self, whose: Whose, audit: Audit, now: Instant) -> Option<bool> {
        let key = Key::of(whose, &audit);
        if let Some(row) = self.counting.get_mut(&key) {
            if row.counts(now) {
                row.count += 1;
                row.span = TimeDelta::from_std(now.duration_since(row.began)).unwrap_or_default();
                return Some(false);
            }
            self.end(&key);
        }
        if self.counting.len() + self.over.len() >= MOST {
            return None;
        }
        let whose = key.whose.clone();
        let held = self.of_tenant.entry(whose.share()).or_default();
        if *held >= MOST_OF_TENANT {
            return None;
        }
        *held += 1;
        let (audit, logs) = (Arc::new(audit), Arc::default());
        let row = Row { whose, audit, logs, count: 1, span: TimeDelta::zero(), began: now, written: 0 };
        self.counting.insert(key, row);
        Some(true)
    }

    /// A row counts no more.
    fn end(&mut self, key: &Key) {
        match self.counting.remove(key) {
            Some(row) if row.is_due() => self.over.push(row),
            Some(row) => self.give_back(&row.whose),
            None => {}
        }
    }

    fn give_back(&mut self, whose: &Whose) {
        if let Some(held) = self.of_tenant.get_mut(&whose.share()) {
            *held -= 1;
            if *held == 0 {
                self.of_tenant.remove(&whose.share());
            }
        }
    }

    /// Rows that are not written whole.
    fn due(&self) -> Vec<Row> {
        self.over.iter().chain(self.counting.values()).filter(|row| row.is_due()).cloned().collect()
    }

    /// Those that were written as they are here.
    fn written(&mut self, rows: &[Row], now: Instant) {
        let written: HashMap<_, _> = rows.iter().map(|row| (Arc::as_ptr(&row.logs), row.count)).collect();
        for row in self.counting.values_mut().chain(&mut self.over) {
            row.written = written.get(&Arc::as_ptr(&row.logs)).copied().unwrap_or(row.written);
        }
        let ended: Vec<_> = self.over.extract_if(.., |row| !row.is_due()).collect();
        ended.iter().for_each(|row| self.give_back(&row.whose));
        let ended: Vec<_> =
            self.counting.iter().filter(|(_, row)| !row.counts(now)).map(|(key, _)| key.clone()).collect();
        ended.iter().for_each(|key| self.end(key));
    }
}

impl Journal {
    /// Takes a call in; never waits.
    pub(crate) fn record(&self, whose: Whose, audit: Audit) {
        let recorded = self.rows().record(whose, audit, Instant::now());
        match recorded {
            Some(true) => self.0.more.notify_one(),
            Some(false) => {}
            None => metrics::counter!("virtualstack_audit_dropped_total").increment(1),
        }
    }

    /// Writes until `stop`, and then what is left.
    pub(crate) async fn write(self, store: Store, stop: CancellationToken) {
        let mut stopping = false;
        while !stopping {
            tokio::select! {
                () = self.0.more.notified() => {}
                () = tokio::time::sleep(PACE) => {}
                () = stop.cancelled() => stopping = true,
            }
            // What cannot be written stays due.
            if let Err(error) = self.write_due(&store).await {
                tracing::warn!(%error, "cannot write to the audit log");
                tokio::time::sleep(if stopping { Duration::ZERO } else { PACE }).await;
            }
        }
    }

    async fn write_due(&self, store: &Store) -> Result<()> {
        let due = self.rows().due();
        for rows in due.chunks(BATCH) {
            let write = async |tx: &mut SystemTx| {
                for row in rows {
                    row.write(tx).await?;
                }
                Ok(())
            };
            store.system(system(), write).await?;
            self.rows().written(rows, Instant::now());
        }
        if due.is_empty() {
            self.rows().written(&[], Instant::now());
        }
        Ok(())
    }

    fn rows(&self) -> MutexGuard<'_, Rows> {
        self.0.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Leave to work across tenants.
#[expect(clippy::disallowed_methods, reason = "whoever was turned away may be of any tenant, or of none")]
fn system() -> SystemScope {
    SystemScope::new(SystemPurpose::Audit)
}

#[cfg(test)]
mod tests {
    use virtualstack_model::log::Actor;

    use super::*;

    fn audit(action: &str) -> Audit {
        Audit {
            action: action.to_owned(),
            actor: Actor::Nobody,
            resource: String::new(),
            request_id: "r".to_owned(),
            client_address: None,
            traceparent: None,
            outcome: Outcome::Denied("PERMISSION_MISSING".into()),
        }
    }

    #[test]
    fn equal_calls_are_one_row_for_a_minute_from_the_first() {
        let (mut rows, began) = (Rows::default(), Instant::now());
        let tenant = TenantId::new();
        let record = |rows: &mut Rows, action, at| rows.record(Whose::Tenant(tenant), audit(action), at);
        let at = |seconds| began + Duration::from_secs(seconds);
        assert_eq!(record(&mut rows, "a", at(0)), Some(true));
        let first = rows.due();
        rows.written(&first, at(0));
        assert!(rows.due().is_empty());
        // Each call within the minute counts, and none makes the minute longer.
        for second in [20, 40, 59] {
            assert_eq!(record(&mut rows, "a", at(second)), Some(false));
        }
        assert_eq!(record(&mut rows, "b", at(59)), Some(true), "another action is another row");
        assert_eq!(record(&mut rows, "a", at(60)), Some(true), "a new row begins");
        let mut due = rows.due();
        due.sort_by_key(|row| (row.audit.action.clone(), row.began));
        let told: Vec<_> = due.iter().map(|row| (&*row.audit.action, row.count)).collect();
        assert_eq!(told, [("a", 4), ("a", 1), ("b", 1)]);
        assert!(Arc::ptr_eq(&due[0].logs, &first[0].logs), "the row that was written already");
        assert_eq!(due[0].span, TimeDelta::seconds(59));
        // What was counted while it was written is due again, and what is whole and over is forgotten.
        assert_eq!(record(&mut rows, "b", at(61)), Some(false));
        rows.written(&due, at(61));
        assert_eq!(rows.due().iter().map(|row| row.count).collect::<Vec<_>>(), [2]);
        let due = rows.due();
        rows.written(&due, at(200));
        assert!(rows.counting.is_empty() && rows.over.is_empty() && rows.of_tenant.is_empty());
    }

    #[test]
    fn a_tenant_that_floods_takes_room_from_no_other() {
        let (mut rows, now) = (Rows::default(), Instant::now());
        let (loud, quiet) = (Whose::Tenant(TenantId::new()), Whose::Tenant(TenantId::new()));
        let taken =
            (0..3 * MOST_OF_TENANT).filter(|call| rows.record(loud.clone(), audit(&call.to_string()), now).is_some());
        assert_eq!(taken.count(), MOST_OF_TENANT);
        assert_eq!(rows.record(quiet, audit("a"), now), Some(true));
        assert_eq!(rows.record(Whose::Nobody, audit("a"), now), Some(true));
        // Equal calls need no room.
        assert_eq!(rows.record(loud, audit("0"), now), Some(false));
        // Nor can many tenants together take more than there is.
        let all = (0..2 * MOST).filter(|_| rows.record(Whose::Tenant(TenantId::new()), audit("a"), now).is_some());
        assert_eq!(all.count(), MOST - MOST_OF_TENANT - 2);
    }
}
